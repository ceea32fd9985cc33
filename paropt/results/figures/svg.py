"""Figures as SVG: inline, in the colours of the page around them, or as files of their own.

Each can be drawn in two widths, for a screen and for a telephone: a wide one made small has type
that nobody reads.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from paropt.results.figures.description import (
    COLOURS,
    Axis,
    Bars,
    Cells,
    Figure,
    Lines,
    Mark,
    Marks,
    Series,
    Shape,
    blend,
)

BOTTOM = 44  # below a plot: its ticks, and what they count
LINE = 18  # of text
ROW = 30  # of a mark or bar
CHARACTER = 7.2  # how wide one is, about, at 12 pixels
BESIDE = 34  # characters of a row's name, at most
DASHES = {"": "", "dash": ' stroke-dasharray="6 4"', "dot": ' stroke-dasharray="2 3"'}
STYLE = (
    "text{fill:#1c1c1e;font:12px system-ui,sans-serif}.dim{fill:#6b7280;font-size:11px}"
    ".title{font-weight:600}.rule{stroke:#d4d4d8}"
)


@dataclass(frozen=True)
class Sheet:
    """What is drawn on: ``legend`` pixels at the right are for the legend, 0: it goes below."""

    width: float
    height: float
    left: float
    legend: float

    @property
    def right(self) -> float:
        """Where a plot ends."""
        return self.width - (self.legend or 14)


WIDE = Sheet(860, 340, 62, 200)
NARROW = Sheet(400, 290, 58, 0)


def svg(figure: Figure, sheet: Sheet = WIDE) -> str:
    """The figure as an element of a page that says what --c0 to --c5 and the classes are."""
    titled, top = _titled(figure.title, sheet)
    match figure:
        case Lines():
            height, parts = _lines(figure, sheet, top)
        case Marks():
            height, parts = _marks(figure, sheet, top)
        case Bars():
            height, parts = _bars(figure, sheet, top)
        case Cells():
            height, parts = _cells(figure, sheet, top)
        case _:
            raise TypeError(f"no figure: {figure!r}")
    words = escape(figure.title)
    return (
        f'<svg viewBox="0 0 {sheet.width:g} {height:g}" width="{sheet.width:g}" '
        f'height="{height:g}" role="img" aria-label="{words}">{titled}{"".join(parts)}</svg>'
    )


def document(figure: Figure) -> str:
    """The figure as a file that needs nothing else; plain colours, as not all readers of SVG know
    CSS variables."""
    picture = svg(figure)
    for index, colour in enumerate(COLOURS):
        picture = picture.replace(f"var(--c{index})", colour)
    head, _, rest = picture.partition(">")
    white = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>{white}{rest}\n'


def axis(values: Iterable[float], begin: float, end: float, margin: float = 0.05) -> Axis:
    """An axis that shows all values, with some room beside them."""
    found = list(values)
    low, high = min(found, default=0.0), max(found, default=1.0)
    room = (high - low) * margin or abs(high) * 0.05 or 0.5
    return Axis(low - room, high + room, begin, end)


# -- kinds of figures ---------------------------------------------------------------------------


def _lines(figure: Lines, sheet: Sheet, top: float) -> tuple[float, list[str]]:
    points = [point for one, _ in figure.shown for point in one.known]
    told = [(one, place) for one, place in figure.shown if one.legend]
    bottom = top + sheet.height - BOTTOM - 34
    xs = axis((x for x, _ in points), sheet.left, sheet.right, 0.02)
    ys = axis((y for _, y in points), bottom, top)
    if figure.zero:
        ys = Axis(0.0, ys.high, ys.begin, ys.end)
    parts = [*_ruled(ys, sheet), *_counted(xs, bottom, figure.whole, sheet)]
    parts += [*_named(figure, sheet, top, bottom)]
    parts += [_drawn(one, _colour(place), xs, ys) for one, place in figure.shown]
    x, y = (sheet.right + 14, top + 4) if sheet.legend else (sheet.left, bottom + BOTTOM + 14)
    for row, (one, place) in enumerate(told):
        parts += [_key(one, _colour(place), x, y + LINE * row - 4)]
        parts += [_text(x + 26, y + LINE * row, _short(one.legend, 24 if sheet.legend else 46))]
    end = y + LINE * (len(told) - 1) + 8
    return max(bottom + BOTTOM, end if told else 0.0), parts


def _marks(figure: Marks, sheet: Sheet, top: float) -> tuple[float, list[str]]:
    rows = _rows([mark.name for mark in figure.marks], sheet, top, 64)
    xs = axis((value for mark in figure.marks for value in mark.values), rows.begin, rows.end)
    parts = []
    for tick in xs.ticks(6 if sheet.legend else 4):
        parts += [_line(xs(tick), top, xs(tick), rows.bottom, "rule")]
        parts += [_text(xs(tick), rows.bottom + 16, f"{tick:g}", "middle", "dim")]
    for index, (mark, place) in enumerate(figure.shown):
        y = rows.middle(index)
        parts += [rows.name(index), *_mark(mark, _colour(place), xs, y)]
        parts += [_text(rows.end + 8, y + 4, f"{mark.value:.4f}")]
    parts += [_text((rows.begin + rows.end) / 2, rows.bottom + 36, figure.x, "middle")]
    told = [(text, fill) for text, fill in ((figure.dots, "f"), (figure.rings, "")) if text]
    for row, (text, fill) in enumerate(told):
        y = rows.bottom + 38 + LINE * (row + 1)
        colour = "var(--c2)"
        parts += [_circle(rows.begin + 6, y - 4, 4, colour if fill else "none", colour)]
        parts += [_text(rows.begin + 18, y, text, kind="dim")]
    return rows.bottom + BOTTOM + LINE * len(told), parts


def _mark(mark: Mark, colour: str, xs: Axis, y: float) -> Iterable[str]:
    if mark.interval:
        low, high = (xs(value) for value in mark.interval)
        yield (
            f'<line x1="{low:.1f}" y1="{y:.1f}" x2="{high:.1f}" y2="{y:.1f}" '
            f'stroke="{colour}" stroke-width="6" stroke-opacity=".35"/>'
        )
    yield from (_circle(xs(value), y, 3.5, "none", colour) for value in mark.singles)
    yield _circle(xs(mark.value), y, 4.5, colour)


def _bars(figure: Bars, sheet: Sheet, top: float) -> tuple[float, list[str]]:
    rows = _rows([name for name, _ in figure.bars], sheet, top, 50)
    most = max((value for _, value in figure.bars), default=1.0) or 1.0
    xs = Axis(0.0, most, rows.begin, rows.end)
    parts = []
    for index, (_, value) in enumerate(figure.bars):
        y = rows.middle(index)
        parts += [rows.name(index)]
        parts += [_rect(rows.begin, y - 8, max(1.0, xs(value) - rows.begin), 16, _colour(0))]
        parts += [_text(max(xs(value), rows.begin) + 8, y + 4, f"{value:.0%}", kind="dim")]
    parts += [_text((rows.begin + rows.end) / 2, rows.bottom + 18, figure.x, "middle")]
    return rows.bottom + 28, parts


def _cells(figure: Cells, sheet: Sheet, top: float) -> tuple[float, list[str]]:
    tall = max(4.0, min(24.0, 420.0 / max(1, len(figure.rows))))
    wide = (sheet.right - sheet.left) / max(1, figure.width)
    bottom = top + tall * len(figure.rows)
    every = -(-11 // tall)  # rows whose names stand clear of each other
    parts = []
    for row, (name, values) in enumerate(figure.rows):
        y = top + tall * row
        if row % every == 0:
            parts += [_text(sheet.left - 8, y + tall / 2 + 4, name, "end", "dim")]
        for column, value in enumerate(values):
            if value is not None:
                colour = "rgb({},{},{})".format(*blend(value / (figure.most or 1)))
                parts += [_rect(sheet.left + wide * column, y, wide, tall, colour, f"{value:.4f}")]
    centres = Axis(0.5, figure.width + 0.5, sheet.left, sheet.right)
    parts += [*_counted(centres, bottom, True, sheet), *_named(figure, sheet, top, bottom)]
    x, y = (sheet.right + 20, top) if sheet.legend else (sheet.left, bottom + BOTTOM)
    parts += [*_scale(figure, x, y)]
    return max(bottom + BOTTOM, y + 100), parts


def _scale(figure: Cells, x: float, top: float) -> Iterable[str]:
    """What the colours mean."""
    steps = 20
    for step in range(steps):
        colour = "rgb({},{},{})".format(*blend(1 - step / (steps - 1)))
        yield _rect(x, top + 4 * step, 14, 4, colour)
    yield _text(x + 20, top + 10, f"{figure.most:.3g}", kind="dim")
    yield _text(x + 20, top + 4 * steps, "0", kind="dim")
    yield _text(x, top + 4 * steps + 16, figure.scale, kind="dim")


# -- their parts --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """Rows with names: beside them where there is room, else above each."""

    names: Sequence[str]
    top: float
    begin: float
    end: float
    tall: float
    above: bool

    @property
    def bottom(self) -> float:
        return self.top + self.tall * len(self.names)

    def middle(self, index: int) -> float:
        return self.top + self.tall * (index + 1) - ROW / 2

    def name(self, index: int) -> str:
        y = self.middle(index)
        if self.above:
            return _text(self.begin, y - 12, _short(self.names[index], 50))
        return _text(self.begin - 10, y + 4, _short(self.names[index], BESIDE), "end")


def _rows(names: Sequence[str], sheet: Sheet, top: float, values: float) -> _Rows:
    """``values`` pixels at the right are for the numbers."""
    if not sheet.legend:
        return _Rows(names, top, 12, sheet.width - values, ROW + 12, True)
    longest = min(BESIDE, max(map(len, names), default=0))
    return _Rows(names, top, 24 + CHARACTER * longest, sheet.width - values - 20, ROW, False)


def _titled(title: str, sheet: Sheet) -> tuple[str, float]:
    """The title, in as many lines as it needs, and where the plot below it begins."""
    lines = textwrap.wrap(title, int((sheet.width - 20) / 7)) or [""]
    said = [
        f'<text x="12" y="{LINE * (row + 1)}" class="title">{escape(line)}</text>'
        for row, line in enumerate(lines)
    ]
    return "".join(said), LINE * len(lines) + 18.0


def _ruled(ys: Axis, sheet: Sheet) -> Iterable[str]:
    for tick in ys.ticks():
        yield _line(sheet.left, ys(tick), sheet.right, ys(tick), "rule")
        yield _text(sheet.left - 8, ys(tick) + 4, f"{tick:g}", "end", "dim")


def _counted(xs: Axis, bottom: float, whole: bool, sheet: Sheet) -> Iterable[str]:
    for tick in xs.ticks(8 if sheet.legend else 5, 1.0 if whole else 0.0):
        yield _text(xs(tick), bottom + 16, f"{tick:g}", "middle", "dim")


def _named(figure: Figure, sheet: Sheet, top: float, bottom: float) -> Iterable[str]:
    """What the axes count: x below, y upwards at the left."""
    yield _text((sheet.left + sheet.right) / 2, bottom + 36, figure.x, "middle")
    y = (top + bottom) / 2
    turned = f'<g transform="rotate(-90 14 {y:.1f})">'
    yield f"{turned}{_text(14, y, figure.y, 'middle')}</g>" if figure.y else ""


def _drawn(one: Series, colour: str, xs: Axis, ys: Axis) -> str:
    points = [(xs(x), ys(y)) for x, y in one.known]
    if one.dots or len(points) == 1:
        return "".join(_dot(one, x, y, colour) for x, y in points)
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for x, y in points[1:]:
        path.append(f"H{x:.1f}V{y:.1f}" if one.steps else f"L{x:.1f} {y:.1f}")
    return (
        f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="{one.width:g}"'
        f' stroke-opacity="{one.opacity:g}"{DASHES[one.dash]}/>'
    )


def _key(one: Series, colour: str, x: float, y: float) -> str:
    """The line or dot that stands before a legend's entry."""
    if one.dots or len(one.known) == 1:
        return _dot(one, x + 9, y, colour)
    return (
        f'<line x1="{x:g}" y1="{y:.1f}" x2="{x + 18:g}" y2="{y:.1f}" stroke="{colour}" '
        f'stroke-width="{one.width:g}" stroke-opacity="{one.opacity:g}"{DASHES[one.dash]}/>'
    )


