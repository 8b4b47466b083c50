"""`sigward demo`: unsigned programs' calls, first refused by an AWS that verifies signatures, then accepted through sigward.

No AWS account and no network: the AWS is moto's server behind real TLS (`emulator`), the clients are real (`clients`), and sigward
is a child process of its own (`sidecar`). Exit status 0 only if every call was refused without sigward and accepted with it.
"""

import contextlib
import importlib.util
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sigward.demo.clients import Refused, Way, aws_cli, boto, boto_refused, curl
from sigward.demo.emulator import REGION, Emulator
from sigward.demo.sidecar import Sidecar, bare_environment
from sigward.errors import DemoError

BUCKET = "sigward-demo"
KEYS = ("plain.txt", "with space.txt", "a+b=c.txt", "double//slash.txt", "ключ-é.txt", "100%.txt")
REVERSE = ("dynamodb", "sqs", "s3")
"""Services that get a reverse listener of their own; one more goes by the Host header."""


@dataclass(frozen=True)
class Call:
    """One row: what is called, by which client, through which listener. `run` raises `Refused`, or what else went wrong."""

    what: str
    client: str
    mode: str
    run: Callable[[Way], object]


@dataclass(frozen=True)
class Outcome:
    """What a row shows. `held`: refused without sigward and accepted with it."""

    call: Call
    without: str
    with_sigward: str
    signed: str
    seconds: float
    held: bool


def calls() -> list[Call]:
    """All rows, in order: later ones use what earlier ones made."""
    sts, identity = f"https://sts.{REGION}.amazonaws.com/", "Action=GetCallerIdentity&Version=2011-06-15"
    ec2, regions = f"{{}}://ec2.{REGION}.amazonaws.com/", "Action=DescribeRegions&Version=2016-11-15"
    return [
        Call("STS GetCallerIdentity", "curl", "HTTPS_PROXY", lambda way: expect("user/sigward", curl(way, sts, "--data", identity))),
        Call(
            "EC2 DescribeRegions over http://",
            "curl",
            "HTTP_PROXY",
            lambda way: expect("eu-west-1", curl(way, ec2.format(plain(way)), "--data", regions)),
        ),
        Call("S3 CreateBucket", "boto3 unsigned", "HTTPS_PROXY", lambda way: boto(way, "s3").create_bucket(Bucket=BUCKET)),
        *(Call(f"S3 Put, GetObject {key!r}", "boto3 unsigned", "HTTPS_PROXY", put_and_get(key)) for key in KEYS),
        Call("S3 GetObject 'a+b=c.txt'", "curl", "HTTPS_PROXY", lambda way: expect("a+b=c", curl(way, object_url("a+b=c.txt")))),
        Call("S3 ListObjectsV2", "boto3 unsigned", "HTTPS_PROXY", list_keys),
        Call("S3 cp, 3 MiB", "AWS CLI", "HTTPS_PROXY", copy_large),
        Call("DynamoDB CreateTable, PutItem, GetItem", "boto3 unsigned", "HTTPS_PROXY", dynamodb),
        Call("SQS CreateQueue, Send, Receive", "boto3 unsigned", "HTTPS_PROXY", sqs),
        Call(
            "STS GetCallerIdentity",
            "AWS CLI",
            "HTTPS_PROXY",
            lambda way: expect("user/sigward", aws_cli(way, "sts", "get-caller-identity")),
        ),
        Call(
            "EC2 DescribeInstances", "AWS CLI", "HTTPS_PROXY", lambda way: expect("Reservations", aws_cli(way, "ec2", "describe-instances"))
        ),
        Call("EC2 DescribeVpcs, 503 twice", "curl", "HTTPS_PROXY", flaky),
        Call("DynamoDB ListTables", "AWS CLI", "endpoint URL", lambda way: expect("demo", reverse_cli(way, "dynamodb", "list-tables"))),
        Call("SQS ListQueues", "boto3 unsigned", "endpoint URL", lambda way: expect("demo", str(reverse_boto(way, "sqs").list_queues()))),
        Call(
            "S3 ListObjectsV2",
            "boto3 unsigned",
            "endpoint URL",
            lambda way: expect("plain.txt", str(reverse_boto(way, "s3").list_objects_v2(Bucket=BUCKET))),
        ),
        Call("STS GetCallerIdentity", "curl", "Host header", by_host),
    ]


def expect(part: str, text: str) -> str:
    """The call's answer must be the right one, not only a 200."""
    if part not in text:
        raise RuntimeError(f"{part!r} is not in the answer: {text[:300]!r}")
    return text


