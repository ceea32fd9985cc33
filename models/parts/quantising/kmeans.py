"""k-means in float64: seeded, and the same on any number of threads (:mod:`.threads`)."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 4096  # vectors whose distances are held at once
ITERATIONS = 50
GAIN = 1e-4  # of the mean squared distance: a round that brings less is the last one
SEEDING = 64  # vectors per code that the first centres are chosen among
FITTING = 256  # vectors per code that centres are fitted to


def assign(vectors: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of ``centres`` [k, d] for every vector [n, d]: its number [n], and the squared
    distance [n] float64."""
    device = vectors.device
    labels = torch.empty(len(vectors), dtype=torch.int64, device=device)
    distances = torch.empty(len(vectors), dtype=torch.float64, device=device)
    lengths = centres.square().sum(1)
    for begin in range(0, len(vectors), CHUNK):
        part = vectors[begin : begin + CHUNK].double()
        beyond = torch.addmm(lengths, part, centres.T, alpha=-2)  # but for the vector's own length
        least, nearest = beyond.min(1)
        labels[begin : begin + CHUNK] = nearest
        distances[begin : begin + CHUNK] = (least + part.square().sum(1)).clamp(min=0)
    return labels, distances


def kmeans(vectors: Tensor, k: int, draw: torch.Generator) -> Tensor:
    """Centres [k, d] float64 of vectors [n, d]; begun by k-means++ (Arthur & Vassilvitskii
    2007), then Lloyd's rounds.

    Of more than 256 vectors per code a random part is looked at. A centre that is nobody's nearest
    moves to the vector that is farthest from its own. Of fewer vectors than centres each is one,
    and some are two.
    """
    if len(vectors) <= k:
        return vectors.double()[torch.arange(k) % len(vectors)]
    order = torch.randperm(len(vectors), generator=draw)[: FITTING * k]
    vectors = vectors[order]
    centres = plus_plus(vectors[: SEEDING * k].double(), k, draw)
    before = float("inf")
    for _ in range(ITERATIONS):
        labels, distances = assign(vectors, centres)
        centres = _means(vectors, labels, distances, centres)
        now = float(distances.mean())
        if not now < before * (1 - GAIN):
            break
        before = now
    return centres


def plus_plus(vectors: Tensor, k: int, draw: torch.Generator) -> Tensor:
    """The first centres [k, d]: each is a vector, drawn by its squared distance to those before."""
    lengths = vectors.square().sum(1)
    chosen = [int(torch.randint(len(vectors), (1,), generator=draw))]
    nearest = torch.full_like(lengths, torch.inf)
    while len(chosen) < k:
        last = vectors[chosen[-1]]
        away = torch.addmv(lengths + last.square().sum(), vectors, last, alpha=-2)
        nearest = torch.minimum(nearest, away.clamp(min=0))
        reached = nearest.cumsum(0)
        at = torch.rand(1, generator=draw, dtype=torch.float64) * reached[-1]
        new = int(torch.searchsorted(reached, at, right=True))
        chosen.append(min(new, len(vectors) - 1))
    return vectors[chosen]


def _means(vectors: Tensor, labels: Tensor, distances: Tensor, before: Tensor) -> Tensor:
    k = len(before)
    sums = torch.zeros_like(before)
    for begin in range(0, len(vectors), CHUNK):
        end = begin + CHUNK
        sums.index_add_(0, labels[begin:end], vectors[begin:end].double())
    counts = torch.bincount(labels, minlength=k)
    centres = sums / counts.clamp(min=1)[:, None]
    empty = (counts == 0).nonzero()[:, 0]
    if len(empty):
        farthest = torch.sort(distances, descending=True, stable=True).indices[: len(empty)]
        centres[empty] = vectors[farthest].double()
    return centres
