"""What lies between being given a trial and holding its lease."""

from __future__ import annotations

import signal
from typing import Any

import psycopg2

Workshop = Any


# refuses any transaction that leaves a RUNNING trial without a lease behind
UNLEASED = """
CREATE FUNCTION unleased() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM paropt_lease WHERE trial_id = NEW.trial_id) THEN
        RAISE 'trial % runs without a lease', NEW.number;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER unleased AFTER INSERT OR UPDATE ON trials DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.state = 'RUNNING') EXECUTE FUNCTION unleased();
"""


def test_no_trial_is_given_out_without_its_lease(workshop: Workshop, database_url: str) -> None:
    """A slot that is slow, or that dies at once, can leave none behind that nobody holds."""
    from paropt.storage.connect import open_storage
    from paropt.storage.schema import create_tables

    study = workshop.create([(0.25, "fine"), (0.75, "crash")])
    with open_storage(database_url) as storage:
        create_tables(storage.engine())
    rival = psycopg2.connect(database_url)
    with rival, rival.cursor() as cursor:
        cursor.execute(UNLEASED)
        # of a trial that nobody has been given yet: whoever is given it holds it rightly
        cursor.execute("INSERT INTO paropt_lease (trial_id, study, owner) VALUES (1, 'tried', '')")
    slot = workshop.start()
    assert workshop.end(slot) == 0, workshop.said()
    assert study.counts()["complete"] == 2
    assert [trial["attempt"] for trial in study.trials()] == [1, 1, 2]
    with rival, rival.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM paropt_lease")
        assert cursor.fetchone() == (0,)
    rival.close()


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
