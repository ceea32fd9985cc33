"""Files that say something of items, beside any log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paropt.data.features.vectors import VectorFile


@dataclass(frozen=True)
class ItemFiles:
    """``--item-features`` and ``--item-vectors``: tables and vectors of items, by their ids.

    ``key`` is the column of ids, by default the one of the model's log; ``separator`` stands
    between several values in a text.
    """

    tables: Sequence[Path] = ()
    vectors: Sequence[VectorFile] = ()
    key: str | None = None
    separator: str | None = None

    def __bool__(self) -> bool:
        return bool(self.tables or self.vectors)
