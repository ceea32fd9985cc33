"""What is odd about sessions and splits, in sentences: nothing is refused, but nothing is silent.

Sessions that are in training and in test, a test that is earlier than training, sessions that run
on through the test days, rows that are there twice: each may be meant, and seldom is.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from paropt.data.events import Bools, Events, Ints
from paropt.data.log.command import moment_text, option_text
from paropt.data.log.rules import Rules
from paropt.data.log.splitting.splits import test_begins

CHANCE = 0.05  # of the events may be the same by chance, in sessions that are numbered anew
EARLY = 0.1  # of a test's sessions may begin before training ends: they overlap at the cut
RUNNING_ON = 0.2  # of the last days' events may be of sessions that began before
TWICE = 0.01  # of the events may be the same as the one before
MOST = 0.05  # of the events may be one session's, where there are
FEW_SESSIONS = 50  # or more
SOME = 20  # events, below which losing them says little
LEFT = 0.1  # of a word's events, below which it is as good as gone


def odd_parts(
    splits: Mapping[str, Events], given: Container[str], rules: Rules, has_times: bool
) -> Iterator[str]:
    """Of data that was split elsewhere, in ``given`` parts: what test has in common with training,
    and valid."""
    for name, before in (("valid", "train"), ("test", "train_full")):
        tested, trained = splits[name], splits[before]
        if name not in given or not len(tested) or not len(trained):
            continue
        of_tested = np.unique(tested.session)
        shared = np.intersect1d(of_tested, trained.session)
        if len(shared):
            rows, known = (_rows(events, shared, has_times) for events in (tested, trained))
            same, n_rows = int(np.count_nonzero(np.isin(rows, known))), len(rows)
            said = f"{len(shared):,} of {len(of_tested):,} sessions of {name} are in {before}, too,"
            said += f" with {same:,} of their {n_rows:,} events"
            if rules.protocol == "leave-one-out":  # where all of a sequence is what training knows
                if not same:
                    yield f"{said}: what {before} has of them is no history of theirs in {name}"
            elif same > CHANCE * n_rows:
                yield f"{said}: training sees what it is tested on"
            else:
                yield f"{said}; where ids are given anew in each file, make them differ"
        if has_times and rules.protocol == "time":
            begins, last = tested.time[tested.starts()], int(trained.time.max())
            early = int(np.count_nonzero(begins < last))
            if early > EARLY * len(begins):
                yield (
                    f"{early:,} of {len(begins):,} sessions of {name} begin before {before} ends,"
                    f" at {moment_text(last)}: numbers on {name} are not those of days to come"
                )


def _rows(events: Events, sessions: Ints, has_times: bool) -> NDArray[np.uint64]:
    """Of some sessions' events a hash of session, item and time, or else the position."""
    chosen = np.zeros(int(events.session.max()) + 1, bool)
    chosen[sessions[sessions < len(chosen)]] = True
    those = chosen[events.session]
    when = events.time
    if not has_times:
        when = np.arange(len(events)) - np.repeat(events.starts(), events.lengths())
    found = events.session[those].astype(np.uint64) << np.uint64(32)
    found |= events.item[those].astype(np.uint64)
    found *= np.uint64(0x9E3779B97F4A7C15)
    found ^= found >> np.uint64(29)
    found += when[those].astype(np.int64).view(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    return found


def odd_sessions(events: Events, names: pa.Array, rules: Rules, has_times: bool) -> Iterator[str]:
    """Of a cleaned log that is to be split; ``names`` are the sessions' by code."""
    if has_times and (same := int(np.count_nonzero(_twice(events)))) > TWICE * len(events):
        yield (
            f"{same:,} events have the session, the item and the time of the one before them:"
            f" where rows are there twice, {option_text('keep_repeats', False)} leaves them out"
        )
    if rules.protocol != "time" or not len(events):
        return
    starts, lengths = events.starts(), events.lengths()
    if len(lengths) >= FEW_SESSIONS and lengths.max() > MOST * len(events):
        name = str(names[int(events.session[starts[lengths.argmax()]])])
        if rules.session_gap_ms is not None:
            name = name.rpartition("-")[0]  # what a gap cut has a number behind its own id
        yield (
            f"the session {name!r} has {100 * lengths.max() / len(events):.1f} % of all events: if"
            f" it stands for no session, {option_text('drop_ids', (name,))} leaves it out"
        )
    if not rules.by_end:
        yield from _running_on(events, rules, has_times)


def _running_on(events: Events, rules: Rules, has_times: bool) -> Iterator[str]:
    at = test_begins(events, rules, has_times)
    late = events.time >= at
    began = np.repeat(events.time[events.starts()] < at, events.lengths())
    lost, n_late = int(np.count_nonzero(late & began)), int(np.count_nonzero(late))
    if lost < SOME or lost <= RUNNING_ON * n_late:
        return
    since = "from where the test begins on"
    if has_times:
        since = f"from {moment_text(at)} on ({option_text('test_days', rules.test_days)})"
    remedy = "say --protocol leave-one-out"
    if rules.session_gap_ms is not None:
        remedy = "a shorter --session-gap cuts them"
    elif has_times:
        remedy = "--session-gap 30m cuts them"
    yield (
        f"{lost:,} of the {n_late:,} events {since} are of sessions that began before, and in no"
        f" split: where sessions are users or ids are used again, {remedy}"
    )


def _twice(events: Events) -> Bools:
    """Which events [E] are the same as the one before them."""
    same = events.session[1:] == events.session[:-1]
    same &= (events.item[1:] == events.item[:-1]) & (events.time[1:] == events.time[:-1])
    return np.asarray(np.r_[False, same][: len(events)], bool)


class ValueCounts:
    """How many events have each of the ``words`` of these columns."""

    def __init__(self, words: Mapping[str, Sequence[str]]) -> None:
        self.words = words
        self.counts = {name: np.zeros(len(known), np.int64) for name, known in words.items()}

    def add(self, events: Events) -> None:
        for name, counts in self.counts.items():
            codes = events.columns[name]
            counts += np.bincount(codes[codes >= 0], minlength=len(counts))


def lost_values(before: ValueCounts, after: ValueCounts) -> Iterator[str]:
    """Words of a column that hardly an event has any more, as each follows one of its item."""
    for name, counts in before.counts.items():
        left = after.counts[name]
        gone = np.flatnonzero((counts >= SOME) & (left < LEFT * counts)).tolist()
        for code in gone if len(gone) <= SOME else ():
            word = before.words[name][code]
            yield (
                f"{left[code]:,} of {counts[code]:,} events with {name} {word!r} are left: an event"
                " goes that follows another of the same item, whatever it is;"
                f" {option_text('keep_repeats', True)} keeps all"
            )
