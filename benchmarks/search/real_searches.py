"""What ways to search find in the same time on real logs, with real trainings.

    python benchmarks/search/real_searches.py --data DIR --cache DIR --out ROWS.csv [--set NAME …]
        [--strategy NAME …] [--seeds 1 2 3] [--seconds 240] [--marks 30 60 120 240]
        [--space gru4rec_xe_shared] [--fixed K=V …]

Where simulate.py answers from tables, this trains: in a space of the tables, on their parts of real
logs (curve_table.py), with the same search code and the ways of simulate.py; ``--fixed`` without a
word leaves the space as it is, all of its epochs with it. A search ends after so many seconds of
the processor in training and ranking (one thread, so a machine that does other work changes
little). Whenever a trial becomes the best by valid, its model is also judged on test, which the
search never sees and no second counts: what a search is worth after so many seconds is the test
value of what it then thought best. Rows that are there already are not made again. The table: means
over seeds and their spread, after each of --marks.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import torch
from curve_table import CUTS, FIXED, METRIC, dataset
from replay import Job, Ours
from rows import Rows
from simulate import UNSEEN, started, starting
from strategies import STRATEGIES, Strategy

from paropt.data.dataset import Dataset
from paropt.errors import OutOfMemory, TrainingError
from paropt.search.space.file import read_space
from paropt.search.space.shipped import find_space
from paropt.search.space.space import Config, Space
from paropt.search.strategy.sampling import derived_seed
from paropt.training.evaluation.ranking.judging import evaluate
from paropt.training.fitting.fit import Fit

WAYS = ["tpe + asha, cost aside", "tpe + asha, per second", "portfolio"]
COLUMNS = ("set", "strategy", "seed", "spent", "worth", "test", "trials", "epochs")
Row = dict[str, Any]


class World:
    """Trains what a search asks for; looks like simulate.World to it."""

    def __init__(self, found: Dataset, seed: int) -> None:
        self.found, self.seed = found, seed
        self.test = found.view("without-valid")
        self.filter_seen = found.meta["protocol"] == "leave-one-out"
        self.fit: Fit | None = None

    def train(self, config: Config, index: int) -> tuple[list[float], float, float]:
        params = {name: value for name, value in config.items() if name != "model"}
        seed = derived_seed("training", self.seed, index)
        view, model = self.found.view("search"), str(config["model"])
        self.fit = Fit(model, params, view, seed=seed, filter_seen=self.filter_seen)
        return [0.0] * self.fit.n_epochs, 0.0, 0.0

    def tested(self) -> float:
        assert self.fit is not None
        n_items = self.test.n_items
        judged = evaluate(self.fit.model, self.test.test, n_items, filter_seen=self.filter_seen)
        return judged.metrics[METRIC]


def search(world: World, space: Space, way: Strategy, seconds: float) -> Iterator[Row]:
    """A row whenever another trial, or another epoch, is thought best; and one at the end."""
    ours = Ours(space, way, derived_seed("search", world.seed))
    spent, best, trials, epochs, test = 0.0, -1.0, 0, 0, 0.0
    while spent < seconds:
        job, taken = ours.ask(world, trials), 0.0
        for took, value in trained(world):
            spent, taken, epochs = spent + took, taken + took, epochs + 1
            job.seen.append(value)
            job.cost = taken / len(job.seen)
            if (worth := ours.worth(job)) > best:
                best, test = worth, world.tested()
                yield {"spent": spent, "worth": best, "test": test}
            if spent >= seconds or ours.prune(job):
                break
        ended_early = len(job.seen) < len(job.curve)
        if job.seen:
            ours.end(job, ended_early)
        else:
            failed(ours, job)
        trials += 1
    yield {"spent": spent, "worth": best, "test": test, "trials": trials, "epochs": epochs}


def trained(world: World) -> Iterator[tuple[float, float]]:
    """Seconds of the processor and the value of each epoch; none after it diverged."""
    assert world.fit is not None
    reports = world.fit.epochs()
    while True:
        began = time.process_time()
        try:
            report = next(reports, None)
        except (TrainingError, OutOfMemory):
            return
        if report is None:
            return
        yield time.process_time() - began, report.metrics[METRIC]


def failed(ours: Ours, job: Job) -> None:
    """It has no value, and is not proposed again."""
    job.seen = [0.0]
    ours.end(job, True)


def table(rows: list[Row], marks: list[float]) -> Iterator[str]:
    """Of each set and way what the seeds had after each mark, by test."""
    runs: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        runs[row["set"], row["strategy"]][row["seed"]].append(row)
    yield f"| set | way | seeds | {' | '.join(f'after {m:g} s' for m in marks)} | trials |"
    yield "|---" * (len(marks) + 4) + "|"
    for (name, way), by_seed in sorted(runs.items()):
        ended = [found for found in by_seed.values() if found[-1]["trials"]]
        if not ended:
            continue
        cells = []
        for mark in marks:
            values = [_at(found, mark) for found in ended]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.4f} ± {spread:.4f}")
        trials = statistics.mean(int(found[-1]["trials"]) for found in ended)
        yield f"| {name} | {way} | {len(ended)} | {' | '.join(cells)} | {trials:.0f} |"


def _at(found: list[Row], mark: float) -> float:
    within = [row for row in found if float(row["spent"]) <= mark]
    return float(within[-1]["test"]) if within else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="keep the prepared sets here")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", choices=[*CUTS], nargs="*", default=["retailrocket"])
    parser.add_argument("--strategy", choices=[*STRATEGIES], nargs="*", default=WAYS)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--space", choices=[*FIXED], default="gru4rec_xe_shared")
    parser.add_argument("--fixed", nargs="*", help="else as the tables have it")
    parser.add_argument("--marks", type=float, nargs="*", default=[30, 60, 120, 240])
    args = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    kept = Rows(args.out, COLUMNS)
    fixed = FIXED[args.space] if args.fixed is None else args.fixed
    space = read_space(find_space(args.space) or args.space, list(fixed))
    for seed in args.seeds:
        for name in args.set:
            for way in args.strategy:
                key = {"set": name, "strategy": way, "seed": str(seed)}
                if kept.has(key):
                    continue
                chosen = STRATEGIES[way]
                points = space if chosen.start == "space" else started(space, ())
                if chosen.start in UNSEEN:
                    points = starting(space, chosen.start, args.space, name)
                world = World(dataset(args.data, name, args.cache), seed)
                rows = [{**key, **row} for row in search(world, points, chosen, args.seconds)]
                kept.add(rows)
                print(f"{name} {way} {seed}: {rows[-1]}", flush=True)
    for line in table(kept.read(), args.marks):
        print(line)


if __name__ == "__main__":
    main()
