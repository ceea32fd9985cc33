"""How fast `paropt prepare` is: seconds and peak memory for N synthetic events.

    python benchmarks/speed/prepare_speed.py [--events 10000000] [--kind tsv|tsv.gz|parquet]

The log is random but shaped like a shop's: Zipf items, sessions of about six events that
interleave, the rows in the order of time. Preparing runs in a child process, whose peak memory is
what the kernel says.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet


def synthetic_log(n_events: int, seed: int = 1) -> pa.Table:
    """Events with SessionId, ItemId and Time (seconds) over 30 days."""
    random = np.random.default_rng(seed)
    n_sessions, n_items = max(1, n_events // 6), max(10, n_events // 200)
    session = random.integers(0, n_sessions, n_events)
    begins = random.uniform(0, 30 * 86_400, n_sessions)
    seconds = 1_700_000_000 + begins[session] + random.exponential(600, n_events)
    popularity = 1 / np.arange(1, n_items + 1)
    item = np.searchsorted(np.cumsum(popularity / popularity.sum()), random.random(n_events))
    order = np.argsort(seconds)
    return pa.table(
        {
            "SessionId": session[order] + 10_000_000,
            "ItemId": item[order] + 214_000_000,
            "Time": np.round(seconds[order], 3),
        }
    )


def write(table: pa.Table, path: Path) -> None:
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path)
        return
    options = pa.csv.WriteOptions(delimiter="\t", quoting_style="none")
    compression = "gzip" if path.suffix == ".gz" else None
    with pa.output_stream(str(path), compression=compression) as stream:
        pa.csv.write_csv(table, stream, options)


def prepare(log: Path, out: Path) -> tuple[float, float, int]:
    """Seconds, those of the processor and peak bytes of preparing a log in a process of its own."""
    command = [sys.executable, "-m", "paropt", "prepare", str(log), "--out", str(out)]
    begin = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(child.returncode)
    processor = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - begin, processor, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--kind", choices=["tsv", "tsv.gz", "parquet"], default="tsv")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        write(synthetic_log(given.events), given.write)
        return
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / f"log.{given.kind}"
        # written by another process: a child's peak counts what its parent held when it forked
        again = [sys.executable, __file__, "--events", str(given.events), "--write", str(log)]
        subprocess.run(again, check=True)
        size = log.stat().st_size
        seconds, processor, peak = prepare(log, Path(folder) / "out")
    python = f"Python {platform.python_version()}"
    print(f"\nmachine   {platform.machine()}, {os.cpu_count()} cores, {python}")
    print(f"log       {given.events:,} events, {given.kind}, {size / 1e6:,.0f} MB")
    print(f"time      {seconds:.1f} s ({given.events / seconds:,.0f} events/s)")
    print(f"processor {processor:.1f} s")
    print(f"memory    {peak / 1e9:.2f} GB at most")


if __name__ == "__main__":
    main()
