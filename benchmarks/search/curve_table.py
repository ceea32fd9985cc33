"""Tables of real learning curves, for the simulator (simulate.py), by paropt's own fit loop.

    python benchmarks/search/curve_table.py --data DIR --cache DIR [--set NAME …] [--space NAME …]
                                     [--rows 60] [--proposed] [--hours H]

DIR is as for gru4rec_accuracy.py. Of each set a part is used that trains in a quarter minute. The
first rows of a table are the space's published start points, the others random configurations, the
same ones for every set; two start points are trained with four more seeds each, which is what the
noise of a seed is measured on (counting models have none). One training at a time, on one thread;
tables are made smallest first. A row is written when it is done, so a second run goes on where the
first one ended; run it in the background for as many days as it takes. ``--proposed`` adds the rows
that the tables themselves have proposed (proposals.py). ``--times 5`` makes tables of larger parts,
in curves/x5. Curves are of the valid part, under the evaluation protocol of the data; the test part
is not looked at. ``seconds`` are the process's own CPU seconds per epoch, training and evaluation,
as other work may share the machine.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import platform
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from paropt.data.dataset import Dataset, open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import OutOfMemory, TrainingError
from paropt.search.space.file import EPOCHS, read_space
from paropt.search.space.shipped import find_space
from paropt.search.space.space import Config, Space
from paropt.search.strategy.sampling import derived_seed, uniformly
from paropt.training.fitting.fit import Fit
from paropt.training.registry import counts

METRIC = "mrr@20"
SEED, REPEAT_SEEDS = 42, (43, 44, 45, 46)
REPEATED = 2  # start points that are trained with each of the repeat seeds
FIRST_PROPOSED, MOST_PROPOSED = 1000, 1000  # the number of the first row that was proposed
CURVES = Path(__file__).parent / "curves"
# by space: what is fixed beside the space's own. GRU4Rec's 2,048 samples are most of these items
FIXED = {
    "gru4rec_xe_shared": ("n_sample=512",),
    "gru4rec_bprmax_shared": ("n_sample=512",),
    "sasrec": ("n_epochs=16",),
    "hstu": ("n_epochs=16",),
    "session_knn": (),
    "markov": (),
    "item_knn": (),
    "linear": ("items=5000",),
}
NEEDS_TIMES = {"hstu"}
Rows = Iterator[dict[str, str]]


@dataclass(frozen=True)
class Cut:
    """A part of a real set: the last ``sessions`` of its training rows, by the column ``key``.

    Of each the last ``events``, if that is set: a protocol that judges one event of each user
    needs many users, and these have more events than can be trained in a quarter minute.
    """

    file: str
    key: str
    sessions: int
    options: Options
    times: bool = False
    events: int | None = None
    by_time: str | None = None  # the column to sort by, where a file is not in time order
    keep: Callable[[dict[str, str]], bool] = lambda row: True
    given: dict[str, str] = field(default_factory=dict)  # other parts that come split


def _training(row: dict[str, str]) -> bool:
    return row.get("split", "train") == "train"


_ORDER = Options(session_key="session", item_key="item_id", order_column="pos", test_fraction=0.2)
_USERS = Options(
    session_key="user_id", item_key="item_id", order_column="pos", protocol="leave-one-out"
)
CUTS = {
    "ml1m": Cut("ml1m/interactions_ordered.csv.gz", "user_id", 1_500,
                replace(_USERS, time_key="ts_est"), times=True, events=12),
    "beauty": Cut("beauty/beauty_sequences.csv.gz", "user_id", 4_000, _USERS, events=7),
    "yoochoose_100k": Cut("yoochoose_100k/train.tsv.gz", "SessionId", 4_000, Options(), True,
                          given={"valid": "yoochoose_100k/valid.tsv.gz",
                                 "test": "yoochoose_100k/test.tsv.gz"}),
    "ml100k": Cut("ml100k/ml-100k.inter", "user_id:token", 943,
                  Options(format="recbole", protocol="leave-one-out"), times=True, events=18,
                  by_time="timestamp:float"),
    "taobao": Cut("taobao_slice/events.csv.gz", "user_id", 500,
                  Options(session_key="user_id", item_key="item_id", time_key="ts",
                          session_gap_ms=1_800_000, min_support=2), times=True),
    "globo": Cut("globo/clicks.csv.gz", "session_id", 12_000,
                 Options(session_key="session_id", item_key="click_article_id",
                         time_key="click_timestamp", test_days=0.05), times=True,
                 by_time="click_timestamp",
                 keep=lambda row: row["click_timestamp"] < "1508112000000"),  # 2017-10-16
    "yoochoose1_64": Cut("yoochoose1_64/sessions.csv.gz", "session", 9_000, _ORDER,
                         keep=_training),
    "retailrocket": Cut("retailrocket/sessions.csv.gz", "session", 12_000, _ORDER, keep=_training),
}  # fmt: skip


def dataset(data: Path, name: str, cache: Path, times: int = 1) -> Dataset:
    """The part of a set as a dataset directory, made once; ``times`` as many sessions."""
    part = f"{name}_part" if times == 1 else f"{name}_part_x{times}"
    out, cut = cache / part, CUTS[name]
    cut = replace(cut, sessions=times * cut.sessions)
    if out.exists():
        return open_dataset(out)
    suffix = Path(cut.file.removesuffix(".gz")).suffix
    log = cache / f"{part}{suffix}"
    _last_sessions(data / cut.file, log, cut)
    if cut.given:
        given = {"train": log} | {part: data / file for part, file in cut.given.items()}
        return prepare([], out, given, cut.options)
    return prepare([log], out, options=cut.options)


def _last_sessions(source: Path, out: Path, cut: Cut) -> None:
    separator = "," if ".csv" in source.name else "\t"
    opened = gzip.open if source.suffix == ".gz" else open
    with opened(source, "rt", newline="") as lines:
        reader = csv.DictReader(lines, delimiter=separator)
        rows = [row for row in reader if cut.keep(row)]
    if cut.by_time:
        rows.sort(key=lambda row: float(row[cut.by_time or ""]))
    kept = set(list(dict.fromkeys(row[cut.key] for row in rows))[-cut.sessions :])
    if cut.events:
        following = Counter(row[cut.key] for row in rows)
        late = []
        for row in rows:
            if following[row[cut.key]] <= cut.events:
                late.append(row)
            following[row[cut.key]] -= 1
        rows = late
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(row for row in rows if row[cut.key] in kept)


def published(space: Space) -> list[Mapping[str, Any]]:
    """The start points that say whose they are; all, if none does."""
    named = zip(space.start, space.start_from, strict=True)
    return [point for point, origin in named if origin] or list(space.start)


def configurations(space: Space) -> Iterator[tuple[int, Config, int]]:
    """Number, configuration and seed of every row, without end: start points, repeats, random."""
    starts = [
        space.complete(point, uniformly(random.Random(derived_seed("curves", "start", k))))
        for k, point in enumerate(published(space))
    ]
    repeats = [(point, seed) for point in starts[:REPEATED] for seed in REPEAT_SEEDS]
    if all(map(counts, space.models)):  # which no seed changes
        repeats = []
    chosen = [(point, SEED) for point in starts] + repeats
    for number in itertools.count():
        if number < len(chosen):
            yield number, *chosen[number]
        else:
            rng = random.Random(derived_seed("curves", number))
            yield number, space.walk(uniformly(rng)), SEED


def proposed_file(space: str, curves: Path) -> Path:
    """Where the rows are that the tables of a space have proposed (proposals.py)."""
    return curves / f"proposed-{space}.json"


def proposed(space: Space, path: Path) -> Iterator[tuple[int, Config, int]]:
    """As :func:`configurations`, of the rows that were proposed; none without a file."""
    for one in json.loads(path.read_text()) if path.exists() else []:
        rng = random.Random(derived_seed("curves", one["number"]))
        yield one["number"], space.complete(one["point"], uniformly(rng)), SEED


def train(found: Dataset, config: Config, seed: int) -> tuple[float, list[float]]:
    """CPU seconds per epoch and the curve; a curve that diverged stays short."""
    params = dict(config)
    model = params.pop("model")
    filter_seen = found.meta["protocol"] == "leave-one-out"
    began, curve = time.process_time(), []
    try:
        fit = Fit(model, params, found.view("search"), seed=seed, filter_seen=filter_seen)
        curve = [epoch.metrics[METRIC] for epoch in fit.epochs()]
    except (TrainingError, OutOfMemory) as error:
        print(f"  {error}", flush=True)
    return (time.process_time() - began) / max(1, len(curve)), curve


@dataclass(frozen=True)
class TableFile:
    """A table on disk, and how many of its rows are done."""

    path: Path
    names: list[str]
    epochs: int

    def done(self) -> set[int]:
        if not self.path.exists():
            return set()
        with self.path.open(newline="") as file:
            file.readline()
            return {int(row["row"]) for row in csv.DictReader(file)}

    def begin(self, made: dict[str, Any]) -> None:
        if self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        columns = ["row", *self.names, "seed", "seconds"]
        columns += [f"epoch {k + 1}" for k in range(self.epochs)]
        with self.path.open("w", newline="") as file:
            file.write(f"# {json.dumps(made)}\n")
            csv.writer(file, lineterminator="\n").writerow(columns)

    def add(self, number: int, config: Config, seed: int, spent: float, curve: list[float]) -> None:
        cells = [number, *(config.get(name, "") for name in self.names), seed, f"{spent:.3f}"]
        cells += [f"{value:.5f}" for value in curve] + [""] * (self.epochs - len(curve))
        with self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(cells)


def table(
    found: Dataset,
    name: str,
    space_name: str,
    rows: Sequence[int],
    until: float,
    curves: Path,
    fixed: Sequence[str],
) -> None:
    """Trains what is missing of a table's rows, until it is complete or time is up."""
    space = read_space(find_space(space_name) or space_name, list(fixed))
    _, first, _ = next(configurations(space))
    epochs = int(first.get(EPOCHS) or max(space.epochs.values(), default=1))  # of who counts, one
    names = [parameter.label for parameter in space.searched]
    file = TableFile(curves / f"{name}-{space_name}.csv", names, epochs)
    file.begin(
        {
            "command": f"curve_table.py --set {name} --space {space_name}",
            "date": date.today().isoformat(),
            "space": space_name,
            "fixed": " ".join(fixed),
            "metric": METRIC,
            "set": found.path.name,
            "fingerprint": found.fingerprint,
            "split": "valid",
            "ties": "standard",
            "filter_seen": found.meta["protocol"] == "leave-one-out",
            "machine": f"{platform.machine()}, 1 thread, torch {torch.__version__}",
        }
    )
    done, own = file.done(), [number for number in rows if number < FIRST_PROPOSED]
    wanted = itertools.islice(configurations(space), max(own, default=-1) + 1)
    more = proposed(space, proposed_file(space_name, CURVES))
    for number, config, seed in itertools.chain(wanted, more):
        if number in done or number not in rows:
            continue
        if time.monotonic() > until:
            return
        spent, curve = train(found, config, seed)
        file.add(number, config, seed, spent, curve)
        best = f"{max(curve):.4f}" if curve else "no value"
        print(f"{name} {space_name} row {number}: {best}, {spent:.2f} s per epoch", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="keep the prepared sets here")
    parser.add_argument("--set", choices=[*CUTS], nargs="*", default=[*CUTS])
    parser.add_argument("--space", choices=[*FIXED], nargs="*", default=[*FIXED])
    parser.add_argument("--rows", type=int, default=68)
    parser.add_argument("--only", type=int, nargs="+", help="of these numbers alone")
    parser.add_argument("--proposed", action="store_true", help="the rows of proposals.py as well")
    parser.add_argument("--times", type=int, default=1, help="parts of so many times the sessions")
    parser.add_argument("--hours", type=float, default=1e6)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 3600 * args.hours
    numbers = [*range(args.rows)]
    if args.proposed:
        numbers += range(FIRST_PROPOSED, FIRST_PROPOSED + MOST_PROPOSED)
    for space in args.space:
        for name in args.set:
            if space in NEEDS_TIMES and not CUTS[name].times:
                continue
            found = dataset(args.data, name, args.cache, args.times)
            curves = CURVES if args.times == 1 else CURVES / f"x{args.times}"
            fixed = FIXED[space] if args.times == 1 else ()  # larger parts have items enough
            table(found, name, space, args.only or numbers, until, curves, fixed)


if __name__ == "__main__":
    main()
