"""256 MiB up and down through the mitmproxy front: how much sigward's resident memory grows at its peak.

curl is the client, nginx behind TLS the upstream. Needs nginx (Debian: nginx-light) and Linux.
"""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sigward.demo.child import clean_environment
from tests.bench.harness import GLACIER, S3, ExitStack, Proxy, Table, finish, need, parser, sigward, upstream

MIB = 1 << 20
SIZE = 256 * MIB


@dataclass(frozen=True)
class Case:
    """One transfer. `host`: of the AWS service. `arguments`: curl's, where {file} is the body."""

    name: str
    service: str
    host: str
    upload: bool
    arguments: tuple[str, ...]
    forward: bool


H1, H2 = ("--http1.1",), ("--http2",)
CASES = (
    Case("PUT to S3, endpoint URL, HTTP/1.1", "s3", S3, True, H1, False),
    Case("GET from S3, endpoint URL, HTTP/1.1", "s3", S3, False, H1, False),
    Case("PUT to S3, HTTPS_PROXY, HTTP/1.1", "s3", S3, True, H1, True),
    Case("GET from S3, HTTPS_PROXY, HTTP/1.1", "s3", S3, False, H1, True),
    Case("PUT to S3, HTTPS_PROXY, HTTP/2", "s3", S3, True, H2, True),
    Case("GET from S3, HTTPS_PROXY, HTTP/2", "s3", S3, False, H2, True),
    Case("POST to Glacier (hashed: spooled to disk), endpoint URL", "glacier", GLACIER, True, H1, False),
)


def transfer(case: Case, proxy: Proxy, file: Path) -> float:
    """Runs curl; returns the seconds it took. Fails unless the whole of it went through."""
    command = [need("curl", "curl"), "-sS", "--fail-with-body", "-o", "/dev/null", *case.arguments]
    if case.forward:
        command += ["-x", f"http://{proxy.addresses['forward']}", "--cacert", str(proxy.ca_file)]
        base = f"https://{case.host}"
    else:
        base = f"http://{proxy.addresses[case.service]}"
    if case.upload:
        method = "PUT" if case.service == "s3" else "POST"
        command += [
            "-X",
            method,
            "-H",
            "content-type: application/octet-stream",
            "-H",
            "expect:",
            "-T",
            str(file),
            f"{base}/bucket/key",
        ]
    else:
        command += [f"{base}/files/large"]
    command += ["-w", "%{http_code} %{size_upload} %{size_download} %{time_total}"]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    status, up, down, seconds = done.stdout.split()
    size = file.stat().st_size
    assert status == "200", done.stdout
    assert int(up if case.upload else down) == size, done.stdout
    return float(seconds)


def main() -> None:
    """Prints the table."""
    arguments = parser(str(__doc__).splitlines()[0]).parse_args()
    table = Table("Peak growth of sigward's resident memory, 256 MiB each", ["", "before, MiB", "peak growth, MiB", "MiB/s"])
    with ExitStack() as stack:
        behind = stack.enter_context(upstream())
        proxy = stack.enter_context(sigward(behind))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        small = directory / "small"
        small.write_bytes(b"x" * 1024)
        large = behind.directory / "files" / "large"
        # Sparse: it takes no disk, and reading it no time.
        with large.open("wb") as file:
            file.truncate(SIZE)
        for case in CASES:
            # What a first request allocates once (a leaf certificate, late imports) is not what is asked for.
            if case.upload:
                transfer(case, proxy, small)
            before = proxy.reset_peak()
            seconds = transfer(case, proxy, large)
            growth = proxy.peak() - before
            table.rows.append([case.name, f"{before / MIB:.1f}", f"**{growth / MIB:.1f}**", f"{SIZE / MIB / seconds:,.0f}"])
    finish([table], arguments)


if __name__ == "__main__":
    main()
