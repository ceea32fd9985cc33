"""A user's history as a long part and the short one after it, and which users are tested on.

The long part is the first ``long_share`` of a user's events, rounded down; the short part is the
rest, but for what happens less than a gap after the long part's end. A session is a user. Its
column :data:`~paropt.data.log.rules.PART` says which part each event is in, and the events of the
short part are the targets of an evaluation.

Users are divided by a hash of their ids, so that a user is in the same split whatever else is in
the log. Those of ``valid`` and ``test`` are in no training split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from paropt.data.events import Bools, Events, Ints
from paropt.data.log.command import option_text
from paropt.data.log.rules import PART, Rules
from paropt.data.log.splitting.cleaning import Count

WORDS = ("long", "short")  # that the codes of PART stand for


def cut_parts(
    events: Events, rules: Rules, count: Count = lambda step, option, events: None
) -> Events:
    """The users whose parts are long enough, each event with its part; ``count`` is told what each
    step leaves."""
    events = _with_parts(events, rules.long_share)
    few = _per_event(events, _of_part(events, 0) >= rules.min_long)
    events = events.take(few)
    count("long part", option_text("min_long", rules.min_long), events)
    if rules.part_gap_ms:
        events = events.take(_late_enough(events, rules.part_gap_ms))
        events = events.take(_per_event(events, _of_part(events, 1) > 0))
        count("gap", option_text("part_gap_ms", rules.part_gap_ms), events)
    enough = _of_part(events, 1) >= max(1, rules.min_short)
    events = events.take(_per_event(events, enough))
    count("short part", option_text("min_short", rules.min_short), events)
    for part, name, most in ((0, "max_long", rules.max_long), (1, "max_short", rules.max_short)):
        if most is not None:
            events = events.take(_latest(events, part, most))
            count(f"latest of the {WORDS[part]} part", option_text(name, most), events)
    return events


def split_users(events: Events, names: pa.Array, rules: Rules) -> dict[str, Events]:
    """The four splits: every user in ``test``, in ``valid`` and ``train_full``, or in ``train`` and
    ``train_full``; ``names`` are the users' ids by code."""
    starts, lengths = events.starts(), events.lengths()
    place = _places(names.take(pa.array(events.session[starts])))
    share = rules.test_fraction
    turned = (place - rules.fold * share) % 1.0
    test, valid = turned < share, (turned >= share) & (turned < 2 * share)
    chosen = {
        "train_full": ~test,
        "test": test,
        "train": ~(test | valid),
        "valid": valid,
    }
    return {name: events.take(np.repeat(which, lengths)) for name, which in chosen.items()}


def divided(splits: Mapping[str, Events]) -> str:
    """A sentence on who is in which split, and what training may know of those that it isn't
    given."""
    users = {name: len(part.starts()) for name, part in splits.items()}
    return (
        f"users are divided by a hash of their ids: {users['train']:,} train, {users['valid']:,}"
        f" valid, {users['test']:,} test; training has no event of the others, but the days that"
        " they share"
    )


def short_targets(part: NDArray[np.int32]) -> Bools:
    """The events [E] that an evaluation predicts: those of the short part."""
    return np.asarray(part == 1, bool)


def _with_parts(events: Events, share: float) -> Events:
    lengths = events.lengths()
    # the product of a share like .9 may lie just below a whole number
    n_long = np.floor(lengths * share + 1e-9).astype(np.int64)
    position = np.arange(len(events)) - np.repeat(events.starts(), lengths)
    part = (position >= np.repeat(n_long, lengths)).astype(np.int32)
    return replace(events, columns={**events.columns, PART: part})


def _of_part(events: Events, part: int) -> Ints:
    """How many events of a part each user has [S]."""
    if not len(events):
        return np.zeros(0, np.int64)
    ones = (events.columns[PART] == part).astype(np.int64)
    counts: Ints = np.add.reduceat(ones, events.starts())
    return counts


def _per_event(events: Events, users: Bools) -> Bools:
    return np.repeat(users, events.lengths())


def _late_enough(events: Events, gap_ms: int) -> Bools:
    """The long parts, and what happens at least ``gap_ms`` after their ends."""
    if not len(events):
        return np.zeros(0, bool)
    end = events.starts() + np.maximum(_of_part(events, 0), 1) - 1
    ends = np.repeat(events.time[end], events.lengths())
    return np.asarray((events.columns[PART] == 0) | (events.time - ends >= gap_ms), bool)


def _latest(events: Events, part: int, most: int) -> Bools:
    """All events but those of a part that has more than ``most`` after them in it."""
    lengths, long = events.lengths(), _of_part(events, 0)
    ends = events.starts() + (long if part == 0 else lengths)
    left = np.repeat(ends, lengths) - np.arange(len(events))
    return np.asarray((events.columns[PART] != part) | (left <= most), bool)


def _places(ids: pa.Array) -> NDArray[np.float64]:
    """Where each id lies in [0, 1), by a hash of its text."""
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids.to_pylist()]
    return np.frombuffer(b"".join(digests), "<u8") / 2.0**64
