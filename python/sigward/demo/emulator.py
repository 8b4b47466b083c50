"""An AWS emulator with real TLS, under AWS's own host names, that refuses wrong signatures.

For the demo and the end-to-end tests.
"""

import http.client
import json
import socket
import ssl
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sigward.demo.child import Child, clean_environment, cleaned
from sigward.demo.emulator_server import CONTROL_HOST, HOLD_HEADER, HOLD_SECONDS
from sigward.errors import DemoError

REGION = "us-east-1"

HOSTS = (
    CONTROL_HOST,
    "localhost",
    "*.amazonaws.com",
    *(f"*.{service}{region}.amazonaws.com" for region in (REGION, "eu-west-1") for service in ("", "s3.")),
    "*.s3.amazonaws.com",
)
"""Names in the emulator's certificate; the second region is that of the documents' commands."""

POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}

NO_AUTH_CALLS = 3
"""Calls that moto lets in unchecked, to make the user, its key and its policy; from then on it checks each."""


ASK_SECONDS = HOLD_SECONDS + 10


@dataclass(frozen=True)
class Arrived:
    """One request as it arrived. `target`: undecoded, with query. `size`: bytes of body. `status`: of the answer."""

    method: str
    host: str
    target: str
    headers: tuple[tuple[str, str], ...]
    size: int
    status: int

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def scope(self) -> tuple[str, str, str] | None:
        """(access key id, region, signing name) of its signature; None: it carries none."""
        parts = (self.header("authorization") or "").partition("Credential=")[2].partition(",")[0].split("/")
        return (parts[0], parts[2], parts[3]) if len(parts) == 5 else None


class Emulator:
    """Starts with `with`. `port`: on 127.0.0.1. `ca_file`: PEM of the CA that its certificate is from.

    `access_key_id` and `secret_access_key` are of a user who may do everything; nobody else may do anything.
    Raises `DemoError` if it cannot start.
    """

    region = REGION

    def __init__(self) -> None:
        self.port = 0
        self.access_key_id = ""
        self.secret_access_key = ""
        self._directory = tempfile.TemporaryDirectory(prefix="sigward-emulator-")
        self.directory = Path(self._directory.name)
        self.ca_file = self.directory / "ca.pem"
        self._child: Child | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        try:
            import trustme
        except ImportError as error:
            raise DemoError("the demo's parts are not installed: trustme.", hint="pip install 'sigward[demo]'") from error
        authority = trustme.CA(organization_name="sigward demo: stands in for AWS")
        authority.cert_pem.write_to_path(str(self.ca_file))
        certificate = authority.issue_cert(*HOSTS)
        chain, key = self.directory / "certificate.pem", self.directory / "key.pem"
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(str(chain), append=True)
        # mkdtemp made the directory for its owner alone; the key file is born in it.
        certificate.private_key_pem.write_to_path(str(key))
        environment = clean_environment() | {
            "INITIAL_NO_AUTH_ACTION_COUNT": str(NO_AUTH_CALLS),
            "MOTO_ALLOW_NONEXISTENT_REGION": "false",
        }
        command = [sys.executable, "-m", "sigward.demo.emulator_server", str(chain), str(key)]
        self._child = Child(command, environment, self.directory)
        self.port = int(self._child.wait_for(r"^listening (\d+)$")[1])
        with cleaned():
            self._make_user()

    def _make_user(self) -> None:
        import botocore.session

        session = botocore.session.Session()
        session.set_credentials("bootstrap", "bootstrap")
        iam: Any = session.create_client("iam", region_name=REGION, endpoint_url=f"https://localhost:{self.port}", verify=str(self.ca_file))
        iam.create_user(UserName="demo")
        key = iam.create_access_key(UserName="demo")["AccessKey"]
        iam.put_user_policy(UserName="demo", PolicyName="everything", PolicyDocument=json.dumps(POLICY))
        self.access_key_id, self.secret_access_key = key["AccessKeyId"], key["SecretAccessKey"]

    def credentials(self) -> dict[str, str]:
        """The user's keys, as variables."""
        return {"AWS_ACCESS_KEY_ID": self.access_key_id, "AWS_SECRET_ACCESS_KEY": self.secret_access_key}

    def requests(self, since: int = 0) -> list[Arrived]:
        """What has arrived, in the order it was answered, from the given count on."""
        told = self._ask("/requests")[since:]
        return [Arrived(**{**entry, "headers": tuple((name, value) for name, value in entry["headers"])}) for entry in told]

    def wait_held(self, name: str) -> None:
        """Returns once the request with `x-emulator-hold: NAME` is here. Raises `DemoError` if it never comes."""
        if not self._ask(f"/held/{name}"):
            raise DemoError(f"no request with {HOLD_HEADER}: {name} has come.", hint="See the emulator's log.")

    def release(self, name: str) -> None:
        """Lets the held request go on."""
        self._ask(f"/release/{name}")

    def _ask(self, path: str) -> Any:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        with (
            socket.create_connection(("127.0.0.1", self.port), ASK_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=CONTROL_HOST) as secure,
        ):
            connection = http.client.HTTPSConnection(CONTROL_HOST)
            connection.sock = secure
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())

    def output(self) -> str:
        """What its process has written."""
        return self._child.output() if self._child else ""

    def close(self) -> None:
        """Ends the process and removes its files. Idempotent."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        self._directory.cleanup()
