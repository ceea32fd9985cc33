"""Words to a running study from any machine: stop, pause, go on, release these slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from paropt.errors import StudyError
from paropt.names import quoted
from paropt.search.study.study import Study
from paropt.storage.connect import Storage, open_storage
from paropt.storage.leases import Slots
from paropt.storage.schema import create_tables
from paropt.terminal.launch_summary import going_on
from paropt.terminal.status import headline, workers
from paropt.terminal.study_list import with_slots

Wanted = Literal["run", "pause", "stop"]


def steer(name: str, storage_url: str | None, wanted: Wanted) -> str:
    """Set what the study's slots shall do; a sentence about what happens now.

    Raises:
        StudyError: no such study.
    """
    with open_storage(storage_url) as storage:
        study = Study.load(storage.url, name)
        try:
            create_tables(storage.engine())
            slots = workers(storage, name, study.definition.heartbeat)
            found = study.summary()
            if wanted != "run" or found["state"] != "run":  # else it would forget why it is over
                study.set_state(wanted)
                found = study.summary()
            found = with_slots(found, slots)
            if wanted == "run" and found["activity"] in ("done", "time is up"):
                more = going_on(found, *storage.options())
                return f"nothing is left to do: {headline(found)}\n{more}"
            beat = study.definition.heartbeat / 3
            return _sentence(name, wanted, len(slots), beat, storage.options())
        finally:
            study.close()


def _sentence(name: str, wanted: Wanted, slots: int, beat: float, options: Sequence[str]) -> str:
    theirs = f"its {slots} slots" if slots > 1 else "its slot" if slots else ""
    if wanted == "run":
        start = f"start slots with {quoted('launch', '--study', name, *options)}"
        now = f"{theirs} go{'es' * (slots == 1)} on" if slots else start
        return f"study {name!r} may run; {now}"
    word = "stopped" if wanted == "stop" else "paused"
    what = "hands back its trial and leaves" if wanted == "stop" else "hands back its trial"
    now = f"each of {theirs} {what} within {beat:.0f} s" if slots > 1 else ""
    if slots == 1:
        now = f"its slot {what} within {beat:.0f} s"
    return f"study {name!r} is {word}" + (f"; {now}" if now else "")


def release(
    name: str, storage_url: str | None, *, host: str | None = None, slot: str | None = None
) -> str:
    """Send some of a study's slots home, while the study goes on.

    Raises:
        StudyError: no such study, or no such slot.
    """
    with open_storage(storage_url) as storage:
        study = Study.load(storage.url, name)
        study.close()
        create_tables(storage.engine())
        _refuse_unknown(storage, study, host, slot)
        reached = Slots(storage.engine()).command(name, "release", host=host, identity=slot)
        return f"{reached} slot{'s' * (reached != 1)} of study {name!r} will leave"


def _refuse_unknown(storage: Storage, study: Study, host: str | None, slot: str | None) -> None:
    there = workers(storage, study.name, study.definition.heartbeat)
    fits = [
        worker
        for worker in there
        if (host is None or worker["host"] == host)
        and (slot is None or worker["id"].startswith(slot))
    ]
    if not fits:
        known = ", ".join(f"{worker['id'][:8]} on {worker['host']}" for worker in there)
        wanted = f"slot {slot!r}" if slot else f"slot on host {host!r}"
        raise StudyError(f"study {study.name!r} has no {wanted}; it has {known or 'none now'}")
