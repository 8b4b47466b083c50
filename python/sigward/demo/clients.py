"""The programs that the demo sends through: unsigned curl, boto3 told not to sign, the AWS CLI with dummy keys.

Each is the real one. A `Way` says how a client reaches AWS: past sigward, through it as a proxy, or at its listeners.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sigward.demo.child import clean_environment, cleaned
from sigward.environ import DUMMY_KEY, DUMMY_SECRET
from sigward.errors import DemoError

CLIENT_SECONDS = 60.0
"""A client that has not ended by then has failed."""


@dataclass(frozen=True)
class Way:
    """How a client gets to AWS.

    `proxy`: for HTTP(S)_PROXY. `ca_file`: whom the client trusts. `endpoint`: scheme and address to send to instead of
    the AWS host's. `by_host`: send to `endpoint`, but leave the AWS name in Host. `scheme`: of the URL it is given.
    """

    name: str
    ca_file: Path
    proxy: str | None = None
    endpoint: str | None = None
    by_host: bool = False
    scheme: str = "https"

    def endpoint_for_sdk(self) -> str | None:
        """What an SDK takes as its endpoint URL."""
        return None if self.by_host else self.endpoint


@dataclass(frozen=True)
class Outcome:
    """What a client made of one call.

    `code`: the error's, or the HTTP status. `content`: what it got. `seconds`: of the call, or of the program's run.
    """

    ok: bool
    code: str
    content: Any
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class Curl:
    """`curl` with a URL of AWS's and no signature."""

    host: str
    target: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes | None = None

    def __call__(self, way: Way) -> Outcome:
        """Runs it. The content is the body; curl's own failures are `Outcome`s too."""
        started = time.perf_counter()
        done = subprocess.run(  # noqa: S603 - the command is the demo's own
            self.command(way),
            input=self.data,
            capture_output=True,
            timeout=CLIENT_SECONDS,
            env=clean_environment(),
            check=False,
        )
        seconds = time.perf_counter() - started
        body, _, status = done.stdout.rpartition(b"\n")
        ok = done.returncode == 0 and status.startswith(b"2")
        code = status.decode() if done.returncode == 0 else f"curl {done.returncode}"
        detail = body.decode("utf-8", "replace") if not ok else ""
        return Outcome(ok, code, body, seconds, detail or done.stderr.decode("utf-8", "replace"))

    def command(self, way: Way) -> list[str]:
        """The command line. Paths go out as written: `//` and `..` are S3's to judge, not curl's."""
        host = self.host
        command = [find("curl"), "-sS", "--path-as-is", "--globoff", "-w", "\n%{http_code}", "-X", self.method]
        url = f"{way.scheme}://{host}{self.target}"
        if way.proxy:
            command += ["--proxy", way.proxy]
        elif way.endpoint and way.by_host:
            scheme, address = way.endpoint.split("://")
            command += ["--connect-to", f"::{address}"]
            url = f"{scheme}://{host}{self.target}"
        elif way.endpoint:
            url = way.endpoint + self.target
        command += ["--cacert", str(way.ca_file)]
        if self.method == "HEAD":
            command.append("--head")
        for name, value in self.headers.items():
            command += ["-H", f"{name}: {value}"]
        if self.data is not None:
            command += ["--data-binary", "@-"]
        return [*command, url]


@dataclass(frozen=True)
class Boto3:
    """boto3 with `signature_version=UNSIGNED`: `call` gets a client and answers with the content."""

    service: str
    region: str
    call: Callable[[Any], Any]

    def __call__(self, way: Way) -> Outcome:
        """Runs it, with one attempt: a retry is sigward's to make here."""
        with cleaned():
            return self.run(way)

    def run(self, way: Way) -> Outcome:
        """The same, in this process's environment as it is."""
        import boto3  # type: ignore[import-untyped]
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        config = Config(
            signature_version=UNSIGNED,
            proxies={"https": way.proxy} if way.proxy else {},
            retries={"total_max_attempts": 1},
            connect_timeout=10,
            read_timeout=CLIENT_SECONDS,
        )
        # A session of its own: no profile or key of this process's is looked at.
        session = boto3.session.Session(region_name=self.region)
        client: Any = session.client(self.service, config=config, endpoint_url=way.endpoint_for_sdk(), verify=str(way.ca_file))
        started = time.perf_counter()
        try:
            content = self.call(client)
        except ClientError as error:
            return Outcome(False, str(error.response["Error"]["Code"]), None, time.perf_counter() - started, str(error))
        except BotoCoreError as error:
            return Outcome(False, type(error).__name__, None, time.perf_counter() - started, str(error))
        except LookupError as error:
            return Outcome(False, "incomplete answer", None, time.perf_counter() - started, repr(error))
        finally:
            client.close()
        return Outcome(True, "200", content, time.perf_counter() - started)


@dataclass(frozen=True)
class AwsCli:
    """The AWS CLI with keys that are nobody's: it signs, and AWS would refuse."""

    arguments: Sequence[str]
    region: str
    stdin: bytes | None = None

    def __call__(self, way: Way) -> Outcome:
        """Runs it. The content is its stdout."""
        started = time.perf_counter()
        done = subprocess.run(  # noqa: S603 - the command is the demo's own
            self.command(way),
            input=self.stdin,
            capture_output=True,
            timeout=CLIENT_SECONDS,
            env=self.environment(way),
            check=False,
        )
        seconds = time.perf_counter() - started
        told = done.stderr.decode("utf-8", "replace").strip()
        code = told.partition("(")[2].partition(")")[0] if "An error occurred (" in told else f"status {done.returncode}"
        return Outcome(done.returncode == 0, "0" if done.returncode == 0 else code, done.stdout, seconds, told)

    def command(self, way: Way) -> list[str]:
        """The command line."""
        endpoint = way.endpoint_for_sdk()
        return [sys.executable, "-m", "awscli", *self.arguments, *(["--endpoint-url", endpoint] if endpoint else [])]

    def environment(self, way: Way) -> dict[str, str]:
        """Dummy keys, the proxy and whom to trust."""
        variables = {
            "AWS_ACCESS_KEY_ID": DUMMY_KEY,
            "AWS_SECRET_ACCESS_KEY": DUMMY_SECRET,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_CA_BUNDLE": str(way.ca_file),
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_PAGER": "",
            "PYTHONWARNINGS": "ignore",
            # What it prints must not depend on the machine's locale.
            "PYTHONUTF8": "1",
            "LC_ALL": "C.UTF-8",
        }
        if way.proxy:
            variables["HTTPS_PROXY"] = variables["HTTP_PROXY"] = way.proxy
        return clean_environment() | variables


def find(program: str) -> str:
    """Its path. Raises `DemoError` if it is not installed."""
    found = shutil.which(program)
    if found is None:
        raise DemoError(f"{program} is not on PATH.", hint=f"Install it, e.g. apt-get install {program}.")
    return found
