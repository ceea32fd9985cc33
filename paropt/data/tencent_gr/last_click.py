"""The competition's protocol: a user's last click is predicted from what came before it.

``test`` ends at the last click and ``valid`` at the one before; ``train_full`` and ``train`` end
before these. What follows the last click is in no split. A user with less is trained on, whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from paropt.data.encoding import (
    NEVER,
    Index,
    SplitArrays,
    by_time_and_id,
    index_by_first_times,
    pack_ids,
)
from paropt.data.events import Bools, Ints
from paropt.data.tencent_gr.sequences import Sequences

CLICK = 1
ACTIONS = pa.array(["0", "1", "2"])  # exposure, click, conversion: the vocabulary of the column
SPLITS = ("train_full", "test", "train", "valid")
_BLOCK = 1 << 22  # events that are looked at at once


@dataclass(frozen=True)
class Cuts:
    """How many of their first events users [S] have in each split, by its name.

    ``judged`` says which users are tested on; of the others all events are in both training splits.
    """

    lengths: Mapping[str, Ints]
    judged: Bools


def cut(sequences: Sequences) -> Cuts:
    """Where splits end; a user is judged who has two clicks with something before them."""
    offsets = sequences.offsets
    clicks = np.flatnonzero(sequences.actions == CLICK)
    begin, end = (np.searchsorted(clicks, edge) for edge in (offsets[:-1], offsets[1:]))
    padded = np.concatenate((clicks, [0, 0]))  # so that there is something to look at
    last, before = (padded[np.maximum(end - n, 0)] - offsets[:-1] for n in (1, 2))
    judged = (end - begin >= 2) & (before > 0)
    whole = sequences.lengths
    lengths = {
        "train_full": np.where(judged, last, whole),
        "test": np.where(judged, last + 1, 0),
        "train": np.where(judged, before, whole),
        "valid": np.where(judged, before + 1, 0),
    }
    return Cuts(lengths, judged)


def index_items(sequences: Sequences, cuts: Cuts, ids: pa.Array, further: Ints) -> Index:
    """Items as :func:`paropt.data.encoding.index_items` has them; those of ``further`` come last.

    ``ids`` are the ids of re-indexed items, from 0.
    """
    first = {name: np.full(len(ids), NEVER) for name in SPLITS}
    for name, lengths in cuts.lengths.items():
        for _, items, times in first_events(sequences, lengths):
            np.minimum.at(first[name], items, times)
    index = index_by_first_times(first, ids, "items")
    more = further[index.index_of[further] < 0]
    index.index_of[more] = len(index.code_of) + np.arange(len(more), dtype=np.int32)
    code_of = np.concatenate((index.code_of, more))
    return Index(index.index_of, code_of, index.n_train, index.n_train_full)


def first_events(sequences: Sequences, lengths: Ints) -> Iterator[tuple[Ints, Ints, Ints]]:
    """User, item and time of the first ``lengths`` [S] events of each user, a block at a time."""
    offsets = sequences.offsets
    for begin, end in _blocks(offsets):
        whole = np.diff(offsets[begin : end + 1])
        a, b = int(offsets[begin]), int(offsets[end])
        place = np.arange(a, b) - np.repeat(offsets[begin:end], whole)
        kept = np.flatnonzero(place < np.repeat(lengths[begin:end], whole))
        users = np.repeat(np.arange(begin, end), whole)[kept]
        yield users, sequences.items[a:b][kept], sequences.times[a:b][kept]


def _blocks(offsets: Ints) -> Iterator[tuple[int, int]]:
    """Users from … to before …, of so many events together."""
    begin, n = 0, len(offsets) - 1
    while begin < n:
        end = int(np.searchsorted(offsets, offsets[begin] + _BLOCK, "right")) - 1
        end = min(max(end, begin + 1), n)
        yield begin, end
        begin = end


class Splits(Mapping[str, SplitArrays]):
    """The four splits, each made when it is asked for: together they would not fit into memory."""

    def __init__(self, sequences: Sequences, cuts: Cuts, index: Index) -> None:
        self.sequences, self.cuts, self.index = sequences, cuts, index
        there = sequences.lengths > 0
        starts = sequences.times[sequences.offsets[:-1][there]]
        self.order = np.flatnonzero(there)[
            by_time_and_id(starts, sequences.users.filter(pa.array(there)))
        ]
        """Users in the order of their first events."""

    def __len__(self) -> int:
        return len(SPLITS)

    def __iter__(self) -> Iterator[str]:
        return iter(SPLITS)

    def __getitem__(self, name: str) -> SplitArrays:
        sequences, lengths = self.sequences, self.cuts.lengths[name]
        numbers = np.flatnonzero(lengths[self.order] > 0)
        users = self.order[numbers]
        sizes = lengths[users]
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        items = np.empty(offsets[-1], np.int32)
        times, actions = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.int32)
        begins = sequences.offsets[users] - offsets[:-1]
        for begin, end in _blocks(offsets):
            a, b = offsets[[begin, end]]
            at = np.repeat(begins[begin:end], sizes[begin:end]) + np.arange(a, b)
            items[a:b] = self.index.index_of[sequences.items[at]]
            times[a:b], actions[a:b] = sequences.times[at], sequences.actions[at]
        targets = np.ones(offsets[-1], bool)
        targets[offsets[:-1]] = False
        if name in ("valid", "test"):
            targets[:] = False
            targets[offsets[1:] - 1] = True
        return SplitArrays(
            items,
            times,
            offsets,
            targets,
            pack_ids(sequences.users.take(pa.array(users))),
            {"action_type": actions},
            numbers.astype(np.int32),
        )
