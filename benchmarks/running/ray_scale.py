"""Slots on Ray: how soon they work, what part of the time they train, when lost trials are back.

    python benchmarks/running/ray_scale.py [--slots 4,16,64] [--seconds 1,30] [--no-kill]

A Ray cluster of two nodes on this machine, a PostgreSQL of its own, and trainers that take
``--seconds`` a trial (of four epochs) and no CPU: what is measured is Ray's and paropt's own work.

*first* and *all* are from the command to the first step of any slot, and of the last one. Then,
with all at work, a window of two trials (20 s at least) is looked at for each of ``--seconds``:
how many trials ended a second, and the *share* of the slots' time in training; the rest went into
telling and asking. Last, of four slots on two nodes one node is killed with all its processes:
*back* is from its death to the first step of the last of its trials elsewhere; their slots are
made to look like another machine's, so that heartbeats decide, as between real nodes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "extras"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # last: both have a conftest
from conftest import PostgresServer
from sqlalchemy import text
from test_launch_ray import kill_whole, study

from paropt.storage.engine import open_engine

HEARTBEAT, EPOCHS = 4.0, 4
KILLED_SLOTS, KILLED_SECONDS = 4, 2.0  # of the row with a killed node: its trials are this long
ALL_SECONDS, BACK_SECONDS, SETTLE, LEAVE_SECONDS = 240.0, 60.0, 3.0, 30.0
TRAINER = Path(__file__).parent / "ray_trainer.py"


class Server(PostgresServer):
    """With room for 64 slots, and for each one's worker that looks on."""

    max_connections = 600


class Line(NamedTuple):
    """What the trainer wrote; epoch 0 is a fit's beginning."""

    root: int
    attempt: int
    epoch: int
    pid: int
    time: float


class Run:
    """A study at work on a cluster of its own."""

    def __init__(self, url: str, place: Path, slots: int, nodes: Sequence[Any]) -> None:
        self.url, self.place, self.slots, self.nodes = url, place, slots, nodes
        self.began = time.time()

    def lines(self) -> list[Line]:
        log = self.place / "epochs.log"
        rows = log.read_text().split("\n")[:-1] if log.exists() else []
        return [Line(*map(int, row[:4]), float(row[4])) for row in map(str.split, rows)]

    def trials_take(self, seconds: float) -> None:
        (self.place / "seconds").write_text(str(seconds))

    def until(self, holds: Callable[[list[Line]], Any], seconds: float) -> bool:
        end = time.time() + seconds
        while not (held := bool(holds(self.lines()))) and time.time() < end:
            time.sleep(0.2)
        return held

    def on_other_machines(self) -> None:
        """Slots as of elsewhere: of this machine's, others see at once that they are dead."""
        engine = open_engine(self.url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE paropt_slot SET machine = 'elsewhere'"))
        engine.dispose()

    def at_work(self) -> float:
        """Waits until every slot trains; seconds from the command to the last one's first step."""
        self.until(lambda lines: len({line.pid for line in lines}) >= self.slots, ALL_SECONDS)
        return max(_first_steps(self.lines()).values()) - self.began


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slots", default="4,16,64")
    parser.add_argument("--seconds", default="1,30", help="of a trial")
    parser.add_argument("--no-kill", action="store_true", help="without the killed node")
    options = parser.parse_args()
    lengths = sorted(map(float, options.seconds.split(",")))
    server, whole = Server(), time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="paropt-ray-") as place:
            os.environ["PAROPT_HOME"] = f"{place}/home"
            data = _data()
            print("| slots | first, s | all, s | s a trial | trials/s | share |", flush=True)
            print("|---|---|---|---|---|---|", flush=True)
            for slots in map(int, options.slots.split(",")):
                with _at_work(server, Path(place), data, slots, lengths[0]) as run:
                    _rows(run, lengths)
            if not options.no_kill:
                with _at_work(server, Path(place), data, KILLED_SLOTS, KILLED_SECONDS) as run:
                    print(_killed(run), flush=True)
    finally:
        server.remove()
    print(f"{time.monotonic() - whole:.0f} s in all", file=sys.stderr)
    return 0


