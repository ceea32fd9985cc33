"""How many slots finish most on a device, judged by what each number of them brought.

No clock, no processes, no torch: readings go in, numbers of slots come out. Slots train different
configurations, whose events per second differ by factors, so numbers of slots are compared on the
trials that ran through the change from one to the other: how much slower each became says what
the device gave to the newcomers.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MARGIN = 0.05  # more slots must bring so much more; samplers learn less from trials side by side
WINDOW = 10.0  # seconds of training, in every slot, that a number of slots is judged by
UNLIKE = 4  # times the window where no trial ran before the change and after it
RESERVE = 0.1  # of a device's memory, that no slot is planned into
SHORT = 0.03  # of it: with less than that free one slot goes
SPREAD = 1.25  # how much more memory than the slots so far the next one may need


@dataclass(frozen=True)
class Reading:
    """What a slot's trial has done: ``events`` trained in ``busy`` seconds of training."""

    trial: int
    events: float
    busy: float


@dataclass(frozen=True)
class Change:
    """From ``before`` slots to ``after``, with ``gain``: all slots' events/s after ÷ before."""

    before: int
    after: int
    gain: float


@dataclass(frozen=True)
class Decision:
    """``slots`` from now on; ``settled`` unless it is only to be tried. ``why`` is a clause."""

    slots: int
    settled: bool
    why: str


def throughputs(changes: Sequence[Change]) -> dict[int, float]:
    """Events/s by number of slots, relative to the first; what was found twice is averaged."""
    found: dict[int, list[float]] = {changes[0].before: [0.0]} if changes else {}
    for change in changes:
        start = statistics.fmean(found[change.before])
        found.setdefault(change.after, []).append(start + math.log(max(change.gain, 1e-9)))
    return {slots: math.exp(statistics.fmean(logs)) for slots, logs in found.items()}


