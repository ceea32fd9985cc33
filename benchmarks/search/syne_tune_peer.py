"""Syne Tune's schedulers on the replayed searches of simulate.py, its transfer methods among them.

    PYTHON benchmarks/search/syne_tune_peer.py [--table curves/retailrocket-gru4rec_xe_shared.csv …]
        [--method ASHA CQR …] [--seeds 10] [--budget 10]

PYTHON is that of an environment with paropt and `syne-tune` (0.16). The same surrogates, noise of
seeds and clock as simulate.py's, one worker; a search thinks best what has the highest value. What
transfers from other logs is given the rows of their tables as paropt's portfolio is: without the
logs of the same site, what these proposed and what was published for them.

ASHA draws at random, ASHA + CQR by conformalised quantile regression (Salinas et al., ICML 2023),
BOHB by kernel densities; *zero-shot* is a portfolio by mean ranks (Wistuba et al., ICDM 2015),
*quantiles* draws from a regression on the other logs' quantiles (Salinas et al., ICML 2020), *box*
is ASHA + CQR within the ranges of the other logs' best rows (Perrone et al., NeurIPS 2019).
Zero-shot and quantiles train every configuration to its end, as there they have no pruning.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from portfolio import kin, portfolios
from replay import Job, Trains, World, run
from simulate import interval, log_of, regret, surrogate
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import Domain, choice, uniform
from syne_tune.optimizer.baselines import ASHA, ASHACQR, BOHB
from syne_tune.optimizer.scheduler import SchedulerDecision
from syne_tune.optimizer.schedulers.single_objective_scheduler import SingleObjectiveScheduler
from syne_tune.optimizer.schedulers.transfer_learning.bounding_box import BoundingBox
from syne_tune.optimizer.schedulers.transfer_learning.quantile_based import (
    quantile_based_searcher,
)
from syne_tune.optimizer.schedulers.transfer_learning.transfer_learning_task_evaluation import (
    TransferLearningTaskEvaluations,
)
from syne_tune.optimizer.schedulers.transfer_learning.zero_shot import ZeroShotTransfer

from paropt.search.space.space import Config, Space
from paropt.search.strategy.sampling import derived_seed

HERE = Path(__file__).parent
METRIC, CLOCK = "loss", "epoch"  # the loss is MRR@20 below zero
MARKS = (1, 2, 3, 5, 8, 10)
Domains = dict[str, Domain]
Tasks = dict[str, TransferLearningTaskEvaluations]


def domains(space: Space) -> Domains:
    """The space as Syne Tune has it; numbers are snapped to their grids when they are trained."""
    return {
        p.label: choice(list(p.choices)) if p.kind == "categorical" else uniform(p.low, p.high)
        for p in space.searched
    }


def tasks(space_name: str, log: str, known: Domains) -> Tasks:
    """What the logs of other sites tell: the rows that all tables share."""
    shared = portfolios(space_name)
    rows = [k for k, number in enumerate(shared.numbers) if not shared.has_seen(number, log)]
    table = pd.DataFrame([{name: shared.configs[k][name] for name in known} for k in rows])
    found = {}
    for other, of_log in shared.known.items():
        if not kin(other, log):
            places = [of_log.numbers.index(shared.numbers[k]) for k in rows]
            found[other] = TransferLearningTaskEvaluations(
                known, table, [METRIC], -of_log.curves[places][:, None, :, None]
            )
    return found


def schedulers(epochs: int) -> dict[str, Callable[[Domains, Tasks, int], Any]]:
    def with_rungs(kind: Any) -> Callable[[Domains, Tasks, int], Any]:
        return lambda known, _, seed: kind(known, METRIC, CLOCK, epochs, random_seed=seed)

    def box(known: Domains, told: Tasks, seed: int) -> Any:
        def inside(smaller: Domains, metric: str, minimise: bool, number: int) -> Any:
            return ASHACQR(smaller, metric, CLOCK, epochs, random_seed=number)

        return BoundingBox(inside, known, METRIC, told, random_seed=seed)

    def quantiles(known: Domains, told: Tasks, seed: int) -> Any:
        kind = quantile_based_searcher.QuantileBasedSurrogateSearcher
        searcher = kind(known, told, random_seed=seed)
        return SingleObjectiveScheduler(known, METRIC, searcher=searcher, random_seed=seed)

    def zero_shot(known: Domains, told: Tasks, seed: int) -> Any:
        return ZeroShotTransfer(
            known, METRIC, told, sort_transfer_learning_evaluations=False, random_seed=seed
        )

    return {
        "ASHA": with_rungs(ASHA),
        "ASHA + CQR": with_rungs(ASHACQR),
        "BOHB": with_rungs(BOHB),
        "zero-shot": zero_shot,
        "quantiles": quantiles,
        "box, ASHA + CQR": box,
    }


class SyneTunes:
    """A scheduler as replay.py asks searches."""

    def __init__(self, space: Space, scheduler: Any) -> None:
        self.space, self.scheduler = space, scheduler

    def ask(self, world: Trains, index: int) -> Job:
        trial = Trial(index, self._suggested(), datetime(2026, 1, 1))
        self.scheduler.on_trial_add(trial)
        config: Config = self.space.walk(lambda p: p.snap(trial.config[p.label]))
        return Job(*world.train(config, index), trial, config)

    def _suggested(self) -> Mapping[str, Any]:
        if isinstance(self.scheduler, ZeroShotTransfer):
            # its suggest() draws at random in 0.16; this is the method
            config: dict[str, Any] = self.scheduler.get_config()
            return config
        suggested: Mapping[str, Any] = self.scheduler.suggest().config
        return suggested

    def worth(self, job: Job) -> float:
        return max(job.seen)

    def prune(self, job: Job) -> bool:
        decision = self.scheduler.on_trial_result(job.handle, self._result(job))
        return bool(decision == SchedulerDecision.STOP) and len(job.seen) < len(job.curve)

    def _result(self, job: Job) -> dict[str, Any]:
        return {METRIC: -job.seen[-1], CLOCK: len(job.seen)}

    def end(self, job: Job, pruned: bool) -> None:
        if pruned:
            self.scheduler.on_trial_remove(job.handle)
        else:
            self.scheduler.on_trial_complete(job.handle, self._result(job))


def searched(path: Path, method: str, seed: int, budget: float) -> list[float]:
    """The regret at each mark."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    known = surrogate(path)
    space, number = known.table.space, derived_seed("search", seed) % (1 << 31)
    np.random.seed(number)  # Syne Tune's brackets draw from it
    own = domains(space)
    told = tasks(known.table.made["space"], log_of(path), own)
    scheduler = schedulers(known.table.curves.shape[1])[method](own, told, number)
    trace = run(SyneTunes(space, scheduler), World(known, seed), budget, 1)
    return [regret(known, trace.at(mark)) for mark in MARKS if mark <= budget]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    tables = sorted((HERE / "curves").glob("*-gru4rec_xe_shared.csv"))
    methods = list(schedulers(1))
    parser.add_argument("--table", type=Path, nargs="+", default=tables)
    parser.add_argument("--method", nargs="+", choices=methods, default=methods)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=float, default=10)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for path in args.table:  # before the processes fork, so that they need not
        portfolios(surrogate(path).table.made["space"])
    marks = [mark for mark in MARKS if mark <= args.budget]
    print(f"regret in per cent, {args.seeds} seeds, at so many average trainings\n")
    print(f"| | | {' | '.join(map(str, marks))} |\n{'|---' * (len(marks) + 2)}|")
    with ProcessPoolExecutor(args.processes, get_context("fork")) as pool:
        for method in args.method:
            medians = []
            for path in args.table:
                jobs = [pool.submit(searched, path, method, seed, args.budget)
                        for seed in range(args.seeds)]  # fmt: skip
                columns = list(zip(*(job.result() for job in jobs), strict=True))
                medians.append([statistics.median(values) for values in columns])
                cells = [f"{statistics.median(v):.2f} ({interval(v)[0]:.2f}…{interval(v)[1]:.2f})"
                         for v in columns]  # fmt: skip
                print(f"| {log_of(path)} | {method} | {' | '.join(cells)} |", flush=True)
            for what, over in (("median", statistics.median), ("worst", max)):
                values = " | ".join(f"{over(column):.2f}" for column in zip(*medians, strict=True))
                print(f"| {what} | {method} | {values} |", flush=True)


if __name__ == "__main__":
    main()
