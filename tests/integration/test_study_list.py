"""``paropt status`` over all studies: the same as one by one, by few statements, at any width."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, text

from paropt.search.study.definition import StudyDefinition
from paropt.search.study.plan import Candidate, FinalPlan
from paropt.search.study.state import StudyEnded
from paropt.search.study.study import Study
from paropt.storage import trial_rows
from paropt.storage.connect import Storage, open_storage
from paropt.storage.engine import transaction
from paropt.storage.leases import Slots
from paropt.storage.schema import create_tables
from paropt.terminal.columns import Column, cells_of, fit, lines
from paropt.terminal.control import steer
from paropt.terminal.status import all_statuses
from paropt.terminal.study_list import listed_studies, study_lines
from paropt.training.evaluation.epochs import EpochReport

SPACE: dict[str, Any] = {
    "fixed": {"n_epochs": 4},
    "search": {
        "model": {"type": "categorical", "choices": ["gru4rec", "sasrec"]},
        "learning_rate": {"type": "float", "low": 0.01, "high": 0.3},
    },
}
LISTED = (
    "study", "model", "metric", "direction", "data", "state", "why", "counts", "budget", "floor",
    "below_floor", "unread",
)  # fmt: skip


@pytest.fixture
def storage(database_url: str) -> Iterator[Storage]:
    with open_storage(database_url) as opened:
        yield opened


@contextmanager
def study_of(storage: Storage, name: str, budget: int = 3, **options: Any) -> Iterator[Study]:
    options = {"pruner": {"name": "none"}, "heartbeat": 30.0} | options
    timeout = options.pop("timeout", None)
    space = options.pop("space", SPACE)
    definition = StudyDefinition(name, space, "mrr@20", [20], "/data", "abc", **options)
    study = Study.create(storage.url, definition, budget=budget, timeout=timeout)
    create_tables(storage.engine())
    try:
        yield study
    finally:
        study.close()


def trained(study: Study, *values: float) -> Any:
    trial = study.next_trial({"host": "rome"})
    assert trial is not None
    for epoch, value in enumerate(values, 1):
        told = {"epoch": epoch, "metrics": {"mrr@20": value}, "loss": 1.0, "seconds": 1.0}
        trial.report(EpochReport.from_json(told))
    return trial


def several(storage: Storage) -> None:
    """Studies in which everything occurs that counts: attempts, failures, luck, open trials."""
    with study_of(storage, "shop", budget=9) as study:
        trained(study, 0.4, 0.1, 0.1, 0.1).complete()  # one lucky epoch
        trained(study, 0.3, 0.3, 0.3, 0.2).complete()
        trained(study, 0.2).prune("too low")
        trained(study).out_of_memory("8 GiB asked of 4 GiB")
        trained(study).fail("error", "it broke")
        lost = trained(study, 0.1)
        assert study.requeue(lost.id, "its worker was lost")
        trained(study, 0.05)
        study.set_floor({"popularity": {"mrr@20": 0.0625}})
    with study_of(storage, "empty"):
        pass
    with study_of(storage, "theirs") as study, transaction(storage.engine()) as connection:
        study.set_state("pause", "lunch")
        trial_rows.insert_trial(connection, study._id, "COMPLETE", [], {}, {})  # a stranger


def test_the_list_says_what_each_study_says(storage: Storage) -> None:
    several(storage)
    listed, damaged = listed_studies(storage)
    whole, _ = all_statuses(storage)
    assert damaged == []
    assert [one["study"] for one in listed] == ["shop", "empty", "theirs"]
    for one, other in zip(listed, whole, strict=True):
        study = Study.load(storage.url, one["study"])
        single = study.summary()
        study.close()
        for key in LISTED:
            assert one[key] == other[key] == single[key], key
        for key in ("trial", "value"):
            assert (one["best"] or {}).get(key) == (single["best"] or {}).get(key)
        assert {**single, "workers": [], "activity": one["activity"]} == other
    assert listed[0]["best"] == {"trial": 1, "value": 0.3}
    assert listed[0]["counts"] == {
        "complete": 2, "pruned": 1, "failed": 2, "running": 1, "waiting": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stored", "unread"),
    [
        ('{"root": 0, "index": 0, "attempt": 1, "model": "gru4rec", "params": {}, "searched": {},'
         ' "seed": 1, "epochs": 4}', 0),
        ("{", 1),
        ("[]", 1),
        ('{"root":0}', 1),
    ],
)  # fmt: skip
def test_a_trial_that_another_program_wrote(storage: Storage, stored: str, unread: int) -> None:
    with study_of(storage, "shop") as study:
        trial = trained(study, 0.25)
        trial.complete()
    with transaction(storage.engine()) as connection:
        connection.execute(
            text("UPDATE trial_system_attributes SET value_json = :json WHERE key = :key"),
            {"json": stored, "key": trial_rows.META},
        )
    ((found,), damaged) = listed_studies(storage)
    assert (found["unread"], damaged) == (unread, [])
    assert (found["best"] is None) == bool(unread)


def test_statements_do_not_grow_with_studies(storage: Storage) -> None:
    def statements(read: Callable[[Storage], Any]) -> int:
        seen: list[str] = []

        def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            seen.append(statement)

        event.listen(storage.engine(), "before_cursor_execute", note)
        read(storage)
        event.remove(storage.engine(), "before_cursor_execute", note)
        return len(seen)

    reads = (listed_studies, all_statuses)
    for number in range(2):
        with study_of(storage, f"shop-{number}") as study:
            trained(study, 0.25).complete()
    before = [statements(read) for read in reads]
    for number in range(2, 8):
        with study_of(storage, f"shop-{number}") as study:
            trained(study, 0.25).complete()
    assert [statements(read) for read in reads] == before


def test_a_space_that_was_tried_is_done(storage: Storage) -> None:
    one = {
        "model": "markov",
        "fixed": {"n_epochs": 1},
        "search": {"steps": {"type": "int", "low": 1, "high": 2}},
    }
    with study_of(storage, "small", budget=9, space=one) as study:
        for value in (0.2, 0.3):
            trained(study, value).complete()
        with pytest.raises(StudyEnded) as ended:
            study.next_trial({"host": "rome"})
        assert ended.value.reason == "space"
        (found,) = listed_studies(storage)[0]
        assert found["activity"] == "done"
        told = steer("small", storage.url.render_as_string(False), "run")
        assert told.endswith(
            "every configuration of its space was tried; a larger one is another's"
        )


def test_parts_of_final_tests_are_shown_when_asked_for(storage: Storage) -> None:
    plan = FinalPlan("shop", 1, (Candidate("control", "gru4rec", {}, 2),), (1,))
    with (
        study_of(storage, "shop"),
        study_of(storage, "shop.final-1.valid", plan=plan.to_json()),
    ):
        both = ["shop", "shop.final-1.valid"]
        for read in (listed_studies, all_statuses):
            assert [one["study"] for one in read(storage, parts=True)[0]] == both
            assert [one["study"] for one in read(storage, parts=False)[0]] == ["shop"]


def test_what_goes_on(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def activity(name: str) -> str:
        (found,) = [one for one in listed_studies(storage)[0] if one["study"] == name]
        return str(found["activity"])

    slots = Slots(storage.engine())
    with study_of(storage, "shop", budget=1) as study:
        assert activity("shop") == "idle"
        other = slots.register("shop", device="cpu", slot=0, host="elsewhere")
        with transaction(storage.engine()) as connection:
            connection.execute(text("UPDATE paropt_slot SET machine = 'another'"))
        assert activity("shop") == "running"
        study.set_state("pause")
        assert activity("shop") == "paused"
        study.set_state("stop")
        assert activity("shop") == "stopped"
        study.set_state("run")
        silence = "UPDATE paropt_slot SET beaten_at = clock_timestamp() - interval '20 s'"
        with transaction(storage.engine()) as connection:
            connection.execute(text(silence))
        assert activity("shop") == "idle"  # it has missed a heartbeat
        slots.leave(other)
        trained(study, 0.25).complete()
        assert activity("shop") == "done"
        study.set_state("stop")
        assert activity("shop") == "done"
        told = steer("shop", storage.url.render_as_string(False), "run")
        assert told.splitlines()[0] == "nothing is left to do: shop: done, 1/1 trials (1 complete)"
        url = storage.describe()  # which nobody finds by himself, without its password
        again = f"paropt launch --study shop --storage {url} --trials N"
        assert told.splitlines()[1].startswith(again)
    with study_of(storage, "late", timeout=3600.0) as study:
        assert activity("late") == "idle"
        whole = storage.url.render_as_string(False)
        told = steer("late", whole, "run")
        line = f"paropt launch --study late --storage {url}"
        assert told == f"study 'late' may run; start slots with '{line}'"
        monkeypatch.setenv("PAROPT_STORAGE", whole)
        assert steer("late", whole, "run").endswith("with 'paropt launch --study late'")
        with study.transaction() as connection:
            trial_rows.set_study_attrs(connection, study._id, {trial_rows.DEADLINE: 1.0})
        assert activity("late") == "time is up"


def test_a_killed_slot_is_not_shown_as_training(
    storage: Storage, database_url: str, run_paropt: Callable[..., Any]
) -> None:
    register = (
        "import os, sys\n"
        "from paropt.storage.connect import open_storage\n"
        "from paropt.storage.leases import Slots\n"
        "with open_storage() as storage:\n"
        "    slots = Slots(storage.engine())\n"
        "    identity = slots.register('shop', device='cpu', slot=0)\n"
        "    state = {'phase': 'training', 'trial': 0, 'epoch': 1, 'epochs': 4}\n"
        "    slots.beat(identity, {**state, 'events_per_second': 5000.0})\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    with study_of(storage, "shop") as study:
        trained(study, 0.25)
        environment = {**os.environ, "PAROPT_STORAGE": database_url}
        killed = subprocess.run([sys.executable, "-c", register], env=environment, check=False)
        assert killed.returncode == -9
        done = run_paropt("status", "shop", env={"PAROPT_STORAGE": database_url})
        assert "killed" in done.out
        assert "training" not in done.out
        assert "5,000" not in done.out
        listed = run_paropt("status", env={"PAROPT_STORAGE": database_url})
        assert listed.out.splitlines()[1].split()[:2] == ["shop", "idle"]
        found = run_paropt("status", "--json", env={"PAROPT_STORAGE": database_url})
        (worker,) = json.loads(found.out)[0]["workers"]
        assert (worker["killed"], worker["gone"]) == (True, True)


# -- tables that fit ----------------------------------------------------------------------------


def status_of(name: str, **more: Any) -> dict[str, Any]:
    counts = {"complete": 90, "pruned": 10, "failed": 2, "running": 3, "waiting": 1}
    return {
        "study": name,
        "activity": "running",
        "model": "gru4rec/sasrec/hstu",
        "metric": "recall@20",
        "below_floor": [],
        "counts": counts,
        "budget": 200,
        "best": {"trial": 17, "value": 0.41234},
        "workers": [{"gone": False}],
        **more,
    }


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_lines_fit_and_nothing_of_value_is_cut(width: int) -> None:
    names = ["gru4rec_xe_shared-shop", "团购"]
    found = study_lines([status_of(name) for name in names], width=width)
    assert all(cells_of(line) <= width for line in found)
    for line, name in zip(found[1:], names, strict=True):
        assert line.startswith(name[:8])
        for shown in ("running", "100/200", "0.4123"):
            assert shown in line
    assert ("recall@20" in found[1]) == (width >= 60)
    assert ("waiting" in found[0]) == (width >= 200)


def test_names_are_shown_as_they_are() -> None:
    header, first, second, third = study_lines(
        [status_of("[bold]x[/y]"), status_of("a\x1b[2J\nb"), status_of("n" * 300)], width=80
    )
    assert header.startswith("study ")
    assert first.startswith("[bold]x[/y] ")
    assert second.startswith("a�[2J b ")
    assert third.startswith("nnnnnnnn")
    assert "…" in third
    assert cells_of(third) <= 80


def test_a_best_below_what_needs_no_training_is_told() -> None:
    below = status_of("shop", below_floor=["cooccurrence"])
    header, first, second = study_lines([below, status_of("other")], width=200)
    assert header.split()[3:7] == ["best", "no", "better", "than"]
    assert first.split()[3:5] == ["0.4123", "co-occurrence"]
    assert "co-occurrence" not in second
    assert "no better than" not in study_lines([status_of("other")], width=200)[0]


def test_columns_that_say_nothing_go_first() -> None:
    columns = (Column("name"), Column("empty", leaves=1), Column("value", leaves=2, right=True))
    rows = [["a", "-", "1"], ["b", "", "22"]]
    assert lines(fit(columns, rows, 80)) == ["name  value", "a         1", "b        22"]
    assert lines(fit(columns, rows, 8)) == ["name", "a", "b"]


def test_of_many_studies_the_latest_are_shown() -> None:
    found = study_lines([status_of(f"shop-{number}") for number in range(9)], room=2, width=80)
    assert found[1] == "… 7 earlier studies"
    assert [line.split()[0] for line in found[2:]] == ["shop-7", "shop-8"]


def test_where_less_is_better_the_least_is_best(storage: Storage) -> None:
    with study_of(storage, "shop", direction="minimize") as study:
        trained(study, 0.1, 0.9, 0.9, 0.9).complete()  # one lucky epoch
        trained(study, 0.3, 0.2, 0.3, 0.3).complete()
        best = study.summary()["best"]
    (found,) = listed_studies(storage)[0]
    assert (
        found["best"]
        == {"trial": best["trial"], "value": best["value"]}
        == {"trial": 1, "value": 0.2}
    )
