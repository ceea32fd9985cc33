"""Figures as SVG: inline, in the colours of the page around them, or as files of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from paropt.results.figures.description import (
    COLOURS,
    Axis,
    Bars,
    Cells,
    Figure,
    Lines,
    Mark,
    Series,
    blend,
)

WIDTH, HEIGHT = 860, 340
LEFT, RIGHT, TOP, BOTTOM = 60, 170, 34, 44
ROW = 30  # of a plot of intervals
DASHES = {"": "", "dash": ' stroke-dasharray="6 4"', "dot": ' stroke-dasharray="2 3"'}
STYLE = (
    "text{fill:#1c1c1e;font:12px system-ui,sans-serif}.dim{fill:#6b7280;font-size:11px}"
    ".rule{stroke:#d4d4d8}"
)


def svg(figure: Figure) -> str:
    """The figure as an element of a page that says what --c0 to --c5 and the classes are."""
    match figure:
        case Lines():
            return _lines(figure)
        case Bars():
            return _bars(figure)
        case Cells():
            return _cells(figure)
    raise TypeError(f"no figure: {figure!r}")


def document(figure: Figure) -> str:
    """The figure as a file that needs nothing else; plain colours, as not all readers of SVG know
    CSS variables."""
    picture = svg(figure)
    for index, colour in enumerate(COLOURS):
        picture = picture.replace(f"var(--c{index})", colour)
    head, _, rest = picture.partition(">")
    white = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>{white}{rest}\n'


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
        y, colour = TOP + ROW * (index + 0.5), _colour(index)
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


def axis(values: Iterable[float], begin: float, end: float, margin: float = 0.05) -> Axis:
    """An axis that shows all values, with some room beside them."""
    found = list(values)
    low, high = min(found, default=0.0), max(found, default=1.0)
    room = (high - low) * margin or abs(high) * 0.05 or 0.5
    return Axis(low - room, high + room, begin, end)


# -- kinds of figures ---------------------------------------------------------------------------


def _lines(figure: Lines) -> str:
    points = [point for one, _ in figure.shown for point in one.known]
    xs = axis((x for x, _ in points), LEFT, WIDTH - RIGHT, 0.02)
    ys = axis((y for _, y in points), HEIGHT - BOTTOM, TOP)
    if figure.zero:
        ys = Axis(0.0, ys.high, ys.begin, ys.end)
    parts = [*_ruled(ys), *_counted(xs, figure.whole), _below(figure.x), _beside(figure.y)]
    entry = 0
    for one, place in figure.shown:
        colour = _colour(place)
        parts += [_drawn(one, colour, xs, ys)]
        if one.legend:
            y = TOP + 8 + 20 * entry
            parts += [_key(one, colour, y - 4), _text(WIDTH - RIGHT + 36, y, one.legend)]
            entry += 1
    return _svg(HEIGHT, figure.title, parts)


def _bars(figure: Bars) -> str:
    ys = axis([0.0, *(value for _, value in figure.bars)], HEIGHT - BOTTOM, TOP)
    ys = Axis(0.0, ys.high, ys.begin, ys.end)
    place = (WIDTH - RIGHT - LEFT) / max(1, len(figure.bars))
    parts = [*_ruled(ys), _below(figure.x), _beside(figure.y)]
    for index, (name, value) in enumerate(figure.bars):
        middle, top = LEFT + place * (index + 0.5), ys(value)
        wide = min(80.0, place * 0.6)
        parts += [_rect(middle - wide / 2, top, wide, HEIGHT - BOTTOM - top, _colour(0))]
        parts += [_text(middle, HEIGHT - BOTTOM + 16, name, "middle")]
        parts += [_text(middle, top - 5, f"{value:.4f}", "middle", "dim")]
    return _svg(HEIGHT, figure.title, parts)


def _cells(figure: Cells) -> str:
    tall = max(4.0, min(24.0, 420.0 / max(1, len(figure.rows))))
    wide = (WIDTH - RIGHT - LEFT) / max(1, figure.width)
    height = TOP + tall * len(figure.rows) + BOTTOM
    every = -(-11 // tall)  # rows whose names stand clear of each other
    parts = []
    for row, (name, values) in enumerate(figure.rows):
        y = TOP + tall * row
        if row % every == 0:
            parts += [_text(LEFT - 8, y + tall / 2 + 4, name, "end", "dim")]
        for column, value in enumerate(values):
            if value is not None:
                colour = "rgb({},{},{})".format(*blend(value / (figure.most or 1)))
                parts += [_rect(LEFT + wide * column, y, wide, tall, colour, f"{value:.4f}")]
    centres = Axis(0.5, figure.width + 0.5, LEFT, WIDTH - RIGHT)
    parts += [*_counted(centres, True, height), _below(figure.x, height), *_scale(figure)]
    parts += [_beside(figure.y, height)]
    return _svg(height, figure.title, parts)


def _scale(figure: Cells) -> Iterable[str]:
    """What the colours mean."""
    x, steps = WIDTH - RIGHT + 20, 20
    for step in range(steps):
        colour = "rgb({},{},{})".format(*blend(1 - step / (steps - 1)))
        yield _rect(x, TOP + 4 * step, 14, 4, colour)
    yield _text(x + 20, TOP + 10, f"{figure.most:.3g}", kind="dim")
    yield _text(x + 20, TOP + 4 * steps, "0", kind="dim")
    yield _text(x, TOP + 4 * steps + 16, figure.scale, kind="dim")


# -- their parts --------------------------------------------------------------------------------


def _ruled(ys: Axis) -> Iterable[str]:
    for tick in ys.ticks():
        yield _line(LEFT, ys(tick), WIDTH - RIGHT, ys(tick), "rule")
        yield _text(LEFT - 8, ys(tick) + 4, f"{tick:g}", "end", "dim")


def _counted(xs: Axis, whole: bool, height: float = HEIGHT) -> Iterable[str]:
    for tick in xs.ticks(8, 1.0 if whole else 0.0):
        yield _text(xs(tick), height - BOTTOM + 16, f"{tick:g}", "middle", "dim")


def _below(label: str, height: float = HEIGHT) -> str:
    return _text((LEFT + WIDTH - RIGHT) / 2, height - 8, label, "middle")


def _beside(label: str, height: float = HEIGHT) -> str:
    """What the y axis counts, upwards at its left."""
    y = (TOP + height - BOTTOM) / 2
    turned = f'<g transform="rotate(-90 14 {y:.1f})">'
    return f"{turned}{_text(14, y, label, 'middle')}</g>" if label else ""


def _drawn(one: Series, colour: str, xs: Axis, ys: Axis) -> str:
    points = [(xs(x), ys(y)) for x, y in one.known]
    if one.dots or len(points) == 1:
        faint = min(one.opacity, 0.6)
        return "".join(_circle(x, y, 3, colour, opacity=faint) for x, y in points)
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for x, y in points[1:]:
        path.append(f"H{x:.1f}V{y:.1f}" if one.steps else f"L{x:.1f} {y:.1f}")
    return (
        f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="{one.width:g}"'
        f' stroke-opacity="{one.opacity:g}"{DASHES[one.dash]}/>'
    )


def _key(one: Series, colour: str, y: float) -> str:
    """The line or dot that stands before a legend's entry."""
    x = WIDTH - RIGHT + 12
    if one.dots or len(one.known) == 1:
        return _circle(x + 9, y, 3, colour, opacity=min(one.opacity, 0.6))
    return (
        f'<line x1="{x}" y1="{y:.1f}" x2="{x + 18}" y2="{y:.1f}" stroke="{colour}" '
        f'stroke-width="{one.width:g}" stroke-opacity="{one.opacity:g}"{DASHES[one.dash]}/>'
    )


def _colour(index: int) -> str:
    return f"var(--c{index % len(COLOURS)})"


def _rect(x: float, y: float, width: float, height: float, fill: str, title: str = "") -> str:
    said = f"<title>{title}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="{height:.2f}" '
        f'fill="{fill}">{said}</rect>'
    )


def _circle(
    x: float, y: float, radius: float, fill: str, stroke: str = "none", opacity: float = 1
) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}" stroke="{stroke}" '
        f'fill-opacity="{opacity:g}"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    words = escape(text)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{words}</text>'


def _svg(height: float, title: str, parts: Iterable[str]) -> str:
    words = escape(title)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" role="img" '
        f'aria-label="{words}"><text x="{LEFT}" y="18" style="font-weight:600">{words}</text>'
        f"{''.join(parts)}</svg>"
    )
