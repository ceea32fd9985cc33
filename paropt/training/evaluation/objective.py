"""What a study looks for: a metric or a sum of metrics, and what makes one trial better.

One rule holds wherever trials are compared: a trial is worth the mean of its three best epochs.
The best epoch of the best trial is the luckiest one of many; who chooses by the mean of a few ends
up with better configurations (benchmarks/search/README.md, "Samplers and pruners, replayed").
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from paropt.errors import ParamError
from paropt.training import metrics
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.limits import Limit
from paropt.training.metrics import Direction

STEADY = 3  # best epochs that tell a trial's worth
NOTICEABLE = 0.01  # of the targets: from so many with equal scores on, these count against them
NORMAL = 1.96  # standard errors on either side of a mean that 95 % of a normal distribution fill
LONGEST = 200  # characters of a metric

Curve = Sequence[float | None]

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"\s*([+-]?)\s*(?:({_NUMBER})\s*\*)?\s*([A-Za-z_][\w]*(?:@\d+)?)\s*")


@dataclass(frozen=True)
class Objective:
    """A metric as :meth:`parse` writes it, and whether larger or smaller values are better.

    ``limits`` are what a trial must keep to if it is to be the best.
    """

    metric: str
    direction: Direction = "maximize"
    limits: tuple[Limit, ...] = ()

    @classmethod
    def parse(cls, text: str, own: Mapping[str, Direction] | None = None) -> Objective:
        """``mrr@20``, ``avg_rank``, ``0.31*hr@10+0.69*ndcg@10``.

        ``own`` are the metrics that models report of themselves.

        Raises:
            ParamError: there is no such metric, or parts of a sum pull in opposite directions.
        """
        own = own or {}
        if len(text) > LONGEST:
            raise ParamError(f"a metric of {len(text)} characters; at most {LONGEST} are taken")
        if text.strip() in own or not set("+*-") & set(text):
            name = metrics.canonical(text, own)
            return cls(name, own.get(name) or metrics.direction_of(name))
        parts = _merged(_terms(text, own))
        directions = {_turned(own.get(n) or metrics.direction_of(n), w) for w, n in parts}
        if len(directions) != 1:
            raise ParamError(
                f"metric {text!r}: of some parts more is better and of others less; give those the "
                "weights of opposite signs"
            )
        return cls("".join(_written(*part) for part in parts).removeprefix("+"), directions.pop())

    @cached_property
    def parts(self) -> tuple[tuple[float, str], ...]:
        """Weight and name of every metric in it."""
        if not re.search(r"[+*]", self.metric):
            return ((1.0, self.metric),)
        found = (match for match in _TERM.finditer(self.metric) if match[0])
        return tuple((_weight(match), match[3]) for match in found)

    @property
    def names(self) -> list[str]:
        """The metrics that an evaluation must report."""
        return [name for _, name in self.parts]

    @property
    def at(self) -> list[int]:
        """The cut-offs in it."""
        return sorted({k for name in self.names if (k := metrics.split(name)[1])})

    # -- values -----------------------------------------------------------------------------

    def of(self, values: Mapping[str, float]) -> float | None:
        """Its value where these metrics were reported; None if one is missing."""
        if self.metric in values:
            return values[self.metric]
        if any(values.get(name) is None for name in self.names):
            return None
        return sum(weight * values[name] for weight, name in self.parts)

    def value(self, report: EpochReport) -> float | None:
        """What an epoch counts for; where many scores are equal, they count against the target."""
        return self.of(report.conservative if flattered(report) else report.metrics)

    def curve(self, reports: Iterable[EpochReport]) -> list[float | None]:
        """The value of every epoch, None where it has none."""
        found: list[float | None] = []
        for report in reports:
            found += [None] * (report.epoch - 1 - len(found)) + [self.value(report)]
        return found

    def interval(self, value: float, stderr: float) -> tuple[float, float]:
        """The 95 % interval around a mean, by the normal approximation, as far as there may be such
        means: few sessions would have it reach beyond."""
        low, high = value - NORMAL * stderr, value + NORMAL * stderr
        if metrics.is_gain(self.metric):
            return max(low, 0.0), min(high, 1.0)
        return low, high

    def with_misses(self, value: float, targets: int, unknown: int) -> float | None:
        """The value if targets that were left out counted as missed; None if that has no value."""
        if not all(map(metrics.is_gain, self.names)) or targets + unknown == 0:
            return None
        return value * targets / (targets + unknown)

    # -- comparing --------------------------------------------------------------------------

    @property
    def larger(self) -> bool:
        """Whether larger values are better."""
        return self.direction == "maximize"

    def key(self, value: float) -> float:
        """To sort by: larger is better."""
        return value if self.larger else -value

    def better(self, value: float, other: float) -> bool:
        """Whether ``value`` is better than ``other``."""
        return self.key(value) > self.key(other)

    def best(self, values: Iterable[float | None]) -> float | None:
        """The best one; None if there is none."""
        return max((v for v in values if v is not None), key=self.key, default=None)

    def best_epoch(self, curve: Curve) -> tuple[int, float] | None:
        """The best epoch (from 1; of equals the first) and its value; None before any."""
        found = [(epoch, v) for epoch, v in enumerate(curve, 1) if v is not None]
        return max(found, key=lambda one: (self.key(one[1]), -one[0]), default=None)

    def stages(self, reports: Iterable[EpochReport], upto: EpochReport) -> dict[str, int]:
        """How many epochs of each stage are in the weights of the epoch ``upto``, in their order:
        as many as led to the best of each stage before. Nothing of a training without stages."""
        by_stage: dict[str, list[EpochReport]] = {}
        for report in reports:
            if report.stage and report.stage_epoch and report.epoch <= upto.epoch:
                by_stage.setdefault(report.stage, []).append(report)
        found = {}
        for stage, of in by_stage.items():
            best = self.best_epoch([self.value(report) for report in of])
            found[stage] = best[0] if best else len(of)
        return {**found, upto.stage: upto.stage_epoch or 0} if found and upto.stage else {}

    def steady(self, curve: Curve) -> float | None:
        """What a trial is worth: the mean of its three best epochs; None before any."""
        values = [value for value in curve if value is not None]
        best = heapq.nlargest(STEADY, values, key=self.key)
        return fmean(best) if best else None


def flattered(report: EpochReport) -> bool:
    """Whether so many targets have the score of another item that it matters."""
    return (report.tied or 0.0) > NOTICEABLE and bool(report.conservative)


def honest(report: EpochReport) -> dict[str, float]:
    """The metrics, with equal scores counted against the target where they are many."""
    return {**report.metrics, **report.conservative} if flattered(report) else dict(report.metrics)


# -- sums ---------------------------------------------------------------------------------------


def _terms(text: str, own: Mapping[str, Direction]) -> list[tuple[float, str]]:
    terms: list[tuple[float, str]] = []
    at = 0
    while at < len(text):
        match = _TERM.match(text, at)
        if match is None or (terms and not match[1]):
            raise ParamError(
                f"metric {text!r} cannot be read from {text[at:]!r} on; a sum is written like "
                "0.31*hr@10+0.69*ndcg@10"
            )
        terms.append((_weight(match), metrics.canonical(match[3], own)))
        at = match.end()
    return terms


def _weight(match: re.Match[str]) -> float:
    return float(match[2] or 1) * (-1 if match[1] == "-" else 1)


def _merged(terms: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Each metric once."""
    weights: dict[str, float] = {}
    for weight, name in terms:
        weights[name] = weights.get(name, 0.0) + weight
        if weights[name] == 0 or not math.isfinite(weights[name]):
            raise ParamError(f"a metric in which {name} has the weight {weights[name]:g}")
    return [(weight, name) for name, weight in weights.items()]


def _turned(direction: Direction, weight: float) -> Direction:
    if weight > 0:
        return direction
    return "minimize" if direction == "maximize" else "maximize"


def _written(weight: float, name: str) -> str:
    """With ``+`` or ``*`` in any sum, which tells it from a name with a hyphen."""
    return f"+{name}" if weight == 1 else f"{weight:+.12g}*{name}"
