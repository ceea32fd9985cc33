"""Real training on the embedded server under kills: the same numbers as without, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import faults
from hosts import Diary
from support.rings import write_ring

from paropt.data.prepare import prepare
from paropt.storage.embedded.server import EmbeddedServer

PATIENCE = 300.0  # seconds for a study, which takes some forty
MOST_LOSSES = 2  # of one configuration: after the third it would be given up
SPACE = {
    "model": "gru4rec",
    "fixed": {"loss": "cross-entropy", "n_epochs": 20, "batch_size": 8, "dropout_p_embed": 0.1},
    "search": {
        "layers": {"type": "int", "low": 8, "high": 32, "step": 4},
        "learning_rate": {"type": "float", "low": 0.05, "high": 0.2},
    },
}


class Real:
    """The study ``calm`` first, then the same as ``stormy``, which two launches at once begin."""

    def __init__(self, run: Path, trials: int, hits: int, seed: int) -> None:
        self.run, self.trials, self.hits = run / "real", trials, hits
        self.run.mkdir()
        self.run.chmod(0o711)
        self.home = self.run / "home"
        self.chance = random.Random(seed)
        self.diary = Diary(self.run / "diary.jsonl")
        self.launches: list[subprocess.Popen[str]] = []
        self.hit: dict[str, int] = {}
        self._starting, self._closed = threading.Lock(), False
        self.server = EmbeddedServer(self.home)
        self.server.join()
        self._prepare()

    def _prepare(self) -> None:
        """200 sessions over four days that walk along a ring of 30 items."""
        log = self.run / "log.tsv"
        write_ring(log, 200, self.chance)
        self.data = prepare([log], self.run / "data").path
        self.space = self.run / "space.json"
        self.space.write_text(json.dumps(SPACE))

    def play(self) -> None:
        self._end(self._launch("calm"))
        self.diary.note("fault", fault="two launches at once")
        both = [self._launch("stormy") for _ in range(2)]
        hits, pause = 0, 0.0
        give_up = time.monotonic() + PATIENCE
        while any(launch.poll() is None for launch in both) and time.monotonic() < give_up:
            if hits < self.hits and time.monotonic() > pause and self._strike(hits):
                hits, pause = hits + 1, time.monotonic() + 2.0
            time.sleep(0.1)
        for launch in both:
            self._end(launch)
        if hits < min(self.hits, self.trials) - 1:
            self.diary.note("surprise", message=f"only {hits} faults found something to hit")

    def _launch(self, study: str) -> subprocess.Popen[str]:
        words = ["launch", "--space", self.space, "--data", self.data, "--study", study]
        words += ["--trials", self.trials, "--sampler", "random", "--pruner", "none"]
        words += ["--devices", "cpu", "--per-device", 2, "--heartbeat", "3s", "--json"]
        with self._starting:
            if self._closed:
                raise RuntimeError("somebody ends the suite")
            launch = subprocess.Popen(
                [sys.executable, "-m", "paropt", *map(str, words)],
                env={
                    **os.environ,
                    "PAROPT_HOME": str(self.home),
                    "OMP_NUM_THREADS": "1",
                    "PYTHONFAULTHANDLER": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            self.launches.append(launch)
        # nobody reads what it says until its end: it must not wait for a reader
        launch.said = []  # type: ignore[attr-defined]
        listener = threading.Thread(target=self._listen, args=(launch,), daemon=True)
        launch.listener = listener  # type: ignore[attr-defined]
        listener.start()
        return launch

    @staticmethod
    def _listen(launch: Any) -> None:
        for line in launch.stderr:
            launch.said.append(line)

    def _end(self, launch: Any) -> None:
        try:
            code = launch.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            launch.send_signal(signal.SIGABRT)  # its stack is what it says last
            code = launch.wait()
            launch.listener.join(5.0)
            self.diary.note("surprise", message=f"a launch hangs: {''.join(launch.said)}")
            return
        if code != 0:
            self.diary.note("surprise", message=f"a launch ended with {code}: {launch.said[-3:]}")

    def _states(self) -> list[dict[str, Any]]:
        found = []
        for path in self.home.glob("slots/stormy-*/*.state"):
            try:
                found.append(json.loads(path.read_text()))
            except (OSError, ValueError):
                continue
        return [s for s in found if s.get("phase") == "training" and (s.get("epoch") or 0) >= 2]

    def _strike(self, number: int) -> bool:
        """One fault, if there is a training that it may hit."""
        states = [s for s in self._states() if self.hit.get(_key(s), 0) < MOST_LOSSES]
        if not states:
            return False
        state = self.chance.choice(states)
        kinds = ["kill trainer", "crash embedded database", "kill slot", "corrupt checkpoint"]
        kind = kinds[number % len(kinds)]
        facts = {"host": "real", "pid": state["pid"], "trial": state.get("trial")}
        facts["disk"] = kind == "corrupt checkpoint"
        self.diary.note("fault", fault=f"{kind} (real)", **facts)
        if kind == "crash embedded database":
            postmaster = next(self.home.rglob("postmaster.pid"), None)
            if postmaster is not None:
                faults.send(int(postmaster.read_text().split()[0]), signal.SIGKILL)
            return True
        self.hit[_key(state)] = self.hit.get(_key(state), 0) + 1
        if kind == "corrupt checkpoint":
            faults.send(state["trainer"], signal.SIGSTOP)
            for file in self.home.glob("checkpoints/stormy-*/*.ckpt"):
                faults.damage(file, self.chance)
        faults.send(state["pid" if kind == "kill slot" else "trainer"], signal.SIGKILL)
        return True

    def manifest(self) -> dict[str, Any]:
        host = {"name": "real", "directory": str(self.home), "clock": 0.0}
        host["records"] = "slots/stormy-*/*.jsonl"
        return {
            "study": "stormy",
            "reference": "calm",
            "trials": self.trials,
            "epochs": SPACE["fixed"]["n_epochs"],  # type: ignore[index]
            "heartbeat": 3.0,
            "hosts": [host],
            "witness": "real",
        }

    @property
    def url(self) -> str:
        self.server.leave()
        self.server.join()
        return str(self.server.url.set(drivername="postgresql").render_as_string(False))

    @property
    def secret(self) -> str:
        return str(self.server.url.password)

    def close(self) -> None:
        """End everything here, also while it still plays."""
        with self._starting:
            self._closed = True
        for launch in self.launches:
            launch.kill()
            launch.wait()
        for path in self.home.glob("slots/*/*.state"):
            state = json.loads(path.read_text())
            if state.get("phase") != "ended":
                faults.send(state["pid"], signal.SIGKILL)

    def clean(self) -> None:
        self.server.leave()


def _key(state: dict[str, Any]) -> str:
    return json.dumps(state.get("params"), sort_keys=True)
