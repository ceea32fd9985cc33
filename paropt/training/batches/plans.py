"""Plans: which events meet in which batch, decided once and vectorised.

A split is first reduced to the items that the model knows (:func:`known_events`). From there come
the session-parallel schedule (:func:`session_parallel`), training batches of sequences
(:func:`sequences`) and the queries of an evaluation (:func:`evaluation`). Nothing here depends on
who trains: the same split, sizes and seed give the same plan anywhere.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.training.batches.events import (
    NOTHING,
    EventArrays,
    Events,
    Ints,
    known_events,
    unknown_value,
)
from paropt.training.registry import Needs, SequenceBatch, SessionParallelPlan, TrainingEvents

if TYPE_CHECKING:
    from paropt.data.dataset import Split

MAX_TOKENS = 1 << 16  # padded positions of one evaluation batch; bounds a model's activations
# batches that are bucketed by length together; more would pad less, but batches of one length are
# no random sample: HSTU's mean log-rank on ML-100K after a few epochs is worse in every seed tried
POOL = 1
CACHE_BYTES = 1 << 30  # session-parallel schedules kept for the next trial


# -- session-parallel mini-batches -----------------------------------------------------------


class _Cache:
    """The latest values by key, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable) -> Any | None:
        if key not in self.entries:
            return None
        self.entries.move_to_end(key)
        return self.entries[key][0]

    def put(self, key: Hashable, value: Any, size: int) -> None:
        self.entries[key] = (value, size)
        while len(self.entries) > 1 and sum(e[1] for e in self.entries.values()) > self.limit:
            self.entries.popitem(last=False)


_plans = _Cache(CACHE_BYTES)


def session_parallel(
    split: Split, n_items: int, batch_size: int, min_rows: int = 1, needs: Needs = NOTHING
) -> SessionParallelPlan:
    """One epoch of session-parallel mini-batches over ``split``, on the host.

    Sessions enter in the split's order (first event's time), each in the slot that is free first,
    lower slots first; a session of one event trains nothing and is passed over. At the end of the
    epoch slots run dry and the batch shrinks; steps with fewer than ``min_rows`` rows are dropped
    (a loss without extra negatives needs two). All slots start together and none ever pauses, so
    ordering them by how long they live makes the rows in use a prefix. (arXiv 1511.06939,
    section 3.1.1.) The latest plans are kept for the next training on the same split.
    """
    read = (*sorted(needs.columns), None, *sorted(needs.wanted), needs.who)
    which = split.dataset.fingerprint, split.name, len(split.items)  # a part of it is another
    key = (*which, n_items, batch_size, min_rows, read)
    plan: SessionParallelPlan | None = _plans.get(key)
    if plan is None:
        plan = _session_parallel(known_events(split, n_items, needs), batch_size, min_rows, needs)
        _plans.put(key, plan, (17 + 8 * (len(read) - 2)) * plan.inputs.numel())
    return plan


def _session_parallel(
    events: Events, batch_size: int, min_rows: int, needs: Needs
) -> SessionParallelPlan:
    sizes = np.diff(events.offsets)
    long_enough = sizes >= 2
    begins, lengths = events.offsets[:-1][long_enough], sizes[long_enough] - 1
    slots, starts = _assign(lengths, batch_size)

    lives = np.zeros(batch_size, dtype=np.int64)
    np.maximum.at(lives, slots, starts + lengths)
    order = np.argsort(-lives, kind="stable")
    column = np.empty(batch_size, dtype=np.int64)
    column[order] = np.arange(batch_size)
    # rows in use at step t: the slots that live longer than t
    n_valid = batch_size - np.searchsorted(lives[order][::-1], np.arange(lives.max()), side="right")
    n_valid = n_valid[n_valid >= min_rows]
    steps = len(n_valid)

    inputs = np.zeros((lives.max(), batch_size), dtype=np.int64)
    targets = np.zeros_like(inputs)
    resets = np.zeros(inputs.shape, dtype=bool)
    event = ranges(lengths)
    cell = event * batch_size  # both in place, for each is as large as the inputs
    cell += np.repeat(starts * batch_size + column[slots], lengths)
    event += np.repeat(begins, lengths)
    inputs.ravel()[cell] = events.items[event]
    event += 1
    targets.ravel()[cell] = events.items[event]
    event -= 1
    resets[starts, column[slots]] = True

    def spread(values: NDArray[Any]) -> Tensor:
        """Values of the events in use, in their cells; unknown where no session is."""
        wide = np.float32 if values.dtype.kind == "f" else np.int64
        cells = np.full(inputs.shape, unknown_value(values), dtype=wide)
        cells.ravel()[cell] = values
        return torch.from_numpy(cells[:steps])

    users = None
    if events.users is not None:
        users = spread(np.repeat(events.users[long_enough], lengths))
    return SessionParallelPlan(
        inputs=torch.from_numpy(inputs[:steps]),
        targets=torch.from_numpy(targets[:steps]),
        resets=torch.from_numpy(resets[:steps]),
        n_valid=n_valid.tolist(),
        batch_size=batch_size,
        n_full=int(np.count_nonzero(n_valid == batch_size)),
        columns={name: spread(values[event]) for name, values in events.columns.items()},
        wanted={name: spread(events.columns[name][event + 1]) for name in needs.wanted},
        users=users,
    )


