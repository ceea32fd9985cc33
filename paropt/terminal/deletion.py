"""``paropt delete``: studies go, with what this machine kept of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from paropt.errors import StudyError
from paropt.machine.home import paropt_home
from paropt.machine.slot_files import slots_directory
from paropt.names import quoted
from paropt.search.study.study import Study, hint
from paropt.storage import study_rows, trial_rows
from paropt.storage.connect import Storage
from paropt.storage.engine import transaction
from paropt.storage.leases import Slots


@dataclass(frozen=True)
class Doomed:
    """A study that may be deleted."""

    id: int
    name: str
    trials: int
    parts: tuple[str, ...]  # the studies of its final tests, which go with it

    def __str__(self) -> str:
        held = [f"{self.trials} trial{'s' * (self.trials != 1)}"]
        if self.parts:
            tests = {part.rpartition(".")[0] for part in self.parts}
            held.append(f"{len(tests)} final test{'s' * (len(tests) > 1)}")
        return f"study {self.name!r} ({' and '.join(held)})"


def look_up(storage: Storage, names: Sequence[str]) -> list[Doomed]:
    """The studies of these names.

    Raises:
        StudyError: there is no such study, or slots work on it.
    """
    return [_doomed(storage, name) for name in dict.fromkeys(names)]


def _doomed(storage: Storage, name: str) -> Doomed:
    with transaction(storage.engine()) as connection:
        there = connection.execute(text("SELECT to_regclass('studies')")).scalar()
        study = trial_rows.find_study(connection, name) if there else None
        if study is None:
            known = Study.names(storage.url)
            raise StudyError(f"there is no study {name!r}; {hint(name, known)}")
        parts = tuple(part for _, part in study_rows.parts(connection, name))
        trials = connection.execute(
            text("SELECT count(*) FROM trials WHERE study_id = :study"), {"study": study}
        ).scalar_one()
    for busy in (name, *parts):
        if slots := Slots(storage.engine()).at_work(busy):
            hosts = ", ".join(sorted({slot.host for slot in slots}))
            count = f"{len(slots)} slot{'s' * (len(slots) > 1)}"
            raise StudyError(
                f"study {busy!r} is worked on by {count} on {hosts}; {quoted('stop', busy)} first"
            )
    return Doomed(study, name, int(trials), parts)


def delete(storage: Storage, doomed: Doomed, checkpoints: Path | None = None) -> None:
    """Delete a study, and what this machine kept for it: checkpoints, and the files of its slots.

    Raises:
        StudyError: somebody deleted it just now.
        StorageUnreachable: no answer; nothing was deleted.
    """
    engine, home = storage.engine(), paropt_home()
    place = checkpoints or home / "checkpoints"
    folders = []
    for name in (doomed.name, *doomed.parts):
        slots = slots_directory(home, storage.describe(), name)
        # the second is where paropt 0.1 had its checkpoints
        folders += [slots, place / slots.name, place / study_rows.folder(engine, name)]
    study_rows.alone(engine, lambda connection: study_rows.delete(connection, doomed.id))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
