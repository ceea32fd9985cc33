"""Items that are more than ids: SASRec and HSTU on ids, attributes and texts, rare items apart.

    python benchmarks/quality/rich_items.py --sets DIR --set beauty --out results
        [--model sasrec hstu] [--variant ids attributes text zero-ids-text text-only]
        [--seeds 1 2 3] [--epochs 25]
        [--protocol all-but-last all-but-two] [--semantic-features NAMES] [--params K=V,…]

DIR/beauty, DIR/ml1m or DIR/taobao is a dataset directory (docs/data.md says how each is made).
First one seed is trained on ``train`` and judged on ``valid`` after every epoch: OUT/curves.csv;
the epoch with the best NDCG@10 is how long the variant is trained from then on (--no-curve: all of
--epochs).
Then each seed is trained and judged once on ``test``: on all but the last event of each user
(``all-but-last``), or on all but the last two, the second-last being read at test (``all-but-two``,
as in S3-Rec and the papers after it). Every training is a row of OUT/rows.csv, with its ranks in
OUT/ranks; what is there isn't done again. The tables come at the end: each variant's mean over the
seeds and its paired 95 % interval against ``ids``, over all targets and over those with at most 5
and at most 10 events in training, beside popularity, co-occurrence and nearest neighbours by text.
Targets that training never saw are in OUT/cold.csv, ranked among all items by the variants that
know items by more than their ids; of Beauty they are a few dozen, of Taobao nearly half of all.
``--table`` only prints.

Beauty is trained with 1,024 negatives a step, shared by the batch: 7 s of CPU an epoch where the
full softmax takes 21, and as good per epoch on ``valid`` (--params loss=cross-entropy for that).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.parts.contract import Kinds, Model, Needs, SequenceBatch
from models.parts.items.whitening import fit_whitening, whitened
from paropt.data.dataset import View, open_dataset
from paropt.training.batches import plans
from paropt.training.batches.catalogue import catalogue
from paropt.training.batches.events import known_events
from paropt.training.evaluation.baselines.floors import floor_ranks
from paropt.training.evaluation.bootstrap import Sample
from paropt.training.evaluation.cold import evaluate_cold
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import EvaluationProtocol
from paropt.training.evaluation.ranking.judging import ROWS, evaluate, queries
from paropt.training.fitting.fit import Fit
from paropt.training.metrics import gain
from paropt.training.train_request import parse_params

METRICS = ("recall@10", "ndcg@10", "mrr@20")  # recall@10 of one target is HR@10
RARE = (5, 10)  # events in training, at most
VIEWS = {"all-but-last": "full", "all-but-two": "without-valid"}
PATIENCE = 4  # epochs of a curve that bring nothing better
Row = dict[str, Any]


@dataclass(frozen=True)
class Set:
    """A dataset: the fields of its items, how a model is trained on it, and how it is judged."""

    attributes: str
    texts: str
    params: Mapping[str, Any]
    filter_seen: bool = True
    timed: bool = True
    more: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


SIZES = {"dim": 64, "blocks": 2, "heads": 1}
NEGATIVES = {"loss": "sampled-softmax", "n_sample": 1024}
BEHAVIOUR = {"action_column": "behavior", "action_input": "add"}
SETS = {
    "beauty": Set(
        "attribute_ids",
        "title_vector",
        SIZES | {"max_length": 50, "dropout": 0.5, "batch_size": 128} | NEGATIVES,
        timed=False,
    ),
    "ml1m": Set(
        "genres", "plot_vector", SIZES | {"max_length": 200, "dropout": 0.2, "batch_size": 64}
    ),
    "taobao": Set(
        "category_id",
        "",
        SIZES | {"max_length": 50, "dropout": 0.3, "batch_size": 64},
        filter_seen=False,
        more={
            "behaviour": BEHAVIOUR,
            "attributes-behaviour": {**BEHAVIOUR, "features": "category_id"},
        },
    ),
}


def variants(about: Set, semantic: str) -> dict[str, dict[str, Any]]:
    """What each variant's items are made of, by name; those that the data allow."""
    text = {"vectors": about.texts}
    found: dict[str, dict[str, Any]] = {
        "ids": {},
        "attributes": {"features": about.attributes},
    }
    if about.texts:
        found |= {
            "text": text,
            "zero-ids-text": {**text, "id_init": "zero"},
            "text-only": {**text, "id_init": "none"},
            "all": {**text, "features": about.attributes, "id_init": "zero"},
        }
    if semantic:
        found["semantic"] = {"features": semantic}
    return found | {name: dict(given) for name, given in about.more.items()}