def _assign(lengths: Ints, batch_size: int) -> tuple[Ints, Ints]:
    """The slot of each session and the step at which it begins."""
    slots = np.arange(len(lengths), dtype=np.int64)
    starts = np.zeros(len(lengths), dtype=np.int64)
    first = lengths[:batch_size].tolist()
    # (step at which the slot is free, slot) packed into one int, which heapq compares fastest
    heap = [length * batch_size + slot for slot, length in enumerate(first)]
    heapq.heapify(heap)
    replace_top = heapq.heapreplace
    free = [
        replace_top(heap, heap[0] + length * batch_size) for length in lengths[batch_size:].tolist()
    ]
    starts[batch_size:], slots[batch_size:] = np.divmod(
        np.asarray(free, dtype=np.int64), batch_size
    )
    return slots, starts


def ranges(lengths: Ints) -> Ints:
    """0…l−1 for each length l, one after another."""
    ends = np.cumsum(lengths)
    found = np.arange(ends[-1] if len(ends) else 0)
    found -= np.repeat(ends - lengths, lengths)
    return found


def on_device(plan: SessionParallelPlan, device: torch.device) -> SessionParallelPlan:
    """The same plan with its tensors on ``device``."""
    return replace(
        plan,
        inputs=plan.inputs.to(device),
        targets=plan.targets.to(device),
        resets=plan.resets.to(device),
        columns={name: column.to(device) for name, column in plan.columns.items()},
        wanted={name: column.to(device) for name, column in plan.wanted.items()},
        users=None if plan.users is None else plan.users.to(device),
    )


# -- sequences -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Queries(SequenceBatch):
    """An evaluation's batch; ``histories`` [n_targets, 2] int64 says for each target, in the order
    of :meth:`Model.encode`, where its session begins and where it stands among the events."""

    histories: Tensor


class SequenceBatches(Sequence[SequenceBatch]):
    """Windows over one tensor of events, cut into batches; a batch is gathered when asked for.

    ``n_targets`` lists each batch's number of targets, on the host.
    """

    def __init__(self, store: EventTensors, cuts: Sequence[NDArray[Any]], windows: Windows) -> None:
        self.store = store
        self.lengths = [windows.lengths[cut] for cut in cuts]
        self.n_targets = [int(windows.n_targets[cut].sum()) for cut in cuts]
        packed = np.stack([windows.begins, windows.lengths, windows.since])
        order = np.concatenate(cuts) if cuts else np.zeros(0, dtype=np.int64)
        self._rows = torch.from_numpy(packed[:, order]).to(store.items.device)
        self._bounds = np.concatenate(([0], np.cumsum([len(cut) for cut in cuts]))).tolist()

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> SequenceBatch: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SequenceBatch]: ...
    def __getitem__(self, index: int | slice) -> SequenceBatch | Sequence[SequenceBatch]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        return self._gather(index)[0]

    def _gather(self, index: int) -> tuple[SequenceBatch, Tensor, Tensor]:
        """The batch, each row's first event [B] and the event of each target [B, L]."""
        begins, lengths, since = self._rows[:, self._bounds[index] : self._bounds[index + 1]]
        store, longest = self.store, int(self.lengths[index].max())
        column = torch.arange(longest, device=begins.device)
        real = column < lengths[:, None]
        at = torch.where(real, begins[:, None] + column, 0)
        after = torch.where(real, at + 1, 0)
        wanted = real & (column >= since[:, None])
        if store.targets is not None:
            wanted &= store.targets[after]
        batch = SequenceBatch(
            items=torch.where(real, store.items[at].long(), 0),
            targets=torch.where(wanted, store.items[after].long(), -1),
            times=torch.where(real, store.times[at], 0),
            query_times=torch.where(real, store.times[after], 0),
            lengths=lengths,
            columns=_columns(store.columns, store.columns, at, real),
            wanted=_columns(store.columns, store.wanted, after, wanted),
            users=None if store.users is None else store.users[store.session_at(begins)],
        )
        return batch, begins, after


