"""A model judged on a split: ranks of the right next item, or what it says of itself; metrics."""

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
from paropt.training.batches.events import EventArrays
from paropt.training.batches.plans import Queries, QueryBatches, evaluation
from paropt.training.evaluation.bootstrap import Sample, standard_errors
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.objective import NOTICEABLE, Objective
from paropt.training.evaluation.protocol import Ties
from paropt.training.evaluation.ranking.beyond import Recommended
from paropt.training.evaluation.ranking.measures import of_model
from paropt.training.evaluation.ranking.ranks import (
    FEW,
    STRIDE,
    Counts,
    Ranks,
    _screened,
    count,
    count_scores,
    products,
    scores_of,
    screens,
)
from paropt.training.evaluation.ranking.screening import RankScreen
from paropt.training.metrics import (
    deepest,
    gain,
    is_beyond,
    is_measure,
    means,
    names_at,
    needs_all_ranks,
    of_ranks,
)
from paropt.training.registry import Model, SequenceBatch, kernels, scores_itself

ROWS = 1024  # windows of one encoded batch


@dataclass(frozen=True)
class Evaluation:
    """``metrics`` by name ("mrr@20"), over ``targets`` predictions; ``unknown`` more were left
    out because training never saw their item. ``ranks`` [targets] float64 start at 1, in no
    particular order, and those beyond every k of the metrics may be infinite; ``sessions``
    [targets] int64 are those of the split that they belong to. Where a model judged itself, there
    are no ranks, and ``values`` [values] by metric are what its metrics are the means of, if it
    says; ``sessions`` [values] then say which of them hang together. ``tied``, ``conservative``
    and ``stderr`` are as :class:`paropt.training.evaluation.epochs.EpochReport` has them."""

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
    names metrics beside recall, mrr and ndcg at the cut-offs ``at``, and measures of the model.

    Raises:
        Diverged: a score or a metric is not finite.
        TrainingError: the split has nothing to predict.
    """
    needs = model.needs(model.params)
    batches = evaluation(split, n_items, model.max_length, ROWS, model.device, needs)
    found = judge(
        model,
        batches,
        at=at,
        ties=ties,
        filter_seen=filter_seen,
        also=[name for name in also if not is_measure(name)],
        objective=objective,
    )
    costs = of_model(model, batches, filter(is_measure, also))
    return replace(found, metrics={**found.metrics, **costs})


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
            metrics = _own_metrics(model, batches)
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


def _own_metrics(model: Model, batches: QueryBatches) -> Mapping[str, float | Tensor] | None:
    try:
        return model.evaluate(batches)
    except ValueError as error:
        raise TrainingError(f"{type(model).__name__} cannot judge itself: {error}") from error


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
    recommended = Recommended(model.catalogue.support, model.device, filter(is_beyond, names))
    all_of_them = ties != "standard" or batches.total <= FEW or scores_itself(model)
    stride = 1 if all_of_them else STRIDE
    counts, sessions = _counts(model, batches, depth, stride, filter_seen, recommended)
    if not counts.complete and counts.tied(depth) > NOTICEABLE / 2:
        counts, sessions = _counts(model, batches, depth, 1, filter_seen, None)
    tied = counts.tied(depth)
    ranks = counts.ranks(ties, depth)
    by_rank = [name for name in names if not is_beyond(name)]
    beyond = recommended.metrics()
    conservative: dict[str, float] = {}
    if tied > NOTICEABLE and counts.complete:
        conservative = means(counts.ranks("conservative", depth), by_rank) | beyond
    found = means(ranks, by_rank) | beyond
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
    recommended: Recommended | None,
) -> tuple[Counts, NDArray[np.int64]]:
    """Of every target how many beat it, exact up to ``depth``, and its session."""
    table, bias = (None, None) if scores_itself(model) else model.item_table()
    screen: RankScreen | None = None
    found, sessions = [], []
    for batch in queries(batches):
        if recommended is not None:
            recommended.remember(batch.histories, batches.store.items)
        wanted = batch.targets[batch.targets >= 0]
        exclude = seen_items(batch.histories, batches.store.items) if filter_seen else None
        sessions.append(_sessions(batch, batches.store.offsets))
        if table is None:
            if recommended is not None:
                recommended.add(scores_of(model, batch), exclude)
            scores = scores_of(model, batch)
            found.append(count_scores(scores, wanted, stride=stride, exclude=exclude))
            continue
        vectors = model.encode(batch)
        if recommended is not None:
            recommended.add(products(vectors.float(), table.float(), bias), exclude)
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
