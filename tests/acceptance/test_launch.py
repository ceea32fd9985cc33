"""``paropt launch`` and ``worker`` as users run them: real processes, real PostgreSQL, signals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripted_trainer.py"
SPACE = {
    "model": "gru4rec",
    "fixed": {"loss": "cross-entropy", "n_epochs": 3, "batch_size": 16},
    "search": {
        "layers": {"type": "int", "low": 8, "high": 32, "step": 8},
        "learning_rate": {"type": "float", "low": 0.05, "high": 0.2, "step": 0.05},
    },
}


@pytest.fixture(scope="module")
def dataset(ring: Path) -> Path:
    return ring


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "ring.json"
    path.write_text(json.dumps(SPACE))
    return path


class Scripted:
    """A study named "shop" whose trainers are scripted, in a database of its own."""

    def __init__(self, url: str, dataset: Path, directory: Path) -> None:
        self.url, self.dataset = url, dataset
        self.go, self.log = directory / "go", directory / "epochs.log"

    def create(self, *acts: str) -> None:
        """A budget of as many trials, each of which acts so (see tests/scripted_trainer.py)."""
        from paropt.data import open_dataset
        from paropt.search.study.definition import StudyDefinition
        from paropt.search.study.study import Study

        definition = StudyDefinition(
            name="shop",
            space={
                "model": "scripted",
                "fixed": {"n_epochs": 3},
                "search": {
                    "x": {"type": "float", "low": 0.0, "high": 1.0},
                    "act": {"type": "categorical", "choices": sorted({*acts, "fine"})},
                },
                "start": [{"x": 0.5 + i / 100, "act": act} for i, act in enumerate(acts)],
            },
            metric="mrr@20",
            at=[20],
            data_path=str(self.dataset),
            fingerprint=open_dataset(self.dataset).fingerprint,
            pruner={"name": "none"},
            heartbeat=2.0,
        )
        study = Study.create(self.url, definition, budget=len(acts))
        study.set_floor({"popularity": {"mrr@20": 0.1}})
        study.close()

    @property
    def launch(self) -> list[str]:
        return ["launch", *self.common]

    @property
    def common(self) -> list[str]:
        words = ["--study", "shop", "--storage", self.url]
        return [*words, "--devices", "cpu", "--per-device", "1"]

    def trainers(self) -> set[str]:
        """The pids that trained an epoch."""
        return {line.split()[3] for line in self.log.read_text().splitlines()}


@pytest.fixture
def shop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str, dataset: Path
) -> Scripted:
    scripted = Scripted(database_url, dataset, tmp_path)
    monkeypatch.setenv("PAROPT_TRAINER", f"{sys.executable} {SCRIPT}")
    monkeypatch.setenv("SCRIPT_GO", str(scripted.go))
    monkeypatch.setenv("SCRIPT_LOG", str(scripted.log))
    return scripted


class Launched:
    """A launch or worker that runs while the test goes on."""

    def __init__(self, directory: Path, *words: str | Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "paropt", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
        )

    def end(self, seconds: float = 120) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    launched: list[Launched] = []

    def begin(*words: str | Path) -> Launched:
        launched.append(Launched(tmp_path, *words))
        return launched[-1]

    yield begin
    for one in launched:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


@pytest.fixture(autouse=True)
def _no_slots_left(paropt_home: Path) -> Iterator[None]:
    """Slots survive their launch by design; here they must not survive the test."""
    yield
    for state in states(paropt_home):
        if state.get("phase") != "ended":
            with contextlib.suppress(ProcessLookupError, KeyError):
                os.kill(state["pid"], signal.SIGKILL)


def states(home: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(home.glob("slots/*/*.state")):
        try:
            found.append(json.loads(path.read_text()))
        except ValueError:
            continue
    return found


def in_phase(home: Path, phase: str) -> list[dict[str, Any]]:
    return [state for state in states(home) if state.get("phase") == phase]


def until(holds: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen in {seconds} s")


def documented_keys() -> set[str]:
    """The keys that docs/json.md promises for launch: its first table's first column."""
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    rows = page.partition("|---|---|\n")[2].partition("\n\n")[0].splitlines()
    keys = {key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert "counts" in keys and "workers" in keys
    return keys


def test_a_search_by_two_slots_from_data_to_json(
    run_paropt: Any, space: Path, dataset: Path
) -> None:
    """Real training, on the embedded server, without anything said but space and data."""
    done = run_paropt(
        "launch", "--space", space, "--data", dataset, "--trials", "4", "--per-device", "2",
        "--devices", "cpu", "--json",
    )  # fmt: skip
    assert done.rc == 0, done.err
    result = json.loads(done.out)
    assert result["study"] == "ring-data"
    assert result["counts"]["complete"] + result["counts"]["pruned"] == 4 == result["budget"]
    assert (result["model"], result["metric"]) == ("gru4rec", "mrr@20")
    best = result["best"]
    assert best["value"] == best["metrics"]["mrr@20"] > result["floor"]["popularity"]["mrr@20"]
    assert 1 <= best["epoch"] <= 3
    assert best["params"]["layers"] in (8, 16, 24, 32)
    assert result["floor"].keys() == {"popularity", "cooccurrence"}
    assert len(result["workers"]) == 2
    assert len(result["fingerprint"]) == 64
    assert result.keys() >= documented_keys()
    assert "trial 0 complete" in done.err
    more = run_paropt("launch", "--study", "ring-data", "--trials", "5")
    assert more.rc == 0, more.err
    assert "goes on" in more.err and "5 done of 5" in more.out
    assert "paropt export ring-data" in more.out


def test_ctrl_c_hands_back_and_the_next_launch_goes_on(
    start: Any, run_paropt: Any, shop: Scripted, paropt_home: Path
) -> None:
    shop.create("hold", "fine")
    launched = start(*shop.launch)
    until(lambda: in_phase(paropt_home, "training"), "training")
    launched.process.send_signal(signal.SIGINT)
    rc, _, err = launched.end()
    assert rc == 0, err
    assert "handing trials back" in err
    assert "'paropt launch --study shop' goes on from here" in err
    shown = json.loads(run_paropt("status", "shop", "--storage", shop.url, "--json").out)
    assert shown["counts"]["waiting"] == 1 and shown["counts"]["running"] == 0
    shop.go.touch()
    done = run_paropt(*shop.launch, "--json")
    assert done.rc == 0, done.err
    assert json.loads(done.out)["counts"] == {
        "complete": 2,
        "pruned": 0,
        "failed": 0,
        "running": 0,
        "waiting": 0,
    }


def test_killing_launch_stops_no_slot_and_a_new_launch_finds_it(
    start: Any, shop: Scripted, paropt_home: Path
) -> None:
    shop.create("hold")
    launched = start(*shop.launch)
    first = until(lambda: in_phase(paropt_home, "training"), "training")[0]
    launched.process.kill()
    launched.end()
    again = start(*shop.launch, "--json")
    os.kill(first["pid"], 0)  # it is there
    # a launch that sees its slot says what it trains on
    until(lambda: "slot" in again.process.stderr.readline(), "the new launch")
    shop.go.touch()
    rc, out, err = again.end()
    assert rc == 0, err
    result = json.loads(out)
    assert result["counts"]["complete"] == 1
    assert [worker["pid"] for worker in result["workers"]] == [first["pid"]]


def test_a_killed_slot_is_started_again(start: Any, shop: Scripted, paropt_home: Path) -> None:
    shop.create("hold", "fine")
    launched = start(*shop.launch, "--json")
    first = until(lambda: in_phase(paropt_home, "training"), "training")[0]
    os.kill(first["pid"], signal.SIGKILL)
    shop.go.touch()
    rc, out, err = launched.end()
    assert rc == 0, err
    result = json.loads(out)
    assert result["counts"] | {"complete": 2, "failed": 0} == result["counts"]
    assert result["workers"][0]["pid"] != first["pid"]
    assert "was lost and is taken over" in err


def test_a_worker_joins_a_study_from_elsewhere(
    start: Any, run_paropt: Any, shop: Scripted, paropt_home: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    shop.create("hold", "hold")
    launched = start(*shop.launch, "--json")
    until(lambda: in_phase(paropt_home, "training"), "training")
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("PAROPT_HOME", str(elsewhere))
    joined = start("worker", *shop.common, "--json")
    until(lambda: in_phase(elsewhere, "training"), "training elsewhere")
    shop.go.touch()
    for one in (launched, joined):
        rc, out, err = one.end()
        assert rc == 0, err
        assert json.loads(out)["counts"]["complete"] == 2
    assert len(shop.trainers()) == 2


def test_a_worker_with_other_data_is_refused(
    run_paropt: Any, shop: Scripted, tmp_path: Path
) -> None:
    shop.create("fine")
    other = tmp_path / "other"
    assert run_paropt("prepare", "--demo", "--out", other).rc == 0
    refused = run_paropt("worker", *shop.common, "--data", other)
    assert refused.rc == 1
    assert len(refused.err.strip().splitlines()) == 1
    for directory in (shop.dataset, other):
        meta = json.loads((directory / "meta.json").read_text())
        assert meta["fingerprint"][:12] in refused.err


def test_pause_resume_and_stop_from_elsewhere(
    start: Any, run_paropt: Any, shop: Scripted, paropt_home: Path
) -> None:
    shop.create("hold")
    storage = ("--storage", shop.url)
    launched = start(*shop.launch)
    until(lambda: in_phase(paropt_home, "training"), "training")
    paused = run_paropt("pause", "shop", *storage)
    assert paused.rc == 0 and "its slot hands back its trial within" in paused.err
    until(lambda: in_phase(paropt_home, "paused"), "the pause")
    assert run_paropt("resume", "shop", *storage).rc == 0
    until(lambda: in_phase(paropt_home, "training"), "going on")
    assert run_paropt("stop", "shop", *storage, "--slot", "nobody").rc == 1
    assert run_paropt("stop", "shop", *storage).rc == 0
    rc, _, err = launched.end()
    assert rc == 0 and "was stopped" in err
    missing = run_paropt("pause", "nothing", *storage)
    assert missing.rc == 1 and "there is no study 'nothing'; 'paropt status' lists" in missing.err


def test_what_cannot_start_ends_with_one_sentence_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], space: Path, dataset: Path, paropt_home: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    from paropt.cli.main import run

    def refused(code: int, *words: str | Path) -> str:
        with pytest.raises(SystemExit) as end:
            run(["launch", *map(str, words)])
        said = capsys.readouterr()
        assert (end.value.code, said.out) == (code, ""), (words, said.err)
        return said.err

    assert "no data: give --data DIR" in refused(1, "--space", space)
    assert "nowhere" in refused(1, "--space", space, "--data", "nowhere")
    assert "--devices" in refused(1, "--space", space, "--data", dataset, "--devices", "9")
    assert "MRR" in refused(2, "--space", space, "--data", dataset, "--metric", "MRR@")
    assert "nowhere.json" in refused(2, "--space", "nowhere.json")
    assert "'2 fortnights'" in refused(2, "--space", space, "--timeout", "2 fortnights")
    assert "--space FILE, or --study NAME" in refused(2)
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(SPACE | {"search": {"leyers": {"type": "int", "low": 1, "high": 2}}}))
    assert "layers" in refused(1, "--space", bad, "--data", dataset)
    assert not (paropt_home / "postgres").exists()
    assert not (paropt_home / "slots").exists()


