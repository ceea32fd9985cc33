"""Searches replayed: the world that answers, how paropt and Optuna ask it, and the clock."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import optuna
from strategies import Strategy
from surrogate import Surrogate

from paropt.search.history.history import History, Record
from paropt.search.space.space import Config, Space
from paropt.search.strategy.pruning import complete_pruner, reason_to_prune, stands_still
from paropt.search.strategy.sampling import Sampler, complete_sampler, derived_seed
from paropt.training.evaluation.objective import Objective

METRIC = "mrr@20"
MRR = Objective(METRIC)


class World:
    """Answers with the noise of seeds; the same for the same seed."""

    def __init__(self, surrogate: Surrogate, seed: int) -> None:
        self.surrogate = surrogate
        self.seed = seed
        average = float(surrogate.table.seconds.mean())
        self.unit = average * surrogate.table.curves.shape[1]

    def train(self, config: Config, index: int) -> tuple[list[float], float, float]:
        """The curve, what an epoch costs, and the noiseless best value."""
        plain = self.surrogate.curve(config)
        noise = self.surrogate.table.noise
        chosen = noise[derived_seed("noise", self.seed, index) % len(noise)]
        cost = self.surrogate.cost(config) / self.unit
        return [max(v, 0.0) for v in (plain + chosen).tolist()], cost, float(plain.max())


@dataclass
class Job:
    """A trial that a worker runs."""

    curve: list[float]
    cost: float
    plain: float
    handle: Any
    config: Config
    seen: list[float] = field(default_factory=list)
    still: bool = False  # it ends because it has nothing more to gain


@dataclass
class Trace:
    """The noiseless value of what was thought best, after each epoch spent."""

    spent: list[float] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    trials: int = 0
    epochs: int = 0
    first_epochs: int = 0  # of trials that ended with them

    def at(self, spend: float) -> float:
        place = int(np.searchsorted(self.spent, spend, side="right")) - 1
        return self.value[place] if place >= 0 else 0.0


class Trains(Protocol):
    """What a search has its configurations trained by."""

    def train(self, config: Config, index: int) -> tuple[list[float], float, float]:
        """The curve, what an epoch costs, and the noiseless best value."""


class Search(Protocol):
    """What strategies have in common."""

    def ask(self, world: Trains, index: int) -> Job:
        """The next trial."""

    def worth(self, job: Job) -> float:
        """How good it thinks a trial is, after the epoch that it has just seen."""

    def prune(self, job: Job) -> bool:
        """Whether to cut it after that epoch."""

    def end(self, job: Job, pruned: bool) -> None:
        """It is over."""


class Ours:
    """paropt's sampler and pruner on records like those of its database."""

    def __init__(self, space: Space, strategy: Strategy, seed: int) -> None:
        self.strategy = strategy
        self.sampler = Sampler(space, complete_sampler(strategy.sampler), seed, MRR)
        self.pruner = complete_pruner(strategy.pruner)
        self.history = History(0)
        self.costs: dict[int, float] = {}  # of an epoch, by trial
        self.cut: list[Job] = []

    def ask(self, world: Trains, index: int) -> Job:
        if self.strategy.promote and (job := self._promoted()) is not None:
            self.cut.remove(job)
            self._write(job, "RUNNING")
            return job
        config = self.sampler.draw(self.history)
        assert config is not None
        searched = self.sampler.searched(config)
        meta = {"root": index, "model": config["model"], "params": config, "searched": searched}
        record = Record(index, index, "RUNNING", None, None, None, meta, {}, {METRIC: []}, {})
        self.history.records[index] = record
        job = Job(*world.train(config, index), index, config)
        self.costs[index] = job.cost
        return job

    def _promoted(self) -> Job | None:
        """Of the trials that were cut and would not be today, the best."""
        records = self.history.records.values()
        good = []
        for job in self.cut:
            others = [r.curve(MRR) for r in records if r.number != job.handle]
            if reason_to_prune(self.pruner, job.seen, others, (), len(job.curve)) is None:
                good.append(job)
        return max(good, key=self.worth, default=None)

    def _write(self, job: Job, state: str) -> None:
        value = max(job.seen) if state != "RUNNING" else None
        old = self.history.records[job.handle]
        curves = {METRIC: list(job.seen), "seconds": [job.cost] * len(job.seen)}
        self.history.records[job.handle] = replace(old, state=state, value=value, curves=curves)

    def worth(self, job: Job) -> float:
        return MRR.steady(job.seen) or 0.0

    def prune(self, job: Job) -> bool:
        self._write(job, "RUNNING")
        others = [r for r in self.history.records.values() if r.number != job.handle]
        if self.strategy.clock:
            if self._behind_by_the_clock(job, others):
                return True
        else:
            ended = [r.curve(MRR) for r in others if not r.open]
            running = [r.curve(MRR) for r in others if r.open]
            if reason_to_prune(self.pruner, job.seen, ended, running, len(job.curve)) is not None:
                return True
        job.still = stands_still(self.pruner, job.seen, len(job.curve)) is not None
        return job.still

    def _behind_by_the_clock(self, job: Job, others: Sequence[Record]) -> bool:
        """Whether it is not in the better half of those that have taken as long as a rung."""
        taken, rung = job.cost * len(job.seen), 0.2  # of an average trial
        while rung <= taken - job.cost:
            rung *= 2
        if rung > taken:
            return False
        reached = []
        for record in others:
            cost, curve = self.costs[record.number], record.curve(MRR)
            if cost * len(curve) >= rung:
                reached.append(max(curve[: max(1, int(rung / cost))]))
        own = max(job.seen)
        values = sorted([own, *reached], reverse=True)
        return values[max(1, len(values) // 2) - 1] > own

    def end(self, job: Job, pruned: bool) -> None:
        cut = pruned and not job.still
        if cut:
            self.cut.append(job)
        self._write(job, "PRUNED" if cut else "COMPLETE")


class Optunas:
    """Optuna's sampler and pruner as installed."""

    def __init__(self, space: Space, strategy: Strategy, seed: int) -> None:
        assert strategy.optuna is not None
        sampler, pruner = strategy.optuna(seed)
        self.study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        self.space = space
        self.ranges = Sampler(space, complete_sampler("tpe"), seed, MRR).distributions

    def ask(self, world: Trains, index: int) -> Job:
        trial = self.study.ask(self.ranges)
        config = self.space.walk(lambda p: p.snap(trial.params[p.label]))
        return Job(*world.train(config, index), trial, config)

    def worth(self, job: Job) -> float:
        return max(job.seen)

    def prune(self, job: Job) -> bool:
        job.handle.report(job.seen[-1], len(job.seen))
        return bool(job.handle.should_prune())

    def end(self, job: Job, pruned: bool) -> None:
        if pruned:  # Optuna then takes the last value reported
            self.study.tell(job.handle, state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(job.handle, max(job.seen))


class Twice:
    """The better of the two best, each trained with one more seed."""

    def __init__(self, world: Trains) -> None:
        self.world = world
        self.two: list[tuple[float, Job]] = []
        self.known: dict[int, float] = {}  # the worth by the other seed, by job

    def choose(self, job: Job, worth: float) -> tuple[float, float]:
        """What the second trainings cost, and the noiseless value of the choice."""
        others = [pair for pair in self.two if pair[1] is not job]
        self.two = sorted([*others, (worth, job)], key=lambda pair: -pair[0])[:2]
        means = [((own + self._again(of)) / 2, of.plain) for own, of in self.two]
        return sum(of.cost * len(of.curve) for _, of in self.two), max(means)[1]

    def _again(self, job: Job) -> float:
        if id(job) not in self.known:
            curve, _, _ = self.world.train(job.config, 1_000_000 + len(self.known))
            self.known[id(job)] = MRR.steady(curve) or 0.0
        return self.known[id(job)]


def run(
    search: Search, world: World, budget: float, workers: int, twice: Twice | None = None
) -> Trace:
    """Spends ``budget`` on ``workers``, each of which takes its time for every epoch."""
    trace, best = Trace(), (-1.0, 0.0)
    epochs = world.surrogate.table.curves.shape[1]
    spent, index = 0.0, 0
    waiting: list[tuple[float, int, Job]] = []
    for worker in range(workers):
        job = search.ask(world, index)
        heapq.heappush(waiting, (job.cost, worker, job))
        index += 1
    while spent < budget:
        now, worker, job = heapq.heappop(waiting)
        job.seen.append(job.curve[len(job.seen)])
        spent += job.cost
        trace.epochs += 1
        if (worth := search.worth(job)) > best[0]:
            best = worth, job.plain
        extra, plain = twice.choose(job, worth) if twice else (0.0, best[1])
        trace.spent.append(max(spent + extra, trace.spent[-1] if trace.spent else 0.0))
        trace.value.append(plain)
        pruned = search.prune(job)
        if pruned or len(job.seen) == epochs:
            pruned = pruned and len(job.seen) < epochs
            trace.trials += 1
            trace.first_epochs += pruned and len(job.seen) == 1
            search.end(job, pruned)
            job = search.ask(world, index)
            index += 1
        heapq.heappush(waiting, (now + job.cost, worker, job))
    return trace
