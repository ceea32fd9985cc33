"""When a log begins and ends, in words: a few late events decide which days are tested on."""

from __future__ import annotations

import numpy as np

from paropt.data.events import Events
from paropt.data.log.command import moment_text, option_text
from paropt.data.log.options import Recipe
from paropt.data.log.rules import DAY_MS


def span(events: Events) -> str:
    """From when to when the events go."""
    ends = np.array([events.time.min(), events.time.max()], "datetime64[ms]")
    first, last = ends.astype("datetime64[m]")
    return f"events go from {first} to {last}"


def tenth(recipe: Recipe, events: Events) -> str:
    """A tenth of the log up to its end, in days."""
    first, last = int(events.time.min()), int(events.time.max())
    if recipe.rules.end_ms is not None:
        last = max(first, min(last, recipe.rules.end_ms))
    return f"{(last - first) / DAY_MS / 10:.2g}"


def stragglers(recipe: Recipe, events: Events) -> list[str]:
    """A warning where the last days, by which a log is split, are all but empty."""
    rules = recipe.rules
    decides = recipe.has_times and not recipe.is_split and rules.protocol == "time"
    if not decides or rules.end_ms is not None or rules.by_end:
        return []
    end = _end_of_most(events)
    if events.time.max() - end < max(DAY_MS, rules.test_ms):
        return []
    return [f"the last days are all but empty: {_withoutstragglers(events)}"]


def _end_of_most(events: Events) -> int:
    """Where the log all but ends: the day after all but a thousandth of the events."""
    return (int(np.quantile(events.time, 0.999, method="lower")) // DAY_MS + 1) * DAY_MS


def _withoutstragglers(events: Events) -> str:
    end = _end_of_most(events)
    late = np.count_nonzero(events.time >= end)
    if not late:
        return "leave out a straggling end with --end"
    said = option_text("end_ms", end)
    return f"say {said}, from which on there are only {late:,} of {len(events):,} events"


def other_end(recipe: Recipe, events: Events) -> str:
    """What to say of ``--end`` where it decides."""
    end_ms = recipe.rules.end_ms
    if end_ms is None:
        return _withoutstragglers(events)
    said = f"another --end than {moment_text(end_ms)}"
    if recipe.options.end_ms is not None:
        return said
    return f"{said}, which is built into format {recipe.format.name}"
