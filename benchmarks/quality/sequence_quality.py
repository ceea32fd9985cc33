"""SASRec, HSTU and their mixtures of experts beside published values and the floors.

    python benchmarks/quality/sequence_quality.py --data DIR [--set ml100k] [--case sasrec …]
        [--seed 1 2 3] [--epochs 20] [--best-epoch N] [--params K=V,…] [--device cpu] [--threads 1]

DIR holds ml100k/ml-100k.inter, ml1m/interactions_ordered.csv.gz and yoochoose_100k/*.tsv.gz. The
MovieLens sets are judged by leave one out (the last event of a user is the test, the one before it
the validation), the user's history filtered; yoochoose_100k is split by time, every next item of a
session is predicted and nothing is filtered. The whole catalogue is ranked. Where the learning rate
falls to zero, a training goes to the end of its schedule; elsewhere the first seed's NDCG@10 on the
validation split chooses the epoch (``--best-epoch`` is what another run of it has chosen). Then
each seed is trained on all but the test and judged once. Every result is a JSON
line on stdout; the table comes at the end, on stderr.

Shortened (ML-1M on two cores): --set ml1m --sessions 1500, with ML-100K's settings.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from paropt.data.dataset import Dataset, open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.training.evaluation.baselines.floors import floors
from paropt.training.fitting.fit import Fit
from paropt.training.train_request import parse_params

METRICS = ("recall@10", "ndcg@10", "recall@20", "mrr@20")  # recall@10 of one target is HR@10


@dataclass(frozen=True)
class Case:
    """A configuration and what was published or measured for it: HR@10 / NDCG@10 by set."""

    model: str
    params: dict[str, Any] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)


# at equal active parameters: experts of half the width, two of them per token
EXPERTS = {"experts": 8, "top_k": 2, "expert_mult": 0.5}
HSTU_ML1M = ".3097/.1720 (2402.17152), .3226/.1880 (RecTools, stable sort)"
CASES: dict[str, Case] = {
    "gru4rec": Case(
        "gru4rec",
        {
            "loss": "bpr-max",
            "final_act": "elu-0.5",
            "layers": 224,
            "batch_size": 80,
            "dropout_p_embed": 0.5,
            "dropout_p_hidden": 0.05,
            "learning_rate": 0.05,
            "momentum": 0.4,
            "n_sample": 2048,
            "sample_alpha": 0.4,
            "bpreg": 1.95,
        },
        {"yoochoose_100k": "official: Recall@20 .686, MRR@20 .364"},
    ),
    "sasrec": Case(
        "sasrec", {}, {"ml1m": ".3152/.1821 (2309.07602)", "ml100k": ".199/.107 (one seed)"}
    ),
    "sasrec-swiglu": Case("sasrec", {"activation": "swiglu"}),
    "sasrec-moe": Case("sasrec", EXPERTS),
    "sasrec-cosine": Case("sasrec", {"similarity": "cosine", "temperature": 0.05}),
    "hstu-event": Case("hstu", {}, {"ml100k": ".203/.112 (one seed)"}),
    "hstu-query": Case(
        "hstu", {"time_mode": "query"}, {"ml1m": HSTU_ML1M, "ml100k": ".200/.108 (one seed)"}
    ),
    "hstu-rotary": Case("hstu", {"rotary": "linear", "relative_bias": "position"}),
    "hstu-moe": Case("hstu", EXPERTS),
}
SIZES = {"dim": 64, "blocks": 2, "heads": 1, "max_length": 200}
# small logs have few steps: small batches, and a rate that falls to zero. At a constant one the
# last epochs of one training differ by two points of HR@10 on ML-100K's validation split, and the
# best of them is chosen by luck, often too early
FALLING = {"learning_rate": 0.002, "warmup": 0.05, "schedule": "linear"}
SETS: dict[str, dict[str, Any]] = {
    "ml100k": SIZES | FALLING | {"dropout": 0.2, "batch_size": 32},
    "ml1m": SIZES | FALLING | {"dropout": 0.2, "batch_size": 64},
    "yoochoose_100k": SIZES | FALLING | {"max_length": 50, "dropout": 0.2, "batch_size": 128},
}
FILTERED = ("ml100k", "ml1m")


def prepared(data: Path, name: str, cache: Path, sessions: int | None) -> Dataset:
    """The set as a dataset directory, made once; of ML-1M every n-th user, if fewer are wanted."""
    out = cache / (name if sessions is None else f"{name}-{sessions}")
    if out.exists():
        return open_dataset(out)
    if name == "yoochoose_100k":
        splits = ("train_full", "test", "train", "valid")
        return prepare([], out, {split: data / name / f"{split}.tsv.gz" for split in splits})
    if name == "ml100k":
        options = Options(format="recbole", protocol="leave-one-out")
        return prepare([data / "ml100k" / "ml-100k.inter"], out, options=options)
    log = out.with_suffix(".tsv")
    write_log(data, name, log, sessions)
    return prepare([log], out, options=Options(protocol="leave-one-out", min_support=1))


def write_log(data: Path, name: str, log: Path, sessions: int | None = None) -> None:
    """A MovieLens set as a TSV in order.

    ML-1M's rows are in order already; times are the estimates, as true ones are known of few.
    """
    if name == "ml100k":
        rows = (data / "ml100k" / "ml-100k.inter").read_text().splitlines()[1:]
        events = [row.split("\t") for row in rows]
        events.sort(key=lambda event: (int(event[0]), float(event[3])))
        lines = [f"{user}\t{item}\t{float(time):.0f}" for user, item, _, time in events]
        log.write_text("\n".join(["SessionId\tItemId\tTime", *lines]) + "\n")
        return
    every = 1 if sessions is None else max(1, 6040 // sessions)
    with (
        gzip.open(data / "ml1m" / "interactions_ordered.csv.gz", "rt") as source,
        log.open("w") as file,
    ):
        rows = csv.DictReader(source)
        file.write("SessionId\tItemId\tTime\n")
        for row in rows:
            if int(row["user_id"]) % every == 0:
                file.write(f"{row['user_id']}\t{row['item_id']}\t{row['ts_est']}\n")


def params_of(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """The case's parameters on top of the set's sizes; GRU4Rec has its own."""
    sizes = SETS["ml100k"] if args.sessions else SETS[args.set]  # a part is a small log as well
    sizes = {} if case.model == "gru4rec" else sizes
    return sizes | case.params | {"n_epochs": args.epochs} | args.params


def epochs_of(case: Case, dataset: Dataset, args: argparse.Namespace) -> int:
    """The last one where the rate falls to zero; else the best one on the validation split."""
    if args.best_epoch is not None:
        return int(args.best_epoch)
    if params_of(case, args).get("schedule", "constant") != "constant":
        return int(args.epochs)
    fit = _fit(case, dataset, "search", args.seed[0], args)
    scores = [epoch.metrics["ndcg@10"] for epoch in _told(fit)]
    best = 1 + max(range(len(scores)), key=scores.__getitem__)
    print(f"  best on the validation split: epoch {best}, {max(scores):.4f}", file=sys.stderr)
    return best


def judged(
    case: Case, dataset: Dataset, seed: int, epochs: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Metrics of one training on all but the test, and what it took."""
    done = list(_told(_fit(case, dataset, "full", seed, args, epochs)))
    seconds = statistics.median(epoch.train_seconds for epoch in done)
    return {
        "epochs": epochs,
        "seconds_per_epoch": round(seconds, 3),
        **{name: done[-1].metrics[name] for name in METRICS},
    }


