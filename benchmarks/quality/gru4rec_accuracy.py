"""GRU4Rec's accuracy beside the official PyTorch version's, on the same files.

    python benchmarks/quality/gru4rec_accuracy.py --data DIR [--set yoochoose_100k …] [--seed 1 …]

DIR holds the folders of the real data sets (see SETS for the files). The official figures were
recorded on these files by running it as it is: shared embedding, `standard` ties, one thread.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from paropt.data.dataset import Dataset, open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.training.fitting.fit import Fit

RETAILROCKET: dict[str, Any] = {
    "loss": "bpr-max", "final_act": "elu-0.5", "layers": 224, "batch_size": 80,
    "dropout_p_embed": 0.5, "dropout_p_hidden": 0.05, "learning_rate": 0.05, "momentum": 0.4,
    "n_sample": 2048, "sample_alpha": 0.4, "bpreg": 1.95,
}  # fmt: skip
RSC15: dict[str, Any] = {
    "loss": "cross-entropy", "layers": 100, "batch_size": 32, "dropout_p_embed": 0.1,
    "learning_rate": 0.1, "n_sample": 2048, "sample_alpha": 0.75, "logq": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One configuration on one set; ``official`` are (Recall@20, MRR@20) per recorded run."""

    data: str
    name: str
    params: dict[str, Any]
    epochs: int
    official: tuple[tuple[float, float], ...]


CASES = (
    Case("yoochoose_100k", "bpr-max", RETAILROCKET, 10, ((0.6848, 0.3653), (0.6873, 0.3627))),
    Case("yoochoose_100k", "cross-entropy", RSC15, 10, ((0.6645, 0.3384), (0.6647, 0.3455))),
    Case("retailrocket", "bpr-max", RETAILROCKET, 5, ((0.6024, 0.2982),)),
    Case("yoochoose1_64", "cross-entropy", RSC15, 5, ((0.7092, 0.3128),)),
)


def prepared(data: Path, name: str, cache: Path) -> Dataset:
    """The set as a dataset directory, made once."""
    out = cache / name
    if out.exists():
        return open_dataset(out)
    folder = data / name
    if name == "yoochoose_100k":
        given = {"train_full": folder / "train_full.tsv.gz", "test": folder / "test.tsv.gz"}
        return prepare([], out, given)
    options = Options(
        session_key="session", item_key="item_id", order_column="pos", split_column="split"
    )
    return prepare([folder / "sessions.csv.gz"], out, options=options)


def run(case: Case, dataset: Dataset, seed: int) -> tuple[float, float]:
    """Recall@20 and MRR@20 of one training, after its last epoch, as the official reports them."""
    fit = Fit("gru4rec", case.params, dataset.view("full"), seed=seed, epochs=case.epochs)
    began = time.perf_counter()
    for epoch in fit.epochs():
        recall, mrr = epoch.metrics["recall@20"], epoch.metrics["mrr@20"]
        print(
            f"  {case.data} {case.name} seed {seed} epoch {epoch.epoch}: recall@20 {recall:.4f}, "
            f"mrr@20 {mrr:.4f}, {epoch.events_per_second:.0f} events/s",
            file=sys.stderr,
            flush=True,
        )
    print(f"  {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return recall, mrr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", nargs="+", default=["yoochoose_100k"],
                        choices=sorted({case.data for case in CASES}))  # fmt: skip
    parser.add_argument("--seed", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{platform.machine()}, torch {torch.__version__}, {args.threads} thread(s)")
    with tempfile.TemporaryDirectory() as cache:
        for case in (case for case in CASES if case.data in args.set):
            dataset = prepared(args.data, case.data, Path(cache))
            report(case, [run(case, dataset, seed) for seed in args.seed])


def report(case: Case, found: list[tuple[float, float]]) -> None:
    for k, metric in enumerate(("recall@20", "mrr@20")):
        ours = statistics.mean(run[k] for run in found)
        theirs = statistics.mean(run[k] for run in case.official)
        runs = ", ".join(f"{run[k]:.4f}" for run in found)
        print(
            f"{case.data} {case.name} {metric}: {ours:.4f} ({runs}); "
            f"official {theirs:.4f} ({len(case.official)} runs); {ours / theirs - 1:+.2%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
