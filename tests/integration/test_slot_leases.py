"""What lies between being given a trial and holding its lease."""

from __future__ import annotations

import signal
from typing import Any

import psycopg2

Workshop = Any


def test_a_trial_taken_away_before_its_lease_was_held_is_not_trained(
    workshop: Workshop, database_url: str
) -> None:
    """The connection broke in between, say, and came back after the grace period."""
    from paropt.service.leases import create_tables
    from paropt.service.storage import open_storage

    study = workshop.create([(0.75, "fine")])
    with open_storage(database_url) as storage:
        create_tables(storage.engine())
    rival = psycopg2.connect(database_url)
    with rival.cursor() as cursor:  # the slot's own INSERT waits for the end of this one
        cursor.execute("INSERT INTO paropt_lease (trial_id, study, owner) VALUES (1, 'tried', '')")
    slot = workshop.start()
    (mine,) = workshop.until(study.running, "the trial")
    assert mine.id == 1
    assert study.requeue(mine.id, "its worker was lost (no lease)", mine.token)
    rival.rollback()
    assert workshop.end(slot) == 0, workshop.said()
    assert workshop.trained() == [(0, 2, epoch) for epoch in (1, 2, 3)]
    with rival.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM paropt_lease")
        assert cursor.fetchone() == (0,)
    rival.close()
    assert study.counts()["complete"] == 1


def test_a_slot_that_lost_its_trial_leaves_no_checkpoint_behind(workshop: Workshop) -> None:
    """Its successor, which works elsewhere, could not remove it."""
    study = workshop.create([(0.75, "hold")])
    here = workshop.checkpoints
    first = workshop.start("cpu-0")
    workshop.until_epoch(1)
    workshop.until((here / "0-1.ckpt").exists, "the checkpoint")
    first.send_signal(signal.SIGSTOP)
    workshop.checkpoints = here.with_name("elsewhere")
    second = workshop.start("cpu-1")
    workshop.until(lambda: any(t.attempt == 2 for t in study.running()), "the take-over")
    workshop.go.touch()
    assert workshop.end(second) == 0
    assert list(here.iterdir())
    first.send_signal(signal.SIGCONT)
    assert workshop.end(first) == 0
    assert list(here.iterdir()) == []
    assert list(workshop.checkpoints.iterdir()) == []
