"""Clients that sign with keys that sigward issued, through a proxy and to an endpoint URL: known, checked, signed anew."""

import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from sigward.clients import IssuedKey, MasterKey
from sigward.demo.child import clean_environment
from sigward.demo.emulator import Emulator
from sigward.demo.gateway import Gateway
from tests.e2e.conftest import SIGWARD, ask
from tests.support import SECRETS

REGION = Emulator.region
BUCKET = "issued-keys"
MODES = ("forward", "reverse")


@dataclass(frozen=True)
class Issuing:
    """A sigward that serves known clients alone: `ci`, by the default identity, and `team`, by one of its own."""

    emulator: Emulator
    gateway: Gateway
    directory: Path

    def key(self, name: str, rotation: int = 1) -> IssuedKey:
        return MasterKey(self.directory / "clients.key").issue(name, rotation)

    def client(self, mode: str, service: str, key: IssuedKey, **config: Any) -> Any:
        """boto3, as a program uses it that knows nothing of sigward but a proxy or an endpoint."""
        forward = mode == "forward"
        proxies = {"https": self.gateway.url("forward")} if forward else {}
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=None if forward else self.gateway.url(service),
            verify=str(self.gateway.ca_file) if forward else None,
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key,
            config=Config(proxies=proxies, retries={"total_max_attempts": 1}, **config),
        )


@pytest.fixture(scope="module", params=["mitmproxy", "native"])
def issuing(request: pytest.FixtureRequest, emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuing]:
    directory = tmp_path_factory.mktemp("issuing")
    clients = {
        "required": True,
        "key_file": str(directory / "clients.key"),
        "socket": str(directory / "socket"),
        "ci": {},
        "team": {"identity": "team"},
    }
    # Its keys are the emulator's, under another name.
    team = f'{sys.executable} -c \'import json, os; print(json.dumps(dict(Version=1, AccessKeyId=os.environ["AWS_ACCESS_KEY_ID"], SecretAccessKey=os.environ["AWS_SECRET_ACCESS_KEY"])))\''  # noqa: E501
    route = [{"client": "ci", "operation": "sqs:DeleteQueue", "action": "deny"}]
    issued = [MasterKey(directory / "clients.key").issue(name, 1).secret_access_key for name in ("ci", "team")]
    SECRETS.append(re.compile("|".join(map(re.escape, issued))))
    with Gateway(emulator, clients=clients, identities={"team": {"process": team}}, route=route, front=request.param) as gateway:
        gateway.wait_ready()
        yield Issuing(emulator, gateway, directory)


@pytest.fixture(scope="module", autouse=True)
def bucket(issuing: Issuing) -> None:
    issuing.client("forward", "s3", issuing.key("ci")).create_bucket(Bucket=BUCKET)


@pytest.mark.parametrize("mode", MODES)
def test_sdks_that_sign_with_an_issued_key(issuing: Issuing, mode: str) -> None:
    for name in ("ci", "team"):
        key = issuing.key(name)
        s3 = issuing.client(mode, "s3", key)
        for body in (b"", b"content", b"x" * (3 << 20)):
            s3.put_object(Bucket=BUCKET, Key=f"{mode} {name}/ü+", Body=body)
            assert s3.get_object(Bucket=BUCKET, Key=f"{mode} {name}/ü+")["Body"].read() == body
        assert issuing.client(mode, "dynamodb", key).list_tables()["TableNames"] == []
        assert issuing.client(mode, "sts", key).get_caller_identity()["Account"]
        arrived = issuing.emulator.requests()[-1]
        assert arrived.scope is not None
        assert arrived.scope[0] == issuing.emulator.access_key_id


@pytest.mark.parametrize("mode", MODES)
def test_wrong_keys_are_refused_in_words_that_sdks_read(issuing: Issuing, mode: str) -> None:
    own = issuing.key("ci")
    before = len(issuing.emulator.requests())
    for key, code in (
        (IssuedKey(own.access_key_id, issuing.key("team").secret_access_key), "SignatureDoesNotMatch"),
        (issuing.key("ci", 2), "InvalidAccessKeyId"),
        (IssuedKey("AKIDSTRANGER", "secret"), "InvalidAccessKeyId"),
    ):
        for service, call in (("sts", "get_caller_identity"), ("dynamodb", "list_tables"), ("s3", "list_buckets")):
            with pytest.raises(ClientError) as told:
                getattr(issuing.client(mode, service, key), call)()
            error = told.value.response["Error"]
            assert (error["Code"], told.value.response["ResponseMetadata"]["HTTPStatusCode"]) == (code, 403), (service, error)
            assert "sigward" in error["Message"]
    assert issuing.emulator.requests(before) == []


