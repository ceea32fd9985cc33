"""How evenly experts work under the balancing bias, epoch by epoch: the old default and the new.

    python benchmarks/quality/expert_balance.py [--data DIR] [--epochs 10] [--experts 8]
        [--only hstu]

DIR holds ml100k/ (for SASRec and HSTU) and taobao_slice/ (for long_short), as PAROPT_DATA does.
Small models on one thread; each line is an epoch: the share of the tokens that the busiest expert
of each mixture gets, dead experts, and the study's metric. Nothing is tested on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from paropt.data.dataset import View
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.training.fitting.fit import Fit

RATES = {"0.001 (the old default)": 0.001, "automatic": 0.0}
SMALL = {"dim": 32, "batch_size": 64, "top_k": 2, "balance": "bias"}
FORMS: dict[str, dict[str, Any]] = {
    "sasrec": {"max_length": 50, "dropout": 0.2},
    "hstu": {"max_length": 50, "dropout": 0.2},
    "long_short": {"depth": 2, "next_items": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("PAROPT_DATA"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--only", choices=FORMS)
    given = parser.parse_args()
    if given.data is None:
        parser.error("--data DIR, or PAROPT_DATA, with ml100k/ and taobao_slice/")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for model in [given.only] if given.only else FORMS:
            view = _view(model, given.data, Path(folder))
            for name, rate in RATES.items():
                params = SMALL | FORMS[model] | {"experts": given.experts, "balance_rate": rate}
                _run(model, params | {"n_epochs": given.epochs}, view, name)


def _view(model: str, data: Path, folder: Path) -> View:
    if model != "long_short":
        log = next((data / "ml100k").glob("*.inter"))
        options = Options(format="recbole", keep_repeats=True, min_support=1)
    else:
        log = data / "taobao_slice" / "events.csv.gz"
        options = Options(protocol="long-short", min_long=1, min_short=1, test_fraction=0.2)
    return prepare([log], folder / model, options=options, overwrite=True).view("search")


def _run(model: str, params: dict[str, Any], view: View, name: str) -> None:
    fit = Fit(model, params, view, seed=1)
    steps = fit.plans.steps_per_epoch
    print(f"{model}, {params['experts']} experts, {steps} steps per epoch, balance_rate {name}")
    for report in fit.epochs():
        mixtures = report.extra["experts"]
        busiest = " ".join(f"{100 * max(mixture['load']):5.1f} %" for mixture in mixtures)
        dead = sum(mixture["dead"] for mixture in mixtures)
        value = fit.objective.value(report)
        metric = fit.objective.metric
        print(f"  epoch {report.epoch:2}  busiest {busiest}  dead {dead}  {metric} {value:.4f}")


if __name__ == "__main__":
    main()
