"""What ``--checkpoint-dir`` names: a directory, or a folder of an object store."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from paropt.errors import ParoptError
from paropt.launch.opening.open_study import OpenedStudy
from paropt.machine.home import paropt_home
from paropt.machine.remote import Remote, RemoteError, check_url, has_secrets, is_url
from paropt.machine.slot_files import slots_directory
from paropt.storage.study_rows import folder

Place = Path | str  # a directory, or a URL


def checkpoint_place(word: str | Path | None) -> Place | None:
    """What was said, if it could be a place at all; nothing is asked yet.

    Raises:
        ParoptError: a URL of a kind that nobody knows, or with credentials in it.
    """
    if not word:
        return None
    if not is_url(str(word)):
        return Path(word)
    url = str(word)
    if has_secrets(url):
        raise ParoptError(
            "--checkpoint-dir takes no credentials in its URL, which slots pass on; give them as "
            "the service's own tools take them (AWS_ACCESS_KEY_ID, ~/.aws, …)"
        )
    check_url(url, "--checkpoint-dir")
    return url.rstrip("/")


def folder_in_store(opened: OpenedStudy, url: str) -> str:
    """The study's folder below ``url``: the same from every machine, another for every study.

    Raises:
        ParoptError: this machine cannot write there, or read what it wrote.
    """
    place = f"{url}/{folder(opened.storage.engine(), opened.study.name)}"
    _try(place)
    return place


def folders_on_disk(opened: OpenedStudy, directory: Path) -> tuple[Path, Path | None]:
    """The study's folder in ``directory``, and the one that an earlier version had, if it is there.

    paropt 0.1 named it after the storage's URL as this machine spells it.
    """
    name = opened.study.name
    before = directory / slots_directory(paropt_home(), opened.storage.describe(), name).name
    here = directory / folder(opened.storage.engine(), name)
    return here, before if before.is_dir() else None


def folder_here(opened: OpenedStudy, place: Place | None) -> Path:
    """The study's folder on this machine; where the checkpoints are elsewhere, too."""
    directory = place if isinstance(place, Path) else paropt_home() / "checkpoints"
    return folders_on_disk(opened, directory.resolve())[0]


def _try(folder: str) -> None:
    """Write, read and remove a small object, before hours of training rely on it."""
    remote, name = Remote(folder), f"trial-of-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"paropt")
            file.flush()
            remote.store(Path(file.name), name)
        if remote.read(name) != b"paropt":
            raise RemoteError(f"{folder} gives back something else than was written to it")
        remote.remove(name)
    except RemoteError as error:
        raise ParoptError(f"--checkpoint-dir: {error}") from None