class QueryBatches(SequenceBatches):
    """The batches of an evaluation.

    ``total`` targets are predicted; ``unknown`` ones were left out because training never saw
    their item.
    """

    def __init__(
        self,
        store: EventTensors,
        cuts: Sequence[NDArray[Any]],
        windows: Windows,
        unknown: int,
    ) -> None:
        super().__init__(store, cuts, windows)
        self.total = sum(self.n_targets)
        self.unknown = unknown

    def _gather(self, index: int) -> tuple[SequenceBatch, Tensor, Tensor]:
        batch, begins, after = super()._gather(index)
        wanted = batch.targets >= 0
        sessions = self._sessions(index)[:, None].expand_as(after)
        histories = torch.stack([sessions[wanted], after[wanted]], dim=1)
        return Queries(**vars(batch), histories=histories), begins, after

    def _sessions(self, index: int) -> Tensor:
        """Where each row's session begins, which may be before its window."""
        begins = self._rows[0, self._bounds[index] : self._bounds[index + 1]]
        return self.store.offsets[self.store.session_at(begins)]


@dataclass(frozen=True)
class Windows:
    """Stretches of events that a model reads: row r reads ``lengths[r]`` events from
    ``begins[r]`` and predicts, where flagged, the events after its positions ``since[r]``…"""

    begins: Ints
    lengths: Ints
    since: Ints
    n_targets: Ints


@dataclass(frozen=True)
class EventTensors:
    """Events on a device: items int32, times int64, offsets int64; ``targets`` bool, or None
    where every event is one. ``columns`` as in :class:`Events`, those in ``wanted`` also for
    targets; ``users`` int64."""

    items: Tensor
    times: Tensor
    offsets: Tensor
    targets: Tensor | None
    columns: Mapping[str, Tensor]
    wanted: Iterable[str]
    users: Tensor | None

    def session_at(self, events: Tensor) -> Tensor:
        """The session that each event is in."""
        return torch.searchsorted(self.offsets, events.contiguous(), right=True) - 1


def _columns(
    columns: Mapping[str, Tensor], names: Iterable[str], at: Tensor, real: Tensor
) -> dict[str, Tensor]:
    """The named columns at some events, unknown where ``real`` is not set."""
    found = {}
    for name in names:
        values = columns[name][at]
        if values.is_floating_point():
            found[name] = torch.where(real, values, torch.nan)
        else:
            found[name] = torch.where(real, values.long(), -1)
    return found


def event_tensors(
    events: Events, device: torch.device, flagged: bool, wanted: Iterable[str] = ()
) -> EventTensors:
    """The events as tensors on ``device``; ``flagged``: predict the split's targets only."""

    def moved(array: NDArray[Any]) -> Tensor:
        # a copy: memory-mapped arrays are read-only, which torch cannot express
        return torch.from_numpy(np.array(array)).to(device)

    return EventTensors(
        moved(events.items),
        moved(events.times),
        moved(events.offsets),
        moved(events.targets) if flagged else None,
        {name: moved(column) for name, column in events.columns.items()},
        tuple(wanted),
        None if events.users is None else moved(events.users).long(),
    )


def training_events(
    split: EventArrays, n_items: int, device: torch.device | str = "cpu", needs: Needs = NOTHING
) -> TrainingEvents:
    """A training split whole, for a model that counts."""
    store = event_tensors(known_events(split, n_items, needs), torch.device(device), flagged=False)
    columns = {
        name: values if values.is_floating_point() else values.long()
        for name, values in store.columns.items()
    }
    return TrainingEvents(store.items.long(), store.times, store.offsets, columns, store.users)


