"""Confidence intervals of ranking metrics, by resampling sessions (Efron 1979).

A session's targets hang together, so sessions are drawn, never single targets. What is kept of an
evaluation is a *rank table*: for each of up to 1,000 groups of sessions, how many of its targets
have rank 1, 2, … and how many a worse one. Every metric at every cut-off follows from it exactly,
it is a few kilobytes whatever the size of the test set, and two models' tables can be paired.
Up to 1,000 sessions each is a group of its own. Beyond, a session's index is hashed to its group,
and drawing groups estimates the same variance: random groups are as independent as sessions are.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUPS = 1000
DRAWS = 10_000
LEVEL = 0.95
SEED = 20231
_AT_ONCE = 500  # draws

Floats = NDArray[np.float64]
Table = NDArray[np.float64] | NDArray[np.int64]
Interval = tuple[float, float]


def groups_of(sessions: NDArray[np.int64], n_sessions: int) -> NDArray[np.int64]:
    """The group of each session; its own while there are no more than :data:`GROUPS`."""
    if n_sessions <= GROUPS:
        return sessions
    # the finaliser of splitmix64 (Steele et al., OOPSLA 2014); sessions lie in the order of time,
    # so a plain remainder would put equally much of every hour into each group
    mixed = sessions.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed % np.uint64(GROUPS)).astype(np.int64)


def rank_table(
    ranks: Floats, sessions: NDArray[np.int64], n_sessions: int, deepest: int
) -> NDArray[np.int64]:
    """Targets by group and rank, [groups, deepest + 1]: column r - 1 counts rank r, the last one
    all that are worse.

    ``ranks`` [T] are whole numbers from 1, as the tie rules "standard" and "conservative" give
    them; ``sessions`` [T] are below ``n_sessions``.
    """
    n_groups = min(n_sessions, GROUPS)
    columns = np.minimum(ranks, deepest + 1).astype(np.int64) - 1
    cells = groups_of(sessions, n_sessions) * (deepest + 1) + columns
    counted = np.bincount(cells, minlength=n_groups * (deepest + 1))
    return counted.reshape(n_groups, deepest + 1)


def pack(table: NDArray[np.int64]) -> dict[str, Any]:
    """As JSON holds it: its shape, and its counts as compressed text."""
    raw = zlib.compress(table.astype("<i4").tobytes(), 9)
    return {"shape": list(table.shape), "counts": base64.b64encode(raw).decode()}


def unpack(packed: Mapping[str, Any]) -> NDArray[np.int64]:
    """The table that :func:`pack` was given."""
    raw = zlib.decompress(base64.b64decode(packed["counts"]))
    return np.frombuffer(raw, "<i4").astype(np.int64).reshape(packed["shape"])


# -- standard errors ----------------------------------------------------------------------------


def standard_errors(values: Mapping[str, Floats], sessions: NDArray[np.int64]) -> dict[str, float]:
    """Of every mean of ``values`` [T] its standard error, where a session's hang together.

    With the mean m over T values of S sessions and r_s = Σ (value - m) over session s, it is
    √(S/(S - 1) · Σ r_s²) / T, the cluster-robust standard error of a mean (Liang & Zeger,
    Biometrika 1986). Of a single session it is not known.
    """
    _, index = np.unique(sessions, return_inverse=True)
    n = int(index.max(initial=-1)) + 1
    if n < 2:
        return {}
    found = {}
    for name, of in values.items():
        residuals = np.bincount(index, weights=of - of.mean(), minlength=n)
        found[name] = float(np.sqrt(n / (n - 1) * (residuals @ residuals)) / len(of))
    return found


# -- metrics ------------------------------------------------------------------------------------


def gains(deepest: int, at: Sequence[int]) -> dict[str, Floats]:
    """What a target of each rank adds to each metric, [deepest + 1] with 0 for all worse ones."""
    rank = np.arange(1, deepest + 2)
    found = {}
    for k in at:
        hit = (rank <= k) & (rank <= deepest)
        found[f"recall@{k}"] = hit.astype(np.float64)
        found[f"mrr@{k}"] = np.where(hit, 1 / rank, 0.0)
        found[f"ndcg@{k}"] = np.where(hit, 1 / np.log2(rank + 1), 0.0)
    return found


def metrics(table: Table, at: Sequence[int]) -> dict[str, float]:
    """Recall@k, MRR@k and NDCG@k for each k of ``at``."""
    counts = table.sum(0)
    by_name = gains(table.shape[1] - 1, at)
    return {name: float(counts @ gain / counts.sum()) for name, gain in by_name.items()}


def resampled(table: Table, at: Sequence[int], draws: int = DRAWS) -> dict[str, Floats]:
    """The metrics of ``draws`` sets of groups, drawn with replacement: [draws] of each.

    Tables of equally many groups are drawn alike, so differences of two results are paired.
    """
    by_name = gains(table.shape[1] - 1, at)
    sums = table @ np.stack([*by_name.values(), np.ones(table.shape[1])], axis=1)
    drawn = np.concatenate([times @ sums for times in _draws(len(table), draws)])
    # a draw of nothing but sessions without targets has no value
    totals = np.where(drawn[:, -1:] > 0, drawn[:, -1:], np.nan)
    values = drawn[:, :-1] / totals
    return {name: values[:, column] for column, name in enumerate(by_name)}


def _draws(n_groups: int, draws: int) -> Iterator[Floats]:
    """How often each group is drawn, [some draws, groups], chunk by chunk."""
    random = np.random.default_rng(SEED)
    for begin in range(0, draws, _AT_ONCE):
        rows = min(_AT_ONCE, draws - begin)
        picked = random.integers(0, n_groups, (rows, n_groups))
        picked += np.arange(rows)[:, None] * n_groups
        counted = np.bincount(picked.ravel(), minlength=rows * n_groups)
        yield counted.reshape(rows, n_groups).astype(np.float64)


def interval(draws: Floats, level: float = LEVEL) -> Interval:
    """The middle ``level`` of the draws."""
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(table: Table, at: Sequence[int]) -> dict[str, Interval]:
    """The confidence interval of every metric."""
    return {name: interval(draws) for name, draws in resampled(table, at).items()}


def differences(
    table: Table, other: Table, at: Sequence[int]
) -> dict[str, tuple[float, float, float]]:
    """Of every metric by how much ``table`` is above ``other``, and the bounds of its interval.

    Both are of the same sessions, which are drawn for both at once.
    """
    mine, theirs = metrics(table, at), metrics(other, at)
    drawn, against = resampled(table, at), resampled(other, at)
    return {
        name: (mine[name] - theirs[name], *interval(drawn[name] - against[name])) for name in mine
    }
