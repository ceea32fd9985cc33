"""``paropt launch --per-device auto`` with trainers that share a device of known throughput."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# A second of training takes 20 ms here. All trainers together train 2,000 events in it from two of
# them on, one alone 1,000; with the parameter "hungry", a fit ends for want of memory where three
# or more train.
TRAINER = """
import json, os, sys, threading, time
from pathlib import Path

here, go, wish = Path(os.environ["SHARED_DEVICE"]), Path(os.environ["SCRIPT_GO"]), {}
orders = []

def tell(event, **facts):
    os.write(1, json.dumps({"event": event, **facts}).encode() + b"\\n")

def listen():
    for line in sys.stdin:
        message = json.loads(line)
        if message["do"] in ("stop", "yield"):
            wish.update(message)
        else:
            orders.append(message)
    os._exit(0)

def fit(order, mine):
    trial, events, busy = order["trial"], 0.0, 0.0
    tell("started", trial=trial, resumed_epoch=None, why_from_zero=None)
    while not go.exists():
        if wish:
            return tell("yielded" if wish["do"] == "yield" else "stopped", trial=trial)
        others = len(list(here.iterdir()))
        if order["params"].get("hungry") and others > 2:
            return tell("failed", trial=trial, epoch=1, kind="oom", message="no memory")
        events, busy = events + 1000 * min(others, 2) / others, busy + 1
        tell("progress", trial=trial, epoch=1, step=1, steps=2, events_per_second=1.0,
             events=events, busy=busy)
        time.sleep(0.02)
    tell("epoch", trial=trial, epoch=1, metrics={"mrr@20": 0.5}, loss=1.0, seconds=1.0,
         train_seconds=1.0, events_per_second=1.0, peak_memory=1, extra={})
    tell("done", trial=trial, best_epoch=1)

threading.Thread(target=listen, daemon=True).start()
tell("ready", device="shared", torch="none", pid=os.getpid())
while True:
    if not orders:
        time.sleep(0.01)
    elif (order := orders.pop(0))["do"] == "quit":
        break
    else:
        wish.clear()
        mine = here / str(os.getpid())
        mine.touch()
        fit(order, mine)
        mine.unlink()
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    from paropt.data.prepare import prepare

    log = tmp_path / "log.tsv"
    rows = [
        f"{s}\t{(s + k) % 5}\t{1_700_000_000 + 9000 * s + k}" for s in range(60) for k in range(4)
    ]
    log.write_text("\n".join(["SessionId\tItemId\tTime", *rows]) + "\n")
    return prepare([log], tmp_path / "data").path


class Launch:
    """A running ``paropt launch --per-device auto`` on a study with that ``hungry``."""

    def __init__(self, url: str, dataset: Path, directory: Path, hungry: bool) -> None:
        from paropt.data import open_dataset
        from paropt.search.study.definition import StudyDefinition
        from paropt.search.study.study import Study

        self.url, self.go = url, directory / "go"
        self.errors = directory / "errors.txt"
        shared = directory / "shared"
        shared.mkdir()
        script = directory / "trainer.py"
        script.write_text(TRAINER)
        space = {
            "model": "scripted",
            "fixed": {"n_epochs": 1, "hungry": hungry},
            "search": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        }
        definition = StudyDefinition(
            name="packed", space=space, metric="mrr@20", at=[20], data_path=str(dataset),
            fingerprint=open_dataset(dataset).fingerprint, pruner={"name": "none"}, heartbeat=2.0,
        )  # fmt: skip
        study = Study.create(url, definition, budget=6)
        study.set_floor({"popularity": {"mrr@20": 0.1}})
        study.close()
        environment = {
            **os.environ, "PAROPT_TRAINER": f"{sys.executable} {script}", "SCRIPT_GO": str(self.go),
            "SHARED_DEVICE": str(shared), "PAROPT_HOME": str(directory / "home"),
        }  # fmt: skip
        words = ["launch", "--study", "packed", "--storage", url, "--devices", "cpu",
                 "--per-device", "auto"]  # fmt: skip
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "paropt", *words],
                cwd=directory, env=environment, stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip

    def until(self, pattern: str) -> str:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(pattern, self.errors.read_text()):
                return found[0]
            time.sleep(0.05)
        raise AssertionError(f"nothing like {pattern!r} in:\n{self.errors.read_text()}")

    def trials(self) -> list[str]:
        from paropt.search.study.study import Study

        study = Study.load(self.url, "packed")
        try:
            return [trial["state"] for trial in study.trials() if trial["why"] != "lost"]
        finally:
            study.close()


@pytest.fixture
def launched(
    request: pytest.FixtureRequest, database_url: str, dataset: Path, tmp_path: Path
) -> Iterator[Launch]:
    launch = Launch(database_url, dataset, tmp_path, hungry=request.param)
    try:
        yield launch
    finally:
        launch.go.touch()
        launch.process.terminate()
        launch.process.wait(60)


@pytest.mark.postgres
@pytest.mark.long
@pytest.mark.parametrize("launched", [False], indirect=True, ids=["settles"])
def test_slots_come_and_go_until_more_brings_no_more(launched: Launch) -> None:
    launched.until(r"cpu: 1 slot together 1,000 events/s; trying 2")
    launched.until(r"cpu: 2 slots together 2,000 events/s")
    launched.until(r"2 from now on")
    launched.go.touch()
    assert launched.process.wait(60) == 0, launched.errors.read_text()
    # whoever was sent home handed its trial on: the budget is spent on trials that were finished
    assert [state for state in launched.trials() if state == "complete"] == ["complete"] * 6


@pytest.mark.postgres
@pytest.mark.long
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="on one core, two slots are the most")
@pytest.mark.parametrize("launched", [True], indirect=True, ids=["memory"])
def test_a_slot_that_runs_out_of_memory_is_one_too_many(launched: Launch) -> None:
    launched.until(r"trying 4")
    launched.until(r"3 from now on: memory is short")
    launched.go.touch()
    launched.process.wait(60)
    assert json.dumps(launched.trials()).count("complete") >= 1
