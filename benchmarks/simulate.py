"""What a sampler and a pruner find with how little, replayed on real learning curves.

    python benchmarks/simulate.py [--table curves/yoochoose_100k.csv] [--strategy NAME …]
        [--seeds 50] [--workers 1] [--budget 100]

Searches run with paropt's own sampler and pruning code, or Optuna's as installed, on the answers of
a surrogate (surrogate.py) with the real noise of seeds, in simulated time. Spend is in trainings of
all epochs: a training of average seconds is 1. Regret is how far the noiseless value of the
configuration that the search thinks best lies below the best there is, in per cent of that; paropt
thinks best what `best_first` puts first, Optuna what has the highest value. The last columns: at
which spend the median regret is what `official` (TPE as Optuna has it, no pruning, one process) has
with its full budget, and as a share of that budget.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
import torch
from portfolio import PUBLISHED, Portfolios, left_out, tables
from surrogate import Surrogate, read_table

from paropt.search.setup.warm_start import POINTS, best_points, warmed
from paropt.search.space.space import Config, Space
from paropt.search.study.history import History, Record
from paropt.search.study.pruning import complete_pruner, reason_to_prune, stands_still
from paropt.search.study.sampling import Sampler, complete_sampler, derived_seed
from paropt.training.evaluation import objective
from paropt.training.evaluation.objective import Objective

HERE = Path(__file__).parent
TABLES = {name: HERE / "curves" / f"{name}.csv" for name in ("yoochoose_100k", "retailrocket")}
METRIC = "mrr@20"
MRR = Objective(METRIC)
MARKS = (5, 10, 25, 50, 100)  # spends at which regrets are shown
EARLIER = 25  # what the study spent that a warm start is from


@dataclass(frozen=True)
class Strategy:
    """A way to search.

    ``start``: "space" begins with the space's own points, which have seen the tables of all logs,
    "none" with none; "best" also with those of a search on the other table, as ``--warm-start``
    does, "worst" with that search's worst; "portfolio" with those that portfolio.py chooses on all
    tables of the space but the log's own; "published" with the space's that say whose they are, but
    for the log's own; "both" with these after the portfolio.
    ``steady``: of so many best epochs paropt takes the mean when it compares trials.
    ``sampler`` is TPE that asks for no cost, unless the strategy is paropt's own today.
    ``clock``: rungs are in seconds, those of an average trial's epochs.
    ``promote``: before anything new, a trial that was cut goes on if it would not be cut today, as
    asynchronous Hyperband promotes (Li et al., MLSys 2020).
    ``twice``: whoever asks for the best has the two best trained with one more seed first, and
    pays for that.
    """

    sampler: Mapping[str, Any] | str = field(default_factory=lambda: tpe(0))
    pruner: Mapping[str, Any] | str = "none"
    start: str = "none"
    steady: int = objective.STEADY
    clock: bool = False
    promote: bool = False
    twice: bool = False
    optuna: Callable[[int], tuple[Any, Any]] | None = None


def _asha(seed: int) -> tuple[Any, Any]:
    sampler = optuna.samplers.TPESampler(seed=seed)
    return sampler, optuna.pruners.SuccessiveHalvingPruner(reduction_factor=3)


def _hyperband(seed: int) -> tuple[Any, Any]:
    sampler = optuna.samplers.TPESampler(seed=seed)
    return sampler, optuna.pruners.HyperbandPruner(max_resource=10)


def _median(seed: int) -> tuple[Any, Any]:
    return optuna.samplers.TPESampler(seed=seed), optuna.pruners.MedianPruner()


def _official(seed: int) -> tuple[Any, Any]:
    return optuna.samplers.TPESampler(seed=seed), optuna.pruners.NopPruner()


def tpe(cost: int) -> dict[str, Any]:
    return {"name": "tpe", "cost": cost}


def _rungs(first: int, factor: int) -> dict[str, Any]:
    return {"name": "asha", "min_epochs": first, "factor": factor}


OPTUNAS_TPE = {"name": "TPESampler", "multivariate": True, "constant_liar": True}

STRATEGIES = {
    "official": Strategy(optuna=_official),
    "random": Strategy("random"),
    "Optuna's TPE + asha": Strategy(OPTUNAS_TPE, pruner="asha"),
    "Optuna's median": Strategy(optuna=_median),
    "Optuna's ASHA": Strategy(optuna=_asha),
    "Optuna's Hyperband": Strategy(optuna=_hyperband),
    "tpe": Strategy(),
    "tpe + median": Strategy(pruner="median"),
    "tpe + asha": Strategy(pruner="asha"),
    "tpe + start": Strategy(start="space"),
    "tpe + start + median": Strategy(pruner="median", start="space"),
    **{
        f"tpe + start + asha {first}/{factor}": Strategy(
            pruner=_rungs(first, factor), start="space"
        )
        for first, factor in ((1, 2), (1, 3), (2, 2), (2, 3), (2, 4), (3, 2))
    },
    **{
        f"paropt, still {still}": Strategy(
            "tpe", pruner={"name": "asha", "still": still}, start="space"
        )
        for still in (0, 20, 40)
    },
    **{
        f"{name}, {kind}": Strategy(pruner="asha", start=start, **more)
        for name, start in (
            ("paropt", "space"),
            ("tpe + asha", "none"),
            ("portfolio", "portfolio"),
        )
        for kind, more in (
            ("cost aside", {}),
            ("per second", {"sampler": tpe(1)}),
            ("per second, rungs in seconds", {"clock": True, "sampler": tpe(1)}),
        )
    },
    "warm": Strategy(pruner="asha", start="best"),
    "warmed badly": Strategy(pruner="asha", start="worst"),
    "paropt": Strategy("tpe", pruner="asha", start="space"),
    "portfolio": Strategy("tpe", pruner="asha", start="portfolio"),
    "published": Strategy("tpe", pruner="asha", start="published"),
    "portfolio, then published": Strategy("tpe", pruner="asha", start="both"),
    "portfolio, promotion": Strategy("tpe", pruner="asha", start="portfolio", promote=True),
    "portfolio, the last two twice": Strategy("tpe", pruner="asha", start="portfolio", twice=True),
    "paropt, promotion": Strategy("tpe", pruner="asha", start="space", promote=True),
    "paropt, the last two twice": Strategy("tpe", pruner="asha", start="space", twice=True),
    "paropt by the best epoch": Strategy(pruner="asha", start="space", steady=1),
}


# -- the world that a search looks at -----------------------------------------------------------


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


# -- many seeds ---------------------------------------------------------------------------------


@cache
def surrogate(path: Path) -> Surrogate:
    return Surrogate(read_table(path))


@cache
def portfolios(space: str) -> Portfolios:
    return Portfolios(tables(space))


def log_of(path: Path) -> str:
    """The log that a table is of."""
    return path.stem.split("-")[0]


def started(space: Space, points: Sequence[Mapping[str, Any]]) -> Space:
    return replace(space, start=tuple(points), start_from=(None,) * len(points))


def published_elsewhere(space: Space, log: str) -> list[Mapping[str, Any]]:
    """The start points that say whose they are, but for those published for the log."""
    own = PUBLISHED.get(log, "nobody")
    pairs = zip(space.start, space.start_from, strict=True)
    return [point for point, origin in pairs if origin and own not in origin]


def earlier(path: Path, seed: int, best: bool) -> list[dict[str, Any]]:
    """The configurations of a search on another table that a warm start begins with."""
    known = surrogate(path)
    search = Ours(known.table.space, STRATEGIES["paropt"], derived_seed("earlier", seed))
    run(search, World(known, derived_seed("earlier", seed)), EARLIER, 1)
    records = [record for record in search.history.records.values() if record.scored]
    if best:
        return best_points(known.table.space, records, MRR)
    records.sort(key=lambda record: record.value or 0.0)
    return [dict(record.meta["searched"]) for record in records[:POINTS]]


def simulate(
    path: Path, strategy: Strategy, seed: int, budget: float, workers: int, other: Path | None
) -> Trace:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    objective.STEADY = strategy.steady
    known = surrogate(path)
    space = known.table.space
    if strategy.start == "none":
        space = replace(space, start=())
    elif strategy.start in ("portfolio", "published", "both"):
        points = published_elsewhere(space, log_of(path))
        if strategy.start != "published":
            chosen = left_out(portfolios(known.table.made["space"]), log_of(path))
            points = chosen + (points if strategy.start == "both" else [])
        space = started(space, points)
    elif strategy.start != "space":
        assert other is not None
        space = warmed(space, earlier(other, seed, strategy.start == "best"))
    kind = Optunas if strategy.optuna else Ours
    world = World(known, seed)
    twice = Twice(world) if strategy.twice else None
    search = kind(space, strategy, derived_seed("search", seed))
    return run(search, world, budget, workers, twice)


def regret(known: Surrogate, value: float) -> float:
    """In per cent of the best there is."""
    return 100 * (known.best - value) / known.best


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % of the median, by bootstrap."""
    rng = np.random.default_rng(1)
    drawn = rng.choice(np.asarray(values), (2000, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return float(low), float(high)


def spend_to(known: Surrogate, traces: Sequence[Trace], target: float, budget: float) -> float:
    """The least spend from which on the median regret is at most ``target``."""
    grid = np.arange(0.5, budget + 0.25, 0.5)
    found = float("inf")
    for spend in grid[::-1]:
        median = statistics.median(regret(known, trace.at(spend)) for trace in traces)
        if median > target + 1e-9:
            break
        found = float(spend)
    return found


@dataclass(frozen=True)
class Runs:
    """How often and how long to search."""

    seeds: int
    budget: float  # the official way's
    share: float  # of it, for everybody else
    workers: int
    pool: Any
    keep: Path | None  # what Optuna's own searches found, who are slow and do not change

    def of(self, path: Path, name: str, other: Path | None) -> list[Trace]:
        alone = name == "official"
        budget = self.budget if alone else self.share * self.budget
        workers = 1 if alone else self.workers
        way, found, jobs = STRATEGIES[name], {}, {}
        for seed in range(self.seeds):
            kept = self._kept(path, way, f"{name} {seed} {budget:g} {workers}")
            if kept is not None and kept.exists():
                found[seed] = Trace(**json.loads(kept.read_text()))
            else:
                job = self.pool.submit(simulate, path, way, seed, budget, workers, other)
                jobs[seed] = job, kept
        for seed, (job, kept) in jobs.items():
            found[seed] = job.result()
            if kept is not None:
                kept.write_text(json.dumps(asdict(found[seed])))
        return [found[seed] for seed in range(self.seeds)]

    def _kept(self, path: Path, way: Strategy, what: str) -> Path | None:
        if self.keep is None or way.optuna is None:
            return None
        self.keep.mkdir(parents=True, exist_ok=True)
        words = f"{what} {optuna.__version__}".encode() + path.read_bytes()
        return self.keep / f"{hashlib.sha256(words).hexdigest()[:16]}.json"


@dataclass(frozen=True)
class Outcome:
    """What a strategy found on a table: the regrets of all seeds at the marks that it reached, and
    the spends to the official way's regret at the half and at the whole of its budget."""

    name: str
    at: dict[int, list[float]]
    trials: float
    to_half: float
    to_whole: float

    def row(self, marks: Sequence[int], budget: float) -> str:
        cells = [f"{statistics.median(v):.2f} ({interval(v)[0]:.2f}…{interval(v)[1]:.2f})"
                 if (v := self.at.get(mark)) else "–" for mark in marks]  # fmt: skip
        share = said(self.to_whole / budget, 2)
        spends = f"{said(self.to_half)} | {said(self.to_whole)} | {share}"
        return f"| {self.name} | {' | '.join(cells)} | {self.trials:g} | {spends} |"


def said(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if value < float("inf") else "–"


def outcomes(path: Path, names: Sequence[str], runs: Runs, other: Path | None) -> Iterator[Outcome]:
    """The official way's first."""
    known = surrogate(path)
    half = whole = float("nan")
    for name in names:
        traces = runs.of(path, name, other)
        spent = min(runs.budget, *(trace.spent[-1] for trace in traces))
        at = {
            mark: [regret(known, trace.at(mark)) for trace in traces]
            for mark in marks(runs.budget)
            if mark <= spent + 1
        }
        if name == "official":
            half, whole = (
                statistics.median(regret(known, trace.at(runs.budget * part)) for trace in traces)
                for part in (0.5, 1)
            )
        trials = statistics.median(trace.trials for trace in traces)
        to_half, to_whole = (spend_to(known, traces, target, spent) for target in (half, whole))
        yield Outcome(name, at, trials, to_half, to_whole)


def marks(budget: float) -> list[int]:
    return [mark for mark in MARKS if mark <= budget]


def head(budget: float) -> str:
    at, half = marks(budget), f"{budget / 2:g}"
    cells = " | ".join(f"at {mark}" for mark in at)
    spends = f"to official's at {half} | to its at {budget:g} | share"
    return f"| | {cells} | trials | {spends} |\n" + "|---" * (len(at) + 5) + "|"


def over_logs(found: Mapping[Path, Sequence[Outcome]], budget: float) -> Iterator[str]:
    """The medians of all tables, of their median and worst."""
    at = marks(budget)
    yield f"| | {' | '.join(f'at {mark}' for mark in at)} | to official's at {budget / 2:g} | " \
          f"to its at {budget:g} |"  # fmt: skip
    yield "|---" * (len(at) + 3) + "|"
    for of_way in zip(*found.values(), strict=True):
        cells = []
        for mark in at:
            values = [statistics.median(o.at[mark]) for o in of_way if mark in o.at]
            whole = len(values) == len(of_way)
            cells.append(
                f"{statistics.median(values):.2f}, worst {max(values):.2f}" if whole else "–"
            )
        for spends in ([o.to_half for o in of_way], [o.to_whole for o in of_way]):
            cells.append(f"{said(statistics.median(spends))}, worst {said(max(spends))}")
        yield f"| {of_way[0].name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--table", type=Path, nargs="+", default=list(TABLES.values()))
    parser.add_argument("--other", type=Path, help="the table that warm starts are from")
    parser.add_argument("--strategy", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--budget", type=float, default=100, help="the official way's")
    parser.add_argument("--share", type=float, default=0.25, help="of it, for everybody else")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="a folder for what Optuna's searches found")
    args = parser.parse_args()
    names = ["official", *(name for name in args.strategy if name != "official")]
    torch.set_num_threads(1)
    others = {args.table[k]: args.table[k - 1] for k in range(len(args.table))}
    if args.other is not None:
        others = dict.fromkeys(args.table, args.other)
    for path in {*others, *others.values()}:  # before the processes fork, so that they need not
        known = surrogate(path)
        if any(STRATEGIES[name].start in ("portfolio", "both") for name in names):
            portfolios(known.table.made["space"])
    found: dict[Path, list[Outcome]] = {}
    with ProcessPoolExecutor(args.processes, get_context("fork")) as pool:
        runs = Runs(args.seeds, args.budget, args.share, args.workers, pool, args.keep)
        for path, other in others.items():
            began = time.perf_counter()
            known = surrogate(path)
            errors = ", ".join(f"{key} {value:.4g}" for key, value in known.errors().items())
            made = known.table.made
            print(f"\n{made['set']} ({made['space']}, {made['metric']} on {made['split']}, "
                  f"data {made['fingerprint'][:12]}…), {len(known.table.x)} configurations, "
                  f"{args.seeds} seeds, {args.workers} worker(s)\n"
                  f"best {known.best:.4f}; {errors}\n")  # fmt: skip
            print(head(runs.budget))
            for outcome in outcomes(path, names, runs, other):
                print(outcome.row(marks(runs.budget), runs.budget), flush=True)
                found.setdefault(path, []).append(outcome)
            print(f"\n{time.perf_counter() - began:.0f} s", flush=True)
    print(f"\n{len(found)} tables, medians over seeds\n")
    for line in over_logs(found, args.budget):
        print(line)


if __name__ == "__main__":
    main()
