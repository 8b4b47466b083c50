"""`sigward serve` as a child process, with settings of its own and free ports."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from sigward.errors import DemoError

READY = re.compile(r"sigward: listening (.*)")


class Sidecar:
    """Use it with `with`. `settings`: sigward.toml's text, without listeners, admin and ca_dir, which are added.

    `addresses`: "forward", "reverse:0", …, "admin" to (host, port).
    """

    def __init__(self, directory: Path, settings: str, environment: dict[str, str], reverse: tuple[str | None, ...] = ()) -> None:
        self.directory = directory
        self.ca_dir = directory / "ca"
        listeners = "".join(
            f'[[reverse]]\nlisten = "127.0.0.1:0"\n' + (f'upstream = "{upstream}"\n' if upstream else "") for upstream in reverse
        )
        head = f'listen = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\nca_dir = "{self.ca_dir}"\n'
        self.config = directory / "sigward.toml"
        self.config.write_text(head + settings + listeners)
        self.environment = environment
        self.addresses: dict[str, tuple[str, int]] = {}
        self.log: list[str] = []
        self._told = threading.Event()

    @property
    def ca_file(self) -> Path:
        """What clients of its forward proxy must trust."""
        return self.ca_dir / "mitmproxy-ca-cert.pem"

    @property
    def proxy(self) -> str:
        """The forward proxy, as HTTPS_PROXY wants it."""
        return self.url("forward")

    def url(self, listener: str) -> str:
        """http://host:port of a listener."""
        host, port = self.addresses[listener]
        return f"http://{host}:{port}"

    def __enter__(self) -> "Sidecar":
        self.process = subprocess.Popen(  # noqa: S603 - this interpreter, this package
            [sys.executable, "-m", "sigward", "serve", "--config", str(self.config)],
            env=self.environment,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name="sidecar-log", daemon=True)
        self._reader.start()
        self._told.wait(60)
        if not self.addresses:
            self.stop()
            raise DemoError("sigward did not start:\n" + "".join(self.log[-10:]), hint="The lines above say why.")
        return self

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if match := READY.search(line):
                pairs = (pair.split("=", 1) for pair in match[1].split())
                for name, address in pairs:
                    host, _, port = address.rpartition(":")
                    self.addresses[name] = (host.strip("[]"), int(port))
                self._told.set()
        self._told.set()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._reader.join(5)
        return status

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def bare_environment(**more: str) -> dict[str, str]:
    """This process's environment without anything of AWS's or of proxies, and `more`."""
    hidden = ("AWS_", "SIGWARD_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(hidden)}
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", "PYTHONUNBUFFERED": "1", **more}
