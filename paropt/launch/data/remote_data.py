"""``--data URL``: a dataset directory or a log that lies elsewhere, fetched once per machine.

A directory becomes ``PAROPT_HOME/datasets/STEM-FINGERPRINT``: fetched beside, by the list of files
in its ``meta.json`` (no listing is asked for), compared with its fingerprint, and renamed. A log
becomes ``PAROPT_HOME/downloads/…`` and is prepared like any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from paropt.errors import DataError
from paropt.files import readable
from paropt.launch.data.made_once import alone
from paropt.machine.home import paropt_home
from paropt.machine.remote import NotThere, Remote, RemoteError, check_url

if TYPE_CHECKING:
    from paropt.data import Dataset

META = "meta.json"
TELL_SECONDS = 10.0  # between two remarks on how far it is

Note = Callable[[str], None]


def fetched(url: str, note: Note) -> Path:
    """The dataset directory, or the log, of this URL as it lies on this machine.

    Raises:
        DataError: it cannot be read, is there by half, or is not what its fingerprint says.
    """
    try:
        check_url(url, "--data")
        remote = Remote(url)
        meta = _meta(remote)
        return _log(remote, note) if meta is None else _dataset(remote, meta, note)
    except RemoteError as error:
        raise DataError(str(error)) from None


def kept(fingerprint: str, added: dict[str, str]) -> Path | None:
    """A dataset of this fingerprint, with these additions, that was fetched before."""
    for path in sorted((paropt_home() / "datasets").glob(f"*-{fingerprint[:10]}*")):
        dataset = _opened(path)
        if dataset is None or dataset.fingerprint != fingerprint:
            continue
        if added.items() <= {name: one.digest for name, one in dataset.added.items()}.items():
            return path
    return None


def _meta(remote: Remote) -> bytes | None:
    """The bytes of its ``meta.json``; None where it is a file, not a directory."""
    try:
        return remote.read(META)
    except NotThere:
        pass
    except RemoteError:
        # who may not list a bucket is refused what is not there, too
        if not PurePosixPath(remote.name).suffix:
            raise
    return None


# -- a dataset directory --------------------------------------------------------------------


def _dataset(remote: Remote, meta: bytes, note: Note) -> Path:
    files, told = _listed(remote, meta)
    stem = readable(PurePosixPath(remote.name).name, 40, "data")
    name = f"{stem}-{told['fingerprint'][:10]}"
    if told.get("added"):  # which the fingerprint says nothing of
        name += f"-{hashlib.sha256(json.dumps(told['added']).encode()).hexdigest()[:6]}"
    path = paropt_home() / "datasets" / name
    with alone(path):
        if _opened(path) is not None:
            note(f"{remote.name} was fetched before, to {path}")
            return path
        shutil.rmtree(path, ignore_errors=True)
        size = sum(files.values())
        note(f"fetching {remote.name} ({size / 1e6:,.1f} MB) to {path}")
        with _beside(path) as new:
            progress = _Progress(size, note)
            for relative in files:
                remote.fetch(relative, new / relative, progress.heard)
                progress.next()
            (new / META).write_bytes(meta)
            _check(remote, new)
            new.rename(path)
    return path


def _listed(remote: Remote, meta: bytes) -> tuple[dict[str, int], dict[str, Any]]:
    """The files with their sizes, and all that ``meta.json`` says.

    Raises:
        DataError: it is another program's, or names files outside of the directory.
    """
    from paropt.data.dataset import files_of_meta

    try:
        told = json.loads(meta)
        files = files_of_meta(told)
        assert isinstance(told["fingerprint"], str)
        paths = [PurePosixPath(relative) for relative in files]
        assert all(isinstance(size, int) for size in files.values())
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise DataError(f"{remote.name} is no dataset directory: its {META} is damaged") from None
    for path in paths:
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{remote.name} is no dataset directory: its {META} names {path}")
    return files, told


def _check(remote: Remote, new: Path) -> None:
    """Raises :class:`DataError` unless all is there as ``meta.json`` says."""
    from paropt.data import open_dataset

    try:
        open_dataset(new).verify()
    except DataError as error:
        reason = str(error).replace(str(new), "the copy").partition(";")[0]
        raise DataError(
            f"{remote.name} is not whole, or was changed while it was fetched ({reason}); "
            "try again, or put it there anew"
        ) from None


def _opened(path: Path) -> Dataset | None:
    from paropt.data import open_dataset

    with contextlib.suppress(DataError):
        return open_dataset(path)
    return None


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A directory beside ``path`` that is gone in the end, unless it was renamed.

    Raises:
        DataError: it cannot be written.
    """
    for old in path.parent.glob(f".{path.name}.fetch.*"):  # of a process that was killed
        shutil.rmtree(old, ignore_errors=True)
    try:
        new = Path(tempfile.mkdtemp(prefix=f".{path.name}.fetch.", dir=path.parent))
        try:
            yield new
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None


@dataclass
class _Progress:
    """Says now and then how much of ``size`` bytes is here."""

    size: int
    note: Note

    def __post_init__(self) -> None:
        self._before, self._of_file = 0, 0
        self._told = time.monotonic()

    def heard(self, of_file: int) -> None:
        self._of_file = of_file
        if time.monotonic() - self._told >= TELL_SECONDS:
            self._told = time.monotonic()
            share = (self._before + of_file) / max(1, self.size)
            self.note(f"  {min(1.0, share):.0%} of {self.size / 1e6:,.1f} MB")

    def next(self) -> None:
        self._before, self._of_file = self._before + self._of_file, 0


# -- a log ----------------------------------------------------------------------------------


def _log(remote: Remote, note: Note) -> Path:
    try:
        facts = remote.facts()
    except NotThere:
        raise DataError(
            f"nothing is at {remote.name}: neither a log, nor a dataset directory with its {META}"
        ) from None
    version = facts["version"]
    key = hashlib.sha256(f"{remote.name}\n{facts['size']}\n{version}".encode()).hexdigest()[:10]
    path = paropt_home() / "downloads" / key / PurePosixPath(remote.name).name
    with alone(path.parent):
        if path.exists() and version:
            note(f"{remote.name} was fetched before, to {path}")
            return path
        size = facts["size"] or 0
        note(f"fetching {remote.name}" + (f" ({size / 1e6:,.1f} MB)" if size else ""))
        path.parent.mkdir(parents=True, exist_ok=True)
        with _beside(path) as new:
            remote.fetch("", new / path.name, _Progress(size, note).heard)
            found = (new / path.name).stat().st_size
            if size and found != size:
                raise DataError(f"{remote.name} was cut short: {found:,} of {size:,} bytes came")
            (new / path.name).replace(path)
    return path