def plain(way: Way) -> str:
    """The emulator itself speaks TLS alone; through sigward plain http:// is upgraded."""
    return "http" if way.endpoints else "https"


def object_url(key: str) -> str:
    """The address of an object, as a person would type it."""
    return f"https://{BUCKET}.s3.{REGION}.amazonaws.com/{quote(key, safe='/+=')}"


def put_and_get(key: str) -> Callable[[Way], object]:
    """Writes an object and reads it back."""

    def run(way: Way) -> object:
        client, body = boto(way, "s3"), f"body of {key}".encode()
        client.put_object(Bucket=BUCKET, Key=key, Body=body)
        if client.get_object(Bucket=BUCKET, Key=key)["Body"].read() != body:
            raise RuntimeError("another body came back")
        return None

    return run


def list_keys(way: Way) -> object:
    """All keys are there, letter for letter."""
    found = {entry["Key"] for entry in boto(way, "s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])}
    if found != set(KEYS):
        raise RuntimeError(f"keys differ: {sorted(found ^ set(KEYS))}")
    return None


def copy_large(way: Way) -> object:
    """A body too large to be held goes up and comes down whole."""
    with tempfile.TemporaryDirectory() as name:
        up, down = Path(name, "up"), Path(name, "down")
        up.write_bytes(bytes(range(256)) * (3 * 4096))
        aws_cli(way, "s3", "cp", str(up), f"s3://{BUCKET}/large", "--only-show-errors")
        aws_cli(way, "s3", "cp", f"s3://{BUCKET}/large", str(down), "--only-show-errors")
        if up.read_bytes() != down.read_bytes():
            raise RuntimeError("another body came back")
        aws_cli(way, "s3", "rm", f"s3://{BUCKET}/large", "--only-show-errors")
    return None


def dynamodb(way: Way) -> object:
    """A table, an item in, an item out."""
    client = boto(way, "dynamodb")
    client.create_table(
        TableName="demo", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}], AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )  # fmt: skip
    client.put_item(TableName="demo", Item={"id": {"S": "1"}, "text": {"S": "grüß"}})
    return expect("grüß", str(client.get_item(TableName="demo", Key={"id": {"S": "1"}})))


def sqs(way: Way) -> object:
    """A queue, a message in, a message out."""
    client = boto(way, "sqs")
    # moto gives queues addresses of its own; the call goes to AWS's.
    client.create_queue(QueueName="demo")
    address = f"https://sqs.{REGION}.amazonaws.com/123456789012/demo"
    client.send_message(QueueUrl=address, MessageBody="hello")
    return expect("hello", str(client.receive_message(QueueUrl=address)))


def flaky(way: Way) -> object:
    """Answered 503 twice; a client as plain as curl never notices."""
    url, action = f"https://ec2.{REGION}.amazonaws.com/", "Action=DescribeVpcs&Version=2016-11-15"
    marks = ("--header", "x-demo-fail: 2", "--header", "x-demo-id: flaky") if way.endpoints else ()
    return expect("DescribeVpcsResponse", curl(way, url, "--data", action, *marks))


def reverse_cli(way: Way, service: str, *arguments: str) -> str:
    """The AWS CLI with an endpoint URL; without sigward there is none."""
    return aws_cli(way, service, *arguments, endpoint=service if way.endpoints else None)


def reverse_boto(way: Way, service: str) -> "object":
    """boto3 with an endpoint URL; without sigward there is none."""
    return boto(way, service, endpoint=bool(way.endpoints))


def by_host(way: Way) -> object:
    """A listener that sends a request to the endpoint that Host names."""
    host, action = f"sts.{REGION}.amazonaws.com", "Action=GetCallerIdentity&Version=2011-06-15"
    if way.by_host is None:
        return curl(way, f"https://{host}/", "--data", action)
    return expect("user/sigward", curl(way, f"{way.by_host}/", "--data", action, "--header", f"host: {host}", proxied=False))


def attempt(call: Call, way: Way) -> tuple[str, Refused | None, Exception | None]:
    """Runs a call: (what to show, refusal, any other failure)."""
    try:
        call.run(way)
    except Refused as refused:
        return f"refused ({refused})", refused, None
    except Exception as error:
        if refused := boto_refused(error):
            return f"refused ({refused})", refused, None
        return f"{type(error).__name__}: {error}"[:200], None, error
    return "accepted", None, None


