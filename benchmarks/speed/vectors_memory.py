"""Memory and time of item vectors larger than memory: prepared, opened, read.

::

    python benchmarks/speed/vectors_memory.py [--items 1000000] [--dim 4096]

writes random vectors (float16 .npy, with ids) and a log in which each of the items occurs, prepares
them in a process of its own and opens the result in another. The peak is that process's resident
memory; pages that the system keeps of files are not its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

SESSION = 8  # events
CHUNK = 4096  # vectors


def write_input(folder: Path, items: int, dim: int) -> None:
    """``vectors.npy``, ``vectors.ids.npy`` and ``log.parquet``; the vectors in no order."""
    random = np.random.default_rng(1)
    ids = random.permutation(items)
    np.save(folder / "vectors.ids.npy", ids)
    with (folder / "vectors.npy").open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (items, dim)}
        np.lib.format.write_array_header_1_0(file, header)
        block = random.standard_normal((CHUNK, dim), np.float32).astype(np.float16)
        for begin in range(0, items, CHUNK):
            block[:, 0] = begin % 1000 + 1  # another block each time
            file.write(block[: items - begin].tobytes())
    events = 2 * items
    log = {
        "SessionId": np.arange(events) // SESSION,
        "ItemId": np.concatenate([random.permutation(items) for _ in range(2)]),
        "Time": 1_700_000_000 + np.arange(events),
    }
    pa.parquet.write_table(pa.table(log), folder / "log.parquet")


def prepare_it(folder: Path, found: Any) -> None:
    from paropt.data.log.options import Options
    from paropt.data.prepare import prepare

    began = time.perf_counter()
    options = Options(
        item_vectors=(f"look={folder / 'vectors.npy'}",), min_support=1, test_days=0.5
    )
    prepare([folder / "log.parquet"], folder / "data", options=options)
    found.put({"prepare_seconds": time.perf_counter() - began, "prepare_peak_mib": peak()})


def open_it(folder: Path, found: Any) -> None:
    import torch

    from paropt.data import open_dataset
    from paropt.training.batches.catalogue import catalogue

    before, began = peak(), time.perf_counter()
    view = open_dataset(folder / "data").view("search")
    opened = time.perf_counter() - began
    vectors = catalogue(view).items.vectors("look")
    known = time.perf_counter() - began
    index = torch.randint(len(vectors), (1024,), generator=torch.Generator().manual_seed(1))
    began = time.perf_counter()
    vectors.rows(index)
    read = time.perf_counter() - began
    found.put(
        {
            "open_seconds": opened,
            "catalogue_seconds": known,
            "rows_1024_seconds": read,
            "open_peak_mib": peak() - before,
        }
    )


def peak() -> float:
    """MiB of this process at most; getrusage would count its parent before it began."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def in_a_process(work: Any, folder: Path) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    process = context.Process(target=work, args=(folder, found))
    process.start()
    result: dict[str, float] = found.get()
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=4096)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_input(folder, given.items, given.dim)
        result = {
            "items": given.items,
            "dim": given.dim,
            "gigabytes": 2 * given.items * given.dim / 1e9,
            **in_a_process(prepare_it, folder),
            **in_a_process(open_it, folder),
        }
    print(json.dumps({k: round(v, 3) for k, v in result.items()}))


if __name__ == "__main__":
    main()
