"""Every provider of the chain against a server or file of its own, every pair of them at once, and how each fails."""

import hashlib
import itertools
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.credentials import SSOProvider
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sigward.credentials import Chain, Failure, Found
from tests.unit.credentials.servers import Ecs, Handler, Imds, Metadata, Sts, keys, serving

REGION = "us-east-1"
ROLE = "arn:aws:iam::123456789012:role/ops"
START = "https://tests.awsapps.com/start"


def later(minutes: float = 60) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pem() -> str:
    """A key as `aws login` makes one."""
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


class Portal(Handler):
    """IAM Identity Center's portal: a role's keys for an access token."""

    def do_GET(self) -> None:  # noqa: N802
        if not self.path.startswith("/federation/credentials?"):
            return self.reply(404)
        if self.headers.get("x-amz-sso_bearer_token") != "sso-access-token":
            return self.reply(401, json.dumps({"message": "Session token not found or invalid"}))
        told = keys("sso")
        answer = {"accessKeyId": told["AccessKeyId"], "secretAccessKey": told["SecretAccessKey"], "sessionToken": told["Token"]}
        expires = int((datetime.now(UTC) + timedelta(hours=1)).timestamp() * 1000)
        return self.reply(200, json.dumps({"roleCredentials": {**answer, "expiration": expires}}))


class Signin(Handler):
    """Where `aws login` renews its session. `failing`: (status, why)."""

    def do_POST(self) -> None:  # noqa: N802
        assert self.headers.get("dpop")
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert told["grantType"] == "refresh_token"
        if self.server.failing is not None:
            status, why = self.server.failing
            return self.reply(status, json.dumps({"__type": "AccessDeniedException", "error": why, "message": "no"}))
        given = keys("renewed")
        access = {"accessKeyId": given["AccessKeyId"], "secretAccessKey": given["SecretAccessKey"], "sessionToken": given["Token"]}
        answer = {"accessToken": access, "tokenType": "aws_sigv4", "expiresIn": 900, "refreshToken": "r2"}
        return self.reply(200, json.dumps(answer))


class ImdsV1(Imds):
    """An instance, or an old stand-in for one, that knows version 1 alone."""

    def do_PUT(self) -> None:  # noqa: N802
        self.reply(404)

    def do_GET(self) -> None:  # noqa: N802
        self.server.tokens.add("")
        del self.headers["x-aws-ec2-metadata-token"]
        self.headers["x-aws-ec2-metadata-token"] = ""
        super().do_GET()


@dataclass
class Ground:
    """What sets providers up: lines of the default profile, and what runs beside."""

    directory: Path
    monkeypatch: pytest.MonkeyPatch
    sts: Sts
    stack: ExitStack
    profile: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)

    def write(self) -> None:
        base = "[profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = base-secret\n"
        Path(os.environ["AWS_CONFIG_FILE"]).write_text("\n".join(["[default]", *self.profile, "", base]))
        Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text("\n".join(self.shared) + "\n")

    def serve(self, handler: type[Handler], name: str) -> Metadata:
        return self.stack.enter_context(serving(handler, keys(name)))

    def env(self) -> None:
        self.monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
        self.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")

    def assume_role(self) -> None:
        self.profile += [f"role_arn = {ROLE}", "source_profile = base"]

    def web_identity(self) -> None:
        token = self.directory / "token"
        token.write_text("an-oidc-token")
        self.monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
        self.monkeypatch.setenv("AWS_ROLE_ARN", ROLE)

    def sso(self, expires: str | None = None) -> None:
        self.profile += [f"sso_start_url = {START}", f"sso_region = {REGION}", "sso_account_id = 123456789012", "sso_role_name = ops"]
        cache = self.directory / "sso"
        cache.mkdir(exist_ok=True)
        name = hashlib.sha1(START.encode(), usedforsecurity=False).hexdigest()
        token = {"startUrl": START, "region": REGION, "accessToken": "sso-access-token", "expiresAt": expires or later()}
        (cache / f"{name}.json").write_text(json.dumps(token))
        self.monkeypatch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", str(cache))
        self.monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", self.serve(Portal, "sso").url)

    def shared_file(self) -> None:
        self.shared += ["[default]", "aws_access_key_id = AKIDSHARED", "aws_secret_access_key = shared-secret"]

    def login(self, expires: str | None = None) -> None:
        session = "arn:aws:iam::123456789012:user/me"
        self.profile.append(f"login_session = {session}")
        cache = self.directory / "login"
        cache.mkdir(exist_ok=True)
        given = {"accessKeyId": "ASIALOGIN", "secretAccessKey": "login-secret", "sessionToken": "login-token", "accountId": "123456789012"}
        token = {
            "accessToken": {**given, "expiresAt": expires or later()},
            "refreshToken": "r",
            "dpopKey": pem(),
            "clientId": "arn:aws:signin:::devtools/same-device",
        }
        (cache / f"{hashlib.sha256(session.encode()).hexdigest()}.json").write_text(json.dumps(token))
        self.monkeypatch.setenv("AWS_LOGIN_CACHE_DIRECTORY", str(cache))

    def process(self) -> None:
        answer = json.dumps({"Version": 1, "AccessKeyId": "AKIDPROC", "SecretAccessKey": "process-secret"})
        script = self.directory / "process.py"
        script.write_text(f"print({answer!r})")
        self.profile.append(f"credential_process = {sys.executable} {script}")

    def config_file(self) -> None:
        self.profile += ["aws_access_key_id = AKIDCONFIG", "aws_secret_access_key = config-secret"]

    def container(self) -> None:
        self.monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{self.serve(Ecs, 'ecs').url}/keys")

    def instance(self, handler: type[Handler] = Imds) -> Metadata:
        server = self.serve(handler, "imds")
        self.monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        self.monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        return server