def try_call(call: Call, emulator: Emulator, direct: Way, through: Way) -> Outcome:
    """One row."""
    without, refused, _ = attempt(call, direct)
    before = len(emulator.seen)
    began = time.monotonic()
    with_sigward, not_refused, failed = attempt(call, through)
    seconds = time.monotonic() - began
    arrived = emulator.seen[before:]
    scopes = sorted({seen.scope or "unsigned" for seen in arrived})
    keys = {seen.access_key_id for seen in arrived}
    held = refused is not None and not_refused is None and failed is None and keys == {emulator.access_key_id}
    if "503" in call.what:
        statuses = [seen.status for seen in arrived]
        held = held and statuses == [503, 503, 200]
        with_sigward += f" after {', '.join(map(str, statuses[:-1]))}"
    return Outcome(call, without, with_sigward, ", ".join(scopes), seconds, held)


def settings_text(emulator: Emulator) -> str:
    """sigward.toml for the demo: AWS's names stay, only the sockets go to the emulator."""
    return f'[tls]\nca_files = ["{emulator.ca_file}"]\n[[route]]\nhost = "*.amazonaws.com"\nconnect = "127.0.0.1:{emulator.port}"\n'


def show(outcomes: list[Outcome]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Unsigned calls, without and with sigward")
    for column in ("call", "client", "by", "without", "with sigward", "signed for", "ms"):
        table.add_column(column, justify="right" if column == "ms" else "left")
    for outcome in outcomes:
        mark = "[green]✓[/green] " if outcome.held else "[red]✗[/red] "
        call = outcome.call
        table.add_row(
            call.what, call.client, call.mode, outcome.without, mark + outcome.with_sigward, outcome.signed, f"{outcome.seconds * 1000:.0f}"
        )
    console = Console()
    # Into a file or a pipe the table keeps its width.
    console.width = max(console.width, 150) if not console.is_terminal else console.width
    console.print(table)
    held = sum(outcome.held for outcome in outcomes)
    console.print(f"{held} of {len(outcomes)} calls were refused without sigward and accepted with it.")


def keep_running(sidecar: Sidecar) -> None:
    """Says what to try, and waits for Ctrl-C."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"\nRunning. Try in another terminal:\n\n"
        f"  export HTTPS_PROXY={sidecar.proxy} CURL_CA_BUNDLE={sidecar.ca_file} AWS_CA_BUNDLE={sidecar.ca_file}\n"
        f"  curl 'https://sts.{REGION}.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15'\n"
        f"  curl https://{BUCKET}.s3.{REGION}.amazonaws.com/plain.txt\n"
        f"  curl {sidecar.url('admin')}/metrics\n\n"
        f"Settings: {sidecar.config}\nCtrl-C ends it.",
        markup=False,
    )
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def check_clients() -> None:
    """Says what is missing before anything starts. Raises `DemoError`."""
    if shutil.which("curl") is None:
        raise DemoError("curl is not on PATH.", hint="Install curl (Debian: apt-get install curl).")
    for module, package in (("moto", "moto[server]"), ("boto3", "boto3"), ("awscli", "awscli"), ("trustme", "trustme")):
        if importlib.util.find_spec(module) is None:
            raise DemoError(f"{package} is not installed.", hint="pip install 'sigward[demo]'")


def main(keep: bool = False) -> int:
    """Runs the demo. Returns 0 if all held, 1 if not. Raises `DemoError` where it cannot run."""
    check_clients()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sigward-demo-")))
        emulator = stack.enter_context(Emulator(directory))
        detour = stack.enter_context(emulator.detour())
        environment = bare_environment(
            AWS_ACCESS_KEY_ID=emulator.access_key_id, AWS_SECRET_ACCESS_KEY=emulator.secret_access_key, AWS_REGION=REGION
        )
        upstreams = (None, *(f"https://{service}.{REGION}.amazonaws.com" for service in REVERSE))
        sidecar = stack.enter_context(Sidecar(directory, settings_text(emulator), environment, upstreams))
        endpoints = {service: sidecar.url(f"reverse:{number}") for number, service in enumerate(REVERSE, 1)}
        direct = Way(f"http://127.0.0.1:{detour}", emulator.ca_file)
        through = Way(sidecar.proxy, sidecar.ca_file, endpoints, sidecar.url("reverse:0"))
        outcomes = [try_call(call, emulator, direct, through) for call in calls()]
        show(outcomes)
        if keep:
            keep_running(sidecar)
    return 0 if all(outcome.held for outcome in outcomes) else 1


__all__ = ["main"]
