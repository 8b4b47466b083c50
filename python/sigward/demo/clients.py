"""Real clients that cannot sign, and the way they take: straight to the emulator, or through sigward."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sigward.demo.emulator import REGION
from sigward.demo.sidecar import bare_environment
from sigward.environ import DUMMY_KEY, DUMMY_SECRET

TIMEOUT = 60


class Refused(Exception):
    """AWS said no: the call was not signed, or wrongly."""


@dataclass(frozen=True)
class Way:
    """`proxy`: what HTTPS_PROXY says. `ca_file`: whom to trust. `endpoints`: reverse listeners by service. `by_host`: the one that goes by Host."""

    proxy: str
    ca_file: Path
    endpoints: dict[str, str] = field(default_factory=dict)
    by_host: str | None = None


def curl(way: Way, url: str, *arguments: str, proxied: bool = True) -> str:
    """The answer's body. Raises `Refused` for 403, and `RuntimeError` for what is not a success."""
    proxy = ["--proxy", way.proxy] if proxied else ["--noproxy", "*"]
    done = subprocess.run(  # noqa: S603
        ["curl", "--silent", "--show-error", "--cacert", str(way.ca_file), "--write-out", "\n%{http_code}", *proxy, *arguments, url],  # noqa: S607
        env=bare_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    body, _, status = done.stdout.rpartition("\n")
    if status == "403":
        raise Refused("403 " + error_code(body))
    if done.returncode != 0 or not status.startswith("2"):
        raise RuntimeError(f"curl {url}: {done.returncode} {status} {done.stderr} {body[:300]}")
    return body


def boto(way: Way, service: str, *, endpoint: bool = False) -> Any:
    """A boto3 client that signs nothing."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        signature_version=UNSIGNED,
        retries={"total_max_attempts": 1},
        proxies={} if endpoint else {"https": way.proxy, "http": way.proxy},
        s3={"addressing_style": "path"} if endpoint else None,
    )
    url = way.endpoints[service] if endpoint else None
    return boto3.session.Session().client(service, region_name=REGION, verify=str(way.ca_file), endpoint_url=url, config=config)


def aws_cli(way: Way, *arguments: str, endpoint: str | None = None) -> str:
    """stdout of the AWS CLI with keys that are nobody's. Raises `Refused` where AWS refuses them."""
    environment = bare_environment(
        AWS_ACCESS_KEY_ID=DUMMY_KEY,
        AWS_SECRET_ACCESS_KEY=DUMMY_SECRET,
        AWS_DEFAULT_REGION=REGION,
        AWS_CA_BUNDLE=str(way.ca_file),
        AWS_MAX_ATTEMPTS="1",
        AWS_CONFIG_FILE="/dev/null",
        AWS_SHARED_CREDENTIALS_FILE="/dev/null",
    )
    if endpoint is None:
        environment |= {"HTTPS_PROXY": way.proxy, "HTTP_PROXY": way.proxy}
    command = [sys.executable, "-m", "awscli", *arguments]
    if endpoint is not None:
        command += ["--endpoint-url", way.endpoints[endpoint]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)  # noqa: S603
    if done.returncode == 0:
        return done.stdout
    text = " ".join(done.stderr.split())
    if any(
        word in text for word in ("403", "Forbidden", "InvalidClientTokenId", "InvalidAccessKeyId", "AuthFailure", "SignatureDoesNotMatch")
    ):
        raise Refused(text.partition("(")[2].partition(")")[0] or "403")
    raise RuntimeError(f"aws {' '.join(arguments)}: {done.returncode} {text[:600]}")


def boto_refused(error: Exception) -> Refused | None:
    """The refusal that a boto3 error stands for, if it does."""
    from botocore.exceptions import ClientError

    if isinstance(error, ClientError) and error.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
        return Refused(f"403 {error_code(str(error)) or error.response['Error']['Code']}")
    return None


def error_code(text: str) -> str:
    """What stands between <Code> and </Code>."""
    return text.partition("<Code>")[2].partition("</Code>")[0]
