"""A made-up shop whose visitors follow a hidden intent, so that the last item isn't enough.

A visitor wants something (the intent) and walks along its shelf, an ordered list of items. In
between they look at showcase items that every visitor looks at: after one of those only what came
before it tells where the walk goes on. A model that remembers the session can know; popularity and
co-occurrence (what came directly after the last item) cannot.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SEED = 20251
DAYS = 8
SESSIONS = 8000
INTENTS = 24
SHELF = 32  # items that an intent walks along
SHOWCASE = 80  # items that belong to no intent
LONGEST = 40
P_SHOWCASE = 0.45
# the walk goes on by so many places: mostly to the next item, sometimes back
STRIDES = np.array([1, 2, 3, -1, 5])
P_STRIDES = np.array([0.62, 0.2, 0.08, 0.06, 0.04])
START = 1_735_689_600  # 2025-01-01, UTC
DAY = 86_400


def demo_log(seed: int = SEED) -> pa.Table:
    """Events with SessionId, ItemId and Time (seconds), in the order of time."""
    random = np.random.default_rng(seed)
    begins = _arrivals(random)
    intents = _intents(random, begins)
    items = _walks(random, intents, begins)
    lengths = np.clip(1 + random.geometric(0.17, SESSIONS), 2, LONGEST)
    there = np.arange(LONGEST) < lengths[:, None]
    pauses = np.rint(random.lognormal(4.0, 1.0, (SESSIONS, LONGEST))).astype(np.int64) + 1
    times = begins[:, None] + np.cumsum(pauses, 1) - pauses[:, :1]
    sessions = np.broadcast_to(np.arange(SESSIONS)[:, None], there.shape)
    in_time = np.argsort(times[there], kind="stable")
    names = random.permutation(INTENTS * SHELF + SHOWCASE) + 1000
    return pa.table(
        {
            "SessionId": sessions[there][in_time] + 1,
            "ItemId": names[items[there]][in_time],
            "Time": times[there][in_time],
        }
    )


def _arrivals(random: np.random.Generator) -> NDArray[np.int64]:
    """When sessions begin, seconds: more in the evening than at night."""
    hours = np.arange(24)
    weight = 1.2 + np.sin((hours - 13) / 24 * 2 * np.pi)
    hour = random.choice(hours, SESSIONS, p=weight / weight.sum())
    day = random.integers(0, DAYS, SESSIONS)
    begins = START + day * DAY + hour * 3600 + random.integers(0, 3600, SESSIONS)
    return np.sort(begins)


def _intents(random: np.random.Generator, begins: NDArray[np.int64]) -> NDArray[np.int64]:
    """Zipf-popular intents whose fashion comes and goes over the days."""
    fashion = random.uniform(0, 2 * np.pi, INTENTS)
    phase = (begins - START)[:, None] / (DAYS * DAY) * 2 * np.pi
    weight = (1 + 0.7 * np.sin(phase + fashion)) / np.arange(1, INTENTS + 1) ** 0.7
    return _draw(random, weight)


def _draw(random: np.random.Generator, weight: NDArray[np.float64]) -> NDArray[np.int64]:
    """One column per row, with probability in proportion to ``weight`` [rows, columns]."""
    cumulative = np.cumsum(weight, 1)
    point = random.random((len(weight), 1)) * cumulative[:, -1:]
    return np.asarray(np.argmax(cumulative > point, 1), np.int64)


def _walks(
    random: np.random.Generator, intents: NDArray[np.int64], begins: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The items [sessions, LONGEST] that visitors look at."""
    entrances = 1 / np.arange(1, SHELF + 1)  # Zipf: most enter where the shelf begins
    place = random.choice(SHELF, len(intents), p=entrances / entrances.sum())
    showcase = 1 / np.arange(1, SHOWCASE + 1) ** 0.6
    items = np.empty((len(intents), LONGEST), np.int64)
    for position in range(LONGEST):
        detour = random.random(len(intents)) < P_SHOWCASE * (position > 0)
        shown = random.choice(SHOWCASE, len(intents), p=showcase / showcase.sum())
        items[:, position] = np.where(detour, INTENTS * SHELF + shown, intents * SHELF + place)
        stride = random.choice(STRIDES, len(intents), p=P_STRIDES)
        place = np.where(detour, place, (place + stride) % SHELF)
    return items
