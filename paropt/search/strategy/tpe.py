"""Tree-structured Parzen estimators, multivariate: where good configurations are dense.

Of what trials have told the best tenth is good (at most 25), the rest is bad; the next
configuration is that one of some candidates, drawn from the density of the good ones, whose
expected improvement is largest, which follows from the ratio of both densities (Bergstra et al.,
NIPS 2011, section 4.1), for each second that an epoch of it is thought to take (Snoek et al., NIPS
2012, section 3.2). A density is a mixture
with one kernel for each trial, over all parameters together, because a good learning rate depends
on the batch size (Falkner et al., ICML 2018, section 3.1), and one wide kernel beside them, so that
nothing is ever out of reach. Widths and weights are those of Watanabe (2023, arXiv 2304.11127,
sections 3.2 and 3.3), as in Optuna: a fifth of the range, narrower with more trials and wider with
more parameters; bad trials weigh less the older they are.

Parameters that hold under the same condition are drawn together; good and bad are told apart among
the trials in which they held. Trials that run count as bad (the constant liar; Ginsbourger et al.
2010), so that workers spread out; those beyond a limit or out of memory as worse than any that are
within.

It is paropt's own because a proposal is what a study's slots wait for and what a replayed search
consists of; Optuna's evaluates its normal distributions number by number in Python.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paropt.search.history.history import Record, constraint_attributes
from paropt.search.space.parameter import Parameter
from paropt.search.space.space import Config, Space
from paropt.search.strategy.epoch_costs import CostModel, numeric, sizes_of
from paropt.training.evaluation.objective import Objective

GOOD, MOST_GOOD = 0.1, 25  # of the trials; of them at most
WIDTH = 0.2  # of a kernel, of the range
RECENT = 25  # bad trials that have their full weight
NARROWEST = 100  # a kernel is at least such a part of the range

Array = NDArray[np.float64]
Rank = tuple[float, ...]


@dataclass(frozen=True)
class Seen:
    """What a trial tells: its values by label, and its rank (smaller is better), None while it
    runs."""

    searched: Mapping[str, Any]
    rank: Rank | None


def tells(record: Record) -> bool:
    """Whether a trial that ended says where to look, or where not to: one that is beyond a limit,
    diverged or was out of memory has no value."""
    return record.scored or record.outcome == "beyond" or (record.failed and record.state != "FAIL")


class Told:
    """What the trials of a study tell; each that ended is asked once."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self._ended: dict[int, Seen | None] = {}

    def of(self, records: Iterable[Record]) -> list[Seen]:
        """Oldest first; one that was lost or failed tells nothing."""
        ordered = sorted(records, key=lambda record: record.number)
        return [told for record in ordered if (told := self._seen(record)) is not None]

    def _seen(self, record: Record) -> Seen | None:
        searched = record.meta["searched"]
        if record.open:
            return Seen(searched, None)
        if record.id not in self._ended:
            rank = self._rank(record)
            self._ended[record.id] = None if rank is None else Seen(searched, rank)
        return self._ended[record.id]

    def _rank(self, record: Record) -> Rank | None:
        """Within the limits first; complete before pruned, and of these the longer before."""
        if record.state == "FAIL":
            return None
        if record.failed:  # out of memory: it has no value, and more like it have none
            return (1.0, 1.0)
        excess = constraint_attributes(self.objective, record.values, record.end)
        beyond = sum(max(0.0, value) for value in excess.values())
        if beyond > 0:
            return (1.0, beyond)
        worth = record.worth(self.objective)
        if worth is None:
            return None
        if record.state == "COMPLETE":
            return (0.0, 0.0, -self.objective.key(worth))
        curve = [value for value in record.curve(self.objective) if value is not None]
        last = curve[-1] if curve else worth
        return (0.0, 1.0, -len(curve), -self.objective.key(last))


