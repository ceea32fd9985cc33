"""A table of real learning curves, for the simulator (simulate.py): made with paropt itself.

    python benchmarks/curve_table.py --data DIR --set yoochoose_100k [--rows 200] [--out FILE]

DIR is as for gru4rec_accuracy.py. Of each set the last sessions of the training part are used, so
that a table takes half an hour on two cores. Random configurations of a shipped
space, its start points among them, are trained for all their epochs without pruning, on two slots;
the start points once more with another seed, which is what the noise of a seed is measured on. A
second run goes on where the first one was stopped. Curves are of the valid part; the test part is
not looked at.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import platform
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from paropt.data.dataset import Dataset, open_dataset
from paropt.data.options import Options
from paropt.data.prepare import prepare
from paropt.search.study.history import Record
from paropt.search.study.study import Study
from paropt.storage.connect import open_storage
from paropt.training.objective import Objective

SPACE = "gru4rec_xe_shared"
STARTS = 5  # points that the space starts with
SEEDS = (42, 43)  # the first one trains all rows, the other only the start points
SESSIONS = {"yoochoose_100k": 6_000, "retailrocket": 18_000}  # the last ones for training
FIXED = "n_sample=512"  # its 2,048 are most of these items; GRU4Rec's authors advise fewer then
METRIC = "mrr@20"
MRR = Objective(METRIC)


def dataset(data: Path, name: str, cache: Path) -> Dataset:
    """The last sessions of the set as a dataset directory, made once.

    yoochoose_100k comes split, and only its train part is shortened; retailrocket is split here.
    """
    out, folder = cache / f"{name}_last", data / name
    if out.exists():
        return open_dataset(out)
    log = cache / f"{name}_last.csv"
    if name == "yoochoose_100k":
        _last_sessions(folder / "train.tsv.gz", log, "SessionId", SESSIONS[name])
        given = {"train": log, "valid": folder / "valid.tsv.gz", "test": folder / "test.tsv.gz"}
        return prepare([], out, given)
    _last_sessions(folder / "sessions.csv.gz", log, "session", SESSIONS[name])
    order = Options(session_key="session", item_key="item_id", order_column="pos")
    return prepare([log], out, options=replace(order, test_fraction=0.2))


def _last_sessions(source: Path, out: Path, key: str, count: int) -> None:
    """Writes the last ``count`` sessions of a log's training part as CSV."""
    with gzip.open(source, "rt", newline="") as lines:
        separator = "\t" if ".tsv" in source.name else ","
        rows = [r for r in csv.DictReader(lines, delimiter=separator)]
    rows = [row for row in rows if row.pop("split", "train") == "train"]
    kept = set(list(dict.fromkeys(row[key] for row in rows))[-count:])
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if row[key] in kept)


def train(path: Path, study: str, trials: int, seed: int) -> None:
    """Runs or goes on with the study that the rows are of."""
    words = ["launch", "--space", SPACE, "--data", path, "--study", study, "--trials", trials]
    words += ["--fixed", FIXED, "--sampler", "random", "--pruner", "none", "--seed", seed]
    words += ["--devices", "cpu", "--per-device", 2, "--json"]
    command = [sys.executable, "-m", "paropt", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def read(studies: list[str]) -> tuple[Study, list[tuple[int, Record]]]:
    """Every configuration that trained to its end, with its study's seed."""
    rows: list[tuple[int, Record]] = []
    with open_storage() as storage:
        for name in studies:
            study = Study.load(storage.url, name)
            study.refresh()
            seed = study.definition.seed or 0
            rows += [(seed, r) for r in study.history.lineages() if r.outcome == "complete"]
            study.close()
    return study, rows


def write(
    out: Path, made: dict[str, Any], names: list[str], rows: list[tuple[int, Record]]
) -> None:
    """One line of JSON that says what it is, then CSV: parameters, seconds per epoch, the curve."""
    epochs = max(len(record.curve(MRR)) for _, record in rows)
    with out.open("w", newline="") as file:
        file.write(f"# {json.dumps(made)}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "seed", "seconds", *(f"epoch {k + 1}" for k in range(epochs))])
        for seed, record in rows:
            searched, curve = record.meta["searched"], record.curve(MRR)
            spent = sum(record.curves["seconds"]) / len(curve)
            values = [f"{value:.5f}" for value in curve]
            writer.writerow([*(searched[name] for name in names), seed, f"{spent:.3f}", *values])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=["yoochoose_100k", "retailrocket"], required=True)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--cache", type=Path, required=True, help="keep the prepared set here")
    parser.add_argument("--out", type=Path, help="beside this file, in curves/")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    found = dataset(args.data, args.set, args.cache)
    studies = {seed: f"curves-{args.set}-{seed}" for seed in SEEDS}
    for seed, study in studies.items():
        train(found.path, study, args.rows if seed == SEEDS[0] else STARTS, seed)
    study, rows = read(list(studies.values()))
    made = {
        "command": f"curve_table.py --set {args.set} --rows {args.rows}",
        "date": date.today().isoformat(),
        "space": SPACE,
        "fixed": FIXED,
        "metric": METRIC,
        "set": found.path.name,
        "fingerprint": found.fingerprint,
        "split": "valid",
        "ties": "standard",
        "machine": f"{platform.machine()}, 2 slots of 1 thread, torch {torch.__version__}",
    }
    out = args.out or Path(__file__).parent / "curves" / f"{args.set}.csv"
    out.parent.mkdir(exist_ok=True)
    write(out, made, [p.label for p in study.space.searched], rows)
    print(f"{len(rows)} rows in {out}")


if __name__ == "__main__":
    main()
