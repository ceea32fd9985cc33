"""What the rows of a weight stand for, so that a training can go on with other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Rows:
    """Rows that are found again in the same model of other data, by what each stands for.

    Attributes:
        keys: what each row stands for: a word, or None for the unknown. Where there are none at
            all, row i is that of item i.
        new: how the row of what the older model didn't know begins: as the new model was built,
            or at zero.
    """

    keys: Sequence[str | None] | None = None
    new: Literal["built", "zero"] = "built"


def words_of(codes: Sequence[int], vocabulary: Sequence[str]) -> list[str | None]:
    """What codes stand for; a code without a word is its own, and last comes the unknown."""
    return [*(vocabulary[code] if len(vocabulary) else str(code) for code in codes), None]


def within(name: str, found: Mapping[str, Rows]) -> dict[str, Rows]:
    """The rows of a part, by the names that they have in the model that calls it ``name``."""
    return {f"{name}.{inner}": rows for inner, rows in found.items()}
