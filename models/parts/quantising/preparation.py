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

How = Literal["none", "centre", "pca", "whiten"]
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
    """A preparation fitted to the vectors of rows ``index`` [m].

    ``none`` leaves them as they are, ``centre`` takes their mean away, ``pca`` keeps the ``dims``
    directions with most variance (at most; 0: all that vary), ``whiten`` gives each of these
    variance 1.

    Raises:
        ValueError: the vectors are all the same.
    """
    mean, spread = mean_and_spread(vectors, index)
    if not spread > LEAST * float(mean.square().sum()):
        raise ValueError(f"the vectors of all {len(index):,} items are the same")
    if how in ("none", "centre"):
        whole = torch.eye(vectors.dim, dtype=torch.float64)
        ones = torch.ones(vectors.dim, dtype=torch.float64)
        return Preparation(mean if how == "centre" else torch.zeros_like(mean), whole, ones)
    variances, directions = torch.linalg.eigh(covariance_of(vectors, index, mean))
    variances, directions = variances.flip(0), directions.flip(1)
    rank = int((variances > LEAST * variances[0]).sum())
    kept = min(dims or rank, rank)
    basis = _signed(directions[:, :kept])
    whitening = variances[:kept].rsqrt()
    return Preparation(mean, basis, whitening if how == "whiten" else torch.ones_like(whitening))


def _signed(directions: Tensor) -> Tensor:
    """The directions [dim, k], each turned so that its largest part is positive."""
    largest = directions.abs().argmax(0, keepdim=True)
    return (directions * directions.gather(0, largest).sign()).contiguous()
