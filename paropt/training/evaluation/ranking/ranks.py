"""How many items score above a target, and as high: by counting, a chunk of scores at a time.

Scores of a chunk of targets against every item are one matrix product; how many beat the target's
own entry of that product is its rank. Nothing is sorted, and memory is one chunk of scores
whatever the catalogue's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.errors import Diverged, ModelError
from paropt.training.evaluation.protocol import Ties
from paropt.training.evaluation.ranking.screening import (
    FEWEST_ITEMS,
    RankScreen,
    largest,
    screenable,
)
from paropt.training.registry import Model, SequenceBatch

Ranks = NDArray[np.float64]
CHUNK_BYTES = 512 << 20  # scores held at once
CHUNK_ROWS = {"cpu": 256, "cuda": 8192}  # a CPU counts scores while they are in its cache
_EXACT_COUNTS = 1 << 24  # float32 counts one by one up to here
FEW = 4096  # targets of which all are looked at for equal scores; of more, every STRIDE-th is
STRIDE = 8


@dataclass(frozen=True)
class Counts:
    """Of each target [T] how many candidates score higher, and how many at least as high, itself
    included; NaN where the latter were not counted."""

    above: Ranks
    at_least: Ranks

    def ranks(self, ties: Ties, depth: float) -> Ranks:
        """Infinite where ``depth`` or more are above."""
        ranks = place(self.above, self.at_least, ties)
        return np.where(self.above >= depth, np.inf, ranks)

    def tied(self, depth: float) -> float:
        """The share of targets with fewer than ``depth`` above that have equals."""
        counted = ~np.isnan(self.at_least)
        equal = (self.at_least - self.above > 1) & (self.above < depth)
        return float(np.mean(equal[counted])) if counted.any() else 0.0

    @property
    def complete(self) -> bool:
        return not np.isnan(self.at_least).any()


def place(above: Ranks, at_least: Ranks, ties: Ties) -> Ranks:
    """Ranks from how many items score higher and how many at least as high as the target.

    The target counts among the latter. "standard" puts it before its equals, "conservative" after
    them, "median" in their middle.
    """
    if ties == "standard":
        return 1 + above
    return at_least if ties == "conservative" else (1 + above + at_least) / 2


def rank(
    vectors: Tensor,
    targets: Tensor,
    table: Tensor,
    bias: Tensor | None = None,
    *,
    ties: Ties = "standard",
    exclude: tuple[Tensor, Tensor] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Ranks:
    """The rank of ``targets`` [T] int64 by ``vectors`` [T, d] · ``table`` [N, d] + ``bias`` [N].

    ``exclude`` is (row, item), ascending by row: items that are no candidates for that row; the
    target always is one. Ranks [T] are float64.

    Raises:
        Diverged: a score is not finite.
    """
    stride = 0 if ties == "standard" else 1
    found = count(
        vectors, targets, table, bias, stride=stride, exclude=exclude, chunk_bytes=chunk_bytes
    )
    return place(found.above, found.at_least, ties)


def count(
    vectors: Tensor,
    targets: Tensor,
    table: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int,
    exclude: tuple[Tensor, Tensor] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Counts:
    """What :func:`rank` is made of. Equal scores are counted for every ``stride``-th target of a
    chunk, 0: for none."""
    if len(targets) == 0:
        return Counts(np.zeros(0), np.zeros(0))
    vectors, table = vectors.float(), table.float()
    certain = _surely_finite(vectors, table, bias)
    chunks = products(vectors, table, bias, chunk_bytes)
    return count_scores(chunks, targets, stride=stride, exclude=exclude, certain=certain)


def count_scores(
    chunks: Iterable[Tensor],
    targets: Tensor,
    *,
    stride: int,
    exclude: tuple[Tensor, Tensor] | None = None,
    certain: bool = False,
) -> Counts:
    """:func:`count` of scores [T, N] that come in chunks of rows, which are written over.

    ``certain``: all are known to be finite.
    """
    begin = 0
    above: list[Tensor] = []
    at_least = targets.new_full((len(targets),), math.nan, dtype=torch.float64)
    compared = torch.empty(0, device=targets.device)
    for s in chunks:
        chunk = targets[begin : begin + len(s), None]
        if not certain and not bool(torch.isfinite(s).all()):
            raise Diverged("a score is not finite; lower the learning rate, or clip gradients")
        # the target's own entry of the product: a dot product of its own could round differently
        own = s.gather(1, chunk)
        if exclude is not None:
            exclude_items(s, begin, *exclude)
            s.scatter_(1, chunk, own)
        if stride:
            some = s[::stride]
            if len(compared) < len(some):
                compared = torch.empty_like(some)
            equal = torch.ge(some, own[::stride], out=compared[: len(some)])
            at_least[begin : begin + len(chunk) : stride] = _count(equal).double()
        above.append(_count(torch.gt(s, own, out=s)))
        begin += len(chunk)
    return Counts(torch.cat(above).double().cpu().numpy(), at_least.cpu().numpy())


def chunk_rows(n_items: int, device: torch.device, chunk_bytes: int = CHUNK_BYTES) -> int:
    """How many rows of scores of ``n_items`` are held at once."""
    rows = chunk_bytes // (4 * n_items)
    return max(1, min(rows, CHUNK_ROWS.get(device.type, CHUNK_ROWS["cpu"])))


def products(
    vectors: Tensor, table: Tensor, bias: Tensor | None, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Tensor]:
    """Scores of every item for ``vectors`` [T, d], some rows at a time, each in place of the
    last; both float32."""
    size = chunk_rows(len(table), table.device, chunk_bytes)
    scores = vectors.new_empty(min(size, len(vectors)), len(table))
    for begin in range(0, len(vectors), size):
        s = scores[: len(vectors) - begin]
        torch.mm(vectors[begin : begin + size], table.T, out=s)
        if bias is not None:
            s += bias
        yield s


def scores_of(model: Model, batch: SequenceBatch) -> Iterator[Tensor]:
    """What a model scores itself, some targets at a time, in their order: [some, n_items].

    Raises:
        ModelError: scores of another shape.
    """
    n_items = model.catalogue.n_items
    for part in batch.parts(chunk_rows(n_items, batch.items.device)):
        scores, wanted = model.score(part), (part.n_targets, n_items)
        if tuple(scores.shape) != wanted:
            name = type(model).__name__
            raise ModelError(f"{name}.score() gave {tuple(scores.shape)} scores, not {wanted}")
        yield scores.float()


def _count(ones: Tensor) -> Tensor:
    """Row sums of zeros and ones: summing float32 is many times faster than counting bools."""
    exact = ones.shape[1] <= _EXACT_COUNTS
    return ones.sum(1) if exact else ones.sum(1, dtype=torch.float64)


def exclude_items(scores: Tensor, begin: int, rows: Tensor, items: Tensor) -> None:
    """Make ``items`` no candidates in ``rows`` (ascending), of which ``scores`` begin at one."""
    edges = torch.tensor([begin, begin + len(scores)], device=rows.device)
    low, high = torch.searchsorted(rows, edges).tolist()
    scores[rows[low:high] - begin, items[low:high]] = -math.inf


def _surely_finite(vectors: Tensor, table: Tensor, bias: Tensor | None) -> bool:
    """Whether the factors prove that no score can overflow: far cheaper than looking at each."""
    bound = largest(vectors) * largest(table) * vectors.shape[1]
    if bias is not None:
        bound = bound + largest(bias)
    return bool(bound < 1e38)


def screens(vectors: Tensor, table: Tensor, bias: Tensor | None, depth: float) -> bool:
    """Whether a :class:`RankScreen` finds the ranks, and faster."""
    large = len(table) >= max(FEWEST_ITEMS, 64 * depth)
    return large and screenable(vectors, table, bias)


def screened(
    screen: RankScreen,
    vectors: Tensor,
    targets: Tensor,
    *,
    ties: Ties = "standard",
    exclude: tuple[Tensor, Tensor] | None = None,
) -> Ranks:
    """:func:`rank`, but infinite where the rank is beyond the screen's depth.

    Raises:
        Diverged: a score is not finite.
    """
    if not screenable(vectors, screen.table, screen.bias):
        return rank(vectors, targets, screen.table, screen.bias, ties=ties, exclude=exclude)
    return _screened(screen, vectors, targets, exclude).ranks(ties, screen.depth)


def _screened(
    screen: RankScreen, vectors: Tensor, targets: Tensor, exclude: tuple[Tensor, Tensor] | None
) -> Counts:
    table, bias, n = screen.table, screen.bias, len(screen.table)
    if not screenable(vectors, table, bias):
        return count(vectors, targets, table, bias, stride=1, exclude=exclude)
    listed = None
    if exclude is not None:
        pairs = torch.sort(exclude[0] * n + exclude[1]).values
        listed = pairs % n, torch.searchsorted(pairs, torch.arange(len(targets) + 1) * n)
    above, at_least = screen.count(vectors, targets, listed)
    return Counts(above.astype(np.float64), at_least.astype(np.float64))
