"""A field of items as a part of their vectors: one class per kind of field.

Each :meth:`read`s a table once, into inputs that need no more than indexing, and works parts out of
inputs and rows. What training never saw (a category that only new items have) is missing; missing
has a vector of its own, which is learned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import Bags, Catalogue, Field, Table, Vectors
from models.parts.items.whitening import fit_whitening, whitened
from models.parts.rows import Rows, words_of

FARTHEST = 10.0  # standard deviations from the mean: a price of a million teaches nothing more
STD = 0.02  # of weights to begin with, as those of ids


class FieldEncoder(nn.Module, ABC):
    """A part [rows, dim] of items' vectors."""

    @abstractmethod
    def read(self, table: Table) -> Any:
        """Inputs of a table's rows, for :meth:`forward`; also of items that training never saw."""

    @abstractmethod
    def forward(self, inputs: Any, rows: Tensor | None) -> Tensor:
        """The parts of ``rows`` [m]; None: of all."""

    def keyed_rows(self) -> dict[str, Rows]:
        """Its weights that have a row per word of the data."""
        return {}


class _Coded(FieldEncoder):
    """A vector per code that an item in training has, and one for missing at the end."""

    place: Tensor

    def __init__(self, field: Field, codes: Tensor, dim: int) -> None:
        super().__init__()
        self.name = field.name
        seen = torch.unique(codes[codes >= 0])
        place = torch.full((field.size + 1,), len(seen))  # its last is that of code −1
        place[seen] = torch.arange(len(seen))
        self.register_buffer("place", place, persistent=False)
        self.missing = len(seen)
        self.keys = words_of(seen.tolist(), field.vocabulary)
        self.embedding = nn.Embedding(len(seen) + 1, dim)
        nn.init.normal_(self.embedding.weight, std=STD)

    def keyed_rows(self) -> dict[str, Rows]:
        return {"embedding.weight": Rows(self.keys)}

    def places(self, codes: Tensor) -> Tensor:
        return self.place[codes.to(self.place.device)]


class Category(_Coded):
    """One category per item; inputs are places [n] in the table of its vectors."""

    def __init__(self, field: Field, catalogue: Catalogue, dim: int) -> None:
        super().__init__(field, catalogue.items.codes(field.name)[catalogue.support > 0], dim)

    def read(self, table: Table) -> Tensor:
        return self.places(table.codes(self.name))

    def forward(self, inputs: Tensor, rows: Tensor | None) -> Tensor:
        part: Tensor = self.embedding(inputs if rows is None else inputs[rows])
        return part


class Categories(_Coded):
    """Several categories per item; inputs are bags of places in the table of their vectors.

    An item without any has a part of zeros; one of which none is known counts as missing.
    """

    def __init__(self, field: Field, catalogue: Catalogue, dim: int, bag: str) -> None:
        bags = catalogue.items.bags(field.name)
        trained = (catalogue.support > 0).nonzero().squeeze(1)
        super().__init__(field, bags.take(trained).codes, dim)
        self.bag = bag

    def read(self, table: Table) -> Bags:
        bags = table.bags(self.name).to(self.place.device)
        places = self.places(bags.codes)
        sizes = bags.offsets.diff()
        row = torch.repeat_interleave(torch.arange(len(bags), device=places.device), sizes)
        known = places < self.missing
        row, places = row[known], places[known]
        counts = torch.bincount(row, minlength=len(bags))
        alone = (counts == 0) & (bags.missing | (sizes > 0))
        offsets = F.pad((counts + alone).cumsum(0), (1, 0))
        found = torch.full((int(offsets[-1]),), self.missing, device=places.device)
        within = torch.arange(len(row), device=row.device) - F.pad(counts.cumsum(0), (1, 0))[row]
        found[offsets[row] + within] = places
        return Bags(found, offsets, bags.missing)

    def forward(self, inputs: Bags, rows: Tensor | None) -> Tensor:
        bags = inputs if rows is None else inputs.take(rows)
        return F.embedding_bag(
            bags.codes,
            self.embedding.weight,
            bags.offsets,
            mode=self.bag,
            include_last_offset=True,
        )


