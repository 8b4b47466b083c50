"""The emulator and a running sigward, once a session."""

import http.client
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.config import Config

from sigward.demo.calls import Ways
from sigward.demo.child import clean_environment
from sigward.demo.emulator import Emulator
from sigward.demo.gateway import Gateway, settings_file
from sigward.demo.tunnel import Tunnel

SIGWARD = [sys.executable, "-m", "sigward"]


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """AWS, as far as these tests can tell."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def gateway(emulator: Emulator) -> Iterator[Gateway]:
    """sigward with the emulator's keys, ready."""
    with Gateway(emulator) as gateway:
        gateway.wait_ready()
        yield gateway


@pytest.fixture(scope="session")
def ways(emulator: Emulator, gateway: Gateway) -> Iterator[Ways]:
    """All the ways to the emulator."""
    with Tunnel(emulator.port) as tunnel:
        yield Ways(emulator, gateway, tunnel.url)


@pytest.fixture(scope="session")
def session_keys(ways: Ways) -> dict[str, str]:
    """Temporary keys from the emulator, as variables."""

    def client(service: str) -> Any:
        return boto3.client(
            service,
            region_name=ways.emulator.region,
            endpoint_url=f"https://{service}.{ways.emulator.region}.amazonaws.com",
            config=Config(proxies={"https": str(ways.direct.proxy)}),
            verify=str(ways.emulator.ca_file),
            aws_access_key_id=ways.emulator.access_key_id,
            aws_secret_access_key=ways.emulator.secret_access_key,
        )

    def policy(**more: str | dict[str, str]) -> str:
        return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **more}]})

    trust = policy(Action="sts:AssumeRole", Principal={"AWS": "arn:aws:iam::123456789012:user/demo"})
    role = client("iam").create_role(RoleName="e2e", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    client("iam").put_role_policy(RoleName="e2e", PolicyName="all", PolicyDocument=policy(Action="*", Resource="*"))
    keys = client("sts").assume_role(RoleArn=role, RoleSessionName="session")["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["SessionToken"],
    }


@pytest.fixture
def config(emulator: Emulator, tmp_path: Path) -> Path:
    """A settings file that leads AWS's hosts to the emulator, for `sigward run`."""
    path = tmp_path / "sigward.toml"
    path.write_text(settings_file(emulator, tmp_path / "ca", {}))
    return path


@pytest.fixture
def environment(emulator: Emulator) -> dict[str, str]:
    """For a sigward that these tests start themselves: the emulator's keys and nobody else's."""
    return clean_environment() | emulator.credentials() | {"AWS_REGION": emulator.region}


@dataclass(frozen=True)
class Answer:
    """What a plain HTTP client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    address: str,
    method: str = "GET",
    path: str = "/",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """One request on a connection of its own. `address`: "127.0.0.1:PORT"."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()
