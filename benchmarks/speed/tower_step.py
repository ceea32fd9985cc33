"""A step with a million items of vectors: seconds and memory.

    python benchmarks/speed/tower_step.py [--items 1000000] [--width 1024] [--dir DIR] [--steps 20]
        [--batch 128] [--length 50] [--n-sample 1024]

Vectors of random numbers are written as float16 into a file in a folder that goes afterwards (2 GB
by default). SASRec (d 64, 2 blocks, sampled softmax) is built on them and trained for some steps on
random sessions: once on ids alone, once with the vectors beside ids that begin at zero. Told are
the seconds of reading and whitening, which a process pays once, and of a step (median), each by
the clock and by the processor; the peak of memory that belongs to the process (RssAnon), and that
of the mapped file's pages, which the system takes back when it wants them (RssFile). Results are
JSON lines.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.parts.contract import Catalogue, Facts, Field, SequenceBatch, Table, Vectors
from models.parts.transformer.sequence_model import SequenceModel
from paropt.training.fitting.optimisers import Optimiser
from paropt.training.registry import build

ROWS = 1 << 15  # written at once


def write_rows(path: Path, items: int, width: int) -> None:
    """Random vectors in a cone, as language models make them."""
    rows = np.lib.format.open_memmap(path, "w+", np.float16, (items, width))
    draw = np.random.default_rng(1)
    mean = draw.standard_normal(width, np.float32)
    for begin in range(0, items, ROWS):
        some = draw.standard_normal((min(ROWS, items - begin), width), np.float32)
        rows[begin : begin + ROWS] = some + mean
    rows.flush()


def vectors_of(path: Path) -> Vectors:
    rows = np.load(path, mmap_mode="r")

    def read(index: Tensor) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(rows[index.numpy()]))

    return Vectors(rows.shape[1], torch.zeros(len(rows), dtype=torch.bool), read)


def batch_of(args: argparse.Namespace, step: int) -> SequenceBatch:
    draw = torch.Generator().manual_seed(step)
    items = torch.randint(args.items, (args.batch, args.length + 1), generator=draw)
    times = torch.arange(args.length).expand(args.batch, -1)
    lengths = torch.full((args.batch,), args.length)
    return SequenceBatch(items[:, :-1], items[:, 1:], times, times, lengths)


def memory() -> dict[str, int]:
    """MiB of this process now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[name].split()[0]) >> 10 for name in ("RssAnon", "RssFile", "VmHWM")}


def measured(args: argparse.Namespace, path: Path, rich: bool) -> None:
    """Print what building a model and training it for some steps took."""
    fields = {"look": Field("look", "vector", args.width)} if rich else {}
    facts = Facts(args.items, 1000, 50_000, args.length, True, items=fields)
    items = Table(fields, lambda _: vectors_of(path))
    about = Catalogue(facts, torch.ones(args.items, dtype=torch.int64), items=items)
    given = {"vectors": "look", "id_init": "zero"} if rich else {}
    params = {"dim": 64, "max_length": args.length, "dropout": 0.2, "n_epochs": 1}
    params |= {"loss": "sampled-softmax", "n_sample": args.n_sample, **given}
    began, before = time.perf_counter(), time.process_time()
    model = build("sasrec", params, about, seed=1)
    assert isinstance(model, SequenceModel)
    built = time.perf_counter() - began, time.process_time() - before
    optimiser = Optimiser(model, model.params, args.steps)
    model.train()
    model.begin_epoch(1)
    wall, busy, peak = [], [], memory()
    for step in range(args.steps + 1):
        began, before = time.perf_counter(), time.process_time()
        optimiser.step(step, model.loss(batch_of(args, step)))
        wall.append(time.perf_counter() - began)
        busy.append(time.process_time() - before)
        peak = {name: max(value, peak[name]) for name, value in memory().items()}
    line = {
        "items": "ids and vectors" if rich else "ids",
        "catalogue": args.items,
        "width": args.width if rich else 0,
        "build_seconds": [round(seconds, 1) for seconds in built],
        "first_step_seconds": [round(wall[0], 1), round(busy[0], 1)],
        "step_seconds": [round(statistics.median(took[1:]), 3) for took in (wall, busy)],
        "peak_mib": peak,
    }
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--dir", type=Path, help="where the file of vectors goes")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--n-sample", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rich", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.rows is not None:
        measured(args, args.rows, args.rich)
        return
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        path = Path(folder) / "rows.npy"
        write_rows(path, args.items, args.width)
        for own in ((), ("--rich",)):  # each in a process of its own, for its own peak
            again = [sys.executable, *sys.argv, "--rows", str(path), *own]
            subprocess.run(again, check=True)


if __name__ == "__main__":
    main()
