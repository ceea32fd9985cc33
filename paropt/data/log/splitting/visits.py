"""A log of users whom nobody said how to cut: into visits, or one sequence each."""

from __future__ import annotations

import numpy as np

from paropt.data.events import Events, in_order
from paropt.data.log.options import Recipe, of_visits
from paropt.data.log.rules import DAY_MS

GAP_MS = 30 * 60 * 1000


def settle_users(recipe: Recipe, events: Events) -> tuple[Recipe, str]:
    """The recipe for these users, and a sentence that says what was taken and why.

    Users who come back again and again, for more than one event each time, are cut into visits.
    Everybody else (who rates, reviews or orders) is one sequence, whose last event is tested on.
    """
    visits = _visits_per_user(recipe, events)
    if visits >= 2:
        return of_visits(recipe, GAP_MS), (
            f"{recipe.schema.session_key!r} are users, with {visits:.1f} visits of two events or"
            " more each: they are cut into sessions at gaps over 30 minutes (--session-gap 30m;"
            " or say --protocol leave-one-out)"
        )
    why = "who hardly come in visits" if recipe.has_times else "in an order without times"
    other = "--session-gap 30m" if recipe.has_times else "--protocol time"
    return of_visits(recipe, None), (
        f"{recipe.schema.session_key!r} are users {why}: each is one sequence, tested on its last"
        f" event (--protocol leave-one-out; or say {other})"
    )


def _visits_per_user(recipe: Recipe, events: Events) -> float:
    """Visits of two events or more per user, 0 where they hold less than half of the events."""
    if not recipe.has_times or not len(events) or np.all(events.time % DAY_MS == 0):
        return 0.0
    events = in_order(events)
    new_user = np.r_[True, events.session[1:] != events.session[:-1]]
    begins = np.flatnonzero(new_user | np.r_[True, np.diff(events.time) > GAP_MS])
    lengths = np.diff(np.r_[begins, len(events)])
    held = int(lengths[lengths >= 2].sum())
    if 2 * held < len(events):
        return 0.0
    return float(np.count_nonzero(lengths >= 2) / np.count_nonzero(new_user))
