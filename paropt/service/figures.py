"""Plots as inline SVG, in the colours of the page around them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 860, 340
LEFT, RIGHT, TOP, BOTTOM = 60, 170, 34, 44
ROW = 30  # of a plot of intervals
COLOURS = 6

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Series:
    """Points (x, y) in the order of x; without a y there is a gap."""

    name: str
    points: Sequence[Point]
    steps: bool = False
    dots: bool = False
    dashed: bool = False

    @property
    def known(self) -> list[tuple[float, float]]:
        return [(x, y) for x, y in self.points if y is not None]


@dataclass(frozen=True)
class Mark:
    """A value with its interval, and single values that it is the mean of."""

    name: str
    value: float
    interval: Sequence[float] | None = None
    singles: Sequence[float] = ()

    @property
    def values(self) -> list[float]:
        return [self.value, *(self.interval or ()), *self.singles]


@dataclass(frozen=True)
class Axis:
    """Data coordinates to those of the picture."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)

    def ticks(self, about: int = 6, least: float = 0.0) -> list[float]:
        """Round numbers within the range, at least so far apart."""
        rough = max((self.high - self.low) / about, least)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [round(i * step, 12) for i in range(first, last + 1)]


def axis(values: Iterable[float], begin: float, end: float, margin: float = 0.05) -> Axis:
    """An axis that shows all values, with some room beside them."""
    found = list(values)
    low, high = min(found, default=0.0), max(found, default=1.0)
    room = (high - low) * margin or abs(high) * 0.05 or 0.5
    return Axis(low - room, high + room, begin, end)


def lines(series: Sequence[Series], title: str, x_label: str, *, whole: bool = False) -> str:
    """Several series against a common x; what has no point is left out. ``whole``: x is counted."""
    shown = [one for one in series if one.known]
    xs = axis((x for one in shown for x, _ in one.known), LEFT, WIDTH - RIGHT, 0.02)
    ys = axis((y for one in shown for _, y in one.known), HEIGHT - BOTTOM, TOP)
    parts = [
        *_grid(xs, ys, whole),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle"),
    ]
    for index, one in enumerate(shown):
        colour = f"var(--c{index % COLOURS})"
        y = TOP + 8 + 20 * index
        parts += [_drawn(one, colour, xs, ys)]
        parts += [_circle(WIDTH - RIGHT + 16, y - 4, 4, colour)]
        parts += [_text(WIDTH - RIGHT + 26, y, one.name)]
    return _svg(HEIGHT, title, parts)


def intervals(marks: Sequence[Mark], title: str) -> str:
    """One row per mark: its interval as a bar, its value as a dot, single values as rings."""
    height = TOP + ROW * len(marks) + BOTTOM
    left = LEFT + 90
    xs = axis((value for mark in marks for value in mark.values), left, WIDTH - 40)
    parts = []
    for tick in xs.ticks():
        parts += [_line(xs(tick), TOP, xs(tick), height - BOTTOM, "rule")]
        parts += [_text(xs(tick), height - BOTTOM + 18, f"{tick:g}", "middle", "dim")]
    for index, mark in enumerate(marks):
        y, colour = TOP + ROW * (index + 0.5), f"var(--c{index % COLOURS})"
        parts += [_text(left - 10, y + 4, mark.name, "end")]
        if mark.interval:
            low, high = (xs(value) for value in mark.interval)
            parts += [
                f'<line x1="{low:.1f}" y1="{y:.1f}" x2="{high:.1f}" y2="{y:.1f}" '
                f'stroke="{colour}" stroke-width="6" stroke-opacity=".35"/>'
            ]
        parts += [_circle(xs(value), y, 3.5, "none", colour) for value in mark.singles]
        parts += [_circle(xs(mark.value), y, 4.5, colour)]
    return _svg(height, title, parts)


def _grid(xs: Axis, ys: Axis, whole: bool) -> Iterable[str]:
    for tick in ys.ticks(5):
        yield _line(LEFT, ys(tick), WIDTH - RIGHT, ys(tick), "rule")
        yield _text(LEFT - 8, ys(tick) + 4, f"{tick:g}", "end", "dim")
    for tick in xs.ticks(8, 1.0 if whole else 0.0):
        yield _text(xs(tick), HEIGHT - BOTTOM + 16, f"{tick:g}", "middle", "dim")


def _drawn(one: Series, colour: str, xs: Axis, ys: Axis) -> str:
    points = [(xs(x), ys(y)) for x, y in one.known]
    if one.dots or len(points) == 1:
        return "".join(_circle(x, y, 3, colour, opacity=0.6) for x, y in points)
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for x, y in points[1:]:
        path.append(f"H{x:.1f}V{y:.1f}" if one.steps else f"L{x:.1f} {y:.1f}")
    dashes = ' stroke-dasharray="5 4"' if one.dashed else ""
    return f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'


def _circle(
    x: float, y: float, radius: float, fill: str, stroke: str = "none", opacity: float = 1
) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}" stroke="{stroke}" '
        f'fill-opacity="{opacity}"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    words = escape(text)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{words}</text>'


def _svg(height: float, title: str, parts: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" role="img" '
        f'aria-label="{escape(title)}"><text x="{LEFT}" y="18" font-weight="600">{escape(title)}'
        f"</text>{''.join(parts)}</svg>"
    )
