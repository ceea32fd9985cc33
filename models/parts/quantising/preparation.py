"""What vectors are prepared by before they are quantised: centred, projected, whitened.

Vectors of sentences and pictures share a large common part, and a few directions have most of
their variance: what all share says nothing of an item, and is taken away first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from models.parts.fields import Vectors

How = Literal["centre", "pca", "whiten"]
HOWS: tuple[How, ...] = get_args(How)
CHUNK = 4096  # vectors in memory at once, in float64
SAMPLE = 1 << 16  # vectors that directions are found from; 4 per dimension where those are more
LEAST = 1e-6  # of the largest variance: a direction with less is noise of float16


@dataclass(frozen=True)
class Preparation:
    """``(x − mean) @ basis · scale``, fitted to some of the vectors.

    Attributes:
        mean: what is taken away [dim] float64.
        basis: the directions that are kept [dim, k], orthonormal; the one of most variance first.
        scale: what each is multiplied by [k].
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    @property
    def dims(self) -> int:
        """How many numbers a prepared vector has."""
        return self.basis.shape[1]

    def apply(self, vectors: Tensor) -> Tensor:
        """Vectors [m, dim] as they are quantised [m, k] float64."""
        return (vectors.double() - self.mean) @ self.basis * self.scale

    def back(self, prepared: Tensor) -> Tensor:
        """The nearest vectors [m, dim] float64 that are prepared to these [m, k]."""
        return (prepared.double() / self.scale) @ self.basis.T + self.mean


def chunks(vectors: Vectors, index: Tensor, size: int = CHUNK) -> Iterator[Tensor]:
    """The vectors of rows ``index`` [m], a few at a time: [≤ size, dim] float64."""
    for begin in range(0, len(index), size):
        yield vectors.rows(index[begin : begin + size]).double()


def mean_and_spread(vectors: Vectors, index: Tensor) -> tuple[Tensor, float]:
    """The mean [dim] float64 of the vectors of rows ``index`` [m], m > 0, and their mean squared
    distance to it: their variance, summed over the dimensions."""
    total = torch.zeros(vectors.dim, dtype=torch.float64)
    for part in chunks(vectors, index):
        total += part.sum(0)
    mean = total / len(index)
    spread = sum(float((part - mean).square().sum()) for part in chunks(vectors, index))
    return mean, spread / len(index)


def varied(vectors: Vectors, index: Tensor) -> bool:
    """Whether there is anything to tell the vectors of rows ``index`` [m], m > 0, apart by."""
    mean, spread = mean_and_spread(vectors, index)
    return spread > LEAST * float(mean.square().sum())


def covariance_of(vectors: Vectors, index: Tensor, mean: Tensor) -> Tensor:
    """Covariance [dim, dim] float64 of the vectors of rows ``index``, evenly thinned out where
    they are very many."""
    most = max(SAMPLE, 4 * vectors.dim)
    if len(index) > most:
        index = index[torch.arange(most) * len(index) // most]
    products = torch.zeros(vectors.dim, vectors.dim, dtype=torch.float64)
    for part in chunks(vectors, index):
        products += (part - mean).T @ (part - mean)
    return products / len(index)


def fit_preparation(vectors: Vectors, index: Tensor, how: How, dims: int = 0) -> Preparation:
    """A preparation fitted to the vectors of rows ``index`` [m], m > 0.

    ``centre`` takes their mean away, ``pca`` keeps the ``dims`` directions with most variance as
    well (0: all), ``whiten`` gives each of these variance 1 that has any. It has
    :func:`prepared_dims` numbers.
    """
    mean, _ = mean_and_spread(vectors, index)
    kept = prepared_dims(vectors.dim, how, dims)
    ones = torch.ones(kept, dtype=torch.float64)
    if how == "centre":
        return Preparation(mean, torch.eye(kept, dtype=torch.float64), ones)
    variances, directions = torch.linalg.eigh(covariance_of(vectors, index, mean))
    variances, directions = variances.flip(0)[:kept], directions.flip(1)[:, :kept]
    varies = variances > LEAST * variances[0]
    whitening = torch.where(varies, variances.clamp(min=1e-30).rsqrt(), 1.0)
    return Preparation(mean, _signed(directions), whitening if how == "whiten" else ones)


def prepared_dims(dim: int, how: How, dims: int) -> int:
    """How many numbers vectors of ``dim`` numbers have when they are prepared."""
    return dim if how == "centre" or not dims else min(dims, dim)


def _signed(directions: Tensor) -> Tensor:
    """The directions [dim, k], each turned so that its largest part is positive."""
    largest = directions.abs().argmax(0, keepdim=True)
    return (directions * directions.gather(0, largest).sign()).contiguous()
