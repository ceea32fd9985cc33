"""Studies that are deleted or renamed while somebody writes to them, by whichever door."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages._rdb import models
from sqlalchemy import text

from paropt.dashboard.server import Dashboard
from paropt.errors import StudyError
from paropt.machine.slot_files import slots_directory
from paropt.results.final import looks_at_test
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.plan import FinalPlan, part_name
from paropt.search.study.state import StudyEnded
from paropt.search.study.study import Study
from paropt.storage import study_rows
from paropt.storage.connect import Storage, open_storage
from paropt.storage.engine import open_rdb, transaction
from paropt.storage.leases import Slots
from paropt.storage.schema import create_tables
from paropt.storage.study_rows import folder
from paropt.training.evaluation.epochs import EpochReport

pytestmark = pytest.mark.postgres

SPACE: dict[str, Any] = {
    "model": "gru4rec",
    "fixed": {"n_epochs": 4},
    "search": {"layers": {"type": "int", "low": 32, "high": 512, "step": 32}},
}
EPOCH = {"event": "epoch", "epoch": 1, "metrics": {"mrr@20": 0.25, "recall@20": 0.5}}


@pytest.fixture
def storage(database_url: str) -> Iterator[Storage]:
    with open_storage(database_url) as opened:
        yield opened


@contextmanager
def study_of(storage: Storage, name: str, **options: Any) -> Iterator[Study]:
    definition = StudyDefinition(name, SPACE, "mrr@20", [20], "/data", "abc", **options)
    study = Study.create(storage.url, definition, budget=9)
    create_tables(storage.engine())
    try:
        yield study
    finally:
        study.close()


@contextmanager
def asking(storage: Storage) -> Iterator[Callable[..., tuple[int, Any]]]:
    """``ask(method, path, body)`` of a writable dashboard: status and JSON."""
    dashboard = Dashboard(storage, port=0, writable=True, token="")
    thread = threading.Thread(target=dashboard.serve)
    thread.start()

    def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        with closing(http.client.HTTPConnection("127.0.0.1", dashboard.port)) as connection:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content else None

    try:
        yield ask
    finally:
        dashboard.stop()
        thread.join()
        dashboard.close()


def trial_of(study: Study) -> Any:
    trial = study.next_trial({"host": "here", "slot": "here/0", "device": "cpu"})
    assert trial is not None
    return trial


def rows(storage: Storage) -> dict[str, int]:
    """How many rows each table has that may hold something of a study."""
    tables = ("studies", "trials", *study_rows.OF_TRIALS, *study_rows.OF_STUDIES, "paropt_lease")
    with transaction(storage.engine()) as connection:
        return {t: connection.execute(text(f"SELECT count(*) FROM {t}")).scalar() for t in tables}


def test_every_table_of_optunas_is_known() -> None:
    found: dict[str, set[str]] = {"trials": set(), "studies": set()}
    for table in models.BaseModel.metadata.tables.values():
        for key in table.foreign_keys:
            found[key.column.table.name].add(table.name)
    assert found["trials"] == set(study_rows.OF_TRIALS)
    assert found["studies"] == {*study_rows.OF_STUDIES, "trials"}


def test_writers_cannot_keep_a_study_from_being_deleted(storage: Storage) -> None:
    """As slots do after each epoch, only without a pause: Optuna would take its deletion back."""
    with asking(storage) as ask:
        for number in range(3):
            with study_of(storage, f"shop-{number}") as study:
                trials = [trial_of(study) for _ in range(3)]
                begun = threading.Barrier(len(trials) + 1)

                def write(trial: Any, begun: threading.Barrier = begun) -> None:
                    own = open_rdb(storage.url)._backend
                    own.set_trial_intermediate_value(trial.id, 0, 0.5)
                    begun.wait(30)
                    with pytest.raises(KeyError):
                        for step in range(1, 100_000):
                            own.set_trial_intermediate_value(trial.id, step, 0.5)
                    own.engine.dispose()

                writers = [threading.Thread(target=write, args=(trial,)) for trial in trials]
                for writer in writers:
                    writer.start()
                begun.wait(30)
                assert ask("DELETE", f"/api/studies/{study._id}") == (204, None)
                for writer in writers:
                    writer.join(60)
                assert Study.names(storage.url) == []
                assert set(rows(storage).values()) == {0}
                assert ask("DELETE", f"/api/studies/{study._id}")[0] == 404


def test_who_has_the_study_open_hears_of_its_end(storage: Storage) -> None:
    with study_of(storage, "shop") as study:
        trial = trial_of(study)
        study_rows.alone(storage.engine(), lambda c: study_rows.delete(c, study._id))
        for call in (study.state, study.summary, lambda: study.set_state("stop")):
            with pytest.raises(StudyEnded, match="study 'shop' was deleted") as ended:
                call()
            assert ended.value.reason == "deleted"
        with pytest.raises(StudyEnded, match="study 'shop' was deleted"):
            trial_of(study)
        with pytest.raises(StudyError, match="no longer in the database"):
            trial.report(EpochReport.from_json(EPOCH))
    assert set(rows(storage).values()) == {0}


def test_a_slot_ends_with_its_study(workshop: Any) -> None:
    study = workshop.create([(0.5, "hold")], epochs=9, heartbeat=0.6)
    process = workshop.start()
    workshop.until_epoch(1)
    with open_storage(workshop.url) as storage:
        study_rows.alone(storage.engine(), lambda c: study_rows.delete(c, study._id))
    assert workshop.end(process) == 0
    said = workshop.said()
    assert "this slot ends: study 'tried' was deleted" in said
    assert "Traceback" not in said
    assert "Error" not in said
    assert workshop.state()["reason"] == "deleted"
    assert list(workshop.checkpoints.iterdir()) == []


@contextmanager
def with_final_test(storage: Storage, name: str) -> Iterator[Study]:
    """A study, and the parts of a final test of it that looked at the test set."""
    plan = FinalPlan(name, 1, (), (1,))
    with (
        study_of(storage, name) as study,
        study_of(storage, part_name(name, 1, "valid"), plan=plan.to_json()),
        study_of(storage, part_name(name, 1, "test"), plan=plan.to_json()),
    ):
        with study.transaction() as connection:
            looks_at_test.take_look(connection, "abc", plan)
        yield study


def test_a_test_set_that_was_looked_at_stays_so(storage: Storage) -> None:
    """The study of that name that comes next has not looked there."""
    with with_final_test(storage, "shop") as study:
        gone = study_rows.alone(storage.engine(), lambda c: study_rows.delete(c, study._id))
        assert gone == ["shop", "shop.final-1.valid", "shop.final-1.test"]
    assert Study.names(storage.url) == []
    with transaction(storage.engine()) as connection:
        (look,) = looks_at_test.looks(connection, "abc")
        assert look.study.startswith("shop (deleted 20")
        with pytest.raises(StudyError, match=r"looked at once \(first by 'shop \(deleted"):
            looks_at_test.check_looks(connection, "abc", FinalPlan("shop", 1, (), (1,)))


def test_another_name_takes_all_along(storage: Storage) -> None:
    with with_final_test(storage, "shop") as study, asking(storage) as ask:
        trial = trial_of(study)
        trial.report(EpochReport.from_json(EPOCH))
        trial.complete()
        status, answer = ask("POST", f"/api/studies/{study._id}/rename", {"study_name": "store"})
        assert (status, answer["study_name"], answer["study_id"]) == (201, "store", study._id)
        names = ["store", "store.final-1.valid", "store.final-1.test"]
        assert Study.names(storage.url) == names
        assert [s["study_name"] for s in ask("GET", "/api/studies")[1]["study_summaries"]] == names
    renamed = Study.load(storage.url, "store.final-1.test")
    assert renamed.definition.plan["of"] == "store"
    renamed.close()
    again = Study.load(storage.url, "store")
    assert again.best()[0]["value"] == 0.25
    with again.transaction() as connection:
        assert [look.study for look in looks_at_test.looks(connection, "abc")] == ["store"]
    again.close()


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("taken", 409, "there is a study 'taken' already"),
        ("x" * 513, 400, "at most 512 characters, and this has 513"),
        ("a\nb", 400, "character that cannot be shown"),
        ("", 400, "empty; give a name"),
        (7, 400, "a study has a name"),
    ],
)
def test_names_that_a_study_cannot_have(
    storage: Storage, name: Any, status: int, reason: str
) -> None:
    with study_of(storage, "shop") as study, study_of(storage, "taken"), asking(storage) as ask:
        found = ask("POST", f"/api/studies/{study._id}/rename", {"study_name": name})
        assert found[0] == status
        assert reason in found[1]["reason"]
        assert Study.names(storage.url) == ["shop", "taken"]


def test_slots_know_their_study_by_its_name(storage: Storage) -> None:
    with study_of(storage, "shop") as study, asking(storage) as ask:
        slots = Slots(storage.engine())
        identity = slots.register("shop", device="cpu", slot=0)
        status, answer = ask("POST", f"/api/studies/{study._id}/rename", {"study_name": "store"})
        assert status == 409
        assert "slots work on study 'shop'" in answer["reason"]
        assert "'paropt stop shop' first" in answer["reason"]
        slots.leave(identity)
        assert ask("POST", f"/api/studies/{study._id}/rename", {"study_name": "store"})[0] == 201


def test_the_dashboard_ends_no_trial_under_its_slots_hands(storage: Storage) -> None:
    with study_of(storage, "shop") as study, asking(storage) as ask:
        trial = trial_of(study)
        tell = {"state": "Complete", "values": [1.0]}
        refused = [
            ask("POST", f"/api/trials/{trial.id}/tell", tell),
            ask("POST", f"/api/trials/{trial.id}/user-attrs", {"user_attrs": {"why": "so"}}),
            ask("POST", f"/api/studies/{study._id}/preference", {"mode": "ChooseWorst"}),
        ]
        for status, answer in refused:
            assert status == 409
            assert "study 'shop' is searched by paropt" in answer["reason"]
        assert not trial.report(EpochReport.from_json(EPOCH))
        assert ask("POST", "/api/trials/999/tell", tell)[0] == 404


def test_notes_are_kept_or_refused(storage: Storage) -> None:
    with study_of(storage, "shop") as study, asking(storage) as ask:
        note = {"version": 1, "body": "tried on Monday"}
        assert ask("PUT", f"/api/studies/{study._id}/note", note)[0] == 204
        assert ask("PUT", f"/api/studies/{study._id}/note", note)[0] == 409  # of the same version
        found = ask("GET", f"/api/studies/{study._id}")[1]["note"]
        assert found == {"version": 1, "body": "tried on Monday"}
        assert ask("PUT", "/api/studies/999/note", note)[0] == 404


def test_studies_of_other_programs_too(storage: Storage) -> None:
    rdb = open_rdb(storage.url) if Study.names(storage.url) else None
    assert rdb is None
    with study_of(storage, "shop"), asking(storage) as ask:
        rdb = open_rdb(storage.url)
        other = optuna.create_study(study_name="theirs", storage=rdb)
        trial = other.ask()
        tell = {"state": "Complete", "values": [1.0]}
        assert ask("POST", f"/api/trials/{trial._trial_id}/tell", tell)[0] == 204
        renamed = {"study_name": "ours"}
        assert ask("POST", f"/api/studies/{other._study_id}/rename", renamed)[0] == 201
        assert ask("DELETE", f"/api/studies/{other._study_id}")[0] == 204
        assert [s.study_name for s in optuna.get_all_study_summaries(rdb)] == ["shop"]
        rdb._backend.engine.dispose()


# -- paropt delete ------------------------------------------------------------------------------


def test_delete_takes_what_this_machine_kept(
    storage: Storage, database_url: str, run_paropt: Callable[..., Any], tmp_path: Path
) -> None:
    home, engine = tmp_path / "home", storage.engine()
    environment = {"PAROPT_STORAGE": database_url, "PAROPT_HOME": str(home)}
    with with_final_test(storage, "shop"), study_of(storage, "kept"):
        places = {
            name: [slots, *(home / "checkpoints" / of for of in (slots.name, folder(engine, name)))]
            for name in ("shop", "kept")
            for slots in [slots_directory(home, storage.describe(), name)]
        }
        for place in [*places["shop"], *places["kept"]]:
            place.mkdir(parents=True)
            (place / "file").touch()
        asked = run_paropt("delete", "shop", env=environment)
        assert asked.rc == 2
        assert "this would delete study 'shop' (0 trials and 1 final test); add --yes" in asked.err
        wrong = run_paropt("delete", "shop", "shpo", "--yes", env=environment)
        assert wrong.rc == 1
        assert wrong.err == "Error: there is no study 'shpo'; did you mean 'shop'?\n"
        assert len(Study.names(storage.url)) == 4
        done = run_paropt("delete", "shop", "--yes", env=environment)
        assert (done.rc, done.err) == (0, "study 'shop' (0 trials and 1 final test) is deleted\n")
    assert Study.names(storage.url) == ["kept"]
    assert not any(place.exists() for place in places["shop"])
    assert all((place / "file").exists() for place in places["kept"])


def test_delete_refuses_a_study_at_work(
    storage: Storage, database_url: str, run_paropt: Callable[..., Any]
) -> None:
    with study_of(storage, "my shop"):
        Slots(storage.engine()).register("my shop", device="cpu", slot=0, host="gpu7")
        environment = {"PAROPT_STORAGE": database_url}
        refused = run_paropt("delete", "my shop", "--yes", env=environment)
    assert refused.rc == 1
    assert refused.err == (
        "Error: study 'my shop' is worked on by 1 slot on gpu7; `paropt stop 'my shop'` first\n"
    )
