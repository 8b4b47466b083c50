"""`sigward --compat aws-sigv4-proxy` in that proxy's place: the calls of its README, by curl, to an emulator that checks them."""

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest

from sigward.demo.child import Child, clean_environment, cleaned
from sigward.demo.emulator import POLICY, Arrived, Emulator
from sigward.demo.tunnel import Tunnel
from tests.e2e.conftest import SIGWARD
from tests.needs import need

REGION = Emulator.region

# Its README sends these in the query; the emulator cannot check a GET of the query protocol.
LIST = "Action=ListQueues&Version=2012-11-05"

Take = Callable[..., "Taker"]


class Taker:
    """A running `sigward --compat aws-sigv4-proxy` and curl before it."""

    def __init__(self, child: Child, emulator: Emulator) -> None:
        self.child, self.emulator = child, emulator
        self.url = f"http://{child.wait_for(r'listening reverse:0=(\S+)')[1]}"

    def curl(self, *arguments: str, path: str = "/") -> str:
        """What the answer holds. Fails if it is no success."""
        ran = subprocess.run(
            [need("curl"), "-sS", "--fail-with-body", *arguments, self.url + path], capture_output=True, text=True, env=clean_environment()
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr + self.child.output()
        return ran.stdout

    def arrived(self) -> Arrived:
        """The request that arrived last; the emulator has verified it."""
        return self.emulator.requests()[-1]


@pytest.fixture
def take(emulator: Emulator, tmp_path: Path) -> Iterator[Take]:
    """Starts it with its flags; every AWS host leads to the emulator, as if by DNS."""
    with ExitStack() as ends:
        tunnel = ends.enter_context(Tunnel(emulator.port))

        def started(*flags: str, port: str = "127.0.0.1:0", egress: str = tunnel.url, **variables: str) -> Taker:
            environment = clean_environment() | emulator.credentials()
            environment |= {
                "SIGWARD_ADMIN": "off",
                "SIGWARD_CA_DIR": str(tmp_path / "ca"),
                "SIGWARD_TLS__CA_FILES": str(emulator.ca_file),
                "SIGWARD_TLS__SYSTEM_ROOTS": "false",
                "SIGWARD_EGRESS__PROXY": egress,
                **variables,
            }
            command = [*SIGWARD, "--compat", "aws-sigv4-proxy", "--port", port, *flags]
            return Taker(ends.enter_context(Child(command, environment, tmp_path)), emulator)

        yield started


def test_s3_and_sqs_by_host(take: Take) -> None:
    proxy = take("-v")
    s3 = ("-H", f"host: s3.{REGION}.amazonaws.com")
    proxy.curl("-X", "PUT", *s3, path="/compat-bucket")
    proxy.curl("-T", __file__, *s3, path="/compat-bucket/a%20key")
    assert "<Key>a key</Key>" in proxy.curl(*s3, path="/compat-bucket")
    assert proxy.arrived().scope == (proxy.emulator.access_key_id, REGION, "s3")
    sqs = ("-H", f"host: sqs.{REGION}.amazonaws.com")
    url = re.search(
        r"<QueueUrl>https?://[^/]+(/\d+/compat)</QueueUrl>",
        proxy.curl(*sqs, "-d", "Action=CreateQueue&QueueName=compat&Version=2012-11-05"),
    )
    assert url
    assert "<MessageId>" in proxy.curl(*sqs, "-d", "Action=SendMessage&MessageBody=example&Version=2012-11-05", path=url[1])
    # -v: what there is to tell of each request.
    proxy.child.wait_for('"operation":"SendMessage"')
    # The same flags are read again.
    proxy.child.process.send_signal(signal.SIGHUP)
    proxy.child.wait_for("settings and credentials are read anew")
    assert "<QueueUrl>" in proxy.curl(*sqs, "-d", LIST)


def test_name_and_region_sign_for_a_host_that_tells_neither(take: Take) -> None:
    proxy = take("--name", "sqs", "--region", REGION)
    proxy.curl("-H", "host: queues.amazonaws.com", "-d", LIST)
    assert proxy.arrived().scope == (proxy.emulator.access_key_id, REGION, "sqs")
    assert proxy.arrived().host == "queues.amazonaws.com"


def test_host_and_sign_host_through_a_tunnel(take: Take, emulator: Emulator) -> None:
    sign_host = f"sqs.{REGION}.amazonaws.com"
    proxy = take("--name", "sqs", "--region", REGION, "--host", f"127.0.0.1:{emulator.port}", "--sign-host", sign_host, egress="off")
    assert "<ListQueuesResult>" in proxy.curl("-d", LIST)
    assert proxy.arrived().host == sign_host


def test_host_takes_the_place_of_the_client_s(take: Take) -> None:
    proxy = take("--host", f"sqs.{REGION}.amazonaws.com")
    proxy.curl("-H", "host: sqs.eu-west-1.amazonaws.com", "-d", LIST)
    # The client's Host says what it is, --host where it goes: as ever.
    assert proxy.arrived().host == f"sqs.{REGION}.amazonaws.com"
    assert proxy.arrived().scope == (proxy.emulator.access_key_id, "eu-west-1", "sqs")


def test_headers_are_stripped_duplicated_and_added(take: Take) -> None:
    proxy = take("-s", "X-Old", "--duplicate-headers", "Authorization", "--custom-headers", "X-Tenant=ours,X-Kept=ours")
    sent = {"Host": f"sqs.{REGION}.amazonaws.com", "Authorization": "Bearer theirs", "X-Old": "1", "X-Kept": "theirs"}
    proxy.curl("-d", LIST, *(part for name, value in sent.items() for part in ("-H", f"{name}: {value}")))
    arrived = proxy.arrived()
    assert arrived.scope == (proxy.emulator.access_key_id, REGION, "sqs")
    found = {name: arrived.header(name) for name in ("X-Old", "X-Original-Authorization", "X-Tenant", "X-Kept")}
    assert found == {"X-Old": None, "X-Original-Authorization": "Bearer theirs", "X-Tenant": "ours", "X-Kept": "theirs"}


def test_unsigned_payload(take: Take) -> None:
    proxy = take("--unsigned-payload")
    proxy.curl("-X", "PUT", "-H", f"host: s3.{REGION}.amazonaws.com", path="/compat-unsigned")
    proxy.curl("-T", __file__, "-H", f"host: s3.{REGION}.amazonaws.com", path="/compat-unsigned/k")
    assert proxy.arrived().header("x-amz-content-sha256") == "UNSIGNED-PAYLOAD"


def test_a_role_is_taken_with_the_session_name_of_old(take: Take, emulator: Emulator) -> None:
    with cleaned():
        iam = boto3.client(
            "iam",
            region_name=REGION,
            endpoint_url=f"https://localhost:{emulator.port}",
            verify=str(emulator.ca_file),
            aws_access_key_id=emulator.access_key_id,
            aws_secret_access_key=emulator.secret_access_key,
        )
        anybody = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}
        iam.create_role(RoleName="compat", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [anybody]}))
        iam.put_role_policy(RoleName="compat", PolicyName="all", PolicyDocument=json.dumps(POLICY))
    proxy = take(
        "--role-arn",
        "arn:aws:iam::123456789012:role/compat",
        AWS_ENDPOINT_URL_STS=f"https://localhost:{emulator.port}",
        AWS_CA_BUNDLE=str(emulator.ca_file),
        AWS_ROLE_SESSION_NAME="of-old",
    )
    identity = proxy.curl("-H", f"host: sts.{REGION}.amazonaws.com", "-d", "Action=GetCallerIdentity&Version=2011-06-15")
    assert "assumed-role/compat/of-old" in identity


def test_a_host_that_tells_nothing_is_refused(take: Take) -> None:
    proxy = take()
    ran = subprocess.run(
        [need("curl"), "-sS", "-D-", "-H", "host: search.internal.example", proxy.url],
        capture_output=True,
        text=True,
        env=clean_environment(),
    )
    assert "x-sigward-error: not-aws" in ran.stdout
