"""Tables of items' vectors: of their ids alone, or worked out of all that is known of them.

Both :class:`IdTable` and :class:`ItemTower` are asked in the same way. A step of training, or an
evaluation, takes :meth:`looked_up` once and asks that for rows, so that a vector is worked out once
however often its item occurs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import Catalogue, Table
from models.parts.items.encoders import STD, FieldEncoder, make_encoder
from models.parts.items.params import known_by_more
from models.parts.rows import Rows, within

_ROWS = 1 << 16  # worked out at once where no gradients are wanted


class LookedUp(Protocol):
    """Items' vectors as one step of training or one evaluation sees them."""

    def rows(self, items: Tensor) -> Tensor:
        """Vectors [..., d] of items [...]."""
        ...

    def table(self, *items: Tensor) -> tuple[Tensor, list[Tensor]]:
        """A table that has all of these items, and where in it each of them is."""
        ...


class WholeTable:
    """All items: items are where they always are."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def rows(self, items: Tensor) -> Tensor:
        return F.embedding(items, self.weight)

    def table(self, *items: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.weight, list(items)


class TouchedRows:
    """The items that a step touches, each worked out when it is first asked for."""

    def __init__(self, tower: ItemTower) -> None:
        self._tower = tower
        weight = next(tower.parameters())
        self._place = torch.full((tower.n_items,), -1, device=weight.device)
        self._parts: list[Tensor] = []
        self._count = 0

    def rows(self, items: Tensor) -> Tensor:
        table, (places,) = self.table(items)
        return F.embedding(places, table)

    def table(self, *items: Tensor) -> tuple[Tensor, list[Tensor]]:
        wanted = torch.unique(torch.cat([one.reshape(-1) for one in items]))
        new = wanted[self._place[wanted] < 0]
        if len(new):
            self._place[new] = torch.arange(len(new), device=new.device) + self._count
            self._count += len(new)
            self._parts.append(self._tower.work_out(new))
        whole = self._parts[0] if len(self._parts) == 1 else torch.cat(self._parts)
        self._parts = [whole]
        return whole, [self._place[one] for one in items]


class IdTable(nn.Embedding):
    """A vector per item, and nothing else that is known of it."""

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__(n_items, dim)
        nn.init.normal_(self.weight, std=STD)

    def looked_up(self, whole: bool) -> LookedUp:
        """What a step or an evaluation asks; ``whole``: it will need all items."""
        return WholeTable(self.weight)

    def all_items(self) -> Tensor:
        """[n_items, dim]."""
        return self.weight

    def keyed_rows(self) -> dict[str, Rows]:
        """Of an older model's table, as :meth:`models.parts.contract.Model.keyed_rows` says it."""
        return {"weight": Rows()}


