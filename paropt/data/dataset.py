"""The dataset directory: written once, beside and renamed; opened by mapping its arrays."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from paropt.data.encoding import SplitArrays, stranger_numbers, unpack_ids
from paropt.data.features.added import Added, additions
from paropt.data.features.collect import Write
from paropt.data.features.fields import FieldOf, StoredField, kind_of
from paropt.data.features.users import SessionUsers, users_of_sessions
from paropt.data.features.vectors import digest_of
from paropt.data.fingerprint import fingerprint
from paropt.data.log.rules import Protocol
from paropt.errors import DataError

FORMAT = 1
SPLITS = ("train_full", "test", "train", "valid")
ViewName = Literal["search", "full", "without-valid"]
VIEWS: dict[str, tuple[str, str]] = {
    "search": ("train", "valid"),
    "full": ("train_full", "test"),
    "without-valid": ("train", "test"),
}


class Split:
    """One split: encoded sessions, mapped read-only when first used.

    ``items`` int32 [E], ``times`` int64 [E], ``offsets`` int64 [S + 1], ``targets`` bool [E];
    session s is ``items[offsets[s]:offsets[s + 1]]``.

    ``known_by`` is the split that a model was trained on, if there is one: what that split doesn't
    have of users, and of the codes of columns, is −1 here, as items are unknown beyond
    :meth:`Dataset.n_items`.
    """

    def __init__(self, dataset: Dataset, name: str, known_by: str | None = None) -> None:
        self.dataset = dataset
        self.name = name
        self.known_by = known_by

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {self.n_events} events, {self.n_sessions} sessions)"

    @cached_property
    def items(self) -> NDArray[np.int32]:
        return self._map("items")

    @cached_property
    def times(self) -> NDArray[np.int64]:
        return self._map("times")

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        return self._map("offsets")

    @cached_property
    def targets(self) -> NDArray[np.bool_]:
        return self._map("targets")

    @cached_property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Further columns of the events [E] (``prepare --keep-column``), by name."""
        fields = self.dataset.fields("events").values()
        return {field.name: self._column(field) for field in fields}

    def strangers(self, n_items: int) -> NDArray[np.int32]:
        """A number for each item of the dataset from the index ``n_items`` on, which a model of
        ``n_items`` doesn't know (:func:`paropt.data.encoding.stranger_numbers`)."""
        return stranger_numbers(self.dataset.item_ids()[n_items:], n_items)

    def _column(self, field: StoredField) -> NDArray[Any]:
        values = self._map(f"column_{field.name}")
        if field.kind != "category" or self.known_by in (None, self.name):
            return values
        known = self.dataset.known_codes(field.name, str(self.known_by))
        return np.where(known[values], values, np.int32(-1))

    @cached_property
    def users(self) -> NDArray[np.int32] | None:
        """Whose session each is [S] int32, −1 where unknown; None where none is known."""
        users = self.dataset.session_users
        if users is not None:
            found = users.of_split[self.name]
        elif "users" in self.dataset.meta:
            found = self._map("users")
        else:
            return None
        if self.known_by is None:
            return found
        return np.where(found < self.dataset.n_users(self.known_by), found, np.int32(-1))

    @property
    def n_events(self) -> int:
        return int(self.dataset.meta["splits"][self.name]["events"])

    @property
    def n_sessions(self) -> int:
        return int(self.dataset.meta["splits"][self.name]["sessions"])

    def session_ids(self) -> NDArray[Any]:
        """The sessions' own ids, as text [S]."""
        return unpack_ids(self.packed_sessions())

    def packed_sessions(self) -> NDArray[Any]:
        """The sessions' own ids as they are stored: int64, or UTF-8 bytes."""
        return self._map("sessions")

    def _map(self, array: str) -> NDArray[Any]:
        return _map_array(self.dataset.path / "splits" / self.name / f"{array}.npy")