def test_a_trainer_that_cannot_start_ends_the_launch(
    run_paropt: Any, shop: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.create("fine")
    monkeypatch.setenv("SCRIPT_START", "ModuleNotFoundError: No module named 'torch'")
    done = run_paropt(*shop.launch, "--json")
    assert done.rc == 1
    error = done.err.strip().splitlines()[-1]
    assert error.startswith("Error: the trainer on cpu cannot start: ModuleNotFoundError")


def test_a_study_whose_trials_all_fail_pauses_and_says_why(run_paropt: Any, shop: Scripted) -> None:
    shop.create(*["bug"] * 7)
    done = run_paropt(*shop.launch)
    assert done.rc == 1
    error = done.err.strip().splitlines()[-1]
    assert error.startswith("Error: study 'shop' paused because") and "KeyError" in error


def test_a_database_that_is_away_ends_in_3(run_paropt: Any, paropt_home: Path) -> None:
    done = run_paropt(
        "worker", "--study", "shop", "--storage", "postgresql://paropt@127.0.0.1:1/paropt",
        env={"PAROPT_OUTAGE": "0"},
    )  # fmt: skip
    assert done.rc == 3
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize("typed", [False, True], ids=["environment", "command line"])
def test_the_password_is_in_no_process_list_log_or_file(
    typed: bool, start: Any, shop: Scripted, paropt_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.engine import make_url

    password = make_url(shop.url).password
    assert password
    shop.create("hold")
    words = ["launch", "--study", "shop", "--devices", "cpu", "--per-device", "1"]
    if typed:
        words += ["--storage", shop.url]
    else:
        monkeypatch.setenv("PAROPT_STORAGE", shop.url)
    launched = start(*words)
    state = until(lambda: in_phase(paropt_home, "training"), "training")[0]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            assert password.encode() not in (process / "cmdline").read_bytes()
    assert password.encode() not in Path(f"/proc/{state['trainer']}/environ").read_bytes()
    launched.process.send_signal(signal.SIGTERM)
    rc, out, err = launched.end()
    assert rc == 0 and password not in out + err
    for path in paropt_home.rglob("*"):
        if path.is_file():
            assert password.encode() not in path.read_bytes(), path
