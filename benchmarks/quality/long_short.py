"""A user's short part among all users': long_short beside its floors, with and without a gap.

    python benchmarks/quality/long_short.py --events taobao_slice/events.csv.gz
        --out long_short.jsonl
    python benchmarks/quality/long_short.py --out long_short.jsonl --table

Users are divided into five folds by a hash of their ids; each fold is tested on once, by models
that were trained on the other four for a fixed number of epochs (nothing is chosen by what is
tested on). A user's rank is among the users of the fold, so there are fewer candidates than users:
about 160 of 815. The floors are of the same candidates, with idf from the same training users.

A row of the output is a gap, a fold, and a seed (or the floors); rows that are there are not made
again. The table has means over users, of a model also over seeds; the interval (95 %) is a
bootstrap of users, and so is that of the difference to the best floor, user by user.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from paropt.data.dataset import View
from paropt.data.log.options import Options
from paropt.data.log.values.times import parse_duration
from paropt.data.prepare import prepare
from paropt.training.batches.catalogue import catalogue
from paropt.training.batches.plans import evaluation
from paropt.training.evaluation.ranking.judging import ROWS, own_values
from paropt.training.fitting.fit import Fit
from paropt.training.registry import complete_params, model_class
from paropt.training.train_request import parse_params

METRICS = ("mrr", "hr@1", "hr@10")
FOLDS = 5
Row = dict[str, Any]
Values = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=Path, help="the log; not needed for --table")
    parser.add_argument("--out", type=Path, required=True, help="rows, one JSON object each")
    parser.add_argument("--gaps", default="0h,1h,6h,24h")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--params", default="", help="k=v,… beside the defaults")
    parser.add_argument("--name", default="long_short", help="of these parameters in the table")
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.table:
        if given.events is None:
            parser.error("--events LOG")
        params = parse_params(given.params) if given.params else {}
        seeds = [int(seed) for seed in given.seeds.split(",")]
        _run(given.events, given.out, given.gaps.split(","), seeds, given.name, params)
    _table(_rows(given.out))


def _run(
    events: Path, out: Path, gaps: Sequence[str], seeds: Sequence[int], name: str, params: Row
) -> None:
    done = {(row["gap"], row["fold"], row["name"], row["seed"]) for row in _rows(out)}
    for gap in gaps:
        for fold in range(FOLDS):
            wanted = [("floors", 0), *((name, seed) for seed in seeds)]
            open_ones = [key for key in wanted if (gap, fold, *key) not in done]
            if not open_ones:
                continue
            with tempfile.TemporaryDirectory() as folder:
                view = _view(events, Path(folder) / "data", gap, fold)
                for who, seed in open_ones:
                    made = _floors(view) if who == "floors" else _model(view, params, seed)
                    for row in made:
                        row = {"gap": gap, "fold": fold, "name": who, "seed": seed} | row
                        with out.open("a") as file:
                            file.write(json.dumps(row) + "\n")


def _view(events: Path, path: Path, gap: str, fold: int) -> View:
    options = Options(
        protocol="long-short",
        part_gap_ms=0 if gap == "0h" else parse_duration(gap),
        min_long=1,
        min_short=1,
        test_fraction=1 / FOLDS,
        fold=fold,
    )
    return prepare([events], path, options=options).view("full")


def _floors(view: View) -> Iterator[Row]:
    kind = model_class("long_short")
    needs = kind.needs(complete_params("long_short", {}))
    batches = evaluation(view.test, view.n_items, None, ROWS, needs=needs)
    with torch.no_grad():
        brought = kind.floors(catalogue(view), batches)
    for floor, metrics in brought.items():
        yield {"floor": floor} | _told(*own_values(metrics))


def _model(view: View, params: Row, seed: int) -> Iterator[Row]:
    began = time.process_time()
    fit = Fit("long_short", params, view, seed=seed, evaluate="last")
    for _ in fit.epochs():
        pass
    assert fit.judged is not None
    seconds = round(time.process_time() - began, 1)
    yield _told(fit.judged.metrics, fit.judged.values) | {"params": params, "seconds": seconds}


def _told(metrics: dict[str, float], values: Any) -> Row:
    users = {name: np.round(values[name], 6).tolist() for name in METRICS if name in values}
    return {"users": users, "metrics": {name: round(v, 6) for name, v in metrics.items()}}


def _rows(out: Path) -> list[Row]:
    if not out.exists():
        return []
    return [json.loads(line) for line in out.read_text().splitlines()]


# -- the table ------------------------------------------------------------------------------


def _table(rows: Sequence[Row]) -> None:
    for gap in dict.fromkeys(row["gap"] for row in rows):
        of_gap = [row | {"who": row.get("floor", row["name"])} for row in rows if row["gap"] == gap]
        whole = {row["fold"] for row in of_gap if row["name"] == "floors"}
        values = _values([row for row in of_gap if row["fold"] in whole])
        users = len(next(iter(values.values()))["mrr"])
        print(f"\ngap {gap}: {users} users in {len(whole)} folds")
        print(f"{'':26}{'MRR':>24}{'HR@1':>24}{'HR@10':>24}")
        floors = [row["floor"] for row in of_gap if "floor" in row and row["users"]]
        floors = list(dict.fromkeys(floors))
        for who, found in values.items():
            cells = [_with_interval(found[metric]) for metric in METRICS]
            print(f"{who:26}" + "".join(f"{cell:>24}" for cell in cells))
            if who in floors:
                continue
            for metric in METRICS:
                best = max(floors, key=lambda floor: values[floor][metric].mean())
                apart = _with_interval(found[metric] - values[best][metric])
                print(f"{'':26}{metric} above {best}: {apart}")
        for word in ("next_item_hr@20", "next_category_hr@20"):
            told = {
                who: np.mean([r["metrics"][word] for r in of_gap if r["who"] == who])
                for who in dict.fromkeys(r["who"] for r in of_gap if word in r["metrics"])
            }
            print(f"{word}: " + ", ".join(f"{who} {value:.4f}" for who, value in told.items()))


def _values(rows: Sequence[Row]) -> dict[str, dict[str, Values]]:
    """By name and metric a value per user, over folds one after the other; mean over seeds."""
    names = dict.fromkeys(row["who"] for row in rows if row["users"])
    folds = sorted({row["fold"] for row in rows})
    found: dict[str, dict[str, Values]] = {}
    for name in names:
        parts: dict[str, list[Values]] = {metric: [] for metric in METRICS}
        for fold in folds:
            own = [row["users"] for row in rows if row["who"] == name and row["fold"] == fold]
            if not own:
                break
            for metric in METRICS:
                parts[metric].append(np.mean([one[metric] for one in own], axis=0))
        else:
            found[name] = {metric: np.concatenate(each) for metric, each in parts.items()}
    return found


def _with_interval(values: Values) -> str:
    draws = np.random.default_rng(1).integers(len(values), size=(2000, len(values)))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