class Dataset:
    """An opened dataset directory; nothing but ``meta.json`` is in memory until it is used."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path = path
        self.meta = meta
        self.memo: dict[Any, Any] = {}
        """What trainings worked out of it and need again, for as long as it is open."""

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}, {self.fingerprint[:12]})"

    @property
    def fingerprint(self) -> str:
        return str(self.meta["fingerprint"])

    @property
    def protocol(self) -> Protocol:
        return cast(Protocol, self.meta["protocol"])

    @property
    def has_times(self) -> bool:
        return bool(self.meta["has_times"])

    def split(self, name: str, known_by: str | None = None) -> Split:
        """The split ``train_full``, ``test``, ``train`` or ``valid``; see :class:`Split`."""
        if name not in SPLITS:
            raise DataError(f"no split {name!r}; there are {', '.join(SPLITS)}")
        return Split(self, name, known_by)

    def n_items(self, split_name: str) -> int:
        """How many items a model trained on the split knows: its items are the first so many.

        For ``valid`` and ``test`` all items of the dataset.
        """
        items = self.meta["items"]
        return int(items.get(split_name, items["all"]))

    def item_ids(self) -> NDArray[Any]:
        """The items' ids as text; position i holds the id of item i."""
        table = pa.parquet.read_table(self.path / "items.parquet", columns=["id"])
        ids: NDArray[Any] = table.column("id").to_numpy()
        return ids

    @property
    def has_users(self) -> bool:
        """Whether it is known whose sessions they are."""
        return "users" in self.meta or self.session_users is not None

    @cached_property
    def session_users(self) -> SessionUsers | None:
        """The users where each session is one: no protocol by time, and no ``--user-key``."""
        if "users" in self.meta or self.protocol == "time":
            return None
        return users_of_sessions({name: self.split(name).packed_sessions() for name in SPLITS})

    def n_users(self, split_name: str) -> int:
        """How many users a model trained on the split knows; all of them for valid and test."""
        if (users := self.session_users) is not None:
            counts = {"train": users.n_train, "train_full": users.n_train_full}
            return counts.get(split_name, len(users.ids))
        users = self.meta.get("users", {})
        return int(users.get(split_name, users.get("all", 0)))

    def user_ids(self) -> NDArray[Any]:
        """The users' ids as text; position i holds the id of user i."""
        if self.session_users is not None:
            return self.session_users.texts()
        return unpack_ids(_map_array(self.path / "users.npy"))

    def known_codes(self, column: str, split_name: str) -> NDArray[np.bool_]:
        """Which codes of a column the split has [size + 1]; the last stands for −1."""
        known = np.zeros(self.fields("events")[column].size + 1, bool)
        known[np.unique(self.split(split_name).columns[column])] = True
        known[-1] = False
        return known

    def fields(self, of: FieldOf) -> Mapping[str, StoredField]:
        """What is kept of events (``--keep-column``), items or users (tables), by name."""
        key = {"events": "columns", "items": "features", "users": "user_features"}[of]
        declared = self.meta.get(key, {})
        fields = {
            name: StoredField(of, name, kind_of(word), self._open)
            for name, word in declared.items()
        }
        for added in self.added.values() if of == "items" else ():
            opened = partial(self._open_below, added.folder)
            for name, word in added.fields.items():
                fields[name] = StoredField(of, name, kind_of(word), opened)
        return fields

    @cached_property
    def added(self) -> Mapping[str, Added]:
        """What was added to the items' features since, by name (:mod:`.features.added`)."""
        return additions(self.meta)

    def digests(self, fields: Iterable[str]) -> dict[str, str]:
        """Of additions that have some of these fields of items: their digests by name.

        The fingerprint says nothing of them, so who reads them keeps these beside it.
        """
        wanted = set(fields)
        return {name: a.digest for name, a in self.added.items() if wanted & set(a.fields)}

    def _open_below(self, folder: str, array: str) -> NDArray[Any]:
        return _map_array(self.path / folder / f"{array}.npy")

    def _open(self, array: str) -> NDArray[Any]:
        path = self.path / f"{array}.npy"
        if not path.exists():  # paropt 0.1.0 wrote names as they are
            path = self.path / f"{unquote(array)}.npy"
        return _map_array(path)

    @cached_property
    def features(self) -> Mapping[str, NDArray[Any]]:
        """The items' numbers and codes by name [n_items("test")]."""
        fields = self.fields("items").values()
        single = [field for field in fields if field.kind in ("number", "category")]
        return {field.name: field.array() for field in single}

    def vocabulary(self, kind: Literal["column", "feature"], name: str) -> NDArray[Any]:
        """The texts that the codes of a categorical column or feature stand for."""
        return unpack_ids(_map_array(self.path / "vocabularies" / f"{kind}_{name}.npy"))

    def view(self, name: str) -> View:
        """``search``: train, judged on valid. ``full``: train_full, judged on test.

        ``without-valid``: train, judged on test, whose histories have what lies between. Of
        leave-one-out data that is all but the last *two* events, and the second-last is only read
        at test (as S3-Rec, arXiv 2008.07873, and much that is compared with it).
        """
        if name not in VIEWS:
            raise DataError(f"no view {name!r}; there are {', '.join(VIEWS)}")
        train, test = VIEWS[name]
        if not self.split(test).n_events:
            raise DataError(
                f"{self.path} has no {test} split: it was prepared from --train and --valid, which"
                f" is all that a search needs; prepare it with --{test} too for a final number"
            )
        return View(cast(ViewName, name), self, self.split(train), self.split(test, train))

    def verify(self) -> None:
        """Read everything and compare it with the fingerprint.

        Raises:
            DataError: the content has changed since it was prepared.
        """
        items = pa.array(self.item_ids(), pa.string())
        found = fingerprint(self.meta["rules"], items, self._arrays())
        if found != self.fingerprint:
            raise DataError(
                f"{self.path} has changed since it was prepared: its content has the fingerprint"
                f" {found[:12]}, not {self.fingerprint[:12]}; prepare it again"
            )
        for added in self.added.values():
            added.check(self.path)

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any] | str]]:
        """Every array by its path; of one that may not fit into memory, a digest."""
        files = (name.removesuffix(".npy") for name in self.meta["files"] if name.endswith(".npy"))
        for name in sorted(files):
            path = self.path / f"{name}.npy"
            yield name, digest_of(path) if name.endswith("/rows") else _map_array(path)


