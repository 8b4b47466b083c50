"""What the benchmarks compute and draw: ratios within rounds, growth, and plots."""

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.bench import plot, report
from tests.bench.harness import Table
from tests.bench.ratios import Sample, goal, growth, middle, per_cpu, rate, ratio
from tests.bench.rivals import peers

SVG = "{http://www.w3.org/2000/svg}"


def sample(amount: float, seconds: float = 1.0, cpu: float = 1.0) -> Sample:
    return Sample(amount, seconds, cpu)


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine is ten times slower in the second round, and one proxy stumbles in the third.
    rounds = [{"a": sample(90), "b": sample(100)}, {"a": sample(9), "b": sample(10)}, {"a": sample(10), "b": sample(100)}]
    assert ratio(rounds, "a", "b", rate) == pytest.approx(0.9)
    # Of medians it would be something else.
    assert middle(rounds, "a", rate) / middle(rounds, "b", rate) == pytest.approx(0.1)


def test_requests_a_cpu_second_and_a_second() -> None:
    one = sample(100, seconds=2.0, cpu=0.5)
    assert (rate(one), per_cpu(one)) == (50, 200)
    assert math.isnan(per_cpu(sample(1, cpu=0.0)))


def test_one_that_failed_has_no_figure() -> None:
    rounds = [{"a": sample(1)}, {"a": sample(3), "b": sample(2)}]
    assert ratio(rounds, "a", "b", rate) == pytest.approx(1.5)
    assert math.isnan(ratio(rounds, "c", "a", rate))
    assert math.isnan(middle(rounds, "c", rate))


@pytest.mark.parametrize(
    ("found", "least", "most", "mark"),
    [
        (0.9, 0.9, None, "✓"),
        (0.89, 0.9, None, "✗"),
        (1.1, None, 1.15, "✓"),
        (1.2, None, 1.15, "✗"),
        (1.0, None, None, ""),
        (math.nan, 0.9, None, ""),
    ],
)
def test_goals(found: float, least: float | None, most: float | None, mark: str) -> None:
    assert goal(found, least=least, most=most) == mark


def test_growth_is_of_medians() -> None:
    assert growth([100, 100, 500], [106, 106, 0]) == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        (7, [0, 2, 4, 6, 8]),
        (10, [0, 2, 4, 6, 8, 10]),
        (43_000, [0, 10_000, 20_000, 30_000, 40_000, 50_000]),
        (0.3, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
    ],
)
def test_ticks_are_round_and_reach_the_top(top: float, expected: list[float]) -> None:
    assert plot.ticks(top) == pytest.approx(expected)


def test_a_plot_is_svg_with_its_points_in_the_right_places() -> None:
    series = [plot.Series("nginx & co.", [(1, 100), (10, 50), (100, 0)]), plot.Series("sigward", [(1, 80), (100, 80)])]
    root = ElementTree.fromstring(  # noqa: S314 - ours
        plot.line_plot("Cost <over> work", "connections", "requests", series, log_x=True)
    )
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"Cost <over> work", "connections", "requests", "nginx & co.", "sigward", "1", "10", "100"} <= set(texts)
    first, second = (
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()] for line in root.iter(f"{SVG}polyline")
    )
    # Logarithmic: 10 is half way between 1 and 100; linear: 50 is half way between 0 and 100.
    assert first[1][0] == pytest.approx((first[0][0] + first[2][0]) / 2, abs=0.1)
    assert first[1][1] == pytest.approx((first[0][1] + first[2][1]) / 2, abs=0.1)
    assert second[0][1] == second[1][1] > first[0][1]
    inside = [0 <= x <= plot.WIDTH and 0 <= y <= plot.HEIGHT for x, y in first + second]
    assert all(inside)


def test_nothing_to_plot() -> None:
    with pytest.raises(ValueError, match="nothing to plot"):
        plot.line_plot("Empty", "x", "y", [plot.Series("a", [])])
    with pytest.raises(ValueError, match="logarithm"):
        plot.line_plot("Zero", "x", "y", [plot.Series("a", [(0, 1)])], log_x=True)


def test_peers_by_line_or_semicolons() -> None:
    assert peers("a=run --port $LISTEN_PORT;;b = X=1 run\n\n c=go") == {"a": "run --port $LISTEN_PORT", "b": "X=1 run", "c": "go"}
    assert peers("") == {}
    with pytest.raises(ValueError, match="name=command"):
        peers("run")


def test_a_report_replaces_what_stands_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write(page, [Table("New", ["", "x"], [["row", "1"]])])
    told = page.read_text()
    assert told.startswith(f"before\n{report.BEGIN}\n")
    assert told.endswith(f"{report.END}\nafter\n")
    assert "| row | 1 |" in told
    assert "old" not in told