# -- training --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One variant of one model on one set."""

    args: argparse.Namespace
    model: str
    variant: str
    given: Mapping[str, Any]

    @property
    def about(self) -> Set:
        return SETS[self.args.set]

    def params(self, epochs: int) -> dict[str, Any]:
        params = {**self.about.params, **self.given, **self.args.params, "n_epochs": epochs}
        if self.model == "hstu" and not self.about.timed:
            params.setdefault("relative_bias", "position")
        return params

    def key(self, **more: Any) -> Row:
        """What tells its rows from others."""
        said = ",".join(f"{k}={v}" for k, v in sorted(self.args.params.items()))
        row = {"set": self.args.set, "model": self.model, "variant": self.variant, "params": said}
        return {name: str(value) for name, value in {**row, **more}.items()}

    def fit(self, view: View, seed: int, epochs: int, every: bool, patience: int = 0) -> Fit:
        params = self.params(epochs) | {"patience": patience}
        return Fit(
            self.model,
            params,
            view,
            seed=seed,
            at=(10, 20),
            objective=Objective("ndcg@10"),
            filter_seen=self.about.filter_seen,
            device=self.args.device,
            evaluate=every,
        )

    def remark(self, text: str) -> None:
        print(f"  {self.args.set} {self.model} {self.variant} {text}", file=sys.stderr, flush=True)


class Rows:
    """A CSV file that is written row by row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open(newline="") if path.exists() else open("/dev/null") as file:
            self.rows: list[Row] = list(csv.DictReader(file))

    def found(self, key: Row) -> list[Row]:
        return [row for row in self.rows if all(row.get(name) == key[name] for name in key)]

    def add(self, row: Row) -> None:
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        self.rows.append({name: str(value) for name, value in row.items()})


def curve(run: Run, view: View, curves: Rows) -> int:
    """The best epoch on ``valid`` by NDCG@10, after training where that isn't known yet."""
    key = run.key(epochs=run.args.epochs)
    done = curves.found(key | {"last": "1"})
    if not done:
        fit = run.fit(view, run.args.seeds[0], run.args.epochs, True, PATIENCE)
        for report in fit.epochs():
            metrics = {name: report.metrics[name] for name in ("recall@20", *METRICS)}
            curves.add(
                {
                    **key,
                    "seed": fit.seed,
                    "epoch": report.epoch,
                    **{name: f"{value:.5f}" for name, value in metrics.items()},
                    "loss": f"{report.loss:.4f}",
                    "train_seconds": f"{report.train_seconds:.2f}",
                    "judge_seconds": f"{report.evaluation_seconds:.2f}",
                    "best": fit.best_epoch,
                    "last": int(fit.finished),
                }
            )
            run.remark(f"valid epoch {report.epoch}: ndcg@10 {metrics['ndcg@10']:.4f}")
        done = curves.found(key | {"last": "1"})
    return int(done[-1]["best"])


def tested(run: Run, view: View, protocol: str, seed: int, epochs: int, rows: Rows) -> None:
    """Train once and judge once on ``test``, unless that was done."""
    key = run.key(protocol=protocol, seed=seed)
    if rows.found(key):
        return
    fit = run.fit(view, seed, epochs, False)
    seconds = [report.train_seconds for report in fit.epochs()]
    targets, ranks, unknown = judged(fit.model, view, run.about.filter_seen)
    place = run.args.out / "ranks" / f"{'-'.join(key.values())}.npz"
    place.parent.mkdir(exist_ok=True)
    np.savez_compressed(place, ranks=ranks, items=targets.items, sessions=targets.sessions)
    found = values_of(ranks)
    row = {
        **key,
        "epochs": epochs,
        "fingerprint": view.fingerprint[:12],
        "seconds_per_epoch": f"{np.median(seconds):.1f}",
        "targets": len(ranks),
        "unknown": unknown,
        **{name: f"{values.mean():.5f}" for name, values in found.items()},
        "ranks": place.name,
    }
    rows.add(row)
    if run.given.get("features") or run.given.get("vectors"):
        cold(run, fit.model, view, key)
    run.remark(f"test {protocol} seed {seed}: {', '.join(f'{n} {row[n]}' for n in METRICS)}")


