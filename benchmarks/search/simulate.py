"""What a sampler and a pruner find with how little, replayed on real learning curves.

    python benchmarks/search/simulate.py [--table curves/yoochoose_100k.csv] [--strategy NAME …]
        [--seeds 50] [--workers 1] [--budget 100]

Searches run with paropt's own sampler and pruning code, or Optuna's as installed, on the answers of
a surrogate (surrogate.py) with the real noise of seeds, in simulated time. Spend is in trainings of
all epochs: a training of average seconds is 1. Regret is how far the noiseless value of the
configuration that the search thinks best lies below the best there is, in per cent of that; paropt
thinks best what `best_first` puts first, Optuna what has the highest value. The last columns: at
which spend the median regret is what `official` (TPE as Optuna has it, no pruning, one process) has
with half its budget and with all of it, that as a share of the budget. Last of all, the medians
over the tables.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from portfolio import left_out, portfolios, published_for
from replay import MRR, Optunas, Ours, Trace, Twice, World, run
from strategies import STRATEGIES, Strategy
from surrogate import Surrogate, read_table

from paropt.search.setup.warm_start import POINTS, best_points, warmed
from paropt.search.space.space import Space
from paropt.search.strategy.sampling import derived_seed
from paropt.training.evaluation import objective

HERE = Path(__file__).parent
TABLES = {name: HERE / "curves" / f"{name}.csv" for name in ("yoochoose_100k", "retailrocket")}
MARKS = (5, 10, 25, 50, 100)  # spends at which regrets are shown
UNSEEN = ("portfolio", "published", "both")
EARLIER = 25  # what the study spent that a warm start is from


@cache
def surrogate(path: Path) -> Surrogate:
    return Surrogate(read_table(path))


def log_of(path: Path) -> str:
    """The log that a table is of."""
    return path.stem.split("-")[0]


def started(space: Space, points: Sequence[Mapping[str, Any]]) -> Space:
    return replace(space, start=tuple(points), start_from=(None,) * len(points))


def published_elsewhere(space: Space, log: str) -> list[Mapping[str, Any]]:
    """The start points that say whose they are, but for those published for the log."""
    own = published_for(space).get(log, "nobody")
    pairs = zip(space.start, space.start_from, strict=True)
    return [point for point, origin in pairs if origin and own not in origin]


def starting(space: Space, start: str, name: str, log: str) -> Space:
    """The space ``name`` with start points that have not seen the log, one of UNSEEN."""
    known = published_elsewhere(space, log) if start != "portfolio" else []
    chosen = left_out(portfolios(name), log) if start != "published" else []
    return started(space, [*chosen, *known])


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
    elif strategy.start in UNSEEN:
        space = starting(space, strategy.start, known.table.made["space"], log_of(path))
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
