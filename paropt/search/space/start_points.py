"""Points to start from, as a space's JSON has them: values by name, and ``"from"``, whose they are.

A point that is changed is nobody's any more: it loses its ``"from"``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FROM = "from"

Point = Mapping[str, Any]


def values_of(point: Point) -> dict[str, Any]:
    """What it says of parameters."""
    return {name: value for name, value in point.items() if name != FROM}


def changed(point: Point, values: Mapping[str, Any]) -> dict[str, Any]:
    """The point with these values instead of its own, under its name if they are the same."""
    alike = FROM in point and values_of(point) == values
    return {**values, FROM: point[FROM]} if alike else dict(values)


def distinct(points: Iterable[Point]) -> list[dict[str, Any]]:
    """Each point once, in their order; of two that are equal the one that has a name."""
    kept: list[dict[str, Any]] = []
    for point in points:
        values = values_of(point)
        place = next((k for k, other in enumerate(kept) if values_of(other) == values), None)
        if place is None:
            kept.append(dict(point))
        elif FROM not in kept[place]:
            kept[place] = dict(point)
    return kept