def cold(run: Run, model: Model, view: View, key: Row) -> None:
    """A row of what became of the targets that training never saw."""
    protocol = EvaluationProtocol(run.about.filter_seen, "standard")
    found = evaluate_cold(model, view.test, catalogue(view), protocol, (10, 20))
    metrics = {name: found.metrics.get(name, 0.0) for name in ("recall@10", "ndcg@10", "mrr@20")}
    row = {
        **key,
        "targets": found.targets,
        "items": found.items,
        "candidates": found.candidates,
        **{name: f"{value:.5f}" for name, value in metrics.items()},
        "tied": f"{found.tied or 0:.3f}",
        **{
            f"{name}, ties against it": f"{found.conservative.get(name, value):.5f}"
            for name, value in metrics.items()
        },
    }
    Rows(run.args.out / "cold.csv").add(row)


# -- judging ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Targets:
    """What a view's evaluation predicts, in the order of its events: items and sessions [T]."""

    positions: NDArray[np.int64]
    items: NDArray[np.int64]
    sessions: NDArray[np.int64]


def targets_of(view: View) -> Targets:
    events = known_events(view.test, view.n_items)
    positions, _ = events.queries()
    sessions = np.searchsorted(events.offsets, positions, side="right") - 1
    return Targets(positions, np.asarray(events.items[positions], np.int64), sessions)


def judged(model: Model, view: View, filter_seen: bool) -> tuple[Targets, NDArray[np.float64], int]:
    """The targets, the rank of each (those beyond 20 are infinite), and how many are unknown."""
    needs = model.needs(model.params)
    found = evaluate(model, view.test, view.n_items, at=(10, 20), filter_seen=filter_seen)
    batches = plans.evaluation(view.test, view.n_items, model.max_length, ROWS, model.device, needs)
    positions = torch.cat([batch.histories[:, 1].cpu() for batch in queries(batches)]).numpy()
    targets, order = targets_of(view), np.argsort(positions)
    assert np.array_equal(positions[order], targets.positions)
    return targets, found.ranks[order], found.unknown


