"""Residual quantisation: each level codes what the levels before left (TIGER 2305.11065, 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.parts.fields import Vectors
from models.parts.quantising.kmeans import FITTING, assign, kmeans
from models.parts.quantising.preparation import (
    CHUNK,
    How,
    Preparation,
    chunks,
    fit_preparation,
    varied,
)
from models.parts.quantising.threads import one_thread

OnLevel = Callable[[int], None]


def residual_codes(vectors: Tensor, books: Tensor) -> Tensor:
    """Codes [m, levels] of vectors [m, d] in codebooks [levels, codes, d], the nearest each."""
    left, found = vectors.double(), []
    for book in books.double():
        found.append(assign(left, book)[0])
        left = left - book[found[-1]]
    return torch.stack(found, 1)


def summed(codes: Tensor, books: Tensor) -> Tensor:
    """The sum of the vectors [m, d] that codes [m, levels] stand for."""
    levels = torch.arange(len(books), device=codes.device)
    return books[levels, codes].sum(1)


def fit_books(
    vectors: Tensor,
    levels: int,
    codes: int,
    seed: int,
    on_level: OnLevel = lambda level: None,
) -> Tensor:
    """Codebooks [levels, codes, d] float64: k-means of what the levels before leave of [n, d].

    ``on_level`` is told each level as it is done, from 1.

    Codes beyond the number of vectors stand for nothing of their own.
    """
    draw = torch.Generator().manual_seed(seed)
    left, books = vectors.clone(), []
    for level in range(1, levels + 1):
        books.append(kmeans(left, codes, draw))
        for begin in range(0, len(left), CHUNK):
            part = left[begin : begin + CHUNK].double()
            part -= books[-1][assign(part, books[-1])[0]]
            left[begin : begin + CHUNK] = part
        on_level(level)
    return torch.stack(books)


@dataclass(frozen=True)
class ResidualKMeans:
    """Residual k-means of prepared vectors: what needs no training by gradients.

    ``books`` [levels, codes, k] float64 are of prepared vectors.
    """

    preparation: Preparation
    books: Tensor

    def codes(self, vectors: Tensor) -> Tensor:
        """Codes [m, levels] int64 of vectors [m, dim]."""
        with one_thread():
            return residual_codes(self.preparation.apply(vectors), self.books)

    def rebuilt(self, codes: Tensor) -> Tensor:
        """The vectors [m, dim] float64 that codes [m, levels] stand for."""
        with one_thread():
            return self.preparation.back(summed(codes, self.books))


def fit_residual_kmeans(
    vectors: Vectors,
    index: Tensor,
    levels: int,
    codes: int,
    seed: int,
    how: How = "centre",
    dims: int = 0,
    on_level: OnLevel = lambda level: None,
) -> ResidualKMeans:
    """Residual k-means of the vectors of rows ``index`` [m]; the same on any number of threads.

    Of more than 256 rows per code, a random part is learned from.

    Raises:
        ValueError: fewer rows than codes, or all their vectors are the same.
    """
    if codes > len(index):
        raise ValueError(f"codes {codes} is more than the {len(index):,} vectors to learn from")
    with one_thread():
        if not varied(vectors, index):
            raise ValueError(f"the vectors of all {len(index):,} items are the same")
        preparation = fit_preparation(vectors, index, how, dims)
        draw = torch.Generator().manual_seed(seed)
        some = index[torch.randperm(len(index), generator=draw)[: FITTING * codes].sort().values]
        parts = [preparation.apply(part).float() for part in chunks(vectors, some)]
        books = fit_books(torch.cat(parts), levels, codes, seed, on_level)
    return ResidualKMeans(preparation, books)
