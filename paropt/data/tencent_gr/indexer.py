"""``indexer.pkl``: which original item, and which user, has which re-indexed id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.reading.pickles import read_pickle
from paropt.errors import DataError


@dataclass(frozen=True)
class Indexer:
    """``original`` [n + 1] has each re-indexed item's own id as text, or null."""

    original: pa.Array

    @property
    def n_items(self) -> int:
        return len(self.original) - 1

    def reindexed(self, originals: pa.Array) -> NDArray[np.int64]:
        """The re-indexed id of each original one [n], 0 where there is none."""
        found = pc.fill_null(pc.index_in(originals, value_set=self.original), 0)
        numbers: NDArray[np.int64] = found.to_numpy(zero_copy_only=False).astype(np.int64)
        return np.where(originals.is_null().to_numpy(zero_copy_only=False), 0, numbers)


def read_indexer(path: Path) -> Indexer:
    """The items of the pickle, which may hold plain dicts only.

    Raises:
        DataError: it cannot be read, asks for anything by name, or is of another form.
    """
    content = read_pickle(path)
    items = content.get("i") if isinstance(content, dict) else None
    if not isinstance(items, dict) or not items:
        raise DataError(f"{path} holds no dict of items under 'i'")
    return Indexer(_inverted(items, path))


def _inverted(items: dict[Any, Any], path: Path) -> pa.Array:
    try:
        numbers = np.fromiter(items.values(), np.int64, len(items))
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{path}: items under 'i' are not re-indexed as integers") from None
    if numbers.min() < 1 or numbers.max() > 4 * len(items) + 1000:
        raise DataError(
            f"{path}: {len(items):,} items are re-indexed from {numbers.min()} to {numbers.max()},"
            " not by integers from 1"
        )
    if len(np.unique(numbers)) < len(numbers):
        raise DataError(f"{path}: two items have one re-indexed id")
    texts = pa.array([str(one) for one in items], pa.string())
    at = np.full(int(numbers.max()) + 1, -1)
    at[numbers] = np.arange(len(numbers))
    return texts.take(pa.array(at, mask=at < 0))
