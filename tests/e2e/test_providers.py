"""Every source of credentials before a running sigward, through the proxy and to an endpoint URL: the emulator verifies what it signs."""

import hashlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest

from sigward.demo.emulator import Emulator
from sigward.demo.gateway import Gateway
from tests.e2e.conftest import ask
from tests.unit.credentials.servers import Ecs, Handler, Imds, Metadata, Sts, serving
from tests.unit.credentials.test_providers import ROLE, START

SERIAL = "arn:aws:iam::123456789012:mfa/me"
FORM = {"content-type": "application/x-www-form-urlencoded"}
IDENTITY = b"Action=GetCallerIdentity&Version=2011-06-15"


def later(hours: float = 1) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Portal(Handler):
    """IAM Identity Center's portal, with the emulator's keys. `answer`: as the metadata servers have it."""

    def do_GET(self) -> None:  # noqa: N802
        told = self.server.answer
        keys = {"accessKeyId": told["AccessKeyId"], "secretAccessKey": told["SecretAccessKey"], "sessionToken": told["Token"]}
        expires = int((time.time() + 3600) * 1000)
        self.reply(200, json.dumps({"roleCredentials": {**keys, "expiration": expires}}))


@dataclass
class Home:
    """A home directory with AWS's files, and servers beside; `environment` is for sigward."""

    path: Path
    emulator: Emulator
    sts: str
    stack: ExitStack
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environment |= {
            "HOME": str(self.path),
            "AWS_CONFIG_FILE": str(self.path / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.path / "credentials"),
            "AWS_ENDPOINT_URL_STS": self.sts,
        }

    @property
    def pair(self) -> str:
        return f"aws_access_key_id = {self.emulator.access_key_id}\naws_secret_access_key = {self.emulator.secret_access_key}\n"

    @property
    def json(self) -> dict[str, str]:
        return {
            "AccessKeyId": self.emulator.access_key_id,
            "SecretAccessKey": self.emulator.secret_access_key,
            "Token": "",
            "Expiration": later(),
        }

    def config(self, text: str) -> None:
        (self.path / "config").write_text(text)

    def serve(self, handler: type[Handler]) -> Metadata:
        return self.stack.enter_context(serving(handler, self.json))

    def env(self) -> None:
        self.environment |= self.emulator.credentials()

    def shared_file(self) -> None:
        (self.path / "credentials").write_text("[default]\n" + self.pair)

    def other_profile(self) -> None:
        (self.path / "credentials").write_text("[default]\naws_access_key_id = AKIDWRONG\naws_secret_access_key = x\n[mine]\n" + self.pair)
        self.environment["SIGWARD_PROFILE"] = "mine"

    def config_file(self) -> None:
        self.config("[default]\n" + self.pair)

    def assume_role(self) -> None:
        self.config(f"[default]\nrole_arn = {ROLE}\nsource_profile = base\n[profile base]\n{self.pair}")

    def web_identity(self) -> None:
        token = self.path / "token"
        token.write_text("a.b.c")
        self.environment |= {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": ROLE}

    def sso(self) -> None:
        cache = self.path / ".aws" / "sso" / "cache"
        cache.mkdir(parents=True)
        name = hashlib.sha1(START.encode(), usedforsecurity=False).hexdigest()
        (cache / f"{name}.json").write_text(json.dumps({"startUrl": START, "accessToken": "t", "expiresAt": later()}))
        region = self.emulator.region
        self.config(f"[default]\nsso_start_url = {START}\nsso_region = {region}\nsso_account_id = 123456789012\nsso_role_name = ops\n")
        self.environment["AWS_ENDPOINT_URL_SSO"] = self.serve(Portal).url

    def process(self) -> None:
        answer = json.dumps({"Version": 1, **{name: self.json[name] for name in ("AccessKeyId", "SecretAccessKey")}})
        (self.path / "process.py").write_text(f"print({answer!r})")
        self.config(f"[default]\ncredential_process = {sys.executable} {self.path / 'process.py'}\n")

    def container(self) -> None:
        self.environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{self.serve(Ecs).url}/keys"

    def instance(self) -> Metadata:
        server = self.serve(Imds)
        self.environment |= {"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url}
        return server

    def mfa(self) -> None:
        """What `sigward login` left."""
        from sigward.credentials.mfa import key

        (self.path / "credentials").write_text("[default]\naws_access_key_id = AKIDWRONG\naws_secret_access_key = x\n")
        cache = self.path / ".aws" / "cli" / "cache"
        cache.mkdir(parents=True)
        kept = {"Credentials": {**{name: self.json[name] for name in ("AccessKeyId", "SecretAccessKey")}, "SessionToken": ""}}
        kept["Credentials"]["Expiration"] = later()
        (cache / f"{key(None)}.json").write_text(json.dumps(kept))


SOURCES: dict[str, Callable[[Home], object]] = {
    "env": Home.env,
    "shared-credentials-file": Home.shared_file,
    "another profile": Home.other_profile,
    "config-file": Home.config_file,
    "assume-role": Home.assume_role,
    "assume-role-with-web-identity": Home.web_identity,
    "sso": Home.sso,
    "custom-process": Home.process,
    "container-role": Home.container,
    "iam-role": Home.instance,
    "mfa-session": Home.mfa,
}


@pytest.fixture
def home(tmp_path: Path, emulator: Emulator) -> Iterator[Home]:
    server = Sts()
    server.keys = (emulator.access_key_id, emulator.secret_access_key, "")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    with ExitStack() as stack:
        yield Home(tmp_path, emulator, f"http://127.0.0.1:{server.server_address[1]}", stack)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_signs_in_both_modes(home: Home, emulator: Emulator, name: str) -> None:
    SOURCES[name](home)
    with Gateway(emulator, home.environment) as gateway:
        gateway.wait_ready()
        before = len(emulator.requests())
        reverse = ask(gateway.addresses["sts"], "POST", "/", FORM, IDENTITY)
        assert (reverse.status, b"<Account>" in reverse.body) == (200, True), reverse.body
        proxy = build_opener(ProxyHandler({"http": gateway.url("forward")}))
        forward = proxy.open(f"http://sts.{emulator.region}.amazonaws.com/", IDENTITY, timeout=60)
        assert b"<Account>" in forward.read()
        scopes = [request.scope for request in emulator.requests(before)]
        assert scopes == [(emulator.access_key_id, emulator.region, "sts")] * 2
        assert emulator.secret_access_key not in gateway.child.output()


def test_a_thousand_first_requests_ask_the_source_once(home: Home, emulator: Emulator) -> None:
    """It answers only when all of them wait, and notes each time that it is asked."""
    answer = json.dumps({"Version": 1, **{name: home.json[name] for name in ("AccessKeyId", "SecretAccessKey")}})
    go, asked = home.path / "go", home.path / "asked"
    (home.path / "process.py").write_text(
        f"""
import pathlib, time
with open({str(asked)!r}, "a") as file:
    file.write("x")
while not pathlib.Path({str(go)!r}).exists():
    time.sleep(0.01)
print({answer!r})
"""
    )
    home.config(f"[default]\ncredential_process = {sys.executable} {home.path / 'process.py'}\n")
    home.environment["SIGWARD_TIMEOUTS__CREDENTIALS"] = "60s"
    with Gateway(emulator, home.environment) as gateway:
        host, _, port = gateway.addresses["sts"].rpartition(":")

        def first() -> int:
            with socket.create_connection((host, int(port)), 60) as connection:
                request = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM['content-type']}\r\ncontent-length: {len(IDENTITY)}\r\n\r\n"
                connection.sendall(request.encode() + IDENTITY)
                return int(connection.makefile("rb").readline().split()[1])

        with ThreadPoolExecutor(250) as pool:
            answers = [pool.submit(first) for _ in range(1000)]
            while gateway.in_flight() < 250:
                time.sleep(0.01)
            go.touch()
            assert [answer.result() for answer in answers] == [200] * 1000
    assert asked.read_text() == "x"


def test_a_login_while_sigward_runs_is_picked_up(home: Home, emulator: Emulator) -> None:
    (home.path / ".aws" / "cli").mkdir(parents=True)
    with Gateway(emulator, home.environment) as gateway:
        assert ask(gateway.addresses["sts"], "POST", "/", FORM, IDENTITY).status == 503
        (home.path / "credentials").write_text("[default]\n" + home.pair)
        gateway.wait_ready()
        assert ask(gateway.addresses["sts"], "POST", "/", FORM, IDENTITY).status == 200
