"""How much asking and telling one PostgreSQL bears: slots with trivial trials on this machine.

    python benchmarks/running/load.py [--slots 1,4,16,64] [--history 100,1000,10000] [--seconds 15]

Trainers are scripted ones without torch, whose trials take no time, so that all that is measured is
paropt's own work: *turn* is from the end of one trial to the beginning of the next in the same slot
(report, tell, let go of its lease, ask). At the longest history ``status`` and a new worker's first
trial are timed, too. The server is an embedded one of its own, in a temporary directory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extras import execute_values

from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.storage.embedded.server import EmbeddedServer
from paropt.training.evaluation.epochs import EpochReport

TRAINER = Path(__file__).parents[2] / "tests" / "scripted_trainer.py"
SPACE = {
    "model": "scripted",
    "fixed": {"n_epochs": 1},
    "search": {
        "x": {"type": "float", "low": 0.0, "high": 1.0},
        "rate": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "size": {"type": "int", "low": 8, "high": 512},
        "loss": {"type": "categorical", "choices": ["a", "b", "c"]},
    },
}


class Load:
    """One server, and a study for each measurement."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="paropt-load-", dir="/tmp"))
        self.place.chmod(0o711)
        self.server = EmbeddedServer(self.place / "home")
        self.server.join()
        self.url = self.server.url
        self.processes: list[subprocess.Popen[bytes]] = []

    def close(self) -> None:
        self._kill()
        self.server.leave()
        shutil.rmtree(self.place, ignore_errors=True)

    def study(self, name: str, history: int, sampler: str) -> Study:
        """A study with so many finished trials, which SQL writes: one is run, and multiplied."""
        definition = StudyDefinition(
            name=name,
            space=SPACE,
            metric="mrr@20",
            at=[20],
            data_path="nowhere",
            fingerprint="0" * 64,
            sampler={"name": sampler},
            pruner={"name": "none"},
            heartbeat=30.0,
        )
        study = Study.create(self.url, definition)
        trial = study.next_trial({"host": "history"})
        assert trial is not None
        trial.report(
            EpochReport.from_json(
                {"epoch": 1, "metrics": {"mrr@20": 0.5, "recall@20": 0.7}, "seconds": 1.0}
            )
        )
        trial.complete()
        self._multiply(trial.id, history - 1)
        return study

    def _multiply(self, first: int, more: int) -> None:
        connection = psycopg2.connect(
            self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "WITH one AS (SELECT * FROM trials WHERE trial_id = %s)"
                " INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete)"
                " SELECT n, study_id, state, datetime_start, datetime_complete"
                " FROM one, generate_series(1, %s) n RETURNING trial_id, number",
                (first, more),
            )
            rows = [(trial, number, *_point(number)) for trial, number in cursor.fetchall()]
            cursor.execute(
                "SELECT key, value_json FROM trial_system_attributes WHERE trial_id = %s", (first,)
            )
            attrs = dict(cursor.fetchall())
            meta = json.loads(attrs.pop("paropt:trial"))
            execute_values(
                cursor,
                "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES %s",
                [(trial, 0, value, "FINITE") for trial, _, _, value in rows],
            )
            execute_values(
                cursor,
                "INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES %s",
                [
                    (trial, key, text)
                    for trial, number, config, value in rows
                    for key, text in _attrs(attrs, meta, number, config, value).items()
                ],
            )
            for table, columns in (
                ("trial_params", "param_name, param_value, distribution_json"),
                (
                    "trial_intermediate_values",
                    "step, intermediate_value, intermediate_value_type",
                ),
            ):
                cursor.execute(
                    f"INSERT INTO {table} (trial_id, {columns}) SELECT t, {columns} FROM {table},"
                    " unnest(%s) t WHERE trial_id = %s",
                    ([row[0] for row in rows], first),
                )
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        connection.commit()
        connection.close()

    def start(self, study: str, place: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "paropt.worker.slot", "--study", study]
        command += ["--data", "nowhere", "--slot", place, "--files", str(self.seats(study))]
        command += ["--checkpoints", str(self.place / "checkpoints" / study)]
        environment = {
            **os.environ,
            "PAROPT_STORAGE": "",
            "PAROPT_HOME": str(self.place / "home"),
            "PAROPT_TRAINER": f"{sys.executable} {TRAINER}",
            "OMP_NUM_THREADS": "1",
        }
        with (self.place / f"{study}.log").open("ab") as log:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def seats(self, study: str) -> Path:
        return self.place / "seats" / study

    def records(self, study: str) -> list[dict[str, Any]]:
        """What all slots wrote down."""
        found = []
        for path in self.seats(study).glob("*.jsonl"):
            lines = path.read_text().split("\n")[:-1]
            found += [json.loads(line) | {"place": path.stem} for line in lines]
        return found

    def measure(self, study: Study, slots: int, seconds: float) -> dict[str, float]:
        """Turns and trials per second, once all slots are at work."""
        for index in range(slots):
            self.start(study.name, f"cpu-{index}")
        while len({r["place"] for r in self.records(study.name) if r["event"] == "done"}) < slots:
            time.sleep(0.5)
        begin = time.time()
        time.sleep(seconds)
        end = time.time()
        study.set_state("stop")
        for process in self.processes:
            process.wait(120)
        self.processes.clear()
        inside = [r for r in self.records(study.name) if begin <= r["time"] <= end]
        turns = sorted(r["idle"] for r in inside if r["event"] == "started" and r["idle"])
        done = sum(r["event"] == "done" for r in inside)
        return {
            "p50": turns[len(turns) // 2],
            "p95": turns[int(0.95 * len(turns))],
            "rate": done / (end - begin),
        }

    def first_trial(self, study: str) -> float:
        """Seconds from the start of a new worker's process to its first trial's beginning."""
        begin = time.time()
        process = self.start(study, "new-0")
        while not any(
            r["event"] == "started" and r["place"] == "new-0" for r in self.records(study)
        ):
            time.sleep(0.02)
        seconds = time.time() - begin
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        return seconds

    def status(self, study: str) -> float:
        begin = time.time()
        subprocess.run(
            [sys.executable, "-m", "paropt", "status", study],
            env={**os.environ, "PAROPT_STORAGE": "", "PAROPT_HOME": str(self.place / "home")},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.time() - begin

    def _kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()


def _point(number: int) -> tuple[dict[str, Any], float]:
    rng = random.Random(number)
    x = rng.random()
    config = {"x": x, "rate": 10 ** rng.uniform(-4, 0), "size": rng.randint(8, 512)}
    return {**config, "loss": rng.choice("abc")}, x


def _attrs(
    attrs: dict[str, str], meta: dict[str, Any], number: int, config: dict[str, Any], value: float
) -> dict[str, str]:
    """The attributes of a finished trial, as another configuration has them."""
    mine = {**meta, "index": number, "root": number, "searched": config}
    mine["params"] = {**meta["params"], **config}
    curve = {**json.loads(attrs["paropt:curve"]), "mrr@20": [value], "recall@20": [value]}
    return {**attrs, "paropt:trial": json.dumps(mine), "paropt:curve": json.dumps(curve)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", default="1,4,16,64")
    parser.add_argument("--history", default="100,1000,10000")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--sampler", default="tpe")
    options = parser.parse_args()
    counts = [int(word) for word in options.slots.split(",")]
    histories = [int(word) for word in options.history.split(",")]
    load = Load()
    try:
        print(f"{'trials':>8}{'slots':>7}{'turn p50':>11}{'turn p95':>11}{'trials/s':>10}")
        for history in histories:
            for slots in counts:
                study = load.study(f"load-{history}-{slots}", history, options.sampler)
                found = load.measure(study, slots, options.seconds)
                study.close()
                print(
                    f"{history:8}{slots:7}{found['p50'] * 1e3:8.0f} ms{found['p95'] * 1e3:8.0f} ms"
                    f"{found['rate']:10.1f}",
                    flush=True,
                )
        study = load.study("longest", histories[-1], options.sampler)
        print(f"status of {histories[-1]} trials: {load.status('longest'):.2f} s")
        first = load.first_trial("longest")
        print(f"a new worker's first trial at {histories[-1]}: {first:.2f} s")
        study.close()
    finally:
        load.close()


if __name__ == "__main__":
    main()
