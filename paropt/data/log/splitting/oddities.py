"""What is odd about sessions and splits, in sentences: nothing is refused, but nothing is silent.

Sessions that are in training and in test, a test that is earlier than training, sessions that run
on through the test days, rows that are there twice: each may be meant, and seldom is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from paropt.data.events import Bools, Events, Ints
from paropt.data.log.command import moment_text, option_text
from paropt.data.log.rules import Rules
from paropt.data.log.splitting.splits import test_begins

EARLY = 0.1  # of a test's sessions may begin before training ends: they overlap at the cut
RUNNING_ON = 0.2  # of the last days' events may be of sessions that began before
TWICE = 0.01  # of the events may be the same as the one before
MOST = 0.05  # of the events may be one session's, where there are
FEW_SESSIONS = 50  # or more
SOME = 20  # events, below which losing them says little
LEFT = 0.1  # of a word's events, below which it is as good as gone


def odd_parts(splits: Mapping[str, Events], rules: Rules, has_times: bool) -> Iterator[str]:
    """Of data that was split elsewhere: what test has in common with training, and valid."""
    for name, before in (("valid", "train"), ("test", "train_full")):
        tested, trained = splits[name], splits[before]
        if not len(tested) or not len(trained):
            continue
        of_tested, of_trained = np.unique(tested.session), np.unique(trained.session)
        shared = np.intersect1d(of_tested, of_trained)
        if len(shared):
            rows = [_rows(events, shared, has_times) for events in (tested, trained)]
            same, n_rows = _in_both(*rows), len(rows[0])
            said = f"{len(shared):,} of {len(of_tested):,} sessions of {name} are in {before}, too,"
            said += f" with {same:,} of their {n_rows:,} events"
            if rules.protocol == "leave-one-out":  # where all of a sequence is what training knows
                if not same:
                    yield f"{said}: what {before} has of them is no history of theirs in {name}"
            elif same:
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


def _in_both(first: NDArray[np.int64], second: NDArray[np.int64]) -> int:
    """How many rows of ``first`` are in ``second``."""
    _, places = np.unique(np.concatenate((first, second)), axis=0, return_inverse=True)
    places = places.reshape(-1)
    return int(np.count_nonzero(np.isin(places[: len(first)], places[len(first) :])))


def _rows(events: Events, sessions: NDArray[Any], has_times: bool) -> NDArray[np.int64]:
    """Session, item and time, or else the position in the session, of some sessions' events."""
    position = np.arange(len(events)) - np.repeat(events.starts(), events.lengths())
    when = events.time if has_times else position
    rows = np.stack([events.session, events.item, when], 1).astype(np.int64)
    return np.asarray(rows[np.isin(events.session, sessions)])


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
    yield (
        f"{lost:,} of the {n_late:,} events {since} are of sessions that began before, and in no"
        " split: where sessions are users or ids are used again, --session-gap 30m cuts them"
    )


def _twice(events: Events) -> Bools:
    """Which events [E] are the same as the one before them."""
    same = events.session[1:] == events.session[:-1]
    same &= (events.item[1:] == events.item[:-1]) & (events.time[1:] == events.time[:-1])
    return np.asarray(np.r_[False, same][: len(events)], bool)


def count_values(
    parts: Mapping[str, Events], words: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[np.int64]]:
    """How many events have each of the ``words`` of these columns."""
    found = {name: np.zeros(len(known), np.int64) for name, known in words.items()}
    for events in parts.values():
        for name, counts in found.items():
            codes = events.columns[name]
            counts += np.bincount(codes[codes >= 0], minlength=len(counts))
    return found


def lost_values(
    before: Mapping[str, Ints], after: Mapping[str, Ints], word: Callable[[str, int], str]
) -> Iterator[str]:
    """Words of a column that hardly an event has any more, as each follows one of its item."""
    for name, counts in before.items():
        gone = np.flatnonzero((counts >= SOME) & (after[name] < LEFT * counts)).tolist()
        for code in gone if len(gone) <= SOME else ():
            yield (
                f"{after[name][code]:,} of {counts[code]:,} events with {name} {word(name, code)!r}"
                " are left: an event goes that follows another of the same item, whatever it is;"
                f" {option_text('keep_repeats', True)} keeps all"
            )
