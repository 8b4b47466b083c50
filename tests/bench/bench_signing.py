"""One signature against the limit that hashing sets, and against botocore, in one run.

Hash limit L: SHA-256 of the body, SHA-256 of the canonical request, one HMAC with a cached key; measured in Rust
(rust/sigv4/examples/limit.rs).
"""

import json
import logging
import statistics
import subprocess
import timeit
from collections.abc import Callable

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sigward import _core
from tests.bench.harness import ROOT, Table, finish, parser

KEY, SECRET, WHEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", 1_440_938_160
BODY = b"x" * 1024
DYNAMODB = [
    (b"host", b"dynamodb.us-east-1.amazonaws.com"),
    (b"content-type", b"application/x-amz-json-1.0"),
    (b"x-amz-target", b"DynamoDB_20120810.PutItem"),
    (b"accept-encoding", b"identity"),
    (b"user-agent", b"aws-cli/2.0"),
    (b"content-length", b"1024"),
    (b"amz-sdk-invocation-id", b"b3b1ab5c-8d2e-4b2c-9e2f-0f2f3a4b5c6d"),
    (b"amz-sdk-request", b"attempt=1; max=3"),
]
ROUNDS = 7


def once(statement: str, number: int, **names: object) -> float:
    """Nanoseconds a run of a statement."""
    return timeit.timeit(statement, number=number, globals=names) / number * 1e9


def botocore_job(auth: SigV4Auth, method: str, url: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Callable[[], object]:
    """What botocore does for one signature, the request made before."""
    pairs = [(name.decode(), value.decode()) for name, value in headers if name != b"host"]

    def sign() -> None:
        request = AWSRequest(method, url, data=body, headers=dict(pairs))
        request.context["payload_signing_enabled"] = True
        auth.add_auth(request)

    return sign


def main() -> None:
    """Prints the table."""
    arguments = parser(str(__doc__).splitlines()[0]).parse_args()
    logging.getLogger("botocore").setLevel(logging.WARNING)
    command = ["cargo", "run", "--quiet", "--release", "--locked", "-p", "sigward-sigv4", "--example", "limit"]
    signer = _core.Signer(KEY, SECRET, None, "us-east-1", "dynamodb")
    auth = SigV4Auth(Credentials(KEY, SECRET), "dynamodb", "us-east-1")
    theirs = botocore_job(auth, "POST", "https://dynamodb.us-east-1.amazonaws.com/", DYNAMODB, BODY)
    figures: dict[str, list[float]] = {"limit": [], "rust": [], "python": [], "botocore": []}
    for _ in range(ROUNDS):
        told = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        figures["limit"].append(told["limit_ns"])
        figures["rust"].append(told["sign_ns"])
        call = 'sign(b"POST", b"/", b"", headers, body, when)'
        figures["python"].append(once(call, 50_000, sign=signer.sign, headers=DYNAMODB, body=BODY, when=WHEN))
        figures["botocore"].append(once("sign()", 2_000, sign=theirs))
    median = {name: statistics.median(values) for name, values in figures.items()}
    limit = median["limit"]
    names = {"limit": "hash limit L", "rust": "sigward, Rust", "python": "sigward, from Python", "botocore": "botocore"}
    table = Table("DynamoDB POST, 1 KiB, 8 headers: one signature", ["", "ns", "× L"])
    for key, name in names.items():
        table.rows.append([name, f"{median[key]:,.0f}", f"**{median[key] / limit:.2f}**"])
    table.rows.append(["botocore ÷ sigward from Python", "", f"**{median['botocore'] / median['python']:.0f}**"])
    finish([table], arguments)


if __name__ == "__main__":
    main()
