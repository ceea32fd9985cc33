"""Session k-NN: what the most similar earlier sessions went on with (Jannach & Ludewig 2017).

A prefix is compared with training sessions by the cosine of their sets of items. Of the sessions
that share an item with it, the :data:`SAMPLE` latest are looked at, and the :data:`NEIGHBOURS` most
similar of them vote for their items, each with its similarity. Items with equally many votes, and
all those without any, are told apart by popularity (floors.py).

Without training it is as strong as many neural models (Ludewig & Jannach 2018), so it belongs
beside a final number. Work is done in chunks of targets: memory is the index of the training split
and about :data:`ENTRIES` pairs, whatever the number of targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from paropt.training.batches.events import Events, Ints, known_events
from paropt.training.batches.plans import ranges
from paropt.training.evaluation.protocol import Ties
from paropt.training.evaluation.ranking.ranks import Ranks, place

if TYPE_CHECKING:
    from paropt.data.dataset import View

NEIGHBOURS = 100
SAMPLE = 500
ENTRIES = 2_000_000  # pairs of a target and a session, or of a target and an item, held at once
_UNIT = 1 << 40  # similarities are summed as whole numbers, so that equal votes are equal


class SessionKnn:
    """The index of a training split, and the ranks that its sessions' votes give."""

    def __init__(
        self, train: Events, n_items: int, *, neighbours: int = NEIGHBOURS, sample: int = SAMPLE
    ) -> None:
        self.n_items, self.neighbours, self.sample = n_items, neighbours, sample
        self.support = np.bincount(train.items, minlength=n_items)
        self.ladder = np.sort(self.support)
        sessions = np.repeat(np.arange(len(train.offsets) - 1), np.diff(train.offsets))
        pairs = np.unique(sessions * np.int64(n_items) + train.items)
        self.n_sessions = len(train.offsets) - 1
        rows, self.items = np.divmod(pairs, n_items)
        self.edges = np.searchsorted(rows, np.arange(self.n_sessions + 1))
        self.sizes = np.diff(self.edges)
        by_item = np.argsort(self.items, kind="stable")  # sessions of an item, the latest last
        self.sessions_of = rows[by_item]
        self.item_edges = np.searchsorted(self.items[by_item], np.arange(n_items + 1))

    def ranks(self, events: Events, ties: Ties = "standard", filter_seen: bool = False) -> Ranks:
        """The rank of every target of ``events`` that has a prefix, in the order of positions.

        ``filter_seen``: items of the prefix are no candidates, but for the target.
        """
        positions, begins = events.queries()
        found = [
            self._chunk(events, positions[cut], begins[cut], ties, filter_seen)
            for cut in self._cuts(positions - begins)
        ]
        return np.concatenate(found) if found else np.zeros(0)

    def _cuts(self, lengths: Ints) -> Iterator[slice]:
        """Stretches of targets whose pairs fit the bound, at least one target each."""
        # long sessions are met more often: their mean size, weighted by size
        size = float((self.sizes.astype(np.float64) ** 2).sum() / max(self.sizes.sum(), 1))
        sharing = np.minimum(lengths, self.n_items) * self.sample
        most = np.maximum(sharing, int(self.neighbours * size) + 1)
        after = np.cumsum(most)
        begin = 0
        while begin < len(lengths):
            spent = after[begin - 1] if begin else 0
            end = max(int(np.searchsorted(after, spent + ENTRIES, side="right")), begin + 1)
            yield slice(begin, end)
            begin = end

    def _chunk(
        self, events: Events, positions: Ints, begins: Ints, ties: Ties, filter_seen: bool
    ) -> Ranks:
        seen_rows, seen_items, sizes = self._prefixes(events, positions, begins)
        rows, sessions, similar = self._neighbours(seen_rows, seen_items, sizes)
        rows, items, votes = self._votes(rows, sessions, similar)
        targets = events.items[positions].astype(np.int64)
        other = seen_items != targets[seen_rows]
        gone = seen_rows[other], seen_items[other]
        if not filter_seen:
            gone = gone[0][:0], gone[1][:0]
        else:
            kept = ~np.isin(rows * np.int64(self.n_items) + items, gone[0] * self.n_items + gone[1])
            rows, items, votes = rows[kept], items[kept], votes[kept]
        return self._place(targets, rows, items, votes, gone, ties)

    def _prefixes(self, events: Events, positions: Ints, begins: Ints) -> tuple[Ints, Ints, Ints]:
        """(target, item) for every item before each target, once, and how many each target has."""
        lengths = positions - begins
        rows = np.repeat(np.arange(len(positions)), lengths)
        seen = events.items[np.repeat(begins, lengths) + ranges(lengths)]
        rows, items = np.divmod(np.unique(rows * np.int64(self.n_items) + seen), self.n_items)
        return rows, items, np.bincount(rows, minlength=len(positions))

    def _neighbours(self, rows: Ints, items: Ints, sizes: Ints) -> tuple[Ints, Ints, Ints]:
        """(target, session, similarity) of the neighbours.

        An item's ``sample`` latest sessions are enough: a session that is not among them has at
        least so many later ones that share this item.
        """
        ends = self.item_edges[items + 1]
        taken = np.minimum(ends - self.item_edges[items], self.sample)
        asked = np.repeat(rows, taken)
        sharing = self.sessions_of[np.repeat(ends - taken, taken) + ranges(taken)]
        pairs, shared = np.unique(asked * np.int64(self.n_sessions) + sharing, return_counts=True)
        asked, sharing = np.divmod(pairs, self.n_sessions)
        latest = _rank_in_row(asked, len(sizes)) < self.sample
        asked, sharing, shared = asked[latest], sharing[latest], shared[latest]
        cosine = shared / np.sqrt(sizes[asked] * self.sizes[sharing])
        similar = np.rint(cosine * _UNIT).astype(np.int64)
        order = np.lexsort((sharing, similar, asked))  # of equally similar ones the later first
        near = order[_rank_in_row(asked[order], len(sizes)) < self.neighbours]
        return asked[near], sharing[near], similar[near]

    def _votes(self, rows: Ints, sessions: Ints, similar: Ints) -> tuple[Ints, Ints, Ints]:
        """(target, item, votes) of every item of a neighbour."""
        sizes = self.sizes[sessions]
        voted = self.items[np.repeat(self.edges[sessions], sizes) + ranges(sizes)]
        pairs = np.repeat(rows, sizes) * np.int64(self.n_items) + voted
        order = np.argsort(pairs, kind="stable")
        pairs = pairs[order]
        first = np.flatnonzero(np.diff(pairs, prepend=-1))
        votes = np.add.reduceat(np.repeat(similar, sizes)[order], first) if len(first) else first
        return *np.divmod(pairs[first], self.n_items), votes

    def _place(
        self,
        targets: Ints,
        rows: Ints,
        items: Ints,
        votes: Ints,
        gone: tuple[Ints, Ints],
        ties: Ties,
    ) -> Ranks:
        """``gone`` are (target, item) that are no candidates; they are not among the votes."""
        own = np.zeros(len(targets), dtype=np.int64)
        hit = items == targets[rows]
        own[rows[hit]] = votes[hit]
        support, popular = self.support[targets], self.support[items]
        ahead, equal = votes > own[rows], votes == own[rows]
        higher = ahead | (equal & (popular > support[rows]))
        as_high = ahead | (equal & (popular >= support[rows]))
        above, at_least = _per_row(rows[higher], targets), _per_row(rows[as_high], targets)
        # without a vote: behind all that have one, among the others by popularity
        none = own == 0
        # those that stand elsewhere, or nowhere
        rows, popular = np.append(rows, gone[0]), np.append(popular, self.support[gone[1]])
        above[none] += _beyond(self.ladder, support[none], "right")
        above[none] -= _per_row(rows[popular > support[rows]], targets)[none]
        at_least[none] += _beyond(self.ladder, support[none], "left")
        at_least[none] -= _per_row(rows[popular >= support[rows]], targets)[none]
        return place(above.astype(np.float64), at_least.astype(np.float64), ties)


def session_knn_ranks(view: View, ties: Ties = "standard", filter_seen: bool = False) -> Ranks:
    """The ranks of the view's targets, in the order of their positions among known events."""
    index = SessionKnn(known_events(view.train, view.n_items), view.n_items)
    return index.ranks(known_events(view.test, view.n_items), ties, filter_seen)


def _rank_in_row(rows: Ints, n_rows: int) -> Ints:
    """How many entries of the same row come after each; ``rows`` ascend."""
    ends = np.searchsorted(rows, np.arange(n_rows), side="right")
    return ends[rows] - 1 - np.arange(len(rows))


def _per_row(rows: Ints, targets: Ints) -> NDArray[np.int64]:
    return np.bincount(rows, minlength=len(targets))


def _beyond(ladder: Ints, value: Ints, side: Literal["left", "right"]) -> Ints:
    found: Ints = len(ladder) - np.searchsorted(ladder, value, side=side)
    return found
