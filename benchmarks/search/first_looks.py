"""How well a first look tells what becomes of a configuration: an epoch of all, or more of a part.

    python benchmarks/search/first_looks.py --data DIR --cache C [--set NAME …] [--rows 24]
        [--out CSV]

A trial's first rung is an epoch. The same work would be two epochs of the latest half of the
sessions, four of the latest quarter, eight of the latest eighth. For random rows of the tables of
curves (curve_table.py) each is trained and judged on the valid part of the whole; what becomes of a
row is in its table. Printed are the rank correlation (Spearman's) of the look with that, and by how
many per cent the best of the third that looks best stays below the best of these rows. A row of
``--out`` is written when it is done, so a second run goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from curve_table import (
    CURVES,
    CUTS,
    FIRST_PROPOSED,
    METRIC,
    REPEAT_SEEDS,
    REPEATED,
    SEED,
    dataset,
    published,
)
from numpy.typing import NDArray
from portfolio import MRR
from rows import Rows
from surrogate import Table, read_table, spearman

from paropt.data.dataset import Dataset, Split, View
from paropt.search.space.space import Config
from paropt.training.fitting.fit import Fit

SPACE = "gru4rec_xe_shared"
SETS = ("retailrocket", "yoochoose_100k", "ml100k", "beauty")
PARTS = (1, 2, 4, 8)  # a look is so many epochs of the latest such part
COLUMNS = ["set", "row", "part", "value", "seconds"]


class Latest(Split):
    """The latest sessions of a split."""

    def __init__(self, whole: Split, sessions: int) -> None:
        super().__init__(whole.dataset, whole.name, whole.known_by)
        self.whole, self.first = whole, whole.n_sessions - sessions
        self.begin = int(whole.offsets[self.first])

    @cached_property
    def items(self) -> NDArray[np.int32]:
        return self.whole.items[self.begin :]

    @cached_property
    def times(self) -> NDArray[np.int64]:
        return self.whole.times[self.begin :]

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        return self.whole.offsets[self.first :] - self.begin

    @cached_property
    def targets(self) -> NDArray[np.bool_]:
        return self.whole.targets[self.begin :]

    @property
    def n_events(self) -> int:
        return len(self.items)

    @property
    def n_sessions(self) -> int:
        return len(self.offsets) - 1


def latest(view: View, part: int) -> View:
    """The view with the latest 1/``part`` of its training sessions."""
    return replace(view, train=Latest(view.train, max(1, view.train.n_sessions // part)))


def look(found: Dataset, config: Config, part: int) -> tuple[float, float]:
    """The value after ``part`` epochs of the latest part, and the processor's seconds."""
    params = {name: value for name, value in config.items() if name != "model"}
    params["n_epochs"] = part
    filter_seen = found.meta["protocol"] == "leave-one-out"
    began, value = time.process_time(), 0.0
    view = latest(found.view("search"), part)
    fit = Fit(
        str(config["model"]), params, view, seed=SEED, filter_seen=filter_seen, evaluate="last"
    )
    for epoch in fit.epochs():
        value = epoch.metrics.get(METRIC, value)
    return value, time.process_time() - began


def chosen(table: Table, rows: int) -> list[int]:
    """Places of the first random rows of a table."""
    first = len(published(table.space)) + REPEATED * len(REPEAT_SEEDS)
    random_ones = [k for k, number in enumerate(table.numbers) if first <= number < FIRST_PROPOSED]
    return random_ones[:rows]


def lost(looks: Sequence[float], worth: Sequence[float]) -> float:
    """In per cent of the best of ``worth``, by how much the best of the third that looks best is
    below it."""
    kept = np.argsort(looks)[::-1][: max(1, len(looks) // 3)]
    return float(100 * (1 - np.asarray(worth)[kept].max() / max(worth)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="keep the prepared sets here")
    parser.add_argument("--set", choices=[*CUTS], nargs="*", default=[*SETS])
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("looks.csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    looks = Rows(args.out, COLUMNS)
    for name in args.set:
        found = dataset(args.data, name, args.cache)
        table = read_table(CURVES / f"{name}-{SPACE}.csv")
        for place in chosen(table, args.rows):
            for part in PARTS:
                key = {"set": name, "row": str(table.numbers[place]), "part": str(part)}
                if looks.has(key):
                    continue
                value, seconds = look(found, table.configs[place], part)
                looks.add([{**key, "value": f"{value:.5f}", "seconds": f"{seconds:.3f}"}])
    print(f"| log | {' | '.join(f'latest 1/{part}, {part} epochs' for part in PARTS)} |")
    print("|---" * (len(PARTS) + 1) + "|")
    for name in args.set:
        print(f"| {name} | {' | '.join(_cells(name, args.rows, looks))} |")


def _cells(name: str, most: int, made: Rows) -> list[str]:
    table = read_table(CURVES / f"{name}-{SPACE}.csv")
    places = chosen(table, most)
    worth = [MRR.steady(table.curves[place].tolist()) or 0.0 for place in places]
    rows = [row for row in made.read() if row["set"] == name]
    cells = []
    for part in PARTS:
        of_part = {int(row["row"]): row for row in rows if row["part"] == str(part)}
        looks = [float(of_part[table.numbers[place]]["value"]) for place in places]
        spent = sum(float(of_part[table.numbers[place]]["seconds"]) for place in places)
        ranks = spearman(np.array(looks), np.array(worth))
        cells.append(f"{ranks:.2f}, {lost(looks, worth):.1f} %, {spent:.0f} s")
    return cells


if __name__ == "__main__":
    main()
