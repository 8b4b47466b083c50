"""Child processes for the demo and the end-to-end tests: started, watched by their output, always ended."""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from sigward.errors import DemoError

START_SECONDS = 60.0
"""The longest that a child may take to get ready: importing the emulator on a busy machine takes a while."""

STOP_SECONDS = 20.0


def clean_environment() -> dict[str, str]:
    """This process's environment without keys, profiles, proxies or settings of whoever runs it.

    The metadata service is off and the shared files are empty, so that a child has the keys it is given and no others.
    """
    return clean_environment_of(os.environ)


def clean_environment_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The same of another environment."""
    proxies = (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "ssl_cert_file",
        "requests_ca_bundle",
        "curl_ca_bundle",
    )
    kept = {name: value for name, value in environment.items() if not name.startswith(("AWS_", "SIGWARD_")) and name.lower() not in proxies}
    kept["AWS_EC2_METADATA_DISABLED"] = "true"
    kept["AWS_CONFIG_FILE"] = kept["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    return kept


@contextlib.contextmanager
def cleaned() -> Iterator[None]:
    """Within it, this process's own environment is the clean one: boto3 reads profiles and proxies from there."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(clean_environment_of(before))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Child:
    """One process. What it writes is read line by line as it comes.

    Its stdin stays open until `stop`, so that it can see its parent die.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], directory: Path) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._name = Path(command[0]).name
        # Its own group: Ctrl-C in the terminal is for the demo, which then ends its children in order.
        self.process = subprocess.Popen(  # noqa: S603 - the commands are the demo's own
            list(command),
            env=environment,
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[bytes] | None) -> None:
        for line in stream or ():
            with self._changed:
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """The first line that matches. Raises `DemoError` with the output if the child ends or takes too long."""
        deadline = time.monotonic() + seconds
        seen = 0
        with self._changed:
            while True:
                for line in self.lines[seen:]:
                    if match := re.search(pattern, line):
                        return match
                seen = len(self.lines)
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    break
                self._changed.wait(left)
        why = f"ended with status {self.process.wait()}" if self._ended else f"was not ready in {seconds:g} s"
        raise DemoError(f"{self._name} {why}:\n{self.output()[-4000:]}", hint="Its output above says why.")

    def output(self) -> str:
        """All that it has written so far."""
        with self._changed:
            return "\n".join(self.lines)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end, waits, and kills it if it does not. Returns its status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._reader.join(STOP_SECONDS)
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
