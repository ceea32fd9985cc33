"""A target among 99 items that are drawn, as many earlier papers and programs judge: for comparison
with their numbers only.

Such numbers say little of ranks in a whole catalogue (Krichene & Rendle, KDD 2020), and rise by
popularity alone: drawn uniformly, most of the 99 are items that hardly anybody knows. So popularity
among the same candidates stands beside them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.errors import ModelError, TrainingError
from paropt.training.batches.events import EventArrays
from paropt.training.batches.plans import Queries, QueryBatches, evaluation
from paropt.training.evaluation.bootstrap import standard_errors
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import SAMPLED, Ties
from paropt.training.evaluation.ranking.judging import ROWS, Evaluation, gains
from paropt.training.evaluation.ranking.ranks import place, products, scores_of
from paropt.training.metrics import is_beyond, is_measure, means, names_at
from paropt.training.registry import Model, scores_itself

DRAWN = 99
SEED = 20231  # the same candidates for every model


def evaluate_sampled(
    model: Model,
    split: EventArrays,
    n_items: int,
    *,
    at: Sequence[int],
    also: Sequence[str] = (),
    objective: Objective | None = None,
    ties: Ties = "standard",
    filter_seen: bool = False,
) -> tuple[Evaluation, dict[str, dict[str, float]]]:
    """The model's ranks among 100 candidates, and the metrics of popularity among the same.

    ``filter_seen``: no item of the target's history is drawn; else it may be.

    Raises:
        TrainingError: the split has nothing to predict.
        ModelError: the model judges itself.
    """
    began = time.perf_counter()
    needs = model.needs(model.params)
    batches = evaluation(split, n_items, model.max_length, ROWS, model.device, needs)
    if batches.total == 0:
        raise TrainingError("there is nothing to predict: no target's item is known from training")
    if type(model).METRICS:
        raise ModelError(f"{type(model).__name__} judges itself, which needs no {SAMPLED}")
    asked = names_at(at, [*also, *(objective.names if objective else ())])
    names = [name for name in asked if not is_beyond(name) and not is_measure(name)]
    model.eval()
    with torch.no_grad():
        found = list(_batches(model, batches, ties, filter_seen))
    ranks, popular, sessions = (np.concatenate(parts) for parts in zip(*found, strict=True))
    of_targets = gains(ranks, names, objective)
    metrics, floor = means(ranks, names), means(popular, names)
    if objective is not None:
        for values in (metrics, floor):
            if (value := objective.of(values)) is not None:
                values[objective.metric] = value
    judged = Evaluation(
        metrics,
        batches.total,
        batches.unknown,
        time.perf_counter() - began,
        ranks,
        sessions,
        stderr=standard_errors(of_targets, sessions),
    )
    return judged, {"popularity": floor}


def _batches(
    model: Model, batches: QueryBatches, ties: Ties, filter_seen: bool
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]]:
    """Ranks, those of popularity, and sessions of each batch's targets."""
    table, bias = (None, None) if scores_itself(model) else model.item_table()
    support = model.catalogue.support.to(model.device).float()
    for each in batches:
        batch = cast(Queries, each)
        candidates, there = drawn(batch, batches, len(support), filter_seen)
        scores = []
        chunks = (
            scores_of(model, batch)
            if table is None
            else products(model.encode(batch).float(), table.float(), bias)
        )
        begin = 0
        for chunk in chunks:
            scores.append(chunk.gather(1, candidates[begin : begin + len(chunk)]))
            begin += len(chunk)
        begins = batch.histories[:, 0].contiguous()
        sessions = torch.searchsorted(batches.store.offsets, begins, right=True) - 1
        yield (
            _ranks(torch.cat(scores), there, ties),
            _ranks(support[candidates], there, ties),
            sessions.cpu().numpy(),
        )


def _ranks(scores: Tensor, there: Tensor, ties: Ties) -> NDArray[np.float64]:
    """Of the first of each row [T, 1 + 99], among those that are there."""
    own, others = scores[:, :1], scores[:, 1:]
    above = ((others > own) & there).sum(1).double().cpu().numpy()
    at_least = 1 + ((others >= own) & there).sum(1).double().cpu().numpy()
    return place(above, at_least, ties)


def drawn(
    batch: Queries, batches: QueryBatches, n_items: int, filter_seen: bool
) -> tuple[Tensor, Tensor]:
    """Candidates [T, 100] of a batch's targets, the target first, then others, each once; and
    which of the 99 there are [T, 99]: a small catalogue may have fewer.

    They follow from where the target stands in the log alone.
    """
    items = batches.store.items.cpu().numpy()
    targets = batch.targets[batch.targets >= 0].cpu().numpy()
    found = np.repeat(targets[:, None], 1 + DRAWN, 1)
    there = np.zeros((len(targets), DRAWN), bool)
    for row, (begin, at) in enumerate(batch.histories.tolist()):
        taken = {int(targets[row])}
        if filter_seen:
            taken |= set(items[begin:at].tolist())
        others = _others(n_items, taken, at)
        found[row, 1 : 1 + len(others)] = others
        there[row, : len(others)] = True
    device = batch.targets.device
    return torch.from_numpy(found).to(device), torch.from_numpy(there).to(device)


def _others(n_items: int, taken: set[int], at: int) -> list[int]:
    """Up to 99 items that are not taken, by (SEED, at)."""
    stream = np.random.Philox(key=[SEED, at])
    if n_items - len(taken) <= 2 * DRAWN:
        left = np.array([item for item in range(n_items) if item not in taken], np.int64)
        order = np.argsort(stream.random_raw(len(left)), kind="stable")
        return [int(item) for item in left[order[:DRAWN]]]
    found: dict[int, None] = {}
    while len(found) < DRAWN:
        for raw in stream.random_raw(2 * DRAWN).tolist():
            item = raw % n_items  # the bias is below 1e-12 for a million items
            if item not in taken and len(found) < DRAWN:
                found[item] = None
    return list(found)
