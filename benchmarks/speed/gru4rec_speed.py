"""GRU4Rec's training speed at published configurations, beside the official version's.

    python benchmarks/speed/gru4rec_speed.py [--threads 1 2] [--rounds 5] [--train LOG.tsv]
        [--official CHECKOUT [--official-python PYTHON]] [--accelerate none]

Trains one epoch per round on a log (columns SessionId, ItemId, Time; a made-up one of 37,000 items
by default) and reports the median of mini-batches/s and events/s. With ``--official``, a checkout
of GRU4Rec_PyTorch_Official outside this repository, its ``run.py`` trains the same epoch in turn
with ours, as a program whose printed mini-batches/s are read. ``--official-python`` is the Python
of an environment in which it runs (it needs joblib, NumPy below 2 and pandas below 3).
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paropt.data.dataset import Dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.training.fitting.fit import Fit

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "retailrocket bpr-max": {
        "loss": "bpr-max", "final_act": "elu-0.5", "layers": 224, "batch_size": 80,
        "dropout_p_embed": 0.5, "dropout_p_hidden": 0.05, "learning_rate": 0.05, "momentum": 0.4,
        "n_sample": 2048, "sample_alpha": 0.4, "bpreg": 1.95, "logq": 0.0,
    },
    "yoochoose cross-entropy": {
        "loss": "cross-entropy", "layers": 480, "batch_size": 48, "dropout_p_embed": 0.0,
        "dropout_p_hidden": 0.2, "learning_rate": 0.07, "momentum": 0.0, "n_sample": 2048,
        "sample_alpha": 0.2, "logq": 1.0,
    },
}  # fmt: skip
SPEED = re.compile(r"\[([\d.]+) mb/s \| ([\d.]+) e/s\]")


def made_up(path: Path, n_items: int = 37_000, n_sessions: int = 12_000) -> Path:
    """A log with the catalogue of RetailRocket: Zipf popularity, short sessions."""
    source = np.random.default_rng(1)
    lengths = 2 + source.geometric(0.3, n_sessions)
    popularity = 1 / np.arange(10, n_items + 10) ** 0.8
    items = source.choice(n_items, lengths.sum(), p=popularity / popularity.sum())
    # every item once: the catalogue has its full size
    items[: min(n_items, len(items))] = source.permutation(n_items)[: len(items)]
    items = source.permutation(items)
    session = np.repeat(np.arange(n_sessions), lengths)
    with path.open("w") as file:
        file.write("SessionId\tItemId\tTime\n")
        for k, (s, item) in enumerate(zip(session, items, strict=True)):
            file.write(f"{s}\t{item}\t{1_600_000_000 + 60 * k}\n")
    return path


def dataset(log: Path, out: Path) -> Dataset:
    """The log as it is, all of it in train_full."""
    with log.open() as file:
        rows = [next(file) for _ in range(8)]
    test = out.with_suffix(".test.tsv")
    test.write_text("".join(rows))
    options = Options(keep_repeats=True, min_session=1, min_support=1)
    return prepare([], out, {"train_full": log, "test": test}, options)


def ours(params: dict[str, Any], data: Dataset, threads: int) -> tuple[float, float]:
    """Mini-batches/s and events/s of one epoch."""
    torch.set_num_threads(threads)
    fit = Fit("gru4rec", params, data.view("full"), seed=1, epochs=1, evaluate=False)
    (epoch,) = fit.epochs()
    return fit.plans.steps_per_epoch / epoch.train_seconds, epoch.events_per_second


def official(
    params: dict[str, Any], log: Path, threads: int, checkout: Path, python: str
) -> tuple[float, float]:
    """What the official program prints for one epoch."""
    given = {"constrained_embedding": True, "embedding": 0, "n_epochs": 1, **params}
    act = given.pop("final_act", None)
    if act is not None:
        given["elu_param"] = act.removeprefix("elu-")
    arguments = ",".join(f"{name}={value}" for name, value in given.items())
    environment = {
        **os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "run.py", str(log.resolve()), "-ps", arguments, "-d", "cpu"]
        done = subprocess.run(
            [*command, "-s", f"{folder}/model.pt"],
            cwd=checkout, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    found = SPEED.findall(done.stdout)
    if not found:
        sys.exit(f"{' '.join(command)} printed no speed:\n{done.stdout}{done.stderr}")
    return float(found[-1][0]), float(found[-1][1])


def spread(speeds: list[float]) -> str:
    return f"{statistics.median(speeds):.1f} ({min(speeds):.1f}…{max(speeds):.1f})"


def compare(name: str, log: Path, data: Dataset, threads: int, args: argparse.Namespace) -> None:
    """One line: medians over alternating rounds, and of the ratios within a round."""
    params = CONFIGURATIONS[name]
    mine: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for _ in range(args.rounds):
        mine.append(ours({**params, "accelerate": args.accelerate}, data, threads))
        if args.official is not None:
            python = args.official_python
            theirs.append(official(params, log, threads, args.official, python))
    line = f"{name}, {threads} thread(s): {spread([m[0] for m in mine])} mini-batches/s, "
    line += f"{statistics.median(m[1] for m in mine):.0f} events/s"
    if theirs:
        ratios = [m[0] / t[0] for m, t in zip(mine, theirs, strict=True)]
        line += f"; official {spread([t[0] for t in theirs])}; ratio {spread(ratios)}"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="GRU4Rec's training speed.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--accelerate", default="auto", help="GRU4Rec's parameter of that name")
    parser.add_argument("--train", type=Path, help="a log, plain TSV")
    parser.add_argument("--configuration", nargs="+", choices=CONFIGURATIONS,
                        default=list(CONFIGURATIONS))  # fmt: skip
    parser.add_argument("--official", type=Path, help="a checkout of GRU4Rec_PyTorch_Official")
    parser.add_argument("--official-python", default=sys.executable)
    args = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, {args.rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as folder:
        log = args.train or made_up(Path(folder) / "log.tsv")
        data = dataset(log, Path(folder) / "data")
        print(f"{log.name}: {data.split('train_full').n_events:,} events, "
              f"{data.n_items('train_full'):,} items")  # fmt: skip
        for name in args.configuration:
            for threads in args.threads:
                compare(name, log, data, threads, args)


if __name__ == "__main__":
    main()
