"""Which configuration comes next.

Start points first, one of each model before any model's second, then, where these are few, a design
that is spread over every parameter's range, then the sampler. All of it follows from the study's
seed and its history, not from which worker asks: a draw's random numbers are seeded by the study's
seed and the number of configurations so far. The one exception: when two workers draw the same at
the same moment, the later one draws again with numbers of its own.

What takes long, the sampler's own proposal, needs no lock: it is made from what the history was a
moment ago (:meth:`Sampler.propose`), and taken under the lock if nobody was given the same since.

The default sampler is TPE (Bergstra et al., NIPS 2011), multivariate (Falkner et al., ICML 2018)
because a good learning rate depends on batch size and dropout, grouped where parameters are
conditional; trials that run count as bad (the constant liar), so that workers spread out. What
promises most for a second is tried (tpe.py, epoch_costs.py).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from paropt.errors import StudyError
from paropt.search.history.history import History, Record, key_of
from paropt.search.space.parameter import Parameter
from paropt.search.space.space import Choose, Config, Space
from paropt.search.strategy.epoch_costs import CostModel, EpochCosts
from paropt.search.strategy.pruning import complete_choice
from paropt.search.strategy.tpe import Proposer, Told, tells
from paropt.storage import trial_rows
from paropt.training.evaluation.objective import Objective

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from paropt.search.strategy.optuna_samplers import Replayed
    from paropt.search.strategy.optuna_view import OptunaView

SAMPLERS: dict[str, dict[str, int]] = {
    # candidates: of TPE's for a proposal; cost: 1 if what an epoch costs counts
    "tpe": {"startup": 10, "candidates": 24, "cost": 1},
    "random": {},
    "grid": {},
}
DEFAULT = "tpe"

# of Optuna's
OF_COMPLETE = ("CmaEsSampler", "GPSampler", "NSGAIISampler", "NSGAIIISampler")
REHEARSED = 12  # trials that never were, before a sampler is let near a study
_SAMPLER_TRIES = 10
_RANDOM_TRIES = 100
_ENUMERABLE = 1_000_000  # beyond this a random draw practically always finds a free one


def complete_sampler(given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """A sampler with everything filled in.

    Raises:
        StudyError: no such sampler or option.
    """
    asked = {"name": given} if isinstance(given, str) else dict(given or {})
    name = asked.get("name", DEFAULT)
    if name in SAMPLERS or not isinstance(name, str):
        return complete_choice("sampler", SAMPLERS, DEFAULT, given)
    from paropt.search.strategy import optuna_samplers

    return optuna_samplers.complete(asked)


def check_sampler(space: Space, sampler: Mapping[str, Any]) -> None:
    """Raises :class:`StudyError` if the sampler, filled in, cannot draw from the space."""
    if sampler["name"] == "grid" and space.size() == float("inf"):
        raise StudyError("the sampler 'grid' needs a step for every float of the space")


def of_complete(name: str) -> bool:
    """Whether a sampler makes nothing of trials that were pruned."""
    return name not in SAMPLERS and name in OF_COMPLETE


def rehearse(space: Space, sampler: Mapping[str, Any], objective: Objective) -> None:
    """Let one of Optuna's samplers draw from the space after some trials that never were.

    Raises:
        StudyError: it cannot, or a package that it needs is not there; one sentence.
    """
    if sampler["name"] in SAMPLERS:
        return
    rehearsed, history = Sampler(space, sampler, 0, objective), History(0)
    rehearsed.check_numbers()
    for number in range(REHEARSED):
        rng = random.Random(derived_seed("rehearsal", number))
        config = space.walk(uniformly(rng))
        searched = rehearsed.searched(config)
        meta = {"root": number, "index": number, "model": config["model"], "searched": searched}
        curves = {objective.metric: [rng.random()], **{n: [1.0] for n in objective.names}}
        history.records[number] = Record(
            number, number, "COMPLETE", rng.random(), None, None, meta, {}, curves, {"epoch": 1}
        )
    for _ in rehearsed.drawn(history, REHEARSED, "", tries=1):
        pass


def derived_seed(*words: object) -> int:
    """A seed in [0, 2³¹) that follows from the words."""
    digest = hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 33


@dataclass(frozen=True)
class Proposal:
    """What the sampler would try next; None if it only repeats what trials have had."""

    config: Config | None


class Undrawn:
    """In place of a configuration: the sampler is to propose one first."""


def uniformly(rng: random.Random) -> Choose:
    """Chooses at random, evenly over every range."""
    return lambda parameter: parameter.at(rng.random())


class Sampler:
    """Draws configurations that the study has not had."""

    def __init__(
        self, space: Space, sampler: Mapping[str, Any], seed: int, objective: Objective
    ) -> None:
        check_sampler(space, sampler)
        self.space = space
        self.options = sampler
        self.seed = seed
        self.objective = objective
        self.size = space.size()
        self._view: OptunaView | None = None
        self._costs, self._told = EpochCosts(space), Told(objective)

    def searched(self, config: Config) -> dict[str, Any]:
        """The values in force by label: what a trial is told apart by, and what Optuna stores."""
        return {p.label: config[p.name] for p in self.space.active(config) if p.searched}

    def draw(self, history: History) -> Config | None:
        """A configuration that no trial has had, or None when none is left."""
        config = self.choose(history, None)
        if isinstance(config, Undrawn):
            config = self.choose(history, self.propose(history))
        assert not isinstance(config, Undrawn)  # the history is still the same
        return config

    def choose(self, history: History, proposal: Proposal | None) -> Config | Undrawn | None:
        """As :meth:`draw`, quickly; Undrawn if that takes a proposal, or another one."""
        lineages = history.lineages()
        taken = {record.key for record in lineages}
        if len(taken) >= self.size:
            return None
        for config in self._candidates(lineages, proposal):
            if isinstance(config, Undrawn) or key_of(self.searched(config)) not in taken:
                return config
        return None

    def propose(self, history: History, salt: str = "") -> Proposal | None:
        """What the sampler makes of the history; None while it has no say.

        ``salt`` makes it another proposal than the one that everybody else gets.
        """
        lineages = history.lineages()
        if not self._informed(lineages):
            return None
        taken = {record.key for record in lineages}
        drawn = self.drawn(history, len(lineages), salt)
        free = (config for config in drawn if key_of(self.searched(config)) not in taken)
        return Proposal(next(free, None))

    def _informed(self, lineages: Sequence[Record]) -> bool:
        if self.options["name"] not in SAMPLERS:
            return True
        # one that waits to go on is to be better
        telling = sum(map(tells, lineages))
        return self.options["name"] == "tpe" and telling >= self._startup

    def _candidates(
        self, lineages: Sequence[Record], proposal: Proposal | None
    ) -> Iterator[Config | Undrawn]:
        seen = {record.meta["model"] for record in lineages}
        yield from (config for config in self._start if config["model"] not in seen)
        yield from self._start
        rng = random.Random(derived_seed(self.seed, "draw", len(lineages)))
        if self.options["name"] == "tpe":
            yield from self._design
        if self._informed(lineages):
            if proposal is None:
                yield Undrawn()
            elif proposal.config is not None:
                yield proposal.config
                yield Undrawn()
        if self.options["name"] != "grid":
            for _ in range(_RANDOM_TRIES):
                yield self.space.walk(uniformly(rng))
        if self.size <= _ENUMERABLE:
            yield from self.space.enumerate()
        while self.size > _ENUMERABLE:
            yield self.space.walk(uniformly(rng))

    @property
    def starting(self) -> list[str]:
        """The models that start points have, in their order."""
        return list(dict.fromkeys(str(config["model"]) for config in self._start))

    @cached_property
    def _start(self) -> list[Config]:
        return [
            self.space.complete(
                point, uniformly(random.Random(derived_seed(self.seed, "start", index)))
            )
            for index, point in enumerate(self.space.start)
        ]

    @property
    def _startup(self) -> int:
        startup: int = self.options.get("startup", 0)
        return max(startup, 1)

    @cached_property
    def _design(self) -> list[Config]:
        """A Latin hypercube (McKay et al. 1979): as many points as strata in every parameter.

        None where start points are enough for the sampler: they are better than chance
        (benchmarks/search/README.md).
        """
        points = max(self._startup - len(self.space.start), 0)
        rng = random.Random(derived_seed(self.seed, "design"))
        strata = {p.label: rng.sample(range(points), points) for p in self.space.searched}

        def within(stratum: int) -> Choose:
            return lambda p: p.at((strata[p.label][stratum] + rng.random()) / points)

        return [self.space.walk(within(stratum)) for stratum in range(points)]

    # -- Optuna ---------------------------------------------------------------------------------

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's name for every searched parameter's range, by label."""
        return {p.label: _distribution(p) for p in self.space.searched}

    def stored(self, searched: Mapping[str, Any]) -> list[trial_rows.StoredParam]:
        """Values as Optuna's tables hold them."""
        from optuna.distributions import distribution_to_json

        return [
            trial_rows.StoredParam(
                label, found.to_internal_repr(value), distribution_to_json(found)
            )
            for label, value in searched.items()
            for found in (self.distributions[label],)
        ]

    def optuna_view(self, history: History) -> OptunaView:
        """The history as Optuna's samplers see it."""
        from paropt.search.strategy.optuna_view import OptunaView

        if self._view is None:
            self._view = OptunaView(self.distributions, self.objective)
        self._view.update(history.all())
        return self._view

    def drawn(
        self, history: History, index: int, salt: str, tries: int = _SAMPLER_TRIES
    ) -> Iterator[Config]:
        """What the sampler would try as configuration number ``index``, some times over."""
        salts = (salt,) if salt else ()
        if self.options["name"] == "tpe":
            proposer = self._proposer(history)
        for attempt in range(tries):
            if self.options["name"] == "tpe":
                rng = np.random.default_rng(derived_seed(self.seed, "tpe", index, attempt, *salts))
                yield proposer.draw(rng)
            else:
                name = self.options["name"]
                yield self._of_optuna(
                    history, derived_seed(self.seed, name, index, attempt, *salts)
                )

    def _proposer(self, history: History) -> Proposer:
        lineages = history.lineages()

        def costs(model: str) -> CostModel | None:
            return self._costs.of_model(model, lineages) if self.options["cost"] else None

        told = self._told.of(lineages)
        return Proposer(self.space, told, self.options["candidates"], costs)

    def _of_optuna(self, history: History, seed: int) -> Config:
        """By one of Optuna's own samplers."""
        from paropt.search.strategy import optuna_samplers

        name = self.options["name"]
        if name in optuna_samplers.REMEMBER:
            replayed = self._replayed
            replayed.replay(history)
            with replayed.draft() as trial:
                sampler, drawn = replayed.ask(trial, seed)
                with optuna_samplers.failing(name), optuna_samplers.quiet():
                    return self.space.walk(self._choose(sampler, replayed, trial, drawn))
        view, sampler = self.optuna_view(history), optuna_samplers.make(self.options, seed)
        with optuna_samplers.failing(name), optuna_samplers.quiet():
            study, trial = view.study(), view.new_trial()
            together = sampler.infer_relative_search_space(study, trial)
            drawn = sampler.sample_relative(study, trial, together)
            return self.space.walk(self._choose(sampler, view, trial, drawn))

    @cached_property
    def _replayed(self) -> Replayed:
        from paropt.search.strategy.optuna_samplers import Replayed

        name = self.options["name"]
        return Replayed(
            self.distributions,
            self.objective,
            self.options,
            lambda index: derived_seed(self.seed, name, index, 0),
        )

    def check_numbers(self) -> None:
        """Raises :class:`StudyError` if the sampler draws numbers only, and there is none."""
        if self.options["name"] == "CmaEsSampler" and not any(
            p.kind != "categorical" and p.count > 1 and not p.when for p in self.space.searched
        ):
            raise StudyError(
                "the sampler 'CmaEsSampler' draws numbers that all configurations have, and the "
                "space has none"
            )

    def _choose(
        self, sampler: BaseSampler, memory: OptunaView, trial: FrozenTrial, drawn: dict[str, Any]
    ) -> Choose:
        """What was drawn together, and one by one what was not."""
        study = memory.study()

        def choose(parameter: Parameter) -> Any:
            if parameter.count == 1:
                return parameter.nth(0)
            if parameter.label not in drawn:
                drawn[parameter.label] = sampler.sample_independent(
                    study, trial, parameter.label, self.distributions[parameter.label]
                )
            return parameter.snap(drawn[parameter.label])

        return choose


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna import distributions

    if parameter.kind == "categorical":
        return distributions.CategoricalDistribution(parameter.choices)
    # Optuna has no stepped log ranges: there it draws from the whole range, and paropt snaps
    step = None if parameter.log else parameter.step
    if parameter.kind == "int":
        return distributions.IntDistribution(
            int(parameter.low), int(parameter.high), parameter.log, int(step or 1)
        )
    return distributions.FloatDistribution(parameter.low, parameter.high, parameter.log, step)
