"""What a trial costs beside its training: ask, report and tell, by the number of trials so far.

    python benchmarks/running/study_overhead.py [postgresql://…] [--trials 1000] [--timed 30]
        [--sampler tpe]

Makes a throw-away study on the given server, or on an embedded one of its own, fills it with
finished trials of 10 epochs over the 9 parameters of gru4rec_bprmax_shared.json, and times
`next_trial` and `report` + `complete` at 10, 100 and the given number of trials, and how long a new
process takes to its first trial.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL

from paropt.search.space.file import read_space
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.search.study.trial import Trial
from paropt.storage.embedded.server import EmbeddedServer
from paropt.training.evaluation.epochs import EpochReport

SPACE = Path(__file__).parents[2] / "paramspaces" / "gru4rec_bprmax_shared.json"
EPOCHS = 10


def train(trial: Trial, rng: random.Random) -> float:
    """Reports a made-up curve; returns the seconds that its reports and its end took."""
    rate = trial.params["learning_rate"]
    top = 0.2 - abs(rate - 0.08) + rng.gauss(0, 0.01)
    spent = 0.0
    for epoch in range(1, EPOCHS + 1):
        mrr = max(top, 0.01) * (1 - 0.5**epoch)
        event = {"epoch": epoch, "metrics": {"mrr@20": mrr, "recall@20": 2 * mrr}, "loss": 1.0}
        began = time.perf_counter()
        pruned = trial.report(EpochReport.from_json(event))
        if pruned or epoch == EPOCHS:
            trial.prune() if pruned else trial.complete()
        spent = time.perf_counter() - began
        if pruned:
            break
    return spent


@contextmanager
def server(url: str | None) -> Iterator[str | URL]:
    """The server that was given, or an embedded one that is gone afterwards."""
    if url is not None:
        yield url
        return
    place = Path(tempfile.mkdtemp(prefix="paropt-overhead-"))
    place.chmod(0o711)  # where root runs this, PostgreSQL runs as another user
    embedded = EmbeddedServer(place / "home")
    embedded.join()
    try:
        yield embedded.url
    finally:
        embedded.leave()
        shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    """Prints one line per number of trials."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", nargs="?")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--timed", type=int, default=30)
    parser.add_argument("--sampler", default="tpe")
    options = parser.parse_args()
    with server(options.url) as url:
        measure(url, options)


def measure(url: str | URL, options: argparse.Namespace) -> None:
    name = f"study_overhead-{os.getpid()}"
    definition = StudyDefinition(
        name, read_space(SPACE).to_json(), "mrr@20", [20], "/none", "none",
        sampler={"name": options.sampler},
    )  # fmt: skip
    study = Study.create(url, definition)
    rng = random.Random(0)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    print(f"sampler {options.sampler}, medians (95th percentiles) of {options.timed} in ms")
    for size in sorted({10, 100, options.trials}):
        while len(study.history.records) < size:
            trial = study.next_trial({})
            assert trial is not None
            train(trial, rng)
        asked, told, busy = [], [], 0.0
        for _ in range(options.timed):
            began, worked = time.perf_counter(), time.process_time()
            trial = study.next_trial({})
            asked.append(time.perf_counter() - began)
            busy += (time.process_time() - worked) / options.timed
            assert trial is not None
            told.append(train(trial, rng))
        began = time.perf_counter()
        fresh = Study.load(url, name)
        first = fresh.next_trial({})
        cold = time.perf_counter() - began
        assert first is not None
        first.fail("benchmark", "not trained")
        fresh.close()
        print(f"{size:6d} trials: ask {_ms(asked)}, of it {1000 * busy:.0f} at work here,", end=" ")
        print(f"last report + tell {_ms(told)},", end=" ")
        print(f"a new handle's first trial {1000 * cold:.0f}", flush=True)
    study.close()


def _ms(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    late = ordered[int(0.95 * (len(ordered) - 1))]
    return f"{1000 * statistics.median(ordered):.0f} ({1000 * late:.0f})"


if __name__ == "__main__":
    main()
