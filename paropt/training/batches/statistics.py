"""What a training split alone says of its items, as numbers that models may read like features.

Nothing of valid or test is in them: a view's statistics are those of the split that it trains on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.training.registry import STATISTICS

if TYPE_CHECKING:
    from paropt.data.dataset import View

PRIOR = 5  # events of the mean share that every item's share begins with
MOST_VALUES = 16  # of a column whose shares are told
DAY = 86_400_000  # milliseconds

Read = Callable[[int], NDArray[np.float32]]


def statistics(view: View) -> Mapping[str, Read]:
    """By name, what gives the statistic of the first n items [n] float32, NaN where unknown.

    ``stats.events`` is log(1 + events), ``stats.quantile`` the share of items with fewer events;
    where there are times, ``stats.recency`` and ``stats.age`` are log(1 + days) from an item's last
    and first event to the split's end. ``stats.COLUMN.VALUE`` is the share of an item's events with
    a value of a column of events, drawn to the share of all by :data:`PRIOR` events.
    """
    found: dict[str, Read] = {"events": partial(_events, view), "quantile": partial(_rank, view)}
    if view.dataset.has_times:
        found["recency"] = partial(_days, view, np.maximum)
        found["age"] = partial(_days, view, np.minimum)
    for name, field in view.dataset.fields("events").items():
        if field.kind == "category" and field.size <= MOST_VALUES:
            for code, value in enumerate(field.vocabulary):
                if "+" not in f"{name}{value}":  # it joins names in a parameter
                    found[f"{name}.{value}"] = partial(_share, view, name, code)
    return {STATISTICS + name: read for name, read in found.items()}


def of_new_items(name: str, known: Tensor, support: Tensor, count: int) -> Tensor:
    """A statistic of items without an event [count], as those of the view are, from what a saved
    model has of the items that it knows: ``known`` [n_items], with their ``support``."""
    kind = name.removeprefix(STATISTICS)
    if kind in ("events", "quantile"):
        return torch.zeros(count)
    if kind in ("recency", "age"):
        return torch.full((count,), torch.nan)
    # each share is (its own + PRIOR · mean) / (events + PRIOR)
    weight = support.double() + PRIOR
    mean = float((known.double() * weight).sum() / weight.sum())
    return torch.full((count,), mean)


def _counts(items: NDArray[Any], n_rows: int) -> NDArray[np.int64]:
    return np.bincount(items, minlength=n_rows)[:n_rows]


def _events(view: View, n_rows: int) -> NDArray[np.float32]:
    return np.log1p(_counts(view.train.items, n_rows)).astype(np.float32)


def _rank(view: View, n_rows: int) -> NDArray[np.float32]:
    support = np.sort(view.support())
    below = np.searchsorted(support, _counts(view.train.items, n_rows), side="left")
    return (below / max(1, len(support))).astype(np.float32)


def _days(view: View, extreme: np.ufunc, n_rows: int) -> NDArray[np.float32]:
    """From the last or first event of each item to the end of the split."""
    items, times = view.train.items, np.asarray(view.train.times)
    if not len(items):
        return np.full(n_rows, np.nan, np.float32)
    worst = times.min() if extreme is np.maximum else times.max()
    at = np.full(max(n_rows, int(items.max()) + 1), worst, np.int64)
    extreme.at(at, items, times)
    days = np.log1p((times.max() - at[:n_rows]) / DAY)
    return np.where(_counts(items, n_rows) > 0, days, np.nan).astype(np.float32)


def _share(view: View, column: str, code: int, n_rows: int) -> NDArray[np.float32]:
    items, codes = view.train.items, view.train.columns[column]
    told = codes >= 0
    has = codes == code
    mean = has.sum() / max(1, told.sum())
    with_it, known = _counts(items[has], n_rows), _counts(items[told], n_rows)
    return np.asarray((with_it + PRIOR * mean) / (known + PRIOR), np.float32)
