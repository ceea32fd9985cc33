"""How many of the trials that run at one time have the same shape, so that they could be packed.

    python benchmarks/search/packing_shapes.py [--table curves/retailrocket-gru4rec_xe_shared.csv …]
        [--workers 8] [--seeds 10] [--budget 25]

Trials can be trained as one (packing_bound.py) where all that gives their tensors a form is the
same: sizes, batches, lengths, samples, losses, whatever chooses other operations. Searches are
replayed on tables of real learning curves (simulate.py) with ``--workers`` trials at a time; each
trial that begins finds so many others of its shape under way, and the largest group is the most
that one process could train together. ``at most`` is what the rate of all could rise by if every
group were packed from its first step to its last at no cost, and a step alone spends the share
``--beside`` on what packing saves; trials that began at other times would have to wait for that.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections import Counter
from pathlib import Path

import optuna
from replay import Job, Ours, Trains, World, run
from simulate import surrogate
from strategies import STRATEGIES, Strategy

from paropt.search.space.space import Config, Space
from paropt.search.strategy.sampling import derived_seed

# what stacked trainings may differ in: numbers that multiply, or chances
FREE = frozenset({"learning_rate", "momentum", "dropout", "dropout_p_embed", "dropout_p_hidden",
                  "weight_decay", "warmup", "schedule", "sample_alpha", "logq", "gbce_t",
                  "temperature", "bpreg", "grad_clip"})  # fmt: skip
HERE = Path(__file__).parent
Shape = tuple[tuple[str, object], ...]


def shape(space: Space, config: Config) -> Shape:
    """What two trials must agree in to be trained as one."""
    return tuple((p.name, config[p.name]) for p in space.active(config) if p.name not in FREE)


class Counting(Ours):
    """A search that notes whenever a trial begins how many run in each shape."""

    def __init__(self, space: Space, strategy: Strategy, seed: int) -> None:
        super().__init__(space, strategy, seed)
        self.space = space
        self.running: list[Job] = []
        self.groups: list[list[int]] = []

    def ask(self, world: Trains, index: int) -> Job:
        job = super().ask(world, index)
        self.running.append(job)
        shapes = Counter(shape(self.space, other.config) for other in self.running)
        self.groups.append(list(shapes.values()))
        return job

    def end(self, job: Job, pruned: bool) -> None:
        self.running.remove(job)
        super().end(job, pruned)


def at_most(groups: list[int], beside: float) -> float:
    """By what the rate rises if each group pays once what a step costs ``beside`` its work."""
    return sum(groups) / sum(k * (1 - beside) + beside for k in groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    tables = sorted((HERE / "curves").glob("*-gru4rec_xe_shared.csv"))
    parser.add_argument("--table", type=Path, nargs="+", default=tables)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=float, default=25)
    parser.add_argument("--beside", type=float, nargs="+", default=[0.3, 0.5, 0.75])
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    shares = " | ".join(f"at most, {beside:g} beside" for beside in args.beside)
    print(f"{args.workers} trials at a time, {args.seeds} seeds\n")
    print(f"| table | trials | largest group | {shares} |")
    print("|---" * (3 + len(args.beside)) + "|")
    for path in args.table:
        known = surrogate(path)
        found: list[list[int]] = []
        for seed in range(args.seeds):
            search = Counting(known.table.space, STRATEGIES["paropt"], derived_seed("search", seed))
            run(search, World(known, seed), args.budget, args.workers)
            found += search.groups[args.workers - 1 :]  # from when all of them run
        largest = statistics.mean(max(groups) for groups in found)
        gains = " | ".join(
            f"{statistics.mean(at_most(groups, beside) for groups in found):.2f} ×"
            for beside in args.beside
        )
        print(f"| {path.stem} | {len(found) // args.seeds} | {largest:.1f} | {gains} |", flush=True)


if __name__ == "__main__":
    main()
