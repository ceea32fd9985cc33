"""Budgets, deadlines, pauses and many processes at once, against a real database."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paropt.errors import StorageUnreachable, StudyError
from paropt.search.history.budgets import Budgets
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.state import StudyEnded
from paropt.search.study.study import Study
from paropt.search.study.trial import Trial
from paropt.storage import trial_rows
from paropt.storage.engine import initialise, open_engine, open_rdb, parse_url, transaction
from paropt.training.evaluation.epochs import EpochReport

pytestmark = pytest.mark.postgres

SMALL: dict[str, Any] = {
    "model": "gru4rec",
    "search": {
        "layers": {"type": "int", "low": 32, "high": 96, "step": 32},
        "momentum": {"type": "categorical", "choices": [0.0, 0.5]},
    },
}  # 6 configurations


@pytest.fixture
def create(module_database_url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    opened = []

    def create(space: Any = SMALL, **options: Any) -> Study:
        named = {"budget": "trials", "timeout": "timeout", "device": "device_seconds"}
        named["stale"] = "stale"
        kept = {name: options.pop(key) for key, name in named.items() if key in options}
        definition = StudyDefinition(
            request.node.name, space, "mrr@20", [20], "/data", "abc", **options
        )
        opened.append(Study.create(module_database_url, definition, Budgets(**kept)))
        return opened[-1]

    yield create
    for study in opened:
        study.close()


def finish(trial: Trial | None, value: float = 0.5) -> None:
    assert trial is not None
    trial.report(EpochReport.from_json({"epoch": 1, "metrics": {"mrr@20": value}}))
    trial.complete()


def ended(study: Study) -> StudyEnded:
    with pytest.raises(StudyEnded) as caught:
        study.next_trial({})
    return caught.value


Create = Callable[..., Study]


def test_running_trials_are_counted_before_they_end(create: Create) -> None:
    study = create(budget=2)
    first, second = study.next_trial({}), study.next_trial({})
    assert study.next_trial({}) is None  # covered, but both may still fail
    finish(first)
    assert study.next_trial({}) is None
    assert second is not None
    second.fail("error", "boom")
    finish(study.next_trial({}))
    assert ended(study).reason == "budget"
    assert study.counts() == {"complete": 2, "pruned": 0, "failed": 1, "running": 0, "waiting": 0}


def test_a_used_up_space_says_so(create: Create) -> None:
    study = create(budget=100)
    trials = [study.next_trial({}) for _ in range(6)]
    assert len({json.dumps(trial.params) for trial in trials if trial}) == 6
    assert study.next_trial({}) is None
    for trial in trials:
        finish(trial)
    end = ended(study)
    assert end.reason == "space"
    assert "has tried all 6 configurations" in str(end)


def test_resuming_raises_the_budget(create: Create) -> None:
    finish(create(budget=1).next_trial({}))
    assert ended(create()).reason == "budget"
    again = create(budget=2)
    finish(again.next_trial({}))
    assert ended(again).reason == "budget"
    assert again.summary()["budget"] == 2


def test_deadlines_stop_and_a_resume_without_one_goes_on(create: Create) -> None:
    study = create(timeout=0.0)
    assert ended(study).reason == "timeout"
    assert study.state() == "stop"
    again = create()
    assert again.state() == "run"
    finish(again.next_trial({}))
    assert create(timeout=3600).state() == "run"
    assert create().state() == "run"


def test_a_deadline_is_that_of_its_launch(create: Create) -> None:
    """While its trials run, another launch without one joins them; then it is over."""
    study = create(LARGE, timeout=3600)
    trial = study.next_trial({})
    assert create(LARGE)._state.attributes().get(trial_rows.DEADLINE) is not None
    finish(trial)
    create(LARGE, timeout=3600)
    assert create(LARGE)._state.attributes().get(trial_rows.DEADLINE) is not None, "about to begin"
    finish(study.next_trial({}))
    assert create(LARGE)._state.attributes().get(trial_rows.DEADLINE) is None


def test_what_waits_waits_for_a_larger_budget(create: Create) -> None:
    study = create(LARGE, budget=3)
    trials = [study.next_trial({}) for _ in range(3)]
    for trial in trials[:2]:
        finish(trial)
    assert trials[2] is not None
    trials[2].hand_back("its worker left")
    assert ended(create(LARGE, budget=2)).reason == "budget"
    again = create(LARGE, budget=3).next_trial({})
    assert again is not None and again.number == trials[2].number


LARGE: dict[str, Any] = {
    "model": "gru4rec",
    "search": {"momentum": {"type": "float", "low": 0.0, "high": 1.0}},
}


def test_a_study_ends_when_nothing_is_better_for_long(create: Create) -> None:
    """Trials at work count, for one of them may be better; those that fail make room."""
    study = create(LARGE, stale=2)
    finish(study.next_trial({}), 0.5)
    first, second = study.next_trial({}), study.next_trial({})
    assert study.next_trial({}) is None
    finish(first, 0.6)  # better: the count begins anew
    third = study.next_trial({})
    assert study.next_trial({}) is None
    assert second is not None and third is not None
    second.fail("error", "boom")
    finish(study.next_trial({}), 0.6)  # as good is nothing better
    finish(third, 0.1)
    end = ended(create(LARGE))
    assert (end.reason, str(end)) == (
        "stale", f"study {study.name!r} has found nothing better in its last 2 trials",
    )  # fmt: skip
    told = study.summary()
    assert (told["stale"], told["over"]) == ({"budget": 2, "since_better": 2}, "stale")
    more = create(LARGE, stale=3)
    finish(more.next_trial({}), 0.2)
    assert ended(more).reason == "stale"
    assert more.counts()["complete"] == 5


def test_device_hours_count_over_all_slots_and_attempts(create: Create) -> None:
    study, elsewhere = create(LARGE, device=10.0), create(LARGE)
    one, other = study.next_trial({}), elsewhere.next_trial({})
    assert one is not None and other is not None
    one.report(EpochReport(1, {"mrr@20": 0.5}, seconds=4.0))
    assert elsewhere.state() == "run"
    (lost,) = [running for running in study.running() if running.number == one.number]
    assert study.requeue(lost.id, "it was lost", lost.token)
    again = study.next_trial({})  # from its checkpoint: the first epoch is told again
    assert again is not None and again.root == one.number
    again.report(EpochReport(1, {"mrr@20": 0.5}, seconds=4.0))
    again.report(EpochReport(2, {"mrr@20": 0.5}, seconds=3.0))
    assert study.summary()["device_seconds"] == {"budget": 10.0, "spent": 7.0}
    other.report(EpochReport(1, {"mrr@20": 0.5}, seconds=2.5))
    assert (elsewhere.state(), elsewhere.counts_seconds) == ("run", True)
    other.report(EpochReport(2, {"mrr@20": 0.5}, seconds=0.5))
    assert (study.state(), elsewhere.state()) == ("stop", "stop")
    other.hand_back("the time is over")
    end = ended(study)
    assert (end.reason, study.summary()["over"]) == ("spent", "spent")
    assert "--device-hours" in str(end)
    more = create(LARGE, device=11.0)
    assert more.summary()["over"] == ""
    assert more.state() == "run"
    final = more.next_trial({})
    assert final is not None and final.root == other.number
    # this attempt was begun from zero elsewhere: what it had spent before counts on
    (lost,) = [running for running in more.running() if running.number == final.number]
    more.requeue(lost.id, "it was lost", lost.token)
    fresh = more.next_trial({})
    assert fresh is not None
    fresh.report(EpochReport(1, {"mrr@20": 0.5}, seconds=2.0))
    assert more.summary()["device_seconds"]["spent"] == 7.0 + 3.0 + 2.0


def test_device_hours_count_what_a_trial_trains_again(create: Create) -> None:
    """Handed back after 7 s of three epochs; the next attempt has another checkpoint, or none."""
    study = create(LARGE, device=100.0)
    trial = study.next_trial({})
    assert trial is not None
    for epoch, seconds in enumerate((4.0, 2.0, 1.0), 1):
        trial.report(EpochReport(epoch, {"mrr@20": 0.5}, seconds=seconds))
    trial.hand_back("its worker left")
    trial = study.next_trial({})
    assert trial is not None
    trial.report(EpochReport(1, {"mrr@20": 0.5}, seconds=4.0))  # told again by a checkpoint
    trial.report(EpochReport(2, {"mrr@20": 0.5}, seconds=8.0))
    assert study.summary()["device_seconds"]["spent"] == 7.0 + 8.0
    (lost,) = study.running()
    study.requeue(lost.id, "it was lost", lost.token)
    trial = study.next_trial({})
    assert trial is not None
    trial.report(EpochReport(1, {"mrr@20": 0.5}, seconds=16.0))
    assert study.summary()["device_seconds"]["spent"] == 7.0 + 8.0 + 16.0
    trial.fail("error", "no")
    assert study.retry_failed() == 1
    trial = study.next_trial({})
    assert trial is not None
    trial.report(EpochReport(1, {"mrr@20": 0.5}, seconds=32.0))
    assert study.summary()["device_seconds"]["spent"] == 7.0 + 8.0 + 16.0 + 32.0


def test_a_pause_ends_with_the_time_that_there_was(create: Create) -> None:
    study = create(timeout=0.0)
    study.set_state("pause")
    assert ended(study).reason == "timeout"


def test_pause_stop_and_run_reach_every_process(create: Create) -> None:
    study, elsewhere = create(), create()
    study.set_state("pause")
    assert elsewhere.state() == "pause"
    assert elsewhere.next_trial({}) is None
    study.set_state("stop")
    assert ended(elsewhere).reason == "stopped"
    assert create().state() == "run"  # launching again resumes
    assert elsewhere.next_trial({}) is not None


def test_a_study_of_something_else_is_refused(create: Create, module_database_url: str) -> None:
    study = create()
    other = StudyDefinition(study.name, SMALL, "mrr@20", [20], "/data", "xyz")
    with pytest.raises(StudyError, match="data fingerprint 'abc', not 'xyz'"):
        Study.create(module_database_url, other)
    with pytest.raises(StudyError, match="there is no study 'nothing'; 'paropt status' lists them"):
        Study.load(module_database_url, "nothing")


def test_what_cannot_be_sampled_leaves_nothing_behind(database_url: str) -> None:
    space = {"model": "gru4rec", "search": {"x": {"type": "float", "low": 0, "high": 1}}}
    definition = StudyDefinition("s", space, "mrr@20", [20], "/d", "a", sampler={"name": "grid"})
    with pytest.raises(StudyError, match="needs a step"):
        Study.create(database_url, definition)
    assert Study.names(database_url) == []


def test_optunas_own_studies_are_left_alone(create: Create, module_database_url: str) -> None:
    import optuna

    ours = create()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_rdb(module_database_url)
    theirs = optuna.create_study(study_name="theirs", storage=storage)
    assert "theirs" not in Study.names(module_database_url)
    definition = StudyDefinition("theirs", SMALL, "mrr@20", [20], "/data", "abc")
    with pytest.raises(StudyError, match="was not made by paropt"):
        Study.create(module_database_url, definition)
    # and what others put into ours is not counted, run or stumbled over
    foreign = optuna.load_study(study_name=ours.name, storage=storage)
    foreign.enqueue_trial({"layers": 64})
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    trial = ours.next_trial({})
    assert trial is not None
    assert trial.number == 2
    assert ours.counts()["running"] == 1
    assert ours.best() == []
    assert len(theirs.trials) == 0
    storage._backend.engine.dispose()


def test_floor_note_and_importances(create: Create) -> None:
    layers = {"type": "int", "low": 32, "high": 320, "step": 32}
    study = create({"model": "gru4rec", "search": {**SMALL["search"], "layers": layers}})
    assert study.importances() == []
    for trial in [study.next_trial({}) for _ in range(20)]:
        assert trial is not None
        finish(trial, 0.1 * trial.params["layers"] + 0.01 * trial.params["momentum"])
    (found,) = study.importances()
    assert (found.model, found.trials, next(iter(found.shares))) == ("gru4rec", 20, "layers")
    assert sum(found.shares.values()) == pytest.approx(1) and found.untold == []
    study.set_floor({"popularity": {"mrr@20": 0.1}})
    study.set_note("# shop")
    summary = study.summary()
    assert summary["floor"] == {"popularity": {"mrr@20": 0.1}}
    assert summary["best"]["params"]["layers"] == 320
    assert set(summary) >= {
        "study", "model", "metric", "fingerprint", "counts", "budget", "best", "floor",
    }  # fmt: skip
    json.dumps(summary, allow_nan=False)


# -- many processes -------------------------------------------------------------------------------

WORKER = textwrap.dedent(
    """
    import json, random, sys, time
    from paropt.search.study.definition import StudyDefinition
    from paropt.search.study.state import StudyEnded
    from paropt.search.study.study import Study
    from paropt.training.evaluation.epochs import EpochReport
    url, seed, budget, space = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    rng = random.Random(seed)
    study = Study.create(
        url, StudyDefinition("race", json.loads(space), "mrr@20", [20], "/d", "abc"), budget=budget
    )
    print("ready", flush=True)
    sys.stdin.readline()
    done = 0
    while True:
        try:
            trial = study.next_trial({"slot": str(seed)})
        except StudyEnded as end:
            reason = end.reason
            break
        if trial is None:
            time.sleep(0.01)
            continue
        done += 1
        fate = rng.random()
        if fate < 0.1:
            trial.fail("error", rng.choice("abcdefghijklm") * 3)
            continue
        if fate < 0.2:
            study.requeue(trial.id, "lost")
            continue
        if trial.report(EpochReport.from_json({"epoch": 1, "metrics": {"mrr@20": rng.random()}})):
            trial.prune()
        elif fate < 0.3:
            trial.hand_back("because")
        else:
            trial.complete()
    print(reason, done)
    """
)


def race(url: str, processes: int, budget: int, space: Any) -> list[list[str]]:
    """What every worker said at its end; they begin to ask together."""
    arguments = [
        [sys.executable, "-c", WORKER, url, str(n), str(budget), json.dumps(space)]
        for n in range(processes)
    ]
    workers = [
        subprocess.Popen(
            a, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for a in arguments
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline() != "ready\n":
                raise AssertionError(worker.communicate()[1])
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        said = []
        for worker in workers:
            out, err = worker.communicate(timeout=120)
            assert worker.returncode == 0, err
            said.append(out.split())
        return said
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def test_many_processes_on_an_empty_database_keep_the_budget_exactly(database_url: str) -> None:
    wide = {"model": "gru4rec", "search": {**SMALL["search"]}}
    wide["search"]["learning_rate"] = {"type": "float", "low": 0.01, "high": 0.3}
    said = race(database_url, 8, 30, wide)
    assert {reason for reason, _ in said} == {"budget"}
    study = Study.load(database_url, "race")
    found = study.counts()
    assert found["complete"] + found["pruned"] == 30
    assert found["running"] == found["waiting"] == 0
    firsts = [trial for trial in study.trials() if trial["attempt"] == 1]
    assert len({json.dumps(trial["params"], sort_keys=True) for trial in firsts}) == len(firsts)
    assert [trial["trial"] for trial in study.trials()] == list(range(len(study.trials())))
    study.close()


# -- storage --------------------------------------------------------------------------------------


def test_nobody_home() -> None:
    url = "postgresql://me:s3cret@127.0.0.1:1/x"
    with pytest.raises(StorageUnreachable) as caught:
        initialise(url)
    assert str(caught.value).startswith("no answer from PostgreSQL at 127.0.0.1:1: ")
    with pytest.raises(StorageUnreachable):
        Study.names(url)


def test_passwords_are_in_no_error(postgres_url: str) -> None:
    right = parse_url(postgres_url)
    for wrong in (right.set(password="s3cret{x}"), right.set(database="none", password="s3cret")):
        with pytest.raises(StorageUnreachable) as caught:
            initialise(wrong)
        assert "s3cret" not in str(caught.value)
        assert f"127.0.0.1:{right.port}" in str(caught.value)
    for bad in ("mysql://me:s3cret@x/y", "s3cret", "postgresql://me:s3cret@x:port/y"):
        with pytest.raises(StudyError) as refused:
            initialise(bad)
        assert "s3cret" not in str(refused.value)


def test_tables_of_another_version_are_refused(database_url: str) -> None:
    from sqlalchemy import text

    initialise(database_url)
    engine = open_engine(database_url)
    with transaction(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v9.0.0'"))
    engine.dispose()
    with pytest.raises(StudyError, match="made by another version of Optuna"):
        initialise(database_url)


WIDE: dict[str, Any] = {
    "model": "gru4rec",
    "search": {"momentum": {"type": "float", "low": 0.0, "high": 0.9}},
}


def test_two_workers_that_draw_the_same_at_once_get_different_trials(
    create: Create, module_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = create(WIDE, sampler={"name": "tpe", "startup": 3}, seed=7)
    for value in (0.1, 0.3, 0.2):
        finish(study.next_trial({}), value)
    other = Study.load(module_database_url, study.name)
    theirs: list[Trial] = []
    propose = study.sampler.propose

    def while_another_asks(*given: Any) -> Any:
        proposal = propose(*given)
        if not theirs:
            asked = other.next_trial({})
            assert asked is not None
            theirs.append(asked)
            # the other one was as quick as we, and drew from the same history
            assert proposal is not None
            assert proposal.config is not None
            assert proposal.config["momentum"] == asked.params["momentum"]
        return proposal

    monkeypatch.setattr(study.sampler, "propose", while_another_asks)
    ours = study.next_trial({})
    other.close()
    assert ours is not None
    assert ours.params["momentum"] != theirs[0].params["momentum"]
    assert [ours.number, theirs[0].number] == [4, 3]
    assert ours.seed != theirs[0].seed


def test_a_long_study_thinks_while_a_trial_runs(
    create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = create(WIDE, sampler={"name": "tpe", "startup": 3}, seed=7)
    for value in (0.1, 0.3, 0.2):
        finish(study.next_trial({}), value)
    proposals = []
    propose = study.sampler.propose

    def noted(*given: Any) -> Any:
        proposals.append(propose(*given))
        return proposals[-1]

    monkeypatch.setattr(study.sampler, "propose", noted)
    study.think_ahead()
    assert proposals == []  # too short a study: the running trial would tell much
    monkeypatch.setattr("paropt.search.study.trial_queue.AHEAD", 3)
    study.think_ahead()
    assert len(proposals) == 1
    ready = study.next_trial({})
    assert len(proposals) == 1
    assert ready is not None
    assert ready.params["momentum"] == proposals[0].config["momentum"]
    assert study.next_trial({}) is not None  # what was thought is used once
    assert len(proposals) == 2