def decide(changes: Sequence[Change], slots: int, most: int) -> Decision:
    """The next number of slots after ``changes``, now ``slots``, of which ``most`` have room.

    Doubles while that brings :data:`MARGIN` more; then tries the middle between the best and
    the next higher number, unless they are close; then settles on the fewest slots that bring as
    much as any within the margin.
    """
    if slots > most:
        return Decision(most, True, "there is no room for more")
    rates = {n: rate for n, rate in throughputs(changes).items() if n <= most} or {slots: 1.0}
    peak = max(rates.values())
    best = min(n for n, rate in rates.items() if rate * (1 + MARGIN) >= peak)
    higher = [n for n in rates if n > best]
    if not higher:
        if best == most:
            return Decision(best, True, "there is no room for more")
        return Decision(min(2 * best, most), False, "more may bring more")
    ceiling = min(higher)
    if ceiling - best > max(1, best // 2):
        return Decision((best + ceiling) // 2, False, "the best number may lie between")
    return Decision(best, True, f"{ceiling} brought no more")


def room(slots: int, free: float, total: float, at_first: float) -> int:
    """For how many slots a device has memory: ``free`` of ``total`` now, ``at_first`` with none.

    The next slot may need :data:`SPREAD` times what those here took on average.
    """
    if free < SHORT * total:
        return max(1, slots - 1)
    each = SPREAD * max(at_first - free, 0.01 * total) / max(slots, 1)
    return slots + max(0, int((free - RESERVE * total) / each))


class SlotCount:
    """One device on its way to its number of slots. It begins with ``slots``, at most ``most``."""

    def __init__(self, most: int, slots: int = 1, window: float = WINDOW) -> None:
        self.most, self.slots, self.window = max(most, slots), slots, window
        self.changes: list[Change] = []
        self.settled = False
        self.together = 0.0  # events/s of all slots, when last measured
        self._before: tuple[int, _Meter] | None = None
        self._meter = _Meter()

    def look(
        self, readings: Mapping[str, Reading | None], room: int, out_of_memory: int = 0
    ) -> Decision | None:
        """Take note of each slot's trial (None: it trains none now); what to change, if anything.

        ``room`` is how many slots have memory; ``out_of_memory`` counts the fits that ran out of
        it since the last look.
        """
        if out_of_memory:
            room = min(room, self.slots - 1)
        if room < self.slots > 1:
            self.most = max(1, room)
            return self._move(Decision(self.most, True, "memory is short"))
        if self.settled or len(readings) != self.slots:
            return None
        if not self._meter.begun and None in readings.values():
            return None  # somebody is still starting
        self._meter.feed(readings)
        if not self._enough():
            return None
        return self._judge(min(self.most, room))

    def _enough(self) -> bool:
        alike = self._before is None or self._meter.shares_trials(self._before[1])
        return self._meter.complete(self.slots, self.window * (1 if alike else UNLIKE))

    def _judge(self, most: int) -> Decision:
        self.together = self._meter.together
        if self._before is not None:
            before, meter = self._before
            gain = self.slots / before * self._meter.speed_beside(meter)
            self.changes.append(Change(before, self.slots, gain))
        return self._move(decide(self.changes, self.slots, most))

    def _move(self, decision: Decision) -> Decision:
        self._before = (self.slots, self._meter)
        self._meter = _Meter()
        self.slots, self.settled = decision.slots, decision.settled
        return decision


class _Meter:
    """How fast trials train while the number of slots stays the same."""

    def __init__(self) -> None:
        self._stale: dict[tuple[str, int], Reading] = {}
        self._first: dict[tuple[str, int], Reading] = {}
        self._last: dict[tuple[str, int], Reading] = {}

    @property
    def begun(self) -> bool:
        return bool(self._stale)

    def feed(self, readings: Mapping[str, Reading | None]) -> None:
        """What slots say is a moment old: the first time it may be from before the change."""
        known = {(slot, r.trial): r for slot, r in readings.items() if r is not None}
        if not self.begun:
            self._stale = known
            return
        for key, reading in known.items():
            if key in self._first or reading != self._stale.get(key):
                self._first.setdefault(key, reading)
                self._last[key] = reading

    def complete(self, slots: int, window: float) -> bool:
        """Whether each slot has trained for so many seconds."""
        busy: dict[str, float] = {}
        for (slot, _trial), (_, seconds) in self._trained().items():
            busy[slot] = busy.get(slot, 0.0) + seconds
        return len(busy) == slots and min(busy.values()) >= window

    def _trained(self) -> dict[tuple[str, int], tuple[float, float]]:
        """Events and seconds by slot and trial."""
        return {
            key: (last.events - self._first[key].events, last.busy - self._first[key].busy)
            for key, last in self._last.items()
        }

    @property
    def together(self) -> float:
        """Events/s of all slots, as if all of them trained all the time."""
        by_slot: dict[str, list[float]] = {}
        for (slot, _), (events, seconds) in self._trained().items():
            total = by_slot.setdefault(slot, [0.0, 0.0])
            total[0] += events
            total[1] += seconds
        return sum(events / seconds for events, seconds in by_slot.values() if seconds > 0)

    def rates(self) -> dict[tuple[str, int], float]:
        """Events/s of the trials that were seen for a while."""
        trained = self._trained()
        longest = max((seconds for _, seconds in trained.values()), default=0.0)
        return {
            key: events / seconds
            for key, (events, seconds) in trained.items()
            if events > 0 and seconds > longest / 4
        }

    def shares_trials(self, other: _Meter) -> bool:
        return bool(self.rates().keys() & other.rates().keys())

    def speed_beside(self, other: _Meter) -> float:
        """A trial's speed here ÷ its speed there: of those seen in both, or else of all."""
        mine, theirs = self.rates(), other.rates()
        both = [math.log(mine[key] / theirs[key]) for key in mine.keys() & theirs.keys()]
        if both:
            return math.exp(statistics.fmean(both))
        return _typical(mine) / _typical(theirs)


def _typical(rates: Mapping[tuple[str, int], float]) -> float:
    return math.exp(statistics.fmean(map(math.log, rates.values()))) if rates else 1.0