class Proposer:
    """Draws configurations that look promising after what was ``seen``.

    ``costs`` tells what an epoch of a model costs, None where nobody knows.
    """

    def __init__(
        self,
        space: Space,
        seen: Sequence[Seen],
        candidates: int,
        costs: Callable[[str], CostModel | None] = lambda model: None,
    ) -> None:
        self.space = space
        self.candidates = candidates
        self.costs = functools.cache(costs)
        self._group_of: dict[str, Group] = {}
        for parameters in _together(space):
            group = Group(parameters, seen)
            self._group_of |= {p.label: group for p in parameters}

    def draw(self, rng: np.random.Generator) -> Config:
        """One configuration; the same for the same numbers."""
        drawn: dict[str, Any] = {}
        so_far: Config = {}

        def choose(parameter: Parameter) -> Any:
            if parameter.count == 1:
                return parameter.nth(0)
            if parameter.label not in drawn:
                group = self._group_of[parameter.label]
                places = group.good.sample(rng, self.candidates)
                values = [group.values(place) for place in places]
                merit = group.improvement(places) - self._log_seconds(so_far, group, values)
                drawn.update(values[int(merit.argmax())])
            return drawn[parameter.label]

        return self.space.walk(choose, so_far)

    def _log_seconds(
        self, config: Config, group: Group, values: Sequence[Mapping[str, Any]]
    ) -> Array:
        """Of each candidate of a group, but for a summand that all have; zeros if nobody knows.

        How much time a model gets is not a matter of its cost: it would go to the cheapest.
        """
        models = self.space.models
        model = config.get("model") or (models[0] if len(models) == 1 else None)
        costs = self.costs(model) if model else None
        if costs is None:
            return np.zeros(len(values))
        names = {p.label: p.name for p in group.parameters}
        found = [
            {"model": model, **config, **{names[label]: value for label, value in one.items()}}
            for one in values
        ]
        return np.log(costs.at(np.array([sizes_of(self.space, one) for one in found])))


def _together(space: Space) -> list[list[Parameter]]:
    """The searched parameters, those that hold under the same condition beside each other."""
    groups: dict[str, list[Parameter]] = {}
    for p in space.searched:
        if p.count > 1:
            condition = repr(sorted((name, repr(values)) for name, values in p.when.items()))
            groups.setdefault(condition, []).append(p)
    return list(groups.values())


class Group:
    """Parameters that are drawn together."""

    def __init__(self, parameters: Sequence[Parameter], seen: Sequence[Seen]) -> None:
        self.parameters = parameters
        having = [one for one in seen if all(p.label in one.searched for p in parameters)]
        told = sorted((one.rank, k) for k, one in enumerate(having) if one.rank is not None)
        count = min(math.ceil(GOOD * len(told)), MOST_GOOD)
        best = {k for _, k in told[:count]}
        self._good = [one.searched for k, one in enumerate(having) if k in best]
        self._bad = [one.searched for k, one in enumerate(having) if k not in best]

    @cached_property
    def good(self) -> Density:
        return Density(self.parameters, self._good)

    @cached_property
    def bad(self) -> Density:
        return Density(self.parameters, self._bad)

    def improvement(self, places: Array) -> Array:
        """The logarithm of what is expected of each of ``places`` [m, d], but for a summand."""
        ratio = self.good.log_at(places) - self.bad.log_at(places)
        return -np.log(GOOD + (1 - GOOD) * np.exp(-ratio))

    def values(self, place: Array) -> dict[str, Any]:
        """By label, what stands at a place [d]."""
        return {
            axis.parameter.label: axis.value(place[column])
            for column, axis in enumerate(self.good.axes)
        }


class Axis:
    """A parameter as densities see it: a number in [0, 1], or the place of a choice.

    Choices that are numbers lie in their order, as far from each other: what is good beside 128
    channels is more likely 64 or 256 than 32. Two have no order to speak of.
    """

    def __init__(self, parameter: Parameter) -> None:
        self.parameter = parameter
        choices = parameter.choices if parameter.kind == "categorical" else ()
        ordered = len(choices) > 2 and numeric(parameter)
        self.steps = tuple(sorted(choices)) if ordered else ()
        self.choices = () if ordered else choices
        self.low, self.high = (0.0, 1.0) if choices else self._bounds()

    def _bounds(self) -> tuple[float, float]:
        """The range; that of a stepped one reaches half a step beyond its ends."""
        p = self.parameter
        if p.log:
            return math.log(p.low), math.log(p.high)
        half = (p.step or 0.0) / 2
        return p.low - half, p.high + half

    def on_grid(self, places: Array) -> Array:
        """The nearest places that have a value; a logarithmic one is as good as without a grid."""
        if self.parameter.log or not math.isfinite(self.parameter.count):
            return places
        count = self.parameter.count
        return np.asarray((np.floor(places * count).clip(0, count - 1) + 0.5) / count)

    def place(self, value: Any) -> float:
        if self.choices:
            return float(self.choices.index(self.parameter.nearest(value)))
        if self.steps:
            return (self.steps.index(self.parameter.nearest(value)) + 0.5) / len(self.steps)
        number = math.log(value) if self.parameter.log else value
        return (number - self.low) / (self.high - self.low)

    def value(self, place: float) -> Any:
        if self.choices:
            return self.choices[int(place)]
        if self.steps:
            return self.steps[int(place * len(self.steps))]
        number = self.low + place * (self.high - self.low)
        return self.parameter.snap(math.exp(number) if self.parameter.log else number)


