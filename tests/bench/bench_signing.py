"""Signing against the limit that hashing sets, and against other signers, in one run.

Hash limit L: SHA-256 of the body (if it is hashed), SHA-256 of the canonical request, one HMAC with a cached key; criterion
measures it beside the Rust signers (`rust/bench`). Python's calls are measured between criterion's rounds.
"""

import datetime
import io
import json
import logging
import os
import statistics
import subprocess
import timeit
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import awscrt.auth
import awscrt.http
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sigward import _core
from tests.bench.harness import ROOT, Table, finish, parser

KEY, SECRET, WHEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", 1_440_938_160
ROUNDS = 5
CRATE = ROOT / "rust" / "bench"
TARGET = ROOT / "build" / "bench" / "target"

Headers = list[tuple[bytes, bytes]]
DYNAMODB: Headers = [
    (b"host", b"dynamodb.us-east-1.amazonaws.com"),
    (b"content-type", b"application/x-amz-json-1.0"),
    (b"x-amz-target", b"DynamoDB_20120810.PutItem"),
    (b"accept-encoding", b"identity"),
    (b"user-agent", b"aws-cli/2.0"),
    (b"content-length", b"1024"),
    (b"amz-sdk-invocation-id", b"b3b1ab5c-8d2e-4b2c-9e2f-0f2f3a4b5c6d"),
    (b"amz-sdk-request", b"attempt=1; max=3"),
]
S3: Headers = [
    (b"host", b"bucket.s3.us-east-1.amazonaws.com"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"identity"),
    (b"user-agent", b"aws-cli/2.0"),
    (b"amz-sdk-invocation-id", b"b3b1ab5c-8d2e-4b2c-9e2f-0f2f3a4b5c6d"),
    (b"amz-sdk-request", b"attempt=1; max=3"),
]
QUERY = b"list-type=2&delimiter=%2F&encoding-type=url&max-keys=1000&prefix=photos%2F2015%2F08&start-after=photos%2F2015%2F07"


@dataclass
class Case:
    """One request; `group` as criterion names it. `goals`: the floors for Rust and from Python, in L."""

    group: str
    title: str
    method: bytes
    path: bytes
    query: bytes
    headers: Headers
    body: bytes
    goals: tuple[str, str]
    service: str = "dynamodb"
    unsigned: bool = False
    variant: str = "v4"
    figures: dict[str, list[float]] = field(default_factory=dict)

    @property
    def style(self) -> str:
        return "s3" if self.service == "s3" else "generic"

    @property
    def target(self) -> str:
        return (self.path + (b"?" + self.query if self.query else b"")).decode()


CASES = [
    Case("dynamodb_post", "DynamoDB POST, 1 KiB, 8 headers", b"POST", b"/", b"", DYNAMODB, b"x" * 1024, ("1.4", "1.7")),
    Case(
        "s3_get", "S3 GET, 285-byte key, 6 query parameters", b"GET",
        b"/" + (b"photos/2015/08/a%20picture-of.something_else~" * 8)[:285], QUERY, S3, b"", ("1.7", "2.2"), "s3",
    ),
    Case("s3_put_unsigned", "S3 PUT, unsigned payload", b"PUT", b"/photos/2015/08/picture.jpg", b"", S3, b"", ("1.6", "2.2"), "s3", True),
    Case("post_1mib", "POST, 1 MiB, hashed", b"POST", b"/", b"", DYNAMODB, b"x" * (1 << 20), ("1.02", "1.02")),
    Case("sigv4a", "SigV4a POST, 1 KiB; L: one P-256 signature", b"POST", b"/", b"", DYNAMODB, b"x" * 1024, ("1.15", ""), variant="v4a"),
]  # fmt: skip


def once(statement: str, seconds: float, **names: object) -> float:
    """Nanoseconds a run of a statement: as many runs as take about that long."""
    number = 1
    while (took := timeit.timeit(statement, number=number, globals=names)) < seconds / 4:
        number *= 4
    return took / number * 1e9


def ours(case: Case, seconds: float) -> float:
    """sigward, from Python: nanoseconds a signature."""
    region = "*" if case.variant == "v4a" else "us-east-1"
    signer = _core.Signer(KEY, SECRET, None, region, case.service, case.style, variant=case.variant)  # type: ignore[arg-type]
    payload: bytes | str = "UNSIGNED-PAYLOAD" if case.unsigned else case.body
    names = {"sign": signer.sign, "m": case.method, "p": case.path, "q": case.query, "h": case.headers, "b": payload, "w": WHEN}
    return once("sign(m, p, q, h, b, w)", seconds, **names)


def botocores(case: Case) -> Callable[[], object]:
    """botocore, the request made before each signature as its clients do."""
    auth = (S3SigV4Auth if case.style == "s3" else SigV4Auth)(Credentials(KEY, SECRET), case.service, "us-east-1")
    pairs = {name.decode(): value.decode() for name, value in case.headers if name != b"host"}
    url = f"https://{case.headers[0][1].decode()}{case.target}"

    def sign() -> None:
        request = AWSRequest(case.method.decode(), url, data=case.body, headers=pairs)
        request.context["payload_signing_enabled"] = not case.unsigned
        auth.add_auth(request)

    return sign