@dataclass(frozen=True)
class View:
    """A training split with what it is judged on."""

    name: ViewName
    dataset: Dataset
    train: Split
    test: Split

    @property
    def n_items(self) -> int:
        """How many items a model trained here knows; larger indices are unknown to it."""
        return self.dataset.n_items(self.train.name)

    @property
    def n_users(self) -> int:
        """How many users a model trained here knows; 0 where sessions are nobody's."""
        return self.dataset.n_users(self.train.name)

    @property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint

    def support(self) -> NDArray[np.int64]:
        """Events per item in ``train``, int64 [n_items]."""
        return np.bincount(self.train.items, minlength=self.n_items)


def _map_array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; prepare the dataset again") from None
    return array


def open_dataset(path: str | Path) -> Dataset:
    """Open a dataset directory; its arrays are mapped when used, and shared between processes.

    Raises:
        DataError: this is no dataset directory, it is of another format version, or files of it
            are missing or of the wrong size.
    """
    path = Path(path)
    meta = _read_meta(path)
    if meta.get("format") != FORMAT:
        raise DataError(
            f"{path} has format version {meta.get('format')}, this paropt reads {FORMAT};"
            " prepare it again"
        )
    for relative, size in files_of_meta(meta).items():
        try:
            found = (path / relative).stat().st_size
        except OSError:
            raise DataError(f"{path} lacks {relative}; prepare it again") from None
        if found != size:
            raise DataError(
                f"{path / relative} has {found} bytes instead of {size}; prepare it again"
            )
    return Dataset(path, meta)


