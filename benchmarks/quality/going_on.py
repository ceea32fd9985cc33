"""Going on from a saved model on newer data, beside training anew and beside leaving it as it is.

    python benchmarks/quality/going_on.py --data DIR --out FILE
        [--set yoochoose1_64 globo globo_day] [--model gru4rec sasrec] [--epochs 3]
        [--one-in 8] [--threads 1]

A log in two parts by time (Yoochoose's last 1/64, half of its sessions each; of Globo's news one
user in eight, 1 to 7 and 8 to 14 October 2017, or as "globo_day" 1 to 13 and the 14th alone), and
what follows on the next day as the test. Every way is judged on all of the test's targets: those of
items that a way doesn't know are misses.
Ways: the model of the first half as it is ("untouched"), one trained anew on both halves ("anew on
everything") or on the second ("anew on the second half"), and those that go on from the first
half's model on the second half, with the optimiser begun anew or kept, and with new items' rows as
the model begins or at the mean of the known ones with their spread.

Parameters and epochs are fixed beforehand; nothing is chosen by the test. Seconds are the
processor's, of training alone. Rows are appended to FILE as JSON lines as they come, and a way that
is there is not repeated (FILE.kept has the datasets and the first half's model); the tables come at
the end.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from paropt.data.dataset import View, open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.training.evaluation.ranking.judging import evaluate
from paropt.training.fitting.fit import Fit
from paropt.training.recommending.dataset_events import split_events
from paropt.training.saved_model.earlier import read_earlier
from paropt.training.saved_model.saved import load_model, save_model

MODELS: dict[str, dict[str, Any]] = {
    "gru4rec": {
        "loss": "cross-entropy", "layers": "100", "batch_size": 32, "dropout_p_embed": 0.1,
        "learning_rate": 0.1, "n_sample": 512, "sample_alpha": 0.75, "logq": 1.0,
    },
    "sasrec": {
        "dim": 64, "blocks": 2, "max_length": 20, "dropout": 0.2, "batch_size": 128,
        "learning_rate": 0.002, "warmup": 0.05, "loss": "sampled-softmax",
    },
}  # fmt: skip
METRICS = ("mrr@20", "recall@20")
SEED = 1
WAYS = ("untouched", "anew on everything", "anew on the second half", "going on",
        "going on, optimiser kept", "going on, new rows at the mean")  # fmt: skip
Row = tuple[str, str, float]  # session, item, time in seconds


# -- data -----------------------------------------------------------------------------------


def yoochoose(data: Path, one_in: int) -> tuple[list[Row], list[Row], list[Row]]:
    """First half, second half, test: sessions are numbered in time order. All of them count."""
    parts: dict[str, list[Row]] = {"train": [], "test": []}
    for row in _rows(data / "yoochoose1_64" / "sessions.csv.gz"):
        number = float(row["session"]) * 1000 + float(row["pos"])
        parts[row["split"]].append((row["split"] + row["session"], row["item_id"], number))
    sessions = list(dict.fromkeys(session for session, _, _ in parts["train"]))
    first = set(sessions[: len(sessions) // 2])
    old = [row for row in parts["train"] if row[0] in first]
    return old, [row for row in parts["train"] if row[0] not in first], parts["test"]


def globo(
    data: Path, one_in: int, days: tuple[int, int] = (7, 14)
) -> tuple[list[Row], list[Row], list[Row]]:
    """By the day on which a session begins, of one user in so many.

    ``days``: how many of October belong to the first part, and to both; the next is the test.
    """
    begin = 1_506_816_000  # 2017-10-01
    parts: tuple[list[Row], list[Row], list[Row]] = ([], [], [])
    for row in _rows(data / "globo" / "clicks.csv.gz"):
        seconds = int(row["click_timestamp"]) / 1000
        part = _part(int(row["session_start"]) / 1000 - begin, days)
        # a few sessions go on for days; what they have of a later part is left out
        if (
            int(row["user_id"]) % one_in == 0
            and part is not None
            and part == _part(seconds - begin, days)
        ):
            parts[part].append((row["session_id"], row["click_article_id"], seconds))
    return parts


def globo_day(data: Path, one_in: int) -> tuple[list[Row], list[Row], list[Row]]:
    """Thirteen days, the fourteenth, and the fifteenth: what a newspaper would do every night."""
    return globo(data, one_in, (13, 14))


def _part(seconds: float, days: tuple[int, int]) -> int | None:
    """Which of the three something belongs to, that many seconds after 1 October."""
    day = seconds // 86_400
    return 0 if day < days[0] else 1 if day < days[1] else 2 if day == days[1] else None


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as lines:
        yield from csv.DictReader(lines)


SETS = {"yoochoose1_64": yoochoose, "globo": globo, "globo_day": globo_day}


def datasets(data: Path, name: str, cache: Path, one_in: int) -> dict[str, Path]:
    """Dataset directories: the first half, the second, and both; each with the same test."""
    found = {part: cache / f"{name}-{part}" for part in ("old", "new", "all")}
    if all((place / "meta.json").exists() for place in found.values()):
        return found
    old, new, later = SETS[name](data, one_in)
    files = {}
    for part, rows in {"old": old, "new": new, "all": old + new, "test": later}.items():
        files[part] = cache / f"{name}-{part}.tsv"
        with files[part].open("w", newline="") as file:
            csv.writer(file, delimiter="\t").writerows([("SessionId", "ItemId", "Time"), *rows])
    for part, place in found.items():
        shutil.rmtree(place, ignore_errors=True)
        given = {"train_full": files[part], "test": files["test"]}
        days = 0.25 if name == "globo_day" else 1.0  # for valid, which nothing here looks at
        prepare([], place, given, Options(min_support=1, test_days=days))
    return found


# -- training and judging -------------------------------------------------------------------


@dataclass
class Runs:
    """All ways of one model on one set."""

    set: str
    model: str
    places: dict[str, Path]
    epochs: int
    folder: Path
    done: set[str]

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row per way and number of epochs, as they come."""
        first = self.folder / f"{self.set}-{self.model}"
        if not (first / "model.json").exists():
            self.done.discard("untouched")
        yield from self._trained("untouched", "old", keep=first)
        yield from self._trained("anew on everything", "all")
        yield from self._trained("anew on the second half", "new")
        yield from self._trained("going on", "new", begin=first)
        yield from self._trained("going on, optimiser kept", "new", begin=first, optimiser=True)
        yield from self._trained("going on, new rows at the mean", "new", begin=first, mean=True)

    def _trained(
        self,
        way: str,
        part: str,
        keep: Path | None = None,
        begin: Path | None = None,
        optimiser: bool = False,
        mean: bool = False,
    ) -> Iterator[dict[str, Any]]:
        if way in self.done:
            return
        view = open_dataset(self.places[part]).view("full")
        earlier = read_earlier(begin, optimiser) if begin else None
        params = MODELS[self.model] | {"n_epochs": self.epochs}
        fit = Fit(self.model, params, view, seed=SEED, evaluate=False, earlier=earlier)
        if mean:
            at_the_mean(fit)
        began = time.process_time()
        spent = 0.0
        for epoch in fit.epochs():
            spent += time.process_time() - began
            found = self._judged(fit) if begin or epoch.epoch == fit.n_epochs else {}
            if found:
                yield self._row(way, epoch.epoch, spent, view) | found
            began = time.process_time()
        if keep is not None:
            save_model(keep, fit, optimiser=True)

    def _row(self, way: str, epochs: int, spent: float, view: View) -> dict[str, Any]:
        return {
            "set": self.set, "model": self.model, "way": way, "epochs": epochs,
            "seconds": round(spent, 1), "items": view.n_items, "events": view.train.n_events,
        }  # fmt: skip

    def _judged(self, fit: Fit) -> dict[str, Any]:
        """On the test beside both halves, whatever the model was trained on; misses count."""
        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder) / "m", fit)
            saved = load_model(Path(folder) / "m")
        dataset = open_dataset(self.places["all"])
        every = int(dataset.split("test").targets.sum())
        found = evaluate(saved.model, split_events(saved, dataset, "test"), saved.n_items)
        share = found.targets / every
        metrics = {name: round(found.metrics[name] * share, 5) for name in METRICS}
        return metrics | {"targets": every, "unknown": every - found.targets}