def _fit(
    case: Case,
    dataset: Dataset,
    view: str,
    seed: int,
    args: argparse.Namespace,
    epochs: int | None = None,
) -> Fit:
    return Fit(
        case.model,
        params_of(case, args),
        dataset.view(view),
        seed=seed,
        epochs=epochs,
        at=(10, 20),
        filter_seen=args.set in FILTERED,
        device=args.device,
        evaluate=True if epochs is None else "last",
    )


def _told(fit: Fit) -> Iterator[Any]:
    for epoch in fit.epochs():
        judged = "".join(f", {name} {epoch.metrics[name]:.4f}" for name in METRICS if epoch.metrics)
        print(
            f"  {fit.name} {fit.view.name} seed {fit.seed} epoch {epoch.epoch}: loss "
            f"{epoch.loss:.4f}{judged}, {epoch.train_seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )
        yield epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=SETS, default="ml100k")
    parser.add_argument(
        "--case", nargs="+", choices=CASES, default=[name for name in CASES if name != "gru4rec"]
    )
    parser.add_argument("--seed", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=20, help="at most; rates fall until then")
    parser.add_argument("--best-epoch", type=int, help="chosen on the validation split already")
    parser.add_argument("--params", type=parse_params, default={}, metavar="K=V,…")
    parser.add_argument("--sessions", type=int, help="about so many users of ml1m only")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="keep the prepared set here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"{platform.machine()}, torch {torch.__version__}, {args.device}, {args.threads} thread(s)",
        file=sys.stderr,
    )
    with tempfile.TemporaryDirectory() as folder:
        dataset = prepared(args.data, args.set, args.cache or Path(folder), args.sessions)
        print(f"fingerprint {dataset.fingerprint}", file=sys.stderr)
        found: dict[str, list[dict[str, Any]]] = {}
        filtered = args.set in FILTERED
        for name, metrics in floors(dataset.view("full"), (10, 20), filter_seen=filtered).items():
            found[name] = [{key: metrics[key] for key in METRICS}]
            print(json.dumps({"set": args.set, "case": name, **found[name][0]}), flush=True)
        for name in args.case:
            case, began = CASES[name], time.perf_counter()
            epochs = epochs_of(case, dataset, args)
            for seed in args.seed:
                result = judged(case, dataset, seed, epochs, args)
                line = {"set": args.set, "case": name, "seed": seed, **result}
                print(json.dumps(line), flush=True)
                found.setdefault(name, []).append(result)
            print(f"  {name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    _table(args.set, found)


def _table(name: str, found: dict[str, list[dict[str, Any]]]) -> None:
    print(f"\n| {name} | HR@10 | NDCG@10 | Recall@20 | MRR@20 | published HR@10/NDCG@10 |",
          file=sys.stderr)  # fmt: skip
    print("|---|---|---|---|---|---|", file=sys.stderr)
    for case, runs in found.items():
        cells = []
        for metric in METRICS:
            values = [run[metric] for run in runs]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}")
        published = CASES[case].published.get(name, "–") if case in CASES else "–"
        print(f"| {case} | {' | '.join(cells)} | {published} |", file=sys.stderr)


if __name__ == "__main__":
    main()
