"""Figures out of rounds: in a round every proxy has one turn, and only turns of the same round are compared."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One turn. `amount`: requests, or MiB. `seconds`: wall time. `cpu`: seconds of the proxy's. `p50`, `p99`: latency, µs."""

    amount: float
    seconds: float
    cpu: float
    p50: float = math.nan
    p99: float = math.nan


Round = Mapping[str, Sample]
"""By the proxy's name; one that failed is not in it."""

Figure = Callable[[Sample], float]


def rate(sample: Sample) -> float:
    """Requests (MiB) a second."""
    return sample.amount / sample.seconds


def per_cpu(sample: Sample) -> float:
    """Requests (MiB) a CPU-second of the proxy; NaN if it took less than a clock tick."""
    return sample.amount / sample.cpu if sample.cpu else math.nan


def p50(sample: Sample) -> float:
    """Median latency, µs."""
    return sample.p50


def p99(sample: Sample) -> float:
    """99th percentile of latency, µs."""
    return sample.p99


def middle(rounds: Sequence[Round], name: str, figure: Figure) -> float:
    """Median over the rounds; NaN if it has none."""
    return _median([figure(each[name]) for each in rounds if name in each])


def ratio(rounds: Sequence[Round], name: str, base: str, figure: Figure) -> float:
    """Median over the rounds of the ratio within a round: what slows the machine down for a while slows both."""
    return _median([figure(each[name]) / figure(each[base]) for each in rounds if name in each and base in each])


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def goal(found: float, least: float | None = None, most: float | None = None) -> str:
    """ "✓", "✗", or nothing where there is no goal or no figure."""
    if (least is None and most is None) or math.isnan(found):
        return ""
    return "✓" if (least is None or found >= least) and (most is None or found <= most) else "✗"


def growth(before: Sequence[float], after: Sequence[float]) -> float:
    """How much more the median of `after` is than that of `before`: 0.05 for 5 %."""
    return statistics.median(after) / statistics.median(before) - 1
