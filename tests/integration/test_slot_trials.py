"""One slot, and what its trainer may do: end well, crash, hang, diverge, need too much memory."""

from __future__ import annotations

from typing import Any

Workshop = Any


def outcomes(study: Any) -> list[tuple[str, str, int]]:
    """(state, why, attempt) of every trial, in order."""
    return [(t["state"], t["why"], t["attempt"]) for t in study.trials()]


def test_trials_are_trained_reported_and_completed(workshop: Workshop) -> None:
    study = workshop.create([(0.3, "fine"), (0.9, "fine"), (0.6, "fine")])
    slot = workshop.start()
    assert workshop.end(slot) == 0, workshop.said()
    trials = study.trials()
    assert [t["curve"] for t in trials] == [[x / 3, 2 * x / 3, x] for x in (0.3, 0.9, 0.6)]
    assert study.best()[0]["value"] == 0.9
    assert study.best()[0]["metrics"] == {"mrr@20": 0.9, "recall@20": 1.8}
    assert trials[0]["owner"]["device"] == "scripted"
    assert trials[0]["owner"]["threads"] == 1
    ended = workshop.state()
    assert (ended["phase"], ended["reason"]) == ("ended", "budget")
    saved = [(r["trial"], r["epoch"]) for r in workshop.record() if r["event"] == "saved"]
    assert saved == [(trial, epoch) for trial in range(3) for epoch in (1, 2, 3)]
    assert not list(workshop.checkpoints.glob("*.ckpt"))


def test_one_trainer_serves_all_trials(workshop: Workshop) -> None:
    workshop.create([(0.3, "fine"), (0.9, "fine")])
    assert workshop.end(workshop.start()) == 0
    pids = {line.split()[3] for line in workshop.log.read_text().splitlines()}
    assert len(pids) == 1


def test_hopeless_trials_are_pruned(workshop: Workshop) -> None:
    """Median rule: five must have ended, then it cuts after epoch 2; epoch 3 has no end here."""
    good = [(0.90 - i / 100, "fine") for i in range(5)]
    study = workshop.create([*good, (0.1, "endless")], epochs=4, pruner="median")
    assert workshop.end(workshop.start()) == 0, workshop.said()
    last = study.trials()[-1]
    assert (last["state"], last["curve"], last["value"]) == ("pruned", [0.025, 0.05], 0.05)
    assert "below the median" in last["message"]
    assert study.counts()["complete"] == 5


def test_a_first_look_that_is_over_makes_way_for_the_next_model(workshop: Workshop) -> None:
    """Its epoch took all of the time, it says: it goes on when the other model is through, which
    is better after an epoch, so that it need not wait for the first."""
    models = ("one", "another")
    study = workshop.create([(0.6, "hold"), (0.9, "fine")], timeout=3600, models=models)
    slot = workshop.start(SCRIPT_SAYS="100000")
    workshop.until(lambda: study.counts()["complete"], "the end of the other model's trial")
    workshop.go.touch()
    assert workshop.end(slot) == 0, workshop.said()
    order = [(0, 1), (1, 1), (1, 2), (1, 3), (0, 2), (0, 3)]
    assert [(root, epoch) for root, _, epoch in workshop.trained()] == order
    (handed_back,) = [r for r in workshop.record() if r["event"] == "handed back"]
    assert handed_back["trial"] == 0
    assert [(t["model"], t["state"], t["attempt"]) for t in study.trials()] == [
        ("one", "complete", 1),
        ("another", "complete", 1),
    ]