class ItemTower(nn.Module):
    """vector(i) = id_i + Σ of a part per field, and with ``fuse`` "mlp" + MLP(all parts in a row).

    Categories, numbers and given vectors x, as W·LN(whitened x)/k, are the parts
    (:mod:`models.parts.items.encoders`). The MLP begins at zero. An item that training never saw
    has no id: zero stands for it, from which ids begin, or around which.
    """

    worked_out: Tensor | None

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, dim: int) -> None:
        super().__init__()
        self.catalogue, self.n_items, self.dim = catalogue, catalogue.n_items, dim
        self.id_dropout = float(params["id_dropout"])
        self.ids: IdTable | None = None
        if params["id_init"] != "none":
            self.ids = IdTable(self.n_items, dim)
            if params["id_init"] == "zero":
                nn.init.zeros_(self.ids.weight)
        names = [*params["features"], *params["vectors"]]
        self.encoders = nn.ModuleList(make_encoder(n, catalogue, dim, params) for n in names)
        self.reads_vectors = bool(params["vectors"])
        self.mlp: nn.Module | None = None
        if params["fuse"] == "mlp":
            width = dim * (len(names) + (self.ids is not None))
            self.mlp = _mlp(width, 2 * dim, dim)
        self.register_buffer("worked_out", None, persistent=False)
        self._inputs: tuple[torch.device, list[Any]] | None = None
        self._added: list[Any] = []
        self._n_added = 0
        self._cached: tuple[tuple[int, ...], Tensor] | None = None

    # -- training ---------------------------------------------------------------------------

    def looked_up(self, whole: bool) -> LookedUp:
        """What a step or an evaluation asks; ``whole``: it will need all items."""
        settled = self.worked_out is not None or self._n_added
        if settled or not (self.training or torch.is_grad_enabled()):
            return WholeTable(self.all_items())
        return WholeTable(self.work_out(None)) if whole else TouchedRows(self)

    def work_out(self, rows: Tensor | None) -> Tensor:
        """Vectors [m, dim] of the items ``rows`` [m]; None: of all."""
        ids = None
        if self.ids is not None:
            ids = self.ids.weight if rows is None else self.ids(rows)
            if self.training and self.id_dropout:
                kept = torch.rand(len(ids), 1, device=ids.device) >= self.id_dropout
                ids = ids * kept
        return self._fused(ids, self._of_catalogue(), rows)

    def _fused(self, ids: Tensor | None, inputs: list[Any], rows: Tensor | None) -> Tensor:
        parts = [encode(one, rows) for encode, one in zip(self._fields(), inputs, strict=True)]
        if ids is not None:
            parts.insert(0, ids)
        total = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        return total if self.mlp is None else total + self.mlp(torch.cat(parts, 1))

    def _of_catalogue(self) -> list[Any]:
        """What the fields are read into, once; not before it is used, as weights come later."""
        device = next(self.parameters()).device
        if self._inputs is None or self._inputs[0] != device:
            self._inputs = device, self._read(self.catalogue.items)
        return self._inputs[1]

    @torch.no_grad()
    def _read(self, table: Table) -> list[Any]:
        return [encoder.read(table) for encoder in self._fields()]

    def _fields(self) -> Iterator[FieldEncoder]:
        for encoder in self.encoders:
            assert isinstance(encoder, FieldEncoder)
            yield encoder

    # -- evaluation -------------------------------------------------------------------------

    @torch.no_grad()
    def all_items(self) -> Tensor:
        """Vectors of all items and of those added, as they are now: [n_items + added, dim]."""
        now = tuple(parameter._version for parameter in self.parameters())
        if self._cached is None or self._cached[0] != now:
            self._cached = now, torch.cat((self._known(), self._further()))
        return self._cached[1]

    def _known(self) -> Tensor:
        if self.worked_out is not None:
            return self.worked_out
        device = next(self.parameters()).device
        rows = torch.arange(self.n_items, device=device).split(_ROWS)
        return torch.cat([self.work_out(part) for part in rows])

    def _further(self) -> Tensor:
        weight = next(self.parameters())
        if not self._n_added:
            return weight.new_zeros(0, self.dim)
        ids = None if self.ids is None else weight.new_zeros(self._n_added, self.dim)
        return self._fused(ids, self._added, None)

    def add(self, items: Table, count: int) -> None:
        """Have these items as well in evaluations, after the catalogue's; no others than these."""
        self._n_added, self._added = count, self._read(items) if count else []
        self._cached = None

    def train(self, mode: bool = True) -> ItemTower:
        if mode:
            self._cached = None
        return super().train(mode)

    def keyed_rows(self) -> dict[str, Rows]:
        """An item that the older model didn't know has no id yet, as one that is added."""
        found: dict[str, Rows] = {}
        if self.ids is not None:
            found["ids.weight"] = Rows(new="zero")
        for number, encoder in enumerate(self._fields()):
            found |= within(f"encoders.{number}", encoder.keyed_rows())
        return found

    def use_worked_out(self, table: Tensor) -> None:
        """Take these vectors for those of the catalogue, of which nothing can be read any more."""
        self.worked_out, self._cached = table, None


Items = IdTable | ItemTower


def make_items(params: Mapping[str, Any], catalogue: Catalogue, dim: int) -> Items:
    """The table that the parameters ask for; random numbers come from torch's stream."""
    if known_by_more(params):
        return ItemTower(params, catalogue, dim)
    return IdTable(catalogue.n_items, dim)


def _mlp(width: int, hidden: int, dim: int) -> nn.Sequential:
    inner, outer = nn.Linear(width, hidden), nn.Linear(hidden, dim)
    nn.init.zeros_(outer.weight)
    nn.init.zeros_(outer.bias)
    return nn.Sequential(inner, nn.GELU(), outer)
