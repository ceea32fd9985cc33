"""Vectors of users and items as a saved model has them, in blocks: what is read elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.errors import Diverged, ModelError
from paropt.training.batches.events import Events
from paropt.training.batches.plans import query_batches
from paropt.training.evaluation.ranking.judging import ROWS, queries
from paropt.training.fitting import memory
from paropt.training.fitting.runtime import memory_errors
from paropt.training.recommending.user_events import Users
from paropt.training.registry import has_user_vectors
from paropt.training.saved_model.header import sha256
from paropt.training.saved_model.saved import SavedModel

BLOCK = 1 << 14  # vectors that are worked out together

Vectors = NDArray[np.float32]


def version_of(directory: Path) -> str:
    """A saved model's version: a digest of its weights, and of what it remembers."""
    digest = hashlib.sha256(sha256(directory / "model.safetensors").encode())
    remembered = directory / memory.FILE
    if remembered.is_file():
        digest.update(sha256(remembered).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class UserVectors:
    """What a model makes of each user's events [U, d], and of what is ``wanted`` next by column.

    A model whose items have a bias gets one dimension more, which is 1 here and the bias in
    :class:`ItemVectors`, so that the inner product of the two is the model's score.
    """

    saved: SavedModel
    users: Users
    wanted: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises :class:`ModelError` for a model without vectors of users."""
        if not has_user_vectors(type(self.saved.model)):
            name = self.saved.meta["model"]
            raise ModelError(
                f"model {name!r} has no vectors of users, it scores items by itself; 'paropt"
                " recommend' gives its items, and gru4rec, sasrec or hstu have vectors"
            )

    @property
    def ids(self) -> pa.Array:
        return self.users.ids

    @cached_property
    def has_bias(self) -> bool:
        table = _item_table(self.saved)
        return table is not None and table[1] is not None

    @cached_property
    def dimension(self) -> int:
        return int(self._block(0, 1).shape[1])

    def blocks(self, begin: int) -> Iterator[Vectors]:
        """All vectors from row ``begin`` on, in the order of ``ids``.

        Raises:
            Diverged: a vector isn't finite.
            OutOfMemory: on the device.
        """
        for first in range(begin, len(self.ids), BLOCK):
            yield self._block(first, min(first + BLOCK, len(self.ids)))

    def _block(self, begin: int, end: int) -> Vectors:
        events = self.users.events.sessions(begin, end)
        with memory_errors(self.saved.model.device), torch.no_grad():
            vectors = _encoded(self.saved, events.with_queries(self.wanted))
        if self.has_bias:
            vectors = np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)
        _check_finite(vectors, self.ids.slice(begin), "user")
        return vectors


@dataclass(frozen=True)
class ItemVectors:
    """The table that users' vectors are multiplied with [n_items, d], a bias as last dimension."""

    saved: SavedModel

    def __post_init__(self) -> None:
        """Raises :class:`ModelError` for a model without such a table."""
        if _item_table(self.saved) is None:
            raise ModelError(
                f"model {self.saved.meta['model']!r} has no vectors of items; gru4rec, sasrec and"
                " hstu have some"
            )

    @cached_property
    def ids(self) -> pa.Array:
        return pa.array(self.saved.item_ids, pa.string())

    @property
    def has_bias(self) -> bool:
        table = _item_table(self.saved)
        return table is not None and table[1] is not None

    @property
    def dimension(self) -> int:
        return int(self._table.shape[1])

    @cached_property
    def _table(self) -> Vectors:
        found = _item_table(self.saved)
        assert found is not None
        table, bias = (_on_host(part) if part is not None else None for part in found)
        assert table is not None
        if bias is not None:
            table = np.concatenate([table, bias.reshape(-1, 1)], axis=1)
        _check_finite(table, self.ids, "item")
        return table

    def blocks(self, begin: int) -> Iterator[Vectors]:
        """As those of :class:`UserVectors`."""
        for first in range(begin, len(self.ids), BLOCK):
            yield self._table[first : first + BLOCK]


def _item_table(saved: SavedModel) -> tuple[Tensor, Tensor | None] | None:
    """The model's table and bias, None where it has no table."""
    try:
        with torch.no_grad():
            return saved.model.item_table()
    except NotImplementedError:
        return None


def _encoded(saved: SavedModel, events: Events) -> Vectors:
    """The vector of every session [S, d], which ends in what is asked for."""
    model = saved.model
    needs = saved.knowledge.needs
    batches = query_batches(events, model.max_length, ROWS, model.device, needs.wanted)
    found: Vectors | None = None
    for batch in queries(batches):
        asked = batch.histories[:, 1].cpu().numpy()
        session = np.searchsorted(events.offsets, asked, side="right") - 1
        vectors = _on_host(model.user_vectors(batch))
        if found is None:
            found = np.empty((len(events.offsets) - 1, vectors.shape[1]), np.float32)
        found[session] = vectors
    assert found is not None  # every session has an event, so it has a query
    return found


def _on_host(values: Tensor) -> Vectors:
    array: Vectors = values.detach().float().cpu().numpy()
    return array


def _check_finite(vectors: Vectors, ids: pa.Array, what: str) -> None:
    good = np.isfinite(vectors).all(axis=1)
    if not good.all():
        first = int(np.argmin(good))
        raise Diverged(
            f"the vector of {what} {ids[first].as_py()} isn't finite; train the model again"
        )
