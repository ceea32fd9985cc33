"""How many events, sessions and items are left after each step of ``prepare``, and by which option.

A log that loses most of its events on the way is no longer what its owner thinks it is, so every
step is counted, stored in ``meta.json`` and printed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from paropt.data.events import Bools, Events, Ints
from paropt.data.log.command import option_text
from paropt.data.log.rules import Rules

FEW_TARGETS = 1000
FEW_USERS = 300
MANY_EQUAL = 0.05


@dataclass(frozen=True)
class Step:
    """What is left after a step: counts of events, sessions and items.

    ``option`` is what decides the step, as one would write it on the command line.
    """

    name: str
    option: str
    events: int
    sessions: int
    items: int


@dataclass
class _Seen:
    """What one step has left so far, over the parts of a log that is split already."""

    option: str
    events: int = 0
    sessions: Bools = field(default_factory=lambda: np.zeros(0, bool))
    items: Bools = field(default_factory=lambda: np.zeros(0, bool))

    def add(self, session: Ints, item: Ints) -> None:
        self.events += len(session)
        self.sessions = _either(self.sessions, session)
        self.items = _either(self.items, item)


def _either(seen: Bools, codes: Ints) -> Bools:
    """``seen`` with the codes too; a code below 0 is none."""
    found = np.bincount(codes[codes >= 0], minlength=len(seen)) > 0
    found[: len(seen)] |= seen
    return found


class Funnel:
    """Counts what each step leaves, in the order in which steps are first named."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def count(self, name: str, option: str, events: Events) -> None:
        """Add what ``name`` left of the log, or of one of its parts."""
        self.count_rows(name, option, events.session, events.item)

    def count_rows(self, name: str, option: str, session: Ints, item: Ints) -> None:
        """The same from codes [rows], which are −1 where a row has no session or no item."""
        self._seen.setdefault(name, _Seen(option)).add(session, item)

    def add_rows(self, name: str, n_rows: int) -> None:
        """Add rows of which nothing more is known to what ``name`` left."""
        self._seen[name].events += n_rows

    @property
    def steps(self) -> list[Step]:
        return [
            Step(
                name,
                seen.option,
                seen.events,
                int(np.count_nonzero(seen.sessions)),
                int(np.count_nonzero(seen.items)),
            )
            for name, seen in self._seen.items()
        ]

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(step) for step in self.steps]

    def emptied_by(self) -> Step | None:
        """The step that left nothing."""
        return next((step for step in self.steps if not step.events), None)


def warnings(
    steps: list[Step],
    splits: Mapping[str, Mapping[str, Any]],
    equal: float | None,
    of_users: bool = False,
) -> list[str]:
    """Sentences on what may be wrong with a log or with the options for it.

    ``splits`` are the summaries of ``meta.json``; ``equal`` is :func:`equal_times`, None where
    something else than times gives the order. ``of_users``: users are told from each other, so
    how many there are counts.
    """
    few = _few_users if of_users else _few_targets
    said = [*_large_losses(steps), *few(splits, steps[-1].option)]
    if equal is not None and equal >= MANY_EQUAL:
        share = f"{100 * equal:.1f} % of neighbours in a session"
        said.append(f"{share} have equal times: their order is the file's")
    return said


def deciding(rules: Rules, is_split: bool, has_times: bool) -> str:
    """What says how large ``valid`` and ``test`` are."""
    if is_split:
        return "the split that was given"
    if rules.protocol == "leave-one-out":
        return "--protocol leave-one-out"
    if has_times and rules.protocol == "time":
        return option_text("test_days", rules.test_days)
    return option_text("test_fraction", rules.test_fraction)


def _large_losses(steps: list[Step]) -> list[str]:
    return [
        f"the step {after.name!r} takes {100 * (1 - after.events / before.events):.1f} % of"
        f" {before.events:,} events: {after.option} decides that"
        for before, after in itertools.pairwise(steps)
        if 2 * after.events < before.events
    ]


def _few_targets(splits: Mapping[str, Mapping[str, Any]], option: str) -> list[str]:
    said = []
    for name in ("valid", "test"):
        known = splits[name]["known_targets"]
        if splits[name]["events"] == 0 or known >= FEW_TARGETS:
            continue
        unknown = splits[name]["targets"] - known
        beside = f" ({unknown:,} more are of items that training never saw)" if unknown else ""
        said.append(
            f"{name} has {known:,} targets{beside}, fewer than {FEW_TARGETS:,}: numbers on it"
            f" are rough; {option} decides that"
        )
    return said


def _few_users(splits: Mapping[str, Mapping[str, Any]], option: str) -> list[str]:
    return [
        f"{name} has {users:,} users, fewer than {FEW_USERS:,}: numbers on it are rough, and users"
        f" are told apart more easily the fewer they are; {option} decides that"
        for name in ("valid", "test")
        if (users := splits[name]["sessions"]) < FEW_USERS
    ]


def equal_times(events: Events) -> float:
    """The share of neighbours in a session that have one and the same time."""
    same_session = events.session[1:] == events.session[:-1]
    pairs = int(np.count_nonzero(same_session))
    equal = int(np.count_nonzero(same_session & (events.time[1:] == events.time[:-1])))
    return equal / pairs if pairs else 0.0
