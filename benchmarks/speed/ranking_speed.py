"""How fast and how lean the ranking of a whole catalogue is.

    python benchmarks/speed/ranking_speed.py --data DIR [--model DIR | --layers 100] [--threads 1]
        [--runs 5] [--official 'COMMAND THAT PRINTS "Evaluation took 1.23s"']
    python benchmarks/speed/ranking_speed.py --memory [--items 1000000] [--size 512]

The first tests a GRU4Rec on the test split of a dataset directory, one that ``paropt train --save``
trained on its train_full (or random weights, which rank too badly to be typical): with paropt's
evaluation, with all ranks exact to the last (``rank``), and step by step as session-parallel
programs do it (512 sessions side by side, every step scored and counted on its own), in turns;
``--official`` runs a peer's evaluation of the same sizes in its own process, in turns too, and
takes the time that it prints. Last it says what part of an epoch of training (from the pace of 100
steps) an evaluation takes. The second measures what ranking needs beside the item table: the copy
that finds ranks up to a depth, and chunks of scores where all are exact.
"""

from __future__ import annotations

import argparse
import platform
import re
import resource
import statistics
import subprocess
import time
from collections.abc import Callable

import numpy as np
import torch

from paropt.data import View, open_dataset
from paropt.training.batches.events import known_events
from paropt.training.batches.plans import evaluation, session_parallel
from paropt.training.evaluation.protocol import TIES
from paropt.training.evaluation.ranking import judging, ranks
from paropt.training.evaluation.ranking.screening import RankScreen
from paropt.training.fitting.fit import catalogue
from paropt.training.registry import Model, build, kernels
from paropt.training.saved_model.saved import load_model

BATCH = 512


def step_by_step(model: Model, view: View) -> float:
    """Recall@20 of a GRU of the same size; every step is scored alone and read by the host."""
    plan = session_parallel(view.test, view.n_items, BATCH)
    table, bias = model.item_table()
    size = table.shape[1]
    cell = torch.nn.GRUCell(size, size)
    hidden = torch.zeros(BATCH, size)
    hits = targets = 0.0
    with torch.no_grad():
        for step, n in enumerate(plan.n_valid):
            hidden = hidden[:n] * ~plan.resets[step, :n, None]
            hidden = cell(table[plan.inputs[step, :n]], hidden)
            scores = hidden @ table.T
            if bias is not None:
                scores = scores + bias
            own = scores.gather(1, plan.targets[step, :n, None])
            ranks = (scores > own).sum(1) + 1
            hits += float((ranks <= 20).sum())
            targets += n
    return hits / targets


def told_before(view: View) -> float:
    """The share of targets whose history, item by item, another target has had before them: what
    an evaluation could save by working such histories out once."""
    known = known_events(view.test, view.n_items)
    ends, begins = known.queries()
    histories = zip(begins.tolist(), ends.tolist(), strict=True)
    return 1 - len({known.items[begin:end].tobytes() for begin, end in histories}) / len(ends)


def official(command: str) -> float:
    """The seconds that a peer's command says its evaluation took."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    found = re.search(r"Evaluation took ([\d.]+)s", done.stdout)
    if found is None:
        raise SystemExit(f"{command!r} printed no 'Evaluation took …s'")
    return float(found[1])


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def speed(arguments: argparse.Namespace) -> None:
    view = open_dataset(arguments.data).view("full")
    if arguments.model:
        model = load_model(arguments.model).model
    else:
        model = build("gru4rec", {"layers": arguments.layers}, catalogue(view), seed=1)
    ways: dict[str, Callable[[], float]] = {
        "paropt": lambda: timed(lambda: judging.evaluate(model, view.test, view.n_items)),
        "all exact": lambda: timed(lambda: all_exact(model, view)),
        "step by step": lambda: timed(lambda: step_by_step(model, view)),
    }
    if arguments.official:
        ways["official"] = lambda: official(arguments.official)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.runs):
        for name, way in ways.items():
            seconds[name].append(way())
    n_targets = len(known_events(view.test, view.n_items).queries()[0])
    units = model.item_table()[0].shape[1]
    found = judging.evaluate(model, view.test, view.n_items).metrics["recall@20"]
    print(f"{n_targets:,} targets, {view.n_items:,} items, {units} units, Recall@20 {found:.4f}")
    print(f"{100 * told_before(view):.0f} % of the targets have the history of an earlier one")
    median = {name: statistics.median(times) for name, times in seconds.items()}
    epoch = epoch_seconds(model, view)
    print(
        f"an epoch takes {epoch:.0f} s, an evaluation {100 * median['paropt'] / epoch:.1f} % of it"
    )
    for name, times in seconds.items():
        print(
            f"{name:12}  {median[name]:8.3f} s (from {min(times):.3f} to {max(times):.3f})  "
            f"{n_targets / median[name]:10,.0f} targets/s  {median[name] / median['paropt']:5.2f}×"
        )


def all_exact(model: Model, view: View) -> None:
    """The evaluation with every rank exact, however deep."""
    table, bias = model.item_table()
    with torch.no_grad():
        for batch in evaluation(view.test, view.n_items, model.max_length, judging.ROWS):
            wanted = batch.targets[batch.targets >= 0]
            ranks.rank(model.encode(batch), wanted, table, bias)


def epoch_seconds(model: Model, view: View, steps: int = 100) -> float:
    """How long an epoch of training takes at the pace of so many steps."""
    size = model.params["batch_size"]
    plan = session_parallel(view.train, view.n_items, size, model.min_rows)
    run: Callable[..., torch.Tensor] = model.run_steps
    run(plan, 0, steps)
    return timed(lambda: run(plan, steps, 2 * steps)) / steps * plan.steps


def memory(arguments: argparse.Namespace) -> None:
    table = torch.randn(arguments.items, arguments.size)
    vectors, targets = torch.randn(1024, arguments.size), torch.arange(1024)
    rows, items = torch.arange(1024), torch.arange(1024) + 7
    given = kernels()

    def laid_out() -> None:
        if given is not None:
            RankScreen(given, table, None, 20, vectors, targets)

    def ranked() -> None:
        for ties in TIES:
            ranks.rank(vectors, targets, table, ties=ties, exclude=(rows, items))

    print(f"{arguments.items:,} items × {arguments.size}: {table.nbytes / 2**30:.2f} GiB")
    for name, way in {"the screen's copy": laid_out, "and all exact, 3 times": ranked}.items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        took = timed(way)
        extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f"{name:24} {extra / 2**20:.2f} GiB more, {took:.1f} s for 1,024 targets")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="a dataset directory")
    parser.add_argument("--model", help="a directory that paropt train --save wrote")
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--official", help="a peer's evaluation command")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    if bool(arguments.data) == arguments.memory:
        parser.error("give --data DIR, or --memory")
    torch.set_num_threads(arguments.threads)
    print(
        f"{platform.machine()} {platform.processor() or ''}, {arguments.threads} threads, "
        f"torch {torch.__version__}, numpy {np.__version__}"
    )
    (memory if arguments.memory else speed)(arguments)


if __name__ == "__main__":
    main()
