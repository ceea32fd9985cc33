"""Slots as real processes over a real PostgreSQL, with the scripted trainer instead of torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from told import Open, Stored

SCRIPT = Path(__file__).parents[1] / "scripted_trainer.py"
ACTS = ["fine", "crash", "doom", "hang", "hold", "endless", "oom", "oom-once", "nan", "bug", "deaf"]


class Workshop:
    """One study and the slots that a test starts on it.

    ``acts`` gives the trials in their order: each is (x, act), see tests/scripted_trainer.py.
    """

    def __init__(self, url: str, directory: Path) -> None:
        self.url, self.directory = url, directory
        self.seats = directory / "seats"
        self.checkpoints = directory / "checkpoints"
        self.go = directory / "go"
        self.log = directory / "epochs.log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._studies: list[Any] = []

    def create(
        self,
        acts: Sequence[tuple[float, str]],
        *,
        epochs: int = 3,
        heartbeat: float = 1.5,
        pruner: str = "none",
        timeout: float | None = None,
        models: Sequence[str] = (),
    ) -> Any:
        """``models``: the trials' models, which are searched then."""
        from paropt.search.study.definition import StudyDefinition
        from paropt.search.study.study import Study

        space: dict[str, Any] = {
            "model": "scripted",
            "fixed": {"n_epochs": epochs},
            "search": {
                "x": {"type": "float", "low": 0.0, "high": 1.0},
                "act": {"type": "categorical", "choices": ACTS},
            },
            "start": [{"x": x, "act": act} for x, act in acts],
        }
        if models:
            del space["model"]
            space["search"]["model"] = {"type": "categorical", "choices": sorted(set(models))}
            points = zip(space["start"], models, strict=True)
            space["start"] = [{**point, "model": model} for point, model in points]
        definition = StudyDefinition(
            name="tried",
            space=space,
            metric="mrr@20",
            at=[20],
            data_path="nowhere",
            fingerprint="0" * 64,
            sampler={"name": "random"},
            pruner={"name": pruner},
            heartbeat=heartbeat,
        )
        study = Study.create(self.url, definition, budget=len(acts), timeout=timeout)
        self._studies.append(study)
        return study

    def start(
        self, place: str = "cpu-0", url: str | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """A slot at ``place``; keyword arguments go into its environment."""
        command = [sys.executable, "-P", "-m", "paropt.worker.slot", "--study", "tried"]
        command += ["--data", "nowhere", "--files", str(self.seats), "--slot", place]
        command += ["--checkpoints", str(self.checkpoints)]
        self.directory.mkdir(exist_ok=True)
        with (self.directory / f"{place}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env={
                    **os.environ,
                    "PAROPT_STORAGE": url or self.url,
                    "PAROPT_HOME": str(self.directory / "home"),
                    "PAROPT_TRAINER": f"{sys.executable} {SCRIPT}",
                    "SCRIPT_GO": str(self.go),
                    "SCRIPT_LOG": str(self.log),
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes], seconds: float = 60) -> int:
        """Its exit code."""
        return process.wait(seconds)

    def state(self, place: str = "cpu-0") -> Mapping[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self.seats / f"{place}.state").read_text())
        except (OSError, ValueError):
            return {}
        return state

    def record(self, place: str = "cpu-0") -> list[dict[str, Any]]:
        return [json.loads(x) for x in (self.seats / f"{place}.jsonl").read_text().splitlines()]

    def said(self, place: str = "cpu-0") -> str:
        return (self.directory / f"{place}.log").read_text()

    def stored(self) -> list[Any]:
        """The trials as Optuna has them."""
        from paropt.storage.engine import open_rdb

        storage = open_rdb(self.url)
        try:
            found: list[Any] = storage.get_all_trials(storage.get_study_id_from_name("tried"))
            return found
        finally:
            storage._backend.engine.dispose()

    def trained(self) -> list[tuple[int, int, int]]:
        """(root, attempt, epoch) of every epoch that any trainer trained, in order."""
        lines = self.log.read_text().split("\n")[:-1] if self.log.exists() else []
        return [tuple(map(int, line.split()[:3])) for line in lines]  # type: ignore[misc]

    def until(self, holds: Callable[[], Any], what: str = "it", seconds: float = 60) -> Any:
        """Waits for something that a process does."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := holds():
                return found
            time.sleep(0.02)
        logs = "\n".join(f"{p.name}: {p.read_text()}" for p in self.directory.glob("*.log"))
        raise AssertionError(f"{what} did not happen in {seconds} s\n{logs}")

    def until_epoch(self, epoch: int, place: str = "cpu-0") -> Mapping[str, Any]:
        """Waits until the slot at ``place`` was told of this epoch of its trial."""

        def reached() -> Mapping[str, Any] | None:
            state = self.state(place)
            there = state.get("phase") == "training" and state.get("epoch") == epoch
            return state if there else None

        found: Mapping[str, Any] = self.until(reached, f"epoch {epoch} at {place}")
        return found

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        for study in self._studies:
            study.close()


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """paropt in this process: exit code, stdout, stderr."""
    from paropt.cli.main import run

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run([str(argument) for argument in arguments])
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return call


@pytest.fixture
def workshop(database_url: str, tmp_path: Path) -> Iterator[Workshop]:
    shop = Workshop(database_url, tmp_path / "shop")
    yield shop
    shop.close()


@pytest.fixture(scope="module")
def shop(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A study whose rows can be damaged (damaged.py)."""
    from damaged import Shop

    shop = Shop(module_database_url, tmp_path_factory.mktemp("damaged"))
    yield shop
    shop.close()


@pytest.fixture
def whole(shop: Any) -> Iterator[Any]:
    """The same for a test that damages rows itself."""
    yield shop
    shop.restore()


@pytest.fixture
def study_of(module_database_url: str, request: pytest.FixtureRequest) -> Iterator[Open]:
    """``study_of(budget=…, space=…)`` creates or resumes the study that has the test's name."""
    from told import SPACE

    from paropt.search.study.definition import StudyDefinition
    from paropt.search.study.study import Study

    opened = []

    def create(space: Any = SPACE, **options: Any) -> Study:
        kept = {key: options.pop(key) for key in ("budget", "timeout") if key in options}
        options = {"pruner": {"name": "none"}} | options
        definition = StudyDefinition(
            request.node.name, space, "mrr@20", [20], "/data", "abc", **options
        )
        opened.append(Study.create(module_database_url, definition, **kept))
        return opened[-1]

    yield create
    for study in opened:
        study.close()


@pytest.fixture(scope="module")
def stored(module_database_url: str) -> Iterator[Stored]:
    """``stored(trial)``: the trial as Optuna reads it, past every cache."""
    from paropt.storage.engine import initialise, open_rdb

    initialise(module_database_url)
    storage = open_rdb(module_database_url)._backend
    yield lambda trial: storage.get_trial(trial.id)
    storage.engine.dispose()
