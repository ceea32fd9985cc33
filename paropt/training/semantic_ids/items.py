"""The vectors of a dataset's items, and which of them there is anything to learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from paropt.data.dataset import Dataset
from paropt.data.features.fields import StoredField
from paropt.errors import DataError, did_you_mean
from paropt.training.batches.catalogue import READ
from paropt.training.registry import Vectors, chunks, varied

TITLES = ("title", "name", "text", "description")  # texts that tell people which item it is


@dataclass(frozen=True)
class ItemVectors:
    """The vectors of all items of a dataset.

    Attributes:
        trained: items with events in ``train`` and a vector [n] int64: all that is learned from.
        others: items with a vector that ``train`` doesn't know [m] int64: coded, not learned from.
    """

    dataset: Dataset
    name: str
    vectors: Vectors
    trained: Tensor
    others: Tensor

    @property
    def coded(self) -> Tensor:
        """All items with a vector."""
        return torch.cat((self.trained, self.others))

    @property
    def same(self) -> bool:
        """Whether all that is learned from is the same."""
        return not varied(self.vectors, self.trained)

    def title_field(self) -> StoredField | None:
        """The texts by which people know items, if there are some."""
        fields = self.dataset.fields("items")
        texts = [field for field in fields.values() if field.kind == "text"]
        known = [field for name in TITLES for field in texts if field.name.lower() == name]
        return next(iter([*known, *texts]), None)

    def doubles(self) -> int:
        """How many items have exactly the vector of an item before them."""
        seen: set[bytes] = set()
        for part in chunks(self.vectors, self.coded):
            for row in part.numpy():
                seen.add(hashlib.blake2b(row.tobytes(), digest_size=16).digest())
        return len(self.coded) - len(seen)


def item_vectors(dataset: Dataset, name: str) -> ItemVectors:
    """The vectors ``name`` of a dataset's items.

    Raises:
        DataError: there are none, or no training item has one.
    """
    fields = dataset.fields("items")
    if name not in fields or fields[name].kind != "vector":
        raise DataError(f"{dataset.path}: {_no_vectors(name, fields)}")
    vectors: Vectors = READ["vector"](fields[name], slice(0, dataset.n_items("test")))
    n_trained = dataset.n_items("train")
    there = (~vectors.missing).nonzero()[:, 0]
    trained, others = there[there < n_trained], there[there >= n_trained]
    if not len(trained):
        raise DataError(f"{dataset.path}: no item with events in training has a vector {name!r}")
    return ItemVectors(dataset, name, vectors, trained, others)


def _no_vectors(name: str, fields: Mapping[str, StoredField]) -> str:
    has = [field.name for field in fields.values() if field.kind == "vector"]
    if not has:
        return (
            "items have no vectors; prepare it with --item-vectors NAME=FILE, or with"
            " --text-vectors COLUMN"
        )
    what = f"a {fields[name].kind}" if name in fields else "no feature of items"
    hint = did_you_mean(name, has, f"the vectors are {', '.join(has)}")
    return f"{name!r} is {what}, not vectors; {hint}"
