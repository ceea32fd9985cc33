"""What slots and threads bring: events/s of all trainers together, for ways to split the cores.

    python benchmarks/running/packing_speed.py [--data DIR] [--split 1x1 1x2 2x1 4x1] [--seconds 8]
        [--rounds 5]

``2x1`` is two trainers of one thread each. They train the same configuration side by side, as slots
do, for so many seconds; the ways take turns. ``paropt launch`` gives every core a slot of its own
(on up to 8 cores), and ``--per-device auto`` finds the number of slots of one thread: both are
right as long as threads within a trial bring less than trials beside it. By default it trains on a
log of RetailRocket's size that it makes up, and tries 1x1, all ways to use all cores, and twice as
many slots as cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from first_step import GRU4REC, Clock, made_up

from paropt.machine.devices import usable_cores

CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gru4rec bpr-max": ("gru4rec", GRU4REC | {"batch_size": 80}),
    "gru4rec small": ("gru4rec", {"layers": 64, "batch_size": 32, "n_sample": 512}),
    "sasrec": ("sasrec", {"max_length": 50, "dim": 64}),
}


def together(
    data: Path, model: str, params: dict[str, Any], slots: int, threads: int, seconds: float
) -> float:
    """Events/s of all: each is measured from its first report after all have begun."""
    order = {"model": model, "params": params, "seed": 1, "epochs": 1000, "data": str(data),
             "view": "search", "device": "cpu", "threads": threads, "at": [20],
             "checkpoint": None, "resume": None}  # fmt: skip
    crew = [Clock(threads) for _ in range(slots)]
    for number, clock in enumerate(crew):
        clock.trainer.send(do="fit", trial=number, **order)
    for clock in crew:
        clock.until("progress")
    for clock in crew:
        clock.heard += clock.trainer.receive()  # what was said while others were starting
        clock.heard.clear()
    firsts = [clock.until("progress") for clock in crew]
    lasts, end = list(firsts), time.monotonic() + seconds
    while time.monotonic() < end:
        lasts = [clock.until("progress") for clock in crew]
    for clock in crew:
        clock.trainer.kill()
    return sum(
        (last["events"] - first["events"]) / (last["busy"] - first["busy"])
        for first, last in zip(firsts, lasts, strict=True)
    )


def splits(cores: int) -> list[tuple[int, int]]:
    """One of one thread; what uses all cores, few slots first; and twice as many as cores."""
    whole = [(slots, cores // slots) for slots in range(1, cores + 1) if cores % slots == 0]
    return list(dict.fromkeys([(1, 1), *whole, (2 * cores, 1)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="a dataset directory")
    parser.add_argument("--split", nargs="+", metavar="SLOTSxTHREADS")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--configuration", nargs="+", choices=CONFIGURATIONS,
                        default=list(CONFIGURATIONS))  # fmt: skip
    arguments = parser.parse_args()
    cores = usable_cores()
    ways = splits(cores)
    if arguments.split:
        ways = [(int(a), int(b)) for a, b in (way.split("x") for way in arguments.split)]
    print(f"{platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or made_up(Path(folder))
        for name in arguments.configuration:
            found: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
            for _ in range(arguments.rounds):
                for way in ways:
                    rate = together(data, *CONFIGURATIONS[name], *way, arguments.seconds)
                    found[way].append(rate)
            for (slots, threads), rates in found.items():
                median = statistics.median(rates)
                shown = f"{median:9,.0f} ({min(rates):,.0f} … {max(rates):,.0f})"
                print(f"{name:16} {slots} x {threads} threads  {shown} events/s", flush=True)


if __name__ == "__main__":
    main()
