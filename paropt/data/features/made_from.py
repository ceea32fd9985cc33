"""Texts of users that were written from events say from which: only training's will do.

``paropt describe`` puts :func:`training_mark` into a column ``made_from`` of what it writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paropt.data.encoding import unpack_ids
from paropt.data.features.tables import Fields
from paropt.errors import DataError

COLUMN, WRITTEN_BY = "made_from", "written_by"


def training_mark(
    sessions: NDArray[Any], offsets: NDArray[np.int64], items: NDArray[np.int32], ids: list[str]
) -> str:
    """``train-`` and 16 digits, others for every other split ``train``.

    ``sessions`` [S] are packed ids, ``items`` [E] indices into ``ids``.
    """
    digest = hashlib.sha256("\0".join(map(str, unpack_ids(sessions).tolist())).encode())
    digest.update(np.ascontiguousarray(offsets, "<i8").tobytes())
    digest.update(np.ascontiguousarray(items, "<i4").tobytes())
    known = int(items.max(initial=-1)) + 1
    digest.update("\0".join(ids[:known]).encode())
    return f"train-{digest.hexdigest()[:16]}"


def forget_writer(fields: Fields) -> None:
    """Who wrote a text is no feature of what it is about."""
    fields.pop(WRITTEN_BY, None)


def check_made_from(path: Path, fields: Fields, mark: str, note: Callable[[str], None]) -> None:
    """Take the column ``made_from`` out of a users' table, if it has this split's mark throughout.

    Raises:
        DataError: it has another one: what it tells may come from events that are predicted here.
    """
    made = fields.pop(COLUMN, None)
    forget_writer(fields)
    texts = [name for name, field in fields.items() if field.kind == "text"]
    if made is None:
        if texts:
            note(
                f"warning: {path} does not say which events {', '.join(texts)} was written from; if"
                " from those of valid or test, every number on them knows the answer ('paropt"
                " describe' writes texts from training events only)"
            )
        return
    told = [] if made.vocabulary is None else unpack_ids(made.vocabulary).tolist()
    if told != [mark]:
        raise DataError(
            f"{path}: its texts were written from other events ({', '.join(map(str, told[:2]))})"
            f" than the training part of this log ({mark}), and may know what valid and test ask"
            " for; write them anew: paropt describe"
        )
