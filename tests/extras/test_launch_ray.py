"""A Ray cluster of several nodes on this machine, and slots on them; a node is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.storage.connect import open_storage
from paropt.storage.schema import create_tables

pytestmark = [pytest.mark.extras, pytest.mark.postgres, pytest.mark.slow]
SCRIPT = Path(__file__).parents[1] / "scripted_trainer.py"
HEARTBEAT, EPOCHS = 4.0, 8


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    environment = {
        "PAROPT_HOME": str(tmp_path / "home"),
        "PAROPT_TRAINER": f"{sys.executable} {SCRIPT}",
        "SCRIPT_EPOCH": "0.5",
        "SCRIPT_LOG": str(tmp_path / "epochs.log"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    made.shutdown()


def study(url: str, data: Path, trials: int, epochs: int = EPOCHS) -> Study:
    fingerprint = json.loads((data / "meta.json").read_text())["fingerprint"]
    wanted = StudyDefinition(
        name="onray",
        space={
            "model": "scripted",
            "fixed": {"n_epochs": epochs},
            "search": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        },
        metric="mrr@20",
        at=[20],
        data_path=str(data),
        fingerprint=fingerprint,
        sampler={"name": "random"},
        pruner={"name": "none"},
        heartbeat=HEARTBEAT,
    )
    made = Study.create(url, wanted, budget=trials)
    with open_storage(url) as storage:
        create_tables(storage.engine())
    return made


def launched(url: str, slots: int) -> subprocess.Popen[str]:
    words = ["launch", "--study", "onray", "--on", "ray", "--slots", str(slots)]
    return subprocess.Popen(
        [sys.executable, "-m", "paropt", *words],
        env={**os.environ, "PAROPT_STORAGE": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(holds: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    end = time.monotonic() + 200
    while time.monotonic() < end:
        if found := holds():
            return found
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def kill_whole(node: Any) -> list[int]:
    """A node's raylet and all below it at once, as when its power is lost; who they were."""
    (raylet,) = [p.process.pid for p in node.all_processes["raylet"]]
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    doomed = [raylet]
    for pid in doomed:
        doomed += parents.get(pid, [])
    for number in (signal.SIGSTOP, signal.SIGKILL):  # nobody sees the others die
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    return doomed


def trained(tmp_path: Path) -> list[tuple[int, int, int]]:
    lines = (tmp_path / "epochs.log").read_text().splitlines()
    return [(int(a), int(b), int(c)) for a, b, c, _ in map(str.split, lines)]


def test_a_killed_nodes_trials_are_taken_over(
    cluster: Any, database_url: str, ring: Path, tmp_path: Path
) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    made = study(database_url, ring, trials=4)
    process = launched(database_url, slots=2)
    until(lambda: made.counts()["running"] == 2 and (tmp_path / "epochs.log").exists(), process)
    until(lambda: max(e for _, _, e in trained(tmp_path)) >= 3, process)
    kill_whole(nodes[1])
    out = process.communicate(timeout=240)[0]
    assert process.returncode == 0, out
    assert made.counts() == {"complete": 4, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    assert max(attempt for _, attempt, _ in trained(tmp_path)) == 2
    made.close()


def test_ctrl_c_hands_back_and_no_password_is_seen(
    cluster: Any, database_url: str, ring: Path, tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=1)
    made = study(database_url, ring, trials=2)
    process = launched(database_url, slots=2)  # the second one finds no place
    until(lambda: made.counts()["running"] == 1, process)
    secret = database_url.partition("paropt:")[2].partition("@")[0].encode()
    seen = [path for path in Path("/proc").glob("[0-9]*/cmdline") if secret in _read(path)]
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, out
    assert made.counts()["waiting"] == 1 and made.counts()["running"] == 0
    assert not seen and "goes on from here" in out
    logs = (tmp_path / "home").rglob("*.log")
    assert not any(secret in path.read_bytes() for path in logs)
    made.close()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
