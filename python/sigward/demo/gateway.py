"""`sigward serve`, or `web`, as a child before the emulator: own CA and settings, free ports, keys in its environment alone."""

import http.client
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from sigward.demo.child import START_SECONDS, Child, clean_environment
from sigward.errors import DemoError

UPSTREAMS = ("s3", "dynamodb", "sqs", "sts", "ec2")
"""Services that have a reverse listener of their own, besides the one where Host names the endpoint."""


def settings_file(emulator: "Upstream", ca_dir: Path, more: dict[str, Any]) -> str:
    """The settings as TOML. `more`: top-level keys, e.g. {"grace": 5}; `route`: tables that come before the emulator's own; `reverse`:
    False: no reverse listeners."""
    more = dict(more)
    reverse = more.pop("reverse", True)
    routes, paces = more.pop("route", []), more.pop("pace", [])
    lines = [f"{key} = {inline(value)}" for key, value in more.items()]
    lines += ['listen = "127.0.0.1:0"', 'admin = "127.0.0.1:0"', f"ca_dir = {json.dumps(str(ca_dir))}", ""]
    lines += ["[tls]", f"ca_files = [{json.dumps(str(emulator.ca_file))}]", "system_roots = false", ""]
    upstreams = [f"https://{service}.{emulator.region}.amazonaws.com" for service in UPSTREAMS]
    lines += ["[[reverse]]", 'listen = "127.0.0.1:0"', ""] if reverse else []
    for upstream in upstreams if reverse else ():
        lines += ["[[reverse]]", 'listen = "127.0.0.1:0"', f'upstream = "{upstream}"', ""]
    for pace in paces:
        lines += ["[[pace]]", *(f"{key} = {inline(value)}" for key, value in pace.items()), ""]
    for route in routes:
        lines += ["[[route]]", *(f"{key} = {inline(value)}" for key, value in route.items()), f'connect = "127.0.0.1:{emulator.port}"', ""]
    lines += ["[[route]]", 'host = "*.amazonaws.com"', 'action = "sign"', f'connect = "127.0.0.1:{emulator.port}"', ""]
    return "\n".join(lines)


def inline(value: Any) -> str:
    """A value as TOML writes it in one line. A JSON string, number or list of them is one of TOML's, too."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {inline(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


class Upstream(Protocol):
    """What a gateway needs of whatever stands in for AWS."""

    @property
    def port(self) -> int:
        """On 127.0.0.1."""

    @property
    def region(self) -> str:
        """Of its hosts."""

    @property
    def ca_file(self) -> Path:
        """PEM of the CA that its certificate is from."""

    def credentials(self) -> dict[str, str]:
        """Variables with keys that it takes."""


class Gateway:
    """Starts with `with`; it listens then. `credentials`: variables for its environment; none: the emulator's user.

    `addresses`: "forward", "by-host", "admin" and `UPSTREAMS`, to "127.0.0.1:PORT". `ca_file`: whom clients trust.
    `command`: serve or web.
    """

    def __init__(self, emulator: Upstream, credentials: dict[str, str] | None = None, *, command: str = "serve", **settings: Any) -> None:
        self.emulator = emulator
        self.command = command
        self.credentials = emulator.credentials() if credentials is None else credentials
        self.settings = settings
        self._directory = tempfile.TemporaryDirectory(prefix="sigward-demo-")
        self.directory = Path(self._directory.name)
        self.ca_file = self.directory / "ca" / "mitmproxy-ca-cert.pem"
        self.addresses: dict[str, str] = {}
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        """The running process."""
        if self._child is None:
            raise DemoError("sigward is not running.", hint="Use `with Gateway(…)`.")
        return self._child

    @property
    def config_file(self) -> Path:
        """Its settings."""
        return self.directory / "sigward.toml"

    def url(self, name: str) -> str:
        """http://127.0.0.1:PORT of one of `addresses`."""
        return f"http://{self.addresses[name]}"

    @property
    def web_url(self) -> str:
        """`sigward web`: its pages, with the token that opens them."""
        return self.child.wait_for(r"web=(http\S+)")[1]

    def __enter__(self) -> Self:
        try:
            self.config_file.write_text(settings_file(self.emulator, self.directory / "ca", self.settings))
            command = [sys.executable, "-m", "sigward", self.command, "--config", str(self.config_file)]
            environment = clean_environment() | self.credentials | {"AWS_REGION": self.emulator.region}
            self._child = Child(command, environment, self.directory)
            told = self._child.wait_for(r'listening (forward=[^"]*)')[1]
            self.addresses = self._named(dict(re.findall(r"(\S+?)=(\S+)", told)))
        except BaseException:
            self.close()
            raise
        return self

    @staticmethod
    def _named(told: dict[str, str]) -> dict[str, str]:
        names = ("by-host", *UPSTREAMS)
        return {
            names[int(name.removeprefix("reverse:"))] if name.startswith("reverse:") else name: address for name, address in told.items()
        }

    def admin(self, path: str) -> tuple[int, str]:
        """(status, text) of the admin listener."""
        connection = http.client.HTTPConnection(self.addresses["admin"], timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def in_flight(self) -> int:
        """Requests under way."""
        found = re.search(r"^sigward_in_flight_requests (\d+)", self.admin("/metrics")[1], re.MULTILINE)
        return int(found[1]) if found else 0

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Returns when `/readyz` says yes. Raises `DemoError` with the reason when it never does."""
        deadline = time.monotonic() + seconds
        while (answer := self.admin("/readyz"))[0] != 200:
            if time.monotonic() > deadline:
                raise DemoError(f"sigward is not ready: {answer[1]}", hint="Its output says why:\n" + self.child.output()[-2000:])
            # The protocol of a readiness probe is to ask again.
            time.sleep(0.05)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process and removes its files. Idempotent."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        self._directory.cleanup()