class Number(FieldEncoder):
    """Standardised by the items in training; inputs are numbers and missing flags [n, 2]."""

    scale: Tensor

    def __init__(self, field: Field, catalogue: Catalogue, dim: int) -> None:
        super().__init__()
        self.name = field.name
        numbers = catalogue.items.numbers(field.name)[catalogue.support > 0].double()
        numbers = numbers[~numbers.isnan()]
        mean = numbers.mean() if len(numbers) else numbers.new_zeros(())
        deviation = numbers.std(correction=0) if len(numbers) else numbers.new_zeros(())
        self.register_buffer("scale", torch.stack((mean, deviation)))
        self.weight = _weights(2, dim)

    def read(self, table: Table) -> Tensor:
        numbers = table.numbers(self.name).to(self.scale.device).double()
        mean, deviation = self.scale
        missing = numbers.isnan()
        apart = (numbers - mean) / torch.where(deviation > 0, deviation, 1.0)
        known = apart.masked_fill(missing, 0.0).clamp(-FARTHEST, FARTHEST)
        return torch.stack((known, missing.double()), 1).float()

    def forward(self, inputs: Tensor, rows: Tensor | None) -> Tensor:
        return (inputs if rows is None else inputs[rows]) @ self.weight


class Vector(FieldEncoder):
    """W · LN(whitened x) / k; inputs are LN(whitened x) [n, k] float16 and missing flags [n].

    Adam moves every weight by about as much in a step, and a part here by the sum of k of them. So
    that it moves as far as an id does, not k times as far, the sum is divided by k, and W begins √k
    times as large as ids, so that the parts begin as large (Yang et al., 2203.03466, table 3). The
    plain product drowned the ids: HSTU learnt half as much as without vectors.
    """

    mean: Tensor
    projection: Tensor

    def __init__(self, field: Field, catalogue: Catalogue, dim: int, dims: int) -> None:
        super().__init__()
        self.name, dims = field.name, min(dims, field.size)
        vectors = catalogue.items.vectors(field.name)
        mean, projection = torch.zeros(field.size), torch.zeros(field.size, dims)
        if vectors.present:
            mean, projection = (part.clone() for part in _whitening(vectors, catalogue, dims))
        self.register_buffer("mean", mean)
        self.register_buffer("projection", projection)
        self.weight = _weights(dims, dim, STD * dims**0.5)
        self.missing = nn.Parameter(torch.empty(dim).normal_(0, STD))

    def read(self, table: Table) -> tuple[Tensor, Tensor]:
        vectors = table.vectors(self.name)
        known = vectors.memo.get("white")  # of the training before this one
        if known is None or not all(map(torch.equal, known[0], (self.mean, self.projection))):
            by = self.mean.cpu().clone(), self.projection.cpu().clone()
            known = vectors.memo["white"] = by, whitened(vectors, *by)
        white: Tensor = known[1]
        return white.to(self.mean.device), vectors.missing.to(self.mean.device)

    def forward(self, inputs: tuple[Tensor, Tensor], rows: Tensor | None) -> Tensor:
        white, missing = inputs if rows is None else (part[rows] for part in inputs)
        weight = self.weight / white.shape[1]
        return white.float() @ weight + missing[:, None] * self.missing


def _whitening(vectors: Vectors, catalogue: Catalogue, dims: int) -> tuple[Tensor, Tensor]:
    """Fitted once for as long as the data are open."""
    key = "whitening", dims
    if key not in vectors.memo:
        trained = (~vectors.missing & (catalogue.support > 0)).nonzero().squeeze(1)
        vectors.memo[key] = fit_whitening(vectors, trained, dims)
    found: tuple[Tensor, Tensor] = vectors.memo[key]
    return found


def make_encoder(
    name: str, catalogue: Catalogue, dim: int, params: Mapping[str, Any]
) -> FieldEncoder:
    """The encoder of a field, by its kind; random numbers come from torch's stream."""
    field = catalogue.items.fields[name]
    if field.kind == "category":
        return Category(field, catalogue, dim)
    if field.kind == "categories":
        return Categories(field, catalogue, dim, params["bag"])
    if field.kind == "number":
        return Number(field, catalogue, dim)
    return Vector(field, catalogue, dim, params["vector_dims"])


def _weights(n_in: int, n_out: int, std: float = STD) -> nn.Parameter:
    return nn.Parameter(torch.empty(n_in, n_out).normal_(0, std))
