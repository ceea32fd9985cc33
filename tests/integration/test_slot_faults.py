"""Slots that are killed, stopped, cut off, sent away: docs/reliability.md names these tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

Workshop = Any
PostgresServer = Any


def alive(pid: int) -> bool:
    """A zombie, whose parent has not looked yet, counts as dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def test_a_killed_slot_loses_nothing(workshop: Workshop) -> None:
    """Its trainer ends, another slot takes the trial over from the checkpoint."""
    study = workshop.create([(0.75, "hold"), (0.5, "fine")])
    first = workshop.start("cpu-0")
    trainer = workshop.until_epoch(1)["trainer"]
    second = workshop.start("cpu-1")
    first.kill()
    workshop.until(lambda: not alive(trainer), "the trainer's end", 5)
    workshop.go.touch()
    assert workshop.end(second) == 0, workshop.said("cpu-1")
    trials = study.trials()
    assert (trials[0]["state"], trials[0]["why"]) == ("fail", "lost")
    again = next(t for t in trials if t["root"] == 0 and t["attempt"] == 2)
    assert (again["state"], again["value"], again["curve"]) == ("complete", 0.75, [0.25, 0.5, 0.75])
    # the first epoch was trained by the first attempt only
    assert [e for e in workshop.trained() if e[0] == 0] == [(0, 1, 1), (0, 2, 2), (0, 2, 3)]
    assert study.counts()["complete"] == 2


def test_a_slot_that_was_away_overwrites_nothing(workshop: Workshop) -> None:
    """SIGSTOP, as a laptop that sleeps: the trial is given away, and the slot sees that."""
    study = workshop.create([(0.75, "hold")])
    first = workshop.start("cpu-0")
    workshop.until_epoch(1)
    first.send_signal(signal.SIGSTOP)
    second = workshop.start("cpu-1")
    workshop.until_epoch(1, "cpu-1")
    mine = workshop.checkpoints / "0-2.ckpt"
    workshop.until(lambda: study.running()[0].attempt == 2, "the take-over")
    first.send_signal(signal.SIGCONT)
    workshop.until(
        lambda: any(r["event"] == "lost" for r in workshop.record("cpu-0")), "the old slot's loss"
    )
    assert study.running()[0].attempt == 2
    workshop.go.touch()
    assert workshop.end(second) == 0
    assert workshop.end(first) == 0
    assert [(t["attempt"], t["state"]) for t in study.trials()] == [(1, "fail"), (2, "complete")]
    assert [e for e in workshop.trained() if e[2] > 1] == [(0, 2, 2), (0, 2, 3)]
    assert not mine.exists()


def test_sigterm_hands_the_trial_back_and_another_slot_goes_on(workshop: Workshop) -> None:
    study = workshop.create([(0.75, "hold")])
    first = workshop.start()
    workshop.until_epoch(1)
    first.terminate()
    assert workshop.end(first) == 0, workshop.said()
    assert study.counts()["waiting"] == 1
    assert (workshop.checkpoints / "0-1.ckpt").exists()
    workshop.go.touch()
    assert workshop.end(workshop.start("cpu-1")) == 0
    (trial,) = study.trials()
    assert (trial["state"], trial["value"], trial["attempt"]) == ("complete", 0.75, 1)
    assert workshop.trained() == [(0, 1, 1), (0, 1, 2), (0, 1, 3)]


def test_a_trainer_that_does_not_listen_cannot_keep_a_slot_from_leaving(
    workshop: Workshop,
) -> None:
    study = workshop.create([(0.75, "deaf")])
    slot = workshop.start(PAROPT_GRACE="2")
    trainer = workshop.until_epoch(1)["trainer"]
    slot.terminate()
    assert workshop.end(slot) == 0
    assert not alive(trainer)
    assert study.counts()["waiting"] == 1


def test_a_second_signal_does_not_wait(workshop: Workshop) -> None:
    study = workshop.create([(0.75, "deaf")])
    slot = workshop.start(PAROPT_GRACE="10000")
    workshop.until_epoch(1)
    slot.terminate()
    workshop.until(lambda: workshop.state()["phase"] == "leaving", "leaving")
    slot.terminate()
    assert workshop.end(slot) == 0
    assert study.counts()["waiting"] == 1


def test_what_a_scheduler_tells_all_processes_is_one_wish(workshop: Workshop) -> None:
    study = workshop.create([(0.75, "hold")])
    slot = workshop.start()
    workshop.until_epoch(1)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR1):
        slot.send_signal(number)
    assert workshop.end(slot) == 0
    (ending,) = [told for told in workshop.record() if told["event"] == "handed back"]
    assert ending["message"] == ""  # asked twice, it would have killed its trainer
    assert study.counts()["waiting"] == 1


