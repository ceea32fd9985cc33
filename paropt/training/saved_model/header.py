"""What a saved model's directory says of itself, read without torch: what it is, what it knows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from paropt.data.log.command import moment_text
from paropt.data.log.rules import PART
from paropt.errors import DataError


@dataclass(frozen=True)
class Header:
    """``model.json``, and the table of items: row i holds the ``id`` of item i, perhaps names."""

    directory: Path
    meta: Mapping[str, Any]
    items: pa.Table

    @property
    def item_ids(self) -> Sequence[str]:
        ids: Sequence[str] = self.items.column("id").to_pylist()
        return ids

    @property
    def log(self) -> Mapping[str, Any]:
        """How the log that the model was trained on was written; empty before paropt 0.2."""
        log: Mapping[str, Any] = self.meta.get("log") or {}
        return log

    @property
    def sources(self) -> dict[str, str]:
        """Where in a log each column that the model may read comes from."""
        return sources_of(self.meta.get("facts", {}).get("columns", {}), self.log)

    def names(self, column: str | None) -> Sequence[str | None] | None:
        """The items' names from a column of their table, by default the one that is there.

        Raises:
            DataError: it is not there.
        """
        kept = [name for name in self.items.column_names if name != "id"]
        if column is None:
            column = kept[0] if kept else None
        elif column not in kept:
            there = f"only {', '.join(kept)}" if kept else "nor any other"
            raise DataError(
                f"{self.directory} keeps no column {column!r} of its items, {there}; give a table"
                " that has it with --items"
            )
        return None if column is None else self.items.column(column).to_pylist()


def read_header(directory: Path) -> Header:
    """What a saved model is and knows.

    Raises:
        DataError: it is none, or its table of items was changed.
    """
    require_files(directory)
    try:
        meta = json.loads((directory / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{directory} cannot be used as a model: {error}") from None
    if not isinstance(meta, dict):
        raise DataError(f"{directory} cannot be used as a model: model.json is no object")
    return Header(directory, meta, read_items(directory / "items.parquet", meta))


def sources_of(columns: Iterable[str], log: Mapping[str, Any]) -> dict[str, str]:
    """The columns' own names in the log that the model was trained on; a part (long or short) is no
    column of a log."""
    return {name: log.get(f"{name}_key") or name for name in columns if name != PART}


def has_seen_valid(meta: Mapping[str, Any], fingerprint: str) -> bool:
    """Whether a model with this ``model.json`` was trained on ``valid`` of these data: a value on
    it would then be one of remembering."""
    return meta.get("split") == "full" and meta.get("fingerprint") == fingerprint


def made_anew(told: Mapping[str, str], here: Mapping[str, str]) -> str:
    """The name of what was added to the items, as semantic ids, and is another thing now than by
    the digests that somebody was ``told``; "" where nothing is."""
    return next((name for name, digest in told.items() if here.get(name, digest) != digest), "")


class Timed(Protocol):
    """What is read of a split: times and targets [events], and where sessions begin."""

    @property
    def times(self) -> NDArray[np.int64]: ...
    @property
    def targets(self) -> NDArray[np.bool_]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...


def seen_by_then(meta: Mapping[str, Any], directory: Path, events: Timed, timed: bool) -> str:
    """What to say where targets are no later than the last event that the model with this
    ``model.json`` was trained on; "" where none is, nothing is known of it, or times are no times
    but an order (``timed``)."""
    last = meta.get("last_event")
    if last is None or not timed:
        return ""
    targets = events.targets.copy()
    targets[events.offsets[:-1][np.diff(events.offsets) > 0]] = False  # nothing comes before it
    early, n_targets = int(np.count_nonzero(events.times[targets] <= last)), int(targets.sum())
    if not early:
        return ""
    return (
        f"{early:,} of {n_targets:,} targets are no later than the last event that {directory} was"
        f" trained on ({moment_text(last)}): where it has seen them, a number on them is no test"
    )


def require_files(directory: Path) -> None:
    """Raises a DataError unless the files of a saved model are there."""
    for name in ("model.json", "model.safetensors", "items.parquet"):
        if not (directory / name).is_file():
            what = f"it has no {name}" if directory.is_dir() else "it is not there"
            raise DataError(
                f"{directory} is no saved model ({what}); 'paropt train --save' makes one"
            )


def read_items(path: Path, meta: Mapping[str, Any]) -> pa.Table:
    """The table of items, if it is the one that was saved.

    Raises:
        DataError: it is not, or cannot be read.
    """
    try:
        if sha256(path) != meta["items_sha256"]:
            raise DataError(f"{path} was changed since the model was saved")
        table = pa.parquet.read_table(path)
        table.column("id")
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    return table


def sha256(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
