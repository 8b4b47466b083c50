"""Line plots as SVG, without a library: few series, one linear axis from zero, readable on white and on black.

Used by `bench_native` and `soak`, which write them to docs/plots.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 72, 20, 80, 48
INK = "#7a828c"
"""Text, axes and grid. At least 3.9:1 on white and on GitHub's black, so that no theme has to be known."""
COLOURS = ("#2f81f7", "#db6d28", "#2da44e", "#a371f7", "#d4548e", "#8b949e")
MARKS = ("circle", "square", "diamond", "triangle")
MOST_MARKS = 40
"""Above that many points, a line goes without marks."""


@dataclass(frozen=True)
class Series:
    """`points`: (x, y), ordered by x."""

    name: str
    points: Sequence[tuple[float, float]]


def ticks(top: float, most: int = 6) -> list[float]:
    """0 to at least `top` in steps of 1, 2 or 5 times a power of ten, at most `most` steps."""
    if top <= 0:
        return [0.0, 1.0]
    raw = top / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [number * step for number in range(math.ceil(top / step - 1e-9) + 1)]


def label(value: float) -> str:
    """ "0", "0.25", "12", "45,000"."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.10g}"


def line_plot(title: str, x_label: str, y_label: str, series: Sequence[Series], *, log_x: bool = False) -> str:
    """An SVG document. `log_x`: x > 0 then, with a tick at each x that a series has. Raises `ValueError` without a point."""
    xs = sorted({x for each in series for x, _ in each.points})
    if not xs:
        raise ValueError(f"{title}: nothing to plot")
    if log_x and xs[0] <= 0:
        raise ValueError(f"{title}: {xs[0]} has no logarithm")
    y_ticks = ticks(max(y for each in series for _, y in each.points))
    x_ticks = xs if log_x else ticks(xs[-1])
    scale = math.log10 if log_x else float
    first, last = (scale(xs[0]), scale(xs[-1])) if log_x else (0.0, x_ticks[-1])

    def at_x(x: float) -> float:
        share = (scale(x) - first) / (last - first) if last > first else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def at_y(y: float) -> float:
        return HEIGHT - BOTTOM - y / y_ticks[-1] * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f"<title>{escape(title)}</title>",
        _text(LEFT, 20, title, size=14, weight="600"),
        _text(LEFT, TOP - 10, y_label, size=11),
        _text(WIDTH - RIGHT, HEIGHT - 8, x_label, anchor="end", size=11),
    ]
    for y in y_ticks:
        strength = 0.9 if y == 0 else 0.25
        parts.append(_line(LEFT, at_y(y), WIDTH - RIGHT, at_y(y), strength))
        parts.append(_text(LEFT - 8, at_y(y) + 4, label(y), anchor="end"))
    for x in x_ticks:
        parts.append(_line(at_x(x), HEIGHT - BOTTOM, at_x(x), HEIGHT - BOTTOM + 5, 0.9))
        parts.append(_text(at_x(x), HEIGHT - BOTTOM + 19, label(x), anchor="middle"))
    parts += _legend([each.name for each in series])
    for number, each in enumerate(series):
        places = [(at_x(x), at_y(y)) for x, y in each.points]
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>')
        if len(places) <= MOST_MARKS:
            parts += [_mark(number, x, y) for x, y in places]
    return "\n".join([*parts, "</svg>"]) + "\n"


def write(path: Path, plot: str) -> None:
    """Makes the folder, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(plot)


def _legend(names: Sequence[str]) -> list[str]:
    """In one line below the title; marks tell the series apart where colours do not."""
    parts: list[str] = []
    x = float(LEFT)
    for number, name in enumerate(names):
        parts.append(_mark(number, x + 5, 38))
        parts.append(_text(x + 15, 42, name))
        x += 34 + 6.6 * len(name)
    return parts


def _mark(number: int, x: float, y: float) -> str:
    colour, kind = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
    if kind == "square":
        return f'<rect x="{x - 3.2:.1f}" y="{y - 3.2:.1f}" width="6.4" height="6.4" fill="{colour}"/>'
    corners = [(0, -4.5), (4.5, 0), (0, 4.5), (-4.5, 0)] if kind == "diamond" else [(0, -4.2), (4.2, 3.4), (-4.2, 3.4)]
    return f'<polygon points="{" ".join(f"{x + right:.1f},{y + down:.1f}" for right, down in corners)}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, weight: str = "400") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, strength: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{INK}" stroke-opacity="{strength}"/>'
