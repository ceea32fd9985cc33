"""A model that reads whatever it is told to: columns, users, features of all kinds, vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import Catalogue, Field, Model, Needs, Param, SequenceBatch, Table

SINGLE = ("category", "number")


class Knowing(Model):
    """A decaying sum of all that is known of events and items, and of whose session it is."""

    PARAMS = (
        Param("columns", "names", ("act", "dwell"), "columns of events"),
        Param("wanted", "names", ("act",), "those of them that are given for the target too"),
        Param("features", "names", ("shelf", "weight", "tags"), "features of items"),
        Param("vectors", "names", ("look",), "vectors of items"),
        Param("profile", "names", ("town", "age"), "features of users"),
        Param("users", "bool", True, "whether it matters whose session it is"),
        Param("dim", "int", 16, "channels", low=2, high=256),
        Param("decay", "float", 0.7, "weight of each older event", low=0, high=1),
        Param("max_length", "int", 30, "latest events looked at", low=1, high=500),
        Param("learning_rate", "float", 0.02, "of AdamW", low=0, low_open=True, high=1),
        Param("batch_size", "int", 32, "sessions of a batch", low=1),
        Param("n_epochs", "int", 4, "passes over the data", low=1),
    )

    @classmethod
    def needs(cls, params: Mapping[str, Any]) -> Needs:
        return Needs(
            columns=dict.fromkeys((*params["columns"], *params["wanted"]), SINGLE),
            wanted=params["wanted"],
            items=dict.fromkeys(params["features"], (*SINGLE, "categories"))
            | dict.fromkeys(params["vectors"], ("vector",)),
            users=dict.fromkeys(params["profile"], (*SINGLE, "categories")),
            user_index=params["users"],
        )

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        dim, facts = params["dim"], catalogue.facts
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.own = nn.Embedding(catalogue.n_items, dim)
            self.people = nn.Embedding(facts.n_users + 1 if params["users"] else 1, dim)
            self.columns, self.asked = (
                readers({name: facts.columns[name] for name in params[which]}, dim)
                for which in ("columns", "wanted")
            )
            self.features = readers(catalogue.items.fields, dim)
            self.profile = readers(catalogue.users.fields, dim)
        self.given: Tensor | None
        self.register_buffer("given", None, persistent=False)

    def items(self) -> Tensor:
        """Vectors of all items [n_items, d]."""
        if self.given is not None:
            return self.given
        rows = torch.arange(self.catalogue.n_items, device=self.device)
        return self.own.weight + told(self.features, self.catalogue.items, rows)

    def loss(self, batch: SequenceBatch) -> Tensor:
        wanted = batch.targets[batch.targets >= 0]
        table = self.items()
        return F.cross_entropy(self._encode(batch, table) @ table.T, wanted)

    def encode(self, batch: SequenceBatch) -> Tensor:
        return self._encode(batch, self.items())

    def _encode(self, batch: SequenceBatch, table: Tensor) -> Tensor:
        events = table[batch.items]
        for name, read in self.columns.items():
            events = events + read(batch.columns[name])
        state, states = torch.zeros_like(events[:, 0]), []
        for step in events.unbind(1):
            state = self.params["decay"] * state + step
            states.append(state)
        found = torch.stack(states, 1)
        for name, read in self.asked.items():
            found = found + read(batch.wanted[name])
        if batch.users is not None:
            found = found + self._who(batch.users)[:, None]
        return found[batch.targets >= 0]

    def _who(self, users: Tensor) -> Tensor:
        known = (users >= 0)[:, None]
        found = self.people(users + 1) if self.params["users"] else self.people(users * 0)
        if self.profile:
            found = found + told(self.profile, self.catalogue.users, users.clamp(min=0))
        return torch.where(known, found, 0.0)

    def item_table(self) -> tuple[Tensor, Tensor | None]:
        return self.items(), None

    def worked_out(self) -> dict[str, Tensor]:
        return {"items": self.items()}

    def load_worked_out(self, tensors: Mapping[str, Tensor]) -> None:
        self.given = tensors["items"]

    @property
    def max_length(self) -> int:
        return int(self.params["max_length"])


def told(readers: nn.ModuleDict, table: Table, rows: Tensor) -> Tensor:
    """The sum of what the fields of some rows say [m, d]."""
    found = torch.zeros(1, device=rows.device)
    for name, read in readers.items():
        kind = table.fields[name].kind
        if kind == "categories":
            values = table.bags(name).to(rows.device).take(rows)
        elif kind == "vector":
            values = table.vectors(name).rows(rows)
        else:
            values = table.codes(name) if kind == "category" else table.numbers(name)
            values = values.to(rows.device)[rows]
        found = found + read(values)
    return found


def readers(fields: Mapping[str, Field], dim: int) -> nn.ModuleDict:
    return nn.ModuleDict({name: reader(field, dim) for name, field in fields.items()})


def reader(field: Field, dim: int) -> nn.Module:
    """What makes vectors [..., d] of a field's values."""
    if field.kind == "vector":
        return nn.Linear(field.size, dim, bias=False)
    if field.kind == "number":
        return Number(dim)
    return Code(field.size, dim) if field.kind == "category" else Codes(field.size, dim)


class Code(nn.Embedding):
    """A vector per code; one more where it is unknown."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__(size + 1, dim)

    def forward(self, codes: Tensor) -> Tensor:
        return super().forward(codes + 1)


class Codes(nn.EmbeddingBag):
    """The mean of the vectors of several codes, zero without any."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__(max(size, 1), dim, include_last_offset=True)

    def forward(self, bags: Any) -> Tensor:
        return super().forward(bags.codes, bags.offsets)


class Number(nn.Module):
    """A line through a number's size, and a vector where it is unknown."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.line = nn.Linear(2, dim, bias=False)

    def forward(self, numbers: Tensor) -> Tensor:
        there = ~torch.isnan(numbers)
        sizes = torch.asinh(numbers.nan_to_num())
        return self.line(torch.stack([sizes, (~there).float()], -1))


MODEL = Knowing
