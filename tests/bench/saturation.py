"""Ten minutes at saturation through each front, one after the other: resident memory and descriptors, sampled every second.

`python -m tests.bench.saturation`. All that can leak is exercised at once: kept and new connections, TLS inside a CONNECT, HTTP/2,
large bodies. Fails if the resident memory grows by more than 5 % after the first minute, or if descriptors are left open when the load
has gone. Needs what `bench_native` needs.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import plot
from tests.bench.generators import MIB, Generators, LoadError, Turn
from tests.bench.harness import Proxy, Table, finish, parser, sigward, upstream
from tests.bench.ratios import growth

FRONTS = ("native", "mitmproxy")
MOST_GROWTH = 0.05
TURN = 5
"""Seconds of one turn of a generator; then the next begins, with new connections."""
SETTLE = 30.0
"""Seconds that descriptors may take to be closed when the load has gone; idle connections to the upstream are kept for 2 s here."""


@dataclass
class Soaked:
    """What was sampled of one front. `resident`: MiB, `descriptors`: each by the second. `requests`: by the load's name."""

    resident: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    requests: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    idle_before: int = 0
    idle_after: int = 0

    def windows(self) -> tuple[list[float], list[float]]:
        """The end of the first minute, and the end; of a shorter run, of its first quarter."""
        warm = min(60, len(self.resident) // 4)
        size = max(3, min(30, warm // 2))
        return self.resident[max(0, warm - size) : max(warm, size)], self.resident[-size:]

    @property
    def grown(self) -> float:
        """The resident memory's growth after the first minute: 0.05 for 5 %."""
        return growth(*self.windows())

    def faults(self) -> list[str]:
        """Why it fails; empty if it does not."""
        found = list(self.errors)
        if self.grown > MOST_GROWTH:
            found.append(f"the resident memory grew by {self.grown:.1%} after the first minute")
        if self.idle_after > self.idle_before:
            found.append(f"{self.idle_after} descriptors are open without load; before it were {self.idle_before}")
        return found


def loads(generators: Generators, front: str, large: Path) -> dict[str, Turn]:
    """All at once."""
    # mitmproxy ends a connection as it was asked to, but does not say so in the answer.
    unsaid = front == "mitmproxy"
    return {
        "kept connections": generators.wrk(48),
        "new connections": generators.wrk(4, close=True, unsaid=unsaid),
        "HTTPS_PROXY, a handshake each": generators.wrk(2, to="forward", close=True, unsaid=unsaid),
        "HTTPS_PROXY, HTTP/2": generators.http2(2, 16, to="forward"),
        "uploads": generators.transfers(4, large, upload=True),
        "downloads": generators.transfers(4, large, upload=False),
    }


def soak(proxy: Proxy, turns: dict[str, Turn], seconds: float) -> Soaked:
    """Loads it for so long."""
    soaked = Soaked()
    for turn in turns.values():
        turn(proxy)
    soaked.idle_before = settled(proxy, None)
    end = time.monotonic() + seconds

    def go_on(name: str, turn: Turn) -> None:
        try:
            while time.monotonic() < end:
                soaked.requests[name] = soaked.requests.get(name, 0) + turn(proxy).amount
        except LoadError as error:
            soaked.errors.append(f"{name}: {str(error)[-1000:]}")

    threads = [threading.Thread(target=go_on, args=item) for item in turns.items()]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    while (now := time.monotonic()) < end:
        soaked.resident.append(proxy.resident() / MIB)
        soaked.descriptors.append(proxy.descriptors())
        time.sleep(max(0.0, began + len(soaked.resident) - now))
    for thread in threads:
        thread.join()
    soaked.idle_after = settled(proxy, soaked.idle_before)
    return soaked


def settled(proxy: Proxy, most: int | None) -> int:
    """Descriptors without load: as soon as there are at most so many, or when they have not changed for five seconds."""
    seen: list[int] = []
    deadline = time.monotonic() + SETTLE
    while time.monotonic() < deadline:
        seen.append(proxy.descriptors())
        if (most is not None and seen[-1] <= most) or (most is None and len(seen) > 10 and len(set(seen[-10:])) == 1):
            break
        time.sleep(0.5)
    return seen[-1]


def flags() -> argparse.ArgumentParser:
    """This one's."""
    made = parser(str(__doc__).splitlines()[0])
    made.add_argument("--seconds", type=float, default=600.0, help="for each front")
    made.add_argument("--front", choices=FRONTS, action="append", help="only this one; may be repeated")
    made.add_argument("--plots", type=Path, help="write the plots there")
    return made


def main() -> None:
    """Prints the table; ends with status 1 if something grew."""
    arguments = flags().parse_args()
    columns = [
        "",
        "requests",
        "resident after the first minute, MiB",
        "at the end, MiB",
        "growth (goal ≤ 5 %)",
        "descriptors idle, before / after",
    ]
    table = Table(f"Saturation: {arguments.seconds:,.0f} s", columns, readme=False)
    results: dict[str, Soaked] = {}
    with ExitStack() as stack:
        behind = stack.enter_context(upstream("1"))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sigward-bench-")))
        large = behind.directory / "files" / "large"
        with large.open("wb") as file:
            file.truncate(8 * MIB)
        generators = Generators(directory, TURN, "1")
        for front in arguments.front or FRONTS:
            with sigward(behind, cpus="0", front=front, tables='[timeouts]\npool_idle = "2s"') as proxy:
                results[front] = soak(proxy, loads(generators, front, large), arguments.seconds)
            tell(table, front, results[front])
    finish([table], arguments)
    if arguments.plots:
        draw(arguments.plots, results)
    faults = [f"{front}: {fault}" for front, soaked in results.items() for fault in soaked.faults()]
    if faults:
        sys.exit("\n".join(faults))


def tell(table: Table, front: str, soaked: Soaked) -> None:
    """One row."""
    before, after = (statistics.median(window) for window in soaked.windows())
    requests = sum(amount for name, amount in soaked.requests.items() if name not in ("uploads", "downloads"))
    idle = f"{soaked.idle_before} / {soaked.idle_after}"
    table.rows.append([f"{front} front", f"{requests:,.0f}", f"{before:.1f}", f"{after:.1f}", f"**{soaked.grown:.1%}**", idle])


def draw(folder: Path, results: dict[str, Soaked]) -> None:
    """Resident memory and descriptors over time."""
    figures: dict[str, tuple[str, Callable[[Soaked], list[float]]]] = {
        "saturation-memory": ("resident memory, MiB", lambda soaked: soaked.resident),
        "saturation-descriptors": ("open descriptors", lambda soaked: [float(count) for count in soaked.descriptors]),
    }
    for file, (label, values) in figures.items():
        series = [
            plot.Series(f"{front} front", [(second / 60, value) for second, value in enumerate(values(soaked))])
            for front, soaked in results.items()
        ]
        plot.write(folder / f"{file}.svg", plot.line_plot(f"Saturation: {label}", "minutes", label, series))


if __name__ == "__main__":
    main()
