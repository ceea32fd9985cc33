"""Which events of a log stay: no consecutive repeats, no rare items, no short sessions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from paropt.data.events import Bools, Events
from paropt.data.log.command import option_text
from paropt.data.log.rules import Rules

Count = Callable[[str, str, Events], None]


def clean(events: Events, rules: Rules, count: Count = lambda step, option, events: None) -> Events:
    """Events after the cleaning that ``rules`` asks for; ``count`` is told what each step leaves.

    As published for GRU4Rec's sets: consecutive repeats of an item in a session go first, once;
    then short sessions and rare items go in turns until nothing changes (``one_pass``: sessions,
    items, sessions and done, as for RSC15).
    """
    if not rules.keep_repeats:
        events = events.take(_no_repeats(events))
        count("repeats", option_text("keep_repeats", True), events)
    short = option_text("min_session", rules.min_session)
    rare = option_text("min_support", rules.min_support)
    events = drop_short(events, rules.min_session)
    count("session length", short, events)
    frequent = _frequent(events, rules.min_support)
    events = events.take(frequent)
    count("support", rare, events)
    while not frequent.all():
        events = drop_short(events, rules.min_session)
        if rules.one_pass:
            break
        frequent = _frequent(events, rules.min_support)
        events = events.take(frequent)
    count("both in turns", f"{rare} with {short}", events)
    return events


def drop_short(events: Events, min_session: int) -> Events:
    """Without the sessions of fewer than ``min_session`` events."""
    lengths = events.lengths()
    long_enough = lengths >= min_session
    return events if long_enough.all() else events.take(np.repeat(long_enough, lengths))


def _no_repeats(events: Events) -> Bools:
    same_session = events.session[1:] == events.session[:-1]
    repeats = same_session & (events.item[1:] == events.item[:-1])
    return np.asarray(np.r_[True, ~repeats][: len(events)], bool)


def _frequent(events: Events, min_support: int) -> Bools:
    frequent = np.bincount(events.item) >= min_support
    return np.asarray(frequent[events.item], bool)
