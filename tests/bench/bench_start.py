"""From the listener's binding to the first signed answer, with keys from a metadata service 1 ms away.

Run it with `python -m tests.bench.bench_start`.
"""

import statistics
import subprocess
import sys
import time
from tempfile import TemporaryDirectory

from sigward.demo.emulator import Emulator
from sigward.demo.gateway import Gateway
from tests.e2e.conftest import ask
from tests.e2e.test_providers import FORM, IDENTITY
from tests.unit.credentials.servers import Imds, serving

RUNS = 9
FLOOR = 50.0
"""Milliseconds: what the first signed request may take after the listener binds."""


class NearImds(Imds):
    """Every answer takes 1 ms."""

    def do_PUT(self) -> None:  # noqa: N802
        time.sleep(0.001)
        super().do_PUT()

    def do_GET(self) -> None:  # noqa: N802
        time.sleep(0.001)
        super().do_GET()


def main() -> None:
    """Prints medians."""
    with Emulator() as emulator, TemporaryDirectory() as home:
        given = {
            "AccessKeyId": emulator.access_key_id,
            "SecretAccessKey": emulator.secret_access_key,
            "Token": "",
            "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600)),
        }
        first, later = [], []
        with serving(NearImds, given) as server:
            environment = {"HOME": home, "AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url}
            for _ in range(RUNS):
                with Gateway(emulator, environment) as gateway:
                    for kept in (first, later):
                        began = time.perf_counter()
                        answer = ask(gateway.addresses["sts"], "POST", "/", FORM, IDENTITY)
                        kept.append((time.perf_counter() - began) * 1000)
                        assert answer.status == 200, answer.body
        middle = statistics.median
        print(
            f"first signed answer after the listener is bound: {middle(first):.0f} ms (goal {FLOOR:.0f}); the next {middle(later):.0f} ms"
        )
    program = (
        "import time; began = time.perf_counter(); from sigward.credentials import Chain; Chain(None, 'us-east-1').load(); "
        "print((time.perf_counter() - began) * 1000)"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    command = [sys.executable, "-c", program]
    took = [float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout) for _ in range(RUNS)]
    print(f"import of the credentials package and a first walk: {statistics.median(took):.0f} ms (goal 250)")


if __name__ == "__main__":
    main()
