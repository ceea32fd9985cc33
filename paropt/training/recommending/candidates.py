"""Items that a request offers: those that a model knows, and others by what is told of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.features.item_files import ItemFiles
from paropt.data.features.vectors import VectorFile
from paropt.data.tencent_gr.candidates import Offered, reindexed
from paropt.data.tencent_gr.features import fields_of, table_of
from paropt.data.tencent_gr.indexer import Indexer
from paropt.errors import DataError
from paropt.training.recommending.new_items import from_vectors, in_codes, unsaid
from paropt.training.registry import Field, Table
from paropt.training.saved_model.saved import SavedModel

Note = Callable[[str], None]
_NUMBER = "number"  # of a candidate among the unseen ones


@dataclass(frozen=True)
class Candidates:
    """Candidates that can be ranked [n], in the file's order.

    Attributes:
        index: each one's row in the model's table of items; from ``n_items`` on unseen ones.
        offered: which of those offered they are.
        numbers: which model's row each re-indexed id has [ids], −1 where it has none.
        unseen: how many of them training never saw.
        left_out: how many offered ones cannot be ranked.
    """

    index: NDArray[np.int64]
    offered: NDArray[np.int64]
    numbers: NDArray[np.int64]
    unseen: int
    left_out: int


def admit(
    saved: SavedModel,
    offered: Offered,
    indexer: Indexer | None,
    path: Path,
    vectors: Sequence[VectorFile],
    note: Note,
) -> Candidates:
    """Find the candidates in the model's items, and add the others to them where it reads features.

    Raises:
        DataError: features or vectors cannot be read, or none of the candidates can be ranked.
    """
    ids = reindexed(offered, indexer)
    numbers = _rows(saved, int(ids.max(initial=0)))
    known = numbers[ids]
    others = np.flatnonzero(known < 0)
    added = 0
    if len(others):
        added = _add(saved, offered, others, path, vectors, note)
    if added:
        known[others] = saved.n_items + np.arange(added)
        numbers[ids[others]] = known[others]
        numbers[0] = -1
    there = np.flatnonzero(known >= 0)
    if not len(there):
        raise DataError(
            f"the model knows none of the {len(ids):,} candidates of {path}, the first of which is"
            f" {offered.ids[0]}; give the indexer.pkl of its data with --indexer"
        )
    return Candidates(known[there], there, numbers, added, len(ids) - len(there))


def _rows(saved: SavedModel, largest: int) -> NDArray[np.int64]:
    """The model's row of each re-indexed id, up to ``largest`` at least."""
    ids = pa.array(saved.item_ids, pa.string())
    number = pc.match_substring_regex(ids, r"^[0-9]{1,9}$")
    if not pc.all(number).as_py():
        raise DataError("the model's items have no re-indexed ids: it is of other data")
    own = ids.cast(pa.int64()).to_numpy()
    rows = np.full(1 + max(largest, int(own.max(initial=0))), -1, np.int64)
    rows[own] = np.arange(len(own))
    rows[0] = -1
    return rows


def _add(
    saved: SavedModel,
    offered: Offered,
    others: NDArray[np.int64],
    path: Path,
    vectors: Sequence[VectorFile],
    note: Note,
) -> int:
    """Tell the model of items that it has never seen; how many it then has."""
    fields = saved.model.catalogue.items.fields
    if not fields:
        note(
            f"{len(others):,} candidates are unknown to the model and left out: it knows items by"
            " their ids alone"
        )
        return 0
    note(f"{len(others):,} candidates are new to the model: it goes by what is said of them")
    files = ItemFiles(vectors=tuple(vectors))
    ids = offered.ids.take(pa.array(others)).to_pylist()
    with tempfile.TemporaryDirectory(prefix="paropt-items-") as folder:
        read = _told(fields, offered, others, path, note)
        read |= from_vectors(fields, files, "anonymous_cid", ids, Path(folder), note)
        for name, field in fields.items():
            if name not in read:
                read[name] = unsaid(saved, field, len(others), note)
        saved.model.add_items(Table(fields, lambda field: read[field.name]), len(others))
    return len(others)


def _told(
    fields: Mapping[str, Field],
    offered: Offered,
    rows: NDArray[np.int64],
    path: Path,
    note: Note,
) -> dict[str, Any]:
    """The model's fields that lines of candidates tell, in its codes."""
    told = [(offered.features[row] or {}) for row in rows.tolist()]
    if not any(told):
        return {}
    names = [str(number) for number in range(len(rows))]
    pairs = (
        (name.encode(), json.dumps(one).encode()) for name, one in zip(names, told, strict=True)
    )
    given = fields_of(table_of(pairs, _NUMBER, path), _NUMBER, pa.array(names), path)
    return {
        name: in_codes(fields[name], kept, note)
        for name, kept in given.items()
        if name in fields and kept.kind == fields[name].kind
    }