ORDER: dict[str, Callable[[Ground], object]] = {
    "env": Ground.env,
    "assume-role": Ground.assume_role,
    "assume-role-with-web-identity": Ground.web_identity,
    "sso": Ground.sso,
    "shared-credentials-file": Ground.shared_file,
    "login": Ground.login,
    "custom-process": Ground.process,
    "config-file": Ground.config_file,
    "container-role": Ground.container,
    "iam-role": Ground.instance,
}
"""The chain's order, and what sets each up."""


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sts: Sts) -> Iterator[Ground]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with ExitStack() as stack:
        yield Ground(tmp_path, monkeypatch, sts, stack)


def load() -> Found | Failure:
    return Chain(None, REGION).load()


def found() -> Found:
    outcome = load()
    assert isinstance(outcome, Found), outcome
    return outcome


def reasons() -> dict[str, str]:
    outcome = load()
    assert isinstance(outcome, Failure), outcome
    return dict(outcome.reasons)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(ORDER, 2)))
def test_of_two_that_are_set_up_the_earlier_gives_the_keys(ground: Ground, first: str, second: str) -> None:
    for name in (second, first):
        ORDER[name](ground)
    ground.write()
    outcome = found()
    assert outcome.snapshot.provider == first
    assert second not in dict(outcome.passed)


def test_all_of_them_at_once_from_the_last_to_the_first(ground: Ground) -> None:
    for name, set_up in reversed(ORDER.items()):
        set_up(ground)
        ground.write()
        assert found().snapshot.provider == name


def test_single_sign_on(ground: Ground) -> None:
    ground.sso()
    ground.write()
    snapshot = found().snapshot
    assert (snapshot.provider, snapshot.access_key_id, snapshot.session_token) == ("sso", "ASIASSO", "sso-token")
    assert snapshot.expires_at is not None


def test_single_sign_on_that_has_expired_says_how_to_sign_on(ground: Ground) -> None:
    ground.sso(expires=later(-5))
    ground.write()
    assert "aws sso login" in reasons()["sso"]


def test_single_sign_on_without_a_session_says_how_to_sign_on(ground: Ground) -> None:
    ground.sso()
    ground.write()
    for file in (ground.directory / "sso").iterdir():
        file.unlink()
    assert "aws sso login" in reasons()["sso"]


def test_a_login_that_has_expired_is_renewed(ground: Ground) -> None:
    ground.login(expires=later(-5))
    ground.write()
    ground.monkeypatch.setenv("AWS_ENDPOINT_URL_SIGNIN", ground.serve(Signin, "signin").url)
    assert found().snapshot.access_key_id == "ASIARENEWED"


def test_a_login_that_cannot_be_renewed_says_how_to_log_in(ground: Ground) -> None:
    ground.login(expires=later(-5))
    ground.write()
    server = ground.serve(Signin, "signin")
    server.failing = (400, "TOKEN_EXPIRED")
    ground.monkeypatch.setenv("AWS_ENDPOINT_URL_SIGNIN", server.url)
    assert "aws login" in reasons()["login"]


def test_a_login_that_was_never_made(ground: Ground) -> None:
    ground.login()
    ground.write()
    for file in (ground.directory / "login").iterdir():
        file.unlink()
    assert "aws login" in reasons()["login"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[default\nregion = x", "mend the file"),
        ("region = x", "mend the file"),
        (f"[default]\nrole_arn = {ROLE}\n", "source_profile"),
        (f"[default]\nrole_arn = {ROLE}\nsource_profile = nobody\n", "nobody"),
        (f"[default]\nrole_arn = {ROLE}\nsource_profile = a\n[profile a]\nrole_arn = {ROLE}\nsource_profile = default\n", "Infinite loop"),
        ("[default]\nsso_account_id = 1\nsso_role_name = x\nsso_session = none\n", "none"),
        ("[default]\ncredential_process = /nowhere/at-all\n", "/nowhere/at-all"),
        ("[default]\ncredential_process = false\n", "custom-process"),
    ],
)
def test_a_config_that_does_not_hold_is_named(ground: Ground, config: str, said: str) -> None:
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(config)
    told = reasons()
    assert said in " ".join([*told, *told.values()]), told


