"""Which events of a log stay: no consecutive repeats, no rare items, no short sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from paropt.data.events import Events, Ints
from paropt.data.log.command import option_text
from paropt.data.log.rules import Rules

REPEATS = "repeats"  # the name of that step
Count = Callable[[str, str, Events], None]


def clean(
    parts: dict[str, Events],
    rules: Rules,
    count: Count = lambda step, option, events: None,
) -> dict[str, Events]:
    """A log's ``parts``, after the cleaning that ``rules`` asks for in place of what they were (a
    large log is not held twice); ``count`` is told what each step leaves. A log that isn't split
    yet is one part.

    As published for GRU4Rec's sets: consecutive repeats of an item in a session go first, once;
    then short sessions and rare items go in turns until nothing changes (``one_pass``: sessions,
    items, sessions and done, as for RSC15). An item is rare in all parts together: in a test of few
    events most items are, and their sessions would be left with holes.
    """

    def step(does: Callable[[Events], Events], name: str = "", option: str = "") -> bool:
        """Do it to every part; whether something went."""
        before = sum(map(len, parts.values()))
        for part in list(parts):  # no name holds on to events that a step leaves out
            parts[part] = does(parts.pop(part))
            if name:
                count(name, option, parts[part])
        return sum(map(len, parts.values())) < before

    def drop_rare(events: Events) -> Events:
        frequent = support >= rules.min_support
        return events.take(np.asarray(frequent[events.item], bool))

    if not rules.keep_repeats:
        step(_drop_repeats, REPEATS, option_text("keep_repeats", True))
    short = option_text("min_session", rules.min_session)
    rare = option_text("min_support", rules.min_support)
    step(lambda events: drop_short(events, rules.min_session), "session length", short)
    support = _support(parts)
    changing = step(drop_rare, "support", rare)
    while changing:
        step(lambda events: drop_short(events, rules.min_session))
        if rules.one_pass:
            break
        support = _support(parts)
        changing = step(drop_rare)
    step(lambda events: events, "both in turns", f"{rare} with {short}")
    return parts


def drop_short(events: Events, min_session: int) -> Events:
    """Without the sessions of fewer than ``min_session`` events."""
    lengths = events.lengths()
    long_enough = lengths >= min_session
    return events if long_enough.all() else events.take(np.repeat(long_enough, lengths))


def _drop_repeats(events: Events) -> Events:
    same_session = events.session[1:] == events.session[:-1]
    repeats = same_session & (events.item[1:] == events.item[:-1])
    return events.take(np.asarray(np.r_[True, ~repeats][: len(events)], bool))


def _support(parts: Mapping[str, Events]) -> Ints:
    """Events of each item in all parts; those of train and valid are in train_full, too."""
    size = 1 + max((int(part.item.max(initial=-1)) for part in parts.values()), default=-1)
    counts = {name: np.bincount(part.item, minlength=size) for name, part in parts.items()}
    none = np.zeros(size, np.int64)
    within = counts.pop("train", none) + counts.pop("valid", none)
    found: Ints = np.maximum(counts.pop("train_full", none), within)
    return found + sum(counts.values())