def awscrts(case: Case) -> Callable[[], object]:
    """awscrt, likewise; it signs on a thread of its own."""
    algorithms = awscrt.auth.AwsSigningAlgorithm
    provider = awscrt.auth.AwsCredentialsProvider.new_static(KEY, SECRET)
    pairs = [(name.decode(), value.decode()) for name, value in case.headers if name != b"user-agent"]
    when = datetime.datetime.fromtimestamp(WHEN, datetime.UTC)
    config = awscrt.auth.AwsSigningConfig(
        algorithm=algorithms.V4 if case.variant == "v4" else algorithms.V4_ASYMMETRIC,
        credentials_provider=provider,
        region="*" if case.variant == "v4a" else "us-east-1",
        service=case.service,
        date=when,
        use_double_uri_encode=case.style != "s3",
        should_normalize_uri_path=case.style != "s3",
        signed_body_value="UNSIGNED-PAYLOAD" if case.unsigned else None,
        signed_body_header_type=awscrt.auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256
        if case.style == "s3"
        else awscrt.auth.AwsSignedBodyHeaderType.NONE,
    )

    def sign() -> None:
        body = io.BytesIO(case.body) if case.body else None
        request = awscrt.http.HttpRequest(case.method.decode(), case.target, awscrt.http.HttpHeaders(pairs), body)
        awscrt.auth.aws_sign_request(request, config).result()

    return sign


def built() -> Path:
    """criterion's program."""
    command = ["cargo", "bench", "--no-run", "--quiet", "--locked", "--target-dir", str(TARGET), "--message-format=json"]
    told = subprocess.run(command, cwd=CRATE, capture_output=True, text=True, check=True).stdout
    programs = [json.loads(line) for line in told.splitlines()]
    return Path(next(one["executable"] for one in programs if one.get("executable") and one["target"]["name"] == "signing"))


def by_criterion(program: Path) -> dict[str, dict[str, float]]:
    """Nanoseconds by group and name."""
    results = ROOT / "build" / "bench" / "criterion"
    environment = os.environ | {"CRITERION_HOME": str(results)}
    subprocess.run([str(program), "--bench", "--noplot"], cwd=CRATE, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, float]] = {}
    for path in results.glob("*/*/new/estimates.json"):
        estimates = json.loads(path.read_text())
        found.setdefault(path.parts[-4], {})[path.parts[-3]] = estimates["median"]["point_estimate"]
    return found


def main() -> None:
    """Prints the tables."""
    arguments = parser(str(__doc__).splitlines()[0]).parse_args()
    logging.getLogger("botocore").setLevel(logging.WARNING)
    program = built()
    chunks: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        told = by_criterion(program)
        for name, nanoseconds in told["chunk_64kib"].items():
            chunks.setdefault(name, []).append(nanoseconds)
        for case in CASES:
            now = dict(told[case.group]) | {"python": ours(case, 0.3), "awscrt": once("sign()", 0.3, sign=awscrts(case))}
            if case.variant == "v4":
                now["botocore"] = once("sign()", 0.3, sign=botocores(case))
            for name, nanoseconds in now.items():
                case.figures.setdefault(name, []).append(nanoseconds)
    table = Table(
        "One signature, in multiples of the hash limit L",
        [
            "",
            "L, ns",
            "Rust: `sign_lines`",
            "`sign`",
            "goal",
            "from Python",
            "goal",
            "aws-sigv4 ÷ Rust",
            "awscrt ÷ Python",
            "botocore ÷ Python",
        ],
    )
    for case in CASES:
        # Ratios of one round each, then their median: the machine's speed drifts between rounds.
        def ratio(one: str, other: str, case: Case = case) -> float:
            pairs = zip(case.figures[one], case.figures[other], strict=True)
            return statistics.median(first / second for first, second in pairs)

        fastest = "sign_lines" if "sign_lines" in case.figures else "sigward"
        table.rows.append(
            [
                case.title,
                f"{statistics.median(case.figures['limit']):,.0f}",
                f"**{ratio(fastest, 'limit'):.3g}**",
                f"{ratio('sigward', 'limit'):.3g}", case.goals[0],
                f"**{ratio('python', 'limit'):.3g}**", case.goals[1],
                f"{ratio('aws-sigv4', fastest):.1f}",
                f"{ratio('awscrt', 'python'):.1f}",
                f"{ratio('botocore', 'python'):.0f}" if "botocore" in case.figures else "",
            ]
        )  # fmt: skip
    share = statistics.median(limit / own for limit, own in zip(chunks["limit"], chunks["sigward"], strict=True))
    theirs = statistics.median(limit / own for limit, own in zip(chunks["limit"], chunks["aws-sigv4"], strict=True))
    streamed = Table("Chunks of 64 KiB, signed and framed: share of SHA-256's own throughput", ["sigward", "goal", "aws-sigv4"])
    streamed.rows.append([f"**{share:.3f}**", "0.95", f"{theirs:.3f} (unframed)"])
    finish([table, streamed], arguments)


if __name__ == "__main__":
    main()