def _rows(run: Run, lengths: Sequence[float]) -> None:
    """Print what was measured of a study, for every length of a trial."""
    everybody = run.at_work()
    steps = _first_steps(run.lines())
    first = min(steps.values()) - run.began
    missing = f" ({len(steps)} came)" if len(steps) < run.slots else ""
    for seconds in lengths:
        run.trials_take(seconds)
        time.sleep(SETTLE)  # trials of the length before end
        begin = time.time()
        time.sleep(max(20.0, 2 * seconds + 5))
        rate, share = _trained(run.lines(), begin, time.time(), run.slots)
        told = f"{first:.1f} | {everybody:.1f}{missing} | {seconds:g} | {rate:.2f} | {share:.0%}"
        print(f"| {run.slots} | {told} |", flush=True)


def _killed(run: Run) -> str:
    """Kill a node; how long its trials were away."""
    run.at_work()
    run.on_other_machines()
    dead = kill_whole(run.nodes[1])
    killed = time.time()
    last = {line.pid: line for line in run.lines() if line.pid in dead}
    lost = {line.root for line in last.values() if line.epoch < EPOCHS}

    def again(lines: Sequence[Line]) -> dict[int, float]:
        return {x.root: x.time for x in lines if x.root in lost and x.attempt > 1 and not x.epoch}

    there = run.until(lambda lines: again(lines).keys() == lost, BACK_SECONDS)
    if not lost or not there:
        return f"killed node: of its {len(lost)} trials not all were back in {BACK_SECONDS:g} s"
    back = max(again(run.lines()).values()) - killed
    return (
        f"killed node: its {len(lost)} trials were back after {back:.1f} s, "
        f"{back / HEARTBEAT:.1f} heartbeats of {HEARTBEAT:g} s (with up to {KILLED_SECONDS:g} s "
        "until a slot was free)"
    )


def _first_steps(lines: Sequence[Line]) -> dict[int, float]:
    """When each trainer began its first fit, by its process."""
    found: dict[int, float] = {}
    for line in lines:
        found.setdefault(line.pid, line.time)
    return found


def _trained(lines: Sequence[Line], begin: float, end: float, slots: int) -> tuple[float, float]:
    """Trials that ended a second, and the share of the slots' time in training, in a window."""
    ended = sum(line.epoch == EPOCHS and begin <= line.time < end for line in lines)
    busy, of = 0.0, defaultdict[int, list[Line]](list)
    for line in lines:
        of[line.pid].append(line)
    for own in of.values():
        for one, next_one in itertools.pairwise(own):
            if next_one.epoch:  # else it told, asked, and began another fit in between
                busy += max(0.0, min(end, next_one.time) - max(begin, one.time))
        if own[-1].epoch < EPOCHS:
            busy += max(0.0, end - max(begin, own[-1].time))
    return ended / (end - begin), busy / ((end - begin) * slots)


@contextmanager
def _at_work(server: Any, place: Path, data: Path, slots: int, seconds: float) -> Iterator[Run]:
    """``launch --on ray`` on a cluster of two nodes."""
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(dir=place) as inner:
        os.environ |= {
            "PAROPT_TRAINER": f"{sys.executable} {TRAINER}",
            "SCRIPT_LOG": f"{inner}/epochs.log",
            "SCRIPT_SECONDS": f"{inner}/seconds",
        }
        url = server.create_database()
        made = study(url, data, 1_000_000, EPOCHS)  # it has no end of its own
        made.set_floor({"popularity": {"mrr@20": 0.0}})  # so that nobody computes it
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        nodes = [cluster.add_node(num_cpus=(slots + 1) // 2) for _ in range(2)]
        run = Run(url, Path(inner), slots, nodes)
        run.trials_take(seconds)
        process = _launched(url, slots, cluster.address)
        try:
            yield run
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            cluster.shutdown()
            made.close()


def _data() -> Path:
    """Some dataset: nobody trains on it."""
    from paropt.launch.data.data_source import demo_set

    return demo_set()


def _launched(url: str, slots: int, address: str) -> subprocess.Popen[bytes]:
    words = ["launch", "--study", "onray", "--on", "ray", "--slots", str(slots)]
    return subprocess.Popen(
        [sys.executable, "-m", "paropt", *words],
        env={**os.environ, "PAROPT_STORAGE": url, "RAY_ADDRESS": address},
        stdout=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    sys.exit(main())
