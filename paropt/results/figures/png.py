"""Figures as PNG, drawn by matplotlib, which is asked for by ``paropt[plot]`` only.

A rasteriser of our SVG would be smaller, but needs the system's fonts, which servers and containers
often lack; matplotlib brings its own, and is what papers' plots are made with anyway.
"""

from __future__ import annotations

import importlib
import io
from typing import Any

from paropt.errors import ParoptError
from paropt.results.figures.description import (
    COLOURS,
    DEEP,
    PALE,
    Bars,
    Cells,
    Figure,
    Lines,
    Marks,
    Series,
    Shape,
)

SIZE = (8.6, 4.0)  # inches
DPI = 150
MARKERS: dict[Shape, str] = {"circle": "o", "square": "s", "diamond": "D", "triangle": "^"}
STYLES = {"": "-", "dash": "--", "dot": ":"}


def require() -> None:
    """Refuse at once where it cannot be drawn.

    Raises:
        ParoptError: matplotlib is not installed.
    """
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ParoptError(
            "PNG files need matplotlib: install it with pip install 'paropt[plot]', "
            "or write SVG files with --format svg"
        ) from error


def png(figure: Figure) -> bytes:
    """The file's content; the same for the same figure."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=SIZE, dpi=DPI, layout="constrained")
    axes = canvas.add_subplot()
    axes.set_title(figure.title, loc="left", fontsize=11)
    axes.set_xlabel(figure.x)
    axes.set_ylabel(figure.y)
    match figure:
        case Lines():
            _lines(figure, axes)
        case Marks():
            _marks(figure, axes)
        case Bars():
            _bars(figure, axes)
        case Cells():
            _cells(figure, axes)
    file = io.BytesIO()
    canvas.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _lines(figure: Lines, axes: Any) -> None:
    for one, colour in figure.shown:
        _draw(one, COLOURS[colour], axes)
    axes.grid(axis="y", color="#d4d4d8", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if figure.whole:
        axes.xaxis.get_major_locator().set_params(integer=True)
    if figure.zero:
        axes.set_ylim(bottom=0)
    if any(one.legend for one, _ in figure.shown):
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)


def _draw(one: Series, colour: str, axes: Any) -> None:
    xs = [x for x, _ in one.known]
    ys = [y for _, y in one.known]
    look = {"color": colour, "alpha": one.opacity, "label": one.legend or "_nolegend_"}
    look |= {"clip_on": False, "zorder": 3}  # what lies on an axis is to be seen
    if one.dots or len(xs) == 1:
        filled = "none" if one.hollow else colour
        axes.plot(xs, ys, MARKERS[one.shape], markersize=4, markerfacecolor=filled, **look)
        return
    kind = "steps-post" if one.steps else "default"
    axes.plot(xs, ys, STYLES[one.dash], drawstyle=kind, linewidth=one.width * 0.7, **look)


def _marks(figure: Marks, axes: Any) -> None:
    for place, (mark, index) in enumerate(figure.shown):
        colour = COLOURS[index]
        if mark.interval:
            axes.hlines(place, *mark.interval, color=colour, linewidth=4, alpha=0.35)
        rings = [place] * len(mark.singles)
        axes.plot(mark.singles, rings, "o", color=colour, markerfacecolor="none", markersize=5)
        axes.plot([mark.value], [place], "o", color=colour, markersize=6)
        value, at = f"  {mark.value:.4f}", ("axes fraction", "data")
        axes.annotate(value, (1, place), xycoords=at, va="center", fontsize=8)
    told = [(text, fill) for text, fill in ((figure.dots, "grey"), (figure.rings, "none")) if text]
    for text, fill in told:
        axes.plot([], [], "o", color="grey", markerfacecolor=fill, label=text)
    if told:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.0, -0.15), fontsize=8)
    _rows([mark.name for mark in figure.marks], axes)
    axes.grid(axis="x", color="#d4d4d8", linewidth=0.6)


def _bars(figure: Bars, axes: Any) -> None:
    drawn = axes.barh(
        range(len(figure.bars)), [value for _, value in figure.bars], 0.55, color=COLOURS[0]
    )
    axes.bar_label(drawn, fmt="{:.0%}", fontsize=8, padding=3)
    axes.xaxis.set_major_formatter("{x:.0%}")
    _rows([name for name, _ in figure.bars], axes)


def _rows(names: list[str], axes: Any) -> None:
    """Names at the left, the first one on top."""
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _cells(figure: Cells, axes: Any) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    ends = [[part / 255 for part in colour] for colour in (PALE, DEEP)]
    table = [
        [float("nan") if value is None else value for value in values]
        + [float("nan")] * (figure.width - len(values))
        for _, values in figure.rows
    ]
    drawn = axes.imshow(
        table,
        aspect="auto",
        cmap=LinearSegmentedColormap.from_list("load", ends),
        vmin=0,
        vmax=figure.most,
        extent=(0.5, figure.width + 0.5, len(figure.rows) - 0.5, -0.5),
    )
    every = -(-len(figure.rows) // 24)  # rows whose names stand clear of each other
    places = range(0, len(figure.rows), every)
    axes.set_yticks(list(places), [figure.rows[place][0] for place in places], fontsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.figure.colorbar(drawn, label=figure.scale)
