"""What a model costs: how large it is, and how long one recommendation takes.

======================  ==========================================================================
``parameters``          numbers that are trained
``model_bytes``         of its weights on disk, all of its state
``latency_ms``          milliseconds of one recommendation, see :func:`latency_ms`
``peak_memory``         megabytes (10⁶ bytes) at most during its training, of the device; of the
                        trainer's process on a CPU
``seconds_per_epoch``   of training and ranking, the mean over the epochs
======================  ==========================================================================

The first three are of the model, the others of its training
(:func:`paropt.training.evaluation.epochs.costs`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from torch import Tensor

from paropt.training.batches.events import Events
from paropt.training.batches.plans import Queries, QueryBatches, query_batches
from paropt.training.evaluation.ranking.ranks import products, scores_of
from paropt.training.registry import Model, scores_itself

EVENTS = 20  # of the session that is answered
SHOWN = 20  # items of the answer
WARM_UP, TIMED = 5, 31
LONGEST = 10.0  # seconds, after which fewer have to do


def sizes(model: Model, names: Iterable[str]) -> dict[str, float]:
    """Those of ``names`` that are known before any training."""
    found: dict[str, Callable[[], float]] = {
        "parameters": lambda: sum(p.numel() for p in model.parameters()),
        "model_bytes": lambda: sum(t.nbytes for t in model.state_dict().values()),
    }
    return {name: float(found[name]()) for name in names if name in found}


def of_model(model: Model, batches: QueryBatches, names: Iterable[str]) -> dict[str, float]:
    """Those of ``names`` that are of a model, ready to answer what an evaluation asks."""
    names = list(names)
    found = sizes(model, names)
    return {**found, "latency_ms": latency_ms(model, batches)} if "latency_ms" in names else found


def latency_ms(model: Model, batches: QueryBatches) -> float:
    """The median time of one recommendation on the model's device, in milliseconds.

    One session of :data:`EVENTS` events (the first of those in ``batches``, as if they were one
    session's) is encoded, every item scored, and the best :data:`SHOWN` brought back; after
    :data:`WARM_UP` times that do not count, the median of :data:`TIMED`. One thread, one session at
    a time; the table of items is worked out once, before, as a server would.
    """
    batch = _one_session(model, batches)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _one_thread():
            table = None if scores_itself(model) else _float(model.item_table())
            return 1000 * _median(lambda: _recommend(model, batch, table))
    finally:
        model.train(was_training)


def _median(act: Callable[[], object]) -> float:
    for _ in range(WARM_UP):
        act()
    took: list[float] = []
    while len(took) < TIMED and sum(took) < LONGEST:
        began = time.perf_counter()
        act()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _recommend(
    model: Model, batch: Queries, table: tuple[Tensor, Tensor | None] | None
) -> list[int]:
    if table is None:
        scores = torch.cat([part.clone() for part in scores_of(model, batch)])
    else:
        scores = next(products(model.encode(batch).float(), *table))
    found: list[int] = scores[-1].topk(min(SHOWN, scores.shape[1])).indices.tolist()
    return found


def _float(table: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    return table[0].float(), table[1]


def _one_session(model: Model, batches: QueryBatches) -> Queries:
    """The first events of an evaluation as one session, whose last event is asked for."""
    store, length = batches.store, EVENTS + 1
    at = np.arange(length) % len(store.items)
    times = np.maximum.accumulate(store.times.cpu().numpy()[at])
    events = Events(
        items=store.items.cpu().numpy()[at],
        times=times,
        targets=np.arange(length) == length - 1,
        offsets=np.array([0, length]),
        columns={name: column.cpu().numpy()[at] for name, column in store.columns.items()},
        users=None if store.users is None else store.users[:1].cpu().numpy().astype(np.int32),
    )
    one = query_batches(events, model.max_length, 1, model.device, store.wanted)
    return cast(Queries, one[0])


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