def test_nothing_unsigned_and_no_tunnel(issuing: Issuing) -> None:
    before = len(issuing.emulator.requests())
    answer = ask(issuing.gateway.addresses["s3"], path=f"/{BUCKET}")
    assert (answer.status, answer.headers["x-sigward-error"]) == (403, "missing-authentication-token")
    curl = ["curl", "-sS", "-m", "20", "-x", issuing.gateway.url("forward"), "-w", "%{http_connect}", "https://example.com/"]
    ran = subprocess.run(curl, capture_output=True, text=True, env=clean_environment(), check=False)
    assert ran.stdout.endswith("403"), ran
    # What is no TLS and no HTTP, inside a CONNECT to one of AWS's hosts.
    host, _, port = issuing.gateway.addresses["forward"].rpartition(":")
    with socket.create_connection((host, int(port)), 20) as raw:
        raw.sendall(f"CONNECT sts.{REGION}.amazonaws.com:443 HTTP/1.1\r\nhost: sts.{REGION}.amazonaws.com:443\r\n\r\n".encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 200")
        raw.sendall(b"\x00\x01 neither of both \x02\r\n")
        assert raw.recv(4096) == b"", "closed, not passed on"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": issuing.gateway.url("forward")}))
    with pytest.raises(urllib.error.HTTPError) as told:
        opener.open("http://example.com/", timeout=20)
    assert (told.value.code, told.value.headers["x-sigward-error"]) == (403, "missing-authentication-token")
    assert issuing.emulator.requests(before) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_url_presigned_with_an_issued_key(issuing: Issuing, mode: str) -> None:
    s3 = issuing.client(mode, "s3", issuing.key("team"), signature_version="s3v4")
    s3.put_object(Bucket=BUCKET, Key="presigned", Body=b"content")
    url = s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "presigned"}, ExpiresIn=60)
    curl = ["curl", "-sS", "-m", "20"]
    if mode == "forward":
        curl += ["-x", issuing.gateway.url("forward"), "--cacert", str(issuing.gateway.ca_file)]
    run = [*curl, url]
    assert subprocess.run(run, capture_output=True, env=clean_environment(), check=False).stdout == b"content"
    run[-1] = url.replace("/presigned?", "/another?")
    assert b"SignatureDoesNotMatch" in subprocess.run(run, capture_output=True, env=clean_environment(), check=False).stdout


@pytest.mark.parametrize("mode", MODES)
def test_a_route_is_for_one_client_and_one_operation(issuing: Issuing, mode: str) -> None:
    for name, denied in (("team", False), ("ci", True)):
        sqs = issuing.client(mode, "sqs", issuing.key(name))
        queue = sqs.create_queue(QueueName=f"{mode}-{name}")["QueueUrl"]
        if denied:
            with pytest.raises(ClientError, match="Denied"):
                sqs.delete_queue(QueueUrl=queue)
        else:
            sqs.delete_queue(QueueUrl=queue)


def test_credential_process_over_the_socket(issuing: Issuing, tmp_path: Path) -> None:
    command = " ".join([*SIGWARD, "client", "credentials", "team", "--config", str(issuing.gateway.config_file)])
    (tmp_path / "config").write_text(f"[profile agent]\nregion = {REGION}\ncredential_process = {command}\n")
    environment = clean_environment() | {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_PROFILE": "agent",
        "AWS_ENDPOINT_URL_STS": issuing.gateway.url("sts"),
    }
    program = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])"
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.stdout.startswith("arn:aws:"), ran.stderr


def test_a_program_that_sigward_runs_signs_for_it(issuing: Issuing, tmp_path: Path) -> None:
    program = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])"
    config = ["--config", str(issuing.gateway.config_file)]
    environment = clean_environment() | issuing.emulator.credentials() | {"AWS_REGION": REGION}
    refused = subprocess.run([*SIGWARD, "run", *config, "--", "true"], env=environment, capture_output=True, text=True, check=False)
    assert (refused.returncode, "Choose --client" in refused.stderr) == (64, True), refused.stderr
    command = [*SIGWARD, "run", *config, "--client", "team", "--", sys.executable, "-c", program]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.stdout.startswith("arn:aws:"), ran.stderr