def test_a_crashed_trainer_costs_an_attempt_and_goes_on_from_its_checkpoint(
    workshop: Workshop,
) -> None:
    study = workshop.create([(0.75, "crash"), (0.5, "fine")])
    assert workshop.end(workshop.start()) == 0, workshop.said()
    assert outcomes(study)[0] == ("fail", "lost", 1)
    (second,) = [t for t in study.trials() if t["attempt"] == 2]
    assert (second["state"], second["value"], second["root"]) == ("complete", 0.75, 0)
    assert "SIGKILL" in study.trials()[0]["message"]
    assert [e for e in workshop.trained() if e[0] == 0] == [(0, 1, 1), (0, 2, 2), (0, 2, 3)]
    shown = {t.number: t.user_attrs for t in workshop.stored()}
    assert shown[second["trial"]]["resumed_from"] == "epoch 1"
    assert "resumed_from" not in shown[0]
    assert study.counts() | {"complete": 2, "failed": 0} == study.counts()


def test_a_configuration_that_always_crashes_is_given_up(workshop: Workshop) -> None:
    study = workshop.create([(0.8, "doom"), (0.5, "fine")])
    slot = workshop.start()
    workshop.until(lambda: study.counts()["complete"] >= 1, "the other trial")
    workshop.until(lambda: study.counts()["failed"] >= 1, "the end of the doomed one")
    assert [o for o in outcomes(study) if o[1] != "complete"][:3] == [
        ("fail", "lost", 1),
        ("fail", "lost", 2),
        ("fail", "given up", 3),
    ]
    slot.terminate()
    assert workshop.end(slot) == 0


def test_a_silent_trainer_is_killed(workshop: Workshop) -> None:
    study = workshop.create([(0.75, "hang")])
    assert workshop.end(workshop.start(PAROPT_SILENCE="1")) == 0, workshop.said()
    assert "said nothing for 1 s" in study.trials()[0]["message"]
    assert study.best()[0]["value"] == 0.75


def test_out_of_memory_is_tried_once_more_then_recorded(workshop: Workshop) -> None:
    study = workshop.create([(0.8, "oom-once"), (0.7, "oom"), (0.6, "nan"), (0.5, "fine")])
    slot = workshop.start()
    workshop.until(lambda: study.counts()["complete"] >= 2, "the trials that can end")
    slot.terminate()
    assert workshop.end(slot) == 0, workshop.said()
    trials = study.trials()
    assert outcomes(study)[:4] == [
        ("complete", "complete", 1),
        ("pruned", "oom", 1),
        ("pruned", "diverged", 1),
        ("complete", "complete", 1),
    ]
    assert trials[1]["value"] is None and trials[2]["value"] is None
    assert "no memory for 9 GiB" in trials[1]["message"]
    assert "epoch 2: the loss became nan" in trials[2]["message"]
    # a fresh trainer each time, and the retry of the hopeless one repeated nothing
    assert [e for e in workshop.trained() if e[0] == 1] == [(1, 1, 1)]


def test_a_bug_is_not_retried_and_five_alike_pause_the_study(workshop: Workshop) -> None:
    study = workshop.create([(0.1 * i, "bug") for i in range(1, 8)])
    assert workshop.end(workshop.start()) == 0
    assert study.counts()["failed"] == 5
    assert {t["attempt"] for t in study.trials()} == {1}
    assert study.state() == "pause"
    ended = workshop.state()
    assert ended["reason"] == "failures"
    assert "KeyError: 'nothing'" in ended["message"]


def test_a_trainer_that_cannot_start_ends_the_slot_with_its_reason(workshop: Workshop) -> None:
    study = workshop.create([(0.5, "fine")])
    slot = workshop.start(SCRIPT_START="ModuleNotFoundError: No module named 'torch'")
    assert workshop.end(slot) == 1
    assert "No module named 'torch'" in workshop.state()["message"]
    assert study.counts() == dict.fromkeys(study.counts(), 0)


def test_a_seat_is_taken_once(workshop: Workshop) -> None:
    workshop.create([(0.5, "hold")])
    first = workshop.start()
    workshop.until_epoch(1)
    assert workshop.end(workshop.start()) == 0
    assert first.poll() is None
    workshop.go.touch()
    assert workshop.end(first) == 0
    assert {e[:2] for e in workshop.trained()} == {(0, 1)}
