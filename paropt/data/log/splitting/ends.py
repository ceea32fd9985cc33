"""When a log begins and ends, in words: a few late events decide which days are tested on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paropt.data.events import Ints
from paropt.data.log.command import moment_text, option_text
from paropt.data.log.options import Recipe
from paropt.data.log.rules import DAY_MS


@dataclass(frozen=True)
class Ends:
    """Of a log's ``n`` events the first and the last time in milliseconds; ``most`` is where the
    log all but ends, the day after all but a thousandth of them, and ``late`` are as late."""

    n: int
    first: int
    last: int
    most: int
    late: int

    @staticmethod
    def of(times: Ints) -> Ends:
        """Those of an event or more."""
        first, last = int(times.min()), int(times.max())
        most = (int(np.quantile(times, 0.999, method="lower")) // DAY_MS + 1) * DAY_MS
        return Ends(len(times), first, last, most, int(np.count_nonzero(times >= most)))


def span(ends: Ends) -> str:
    """From when to when the events go."""
    first, last = np.array([ends.first, ends.last], "datetime64[ms]").astype("datetime64[m]")
    return f"events go from {first} to {last}"


def tenth(recipe: Recipe, ends: Ends) -> str:
    """A tenth of the log up to its end, in days."""
    first, last = ends.first, ends.last
    if recipe.rules.end_ms is not None:
        last = max(first, min(last, recipe.rules.end_ms))
    return f"{(last - first) / DAY_MS / 10:.2g}"


def stragglers(recipe: Recipe, ends: Ends) -> list[str]:
    """A warning where the last days, by which a log is split, are all but empty."""
    rules = recipe.rules
    decides = recipe.has_times and not recipe.is_split and rules.protocol == "time"
    if not decides or rules.end_ms is not None or rules.by_end:
        return []
    if ends.last - ends.most < max(DAY_MS, rules.test_ms):
        return []
    return [f"the last days are all but empty: {_without_stragglers(ends)}"]


def _without_stragglers(ends: Ends) -> str:
    if not ends.late:
        return "leave out a straggling end with --end"
    said = option_text("end_ms", ends.most)
    return f"say {said}, from which on there are only {ends.late:,} of {ends.n:,} events"


def other_end(recipe: Recipe, ends: Ends) -> str:
    """What to say of ``--end`` where it decides."""
    end_ms = recipe.rules.end_ms
    if end_ms is None:
        return _without_stragglers(ends)
    said = f"another --end than {moment_text(end_ms)}"
    if recipe.options.end_ms is not None:
        return said
    return f"{said}, which is built into format {recipe.format.name}"
