"""From cleaned events to ``train_full``/``test`` and ``train``/``valid``.

The rule by time is GRU4Rec's: ``test`` holds the sessions that start within the last days,
``train_full`` the events before that, and ``valid``/``train`` are cut from ``train_full`` by the
same rule, the same number of days earlier.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from paropt.data.events import Events, Ints, in_order
from paropt.data.log.rules import DAY_MS, Rules
from paropt.data.log.splitting.cleaning import drop_short
from paropt.errors import DataError

SPLITS = ("train_full", "test", "train", "valid")


def split_events(events: Events, rules: Rules, has_times: bool) -> dict[str, Events]:
    """The four splits of one cleaned log.

    Raises:
        DataError: a split would be empty.
    """
    if rules.protocol == "leave-one-out":
        return _leave_one_out(events)
    begins = test_begins(events, rules, has_times)
    if not has_times:
        rules = replace(rules, by_end=False)
    train_full, test = _cut(events, begins, rules)
    n_test = 0 if has_times else _share(events, rules.test_fraction)
    del events  # of a large log, what is no longer needed is not held beside the rest
    if not has_times:
        begins = _last_begin(train_full, _n_valid(train_full, n_test))
    elif rules.by_end:
        begins = _end(train_full) - rules.test_ms
    else:
        begins -= rules.test_ms
    train, valid = _cut(train_full, begins, rules)
    return {"train_full": train_full, "test": test, "train": train, "valid": valid}


def test_begins(events: Events, rules: Rules, has_times: bool) -> int:
    """When the test part begins; where a log has only an order, the number of its first event.

    Raises:
        DataError: there are too few sessions.
    """
    if not has_times:
        return _last_begin(events, _share(events, rules.test_fraction))
    return (_end(events) if rules.end_ms is None else rules.end_ms) - rules.test_ms


def _end(events: Events) -> int:
    """When events end: with the last one; where times are days, with its day."""
    last = int(events.time.max()) if len(events) else 0
    return last + DAY_MS if np.all(events.time % DAY_MS == 0) else last


def complete_splits(parts: dict[str, Events], rules: Rules, has_times: bool) -> dict[str, Events]:
    """The four splits of data that was split elsewhere.

    ``train_full`` and ``test``: train and valid are cut from ``train_full`` by the rule.
    ``train``, ``valid`` and perhaps ``test``: train_full is the first two together. Without a
    test it is empty: a search needs none.
    """
    parts = dict(parts)
    parts.setdefault("test", next(iter(parts.values())).take(np.zeros(0, np.int64)))
    if "train_full" not in parts:
        parts["train_full"] = _together(parts["train"], parts["valid"])
    elif "train" not in parts:
        parts["train"], parts["valid"] = _cut_valid(parts, rules, has_times)
    return {name: parts[name] for name in SPLITS}


def _cut_valid(parts: dict[str, Events], rules: Rules, has_times: bool) -> tuple[Events, Events]:
    train_full = parts["train_full"]
    if rules.protocol == "leave-one-out":
        from_end = _from_end(train_full)
        return train_full.take(from_end >= 1), train_full
    if has_times:
        return _cut(train_full, _end(train_full) - rules.test_ms, rules)
    n_test = len(parts["test"].starts())
    begins = _last_begin(train_full, _n_valid(train_full, n_test))
    return _cut(train_full, begins, replace(rules, by_end=False))


def _leave_one_out(events: Events) -> dict[str, Events]:
    from_end = _from_end(events)
    before = events.take(from_end >= 1)
    return {
        "train_full": before,
        "test": events,
        "train": events.take(from_end >= 2),
        "valid": before,
    }


def _from_end(events: Events) -> Ints:
    """How many events of its session follow each event [E]."""
    lengths = events.lengths()
    ends = events.starts() + lengths
    return np.repeat(ends, lengths) - np.arange(len(events)) - 1


def _cut(events: Events, at: int, rules: Rules) -> tuple[Events, Events]:
    """What comes before a time, and the sessions after it."""
    starts, lengths = events.starts(), events.lengths()
    decides = starts + lengths - 1 if rules.by_end else starts
    late = np.repeat(events.time[decides] >= at, lengths)
    early = ~late if rules.by_end else events.time < at
    # a session must at least hold an input and a target
    held = np.add.reduceat(early, starts, dtype=np.int64) if len(starts) else lengths
    before = events.take(early & np.repeat(held >= max(2, rules.min_session), lengths))
    after = events.take(late)
    if rules.known_test_items:
        known = np.zeros(int(events.item.max(initial=-1)) + 1, bool)
        known[before.item] = True
        after = drop_short(after.take(known[after.item]), max(2, rules.min_session))
    return before, after


def _last_begin(events: Events, n: int) -> int:
    """When the first of the last ``n`` sessions begins."""
    begins = np.sort(events.time[events.starts()])
    if n >= len(begins):
        raise DataError(f"{len(begins)} sessions are too few to split off the last {n}")
    return int(begins[len(begins) - n])


def _share(events: Events, fraction: float) -> int:
    return math.ceil(len(events.starts()) * fraction)


def _n_valid(train_full: Events, n_test: int) -> int:
    """As many sessions as the test part has, but at most a fifth of ``train_full``."""
    return max(1, min(n_test, len(train_full.starts()) // 5))


def _together(first: Events, second: Events) -> Events:
    """Two parts as one; a session that is in both is one session."""
    both = Events(
        np.concatenate([first.session, second.session]),
        np.concatenate([first.item, second.item]),
        np.concatenate([first.time, second.time]),
        np.concatenate([first.row, second.row]),
        {
            name: np.concatenate([column, second.columns[name]])
            for name, column in first.columns.items()
        },
        None
        if first.user is None or second.user is None
        else np.concatenate([first.user, second.user]),
    )
    return in_order(both)
