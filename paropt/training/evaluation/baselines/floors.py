"""Floors: what popularity and co-occurrence reach on the same targets, beside every model.

*Popularity* scores an item by its number of events in training. *Co-occurrence* scores it by how
often it came directly after the last item of the prefix (a first-order Markov chain); items that
never did, and items that did equally often, are told apart by their popularity: without that, any
unseen successor of an item with three followers would take rank 4 under ``standard`` ties, for
nothing.

Everything is counted in sorted arrays: memory is a few arrays of the training split's length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paropt.training.batches.events import Events, Ints, known_events
from paropt.training.batches.plans import ranges
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import Ties
from paropt.training.evaluation.ranking.ranks import Ranks, place
from paropt.training.metrics import means, names_at, of_ranks

if TYPE_CHECKING:
    from paropt.data.dataset import View

CHUNK = 1 << 16  # targets whose histories are looked up at once


@dataclass(frozen=True)
class Questions:
    """Targets with what a floor may look at: [T] ``items`` to predict, ``previous`` item of each,
    and of everything seen before: the ``seen_rows`` and ``seen_items``, each pair once."""

    items: Ints
    previous: Ints
    seen_rows: Ints
    seen_items: Ints


def floors(
    view: View,
    at: Sequence[int] = (20,),
    ties: Ties = "standard",
    filter_seen: bool = False,
    also: Sequence[str] = (),
    objective: Objective | None = None,
) -> dict[str, dict[str, float]]:
    """Metrics of popularity and co-occurrence on the view's evaluation split, by their names.

    Coverage is none of them. A split without a target that can be predicted gives an empty dict for
    each.
    """
    wanted = [*also, *(objective.names if objective else ())]
    names = [name for name in names_at(at, wanted) if of_ranks(name)]
    found = {
        floor: means(ranks, names) if len(ranks) else {}
        for floor, ranks in floor_ranks(view, ties, filter_seen).items()
    }
    for values in found.values():
        if objective is not None and (value := objective.of(values)) is not None:
            values[objective.metric] = value
    return found


def floor_ranks(view: View, ties: Ties = "standard", filter_seen: bool = False) -> dict[str, Ranks]:
    """Each floor's ranks of the view's targets, in the order of their positions among the known
    events."""
    train = known_events(view.train, view.n_items)
    test = known_events(view.test, view.n_items)
    popularity = Popularity(train, view.n_items)
    cooccurrence = Cooccurrence(train, popularity)
    return {
        "popularity": _judge(popularity, test, ties, filter_seen),
        "cooccurrence": _judge(cooccurrence, test, ties, filter_seen),
    }


def _judge(
    floor: Popularity | Cooccurrence, events: Events, ties: Ties, filter_seen: bool
) -> Ranks:
    positions, sessions = events.queries()
    ranks = []
    for begin in range(0, len(positions), CHUNK):
        asked = _questions(
            events, positions[begin : begin + CHUNK], sessions[begin : begin + CHUNK], filter_seen
        )
        above, at_least = floor.counts(asked)
        ranks.append(place(above.astype(np.float64), at_least.astype(np.float64), ties))
    return np.concatenate(ranks) if ranks else np.zeros(0)


def _questions(events: Events, positions: Ints, sessions: Ints, filter_seen: bool) -> Questions:
    items = events.items[positions].astype(np.int64)
    previous = events.items[positions - 1].astype(np.int64)
    none = np.zeros(0, dtype=np.int64)
    if not filter_seen:
        return Questions(items, previous, none, none)
    sizes = positions - sessions
    rows = np.repeat(np.arange(len(positions)), sizes)
    seen = events.items[np.repeat(sessions, sizes) + ranges(sizes)].astype(np.int64)
    other = seen != items[rows]
    pairs = np.unique(np.stack([rows[other], seen[other]]), axis=1)
    return Questions(items, previous, pairs[0], pairs[1])


class Popularity:
    """Scores every item by its number of training events."""

    def __init__(self, train: Events, n_items: int) -> None:
        self.support = np.bincount(train.items, minlength=n_items)
        self.ladder = np.sort(self.support)

    def counts(self, asked: Questions) -> tuple[Ints, Ints]:
        """How many candidates score higher than each target, and how many at least as high."""
        own = self.support[asked.items]
        above, at_least = _beyond(self.ladder, len(self.ladder), own)
        seen = self.support[asked.seen_items]
        theirs = own[asked.seen_rows]
        return (
            above - _per_row(asked, seen > theirs),
            at_least - _per_row(asked, seen >= theirs),
        )


class Cooccurrence:
    """Scores b after a by how often b followed a in training, then by b's popularity."""

    def __init__(self, train: Events, popularity: Popularity) -> None:
        self.popularity = popularity
        self.n_items = n_items = len(popularity.support)
        follows = np.ones(len(train.items), dtype=bool)
        follows[train.offsets[:-1][np.diff(train.offsets) > 0]] = False
        after = np.flatnonzero(follows)
        # every pair once, a·n + b ascending, so that a's followers lie together
        pairs, times = np.unique(
            train.items[after - 1] * np.int64(n_items) + train.items[after], return_counts=True
        )
        rows, followers = np.divmod(pairs, n_items)
        self.edges = np.searchsorted(rows, np.arange(n_items + 1))
        support = popularity.support[followers]
        # dense grades keep row · grades + grade within 64 bits
        by_both = np.lexsort((support, times))
        changes = (np.diff(times[by_both]) != 0) | (np.diff(support[by_both]) != 0)
        grades = np.empty(len(by_both), dtype=np.int64)
        grades[by_both] = np.concatenate(([0], np.cumsum(changes)))[: len(by_both)]
        self.n_grades = len(by_both) + 1
        self.by_grade = np.sort(rows * self.n_grades + grades)
        # a last pair that nothing is, for those that are looked up and not found
        self.pairs = np.append(pairs, n_items * n_items)
        self.times, self.grades = np.append(times, 0), np.append(grades, 0)
        _, self.pop_grades = np.unique(popularity.support, return_inverse=True)
        self.by_popularity = np.sort(rows * n_items + self.pop_grades[followers])

    def counts(self, asked: Questions) -> tuple[Ints, Ints]:
        """How many candidates score higher than each target, and how many at least as high."""
        a, b = asked.previous, asked.items
        end, size = self.edges[a + 1], self.edges[a + 1] - self.edges[a]
        found, index = self._find(a, b)
        followed = _beyond(self.by_grade, end, a * self.n_grades + self.grades[index])
        # not a follower of a: behind all followers, among the others by popularity
        popular = _beyond(self.popularity.ladder, self.n_items, self.popularity.support[b])
        ahead = _beyond(self.by_popularity, end, a * self.n_items + self.pop_grades[b])
        above, at_least = (
            np.where(found, f, size + p - q)
            for f, p, q in zip(followed, popular, ahead, strict=True)
        )
        higher, as_high = self._seen(asked, found, index)
        return above - higher, at_least - as_high

    def _seen(self, asked: Questions, found: NDArray[np.bool_], index: Ints) -> tuple[Ints, Ints]:
        rows = asked.seen_rows
        their_found, their_index = self._find(asked.previous[rows], asked.seen_items)
        own = np.where(found, self.times[index], 0)[rows]
        theirs = np.where(their_found, self.times[their_index], 0)
        own_support = self.popularity.support[asked.items][rows]
        support = self.popularity.support[asked.seen_items]
        same = theirs == own
        return (
            _per_row(asked, (theirs > own) | (same & (support > own_support))),
            _per_row(asked, (theirs > own) | (same & (support >= own_support))),
        )

    def _find(self, a: Ints, b: Ints) -> tuple[NDArray[np.bool_], Ints]:
        """Whether b ever followed a, and where among the pairs (anywhere if not)."""
        key = a * np.int64(self.n_items) + b
        index = np.searchsorted(self.pairs, key)
        return self.pairs[index] == key, index


def _beyond(ladder: Ints, end: Ints | int, value: Ints) -> tuple[Ints, Ints]:
    """How many of ``ladder`` before ``end`` are above ``value``, and how many at least it."""
    return (
        end - np.searchsorted(ladder, value, side="right"),
        end - np.searchsorted(ladder, value, side="left"),
    )


def _per_row(asked: Questions, ones: NDArray[np.bool_]) -> Ints:
    return np.bincount(asked.seen_rows[ones], minlength=len(asked.items))
