"""Trials in a real database: values, fencing, second attempts, failures, and lost answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import Any

import pytest
from sqlalchemy import text
from told import LONGER, OTHER, OWNER, SPACE, Open, Stored, epoch, take, told

from paropt.errors import StorageUnreachable, StudyError
from paropt.search.study import study as study_module
from paropt.search.study.overview import overview
from paropt.search.study.state import StudyEnded
from paropt.search.study.study import MAX_ATTEMPTS, Study
from paropt.search.study.trial import Trial, TrialLost
from paropt.storage.engine import open_rdb
from paropt.training.evaluation.epochs import EpochReport

pytestmark = pytest.mark.postgres


def test_a_trial_is_worth_its_best_epoch(study_of: Open, stored: Stored) -> None:
    study = study_of()
    trial = take(study)
    assert trial.epochs == 4
    assert trial.params["loss"] == "bpr-max"
    for number, mrr in enumerate((0.2, 0.31, 0.31, 0.1 + 0.2), 1):
        assert (
            trial.report(EpochReport.from_json(epoch(number, mrr, extra={"auc": float("nan")})))
            is False
        )
    trial.complete()
    (best,) = study.best()
    assert (best["value"], best["epoch"], best["epochs"]) == (0.31, 2, 4)
    assert best["metrics"] == {"mrr@20": 0.31, "recall@20": 0.31 + 0.1}
    assert best["curve"] == [0.2, 0.31, 0.31, 0.30000000000000004]
    assert best["owner"] == OWNER

    found = stored(trial)
    assert found.state.name == "COMPLETE"
    assert found.value == 0.31
    assert found.intermediate_values == {1: 0.2, 2: 0.31, 3: 0.31, 4: 0.30000000000000004}
    assert found.params == {key: trial.params[key] for key in SPACE["search"]}
    assert found.user_attrs["recall@20"] == 0.31 + 0.1
    assert found.user_attrs["epoch"] == 2
    assert found.user_attrs["seconds"] == 8.0
    # the server lives in Tokyo, Optuna compares naive UTC
    assert abs(found.datetime_complete.replace(tzinfo=UTC).timestamp() - time.time()) < 120


def test_one_lucky_epoch_makes_no_trial_the_best(study_of: Open, stored: Stored) -> None:
    """By the mean of three: .30 of (.30, .30, .30) before .2967 of (.35, .27, .27)."""
    study = study_of()
    steady, lucky, cut = take(study), take(study), take(study)
    for number, (a, b) in enumerate(((0.1, 0.27), (0.3, 0.35), (0.3, 0.1), (0.3, 0.27)), 1):
        steady.report(EpochReport.from_json(epoch(number, a)))
        lucky.report(EpochReport.from_json(epoch(number, b)))
    for number, mrr in enumerate((0.29, 0.305), 1):  # (.29 + .305) / 2 = .2975
        cut.report(EpochReport.from_json(epoch(number, mrr)))
    lucky.complete()
    steady.complete()
    cut.prune()
    ranked = [steady.number, cut.number, lucky.number]
    assert [trial["trial"] for trial in study.best(3)] == ranked
    best = study.summary()["best"]
    assert (best["trial"], best["value"], best["epoch"]) == (steady.number, 0.3, 2)
    assert [stored(trial).value for trial in (steady, lucky, cut)] == [0.3, 0.35, 0.305]
    study.refresh()
    seen = study.sampler.optuna_view(study.history).study().get_trials()
    by_number = {trial.number: trial.value for trial in seen}
    expected = {steady.number: 0.3, lucky.number: (0.35 + 0.27 + 0.27) / 3, cut.number: 0.2975}
    assert by_number == pytest.approx(expected)


def test_the_dashboard_shows_what_a_trial_reached_and_where_it_began(
    study_of: Open, stored: Stored
) -> None:
    study = study_of()
    trial = take(study)
    trial.report(EpochReport.from_json(epoch(1, 0.2, peak_memory=3 << 20)))
    running = stored(trial).user_attrs
    assert (running["epochs"], running["recall@20"]) == (1, 0.2 + 0.1)
    assert (running["seconds_per_epoch"], running["events_per_second"]) == (2.0, 100.0)
    assert "resumed_from" not in running and "why" not in running
    trial.report(
        EpochReport.from_json(
            epoch(2, 0.3, peak_memory=5 << 20, seconds=4.0, events_per_second=50.0)
        )
    )
    assert study.requeue(trial.id, "its host fell silent")
    lost = stored(trial).user_attrs
    assert (lost["why"], lost["epochs"]) == ("lost: its host fell silent", 2)

    second = take(study)
    second.resumed = "epoch 1"
    second.report(
        EpochReport.from_json(
            epoch(2, 0.25, peak_memory=4 << 20, seconds=6.0, events_per_second=60.0)
        )
    )
    second.diverged(3, "the loss became nan")
    found = stored(second).user_attrs
    assert found["why"] == "diverged: epoch 3: the loss became nan"
    assert (found["resumed_from"], found["attempt"], found["model"]) == ("epoch 1", 2, "gru4rec")
    assert (found["seconds"], found["seconds_per_epoch"]) == (8.0, 4.0)
    assert (found["events_per_second"], found["peak_memory_mib"]) == (80.0, 4.0)
    assert found["host"] == OWNER["host"]


def test_pruned_trials_keep_their_best_epochs_value(study_of: Open, stored: Stored) -> None:
    study = study_of(pruner={"name": "median", "startup": 2, "warmup": 1}, budget=4)
    for mrr in (0.3, 0.4):
        good = take(study)
        assert not good.report(EpochReport.from_json(epoch(1, mrr)))
        good.complete()
    bad = take(study)
    assert bad.report(EpochReport.from_json(epoch(1, 0.2))) is True
    bad.prune()
    assert stored(bad).value == 0.2
    found = study.trials()[bad.number]
    assert found["message"] == "0.2000 after epoch 1 is below the median 0.3500 of 2 trials"
    assert study.counts() == {"complete": 2, "pruned": 1, "failed": 0, "running": 0, "waiting": 0}
    # three of four epochs were not run, of the one that was pruned, and of the two complete ones
    assert study.summary()["epochs"] == {"run": 3, "saved": 3, "rested": 2, "unneeded": 6}


RESTS = {"name": "none", "still": 20}


def test_a_trial_with_nothing_more_to_gain_ends_complete(study_of: Open, stored: Stored) -> None:
    study = study_of(LONGER, pruner=RESTS, budget=4)
    trial = take(study)
    curve = [0.2, 0.4, 0.3, 0.25, 0.1, 0.24, 0.1, 0.2]
    assert told(trial, curve) == [False] * 7 + [True]
    # what its training had begun before it heard of that is not seen
    assert trial.report(EpochReport.from_json(epoch(9, 0.9))) is True
    trial.complete()
    assert list(stored(trial).intermediate_values.values()) == curve
    assert (stored(trial).state.name, stored(trial).value) == ("COMPLETE", 0.4)
    assert study.trials()[0]["message"] == "none of the last 4 epochs is among the best 3"
    assert study.summary()["epochs"] == {"run": 8, "saved": 0, "rested": 1, "unneeded": 1}


def test_an_attempt_after_such_an_epoch_has_nothing_to_do(study_of: Open) -> None:
    study = study_of(LONGER, pruner=RESTS, budget=4)
    trial = take(study)
    assert told(trial, [0.2, 0.4, 0.3, 0.1, 0.1, 0.1, 0.1]) == [False] * 6 + [True]
    assert study.requeue(trial.id, "killed before it could say so")
    second = take(study)
    assert second.root == trial.root
    assert second.goes_on(6)  # from an earlier checkpoint it trains the seventh epoch again
    assert not second.goes_on(7)
    second.complete()
    assert study.trials()[-1]["message"] == "none of the last 4 epochs is among the best 3"


def test_numbers_that_cannot_be_compared_are_refused(study_of: Open) -> None:
    trial = take(study_of())
    for metrics in ({"mrr@20": float("nan")}, {"recall@20": 0.5}):
        with pytest.raises(ValueError, match=r"epoch 1 reports mrr@20 = "):
            trial.report(EpochReport.from_json({"epoch": 1, "metrics": metrics}))
    with pytest.raises(StudyError, match="reported no epoch"):
        trial.complete()


# -- fencing --------------------------------------------------------------------------------------

WRITES: dict[str, Callable[[Trial], Any]] = {
    "report": lambda trial: trial.report(EpochReport.from_json(epoch(2, 0.9))),
    "complete": lambda trial: trial.complete(),
    "prune": lambda trial: trial.prune("because"),
    "fail": lambda trial: trial.fail("error", "because"),
    "oom": lambda trial: trial.out_of_memory("because"),
    "diverged": lambda trial: trial.diverged(2, "because"),
    "hand back": lambda trial: trial.hand_back("because"),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_lost_owner_writes_nothing(study_of: Open, stored: Stored, write: str) -> None:
    study, elsewhere = study_of(), study_of()
    trial = take(study)
    trial.report(EpochReport.from_json(epoch(1, 0.25)))
    assert elsewhere.requeue(trial.id, "no heartbeat for 60 s")
    before = [stored(trial), study.trials()]
    with pytest.raises(TrialLost, match=r"trial 0 is no longer .* fail \(no heartbeat for 60 s\)"):
        WRITES[write](trial)
    successor = take(elsewhere, OTHER)
    with pytest.raises(TrialLost):
        WRITES[write](trial)
    study.refresh()
    assert stored(trial) == before[0]
    assert successor.report(EpochReport.from_json(epoch(1, 0.25))) is False
    successor.complete()
    assert stored(successor).value == 0.25


@pytest.mark.parametrize("write", WRITES)
def test_who_handed_a_trial_back_writes_nothing_to_its_successors(
    study_of: Open, stored: Stored, write: str
) -> None:
    """The number stays the same here, so only the token tells the owners apart."""
    study, elsewhere = study_of(), study_of()
    trial = take(study)
    trial.report(EpochReport.from_json(epoch(1, 0.25)))
    trial.hand_back("SIGTERM")
    successor = take(elsewhere, OTHER)
    assert (successor.id, successor.number, successor.attempt) == (trial.id, trial.number, 1)
    assert successor.best == (1, 0.25)
    with pytest.raises(TrialLost, match="no longer this worker's: it is running"):
        WRITES[write](trial)
    assert elsewhere.running()[0].owner == OTHER
    assert stored(trial).intermediate_values == {1: 0.25}
    successor.report(EpochReport.from_json(epoch(2, 0.2)))
    successor.complete()
    assert stored(trial).value == 0.25


def test_somebody_who_ends_a_trial_in_the_dashboard_fences_too(study_of: Open) -> None:
    from optuna.trial import TrialState

    study = study_of()
    trial = take(study)
    open_rdb(study.url).set_trial_state_values(trial.id, TrialState.FAIL)
    with pytest.raises(TrialLost, match="it is fail"):
        trial.report(EpochReport.from_json(epoch(1, 0.5)))


def test_a_second_attempt_repeats_the_first(study_of: Open, stored: Stored) -> None:
    study = study_of(budget=1)
    first = take(study)
    first.report(EpochReport.from_json(epoch(1, 0.2)))
    first.report(EpochReport.from_json(epoch(2, 0.3)))
    assert study.requeue(first.id, "lost")
    assert not study.requeue(first.id, "lost")  # two reapers, one clone
    second = take(study, OTHER)
    assert (second.params, second.seed, second.root) == (first.params, first.seed, first.root)
    assert (second.number, second.attempt) == (first.number + 1, 2)
    assert second.best == (2, 0.3)
    # from zero: what the first attempt reported later is forgotten
    second.report(EpochReport.from_json(epoch(1, 0.21)))
    assert second.best == (1, 0.21)
    assert stored(second).intermediate_values == {1: 0.21}
    second.complete()
    assert study.counts() == {"complete": 1, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    with pytest.raises(StudyEnded, match="has its trial"):
        study.next_trial(OWNER)
    assert stored(second).params == stored(first).params


def test_an_ownership_that_changed_is_not_requeued(study_of: Open) -> None:
    study = study_of()
    trial = take(study)
    (seen,) = study.running()
    trial.hand_back("drained")
    assert not study.requeue(trial.id, "lost", seen.token)
    take(study, OTHER)
    assert not study.requeue(trial.id, "lost", seen.token)
    assert study.requeue(trial.id, "lost", study.running()[0].token)


def test_attempts_come_to_an_end(study_of: Open) -> None:
    study = study_of()
    first = take(study)
    trial = first
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert (trial.attempt, trial.root) == (attempt, first.number)
        assert study.requeue(trial.id, "killed again")
        found = study.counts()
        last = attempt == MAX_ATTEMPTS
        assert (found["failed"], found["waiting"]) == ((1, 0) if last else (0, 1))
        if not last:
            trial = take(study)
    other = take(study)
    assert other.params != first.params


# -- answers that are lost with the connection ---------------------------------------------------


@contextmanager
def lost_answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The next transaction is committed, but its caller hears of a broken connection."""
    with monkeypatch.context() as patch:
        whole = study_module.transaction

        @contextmanager
        def broken(engine: Any) -> Iterator[Any]:
            with whole(engine) as connection:
                yield connection
            raise StorageUnreachable("no answer from PostgreSQL at here:5432: gone")

        patch.setattr(study_module, "transaction", broken)
        with pytest.raises(StorageUnreachable):
            yield


