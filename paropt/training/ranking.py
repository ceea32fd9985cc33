"""Ranks of the right next item among the whole catalogue, by counting, and metrics of them.

Scores of a chunk of targets against every item are one matrix product; how many beat the target's
own entry of that product is its rank. Nothing is sorted, and memory is one chunk of scores
whatever the catalogue's size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.errors import Diverged, ModelError, TrainingError
from paropt.training.bootstrap import Sample, standard_errors
from paropt.training.epochs import EpochReport
from paropt.training.evaluation import Ties
from paropt.training.events import EventArrays
from paropt.training.metrics import (
    COVERAGE,
    deepest,
    gain,
    means,
    names_at,
    needs_all_ranks,
    of_ranks,
    split,
)
from paropt.training.objective import NOTICEABLE, Objective
from paropt.training.plans import Queries, QueryBatches, evaluation
from paropt.training.registry import Model, SequenceBatch, kernels, scores_itself
from paropt.training.screening import FEWEST_ITEMS, RankScreen, largest, screenable

Ranks = NDArray[np.float64]

ROWS = 1024  # windows of one encoded batch
CHUNK_BYTES = 512 << 20  # scores held at once
CHUNK_ROWS = {"cpu": 256, "cuda": 8192}  # a CPU counts scores while they are in its cache
_EXACT_COUNTS = 1 << 24  # float32 counts one by one up to here
FEW = 4096  # targets of which all are looked at for equal scores; of more, every STRIDE-th is
STRIDE = 8


@dataclass(frozen=True)
class Evaluation:
    """``metrics`` by name ("mrr@20"), over ``targets`` predictions; ``unknown`` more were left
    out because training never saw their item. ``ranks`` [targets] float64 start at 1, in no
    particular order, and those beyond every k of the metrics may be infinite; ``sessions``
    [targets] int64 are those of the split that they belong to. Where a model judged itself, there
    are no ranks, and ``values`` [values] by metric are what its metrics are the means of, if it
    says; ``sessions`` [values] then say which of them hang together. ``tied``, ``conservative``
    and ``stderr`` are as :class:`paropt.training.epochs.EpochReport` has them."""

    metrics: dict[str, float]
    targets: int
    unknown: int
    seconds: float
    ranks: Ranks
    sessions: NDArray[np.int64]
    tied: float | None = None
    conservative: Mapping[str, float] = field(default_factory=dict)
    stderr: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, Ranks] = field(default_factory=dict)

    def report(self, epoch: int = 1) -> EpochReport:
        """As the record of an epoch."""
        return EpochReport(
            epoch,
            self.metrics,
            targets=self.targets,
            unknown=self.unknown,
            sessions=self.n_sessions,
            tied=self.tied,
            conservative=self.conservative,
            stderr=self.stderr,
        )

    @property
    def n_sessions(self) -> int | None:
        """How many sessions have a target that was judged; None where that is not known."""
        return len(np.unique(self.sessions)) if len(self.sessions) else None

    def sample(self, n_sessions: int, objective: Objective | None = None) -> Sample | None:
        """What intervals follow from, in a split of ``n_sessions``."""
        if len(self.ranks):
            of_targets = gains(self.ranks, filter(of_ranks, self.metrics), objective)
            return Sample.of_values(of_targets, self.sessions, n_sessions)
        if not self.values:
            return None
        per_target = len(self.sessions) == self.targets
        units = n_sessions if per_target else len(self.sessions)
        return Sample.of_values(self.values, self.sessions, units)


def metrics_of(ranks: Ranks, at: Sequence[int]) -> dict[str, float]:
    """Recall@k, MRR@k and NDCG@k for each k of ``at``, of targets whose ranks are given."""
    return means(ranks, names_at(at))


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


def evaluate(
    model: Model,
    split: EventArrays,
    n_items: int,
    *,
    at: Sequence[int] = (20,),
    ties: Ties = "standard",
    filter_seen: bool = False,
    also: Sequence[str] = (),
    objective: Objective | None = None,
) -> Evaluation:
    """Rank every target of ``split``, or let a model that has its own evaluation judge itself.

    ``filter_seen`` takes the items of the target's own history out of the candidates; ``also``
    names metrics beside recall, mrr and ndcg at the cut-offs ``at``.

    Raises:
        Diverged: a score or a metric is not finite.
        TrainingError: the split has nothing to predict.
    """
    needs = model.needs(model.params)
    batches = evaluation(split, n_items, model.max_length, ROWS, model.device, needs)
    return judge(
        model,
        batches,
        at=at,
        ties=ties,
        filter_seen=filter_seen,
        also=also,
        objective=objective,
    )


def judge(
    model: Model,
    batches: QueryBatches,
    *,
    at: Sequence[int],
    ties: Ties,
    filter_seen: bool,
    also: Sequence[str] = (),
    objective: Objective | None = None,
) -> Evaluation:
    """:func:`evaluate` on queries that are at hand already; ``objective`` is reported too."""
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
            if metrics is None:
                _check_declared(model, {})
                found = _ranked(model, batches, _names(at, also, objective), ties, filter_seen)
            else:
                _check_declared(model, metrics)
                name = f"{type(model).__name__}.evaluate()"
                found = own_evaluation(name, metrics, batches, objective)
    finally:
        model.train(was_training)
    if len(found.ranks):
        found = _with_errors(found, objective)
    for name, value in found.metrics.items():
        if not math.isfinite(value):
            raise Diverged(f"the metric {name} is {value}")
    seconds = time.perf_counter() - began
    return replace(found, targets=batches.total, unknown=batches.unknown, seconds=seconds)


def own_evaluation(
    who: str,
    given: Mapping[str, float | Tensor],
    batches: QueryBatches,
    objective: Objective | None = None,
) -> Evaluation:
    """What ``who`` reported of itself, on these batches.

    Raises:
        ModelError: values of different things.
    """
    try:
        metrics, values = own_values(given)
    except ValueError as error:
        raise ModelError(f"{who} reports {error}") from None
    if objective is not None and (value := objective.of(metrics)) is not None:
        metrics[objective.metric] = value
        if all(part in values for part in objective.names):
            weighted = [weight * values[part] for weight, part in objective.parts]
            values[objective.metric] = np.sum(weighted, axis=0)
    count = len(next(iter(values.values()), ()))
    units = np.arange(count)
    if count and count == batches.total:
        each = [_sessions(batch, batches.store.offsets) for batch in queries(batches)]
        units = np.concatenate(each)
    errors = standard_errors(values, units)
    return Evaluation(
        metrics, batches.total, 0, 0.0, np.zeros(0), units, stderr=errors, values=values
    )


def _check_declared(model: Model, given: Mapping[str, float | Tensor]) -> None:
    """Raises :class:`ModelError` if a metric that the model declares is missing."""
    name = type(model).__name__
    if missing := [metric.name for metric in model.METRICS if metric.name not in given]:
        raise ModelError(f"{name}.evaluate() reports no {missing[0]}, which {name} declares")


def own_values(given: Mapping[str, float | Tensor]) -> tuple[dict[str, float], dict[str, Ranks]]:
    """A model's own metrics as numbers, and the values [n] of those that it gave as such.

    Raises:
        ValueError: numbers of values that differ; one clause.
    """
    metrics: dict[str, float] = {}
    values: dict[str, Ranks] = {}
    for name, value in given.items():
        if isinstance(value, Tensor) and value.dim():
            values[name] = value.detach().double().flatten().cpu().numpy()
            metrics[name] = float(values[name].mean()) if len(values[name]) else math.nan
        else:
            metrics[name] = float(value)
    by_size = sorted(values, key=lambda name: len(values[name]))
    if values and len(values[by_size[0]]) != len(values[by_size[-1]]):
        told = [f"{len(values[name])} values of {name}" for name in (by_size[0], by_size[-1])]
        raise ValueError(" and ".join(told))
    return metrics, values


def _names(at: Sequence[int], also: Sequence[str], objective: Objective | None) -> list[str]:
    return names_at(at, [*also, *(objective.names if objective else ())])


def _ranked(
    model: Model, batches: QueryBatches, names: Sequence[str], ties: Ties, filter_seen: bool
) -> Evaluation:
    depth = math.inf if needs_all_ranks(names) else float(deepest(names))
    cutoffs = [k for word, k in map(split, names) if word == COVERAGE and k]
    covered = Covered(model.catalogue.n_items, model.device, cutoffs)
    all_of_them = ties != "standard" or batches.total <= FEW or scores_itself(model)
    stride = 1 if all_of_them else STRIDE
    counts, sessions = _counts(model, batches, depth, stride, filter_seen, covered)
    if not counts.complete and counts.tied(depth) > NOTICEABLE / 2:
        counts, sessions = _counts(model, batches, depth, 1, filter_seen, None)
    tied = counts.tied(depth)
    ranks = counts.ranks(ties, depth)
    by_rank = [name for name in names if not name.startswith(COVERAGE)]
    conservative: dict[str, float] = {}
    if tied > NOTICEABLE and counts.complete:
        conservative = means(counts.ranks("conservative", depth), by_rank) | covered.metrics()
    found = means(ranks, by_rank) | covered.metrics()
    return Evaluation(found, 0, 0, 0.0, ranks, sessions, tied, conservative)


def _with_errors(found: Evaluation, objective: Objective | None) -> Evaluation:
    """With a sum's value, and every metric's standard error."""
    metrics, conservative = dict(found.metrics), dict(found.conservative)
    of_targets = gains(found.ranks, filter(of_ranks, metrics), objective)
    if objective is not None and objective.metric not in metrics:
        for values in filter(None, (metrics, conservative)):
            if (value := objective.of(values)) is not None:
                values[objective.metric] = value
    stderr = standard_errors(of_targets, found.sessions)
    return replace(found, metrics=metrics, conservative=conservative, stderr=stderr)


def gains(
    ranks: Ranks, names: Iterable[str], objective: Objective | None = None
) -> dict[str, Ranks]:
    """What each target [T] adds to each metric, and to a sum if that is made of such."""
    found = {name: gain(name, ranks) for name in names}
    if objective is not None and all(name in found for name in objective.names):
        weighted = [weight * found[name] for weight, name in objective.parts]
        found.setdefault(objective.metric, np.sum(weighted, axis=0))
    return found


def _counts(
    model: Model,
    batches: QueryBatches,
    depth: float,
    stride: int,
    filter_seen: bool,
    covered: Covered | None,
) -> tuple[Counts, NDArray[np.int64]]:
    """Of every target how many beat it, exact up to ``depth``, and its session."""
    table, bias = (None, None) if scores_itself(model) else model.item_table()
    screen: RankScreen | None = None
    found, sessions = [], []
    for batch in queries(batches):
        wanted = batch.targets[batch.targets >= 0]
        exclude = seen_items(batch.histories, batches.store.items) if filter_seen else None
        sessions.append(_sessions(batch, batches.store.offsets))
        if table is None:
            if covered is not None:
                covered.add(scores_of(model, batch), exclude)
            scores = scores_of(model, batch)
            found.append(count_scores(scores, wanted, stride=stride, exclude=exclude))
            continue
        vectors = model.encode(batch)
        if covered is not None:
            covered.add(products(vectors.float(), table.float(), bias), exclude)
        given = kernels() if screen is None else None
        if given is not None and screens(vectors, table, bias, depth):
            screen = RankScreen(given, table, bias, int(depth), vectors, wanted)
        if screen is None:
            found.append(count(vectors, wanted, table, bias, stride=stride, exclude=exclude))
        else:
            found.append(_screened(screen, vectors, wanted, exclude))
    counts = Counts(
        np.concatenate([one.above for one in found]),
        np.concatenate([one.at_least for one in found]),
    )
    return counts, np.concatenate(sessions)


def _sessions(batch: Queries, offsets: Tensor) -> NDArray[np.int64]:
    """The session of each target [targets]."""
    begins = batch.histories[:, 0].contiguous()
    found: NDArray[np.int64] = (torch.searchsorted(offsets, begins, right=True) - 1).cpu().numpy()
    return found


class Covered:
    """Which items are among the first k of at least one target, for each of some cut-offs."""

    def __init__(self, n_items: int, device: torch.device, cutoffs: Sequence[int]) -> None:
        self.cutoffs = [min(k, n_items) for k in cutoffs]
        self.names = [f"{COVERAGE}@{k}" for k in cutoffs]
        self.seen = torch.zeros(len(cutoffs), n_items, dtype=torch.bool, device=device)

    def add(self, chunks: Iterable[Tensor], exclude: tuple[Tensor, Tensor] | None) -> None:
        """Take note of what scores [T, N], in chunks of rows, recommend."""
        if not self.cutoffs:
            return
        begin = 0
        for scores in chunks:
            if exclude is not None:
                exclude_items(scores, begin, *exclude)
            begin += len(scores)
            top = scores.topk(max(self.cutoffs), dim=1).indices
            for row, k in enumerate(self.cutoffs):
                self.seen[row, top[:, :k].reshape(-1)] = True

    def metrics(self) -> dict[str, float]:
        """The share of all items, by name."""
        shares = self.seen.double().mean(1).tolist()
        return dict(zip(self.names, shares, strict=True))


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
