"""``paropt status``: the promised keys, and what people read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.storage.engine import open_engine
from paropt.storage.leases import Slots
from paropt.storage.schema import create_tables
from paropt.training.evaluation.epochs import EpochReport

SPACE = {
    "model": "gru4rec",
    "fixed": {"n_epochs": 2},
    "search": {"learning_rate": {"type": "float", "low": 0.01, "high": 0.3}},
    "start": [{"learning_rate": rate} for rate in (0.05, 0.1, 0.2)],
}


BEGIN = {"model": "gru4rec", "path": "/models/april", "digest": "d" * 64, "optimiser": "e" * 64}


def _epoch(number: int, mrr: float) -> dict[str, Any]:
    metrics = {"mrr@20": mrr, "recall@20": 2 * mrr}
    return {"epoch": number, "metrics": metrics, "loss": 1.0, "seconds": 1.5}


@pytest.fixture
def study(database_url: str) -> Iterator[Study]:
    """Trial 0: complete, best at epoch 1; trial 1: out of memory; trial 2: runs."""
    definition = StudyDefinition(
        name="shop",
        space=SPACE,
        metric="mrr@20",
        at=[20],
        data_path="data/shop",
        fingerprint="f" * 64,
        pruner={"name": "none"},
        begin=BEGIN,
    )
    study = Study.create(database_url, definition, budget=5)
    first = study.next_trial({"host": "rome"})
    assert first
    first.report(EpochReport.from_json(_epoch(1, 0.25)))
    first.report(EpochReport.from_json(_epoch(2, 0.125)))
    first.complete()
    second = study.next_trial({"host": "rome"})
    assert second
    second.out_of_memory("8 GiB asked of 4 GiB")
    assert study.next_trial({"host": "rome"})
    study.set_floor({"popularity": {"mrr@20": 0.0625, "recall@20": 0.5}})
    yield study
    study.close()


@pytest.fixture
def slot(database_url: str) -> Iterator[str]:
    engine = open_engine(database_url)
    create_tables(engine)
    slots = Slots(engine)
    identity = slots.register("shop", device="gpu0", slot=0, host="rome")
    state = {"phase": "training", "trial": 2, "epoch": 1, "epochs": 2, "events_per_second": 1234.5}
    slots.beat(identity, state)
    gone = slots.register("shop", device="gpu1", slot=1, host="oslo")
    slots.leave(gone)
    yield identity
    engine.dispose()


@pytest.mark.usefixtures("study")
def test_json_of_a_study(database_url: str, slot: str, run_paropt: Callable[..., Any]) -> None:
    done = run_paropt("status", "shop", "--json", "--storage", database_url)
    assert (done.rc, done.err) == (0, "")
    status = json.loads(done.out)
    assert status["study"] == "shop"
    assert status["model"] == "gru4rec"
    assert status["metric"] == "mrr@20"
    assert status["fingerprint"] == "f" * 64
    assert status["begin"] == BEGIN
    assert status["budget"] == 5
    assert set(status["counts"]) == {"complete", "pruned", "failed", "running", "waiting"}
    assert status["counts"]["complete"] == 1
    assert status["counts"]["running"] == 1
    best = status["best"]
    assert (best["trial"], best["value"], best["epoch"]) == (0, 0.25, 1)
    assert best["params"]["learning_rate"] == 0.05
    assert best["metrics"] == {"mrr@20": 0.25, "recall@20": 0.5}
    assert status["floor"]["popularity"] == {"mrr@20": 0.0625, "recall@20": 0.5}
    (worker,) = status["workers"]
    assert worker["id"] == slot
    assert (worker["host"], worker["device"]) == ("rome", "gpu0")
    assert worker["state"]["trial"] == 2


@pytest.mark.usefixtures("study")
def test_a_study_for_people(database_url: str, slot: str, run_paropt: Callable[..., Any]) -> None:
    done = run_paropt("status", "shop", env={"PAROPT_STORAGE": database_url})
    assert (done.rc, done.err) == (0, "")
    for shown in (
        "1/5 trials (1 complete), 1 failed, 1 running\n",
        "0.2500",
        "1/2",
        "learning_rate=0.05",
        "without training: popularity 0.0625",
        "begins with /models/april, a gru4rec whose weights have the digest dddddddddddd, with its "
        "optimiser's state",
    ):
        assert shown in done.out
    for shown in ("8 GiB asked of 4 GiB", slot[:8], "rome", "gpu0", "1,234"):
        assert shown in done.out
    assert "oslo" not in done.out


@pytest.mark.usefixtures("study")
def test_all_studies(database_url: str, run_paropt: Callable[..., Any]) -> None:
    done = run_paropt("status", "--storage", database_url)
    assert done.rc == 0
    assert "shop" in done.out
    assert "0.2500" in done.out
    (status,) = json.loads(run_paropt("status", "--json", "--storage", database_url).out)
    assert status["study"] == "shop"
    assert status["workers"] == []


def test_empty_database_stays_empty(database_url: str, run_paropt: Callable[..., Any]) -> None:
    done = run_paropt("status", "--storage", database_url)
    assert done.rc == 0
    assert "paropt launch" in done.out
    assert run_paropt("status", "--json", "--storage", database_url).out == "[]\n"
    engine = open_engine(database_url)
    with engine.connect() as connection:
        assert not engine.dialect.get_table_names(connection)
    engine.dispose()


@pytest.mark.usefixtures("study")
def test_errors_are_one_sentence(database_url: str, run_paropt: Callable[..., Any]) -> None:
    done = run_paropt("status", "shoop", "--storage", database_url)
    assert done.rc == 1
    assert "no study 'shoop'" in done.err
    assert "shop" in done.err
    done = run_paropt("status", "--storage", "postgresql://me:secret@127.0.0.1:1/x")
    assert done.rc == 3
    assert "127.0.0.1:1" in done.err
    for text in (done.out, done.err):
        assert "secret" not in text
        assert "Traceback" not in text
    assert run_paropt("status", "--json", "--watch").rc == 2