class Density:
    """A mixture of one kernel for each configuration and a wide one."""

    def __init__(self, parameters: Sequence[Parameter], configs: Sequence[Mapping[str, Any]]):
        self.axes = [Axis(p) for p in parameters]
        self.numeric = np.array([not axis.choices for axis in self.axes])
        n, d = len(configs), len(self.axes)
        self.kernels = n + 1
        places = [[a.place(c[a.parameter.label]) for a in self.axes] for c in configs]
        middle = [0.0 if axis.choices else 0.5 for axis in self.axes]
        self.at = np.array([*places, middle], dtype=float)  # [kernels, d]
        width = WIDTH * max(n, 1) ** (-1 / (d + 4))
        least = 1 / min(NARROWEST, 2 + n)
        self.width = np.full(self.kernels, min(1.0, max(width, least)))
        self.width[-1] = 1.0
        weights = np.ones(self.kernels)
        if n > RECENT:
            weights[: n - RECENT] = np.linspace(1 / n, 1.0, n - RECENT)
        self.weights = weights / weights.sum()

    @cached_property
    def _log_scale(self) -> Array:
        """What a kernel's numbers are divided by: [kernels, numeric axes]."""
        at, width = self.at[:, self.numeric], self.width[:, None]
        inside = _normal((1 - at) / width) - _normal(-at / width)
        return np.asarray(np.log(inside * width * math.sqrt(2 * math.pi)))

    @cached_property
    def _log_choices(self) -> dict[int, Array]:
        """By axis the logarithms of each kernel's probabilities: [kernels, choices]."""
        found = {}
        for column in np.flatnonzero(~self.numeric):
            chances = np.full((self.kernels, len(self.axes[column].choices)), 1 / self.kernels)
            chances[np.arange(self.kernels - 1), self.at[:-1, column].astype(int)] += 1
            found[int(column)] = np.log(chances / chances.sum(1, keepdims=True))
        return found

    def log_at(self, places: Array) -> Array:
        """The logarithm of the density at ``places`` [m, d]: [m]."""
        numbers = places[:, None, self.numeric] - self.at[None, :, self.numeric]
        logs = -0.5 * (numbers / self.width[None, :, None]) ** 2 - self._log_scale[None]
        whole = logs.sum(-1) + np.log(self.weights)
        for column, chances in self._log_choices.items():
            whole += chances[:, places[:, column].astype(int)].T
        most = whole.max(1, keepdims=True)
        return np.asarray(np.log(np.exp(whole - most).sum(1)) + most[:, 0])

    def sample(self, rng: np.random.Generator, count: int) -> Array:
        """``count`` places [count, d]; numbers are on their grids."""
        chosen = rng.choice(self.kernels, count, p=self.weights)
        drawn = np.empty((count, len(self.axes)))
        for column, axis in enumerate(self.axes):
            if axis.choices:
                chances = np.exp(self._log_choices[column][chosen])
                below = chances.cumsum(1) < rng.random((count, 1))
                drawn[:, column] = np.minimum(below.sum(1), len(axis.choices) - 1)
                continue
            drawn[:, column] = axis.on_grid(
                _truncated(rng, self.at[chosen, column], self.width[chosen])
            )
        return drawn


def _truncated(rng: np.random.Generator, at: Array, width: Array) -> Array:
    """Normally distributed numbers in [0, 1]; what falls outside is drawn again."""
    drawn = rng.normal(at, width)
    while len(outside := np.flatnonzero((drawn < 0) | (drawn > 1))):
        drawn[outside] = rng.normal(at[outside], width[outside])
    return drawn


def _normal(z: Array) -> Array:
    """The normal distribution function."""
    flat = [math.erf(value) for value in (z / math.sqrt(2)).ravel().tolist()]
    return 0.5 * (1 + np.array(flat).reshape(z.shape))