def _dot(one: Series, x: float, y: float, colour: str) -> str:
    fill = "none" if one.hollow else colour
    if one.shape == "circle":
        return _circle(x, y, 3.5, fill, colour, one.opacity)
    corners = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in CORNERS[one.shape])
    faint = f' opacity="{one.opacity:g}"' if one.opacity < 1 else ""
    return f'<polygon points="{corners}" fill="{fill}" stroke="{colour}"{faint}/>'


CORNERS: dict[Shape, Sequence[tuple[float, float]]] = {
    "square": ((-3.3, -3.3), (3.3, -3.3), (3.3, 3.3), (-3.3, 3.3)),
    "diamond": ((0, -4.6), (4.6, 0), (0, 4.6), (-4.6, 0)),
    "triangle": ((0, -4.4), (4.2, 3.2), (-4.2, 3.2)),
}


def _colour(index: int) -> str:
    return f"var(--c{index % len(COLOURS)})"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _rect(x: float, y: float, width: float, height: float, fill: str, title: str = "") -> str:
    said = f"<title>{title}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="{height:.2f}" '
        f'fill="{fill}">{said}</rect>'
    )


def _circle(
    x: float, y: float, radius: float, fill: str, stroke: str = "none", opacity: float = 1
) -> str:
    faint = f' opacity="{opacity:g}"' if opacity < 1 else ""
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}" stroke="{stroke}"{faint}/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    words = escape(text)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{words}</text>'
