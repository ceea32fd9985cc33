"""What a model is told of a dataset: facts to refuse by, and tables that are read when used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.training.batches.statistics import statistics
from paropt.training.registry import Bags, Catalogue, Facts, Field, Table, Vectors

if TYPE_CHECKING:
    from paropt.data.dataset import View
    from paropt.data.features.fields import FieldOf, StoredField


def facts(view: View) -> Facts:
    """What is known of a view's training split and of what is kept beside it."""
    sizes = np.diff(view.train.offsets)
    return Facts(
        n_items=view.n_items,
        n_sessions=view.train.n_sessions,
        n_events=view.train.n_events,
        longest=int(sizes.max(initial=0)),
        has_times=view.dataset.has_times,
        n_users=view.n_users,
        columns=_fields(view, "events"),
        items=_fields(view, "items"),
        users=_fields(view, "users"),
    )


def catalogue(view: View) -> Catalogue:
    """The items, and the users, that a model of the view's training split knows."""
    support = torch.from_numpy(np.array(view.support(), dtype=np.int64))
    n_items, n_all = view.n_items, view.dataset.n_items("test")
    items = _table(view, "items", slice(0, n_items))
    users = _table(view, "users", slice(0, view.n_users))
    unseen = _table(view, "items", slice(n_items, n_all))
    stored = view.dataset.fields("items").values()
    features = Features([f.name for f in stored if f.kind in ("number", "category")], view)
    of_others = unseen, n_all - n_items, Holders(view)
    return Catalogue(facts(view), support, features, items, users, *of_others)


def _fields(view: View, of: FieldOf) -> dict[str, Field]:
    stored = view.dataset.fields(of).values()
    fields = {s.name: Field(s.name, s.kind, s.size, s.vocabulary) for s in stored}
    more = statistics(view) if of == "items" else ()
    return fields | {name: Field(name, "number") for name in more if name not in fields}


def _table(view: View, of: FieldOf, rows: slice) -> Table:
    stored = view.dataset.fields(of)

    def read(field: Field) -> Any:
        if field.name in stored:
            found = READ[field.kind](stored[field.name], rows)
            if field.kind == "vector":
                key = view.train.name, of, field.name, rows.start
                found.memo = view.dataset.memo.setdefault(key, {})
            return found
        return torch.from_numpy(statistics(view)[field.name](rows.stop)[rows])

    return Table(_fields(view, of), read)


class Features(Mapping[str, Tensor]):
    """Numbers and codes of items by name, each read when first asked for."""

    def __init__(self, names: list[str], view: View) -> None:
        self._names, self._view = names, view
        self.read: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.read:
            values = self._view.dataset.features[name]
            self.read[name] = torch.from_numpy(np.array(values[: self._view.n_items]))
        return self.read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Holders(Mapping[str, Tensor]):
    """How many training sessions hold each item, and each code of a column, counted when asked."""

    def __init__(self, view: View) -> None:
        self._view = view
        columns = view.dataset.fields("events").values()
        sizes = {column.name: column.size for column in columns if column.kind == "category"}
        self._sizes = {**sizes, "item": view.n_items}
        self._counted: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._counted:
            train, size = self._view.train, self._sizes[name]
            codes = np.asarray(train.items if name == "item" else train.columns[name])
            session = np.repeat(np.arange(train.n_sessions), np.diff(train.offsets))
            known = codes >= 0
            pairs = np.unique(session[known] * np.int64(size) + codes[known])
            self._counted[name] = torch.from_numpy(np.bincount(pairs % size, minlength=size))
        return self._counted[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)


# -- reading some of a field's rows -------------------------------------------------------------


def _copied(values: NDArray[Any]) -> Tensor:
    # a copy: memory-mapped arrays are read-only, which torch cannot express
    return torch.from_numpy(np.array(values))


def _codes(stored: StoredField, rows: slice) -> Tensor:
    return _copied(stored.array()[rows]).long()


def _numbers(stored: StoredField, rows: slice) -> Tensor:
    return _copied(stored.array()[rows])


def _bags(stored: StoredField, rows: slice) -> Bags:
    offsets = _copied(stored.array("offsets")[rows.start : rows.stop + 1])
    codes = _copied(stored.array("codes")[int(offsets[0]) : int(offsets[-1])]).long()
    return Bags(codes, offsets - offsets[0], _copied(stored.array("missing")[rows]))


def _texts(stored: StoredField, rows: slice) -> Any:
    return stored.texts()[rows]


def _vectors(stored: StoredField, rows: slice) -> Vectors:
    given = stored.array("rows")[rows]

    def read(index: Tensor) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(given[index.numpy()]))

    return Vectors(given.shape[1], _copied(stored.array("missing")[rows]), read)


READ: Mapping[str, Callable[[StoredField, slice], Any]] = {
    "category": _codes,
    "number": _numbers,
    "categories": _bags,
    "text": _texts,
    "vector": _vectors,
}
