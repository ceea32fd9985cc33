"""What paropt 0.1.0 wrote is opened by this paropt (see tests/fixtures/v0_1_0/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from paropt.errors import StudyError
from paropt.search.study.study import Study
from paropt.storage import schema
from paropt.storage.engine import open_engine
from paropt.storage.leases import Slots
from paropt.storage.schema import create_tables
from paropt.training.evaluation.epochs import EpochReport

OLD = Path(__file__).parents[1] / "fixtures" / "v0_1_0"
RECORDED: dict[str, Any] = json.loads((OLD / "recorded.json").read_text("utf-8"))


@pytest.fixture
def old_database(database_url: str) -> str:
    connection = psycopg2.connect(database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute((OLD / "study.sql").read_text("utf-8"))
    connection.close()
    return database_url


def paropt(*words: str | Path) -> str:
    from paropt.cli.main import cli

    result = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


# -- studies --------------------------------------------------------------------------------


@pytest.mark.postgres
def test_a_study_says_what_it_said(old_database: str) -> None:
    study = Study.load(old_database, "old")
    found = study.summary()
    same = (
        "study",
        "model",
        "metric",
        "fingerprint",
        "data",
        "state",
        "counts",
        "budget",
    )
    assert {key: found[key] for key in same} == {key: RECORDED["status"][key] for key in same}
    assert RECORDED["status"]["epochs"].items() <= found["epochs"].items()
    assert study.definition.pruner["still"] == 0  # its trials never ended for standing still
    best = RECORDED["status"]["best"]
    assert {key: found["best"][key] for key in best} == best
    study.close()


@pytest.mark.postgres
def test_a_study_goes_on(old_database: str, paropt_home: Path) -> None:
    from paropt.launch.opening.launch_request import LaunchRequest
    from paropt.launch.opening.open_study import create_or_resume

    wish = LaunchRequest(study="old", data=str(OLD / "shop"), storage=old_database, trials=5)
    with create_or_resume(wish, lambda _: None) as joined:
        assert joined.resumed
        study = joined.study
        trial = study.next_trial({"host": "here"})
        assert trial is not None and (trial.number, trial.model) == (4, "gru4rec")
        metrics = {"mrr@20": 0.99, "recall@20": 0.9, "ndcg@20": 0.6}
        trial.report(EpochReport(epoch=1, metrics=metrics))
        trial.complete()
        assert study.counts()["complete"] == RECORDED["status"]["counts"]["complete"] + 1


# -- datasets, models, paramfiles -----------------------------------------------------------


def test_a_dataset_is_what_it_was() -> None:
    from paropt.data import open_dataset

    dataset = open_dataset(OLD / "shop")
    assert dataset.fingerprint == RECORDED["status"]["fingerprint"]
    for name in ("search", "full"):
        view = dataset.view(name)
        assert view.train.n_events > view.test.n_events > 0


@pytest.mark.parametrize("model", ["gru4rec", "sasrec"])
def test_a_saved_model_is_as_good_as_it_was(model: str) -> None:
    found = json.loads(paropt("evaluate", OLD / model, "--data", OLD / "shop", "--json"))
    recorded = RECORDED[model]
    assert (found["targets"], found["unknown"]) == (recorded["targets"], recorded["unknown"])
    for name, value in recorded["metrics"].items():
        assert found["metrics"][name] == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("model", ["gru4rec", "sasrec"])
def test_a_saved_model_recommends_what_it_did(model: str) -> None:
    said = paropt("recommend", OLD / model, "--sessions", OLD / "sessions.csv", "--top", "3")
    rows = [line.split("\t") for line in said.splitlines()[1:]]
    found: dict[str, list[str]] = {}
    for session, _, item, *_ in rows:
        found.setdefault(session, []).append(item)
    assert found == RECORDED[model]["recommended"]


def test_a_paramfile_is_read() -> None:
    from paropt.search.space.paramfiles import read_paramfile
    from paropt.training.registry import complete_params

    paramfile = read_paramfile(OLD / "paramfile.json")
    assert paramfile.params == RECORDED["status"]["best"]["params"]
    assert complete_params(paramfile.model, paramfile.params)["layers"] == (28,)


def test_a_space_is_read() -> None:
    from paropt.search.setup.check_space import read_checked_space

    space = read_checked_space(OLD / "space.json")
    assert [parameter.name for parameter in space.searched] == ["loss", "layers", "learning_rate"]


# -- paropt's own tables ----------------------------------------------------------------------


def version(url: str) -> int | None:
    engine = open_engine(url)
    with engine.begin() as connection:
        if not connection.execute(text("SELECT to_regclass('paropt_schema')")).scalar():
            return None
        found: int = connection.execute(text("SELECT version FROM paropt_schema")).scalar_one()
    engine.dispose()
    return found


STEPS = (
    *schema.STEPS,
    "ALTER TABLE paropt_slot ADD COLUMN colour text; UPDATE paropt_slot SET colour = 'red'",
)


@pytest.mark.postgres
def test_old_tables_are_brought_up_to_date_once_and_keep_their_rows(old_database: str) -> None:
    engine = open_engine(old_database)
    slots = Slots(engine)
    slots.register("old", device="cpu", slot=0)
    assert version(old_database) is None
    for _ in range(2):  # twice would fail: the column is there
        create_tables(engine, STEPS)
        assert version(old_database) == len(STEPS)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT colour FROM paropt_slot")).scalars().all() == ["red"]
    assert len(slots.alive("old")) == 1
    engine.dispose()


@pytest.mark.postgres
def test_new_tables_have_all_steps(database_url: str) -> None:
    engine = open_engine(database_url)
    create_tables(engine, STEPS)
    assert version(database_url) == len(STEPS)
    Slots(engine).register("new", device="cpu", slot=0)
    with pytest.raises(StudyError, match=r"are of version 2, which a newer paropt made, and this"):
        create_tables(engine)
    engine.dispose()


@pytest.mark.postgres
def test_a_step_that_fails_leaves_everything_as_it_was(old_database: str) -> None:
    engine = open_engine(old_database)
    with pytest.raises(StudyError):
        create_tables(engine, (*STEPS, "ALTER TABLE paropt_nowhere ADD COLUMN x text"))
    assert version(old_database) is None
    create_tables(engine, STEPS)
    engine.dispose()
