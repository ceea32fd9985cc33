"""A space as people and programs read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from paropt.search.space import shipped
from paropt.search.space.file import read_space
from paropt.search.space.space import Space
from paropt.search.space.start_points import FROM


def as_object(space: Space) -> dict[str, Any]:
    """What ``paropt space --json`` prints; ``configurations`` is None where they can't be counted.

    ``count`` of a parameter is None for a continuous one.
    """
    size = space.size()
    return {
        "models": space.models,
        "data": space.data,
        "fixed": {
            p.name: p.choices[0] for p in space.parameters if not p.searched and p.name != "model"
        },
        "search": [
            {
                "name": p.name,
                "type": p.kind,
                "range": p.range_text(),
                "count": int(p.count) if math.isfinite(p.count) else None,
                "when": {name: list(values) for name, values in p.when.items()},
            }
            for p in space.searched
        ],
        "idle": [p.name for p in space.idle],
        "start": [
            {**point, FROM: origin} if origin else dict(point)
            for point, origin in zip(space.start, space.start_from, strict=True)
        ],
        "configurations": int(size) if math.isfinite(size) else None,
    }


def as_text(space: Space) -> str:
    """A table with one line per parameter, and what it comes to."""
    rows = [("parameter", "type", "values", "count", "when")]
    for p in space.parameters:
        count = f"{p.count:,.0f}" if math.isfinite(p.count) else "∞"
        kind = p.kind if p.searched else "fixed"
        rows.append((p.name, kind, p.range_text(), count if p.searched else "", p.when_text()))
    for p in space.idle:
        rows.append((p.name, "idle", p.range_text(), "", p.when_text()))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, "", _total(space)])


def _total(space: Space) -> str:
    size = space.size()
    if math.isinf(size):
        free = ", ".join(p.name for p in space.searched if math.isinf(p.count))
        total = f"infinitely many configurations ({free} without step)"
    else:
        total = f"{size:,.0f} configuration{'s' if size != 1 else ''}"
    if space.start:
        points = len(space.start)
        total += f", {points} point{'s' if points != 1 else ''} to start from"
        total += "".join(f"\n  from {origin}" for origin in space.start_from if origin)
    return total


def shipped_spaces() -> list[dict[str, Any]]:
    """Of every space that comes with paropt its ``name``, ``models`` and a line ``about`` it."""
    found = []
    for name, path in shipped.spaces().items():
        space = read_space(path)
        about = str(space.source.get("note", "")).partition(". ")[0].rstrip(".")
        found.append({"name": name, "models": space.models, "about": about})
    return found


def listed(spaces: Sequence[dict[str, Any]]) -> str:
    """A line for each space."""
    rows = [(s["name"], ", ".join(s["models"]), s["about"]) for s in spaces]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    first = [
        (name.ljust(widths[0]), models.ljust(widths[1]), about) for name, models, about in rows
    ]
    return "\n".join("  ".join(row).rstrip() for row in first)
