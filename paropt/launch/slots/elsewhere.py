"""What ``launch --on slurm|ray`` has in common: the line by which a worker joins from elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from paropt.errors import ParoptError
from paropt.launch.opening.checkpoint_place import Place
from paropt.launch.opening.open_study import OpenedStudy
from paropt.machine.remote import is_url

SCHEDULERS = ("slurm", "ray")
NOT_REACHED = (
    "slots on other machines cannot reach the embedded database; name a server with --storage URL,"
    " or open this one with --listen 0.0.0.0:5433"
)


@dataclass(frozen=True)
class Elsewhere:
    """Slots that a scheduler places: how many, and what each gets of a machine."""

    slots: int = 1
    gpus: float = 0.0  # for each slot; a part of one is shared with others
    cpus: int = 1  # for each slot


def asked_for(on: str, slots: int | None, gpus: float, cpus: int) -> Elsewhere:
    """What was asked for, if a scheduler of that name is known.

    Raises:
        ParoptError: it isn't, or nobody said how many slots.
    """
    if on.partition(":")[0] not in SCHEDULERS:
        raise ParoptError(f"--on is slurm, ray or ray://HOST:PORT, not {on!r}")
    if slots is None:
        raise ParoptError(f"--on {on} needs --slots N: how many slots there are to be")
    return Elsewhere(slots, gpus, cpus)


def check_reach(storage: str | None, listen: str | None) -> None:
    """Refuse a database that takes no connections from other machines, before a study is made.

    Raises:
        ParoptError: it is the embedded one, and nothing opens it or has opened it.
    """
    if storage or os.environ.get("PAROPT_STORAGE"):
        return
    from paropt.storage.embedded.server import EmbeddedServer, paropt_home

    if listen == "off" or not (listen or EmbeddedServer(paropt_home()).kept_listen()):
        raise ParoptError(NOT_REACHED)


def worker_words(
    opened: OpenedStudy, what: Elsewhere, checkpoints: Place | None, tensorboard: Path | None
) -> list[str]:
    """``worker …``: one slot of the study, from any machine. No password is in it.

    Raises:
        ParoptError: the database takes no connections from other machines.
    """
    if opened.storage.is_embedded and not opened.storage.listen:
        raise ParoptError(NOT_REACHED)
    words = ["worker", "--study", opened.study.name, "--storage", opened.storage.worker_url()]
    if not is_url(opened.study.definition.data_path):
        words += ["--data", str(opened.data.resolve())]
    words += ["--devices", "auto" if what.gpus else "cpu", "--per-device", "1"]
    if checkpoints is not None:
        place = checkpoints if isinstance(checkpoints, str) else str(checkpoints.resolve())
        words += ["--checkpoint-dir", place]
    if tensorboard is not None:
        words += ["--tensorboard", str(tensorboard.resolve())]
    return words


def password(opened: OpenedStudy) -> dict[str, str]:
    """``PGPASSWORD`` for those slots, where this process knows it: from the URL, the environment
    or its server."""
    file = opened.storage.password_file()
    if opened.storage.url.password:
        return {"PGPASSWORD": str(opened.storage.url.password)}
    if not opened.storage.is_embedded:
        known = os.environ.get("PGPASSWORD")
        return {"PGPASSWORD": known} if known else {}
    return {"PGPASSWORD": file.read_text().strip()} if file and file.exists() else {}
