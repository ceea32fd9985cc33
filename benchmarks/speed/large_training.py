"""Some steps of an epoch on a dataset of any size: how long, and how much memory they take.

    python benchmarks/speed/large_training.py DIR [--params layers=64,batch_size=512] [--steps 2000]
        [--split search|full] [--save MODEL] [--floors]

Everything that a whole epoch needs is there when its first step begins: the plan of all its
batches, the weights and what the optimiser gathers of each. So the peak is that of a training to
the end, whose time follows from the pace. ``--save`` keeps the model for ``paropt evaluate``;
``--floors`` counts what stands beside every test instead of training.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch

from paropt.data import open_dataset
from paropt.training.evaluation.baselines.floors import floors
from paropt.training.fitting.fit import Fit
from paropt.training.saved_model.saved import check_place, save_model


def parameters(text: str) -> dict[str, object]:
    """``name=value,…``: integers, ``layers`` as sizes, the rest as written."""
    given: dict[str, object] = {}
    for pair in filter(None, text.split(",")):
        name, _, value = pair.partition("=")
        number: object = int(value) if value.isdigit() else value
        given[name] = (number,) if name == "layers" else number
    return given


def train(fit: Fit, steps: int) -> tuple[int, float, float]:
    """At least so many steps of the first epoch: how many, and the clock's and processor's seconds
    since training began."""
    began: list[float] = []
    done = [0, 0.0, 0.0]

    def look(epoch: int, step: int, total: int, pace: float) -> None:
        if not began:  # the first range has made the plan and looked for the compiler
            began.extend((step, time.perf_counter(), time.process_time()))
        done[:] = step, time.perf_counter() - began[1], time.process_time() - began[2]
        if step >= steps or step == total:
            fit.stop()

    fit.on_progress = look
    for _ in fit.epochs():
        pass
    return int(done[0] - began[0]), done[1], done[2]


def peak() -> str:
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return f"at most {size / 1e9:.2f} GB"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="gru4rec")
    parser.add_argument("--params", default="layers=64,batch_size=512,n_sample=64")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--split", choices=["search", "full"], default="search")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--floors", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.save:
        check_place(given.save)
    view = open_dataset(given.data).view(given.split)
    print(f"{view.train.n_events:,} events, {view.n_items:,} items")
    if given.floors:
        floors(view)
        print(f"floors: {time.process_time():.1f} s of the processor, {peak()}")
        return
    fit = Fit(given.model, parameters(given.params), view, seed=42, evaluate=False)
    steps, seconds, processor = train(fit, given.steps)
    if given.save:
        save_model(given.save, fit)
    total = fit.plans.steps_per_epoch
    whole = processor / steps * total / 60
    print(
        f"{given.model} {given.params}: {steps:,} of an epoch's {total:,} steps in {seconds:.1f} s"
    )
    print(f"{processor:.1f} s of the processor, so {whole:.1f} minutes an epoch; {peak()}")


if __name__ == "__main__":
    main()