def files_of_meta(meta: Mapping[str, Any]) -> dict[str, int]:
    """The files of a dataset directory beside ``meta.json``, and how many bytes each has."""
    files = dict(meta["files"])
    for added in additions(meta).values():
        files |= {f"{added.folder}/{name}": size for name, size in added.files.items()}
    return files


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "has no meta.json" if path.is_dir() else "does not exist"
        raise DataError(
            f"{path} is no dataset directory (it {what});"
            " 'paropt prepare EVENTS --out DIR' makes one"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no dataset directory: meta.json: {error}") from None
    if not isinstance(meta, dict) or "format" not in meta:
        raise DataError(f"{path} is no dataset directory: its meta.json is another program's")
    return meta


# -- writing --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Content:
    """All that a dataset directory will hold.

    ``fields`` are the arrays of :mod:`paropt.data.features.fields` but for the columns of events,
    by path; ``large`` writes those of them that are too large for memory. Splits are asked for one
    by one, and may be made only then.
    """

    splits: Mapping[str, SplitArrays]
    items: pa.Array
    fields: Mapping[str, NDArray[Any]]
    meta: Mapping[str, Any]
    large: Mapping[str, Write] = field(default_factory=dict)

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Every array with its path in the directory, without ``.npy``."""
        for split in self.splits:
            for name, array in self.splits[split].named().items():
                yield f"splits/{split}/{name}", array
        yield from self.fields.items()


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse a place that a dataset cannot be written to, before any work is done.

    Raises:
        DataError: ``out`` exists and is not to be, or must not be, replaced.
    """
    if not (out.exists() or out.is_symlink()):
        above = next(parent for parent in out.absolute().parents if parent.exists())
        if not above.is_dir():
            raise DataError(f"{out} cannot be written: {above} is a file; choose another --out")
        return
    if not out.is_dir():
        raise DataError(f"{out} is a file, not a directory; choose another --out")
    if not overwrite:
        raise DataError(f"{out} exists; choose another --out, or say --overwrite to replace it")
    if "fingerprint" not in _read_meta(out):
        raise DataError(f"{out} is not a dataset of paropt, so it is not overwritten")


def write_dataset(out: Path, content: Content, overwrite: bool) -> Dataset:
    """Write beside ``out``, flush, rename: ``out`` is never there by half.

    Raises:
        DataError: ``out`` exists (see :func:`check_out`), or cannot be written.
    """
    check_out(out, overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}") from None
    try:
        _fill(beside, content)
        _put_in_place(beside, out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return open_dataset(out)


def _fill(path: Path, content: Content) -> None:
    path.chmod(0o777 & ~_umask())
    digests: dict[str, str] = {}
    names: list[str] = []
    for name, write in content.large.items():
        missing = write(path / f"{name}.npy")
        names.append(_save(path, name.removesuffix("rows") + "missing", missing))
        digests[name] = digest_of(path / f"{name}.npy")
    for name, array in content.arrays():
        names.append(_save(path, name, array))
    table = pa.table({"id": content.items})
    pa.parquet.write_table(table, path / "items.parquet", compression="zstd")
    files = {file: (path / file).stat().st_size for file in _files(path)}
    rules = content.meta["rules"]
    named = (
        (name, digests[name] if name in digests else _map_array(path / f"{name}.npy"))
        for name in sorted([*names, *digests])
    )
    meta = {
        "format": FORMAT,
        "fingerprint": fingerprint(rules, content.items, named),
        **content.meta,
        "files": files,
    }
    text = json.dumps(meta, indent=1, ensure_ascii=False)
    (path / "meta.json").write_text(text + "\n", encoding="utf-8")
    for file in [*(path / name for name in files), path / "meta.json"]:
        _flush(file)


def _save(path: Path, name: str, array: NDArray[Any]) -> str:
    file = path / f"{name}.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, array, allow_pickle=False)
    return name


def _files(path: Path) -> list[str]:
    return sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())


def _put_in_place(beside: Path, out: Path) -> None:
    if out.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent)) / "dataset"
        out.rename(old)
        try:
            beside.rename(out)
        except OSError:
            old.rename(out)
            raise
        finally:
            shutil.rmtree(old.parent, ignore_errors=True)
    else:
        beside.rename(out)
    _flush(out.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
