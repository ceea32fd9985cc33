"""Studies on every PostgreSQL that is at hand: the wheel brings 16 and 18, a distribution others.

``make storage POSTGRES=/usr/lib/postgresql/15/bin`` runs all tests of the storage on one of them.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.storage.embedded import binaries
from paropt.storage.engine import open_engine, open_rdb
from paropt.storage.leases import Leases, Slots, Stale
from paropt.storage.schema import create_tables
from paropt.training.evaluation.epochs import EpochReport

pytestmark = pytest.mark.postgres
OF_WHEEL = {"pginstall": "16", "pginstall18": "18"}
DISTRIBUTION = Path("/usr/lib/postgresql")  # Debian and Ubuntu
OLD = Path(__file__).parents[1] / "fixtures" / "v0_1_0"


def at_hand() -> dict[str, Path]:
    """The directories of PostgreSQL's programs by major version."""
    spec = importlib.util.find_spec(binaries.PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    package = Path(spec.submodule_search_locations[0])
    found = {OF_WHEEL[name]: package / name / "bin" for name in OF_WHEEL}
    found |= {path.parent.name: path for path in DISTRIBUTION.glob("*/bin")}
    return {version: path for version, path in found.items() if (path / "initdb").exists()}


@pytest.fixture(scope="module", params=sorted(at_hand(), key=int))
def server(request: pytest.FixtureRequest, new_postgres_server: Any) -> Iterator[Any]:
    programs = at_hand()[request.param]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir="/tmp") as open_to:
        Path(open_to).chmod(0o755)
        if programs.parent.name in OF_WHEEL:  # which a server that isn't root may have to copy
            patch.setattr(binaries, "INSTALLATION", programs.parent.name)
            patch.setattr(binaries, "SYSTEM_ROOT", Path(open_to))
            chosen = binaries.find_binaries()
        else:
            chosen = binaries.Binaries(programs, binaries.find_binaries().user)
        made = new_postgres_server(chosen)
        yield made
        made.remove()


@pytest.fixture
def url(server: Any, request: pytest.FixtureRequest) -> str:
    created: str = server.create_database()
    with psycopg2.connect(created) as connection:
        version = connection.server_version // 10_000
    connection.close()
    assert f"[{version}]" in request.node.name  # it is the one that was meant
    return created


def definition() -> StudyDefinition:
    return StudyDefinition(
        name="tried",
        space={"model": "gru4rec", "search": {"layers": {"type": "int", "low": 1, "high": 90}}},
        metric="mrr@20",
        at=[20],
        data_path="nowhere",
        fingerprint="0" * 64,
    )


def report(epoch: int, value: float) -> EpochReport:
    return EpochReport(epoch=epoch, metrics={"mrr@20": value})


def test_a_trial_is_given_out_lost_taken_over_and_completed(url: str) -> None:
    study = Study.create(url, definition(), budget=1)
    engine = open_engine(url)
    create_tables(engine)
    slots, leases = Slots(engine), Leases(engine)
    first, second = (slots.register("tried", device="cpu", slot=n) for n in range(2))
    trial = study.next_trial({"host": "a"}, lambda c, n: leases.take(c, "tried", n, first))
    assert trial is not None and not trial.report(report(1, 0.25))
    assert slots.beat(first, {"epoch": 1}, trial.id).mine
    assert leases.seize(Stale(trial.id, first, 1, 60.0, "no heartbeat"))
    assert not slots.beat(first, {}, trial.id).mine
    assert study.requeue(trial.id, "its worker was lost")
    again = study.next_trial({"host": "b"}, lambda c, n: leases.take(c, "tried", n, second))
    assert again is not None and (again.attempt, again.best) == (2, (1, 0.25))
    again.report(report(2, 0.5))
    again.complete()
    assert study.counts() == {"complete": 1, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    assert study.best()[0]["value"] == 0.5
    of_optuna = open_rdb(url)
    (found,) = of_optuna.get_all_studies()
    states = [trial.state.name for trial in of_optuna.get_all_trials(found._study_id)]
    assert states == ["FAIL", "COMPLETE"]
    of_optuna._backend.engine.dispose()
    study.close()
    engine.dispose()


def test_a_study_of_0_1_0_is_read(url: str) -> None:
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute((OLD / "study.sql").read_text("utf-8"))
    connection.close()
    study = Study.load(url, "old")
    assert study.counts()["complete"] == 2
    study.close()