@torch.no_grad()
def at_the_mean(fit: Fit) -> None:
    """New items' rows: the known ones' mean, and noise of their spread."""
    assert fit.beginning is not None
    known = set(fit.beginning.earlier.item_ids)
    ids = fit.view.dataset.item_ids()[: fit.view.n_items].tolist()
    new = torch.tensor([item not in known for item in ids])
    source = torch.Generator().manual_seed(SEED)
    for name, rows in fit.model.keyed_rows().items():
        if rows.keys is None:
            table = fit.model.state_dict()[name]
            noise = torch.randn(table[new].shape, generator=source)
            table[new] = table[~new].mean(0) + noise * table[~new].std(0)


# -- what is written ------------------------------------------------------------------------


def tables(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown, a table per set and model."""
    for name, model in dict.fromkeys((row["set"], row["model"]) for row in rows):
        yield f"\n{name}, {model}\n"
        yield "| way | epochs | MRR@20 | Recall@20 | targets of unknown items | seconds |"
        yield "|---|---|---|---|---|---|"
        for row in rows:
            if (row["set"], row["model"]) == (name, model):
                yield (
                    f"| {row['way']} | {row['epochs']} | {row['mrr@20']:.4f} | "
                    f"{row['recall@20']:.4f} | {row['unknown'] / row['targets']:.1%} | "
                    f"{row['seconds']:.0f} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--model", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--one-in", type=int, default=8, help="users of Globo that are taken")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    rows = [json.loads(line) for line in asked.out.read_text().splitlines()] if (
        asked.out.exists()
    ) else []  # fmt: skip
    kept = asked.out.with_name(asked.out.name + ".kept")
    kept.mkdir(exist_ok=True)
    with asked.out.open("a") as out:
        for name, model in itertools.product(asked.set, asked.model):
            there = [row for row in rows if (row["set"], row["model"]) == (name, model)]
            done = {row["way"] for row in there if row["epochs"] == asked.epochs}
            if done == set(WAYS):
                continue
            places = datasets(asked.data, name, kept, asked.one_in)
            for row in Runs(name, model, places, asked.epochs, kept, done).rows():
                if not any(row["way"] == r["way"] and row["epochs"] == r["epochs"] for r in there):
                    rows.append(row)
                    print(json.dumps(row), file=out, flush=True)
    print("\n".join(tables(rows)))


if __name__ == "__main__":
    main()
