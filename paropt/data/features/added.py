"""Features that are added to a dataset after it was prepared (semantic ids, say).

::

    added/NAME-xxxxxx/features/X.npy, vocabularies/…   as in the dataset itself (.fields)
    added/NAME-xxxxxx/report.json                      what is said of how they were made

They are no part of the dataset's fingerprint, which is that of its events: who doesn't read them
gets the same numbers as before. Each has a digest of its own, which is recorded by who reads it.
``meta.json`` is replaced last, at once; before that nothing of it is seen, and what a killed run
left behind is removed by the next one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paropt.data.features.fields import Kind, array_path, file_name, vocabulary_path, written
from paropt.errors import DataError
from paropt.files import write_text

FOLDER = "added"
REPORT = "report.json"


@dataclass(frozen=True)
class Added:
    """One addition to the items' features, as meta.json has it.

    Attributes:
        folder: where its arrays are, in the dataset directory.
        fields: kinds by name, as meta.json writes them.
        digest: a SHA-256 of its arrays.
        files: sizes by path below ``folder``.
        made: what it was made of, and how.
    """

    folder: str
    fields: Mapping[str, str]
    digest: str
    files: Mapping[str, int]
    made: Mapping[str, Any]

    def report(self, dataset: Path) -> dict[str, Any]:
        """What was written down of how it was made."""
        found: dict[str, Any] = json.loads((dataset / self.folder / REPORT).read_text("utf-8"))
        return found

    def check(self, dataset: Path) -> None:
        """Raises :class:`DataError` if its arrays are not what was written."""
        arrays = {name: _load(dataset, f"{self.folder}/{name}") for name in self._arrays}
        if digest(arrays) != self.digest:
            raise DataError(
                f"{dataset / self.folder} has changed since it was written; add it anew"
            )

    @property
    def _arrays(self) -> list[str]:
        return [name for name in self.files if name.endswith(".npy")]


@dataclass(frozen=True)
class Addition:
    """What is to be added: categories of items by name, codes int32 [n], −1 where missing, each
    with the vocabulary of its codes, packed; how they were made, and a report."""

    categories: Mapping[str, tuple[NDArray[np.int32], NDArray[Any]]]
    made: Mapping[str, Any]
    report: Mapping[str, Any]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By path below the addition's folder."""
        found: dict[str, NDArray[Any]] = {}
        for name, (codes, vocabulary) in self.categories.items():
            found[f"{array_path('items', name)}.npy"] = codes
            found[f"{vocabulary_path('items', name)}.npy"] = vocabulary
        return found


def additions(meta: Mapping[str, Any]) -> dict[str, Added]:
    """Those of a meta.json, by name."""
    return {name: Added(**one) for name, one in meta.get(FOLDER, {}).items()}


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """A SHA-256 of arrays and their names."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        found.update(f"\0{name} {values.dtype.str} {values.shape}\0".encode())
        found.update(values.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def check_free(
    dataset: Path, meta: Mapping[str, Any], name: str, fields: list[str], overwrite: bool
) -> None:
    """Refuse a name that is taken, before any work is done.

    Raises:
        DataError: the dataset has it and it is not to be replaced, or has one of its fields.
    """
    known = additions(meta)
    if name in known and not overwrite:
        raise DataError(
            f"{dataset} has {name!r} already ({', '.join(known[name].fields)}); choose another"
            " --name, or say --overwrite to replace it"
        )
    others = {field: "" for field in meta.get("features", {})}
    others |= {field: one for one, has in known.items() if one != name for field in has.fields}
    if taken := [field for field in fields if field in others]:
        of = f" of {others[taken[0]]!r}" if others[taken[0]] else ""
        raise DataError(f"items have a feature {taken[0]!r}{of} already; choose another --name")


def add(dataset: Path, fingerprint: str, name: str, what: Addition, overwrite: bool) -> Added:
    """Add features to a dataset, whole or not at all.

    Raises:
        DataError: see :func:`check_free`; or it isn't the dataset of that fingerprint any more, or
            cannot be written.
    """
    try:
        with _alone(dataset):
            meta = json.loads((dataset / "meta.json").read_text("utf-8"))
            if meta["fingerprint"] != fingerprint:
                raise DataError(f"{dataset} was prepared anew meanwhile; nothing was added to it")
            check_free(dataset, meta, name, list(what.categories), overwrite)
            return _add(dataset, meta, name, what)
    except OSError as error:
        raise DataError(f"{dataset} cannot be written: {error.strerror or error}") from None


def _add(dataset: Path, meta: dict[str, Any], name: str, what: Addition) -> Added:
    known = additions(meta)
    _sweep(dataset, known)
    folder = Path(tempfile.mkdtemp(prefix=f"{file_name(name)[:40]}-", dir=dataset / FOLDER))
    try:
        arrays = what.arrays()
        for path, array in arrays.items():
            _save(folder / path, array)
        write_text(folder / REPORT, json.dumps(what.report, indent=1, ensure_ascii=False) + "\n")
        folder.chmod((dataset.stat().st_mode & 0o777) | 0o700)
        sizes = {path: (folder / path).stat().st_size for path in [*arrays, REPORT]}
        added = Added(
            f"{FOLDER}/{folder.name}",
            {field: written(_CATEGORY) for field in what.categories},
            digest(arrays),
            sizes,
            what.made,
        )
        known[name] = added
        meta[FOLDER] = {one: _as_json(has) for one, has in known.items()}
        text = json.dumps(meta, indent=1, ensure_ascii=False)
        write_text(dataset / "meta.json", text + "\n", overwrite=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _sweep(dataset, known)
    return added


_CATEGORY: Kind = "category"


def _as_json(added: Added) -> dict[str, Any]:
    return {name: getattr(added, name) for name in Added.__dataclass_fields__}


def _sweep(dataset: Path, known: Mapping[str, Added]) -> None:
    """Remove what no addition names: of a run that was killed, or of one that was replaced."""
    (dataset / FOLDER).mkdir(exist_ok=True)
    kept = {one.folder for one in known.values()}
    for path in (dataset / FOLDER).iterdir():
        if f"{FOLDER}/{path.name}" not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _save(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _load(dataset: Path, name: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(dataset / name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{dataset / name} cannot be read: {error}; add it anew") from None
    return array


@contextmanager
def _alone(dataset: Path) -> Iterator[None]:
    """One addition at a time; the kernel lets go when the process ends."""
    handle = os.open(dataset, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
