"""The Tianchi log's layout at its full size: how long `prepare` takes, how much memory, an epoch.

    python benchmarks/quality/tianchi.py --dir /tmp/tianchi [--events 12000000] [--users 10000]
        [--epochs 1]

The log is made up: users of several tastes who come back to items, 2.9 million items of 8,900
categories, a month of hours, a place in one row of five. Seconds are of the wall and of the
processor, memory is the most that the process held (Linux).
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from numpy.typing import NDArray

from paropt.data.dataset import open_dataset
from paropt.training.fitting.fit import Fit

ITEMS, CATEGORIES, DAYS = 2_900_000, 8_900, 31
TASTES = 40  # categories that a user looks at
Texts = NDArray[np.str_]
CHUNK = 1_000_000  # rows that are made at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--events", type=int, default=12_000_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=1)
    given = parser.parse_args()
    given.dir.mkdir(parents=True, exist_ok=True)
    log, data = given.dir / "tianchi_mobile_recommend_train_user.csv", given.dir / "data"
    if not log.exists():
        write_log(log, given.events, given.users)
    print(f"{log}: {log.stat().st_size / 2**20:,.0f} MiB, {given.events:,} events")
    _prepare(log, data)
    if given.epochs:
        _train(data, given.epochs)


def write_log(path: Path, events: int, users: int) -> None:
    """The log, users in no order, as the published file has them."""
    source = np.random.default_rng(46)
    category_of = source.zipf(1.2, ITEMS) % CATEGORIES
    by_category = np.argsort(category_of, kind="stable")
    begins = np.searchsorted(category_of[by_category], np.arange(CATEGORIES + 1))
    tastes = source.integers(CATEGORIES, size=(users, TASTES))
    hours = np.array(
        [
            f"2014-{11 + (17 + d) // 30}-{(17 + d) % 30 + 1:02} {h:02}"
            for d in range(DAYS)
            for h in range(24)
        ]
    )
    schema = ["user_id", "item_id", "behavior_type", "user_geohash", "item_category", "time"]
    writer = None
    for begin in range(0, events, CHUNK):
        n = min(CHUNK, events - begin)
        user = source.integers(users, size=n)
        category = tastes[user, (TASTES * source.random(n) ** 2).astype(int)]
        size = np.maximum(begins[category + 1] - begins[category], 1)
        # few of a category's items are most of its events, so that users come back to them
        item = by_category[begins[category] + (size * source.random(n) ** 6).astype(int)]
        behaviour = 1 + np.searchsorted([0.94, 0.96, 0.985], source.random(n))
        place = np.where(source.random(n) < 0.2, "9q8zn4", "")
        columns = [
            user + 10_000_000,
            item,
            behaviour,
            place,
            category_of[item],
            _when(hours, source, n),
        ]
        table = pa.table([pa.array(column) for column in columns], names=schema)
        plain = pyarrow.csv.WriteOptions(quoting_style="none", include_header=writer is None)
        writer = writer or pyarrow.csv.CSVWriter(path, table.schema, write_options=plain)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _when(hours: Texts, source: np.random.Generator, n: int) -> Texts:
    return hours[source.integers(len(hours), size=n)]


def _prepare(log: Path, data: Path) -> None:
    began = time.perf_counter()
    command = [sys.executable, "-m", "paropt", "prepare", str(log), "--protocol", "long-short"]
    subprocess.run([*command, "--gap", "24h", "--out", str(data), "--overwrite"], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime
    print(
        f"prepare: {time.perf_counter() - began:.1f} s, {processor:.1f} s of the processor, "
        f"{used.ru_maxrss / 2**20:.2f} GiB at most"
    )


def _train(data: Path, epochs: int) -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    began = time.process_time()
    fit = Fit("long_short", {"n_epochs": epochs}, open_dataset(data).view("search"), seed=1)
    print(f"model built in {time.process_time() - began:.1f} s of the processor")
    began = time.process_time()
    for report in fit.epochs():
        assert report.train_seconds is not None and report.evaluation_seconds is not None
        memory, used = (report.peak_memory or 0) / 2**30, time.process_time() - began
        began += used
        print(
            f"epoch {report.epoch}: training {report.train_seconds:.1f} s, evaluation "
            f"{report.evaluation_seconds:.1f} s; {used:.1f} s of the processor, "
            f"{memory:.2f} GiB at most"
        )


if __name__ == "__main__":
    main()
