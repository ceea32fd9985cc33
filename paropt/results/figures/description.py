"""What a figure shows, without a word on how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Point = tuple[float, float | None]
Dash = Literal["", "dash", "dot"]
Shape = Literal["circle", "square", "diamond", "triangle"]

# the colours of series, in their order; results/pages/html_page.py has others for the dark
COLOURS = ("#2563eb", "#c2410c", "#6b7280", "#047857", "#9333ea", "#a16207")
BLUE, ORANGE, GREY, GREEN, PURPLE, BROWN = range(6)
TOLD_APART = (BLUE, ORANGE, GREEN, PURPLE, BROWN)  # grey is what needs no training
SHAPES: tuple[Shape, ...] = ("circle", "square", "diamond", "triangle")
# of cells from the least value to the most: white to blue
PALE, DEEP = (255, 255, 255), (29, 78, 216)


@dataclass(frozen=True)
class Series:
    """Points (x, y) in the order of x; without a y there is a gap.

    ``dots`` aren't joined, have a ``shape`` and may be ``hollow``; ``steps`` hold a value until the
    next. ``label`` is what the legend says, None: the ``name``, and nothing if it is empty.
    ``colour`` counts into :data:`COLOURS`; None: as many as series come before it.
    """

    name: str
    points: Sequence[Point]
    steps: bool = False
    dots: bool = False
    dash: Dash = ""
    label: str | None = None
    colour: int | None = None
    opacity: float = 1.0
    width: float = 2.0
    shape: Shape = "circle"
    hollow: bool = False

    @property
    def known(self) -> list[tuple[float, float]]:
        return [(x, y) for x, y in self.points if y is not None]

    @property
    def legend(self) -> str:
        return self.name if self.label is None else self.label


@dataclass(frozen=True)
class Figure:
    """What all figures have. ``name`` is that of a file; ``x`` and ``y`` are the axes' labels."""

    name: str
    title: str
    x: str
    y: str


@dataclass(frozen=True)
class Lines(Figure):
    """Several series against a common x.

    ``whole``: x is counted, so that no tick is a fraction. ``zero``: the y axis begins there.
    """

    series: Sequence[Series] = field(default_factory=list)
    whole: bool = False
    zero: bool = False

    @property
    def shown(self) -> list[tuple[Series, int]]:
        """The series that have a point, each with its colour."""
        known = [one for one in self.series if one.known]
        return [
            (one, (place if one.colour is None else one.colour) % len(COLOURS))
            for place, one in enumerate(known)
        ]


@dataclass(frozen=True)
class Bars(Figure):
    """One bar per name, from the top; its value is a share of the whole, so ``x`` is in percent."""

    bars: Sequence[tuple[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Mark:
    """A value with its interval, and single values that it is the mean of."""

    name: str
    value: float
    interval: Sequence[float] | None = None
    singles: Sequence[float] = ()
    colour: int | None = None

    @property
    def values(self) -> list[float]:
        return [self.value, *(self.interval or ()), *self.singles]


@dataclass(frozen=True)
class Marks(Figure):
    """One row per mark, from the top: its interval as a bar, its value as a dot, the single values
    as rings. ``dots`` and ``rings`` say what these are."""

    marks: Sequence[Mark] = field(default_factory=list)
    dots: str = ""
    rings: str = ""

    @property
    def shown(self) -> list[tuple[Mark, int]]:
        """The marks, each with its colour."""
        return [
            (mark, (place if mark.colour is None else mark.colour) % len(COLOURS))
            for place, mark in enumerate(self.marks)
        ]


@dataclass(frozen=True)
class Cells(Figure):
    """A table of values as colours: ``rows`` from the top, each with one value per column, whose
    number counts from 1. ``scale`` names the value."""

    rows: Sequence[tuple[str, Sequence[float | None]]] = field(default_factory=list)
    scale: str = ""

    @property
    def width(self) -> int:
        return max((len(values) for _, values in self.rows), default=0)

    @property
    def most(self) -> float:
        """The value of the deepest colour; the palest is 0."""
        return max((v for _, values in self.rows for v in values if v is not None), default=1.0)


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


def blend(part: float) -> tuple[int, int, int]:
    """The colour of a cell at ``part`` (0 to 1) of the scale."""
    part = min(1.0, max(0.0, part))
    red, green, blue = (round(p + (d - p) * part) for p, d in zip(PALE, DEEP, strict=True))
    return red, green, blue
