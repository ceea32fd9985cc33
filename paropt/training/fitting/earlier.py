"""A training that begins with the weights of an earlier one, on other data or the same.

Rows of items are found again by the items' ids, rows of words by the words
(:meth:`models.parts.contract.Model.keyed_rows`); what the earlier model didn't know begins as the
model says. All other weights are taken over, so their shapes must be the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paropt.errors import DataError, ModelError, ParamError
from paropt.training.fitting.optimisers import Optimiser
from paropt.training.registry import Catalogue, Model, Rows, build, counts

SPREAD = "exp_avg_sq"  # AdamW's; a new row with none would move several times too far


@dataclass(frozen=True)
class Earlier:
    """A saved model as a beginning.

    Attributes:
        item_ids: of its items, in their order.
        rows: its :meth:`models.parts.contract.Model.keyed_rows`.
        catalogue: what it was built from.
        optimiser: what its optimiser had gathered by "weight/accumulator"; None: begin anew.
        digest: of its files that this was read from.
        last_event: the time of the last event that it has seen, where that is known.
    """

    name: str
    params: Mapping[str, Any]
    item_ids: Sequence[str]
    weights: Mapping[str, Tensor]
    rows: Mapping[str, Rows]
    digest: str
    catalogue: Catalogue
    optimiser: Mapping[str, Tensor] | None = None
    last_event: int | None = None


@dataclass(frozen=True)
class Carried:
    """How many items a model took over, which are new to it, and which it no longer has."""

    known: int
    new: int
    gone: int

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    def words(self) -> str:
        """In one clause."""
        told = f"{self.known:,} items keep what was learnt of them, {self.new:,} are new"
        if not self.gone:
            return told
        return f"{told}, {self.gone:,} have no event in these data any more and are left out"


def keyed_rows(name: str, model: Model) -> dict[str, Rows]:
    """The model's rows that are found again.

    Raises:
        ModelError: no training can begin with such a model.
    """
    if counts(name):
        raise ModelError(
            f"{name} counts, in seconds and without weights that a training could begin with; "
            "train it anew on all the data"
        )
    try:
        found = dict(model.keyed_rows())
    except NotImplementedError as error:
        raise ModelError(f"{name} can't go on from a saved model: {error}; train it anew") from None
    weights = model.state_dict()
    for weight, rows in found.items():
        wanted = model.catalogue.n_items if rows.keys is None else len(rows.keys)
        has = len(weights[weight]) if weight in weights else None
        if has != wanted:
            what = f"has {has} rows" if has is not None else "there is not"
            raise ModelError(
                f"{name} says that {weight!r} has {wanted} rows that are found again, but it {what}"
            )
    return found


class Beginning:
    """An earlier model's weights, and its optimiser's state, put into a new one."""

    def __init__(self, earlier: Earlier, model: Model, item_ids: Sequence[str]) -> None:
        self.earlier, self.model, self.item_ids = earlier, model, item_ids
        self.rows = keyed_rows(earlier.name, model)
        self._of_items = _places(item_ids, earlier.item_ids)

    @torch.no_grad()
    def weights(self, catalogue: Catalogue) -> Carried:
        """Put the weights in.

        Raises:
            ParamError: a parameter was changed that changes shapes.
            DataError: the data have other fields or columns.
        """
        self._check(catalogue)
        for name, mine in self.model.state_dict().items():
            theirs = self.earlier.weights[name].to(mine.device)
            if name not in self.rows:
                mine.copy_(theirs)
                continue
            new = self._carry(name, mine, theirs)
            if self.rows[name].new == "zero":
                mine[new] = 0
        known = int((self._of_items >= 0).sum())
        gone = len(self.earlier.item_ids) - known
        return Carried(known, len(self.item_ids) - known, gone)

    @torch.no_grad()
    def optimiser(self, optimiser: Optimiser | None) -> None:
        """Put in what the optimiser had gathered; of new rows it knows nothing yet."""
        gathered = self.earlier.optimiser
        if gathered is None:
            return
        if optimiser is not None:
            optimiser.load(self._of_adamw(gathered, optimiser))
            return
        for name, mine in self.model.optimiser_state().items():
            if name in gathered:
                theirs = gathered[name].to(mine.device)
                if (weight := name.rpartition("/")[0]) in self.rows:
                    self._carry(weight, mine, theirs)
                else:
                    mine.copy_(theirs)

    def _of_adamw(self, gathered: Mapping[str, Tensor], optimiser: Optimiser) -> dict[str, Tensor]:
        trained = set(optimiser.names.values())
        shapes = {name: value.shape for name, value in self.model.state_dict().items()}
        found = {}
        for name, theirs in gathered.items():
            weight, _, moment = name.rpartition("/")
            if weight not in trained:
                continue
            found[name] = theirs.clone()  # which the optimiser then moves
            if weight in self.rows and theirs.dim():
                mine = found[name] = theirs.new_zeros(shapes[weight])
                new = self._carry(weight, mine, theirs)
                if moment == SPREAD:
                    mine[new] = theirs.mean(0)
        return found

    def _carry(self, name: str, mine: Tensor, theirs: Tensor) -> Tensor:
        """Copy the rows that both have; which ones of ``mine`` are new [n] bool."""
        keys, earlier = self.rows[name].keys, self.earlier.rows[name].keys
        places = self._of_items
        if keys is not None:
            places = _places(keys, earlier or ())
        places = places.to(mine.device)
        known = places >= 0
        mine[known] = theirs[places[known]].to(mine.dtype)
        return ~known

    # -- whether it fits --------------------------------------------------------------------

    def _check(self, catalogue: Catalogue) -> None:
        mine = shapes(self.model.state_dict(), self.rows)
        theirs = shapes(self.earlier.weights, self.earlier.rows)
        if mine == theirs:
            return
        if changed := self._culprits(catalogue, mine):
            raise ParamError(
                "a training that begins with a saved model keeps its shapes: "
                + ", ".join(map(self._difference, changed))
                + f"; leave {' and '.join(changed)} out, or train anew"
            )
        names = [name for name in {**theirs, **mine} if mine.get(name) != theirs.get(name)]
        raise DataError(
            f"the data don't fit the model that the training begins with: its weights {names[0]} "
            f"are {_shape(theirs.get(names[0]))} there and {_shape(mine.get(names[0]))} here; "
            "prepare them as its own were"
        )

    def _difference(self, name: str) -> str:
        theirs, mine = self.earlier.params[name], self.model.params[name]
        return f"{name} is {_said(theirs)} there, not {_said(mine)}"

    def _culprits(self, catalogue: Catalogue, mine: Mapping[str, Any]) -> list[str]:
        """Which changed parameters, each put back by itself, would give other shapes."""
        found = []
        for name, value in self.earlier.params.items():
            if name not in self.model.params or self.model.params[name] == value:
                continue
            params = {**self.model.params, name: value}
            try:
                other = build(self.earlier.name, params, catalogue, 0)
                rows = other.keyed_rows()
            except (ParamError, DataError, NotImplementedError):
                found.append(name)  # it doesn't go without another that was changed
                continue
            if shapes(other.state_dict(), rows) != mine:
                found.append(name)
        return found


def shapes(weights: Mapping[str, Tensor], rows: Mapping[str, Rows]) -> dict[str, list[int]]:
    """Of each weight, but for how many rows it has where those are found again."""
    return {name: list(value.shape)[name in rows :] for name, value in weights.items()}


def _shape(shape: list[int] | None) -> str:
    return "missing" if shape is None else "×".join(map(str, shape)) or "numbers"


def _said(value: Any) -> str:
    return "+".join(map(str, value)) or "none" if isinstance(value, (list, tuple)) else str(value)


def _places(mine: Sequence[str | None], theirs: Sequence[str | None]) -> Tensor:
    """Where each key is among those of the earlier model [n], −1 where it isn't."""
    import pyarrow as pa  # here, as most trainings begin anew and every one waits for imports
    import pyarrow.compute as pc

    known = pa.array(theirs, pa.string())
    found = pc.fill_null(pc.index_in(pa.array(mine, pa.string()), value_set=known), -1)
    return torch.from_numpy(np.asarray(found.to_numpy(zero_copy_only=False), np.int64))
