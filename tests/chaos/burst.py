"""Many workers that start in the same second on an empty database."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hosts import HERE, Diary, Host, Server

from paropt.search.study.definition import StudyDefinition

EPOCHS = 2


def definition(name: str, epochs: int, heartbeat: float, seed: int) -> StudyDefinition:
    """A study of scripted trials: what comes out follows from ``x``."""
    return StudyDefinition(
        name=name,
        space={
            "model": "scripted",
            "fixed": {"n_epochs": epochs},
            "search": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        },
        metric="mrr@20",
        at=[20],
        data_path="nowhere",
        fingerprint="0" * 64,
        sampler={"name": "random"},
        pruner={"name": "none"},
        seed=seed,
        heartbeat=heartbeat,
    )


class Burst:
    """As many trials as workers; each worker makes the study unless another one has."""

    def __init__(self, run: Path, server: Server, workers: int, seed: int) -> None:
        self.run, self.workers = run / "burst", workers
        self.run.mkdir()
        self.url = server.create_database()
        self.diary = Diary(self.run / "diary.jsonl")
        self.host = Host("burst", self.run / "host", "burst", self.url, self.diary)
        self.host.environment = {"PAROPT_SILENCE": "4"}
        self.secret = server.password
        self.definition = self.run / "definition.json"
        made = definition("burst", EPOCHS, 10.0, seed)
        self.definition.write_text(json.dumps(made.to_json()))
        self.processes: list[subprocess.Popen[bytes]] = []

    def play(self) -> None:
        self.diary.note("fault", fault=f"{self.workers} workers on an empty database")
        first = [sys.executable, "-P", str(HERE / "starter.py")]
        first += [str(self.definition), str(self.workers)]
        self.host.staff(self.workers)
        for slot in self.host.slots:
            self.processes.append(self.host.start(slot, first))
        for process in self.processes:
            if (code := process.wait(600)) != 0:
                self.diary.note("surprise", message=f"a worker of the burst ended with {code}")

    def manifest(self) -> dict[str, Any]:
        return {
            "study": "burst",
            "trials": self.workers,
            "epochs": EPOCHS,
            "heartbeat": 10.0,
            "hosts": [self.host.facts()],
            "witness": "burst",
        }

    def clean(self) -> None:
        pass

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