def values_of(ranks: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {name: gain(name, ranks) for name in METRICS}


class NearestText(Model):
    """Nothing is learnt: cosine of whitened texts to the mean of the latest ``recent`` items."""

    def __init__(self, view: View, texts: str, recent: int) -> None:
        about = catalogue(view)
        super().__init__({"texts": texts, "recent": recent}, about, 0)
        vectors = about.items.vectors(texts)
        rows = (~vectors.missing).nonzero().squeeze(1)
        mean, projection = fit_whitening(vectors, rows, min(128, vectors.dim))
        white = whitened(vectors, mean, projection).float()
        self.table = torch.nn.functional.normalize(white, dim=1)

    @classmethod
    def needs(cls, params: Mapping[str, Any]) -> Needs:
        vector: Kinds = ("vector",)
        return Needs(items={params["texts"]: vector})

    def encode(self, batch: SequenceBatch) -> Tensor:
        real = torch.arange(batch.items.shape[1]) < batch.lengths[:, None]
        sums = (self.table[batch.items] * real[..., None]).cumsum(1)
        before = F.pad(sums, (0, 0, self.params["recent"], 0))[:, : sums.shape[1]]
        return (sums - before)[batch.targets >= 0]

    def item_table(self) -> tuple[Tensor, None]:
        return self.table, None


def baselines(view: View, about: Set) -> dict[str, NDArray[np.float64]]:
    """Ranks of what needs no training, by name, in the order of the targets."""
    found = dict(floor_ranks(view, "standard", about.filter_seen))
    if about.texts:
        for name, recent in (("text k-NN, last item", 1), ("text k-NN, mean of 10", 10)):
            nearest = NearestText(view, about.texts, recent)
            found[name] = judged(nearest, view, about.filter_seen)[1]
    return found


# -- tables ----------------------------------------------------------------------------------------


def tables(args: argparse.Namespace, rows: Rows) -> None:
    """Print what is in the rows: a table per protocol."""
    about = SETS[args.set]
    for protocol in args.protocol:
        view = open_dataset(args.sets / args.set).view(VIEWS[protocol])
        targets, support = targets_of(view), view.support()
        parts = {"all": np.ones(len(targets.items), bool)}
        rare_ones = {f"≤ {few}": support[targets.items] <= few for few in RARE}
        parts |= {name: mask for name, mask in rare_ones.items() if mask.any()}
        unknown = int(view.test.targets.sum()) - len(targets.items)
        print(f"\n{args.set}, {protocol}: {len(targets.items):,} targets, {unknown:,} unknown;")
        print(", ".join(f"{name}: {int(mask.sum()):,}" for name, mask in parts.items()), "\n")
        rare = list(parts)[1:]
        head = ["", "HR@10", "NDCG@10", "MRR@20", "HR@10, unknown missed"]
        head += [f"{metric} {name}" for name in rare for metric in ("HR@10", "NDCG@10")]
        head += ["NDCG@10 above ids", *rare]
        print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
        draw = Draw(targets, parts, unknown, view.test.n_sessions)
        for name, ranks in baselines(view, about).items():
            draw.line(name, [ranks], None)
        for model in args.model:
            ids = ranks_of(args, rows, model, "ids", protocol)
            for variant in variants(about, args.semantic_features):
                found = ranks_of(args, rows, model, variant, protocol)
                draw.line(f"{model}, {variant} [{len(found)}]", found, ids)


def ranks_of(
    args: argparse.Namespace, rows: Rows, model: str, variant: str, protocol: str
) -> list[NDArray[np.float64]]:
    """Of each seed."""
    key = Run(args, model, variant, {}).key(protocol=protocol)
    places = [args.out / "ranks" / row["ranks"] for row in rows.found(key)]
    return [np.load(place)["ranks"] for place in places]


@dataclass(frozen=True)
class Draw:
    """Writes lines of a table."""

    targets: Targets
    parts: Mapping[str, NDArray[np.bool_]]
    unknown: int
    n_sessions: int

    def sample(self, seeds: Iterable[NDArray[np.float64]], part: NDArray[np.bool_]) -> Sample:
        """The mean of the seeds' values of each target, by groups of sessions."""
        each = [values_of(ranks) for ranks in seeds]
        means = {name: np.mean([one[name] for one in each], axis=0)[part] for name in METRICS}
        return Sample.of_values(means, self.targets.sessions[part], self.n_sessions)

    def line(
        self, name: str, seeds: list[NDArray[np.float64]], ids: list[NDArray[np.float64]] | None
    ) -> None:
        if not seeds:
            return
        samples = {part: self.sample(seeds, mask) for part, mask in self.parts.items()}
        whole = samples["all"].values
        known = len(self.targets.items) / (len(self.targets.items) + self.unknown)
        cells = [f"{whole[metric]:.4f}" for metric in METRICS]
        cells.append(f"{whole['recall@10'] * known:.4f}")
        for part in list(self.parts)[1:]:
            values = samples[part].values
            cells += [f"{values['recall@10']:.4f}", f"{values['ndcg@10']:.4f}"]
        for part, mask in self.parts.items():
            cells.append(_above(samples[part], self.sample(ids, mask) if ids else None))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _above(ours: Sample, theirs: Sample | None) -> str:
    if theirs is None:
        return "–"
    by, low, high = ours.above(theirs)["ndcg@10"]
    return f"{by:+.4f} ({low:+.4f} … {high:+.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sets", type=Path, required=True, help="folder of dataset directories")
    parser.add_argument("--set", choices=SETS, default="beauty")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument(
        "--model", nargs="+", choices=("sasrec", "hstu"), default=["sasrec", "hstu"]
    )
    parser.add_argument("--variant", nargs="+", help="all that the set has, by default")
    parser.add_argument("--protocol", nargs="+", choices=VIEWS, default=list(VIEWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=25, help="at most")
    parser.add_argument("--no-curve", action="store_true", help="train --epochs, choose nothing")
    parser.add_argument("--semantic-features", default="", metavar="NAME+…")
    parser.add_argument("--params", type=parse_params, default={}, metavar="K=V,…")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="train nothing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    curves, rows = Rows(args.out / "curves.csv"), Rows(args.out / "rows.csv")
    if not args.table:
        work(args, curves, rows)
    tables(args, rows)


def work(args: argparse.Namespace, curves: Rows, rows: Rows) -> None:
    """All trainings that are not in the rows."""
    dataset = open_dataset(args.sets / args.set)
    known = variants(SETS[args.set], args.semantic_features)
    if unknown := [name for name in args.variant or () if name not in known]:
        raise SystemExit(f"{args.set} has no variant {unknown[0]!r}; it has {', '.join(known)}")
    for variant in args.variant or known:
        for model in args.model:
            run = Run(args, model, variant, known[variant])
            epochs = args.epochs if args.no_curve else curve(run, dataset.view("search"), curves)
            for seed in args.seeds:
                for protocol in args.protocol:
                    view = dataset.view(VIEWS[protocol])
                    tested(run, view, protocol, seed, epochs, rows)


if __name__ == "__main__":
    main()
