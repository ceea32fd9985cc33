"""What single parts of the ads competition's line are worth: actions, times, statistics, negatives.

    python benchmarks/speed/sequence_parts.py DATA --action action_type --light exposure
        --out rows.csv [--variant NAME …] [--model sasrec] [--seeds 1 2] [--epochs 6]
        [--params K=V,…]

DATA is a dataset directory whose events have a column of actions (docs/data.md). ``--light`` is the
action that counts a tenth where actions are weighted. Every variant is the model with one thing
changed against the first of its group, trained for so many epochs and judged once on ``valid``:
nothing is chosen by it, and ``test`` is not opened. History is not filtered: people come back. A
training is a row of the file; what is there isn't done again. The table gives the means over the
seeds and the paired 95 % interval of NDCG@10 against the group's first, over targets, seeds
averaged.

A variant with a condition is told each target's own action, which is what a request says that
wants clicks.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from paropt.data.dataset import View, open_dataset
from paropt.training.batches.statistics import statistics
from paropt.training.fitting.fit import Fit
from paropt.training.train_request import parse_params

COMMON: dict[str, Any] = {
    "dim": 32, "blocks": 2, "heads": 1, "max_length": 50, "dropout": 0.2, "batch_size": 16,
    "learning_rate": 0.003, "loss": "sampled-softmax", "similarity": "cosine", "temperature": 0.1,
    "n_sample": 128, "logq": 1.0,
}  # fmt: skip
FIELDS = ("data", "model", "epochs", "params", "variant", "seed", "hr@10", "ndcg@10", "seconds")
CUT = 10


def variants(view: View, action: str, light: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The groups, by name, of variants by name; a group's first is what the others change."""
    column = {"action_column": action}
    given, asked = {"action_input": "add"}, {"action_condition": "film"}
    weighed = {"action_weights": f"{light}=0.1"}
    shares = [name for name in statistics(view) if name.startswith(f"stats.{action}.")]
    counted = ["stats.events", "stats.recency"] if view.dataset.has_times else ["stats.events"]
    events = {
        "plain": {},
        "input": column | given,
        "condition": column | asked,
        "input and condition": column | given | asked,
        "weights": column | weighed,
        "input, condition and weights": column | given | asked | weighed,
        "statistics": {"features": tuple(counted + shares)},
        "later positions": {"position_decay": 0.9},
    }
    if view.dataset.has_times:
        events |= {f"times: {k}": {"time_features": k} for k in ("gap", "calendar")}
    negatives: dict[str, dict[str, Any]] = {
        "plain": {},
        "in-batch, logq 0": {"negatives": "in-batch", "logq": 0.0},
        "in-batch": {"negatives": "in-batch"},
        "mixed, logq 0": {"negatives": "mixed", "logq": 0.0},
        "mixed": {"negatives": "mixed"},
        "exposure": {"negatives": "exposure"},
        "triplet .05": {"triplet_weight": 0.05},
        "margin .02": {"margin": 0.02},
    }
    return {"events": events, "negatives": negatives}


def gains(fit: Fit) -> NDArray[np.float64]:
    """HR@10 and NDCG@10 of each target [2, targets]; the targets' order is that of the data."""
    assert fit.judged is not None
    ranks = fit.judged.ranks
    hit = ranks <= CUT
    return np.stack([hit, np.where(hit, 1 / np.log2(1 + np.where(hit, ranks, 1)), 0.0)])


def train(view: View, model: str, params: dict[str, Any], seed: int, epochs: int) -> Fit:
    fit = Fit(model, params | {"n_epochs": epochs}, view, seed=seed, at=(CUT,), evaluate="last")
    for _ in fit.epochs():
        pass
    return fit


def key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in FIELDS[:6])


def run(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    dataset = open_dataset(options.data)
    view = dataset.view("search")
    out = Path(options.out)
    kept = out.with_suffix(".ranks")
    kept.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(out.open())) if out.exists() else []
    done = {key(row) for row in rows}
    extra = parse_params(options.params) if options.params else {}
    groups = variants(view, options.action, options.light)
    for group in groups.values():
        for name, changed in group.items():
            if options.variant and name not in options.variant:
                continue
            for seed in options.seeds:
                row: dict[str, Any] = dict(zip(FIELDS, (dataset.fingerprint[:12], options.model,
                    options.epochs, options.params, name, seed), strict=False))  # fmt: skip
                if key(row) in done:
                    continue
                done.add(key(row))
                fit = train(view, options.model, COMMON | changed | extra, seed, options.epochs)
                found = gains(fit)
                row["hr@10"], row["ndcg@10"] = (round(x, 5) for x in found.mean(1).tolist())
                row["seconds"] = round(fit.train_seconds, 2)
                np.save(
                    kept / f"{'-'.join(key(row)).replace(' ', '_').replace('/', '_')}", found[1]
                )
                with out.open("a", newline="") as file:
                    writer = csv.DictWriter(file, FIELDS)
                    if not file.tell():
                        writer.writeheader()
                    writer.writerow(row)
                print(json.dumps(row), flush=True)
    show(out, kept, dataset.fingerprint[:12], groups, options)


def show(
    out: Path,
    kept: Path,
    data: str,
    groups: dict[str, dict[str, dict[str, Any]]],
    options: argparse.Namespace,
) -> None:
    """Means over seeds, and intervals of differences between what each target got."""
    asked = (data, options.model, str(options.epochs), options.params)
    rows = [row for row in csv.DictReader(out.open()) if key(row)[:4] == asked]
    print(
        "| variant | seeds | HR@10 | NDCG@10 | NDCG@10 against the first |\n|---|---|---|---|---|"
    )
    for group in groups.values():
        first: NDArray[np.float64] | None = None
        for name in group:
            own = [row for row in rows if row["variant"] == name]
            if not own:
                continue
            names = ["-".join(key(row)).replace(" ", "_").replace("/", "_") for row in own]
            each = np.mean([np.load(kept / f"{one}.npy") for one in names], axis=0)
            hr, ndcg = (np.mean([float(row[m]) for row in own]) for m in ("hr@10", "ndcg@10"))
            against = "–"
            if first is None:
                first = each
            else:
                apart = each - first
                mean, error = apart.mean(), 1.96 * apart.std(ddof=1) / len(apart) ** 0.5
                against = f"{mean:+.4f} [{mean - error:+.4f}, {mean + error:+.4f}]"
            print(f"| {name} | {len(own)} | {hr:.4f} | {ndcg:.4f} | {against} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--action", required=True, help="the events' column of actions")
    parser.add_argument("--light", required=True, help="the action that counts a tenth")
    parser.add_argument("--out", required=True)
    parser.add_argument("--model", default="sasrec")
    parser.add_argument("--variant", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--params", default="", help="of all variants, K=V,…")
    run(parser.parse_args())