def test_a_trial_whose_asking_got_no_answer_is_given_out_again(
    study_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(budget=2)
    with lost_answer(monkeypatch):
        study.next_trial(OWNER)
    first, second = take(study), take(study)
    assert (first.number, second.number) == (0, 1)
    assert len(study.trials()) == 2


@pytest.mark.parametrize("write", WRITES)
def test_every_call_may_be_repeated(
    study_of: Open, stored: Stored, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    study = study_of()
    trial = take(study)
    trial.report(EpochReport.from_json(epoch(1, 0.25)))
    with lost_answer(monkeypatch):
        WRITES[write](trial)
    before = stored(trial)
    WRITES[write](trial)
    assert stored(trial) == before


@pytest.mark.parametrize("end", ["complete", "prune", "diverged"])
def test_what_was_reported_to_nobody_is_written_with_the_end(
    study_of: Open, stored: Stored, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """The database stayed away until all reports had given up, and was back for the last call."""
    trial = take(study_of())
    assert not trial.report(EpochReport.from_json(epoch(1, 0.1)))
    with monkeypatch.context() as away:

        @contextmanager
        def unreachable(engine: Any) -> Iterator[None]:
            raise StorageUnreachable("no answer")
            yield

        away.setattr(study_module, "transaction", unreachable)
        for number, value in ((2, 0.3), (3, 0.2)):
            with pytest.raises(StorageUnreachable):
                trial.report(EpochReport.from_json(epoch(number, value)))
    if end == "diverged":
        trial.diverged(4, "the loss became nan")
    else:
        getattr(trial, end)()
    assert stored(trial).intermediate_values == {1: 0.1, 2: 0.3, 3: 0.2}
    assert stored(trial).value == (None if end == "diverged" else 0.3)


def test_dropped_connections_cost_nothing(study_of: Open) -> None:
    study = study_of()
    trial = take(study)
    killer = study_of()
    with killer.transaction() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    trial.report(EpochReport.from_json(epoch(1, 0.3)))
    trial.complete()
    assert study.best()[0]["value"] == 0.3


# -- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["oom", "diverged"])
def test_what_depends_on_parameters_is_told_to_the_sampler(
    study_of: Open, stored: Stored, kind: str
) -> None:
    study = study_of(budget=1)
    trial = take(study)
    trial.report(EpochReport.from_json(epoch(1, 0.2)))
    if kind == "oom":
        trial.out_of_memory("CUDA out of memory")
    else:
        trial.diverged(2, "the loss is nan")
    found = stored(trial)
    assert found.state.name == "PRUNED"
    assert found.value is None
    assert found.constraints == {kind: 1.0}
    assert study.best() == []
    assert study.counts()["failed"] == 1
    take(study)  # not charged to the budget of one


def test_errors_that_are_alike_pause_the_study(study_of: Open) -> None:
    study = study_of(budget=50)
    for number in range(4):
        take(study).fail("error", f"shape {number} is wrong")
    good = take(study)
    good.report(EpochReport.from_json(epoch(1, 0.1)))
    good.complete()
    for number in range(5):
        take(study).fail("error", f"shape {number} is wrong")
    with pytest.raises(StudyEnded) as ended:
        study.next_trial(OWNER)
    assert ended.value.reason == "failures"
    assert "the last 5 trials failed alike, trial 9 with: shape 4 is wrong" in str(ended.value)
    assert study.state() == "pause"
    assert "shape 4 is wrong" in study.summary()["why"]
    with pytest.raises(StudyEnded, match="shape 4 is wrong"):  # every other worker hears it too
        study_of_again(study).next_trial(OWNER)
    study.set_state("run")
    assert take(study).number == 10


def study_of_again(study: Study) -> Study:
    return Study.load(study.url, study.name)


def test_single_failures_do_not_pause(study_of: Open) -> None:
    study = study_of(budget=30)
    for number in range(12):
        take(study).fail("error", f"error of kind {'abcdefghijkl'[number]}")
    assert take(study).number == 12


def test_a_trial_is_compared_with_trials_of_its_own_model(study_of: Open) -> None:
    """What GRU4Rec has learnt after an epoch says nothing about SASRec after one."""
    layers = {"type": "int", "low": 32, "high": 512, "step": 32, "when": {"model": "gru4rec"}}
    dim = {"type": "int", "low": 32, "high": 512, "step": 32, "when": {"model": "sasrec"}}
    models = {"type": "categorical", "choices": ["gru4rec", "sasrec"]}
    space = {"search": {"model": models, "layers": layers, "dim": dim}}
    pruner = {"name": "median", "startup": 3, "warmup": 1}
    study = study_of(space, pruner=pruner, sampler={"name": "random"})
    ended = {"gru4rec": 0, "sasrec": 0}
    while min(ended.values()) < 5:
        trial = take(study)
        value = (0.5 if trial.model == "gru4rec" else 0.1) + 0.01 * ended[trial.model]
        assert not trial.report(EpochReport.from_json(epoch(1, value))), (
            "each is its model's best so far"
        )
        trial.complete()
        ended[trial.model] += 1
    worse = {"gru4rec": 0.4, "sasrec": 0.05}
    while worse:
        trial = take(study)
        low = worse.pop(trial.model, None)
        assert trial.report(EpochReport.from_json(epoch(1, 0.9 if low is None else low))) == (
            low is not None
        )
        trial.complete()


def test_time_that_is_over_costs_nothing_learned(study_of: Open, stored: Stored) -> None:
    """What is handed back after an epoch has a value, keeps it while it goes on, and loses it to
    its own end."""
    study = study_of()
    ended, cut = take(study), take(study)
    ended.report(EpochReport.from_json(epoch(1, 0.3)))
    ended.complete()
    for number, mrr in enumerate((0.4, 0.39), 1):
        cut.report(EpochReport.from_json(epoch(number, mrr)))
    cut.hand_back("the study was stopped or its time is over")

    def best() -> tuple[int, str, float, int, int]:
        (found,) = study.best()
        return (
            found["trial"], found["state"], found["value"], found["epoch"], found["epochs"]
        )  # fmt: skip

    assert best() == (cut.number, "waiting", 0.4, 1, 2)
    assert study.counts() == {"complete": 1, "pruned": 0, "failed": 0, "running": 0, "waiting": 1}
    assert (stored(cut).state.name, stored(cut).value) == ("WAITING", 0.4)
    with study.transaction() as connection:
        (listed,) = [s for s in overview(connection).studies if s["study"] == study.name]
    assert listed["best"] == {"trial": cut.number, "value": 0.4}

    again = take(study)
    assert again.number == cut.number
    assert best() == (cut.number, "running", 0.4, 1, 2)
    assert study.requeue(again.id, "its machine went down")
    successor = take(study)
    assert best() == (successor.number, "running", 0.4, 1, 2)
    successor.report(EpochReport.from_json(epoch(3, 0.5)))
    successor.prune("enough")
    assert best() == (successor.number, "pruned", 0.5, 3, 3)


def test_a_trial_that_waited_and_then_fails_has_no_value(study_of: Open, stored: Stored) -> None:
    study = study_of()
    for fail in (
        lambda trial: trial.fail("error", "no"),
        lambda trial: trial.out_of_memory("too large"),
    ):
        trial = take(study)
        trial.report(EpochReport.from_json(epoch(1, 0.4)))
        trial.hand_back("its worker left")
        trial = take(study)
        assert stored(trial).value == 0.4
        fail(trial)
        assert stored(trial).value is None
    assert study.best() == []
    assert study.counts()["failed"] == 2
