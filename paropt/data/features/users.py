"""Whose sessions they are: told by a column, or, one sequence per user, by the sessions' ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.encoding import unpack_ids
from paropt.data.events import Events, Ints
from paropt.data.log.values.ids import encode_ids, missing_ids
from paropt.data.reading.read import Place


def encode_users(
    column: pa.ChunkedArray, name: str, place: Place, as_text: bool, words_are_ids: bool
) -> tuple[Ints, pa.Array]:
    """Codes [rows] into a vocabulary of users; −1 where a row names none, or says so in a word.

    Raises:
        DataError: as :func:`paropt.data.log.values.ids.encode_ids`, or no row names a user.
    """
    missing = missing_ids(column, name, place, words=not (as_text or words_are_ids))
    if missing.all():
        raise place.refuse(name, "names no user in any row; leave --user-key out, or name another")
    if not missing.any():
        return encode_ids(column, name, place, as_text, words_are_ids)
    one = column[int(np.argmin(missing))]
    filled = pc.if_else(pa.array(missing), one, column)
    codes, users = encode_ids(filled, name, place, as_text, words_are_ids)
    return np.where(missing, -1, codes).astype(np.int32), users


def shared_sessions(splits: Iterable[Events]) -> int:
    """How many sessions hold events of several users; whose event names none is nobody else."""
    found: set[int] = set()
    for events in splits:
        if events.user is None:
            continue
        named = events.take(events.user >= 0)
        assert named.user is not None
        other = named.user[1:] != named.user[:-1]
        same_session = named.session[1:] == named.session[:-1]
        found.update(np.unique(named.session[1:][other & same_session]).tolist())
    return len(found)


@dataclass(frozen=True)
class SessionUsers:
    """Users of a dataset in which every session is a user's whole history.

    ``ids``, packed or text, are those of the sessions of train, then train_full, then the rest;
    ``of_split`` has the user of each session by split.
    """

    ids: NDArray[Any]
    n_train: int
    n_train_full: int
    of_split: dict[str, NDArray[np.int32]]

    def texts(self) -> NDArray[Any]:
        """The ids as text."""
        return self.ids if self.ids.dtype == object else unpack_ids(self.ids)


def users_of_sessions(ids: dict[str, NDArray[Any]]) -> SessionUsers:
    """An index of the sessions' packed ids [S] by split; an id is one user in every split."""
    order = ("train", "train_full", "valid", "test")
    if all(np.array_equal(ids["train"], ids[name]) for name in order[1:]):
        same = np.arange(len(ids["train"]), dtype=np.int32)
        return SessionUsers(ids["train"], len(same), len(same), dict.fromkeys(order, same))
    index: dict[str, int] = {}
    of_split, counts = {}, {}
    for name in order:
        found = [index.setdefault(one, len(index)) for one in unpack_ids(ids[name])]
        of_split[name], counts[name] = np.array(found, dtype=np.int32), len(index)
    return SessionUsers(
        np.array(list(index), dtype=object), counts["train"], counts["train_full"], of_split
    )
