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
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paropt.training.metrics import gain, names_at

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


# -- samples ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Values of some metrics, summed by group of sessions: enough to draw the groups again.

    ``sums`` [groups, metrics] are in the order of ``names``, ``counts`` [groups] say of how many
    values. Two samples of the same groups can be paired.
    """

    names: tuple[str, ...]
    sums: Floats
    counts: Floats

    @classmethod
    def of_ranks(cls, table: Table, names: Sequence[str]) -> Sample:
        """Of a rank table; a metric's cut-off is no deeper than the table."""
        rank = np.append(np.arange(1.0, table.shape[1]), np.inf)
        gains = np.stack([gain(name, rank) for name in names], axis=1)
        return cls(tuple(names), table @ gains, table.sum(1).astype(np.float64))

    @classmethod
    def of_values(
        cls, values: Mapping[str, Floats], units: NDArray[np.int64], n_units: int
    ) -> Sample:
        """Of a model's own values [T] by metric, of which those of a unit (a session, a user)
        hang together; ``units`` [T] are below ``n_units``."""
        groups, n = groups_of(units, n_units), min(n_units, GROUPS)
        sums = [np.bincount(groups, weights=of, minlength=n) for of in values.values()]
        counts = np.bincount(groups, minlength=n).astype(np.float64)
        return cls(tuple(values), np.stack(sums, axis=1), counts)

    @classmethod
    def mean(cls, samples: Sequence[Sample]) -> Sample:
        """The mean of several trainings' samples of the same values."""
        sums = np.mean([sample.sums for sample in samples], axis=0)
        return cls(samples[0].names, sums, np.mean([s.counts for s in samples], axis=0))

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        raw = np.column_stack([self.sums, self.counts]).astype("<f8").tobytes()
        packed = base64.b64encode(zlib.compress(raw, 9)).decode()
        return {"names": list(self.names), "sums": packed}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Sample:
        """Reads what :meth:`to_json` gave."""
        names = tuple(stored["names"])
        raw = np.frombuffer(zlib.decompress(base64.b64decode(stored["sums"])), "<f8")
        rows = raw.reshape(-1, len(names) + 1)
        return cls(names, rows[:, :-1], rows[:, -1])

    @property
    def values(self) -> dict[str, float]:
        """Each metric."""
        means = self.sums.sum(0) / self.counts.sum()
        return dict(zip(self.names, means.tolist(), strict=True))

    def resampled(self, draws: int = DRAWS) -> dict[str, Floats]:
        """The metrics of ``draws`` sets of groups, drawn with replacement: [draws] of each.

        Samples of equally many groups are drawn alike, so differences of two are paired.
        """
        sums = np.column_stack([self.sums, self.counts])
        drawn = np.concatenate([times @ sums for times in _draws(len(sums), draws)])
        # a draw of nothing but sessions without targets has no value
        values = drawn[:, :-1] / np.where(drawn[:, -1:] > 0, drawn[:, -1:], np.nan)
        return {name: values[:, column] for column, name in enumerate(self.names)}

    def intervals(self) -> dict[str, Interval]:
        """The confidence interval of every metric."""
        return {name: interval(draws) for name, draws in self.resampled().items()}

    def above(self, other: Sample) -> dict[str, tuple[float, float, float]]:
        """Of every metric that both have by how much it is above ``other``'s, and the bounds of
        its interval; nothing if they are of other groups.

        Both are of the same sessions, which are drawn for both at once.
        """
        if len(self.counts) != len(other.counts):
            return {}
        mine, theirs = self.values, other.values
        drawn, against = self.resampled(), other.resampled()
        return {
            name: (mine[name] - theirs[name], *interval(drawn[name] - against[name]))
            for name in self.names
            if name in theirs
        }


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


def metrics(table: Table, at: Sequence[int]) -> dict[str, float]:
    """Recall@k, MRR@k and NDCG@k of a rank table for each k of ``at``."""
    return Sample.of_ranks(table, names_at(at)).values
