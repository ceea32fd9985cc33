"""Ranks of the right next item among the whole catalogue, by counting, and metrics of them.

Scores of a chunk of targets against every item are one matrix product; how many beat the target's
own entry of that product is its rank. Nothing is sorted, and memory is one chunk of scores
whatever the catalogue's size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.errors import Diverged, TrainingError
from paropt.training.plans import EventArrays, Queries, QueryBatches, evaluation
from paropt.training.registry import Model, SequenceBatch, kernels
from paropt.training.screening import FEWEST_ITEMS, Screen, largest, screenable

Ties = Literal["standard", "conservative", "median"]
Ranks = NDArray[np.float64]
TIES: tuple[Ties, ...] = get_args(Ties)

ROWS = 1024  # windows of one encoded batch
CHUNK_BYTES = 512 << 20  # scores held at once
CHUNK_ROWS = {"cpu": 256, "cuda": 8192}  # a CPU counts scores while they are in its cache
_EXACT_COUNTS = 1 << 24  # float32 counts one by one up to here


@dataclass(frozen=True)
class Evaluation:
    """``metrics`` by name ("mrr@20"), over ``targets`` predictions; ``unknown`` more were left
    out because training never saw their item. ``ranks`` [targets] float64 start at 1, in no
    particular order, and those beyond every k of the metrics may be infinite; ``sessions``
    [targets] int64 are those of the split that they belong to. Both are empty where a model judged
    itself."""

    metrics: dict[str, float]
    targets: int
    unknown: int
    seconds: float
    ranks: Ranks
    sessions: NDArray[np.int64]


def metrics_of(ranks: Ranks, at: Sequence[int]) -> dict[str, float]:
    """Recall@k, MRR@k and NDCG@k for each k of ``at``, of targets whose ranks are given.

    One relevant item per target, so NDCG@k = 1/log2(rank + 1) where rank ≤ k.
    """
    metrics = {}
    for k in at:
        hit = ranks <= k
        metrics[f"recall@{k}"] = float(np.mean(hit))
        metrics[f"mrr@{k}"] = float(np.mean(np.where(hit, 1 / ranks, 0)))
        metrics[f"ndcg@{k}"] = float(np.mean(np.where(hit, 1 / np.log2(ranks + 1), 0)))
    return metrics


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
    if len(targets) == 0:
        return np.zeros(0)
    vectors, table = vectors.float(), table.float()
    size = chunk_rows(table, chunk_bytes)
    certain = _surely_finite(vectors, table, bias)
    scores = vectors.new_empty(min(size, len(targets)), len(table))
    compared = torch.empty_like(scores) if ties == "median" else scores
    above, at_least = [], []
    for begin in range(0, len(targets), size):
        chunk = targets[begin : begin + size, None]
        s, c = scores[: len(chunk)], compared[: len(chunk)]
        torch.mm(vectors[begin : begin + size], table.T, out=s)
        if bias is not None:
            s += bias
        if not certain and not bool(torch.isfinite(s).all()):
            raise Diverged("a score is not finite; lower the learning rate, or clip gradients")
        # the target's own entry of the product: a dot product of its own could round differently
        own = s.gather(1, chunk)
        if exclude is not None:
            exclude_items(s, begin, *exclude)
            s.scatter_(1, chunk, own)
        if ties != "conservative":
            above.append(_count(torch.gt(s, own, out=c)))
        if ties != "standard":
            at_least.append(_count(torch.ge(s, own, out=c)))
    return place(_joined(above), _joined(at_least), ties)


def chunk_rows(table: Tensor, chunk_bytes: int = CHUNK_BYTES) -> int:
    """How many rows of scores against ``table`` are held at once."""
    rows = chunk_bytes // (4 * len(table))
    return max(1, min(rows, CHUNK_ROWS.get(table.device.type, CHUNK_ROWS["cpu"])))


def _joined(counts: list[Tensor]) -> Ranks:
    return torch.cat(counts).double().cpu().numpy() if counts else np.zeros(0)


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


def evaluate(
    model: Model,
    split: EventArrays,
    n_items: int,
    *,
    at: Sequence[int] = (20,),
    ties: Ties = "standard",
    filter_seen: bool = False,
) -> Evaluation:
    """Rank every target of ``split``, or let a model that has its own evaluation judge itself.

    ``filter_seen`` takes the items of the target's own history out of the candidates.

    Raises:
        Diverged: a score or a metric is not finite.
        TrainingError: the split has nothing to predict.
    """
    batches = evaluation(split, n_items, model.max_length, ROWS, model.device)
    return judge(model, batches, at=at, ties=ties, filter_seen=filter_seen)


def judge(
    model: Model, batches: QueryBatches, *, at: Sequence[int], ties: Ties, filter_seen: bool
) -> Evaluation:
    """:func:`evaluate` on queries that are at hand already."""
    began = time.perf_counter()
    if batches.total == 0:
        raise TrainingError(
            "there is nothing to predict: no target's item and history are known from training"
        )
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            metrics = model.evaluate(batches)
            ranks, sessions = np.zeros(0), np.zeros(0, dtype=np.int64)
            if metrics is None:
                ranks, sessions = _ranks(model, batches, max(at), ties, filter_seen)
                metrics = metrics_of(ranks, at)
    finally:
        model.train(was_training)
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise Diverged(f"the metric {name} is {value}")
    seconds = time.perf_counter() - began
    return Evaluation(metrics, batches.total, batches.unknown, seconds, ranks, sessions)


def _ranks(
    model: Model, batches: QueryBatches, depth: int, ties: Ties, filter_seen: bool
) -> tuple[Ranks, NDArray[np.int64]]:
    """The rank of every target; exact up to ``depth``."""
    table, bias = model.item_table()
    screen: Screen | None = None
    found, sessions = [], []
    for batch in queries(batches):
        wanted = batch.targets[batch.targets >= 0]
        exclude = seen_items(batch.histories, batches.store.items) if filter_seen else None
        vectors = model.encode(batch)
        given = kernels() if screen is None else None
        if given is not None and screens(vectors, table, bias, depth):
            screen = Screen(given, table, bias, depth, vectors, wanted)
        if screen is None:
            found.append(rank(vectors, wanted, table, bias, ties=ties, exclude=exclude))
        else:
            found.append(screened(screen, vectors, wanted, ties=ties, exclude=exclude))
        begins = batch.histories[:, 0].contiguous()
        at = torch.searchsorted(batches.store.offsets, begins, right=True) - 1
        sessions.append(at.cpu().numpy())
    return np.concatenate(found), np.concatenate(sessions)


def screens(vectors: Tensor, table: Tensor, bias: Tensor | None, depth: int) -> bool:
    """Whether a :class:`Screen` finds the ranks, and faster."""
    large = len(table) >= max(FEWEST_ITEMS, 64 * depth)
    return large and screenable(vectors, table, bias)


def screened(
    screen: Screen,
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
    table, bias, n = screen.table, screen.bias, len(screen.table)
    if not screenable(vectors, table, bias):
        return rank(vectors, targets, table, bias, ties=ties, exclude=exclude)
    listed = None
    if exclude is not None:
        pairs = torch.sort(exclude[0] * n + exclude[1]).values
        listed = pairs % n, torch.searchsorted(pairs, torch.arange(len(targets) + 1) * n)
    above, at_least = screen.count(vectors, targets, listed)
    ranks = place(above.astype(np.float64), at_least.astype(np.float64), ties)
    ranks[above >= screen.depth] = np.inf
    return ranks


def queries(batches: Iterable[SequenceBatch]) -> Iterator[Queries]:
    """The batches by the type that :class:`QueryBatches` gives them."""
    for batch in batches:
        yield cast(Queries, batch)


def seen_items(histories: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """(row, item) of everything in each target's history."""
    begins, ends = histories[:, 0], histories[:, 1]
    sizes = ends - begins
    rows = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    first = torch.cumsum(sizes, 0) - sizes
    within = torch.arange(len(rows), device=rows.device) - first[rows]
    return rows, items[begins[rows] + within].long()
