"""Items that a request offers: those that a model knows, and others by what is told of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from paropt.data.features.vectors import VectorFile, read_vectors
from paropt.data.tencent_gr.candidates import Offered, reindexed
from paropt.data.tencent_gr.features import table_of
from paropt.data.tencent_gr.indexer import Indexer
from paropt.errors import DataError
from paropt.training.registry import Bags, Field, Table, Vectors
from paropt.training.saved_model.known_data import index_of, numbers
from paropt.training.saved_model.saved import SavedModel

Note = Callable[[str], None]


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
    fields = saved.model.needs(saved.model.params).items
    declared = {name: saved.model.catalogue.facts.items[name] for name in fields}
    told = _Told(offered, others, path, vectors)
    try:
        saved.model.add_items(told.table(declared, note), len(others))
    except NotImplementedError as error:
        note(f"{len(others):,} candidates are unknown to the model and left out: {error}")
        return 0
    return len(others)


@dataclass(frozen=True)
class _Told:
    """What a request tells of some of the candidates."""

    offered: Offered
    rows: NDArray[np.int64]
    path: Path
    vectors: Sequence[VectorFile]

    def table(self, declared: Mapping[str, Field], note: Note) -> Table:
        """The fields as the model's own, by its codes."""
        plain = [name for name, field in declared.items() if field.kind != "vector"]
        columns = self._columns() if plain else None
        read: dict[str, Any] = {}
        for name, field in declared.items():
            if field.kind == "vector":
                read[name] = self._vectors(field, note)
            else:
                read[name] = _encoded(field, self._column(columns, name))
        lacking = [name for name in plain if columns is None or name not in columns.column_names]
        if lacking:
            note(f"{self.path} tells no {', '.join(lacking)}, which the model reads: unknown")
        return Table(dict(declared), lambda field: read[field.name])

    def _columns(self) -> pa.Table | None:
        features = [self.offered.features[row] for row in self.rows.tolist()]
        pairs = (
            (str(i).encode(), json.dumps(told or {}).encode()) for i, told in enumerate(features)
        )
        return table_of(pairs, "candidate", self.path)

    def _column(self, columns: pa.Table | None, name: str) -> pa.ChunkedArray:
        if columns is None or name not in columns.column_names:
            return pa.chunked_array([pa.nulls(len(self.rows), pa.string())])
        return columns.column(name)

    def _vectors(self, field: Field, note: Note) -> Vectors:
        file = next((file for file in self.vectors if file.name == field.name), None)
        found = np.zeros((len(self.rows), field.size), np.float16)
        missing = np.ones(len(self.rows), bool)
        if file is None:
            note(
                f"vectors {field.name} of unseen candidates are unknown; --item-vectors gives them"
            )
        else:
            ids = self.offered.ids.take(pa.array(self.rows)).to_pylist()
            place = {one: i for i, one in enumerate(ids)}
            for names, rows in read_vectors(file, "anonymous_cid"):
                if rows is None:
                    continue
                if rows.shape[1] != field.size:
                    raise DataError(
                        f"{file.path} has vectors of {rows.shape[1]} dimensions, and the model's"
                        f" {field.name} has {field.size}"
                    )
                at = np.array([place.get(one, -1) for one in names], np.int64)
                usable = (at >= 0) & np.isfinite(rows).all(1) & rows.any(1)
                found[at[usable]], missing[at[usable]] = rows[usable], False
            if missing.any():
                note(f"{int(missing.sum()):,} unseen candidates have no vector {field.name}")
        stored = torch.from_numpy(found)
        return Vectors(field.size, torch.from_numpy(missing), lambda index: stored[index])


def _encoded(field: Field, column: pa.ChunkedArray) -> Any:
    if field.kind == "number":
        return torch.from_numpy(np.array(numbers(column)))
    if field.kind == "category":
        return torch.from_numpy(index_of(column, field.vocabulary).astype(np.int64))
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not pa.types.is_list(lists.type):
        lists = lists.cast(pa.list_(pa.string()))
    codes = torch.from_numpy(index_of(lists.flatten(), field.vocabulary).astype(np.int64))
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = torch.from_numpy(np.concatenate(([0], np.cumsum(counts, dtype=np.int64))))
    missing = lists.is_null().to_numpy(zero_copy_only=False)
    return Bags(codes, offsets, torch.from_numpy(np.array(missing)))