class TrainingSequences:
    """A training split on a device, cut anew for every epoch."""

    def __init__(
        self,
        split: EventArrays,
        n_items: int,
        max_length: int | None,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        needs: Needs = NOTHING,
    ) -> None:
        events = known_events(split, n_items, needs)
        self.store = event_tensors(events, torch.device(device), False, needs.wanted)
        self.batch_size = batch_size
        self.seed = seed
        sizes = np.diff(events.offsets)
        long_enough = sizes >= 2
        lengths = sizes[long_enough] - 1
        if max_length is not None:
            lengths = np.minimum(lengths, max_length)
        begins = events.offsets[1:][long_enough] - lengths - 1
        self.windows = Windows(begins, lengths, np.zeros_like(lengths), lengths)
        self.n_batches = -(-len(lengths) // batch_size)

    def epoch(self, epoch: int) -> SequenceBatches:
        """The batches of epoch ``epoch``, shuffled by (seed, epoch) alone."""
        lengths = self.windows.lengths
        # Philox's raw stream is the same in every version of NumPy; shuffles are not
        stream = np.random.Philox(key=[self.seed % (1 << 64), epoch])
        order = np.argsort(stream.random_raw(len(lengths)), kind="stable")
        pools = np.arange(len(order)) // (POOL * self.batch_size)
        order = order[np.lexsort((-lengths[order], pools))]
        cuts = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        turns = np.argsort(stream.random_raw(len(cuts)), kind="stable")
        return SequenceBatches(self.store, [cuts[turn] for turn in turns], self.windows)


def sequences(
    split: EventArrays,
    n_items: int,
    max_length: int | None,
    batch_size: int,
    seed: int,
    epoch: int,
    device: torch.device | str = "cpu",
) -> SequenceBatches:
    """One epoch's training batches: of every session its latest ``max_length`` + 1 events.

    Every event after a row's first is a target. Sessions are shuffled by (seed, epoch), bucketed
    by length within pools of :data:`POOL` batches, and the batches shuffled again.
    """
    return TrainingSequences(split, n_items, max_length, batch_size, seed, device).epoch(epoch)


def evaluation(
    split: EventArrays,
    n_items: int,
    max_length: int | None,
    rows: int,
    device: torch.device | str = "cpu",
    needs: Needs = NOTHING,
) -> QueryBatches:
    """What an evaluation asks: every flagged, known target that has a prefix.

    Events with an item that training never saw are removed first. A target is predicted from its
    session's last ``max_length`` events (None: from all): one window over a session's first
    ``max_length`` events answers for all their successors, later targets have a window of their
    own. Batches hold at most ``rows`` windows and :data:`MAX_TOKENS` padded positions.
    """
    events = known_events(split, n_items, needs)
    return query_batches(events, max_length, rows, device, needs.wanted)


def query_batches(
    events: Events,
    max_length: int | None,
    rows: int,
    device: torch.device | str = "cpu",
    wanted: Iterable[str] = (),
) -> QueryBatches:
    """:func:`evaluation` of events that are all known."""
    windows = _query_windows(events, max_length)
    order = np.argsort(-windows.lengths, kind="stable")
    falling = -windows.lengths[order]
    cuts = []
    begin = 0
    while begin < len(order):
        longest = -int(falling[begin])
        # rows of less than half the length are another batch: no more padding than events
        similar = int(np.searchsorted(falling, -(longest // 2)))
        end = min(similar, begin + max(1, min(rows, MAX_TOKENS // longest)))
        cuts.append(order[begin:end])
        begin = end
    store = event_tensors(events, torch.device(device), True, wanted)
    return QueryBatches(store, cuts, windows, events.unknown)


def _query_windows(events: Events, max_length: int | None) -> Windows:
    """The fewest windows that show every target its last ``max_length`` events."""
    positions, sessions = events.queries()
    depth = positions - sessions  # events before the target
    reach = max_length if max_length is not None else int(depth.max(initial=0))
    shared = depth <= reach
    # targets that share a window: it ends before the last of them, nothing further is needed
    owners, first = np.unique(sessions[shared], return_index=True)
    counts = np.diff(np.append(first, np.count_nonzero(shared)))
    last = depth[shared][first + counts - 1] if len(first) else first
    own = positions[~shared]
    reaches = np.full(len(own), reach, dtype=np.int64)
    return Windows(
        begins=np.concatenate((owners, own - reach)),
        lengths=np.concatenate((last, reaches)),
        since=np.concatenate((np.zeros_like(last), reaches - 1)),
        n_targets=np.concatenate((counts, np.ones_like(own))),
    )
