"""What training many small trials in one process could bring at most, on a CPU.

    python benchmarks/search/packing_bound.py --data DIR [--together 8] [--rounds 3]

Trials of one shape could be trained as one: parameters stacked, each step one batched product for
all. Arithmetic stays, weights have to be read all the same; what is saved is what a step costs
beside them, calls and launches. That is what a step takes whose vectors have ``SMALLEST`` numbers
and whose targets are compared with two items: if N trials as one pay it once, a step of all takes
N·(step − smallest) + smallest, and the rate rises by no more than N·step / that. Seconds are of the
processor, one thread; ways take turns, each trains an epoch that isn't counted and one that is;
medians. DIR is a dataset directory.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from paropt.data.dataset import Dataset, open_dataset
from paropt.training.fitting.fit import Fit

SMALLEST = 16  # fewer fill no vector register, and take longer
Params = Mapping[str, Any]
GRU4REC: Params = {"loss": "cross-entropy", "momentum": 0.0, "n_sample": 1024}
SASREC: Params = {"blocks": 2, "max_length": 50, "dropout": 0.2, "loss": "sampled-softmax",
                  "n_sample": 256}  # fmt: skip
SHAPES = {
    **{f"GRU4Rec, {size} units": ("gru4rec", GRU4REC, "layers", size) for size in (32, 100, 256)},
    **{f"SASRec, {size} channels": ("sasrec", SASREC, "dim", size) for size in (32, 64, 128)},
}


def seconds(data: Dataset, model: str, params: Params) -> float:
    """Of the processor, a step of an epoch."""
    steps = 1
    fit = Fit(model, {**params, "n_epochs": 2}, data.view("search"), seed=1, evaluate=False)

    def told(epoch: int, step: int, total: int, rate: float) -> None:
        nonlocal steps
        steps = total

    fit.on_progress = told
    epochs = fit.epochs()
    next(epochs)
    began = time.process_time()
    next(epochs)
    return (time.process_time() - began) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--together", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, many = open_dataset(args.data), args.together
    print(f"{platform.machine()}, load {os.getloadavg()[0]:.1f}, {many} trials as one\n")
    print("| shape | batch | step, ms | smallest step, ms | at most |\n|---|---|---|---|---|")
    for name, (model, common, width, size) in SHAPES.items():
        for batch in args.batch:
            plain = {**common, "batch_size": batch, width: size}
            smallest = {**plain, width: SMALLEST, "n_sample": 2}
            taken = [
                (seconds(data, model, plain), seconds(data, model, smallest))
                for _ in range(args.rounds)
            ]
            step, least = (statistics.median(column) for column in zip(*taken, strict=True))
            most = many * step / (many * max(0.0, step - least) + least)
            print(f"| {name} | {batch} | {1e3 * step:.2f} | {1e3 * least:.2f} | {most:.2f} × |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
