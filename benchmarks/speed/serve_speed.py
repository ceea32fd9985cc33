"""Latency and throughput of ``paropt serve``, measured over HTTP from the same machine.

    python benchmarks/speed/serve_speed.py [--items 37000 1000000] [--clients 1 8 32] [--seconds 5]
        [--threads 1] [--layers 100]

A made-up GRU4Rec (not trained: the time doesn't depend on it) of so many items is saved and served
by a process of its own. Clients ask one after the other over connections that stay open: sessions
of five items, the best 20, of all items and of 500 candidates. Clients and server share the cores;
the processor's seconds of the server are told beside.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from paropt.data.dataset import open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.training.fitting.fit import Fit
from paropt.training.saved_model.saved import save_model

LENGTH, TOP, CANDIDATES = 5, 20, 500


def made_up_model(items: int, layers: int, folder: Path) -> Path:
    """A saved model of ``items`` items, each of which occurs once in its log."""
    log = folder / "log.csv"
    number = pa.array(range(items), pa.int64())
    session = pa.array([row // 10 for row in range(items)], pa.int64())
    columns = {"SessionId": session, "ItemId": number, "Time": number}
    pyarrow.csv.write_csv(pa.table(columns), log)
    options = Options(min_support=1, test_days=0.01, order_column="Time")
    prepare([log], folder / "data", options=options)
    view = open_dataset(folder / "data").view("full")
    fit = Fit("gru4rec", {"layers": layers, "n_sample": 16}, view, seed=1, evaluate=False)
    save_model(folder / "model", fit)
    return folder / "model"


@dataclass
class Server:
    """A server's process."""

    process: subprocess.Popen[str]
    port: int

    def cpu(self) -> float:
        """Seconds of the processor so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(model: Path, threads: int) -> Iterator[Server]:
    words = ["serve", str(model), "--port", "0", "--threads", str(threads)]
    process = subprocess.Popen(
        [sys.executable, "-m", "paropt", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    assert process.stderr
    said = process.stderr.readline()
    found = re.search(r":(\d+):", said)
    if not found:
        raise SystemExit(said + process.stderr.read())
    try:
        yield Server(process, int(found[1]))
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def bodies(ids: list[str], listed: bool) -> list[str]:
    """Requests that are asked in turn."""
    source = random.Random(1)
    found = []
    for _ in range(200):
        asked: dict[str, Any] = {"items": source.choices(ids, k=LENGTH), "top": TOP}
        if listed:
            asked["candidates"] = source.sample(ids, CANDIDATES)
        found.append(json.dumps(asked))
    return found


def measured(server: Server, asked: list[str], clients: int, seconds: float) -> dict[str, float]:
    """Latencies in milliseconds, requests per second, processor's milliseconds per request."""
    took: list[list[float]] = [[] for _ in range(clients)]
    until = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        at = number * 7
        while time.perf_counter() < until:
            began = time.perf_counter()
            connection.request("POST", "/recommend", asked[at % len(asked)])
            reply = connection.getresponse()
            told = reply.read()
            if reply.status != 200:
                raise RuntimeError(told.decode())
            took[number].append(1000 * (time.perf_counter() - began))
            at += 1
        connection.close()

    used, began = server.cpu(), time.perf_counter()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = sorted(one for of_client in took for one in of_client)
    wall = time.perf_counter() - began
    return {
        "p50": statistics.median(every),
        "p99": every[min(len(every) - 1, int(0.99 * len(every)))],
        "per_second": len(every) / wall,
        "cpu_ms": 1000 * (server.cpu() - used) / len(every),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[37_000, 1_000_000])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, default=100)
    given = parser.parse_args()
    print("| items | asked | clients | p50 ms | p99 ms | requests/s | server's CPU ms each |")
    print("|---|---|---|---|---|---|---|")
    for items in given.items:
        with tempfile.TemporaryDirectory() as folder:
            model = made_up_model(items, given.layers, Path(folder))
            ids = [str(number) for number in range(items // 2)]
            with served(model, given.threads) as server:
                for listed in (False, True):
                    asked = bodies(ids, listed)
                    measured(server, asked, 1, 0.5)  # to warm up
                    for clients in given.clients:
                        found = measured(server, asked, clients, given.seconds)
                        what = f"{CANDIDATES} candidates" if listed else "all items"
                        print(
                            f"| {items:,} | {what} | {clients} | {found['p50']:.1f} | "
                            f"{found['p99']:.1f} | {found['per_second']:,.0f} | "
                            f"{found['cpu_ms']:.1f} |",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