def test_a_role_that_is_denied_says_what_must_allow_it(ground: Ground) -> None:
    ground.assume_role()
    ground.write()
    ground.sts.deny = True
    assert "the role's trust policy must allow these credentials to take it" in reasons()["assume-role"]


def test_a_chain_of_roles_is_taken_one_after_the_other(ground: Ground) -> None:
    ground.profile += [
        f"role_arn = {ROLE}",
        "source_profile = middle",
        "external_id = theirs",
        "role_session_name = sess",
        "duration_seconds = 900",
    ]
    ground.write()
    with Path(os.environ["AWS_CONFIG_FILE"]).open("a") as file:
        file.write(f"[profile middle]\nrole_arn = {ROLE}-middle\nsource_profile = base\n")
    assert found().snapshot.provider == "assume-role"
    first, second = ground.sts.told
    assert (first["RoleArn"], second["RoleArn"]) == (f"{ROLE}-middle", ROLE)
    assert "Credential=AKIDBASE/" in first["authorization"]
    assert "Credential=ASIAASSUMED/" in second["authorization"]
    assert (second["ExternalId"], second["RoleSessionName"], second["DurationSeconds"]) == ("theirs", "sess", "900")


@pytest.mark.parametrize("source", ["Environment", "EcsContainer", "Ec2InstanceMetadata"])
def test_a_role_is_taken_with_the_source_that_the_profile_names(ground: Ground, source: str) -> None:
    ground.profile += [f"role_arn = {ROLE}", f"credential_source = {source}"]
    {"Environment": ground.env, "EcsContainer": ground.container, "Ec2InstanceMetadata": ground.instance}[source]()
    ground.write()
    outcome = Chain("default", REGION).load()
    assert isinstance(outcome, Found), outcome
    assert outcome.snapshot.access_key_id == "ASIAASSUMED"
    expected = {"Environment": "AKIDENV", "EcsContainer": "ASIAECS", "Ec2InstanceMetadata": "ASIAIMDS"}[source]
    assert f"Credential={expected}/" in ground.sts.told[0]["authorization"]


def test_metadata_of_version_1_is_read_where_version_2_is_not_known(ground: Ground) -> None:
    server = ground.instance(ImdsV1)
    assert found().snapshot.access_key_id == "ASIAIMDS"
    assert server.seen[0][:1] == ("PUT",)


def test_metadata_of_version_1_is_not_read_where_it_is_switched_off(ground: Ground) -> None:
    server = ground.instance(ImdsV1)
    ground.monkeypatch.setenv("AWS_EC2_METADATA_V1_DISABLED", "true")
    assert "IMDSv1 has been disabled" in reasons()["iam-role"]
    assert [seen[0] for seen in server.seen] == ["PUT"]


def test_a_token_that_the_hop_limit_swallows_does_not_hang_the_walk(ground: Ground) -> None:
    """From inside a container with a hop limit of 1 the answer to the PUT never comes; then version 1 is tried, and refused."""
    gone = threading.Event()

    class Swallowing(Imds):
        def do_PUT(self) -> None:  # noqa: N802
            self.server.seen.append(("PUT", self.path, 0))
            gone.wait(20)

    server = ground.instance(Swallowing)
    told = reasons()
    gone.set()
    assert "metadata service does not answer" in told["iam-role"]
    assert [seen[0] for seen in server.seen][:2] == ["PUT", "GET"]


def test_metadata_over_ipv6(ground: Ground) -> None:
    class Six(ThreadingHTTPServer):
        address_family = __import__("socket").AF_INET6

    try:
        Six(("::1", 0), Imds).server_close()
    except OSError:
        pytest.skip("there is no IPv6 on this machine")
    server = Metadata.__new__(Metadata)
    Metadata.address_family = Six.address_family
    try:
        ThreadingHTTPServer.__init__(server, ("::1", 0), Imds)
    finally:
        del Metadata.address_family
    server.answer, server.seen, server.tokens, server.authorization, server.failing = keys("imds"), [], set(), None, None
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    ground.monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    ground.monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://[::1]:{server.server_address[1]}")
    assert found().snapshot.access_key_id == "ASIAIMDS"
    server.shutdown()
    server.server_close()
    thread.join()


def test_ipv6_mode_asks_at_the_ipv6_address(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore import httpsession

    asked: list[str] = []

    def send(_self: object, request: object) -> object:
        asked.append(request.url)  # type: ignore[attr-defined]
        raise httpsession.ConnectTimeoutError(endpoint_url=asked[-1], error="made up")

    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv6")
    monkeypatch.setattr(httpsession.URLLib3Session, "send", send)
    ground.write()
    assert "iam-role" in reasons()
    assert asked
    assert all(url.startswith("http://[fd00:ec2::254]/") for url in asked)


def test_keys_of_an_instance_that_have_run_out_serve_on_while_metadata_gives_no_others(ground: Ground) -> None:
    """Static stability: AWS takes them for longer where its own renewal is late."""
    server = ground.instance()
    server.answer = keys("imds", minutes=-5)
    expires = found().snapshot.expires_at
    assert expires is not None
    assert expires > datetime.now(UTC).timestamp() + 600
