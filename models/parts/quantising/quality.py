"""How good codes are: how evenly they are used, how many items share them, what they lose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.parts.fields import Vectors
from models.parts.quantising.preparation import CHUNK, chunks


class Quantiser(Protocol):
    """Vectors to codes and back."""

    def codes(self, vectors: Tensor) -> Tensor:
        """Codes [m, levels] int64 of vectors [m, dim]."""

    def rebuilt(self, codes: Tensor) -> Tensor:
        """The vectors [m, dim] that codes [m, levels] stand for."""


@dataclass(frozen=True)
class Use:
    """How one level's codes are used: ``perplexity`` is exp of their entropy, between 1 and how
    many there are; ``dead`` codes are nobody's; ``largest`` is the share of the one used most."""

    perplexity: float
    dead: int
    largest: float


def use_of(codes: Tensor, n_codes: int) -> Use:
    """The use of ``n_codes`` by items [n], n > 0."""
    counts = torch.bincount(codes, minlength=n_codes).double()
    shares = counts[counts > 0] / counts.sum()
    perplexity = float(torch.exp(-(shares * shares.log()).sum()))
    return Use(perplexity, int((counts == 0).sum()), float(shares.max()))


@dataclass(frozen=True)
class Sharing:
    """How many items have the same codes throughout.

    Attributes:
        items: how many items there are.
        tuples: how many different tuples of codes they have.
        most: how many items share the tuple that most do: what a digit that tells them apart would
            have to count to.
        beyond: how many items are not the first of their tuple: those would need that digit.
    """

    items: int
    tuples: int
    most: int

    @property
    def beyond(self) -> int:
        return self.items - self.tuples

    @property
    def collisions(self) -> float:
        """The share of items that are not the first of their tuple; 0: all tuples are unique."""
        return self.beyond / self.items


def sharing_of(codes: Tensor) -> Sharing:
    """How items with codes [n, levels], n > 0, share them."""
    _, counts = torch.unique(codes, dim=0, return_counts=True)
    return Sharing(len(codes), len(counts), int(counts.max()))


@dataclass(frozen=True)
class Loss:
    """What is lost from an item's vector to its codes' [n], float64.

    ``squared`` is the squared distance of both; ``cosine`` is between both, seen from the mean;
    ``plain_cosine`` from zero.
    """

    squared: Tensor
    cosine: Tensor
    plain_cosine: Tensor


def loss_of(quantiser: Quantiser, vectors: Vectors, index: Tensor, mean: Tensor) -> Loss:
    """What the vectors of rows ``index`` [n], n > 0, lose; ``mean`` [dim] is that of training."""
    parts = [_loss(part, quantiser, mean) for part in chunks(vectors, index)]
    squared, cosine, plain = (torch.cat(column) for column in zip(*parts, strict=True))
    return Loss(squared, cosine, plain)


def _loss(part: Tensor, quantiser: Quantiser, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rebuilt = quantiser.rebuilt(quantiser.codes(part)).double()
    cosine = torch.cosine_similarity(part - mean, rebuilt - mean)
    return (part - rebuilt).square().sum(1), cosine, torch.cosine_similarity(part, rebuilt)


def codes_of(quantiser: Quantiser, vectors: Vectors, index: Tensor) -> Tensor:
    """Codes [n, levels] int64 of the vectors of rows ``index`` [n]."""
    parts: Iterator[Tensor] = (quantiser.codes(part) for part in chunks(vectors, index, CHUNK))
    return torch.cat(list(parts))
