"""PCA whitening of given vectors, which crowd in a narrow cone as language models make them.

Fitted on items with training events only, in float64, a few rows at a time: vectors lie in a file
that is never held in memory. At most :func:`sample_size` rows, evenly spread, are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.contract import Vectors

_VALUES = 1 << 22  # of vectors read at once
_SAMPLE, _PRODUCTS = 1 << 16, 1 << 36
_LEAST_VARIANCE = 1e-6  # of the largest; what varies less is rounding of float16


def sample_size(dim: int) -> int:
    """How many rows of ``dim`` numbers a fit looks at, at most."""
    return max(4 * dim, min(_SAMPLE, _PRODUCTS // dim**2))


def fit_whitening(vectors: Vectors, rows: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    """The mean [dim] and the projection [dim, dims] float32 by which ``rows`` [m] become white.

    Columns beyond what the rows span are zero. The same rows give the same projection: each of
    its directions has its largest entry above zero.
    """
    size = sample_size(vectors.dim)
    if len(rows) > size:
        rows = rows[torch.arange(size) * len(rows) // size]
    mean = torch.zeros(vectors.dim, dtype=torch.float64)
    moments = torch.zeros(vectors.dim, vectors.dim, dtype=torch.float64)
    if len(rows) < 2:
        return mean.float(), moments[:, :dims].float()
    for part in _parts(rows, vectors.dim):
        mean += vectors.rows(part).double().sum(0)
    mean /= len(rows)
    for part in _parts(rows, vectors.dim):
        apart = vectors.rows(part).double().sub_(mean)
        moments.addmm_(apart.T, apart)
    values, directions = torch.linalg.eigh(moments / len(rows))
    values, directions = values.flip(0)[:dims], directions.flip(1)[:, :dims]
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    kept = values > _LEAST_VARIANCE * values[0].clamp(min=1e-12)
    scale = torch.where(kept, values.clamp(min=1e-30).rsqrt(), 0.0) * largest.sign()
    return mean.float(), (directions * scale).float()


def whitened(vectors: Vectors, mean: Tensor, projection: Tensor) -> Tensor:
    """LN(whitened x) of every row [n, dims] float16, zero where there is none."""
    found = torch.zeros(len(vectors), projection.shape[1], dtype=torch.float16)
    mean, projection = mean.cpu(), projection.cpu()
    for part in _parts((~vectors.missing.cpu()).nonzero().squeeze(1), vectors.dim):
        white = (vectors.rows(part) - mean) @ projection
        found[part] = F.layer_norm(white, white.shape[1:]).half()
    return found


def _parts(rows: Tensor, dim: int) -> Iterator[Tensor]:
    yield from rows.split(max(1, _VALUES // dim))
