"""What a saved model remembers of users: as a table, without one of them, moved by new sessions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from torch import Tensor

from paropt.errors import DataError
from paropt.training.batches.plans import query_batches
from paropt.training.evaluation.ranking.judging import ROWS
from paropt.training.fitting.memory import facts_of, write_memory
from paropt.training.recommending.new_sessions import Sessions
from paropt.training.saved_model.saved import SavedModel

USER = "user"  # the tensor of a memory that says whose a row is


def export(saved: SavedModel, directory: Path, path: Path) -> int:
    """Write a memory as Parquet, a row for each of its rows; how many there were.

    ``user`` is the user's id; what a row has several numbers of is a list.

    Raises:
        DataError: there is no memory, or the file exists or cannot be written.
    """
    memory = _memory(saved, directory)
    if path.exists():
        raise DataError(f"{path} exists; choose another file to export to, or remove it")
    if not path.absolute().parent.is_dir():
        raise DataError(f"{path} cannot be written: there is no folder {path.parent}")
    columns = {name: _column(saved, name, rows) for name, rows in memory.items()}
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pa.parquet.write_table(pa.table(columns), beside, compression="zstd")
        beside.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        beside.unlink(missing_ok=True)
    return len(next(iter(memory.values()), ()))


def _column(saved: SavedModel, name: str, rows: Tensor) -> pa.Array:
    values = rows.cpu()
    if name == USER:
        ids = saved.knowledge.user_ids
        return pa.array([str(ids[user]) for user in values.tolist()], pa.string())
    if values.dim() == 1:
        return pa.array(values.numpy())
    width = values[0].numel() if len(values) else int(np.prod(values.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1).numpy()), width)


def forget_user(saved: SavedModel, directory: Path, user: str) -> int:
    """Let the model forget one user, on the disk too; how many rows that were.

    Raises:
        DataError: there is no memory of users, or no such user, or it cannot be written.
    """
    memory = _memory(saved, directory)
    if USER not in memory:
        raise DataError(f"{directory} remembers no users, so it can forget everything only")
    index = row_of(saved, directory, user)
    kept = memory[USER] != index
    saved.model.load_memory({name: rows[kept] for name, rows in memory.items()})
    _write(saved, directory)
    return int((~kept).sum())


def row_of(saved: SavedModel, directory: Path, user: str) -> int:
    """A user's index.

    Raises:
        DataError: the model knows no such user.
    """
    ids = list(saved.knowledge.user_ids)
    if user not in ids:
        example = f", but {ids[0]!r}, say" if ids else ""
        raise DataError(f"{directory} knows no user {user!r}{example}")
    return ids.index(user)


def one_user(saved: SavedModel, directory: Path, user: str) -> dict[str, Any] | None:
    """What is remembered of one user, by name; None: nothing.

    Raises:
        DataError: as :func:`forget_user`.
    """
    memory = _memory(saved, directory)
    if USER not in memory:
        raise DataError(f"{directory} remembers no users")
    (rows,) = (memory[USER] == row_of(saved, directory, user)).nonzero(as_tuple=True)
    if not len(rows):
        return None
    return {name: kept[int(rows[0])].tolist() for name, kept in memory.items() if name != USER}


def check_memory(saved: SavedModel, directory: Path) -> None:
    """Raises a DataError unless there is a memory."""
    _memory(saved, directory)


def update(saved: SavedModel, directory: Path, sessions: Sessions) -> int:
    """Move the memory by what happened in sessions, and write it back; how many users that were.

    Raises:
        DataError: there is no memory, or it cannot be written.
    """
    _memory(saved, directory)
    model, wanted = saved.model, saved.knowledge.needs.wanted
    events = sessions.events
    moved = 0
    with torch.no_grad():
        for batch in query_batches(events, model.max_length, ROWS, model.device, wanted):
            moved += model.update_memory(batch)
    _write(saved, directory)
    return moved


def _memory(saved: SavedModel, directory: Path) -> dict[str, Tensor]:
    if facts_of(saved.model) is None:
        why = "it is turned off" if saved.model.MEMORY else "it has none"
        raise DataError(f"{directory} is a {saved.meta['model']} without a memory: {why}")
    return saved.model.memory()


def _write(saved: SavedModel, directory: Path) -> None:
    try:
        write_memory(directory, saved.meta, saved.model)
    except OSError as error:
        raise DataError(f"{directory} cannot be written: {error.strerror or error}") from None
