"""Ranks up to a depth, on a CPU, without scoring every item exactly.

A metric at k asks whether a target's rank is at most k, and which it is; of the rest only that it
is worse. So every item first gets an upper bound of its score, and only items whose bound reaches
the target's score are looked at. The ranks are exactly those of float32's scores.

The bound: vectors and items are turned into a basis in which a few directions have most of their
length. Along these they are multiplied, in bfloat16 where the CPU multiplies that faster; of the
rest only the lengths are (Cauchy and Schwarz; compare Teflioudi et al. 2015, "LEMP", SIGMOD,
section 4). A target that ``depth`` items beat drops out; since items come in the order of their
mean score, most such targets do so early.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.training.registry import Kernels

ROWS, ITEMS = 512, 2048  # of a tile of rough scores: few enough to stay in a CPU's cache
FEWEST_ITEMS = 1024  # of a catalogue for which the screen pays off
SAMPLE = (32, 4096)  # vectors and items that tell how many directions are best
LOOK = 12_000  # products of a rough score that cost as much as looking at an item
EIGHTHS = 8  # of all directions are tried
LARGEST = 1e15  # no sum of squares of such numbers leaves float32

Counts = NDArray[np.int64]


def screenable(vectors: Tensor, table: Tensor, bias: Tensor | None) -> bool:
    """Whether bounds hold for scores of these: all of them float32 on a CPU, none of them huge,
    and multiplied as such."""
    given = [t for t in (vectors, table, bias) if t is not None]
    if not all(t.device.type == "cpu" and t.dtype == torch.float32 and len(t) for t in given):
        return False
    said = os.environ.get("DNNL_DEFAULT_FPMATH_MODE", "strict").lower()
    if said != "strict" or torch.get_float32_matmul_precision() != "highest":
        return False
    return all(bool(largest(t) < LARGEST) for t in given)


def largest(values: Tensor) -> Tensor:
    """The largest absolute value, NaN if there is one; without a copy of ``values``."""
    low, high = torch.aminmax(values)
    return torch.maximum(-low, high)


class RankScreen:
    """A table of items [N, d] with ``bias`` [N], laid out to find ranks up to ``depth``.

    Beside the table it holds a rough copy of it, at most its size.
    """

    def __init__(
        self,
        kernels: Kernels,
        table: Tensor,
        bias: Tensor | None,
        depth: int,
        vectors: Tensor,
        targets: Tensor,
    ) -> None:
        """``vectors`` [T, d] and ``targets`` [T] are typical of what is to be ranked."""
        self.kernels, self.table, self.depth = kernels, table.contiguous(), depth
        self.bias = (table.new_zeros(len(table)) if bias is None else bias).contiguous()
        self.kind = rough_type()
        self.basis = _basis(self.table, vectors)
        self.size = self._directions(vectors, targets)
        likely = torch.mv(self.table, vectors.mean(0)) + self.bias
        order = torch.argsort(likely, descending=True)
        self.blocks = [self._block(items) for items in torch.split(order, ITEMS)]
        self.scores = torch.empty(ROWS * ITEMS, dtype=self.kind)

    def _block(self, items: Tensor) -> tuple[Tensor, Tensor, float, float]:
        """Some items laid out, with the largest of their lengths and of their biases.

        Made of these alone: of a large table every copy is large.
        """
        rows, bias = self.table[items], self.bias[items]
        head, tail = self._turn(rows)
        # the bias as a sum of two rough numbers is not rough any more
        high = bias.to(self.kind)
        low = (bias - high.float()).to(self.kind)
        rough = torch.cat([head, high[:, None], low[:, None], tail], 1)
        return items, rough, float(_lengths(rows).max()), float(bias.abs().max())

    def count(
        self, vectors: Tensor, targets: Tensor, excluded: tuple[Tensor, Tensor] | None
    ) -> tuple[Counts, Counts]:
        """How many items score above each target of [T], and how many at least as high.

        ``excluded`` are (items, ends [T + 1]): those from ends[t] to ends[t + 1] don't count for
        target t, ascending; the target always does. Counts of a target that ``depth`` items beat
        may be too low.
        """
        vectors, targets = vectors.contiguous(), targets.contiguous()
        above, at_least = torch.zeros_like(targets), torch.zeros_like(targets)
        own = self.kernels.pair_scores(vectors, self.table, self.bias, targets)
        head, tail = self._turn(vectors)
        rough = torch.cat([head, torch.ones(len(head), 2, dtype=self.kind), tail], 1)
        norms = _lengths(vectors)
        for begun in torch.split(torch.arange(len(targets)), ROWS):
            rows = begun
            for items, table, norm, offset in self.blocks:
                rows = rows[above[rows] < self.depth]
                if not len(rows):
                    break
                size = len(rows) * len(items)
                scores = self.scores[:size].view(len(rows), len(items))
                torch.mm(rough[rows], table.T, out=scores)
                least = own[rows] - self._margin(norms[rows], own[rows], norm, offset)
                self.kernels.contend(
                    scores, _rounded(least, self.kind), rows, items, vectors, self.table,
                    self.bias, own, targets, excluded, self.depth, above, at_least,
                )  # fmt: skip
        return above.numpy(), at_least.numpy()

    def _turn(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """``rows`` [n, d] in the chosen directions, and the length of the rest, rounded up."""
        turned = rows @ self.basis
        rest = _lengths(turned[:, self.size :])[:, None]
        return turned[:, : self.size].to(self.kind), (rest * (1 + 2.0**-7)).to(self.kind)

    def _margin(self, norms: Tensor, own: Tensor, norm: float, offset: float) -> Tensor:
        """How far a bound may be below the score that it is for, for vectors of such norms.

        Rounding both factors to u = 2⁻ᵖ (:func:`rounding`) changes each product by at most 2u + u²
        of itself, and Σ|x_i·y_i| ≤ |x|·|y|; of that, sums in float32, here and in the exact score,
        are off by at most 4·(d + 3)·2⁻²⁴, and the turned vectors by :func:`_slack`. The bias is off
        by u², and part of the sums. That a bound is itself rounded keeps the order of numbers, and
        what it is compared with is rounded too.
        """
        u, d = rounding(self.kind), len(self.basis)
        sums = 4 * (d + 3) * 2.0**-24
        share = 2 * u + u * u + sums + 2 * _slack(self.basis)
        lost = d * 2.0**-125 * (1 + norm + norms)  # what is rounded to zero
        return 1.01 * share * norm * norms + 2.0**-22 * own.abs() + (u * u + sums) * offset + lost

    def _directions(self, vectors: Tensor, targets: Tensor) -> int:
        """How many directions are worth being multiplied, as tried on a few vectors and items."""
        rows, items = (
            torch.arange(0, len(t), -(-len(t) // most))
            for t, most in zip((vectors, self.table), SAMPLE, strict=True)
        )
        own = self.kernels.pair_scores(
            vectors[rows].contiguous(), self.table, self.bias, targets[rows].contiguous()
        )[:, None]
        x, w = vectors[rows] @ self.basis, self.table[items] @ self.basis
        u = rounding(self.kind)
        least = own - self.bias[items] - 2 * u * _lengths(w).max() * _lengths(x)[:, None]
        # a row is left when depth items beat its target
        beating = (x @ w.T >= own - self.bias[items]).float().mean(1) * len(self.table)
        until = (self.depth / beating).clamp(max=1)
        d, costs = len(self.basis), {}
        for size in sorted({max(1, d * k // EIGHTHS) for k in range(1, EIGHTHS + 1)}):
            tails = [_lengths(t[:, size:]).float() for t in (x, w)]
            bounds = x[:, :size] @ w[:, :size].T + torch.outer(*tails)
            looks = float(((bounds >= least).float().mean(1) * until).mean())
            costs[size] = size + LOOK * looks
        return min(costs, key=costs.__getitem__)


def _rounded(least: Tensor, kind: torch.dtype) -> Tensor:
    """As the scores that it is compared with are: first to float32, then to ``kind``."""
    return least.float().to(kind).float()


def _basis(table: Tensor, vectors: Tensor) -> Tensor:
    """Directions [d, d], those first in which items and vectors have most of their length."""
    spread = torch.zeros(table.shape[1], table.shape[1], dtype=torch.float64)
    for rows in (table, vectors):
        some = rows[:: -(-len(rows) // SAMPLE[1])]
        squares = (some.T @ some).double()
        spread += squares / squares.trace().clamp(min=1e-30)
    _, directions = torch.linalg.eigh(spread)
    basis: Tensor = directions.flip(1).float().contiguous()
    return basis


def rounding(kind: torch.dtype) -> float:
    """The largest relative error of a number that is rounded to ``kind``: 2⁻ᵖ for p digits."""
    return 2.0**-8 if kind == torch.bfloat16 else 2.0**-24


def _lengths(rows: Tensor) -> Tensor:
    """[n, d] → [n] in float64, where no square of a float32 is lost."""
    found: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return found


def _slack(basis: Tensor) -> float:
    """How far from where it belongs a vector may be in the basis, by its own length.

    Each of d coordinates is a sum of d products in float32, off by at most d·2⁻²⁴ of the vector's
    length; as much again is left for the rounding of the basis, which makes it not quite
    orthonormal.
    """
    return float(2 * len(basis) ** 1.5 * 2.0**-24)


@cache
def rough_type() -> torch.dtype:
    """bfloat16 where this CPU multiplies it faster than float32, as tried once."""

    def seconds(kind: torch.dtype) -> Iterator[float]:
        a, b = torch.ones(256, 128, dtype=kind), torch.ones(1024, 128, dtype=kind)
        for _ in range(4):
            began = time.perf_counter()
            torch.mm(a, b.T)
            yield time.perf_counter() - began

    rough, plain = (min(seconds(kind)) for kind in (torch.bfloat16, torch.float32))
    return torch.bfloat16 if rough < 0.8 * plain else torch.float32
