"""`sigward token`: the same tokens as AWS's own tools make."""

import base64
import json
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sigward import __version__
from sigward.cli.commands import COMMANDS, read
from sigward.errors import UsageError
from tests.shell import KEY, SECRET, TOKEN, Shell

AT, STAMP = "2015-08-30T12:36:00Z", "20150830T123600Z"
REGION = "eu-west-1"


def ran(sigward: Shell, *arguments: str) -> str:
    done = sigward.keys(token=True)("token", *arguments, "--region", REGION, "--at", AT)
    assert done.status == 0, done.err
    assert SECRET not in done.out + done.err
    return done.out.strip()


def by_botocore(service: str, url: str, expires: int, headers: dict[str, str] | None = None) -> dict[str, str]:
    """The presigned URL's parameters."""
    auth = SigV4QueryAuth(Credentials(KEY, SECRET, TOKEN), service, REGION, expires)
    request = AWSRequest("GET", url, headers=headers or {})
    request.context["timestamp"] = STAMP
    auth._modify_request_before_signing(request)
    canonical = auth.canonical_request(request)
    auth._inject_signature_to_request(request, auth.signature(auth.string_to_sign(request, canonical), request))
    return dict(parse_qsl(urlsplit(request.url).query))


def parameters(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def decoded(text: str) -> str:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()


def test_rds(sigward: Shell) -> None:
    token = ran(sigward, "rds", "--host", "db.example.eu-west-1.rds.amazonaws.com", "--port", "3306", "--user", "a b@c")
    start = "db.example.eu-west-1.rds.amazonaws.com:3306/?"
    assert token.startswith(start)
    url = f"https://{start}Action=connect&DBUser=a%20b%40c"
    assert parameters("https://" + token) == by_botocore("rds-db", url, 900)


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("db.abc.eu-north-1.rds.amazonaws.com", "eu-north-1"),
        ("rds.abc.eu-north-1.RDS.amazonaws.com", "eu-north-1"),
        ("app.proxy-abc.us-gov-west-1.rds.amazonaws.com", "us-gov-west-1"),
        ("app.cluster-ro-abc.cn-north-1.rds.amazonaws.com.cn", "cn-north-1"),
        ("db.internal.example", REGION),
        ("eu-north-1.rds.internal.example", REGION),
    ],
)
def test_the_region_of_an_rds_token_is_the_hosts(
    host: str, region: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One of the environment is a default, one that is set for this is a claim."""
    for name, value in {
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "XDG_CONFIG_HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)

    def token(*more: str) -> str:
        arguments = ["rds", "--host", host, "--port", "5432", "--user", "app", *more]
        assert read(COMMANDS["token"], "sigward token", arguments).execute() == 0  # type: ignore[attr-defined]
        made = capsys.readouterr().out.strip()
        assert made.startswith(f"{host}:5432/?")
        return parameters(f"https://{made}")["X-Amz-Credential"].split("/")[2]

    assert token() == region
    assert token("--region", region) == region
    if region == REGION:
        assert token("--region", "ap-south-1") == "ap-south-1"
        return
    with pytest.raises(UsageError, match=f"is in {region}, but the region is set to ap-south-1"):
        token("--region", "ap-south-1")


@pytest.mark.parametrize("serverless", [False, True])
def test_elasticache(sigward: Shell, serverless: bool) -> None:
    token = ran(sigward, "elasticache", "--cluster", "My-Cache", "--user", "app", *(["--serverless"] if serverless else []))
    assert token.startswith("my-cache/?")
    url = "http://my-cache/?Action=connect&User=app" + ("&ResourceType=ServerlessCache" if serverless else "")
    assert parameters("http://" + token) == by_botocore("elasticache", url, 900)


def test_msk(sigward: Shell) -> None:
    url = decoded(ran(sigward, "msk"))
    host = f"https://kafka.{REGION}.amazonaws.com/"
    assert url.startswith(host + "?")
    found = parameters(url)
    assert found.pop("User-Agent") == f"sigward/{__version__}"
    assert found == by_botocore("kafka-cluster", f"{host}?Action=kafka-cluster%3AConnect", 900)


def test_eks(sigward: Shell) -> None:
    told = json.loads(ran(sigward, "eks", "--cluster", "prod"))
    assert (told["kind"], told["apiVersion"]) == ("ExecCredential", "client.authentication.k8s.io/v1beta1")
    assert told["status"]["expirationTimestamp"] == "2015-08-30T12:50:00Z"
    start, _, token = told["status"]["token"].partition(".")
    assert start == "k8s-aws-v1"
    url = decoded(token)
    host = f"https://sts.{REGION}.amazonaws.com/"
    assert url.startswith(host + "?")
    plain = f"{host}?Action=GetCallerIdentity&Version=2011-06-15"
    assert parameters(url) == by_botocore("sts", plain, 60, {"x-k8s-aws-id": "prod"})
    assert parameters(url)["X-Amz-SignedHeaders"] == "host;x-k8s-aws-id"


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["rds", "--host", "h", "--port", "1"], "--user"),
        (["rds", "--host", "h", "--user", "u"], "--port"),
        (["elasticache", "--user", "u"], "--cluster"),
        (["eks"], "--cluster"),
    ],
)
def test_what_is_missing_is_named(sigward: Shell, arguments: list[str], missing: str) -> None:
    done = sigward.keys()("token", *arguments)
    assert (done.status, done.out) == (64, "")
    assert missing in done.err
    assert f"sigward token {arguments[0]}" in done.err
