"""Slots on Ray: how soon they work, how soon a killed node's trials are back, how many one bears.

    python benchmarks/ray_scale.py [--slots 4,16,64] [--seconds 1,30] [--trials-per-slot 3]

A Ray cluster of two nodes on this machine, a PostgreSQL of its own, and scripted trainers, whose
trials take ``--seconds`` and no CPU: what is measured is Ray's and paropt's own work. *first* is
from the command to the first epoch of any trial. *share* is the time that slots trained, of the
time from the first epoch to the last: the rest went into asking, telling and handing over. *back*
is from the death of a node, with all its processes, to the first epoch of one of its trials
elsewhere.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "extras"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from conftest import PostgresServer
from test_launch_ray import kill_whole, study

HEARTBEAT = 4.0
TRAINER = (
    Path(__file__).parents[1] / "tests" / "chaos" / "trainer.py"
)  # its log says when each epoch ended


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", default="4,16,64")
    parser.add_argument("--seconds", default="1,30", help="of a trial")
    parser.add_argument("--trials-per-slot", type=int, default=3)
    options = parser.parse_args()
    server = PostgresServer()
    try:
        print("| slots | s a trial | first, s | trials | trials/s | share | back, s |", flush=True)
        for slots in map(int, options.slots.split(",")):
            for seconds in map(float, options.seconds.split(",")):
                for kill in (False, True) if slots == 4 else (False,):
                    row = measured(server, slots, seconds, options.trials_per_slot, kill)
                    print(row, flush=True)
    finally:
        server.remove()
    return 0


def measured(server: Any, slots: int, seconds: float, each: int, kill: bool) -> str:
    """One study on a cluster of its own, as a row of the table."""
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="paropt-ray-") as place:
        log = Path(place) / "epochs.log"
        os.environ |= {
            "PAROPT_HOME": f"{place}/home",
            "PAROPT_TRAINER": f"{sys.executable} {TRAINER}",
            "SCRIPT_EPOCH": str(seconds / 8),
            "SCRIPT_LOG": str(log),
        }
        url = server.create_database()
        made = study(url, data(), trials=slots * each)
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        try:
            nodes = [cluster.add_node(num_cpus=slots // 2) for _ in range(2)]
            began = time.time()
            process = launched(url, slots, cluster.address)
            back = after_kill(nodes[1], log) if kill else None
            process.wait()
            return row(slots, seconds, log, began, made.counts()["complete"], back)
        finally:
            cluster.shutdown()
            made.close()


def data() -> Path:
    """Some dataset: nobody trains on it."""
    from paropt.launch.data_source import demo_set

    return demo_set()


def launched(url: str, slots: int, address: str) -> subprocess.Popen[bytes]:
    words = ["launch", "--study", "onray", "--on", "ray", "--slots", str(slots)]
    return subprocess.Popen(
        [sys.executable, "-m", "paropt", *words],
        env={**os.environ, "PAROPT_STORAGE": url, "RAY_ADDRESS": address},
        stdout=subprocess.DEVNULL,
    )


def epochs(log: Path) -> list[tuple[int, int, float]]:
    """(lineage, attempt, when it ended) of every epoch."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(f[0]), int(f[1]), float(f[4])) for f in map(str.split, lines) if len(f) == 5]


def after_kill(node: Any, log: Path) -> float | None:
    """Seconds from a node's death to the first epoch of a second attempt."""
    while len(epochs(log)) < 12:
        time.sleep(0.1)
    kill_whole(node)
    killed = time.time()
    while time.time() - killed < 120:
        again = [when for _, attempt, when in epochs(log) if attempt > 1 and when > killed]
        if again:
            return min(again) - killed
        time.sleep(0.1)
    return None


def row(
    slots: int, seconds: float, log: Path, began: float, trials: int, back: float | None
) -> str:
    ends = [when for _, _, when in epochs(log)]
    whole = max(ends) - min(ends)
    share = len(ends) * seconds / 8 / (whole * slots) if whole else 0.0
    told = "–" if back is None else f"{back:.1f} ({back / HEARTBEAT:.1f} heartbeats)"
    return (
        f"| {slots} | {seconds:g} | {min(ends) - began:.1f} | {trials} | {trials / whole:.2f} "
        f"| {min(share, 1.0):.0%} | {told} |"
    )


if __name__ == "__main__":
    sys.exit(main())
