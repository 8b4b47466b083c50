"""What the audit log costs, with and without a line before each call: requests a second and CPU time a request, on both fronts.

The variants take turns, to the same nginx behind TLS, with a 1 KiB POST; a figure is the median over the rounds of the ratio to no audit
log within one. sigward runs on CPU 0, upstream and load on CPU 1. Needs what bench_native needs.
"""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench.generators import Generators
from tests.bench.harness import Table, finish, parser, sigward, upstream
from tests.bench.ratios import Round, middle, per_cpu, rate, ratio

PROXY_CPU, LOAD_CPU = "0", "1"
CONNECTIONS = (1, 32, 256)
FRONTS = ("native", "mitmproxy")
VARIANTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "no audit log": lambda _: {},
    "audit_begun = false": lambda file: {"audit_log": str(file), "audit_begun": False},
    "audit_begun = true": lambda file: {"audit_log": str(file)},
}
BASE = next(iter(VARIANTS))


def front(name: str, arguments: Any, table: Table) -> None:
    """The rows of one front."""
    with ExitStack() as stack:
        behind = stack.enter_context(upstream(LOAD_CPU))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sigward-bench-")))
        proxies = []
        for number, (variant, settings) in enumerate(VARIANTS.items()):
            proxy = stack.enter_context(sigward(behind, cpus=PROXY_CPU, front=name, **settings(directory / f"audit-{number}.log")))
            proxy.name = variant
            proxies.append(proxy)
        generators = Generators(directory, arguments.seconds, LOAD_CPU)
        for proxy in proxies:
            generators.wrk(32, seconds=1)(proxy)
        for connections in CONNECTIONS:
            turn = generators.wrk(connections)
            rounds: list[Round] = [{proxy.name: turn(proxy) for proxy in proxies} for _ in range(arguments.rounds)]
            for variant in VARIANTS:
                found = [ratio(rounds, variant, BASE, figure) for figure in (rate, per_cpu)]
                table.rows.append(
                    [name, str(connections), variant, *(f"{one:.2f}" for one in found), f"{1e6 / middle(rounds, variant, per_cpu):,.0f}"]
                )


def main() -> None:
    """Prints the table."""
    made = parser(str(__doc__).splitlines()[0])
    made.add_argument("--seconds", type=int, default=2, help="length of one turn")
    made.add_argument("--rounds", type=int, default=5, help="turns for each")
    made.add_argument("--front", action="append", choices=FRONTS, help="may be repeated; default: both")
    arguments = made.parse_args()
    columns = ["front", "connections", "", "÷ no audit log, a second", "÷ no audit log, a CPU-second", "CPU µs a request"]
    table = Table("The audit log's cost", columns, readme=False)
    for name in arguments.front or FRONTS:
        front(name, arguments, table)
    finish([table], arguments)


if __name__ == "__main__":
    main()