@pytest.mark.parametrize("how", ["pause", "stop"])
def test_pausing_or_stopping_a_study_frees_its_slots(workshop: Workshop, how: str) -> None:
    study = workshop.create([(0.75, "hold")])
    slot = workshop.start()
    workshop.until_epoch(1)
    study.set_state(how)
    workshop.until(lambda: study.counts()["waiting"] == 1, "handing back")
    workshop.go.touch()
    if how == "pause":
        workshop.until(lambda: workshop.state()["phase"] == "paused", "pausing")
        study.set_state("run")
    else:
        assert workshop.end(slot) == 0
        study.set_state("run")
        slot = workshop.start()
    assert workshop.end(slot) == 0
    assert workshop.trained() == [(0, 1, 1), (0, 1, 2), (0, 1, 3)]
    assert study.counts()["complete"] == 1


def test_one_slot_of_a_study_can_be_released(workshop: Workshop, database_url: str) -> None:
    from paropt.storage.connect import open_storage
    from paropt.storage.leases import Slots

    study = workshop.create([(0.75, "hold"), (0.5, "hold")])
    first, second = workshop.start("cpu-0"), workshop.start("cpu-1")
    workshop.until_epoch(1, "cpu-0")
    workshop.until_epoch(1, "cpu-1")
    with open_storage(database_url) as storage:
        identity = workshop.state("cpu-0")["slot"]
        assert Slots(storage.engine()).command("tried", "release", identity=identity) == 1
    assert workshop.end(first) == 0
    assert workshop.state("cpu-0")["message"] == "it was released"
    assert study.counts()["waiting"] == 1
    workshop.go.touch()
    assert workshop.end(second) == 0
    assert study.counts()["complete"] == 2


def test_the_time_of_a_study_ends_its_trials(workshop: Workshop) -> None:
    study = workshop.create([(0.75, "hold")])
    slot = workshop.start()
    workshop.until_epoch(1)
    workshop.create([(0.75, "hold")], timeout=0.01)  # resumed, with this much time from now
    assert workshop.end(slot) == 0, workshop.said()
    assert workshop.state()["reason"] == "timeout", workshop.state()
    assert study.counts()["waiting"] == 1


class Outage:
    """A workshop on a server that the test stops and starts."""

    def __init__(self, shop: Workshop, server: PostgresServer) -> None:
        self.shop, self.server = shop, server


@pytest.fixture
def outage(own_postgres_server: PostgresServer, workshop: Workshop) -> Iterator[Outage]:
    workshop.url = own_postgres_server.create_database()
    yield Outage(workshop, own_postgres_server)
    workshop.close()


def test_an_outage_of_the_database_loses_nothing(outage: Outage) -> None:
    """The trainer goes on to the trial's end meanwhile, and all its reports arrive."""
    shop = outage.shop
    study = shop.create([(0.75, "hold"), (0.5, "fine")])
    slot = shop.start()
    shop.until_epoch(1)
    outage.server.stop()
    shop.until(lambda: shop.state().get("away", 0) > 0, "noticing the outage")
    shop.go.touch()
    shop.until(lambda: (0, 1, 3) in shop.trained(), "training on")
    outage.server.start()
    assert shop.end(slot) == 0, shop.said()
    assert [(t["state"], t["attempt"]) for t in study.trials()] == [("complete", 1)] * 2
    assert study.trials()[0]["curve"] == [0.25, 0.5, 0.75]
    assert [e for e in shop.trained() if e[0] == 0] == [(0, 1, 1), (0, 1, 2), (0, 1, 3)]


def test_a_database_that_stays_away_ends_the_slot_with_3(outage: Outage) -> None:
    """With a checkpoint, so that whoever comes when it is back goes on from there."""
    shop = outage.shop
    study = shop.create([(0.75, "hold")])
    slot = shop.start(PAROPT_OUTAGE="1")
    shop.until_epoch(1)
    outage.server.stop()
    assert shop.end(slot) == 3, shop.said()
    assert (shop.checkpoints / "0-1.ckpt").exists()
    outage.server.start()
    shop.go.touch()
    assert shop.end(shop.start("cpu-1")) == 0
    assert study.best()[0]["value"] == 0.75
    assert [e[2] for e in shop.trained()] == [1, 2, 3]


def test_a_slot_that_starts_before_its_database_waits(outage: Outage) -> None:
    shop = outage.shop
    study = shop.create([(0.75, "fine")])
    outage.server.stop()
    slot = shop.start()
    shop.until(lambda: shop.state().get("phase") == "starting")
    outage.server.start()
    assert shop.end(slot) == 0, shop.said()
    assert study.counts()["complete"] == 1


def test_trainers_that_hang_on_their_dead_slot_are_no_orphans(workshop: Workshop) -> None:
    workshop.create([(0.75, "deaf")])
    slot = workshop.start()
    trainer = workshop.until_epoch(1)["trainer"]
    os.kill(slot.pid, signal.SIGKILL)
    workshop.until(lambda: not alive(trainer), "the trainer's end", 5)
