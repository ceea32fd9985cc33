"""How long a trainer takes from a trial's parameters to its first step.

    python benchmarks/running/first_step.py [--data DIR] [--runs 5]

Starts a trainer as slots do and sends it trials, each stopped after its first step: the first one
finds it cold, the others warm. Prints the seconds from sending the parameters to the end of the
first step (the smallest report that a trainer makes), as time and as CPU time of the trainer: on a
machine that does other work too, only the latter counts. Without ``--data`` it makes a log of
RetailRocket's size up.
"""

from __future__ import annotations

import argparse
import os
import platform
import select
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.worker.trainer_process import TrainerProcess

GRU4REC = {
    "loss": "bpr-max", "final_act": "elu-0.5", "layers": 224, "dropout_p_embed": 0.5,
    "momentum": 0.4, "n_sample": 2048, "sample_alpha": 0.4,
}  # fmt: skip
TRIALS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "gru4rec, cold": ("gru4rec", [GRU4REC | {"batch_size": 80}]),
    "gru4rec, as before": ("gru4rec", [GRU4REC | {"batch_size": 80}]),
    "gru4rec, other sizes": (
        "gru4rec",
        [GRU4REC | {"batch_size": 64 + 16 * k, "layers": 128 + 16 * k} for k in range(2, 10)],
    ),
    "sasrec, first": ("sasrec", [{"max_length": 50, "dim": 64}]),
    "sasrec, other sizes": (
        "sasrec",
        [{"max_length": 50 + 10 * k, "dim": 64 + 16 * k} for k in range(1, 9)],
    ),
    "hstu, other sizes": ("hstu", [{"max_length": 50 + 10 * k} for k in range(1, 9)]),
}


def made_up(folder: Path) -> Path:
    """126,000 sessions of 686,000 events, 37,000 items: as RetailRocket has."""
    source = np.random.default_rng(1)
    lengths = 2 + source.geometric(0.29, 126_000)
    popularity = 1 / np.arange(10, 37_010) ** 0.8
    items = source.choice(37_000, lengths.sum(), p=popularity / popularity.sum())
    sessions = np.repeat(np.arange(len(lengths)), lengths)
    log = folder / "log.tsv"
    with log.open("w") as file:
        file.write("SessionId\tItemId\tTime\n")
        for k, (session, item) in enumerate(zip(sessions, items, strict=True)):
            file.write(f"{session}\t{item}\t{1_600_000_000 + 3 * k}\n")
    return prepare([log], folder / "data", {}, Options(min_support=1)).path


class Clock:
    """A trainer, and how long it takes to answer."""

    def __init__(self, threads: int) -> None:
        self.trainer = TrainerProcess(os.environ | {"OMP_NUM_THREADS": str(threads)})
        self.heard: list[dict[str, Any]] = []
        self.until("ready")

    def until(self, *events: str) -> dict[str, Any]:
        while True:
            while self.heard:
                message = self.heard.pop(0)
                if message["event"] in events:
                    return message
                if message["event"] in ("failed", "unusable"):
                    raise SystemExit(str(message))
            select.select([self.trainer], [], [])
            self.heard += self.trainer.receive()
            if self.trainer.ended:
                raise SystemExit("the trainer has ended")

    def cpu(self) -> float:
        """CPU seconds of the trainer so far."""
        words = Path(f"/proc/{self.trainer.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def first_step(self, trial: int, order: dict[str, Any]) -> tuple[float, float]:
        """Seconds and CPU seconds from the order to the first step's end."""
        began, cpu = time.perf_counter(), self.cpu()
        self.trainer.send(do="fit", trial=trial, **order)
        self.until("progress")
        took = time.perf_counter() - began, self.cpu() - cpu
        self.trainer.send(do="stop", trial=trial)
        self.until("stopped", "done")
        return took


def measure(data: Path, runs: int) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    clock, trial = Clock(1), 0
    common = {"seed": 1, "epochs": 2, "data": str(data), "view": "search", "device": "cpu",
              "threads": 1, "at": [20], "checkpoint": None, "resume": None}  # fmt: skip
    for name, (model, given) in TRIALS.items():
        took = []
        count = 1 if name.endswith(("cold", "first")) else runs
        for params in (given * runs)[:count]:
            trial += 1
            took.append(clock.first_step(trial, {"model": model, "params": params, **common}))
        yield name, took
    clock.trainer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="a dataset directory")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, one thread"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, took in measure(arguments.data or made_up(Path(folder)), arguments.runs):
            wall, cpu = (statistics.median(column) for column in zip(*took, strict=True))
            print(
                f"{name:22}  {wall:6.3f} s, CPU {cpu:5.2f} s  (median of {len(took)})", flush=True
            )


if __name__ == "__main__":
    main()
