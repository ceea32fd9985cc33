"""What may be shown: ``predict_set.jsonl`` or ``candidate/``, kept with the dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from paropt.data.events import Ints
from paropt.data.features.tables import opened
from paropt.data.reading.layouts import DAMAGED, damaged, one_line
from paropt.data.tencent_gr.indexer import Indexer
from paropt.errors import DataError

Note = Callable[[str], None]
Told = dict[str, Any]


@dataclass(frozen=True)
class Offered:
    """Candidates as a file has them [n]: ids as text, retrieval ids, and features if asked for.

    ``original``: the ids are those of before re-indexing.
    """

    ids: pa.Array
    retrieval: NDArray[np.uint64]
    features: list[Told | None]
    original: bool


@dataclass(frozen=True)
class Candidates:
    """Re-indexed items that may be shown [n], their retrieval ids, and how many have no id here."""

    items: Ints
    retrieval: NDArray[np.int64]
    unknown: int = 0


def read_candidates(
    path: Path | None, indexer: Indexer | None, n_ids: int, say: Note
) -> Candidates:
    """The candidates that have a re-indexed id below ``n_ids``.

    Raises:
        DataError: the file cannot be used.
    """
    if path is None:
        return Candidates(np.zeros(0, np.int64), np.zeros(0, np.int64))
    offered = read_offered(path)
    items = reindexed(offered, indexer)
    known = (items > 0) & (items < n_ids)
    _, first = np.unique(items, return_index=True)
    known &= np.isin(np.arange(len(items)), first)
    unknown = int(np.count_nonzero(~known))
    if unknown:
        say(f"{path}: {unknown:,} of {len(items):,} candidates have no re-indexed id of their own")
    return Candidates(items[known], offered.retrieval[known].astype(np.int64), unknown)


def reindexed(offered: Offered, indexer: Indexer | None) -> NDArray[np.int64]:
    """The re-indexed id of each candidate, 0 where it has none."""
    if offered.original and indexer is not None:
        return indexer.reindexed(offered.ids)
    number = pc.match_substring_regex(offered.ids, r"^[0-9]{1,9}$")
    found = pc.if_else(number, offered.ids, "0").cast(pa.int64())
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


def read_offered(path: Path, with_features: bool = False) -> Offered:
    """A file of candidates: JSON lines, which may have features, or Parquet.

    Raises:
        DataError: it cannot be read, or a line is no candidate.
    """
    if path.is_dir() or path.suffix == ".parquet":
        return _from_parquet(path)
    ids, retrieval, features = [], [], []
    try:
        with opened(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    one, place, told = _candidate(path, number, line)
                    ids.append(one)
                    retrieval.append(place)
                    features.append(told if with_features else None)
    except DAMAGED as error:
        raise damaged(path, error) from None
    if not ids:
        raise DataError(f"{path} has no candidates")
    return Offered(pa.array(ids, pa.string()), np.array(retrieval, np.uint64), features, True)


def _candidate(path: Path, number: int, line: bytes) -> tuple[str, int, Told | None]:
    try:
        found = json.loads(line)
        one, place = found["creative_id"], found["retrieval_id"]
        if not (isinstance(one, int | str) and isinstance(place, int) and 0 <= place < 2**63):
            raise ValueError("its ids are no ids")
        features = found.get("features")
        return str(one), place, features if isinstance(features, dict) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(
            f"{path}:{number}: no candidate; a line is an object with creative_id, retrieval_id and"
            " features"
        ) from None


def _from_parquet(path: Path) -> Offered:
    try:
        table = pa.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from None
    for name in ("item_id", "retrieval_id"):
        if name not in table.column_names:
            raise DataError(f"{path} has no column {name!r} (it has {table.column_names})")
    if not len(table):
        raise DataError(f"{path} has no candidates")
    ids = table.column("item_id").cast(pa.string()).combine_chunks()
    retrieval = table.column("retrieval_id").cast(pa.int64()).to_numpy()
    return Offered(ids, retrieval.astype(np.uint64), [None] * len(table), False)
