"""The events of every user that a saved model can read: of a dataset, or of a log as it is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.dataset import Dataset, Split
from paropt.data.log.options import Options
from paropt.data.log.sessions_file import Asked, read_asked
from paropt.data.log.values.ids import names_no_value
from paropt.errors import DataError
from paropt.training.batches.events import Events, Ints, known_events, together
from paropt.training.recommending.dataset_events import split_events
from paropt.training.recommending.new_sessions import file_events
from paropt.training.saved_model.saved import SavedModel

EVERYTHING = ("train_full", "test")  # which hold all events of a dataset
_VISIT = re.compile(r"-\d+$")  # what --session-gap puts behind a user's id


@dataclass(frozen=True)
class Users:
    """One session per user: ``ids`` [U] text, and the ``events`` [U sessions] that are known.

    ``unknown`` more users have no item that the model knows, ``nameless`` sessions are nobody's.
    ``several``: users have several sessions, of which each one's latest is here. ``named``: it is
    known whose sessions they are; else each is a user. ``identity`` is a digest of all of it.
    """

    ids: pa.Array
    events: Events
    unknown: int
    nameless: int
    several: bool
    identity: str
    named: bool = True
    notes: Sequence[str] = ()


def users_of_dataset(saved: SavedModel, dataset: Dataset, split: str = "all") -> Users:
    """The users of a split; "all": of all that the dataset has, ``train_full`` and ``test``.

    A user is who ``prepare --user-key`` told; else whose log was cut at gaps; else a session. Every
    event of the split counts, also those that an evaluation would predict.

    Raises:
        DataError: the model knows none of the items, or the split has no events.
    """
    names = EVERYTHING if split == "all" else (split,)
    there = [name for name in names if dataset.split(name).n_events]
    if not there:
        raise DataError(
            f"{dataset.path} has no events in its split {split}; choose another --split"
        )
    needs = saved.knowledge.needs
    parts = [
        known_events(split_events(saved, dataset, name), saved.n_items, needs) for name in there
    ]
    ids = [user_of_sessions(dataset, dataset.split(name)) for name in there]
    found = latest(pa.concat_arrays(ids), together(parts), str(dataset.path))
    gap = dataset.meta["rules"].get("session_gap_ms")
    of_users = dataset.has_users or dataset.protocol != "time"
    several = found.several and dataset.protocol != "leave-one-out"  # a part of it and the whole
    return replace(found, several=several, named=of_users or gap is not None)


def user_of_sessions(dataset: Dataset, split: Split) -> pa.Array:
    """The id of each session's user [S], null where nobody is named."""
    if "users" in dataset.meta and split.users is not None:
        ids = pa.array(dataset.user_ids(), pa.string())
        users = np.asarray(split.users)
        return ids.take(pa.array(users, mask=users < 0))
    ids = pa.array(split.session_ids(), pa.string())
    if dataset.meta["rules"].get("session_gap_ms") is None:
        return ids
    return pc.replace_substring_regex(ids, _VISIT.pattern, "")


def users_of_log(saved: SavedModel, path: Path, options: Options) -> Users:
    """The users of a log that is read as the one that the model was trained on.

    Raises:
        DataError, ModelError: the file cannot be used.
    """
    knowledge = saved.knowledge
    user_key = options.user_key or saved.meta.get("user_key")
    further = [*knowledge.sources.values(), *filter(None, (user_key, knowledge.user_key))]
    asked = read_asked(path, options, saved.meta.get("log"), further)
    return users_of_asked(saved, asked, options.user_key)


def users_of_asked(saved: SavedModel, asked: Asked, user_key: str | None = None) -> Users:
    """The users of events that were read; ``user_key`` is by default that of the model's log.

    Raises:
        DataError, ModelError: the model can read none of them.
    """
    events, notes = file_events(asked, saved, user_key)
    if not saved.knowledge.needs.unknown_items:
        events = events.take(events.items < saved.n_items)
    log = saved.meta.get("log") or {}
    words_are_ids = bool(log.get("words_are_ids") or log.get("text_ids"))
    ids = _user_of_asked(asked, user_key or saved.meta.get("user_key"), words_are_ids)
    return replace(latest(ids, events, str(asked.path)), notes=notes)


def _user_of_asked(asked: Asked, user_key: str | None, words_are_ids: bool) -> pa.Array:
    """The id of each session's user [S]: the first that its events name; null where none does."""
    if user_key is None or user_key not in asked.table.column_names:
        return pa.array(asked.sessions, pa.string())
    named = asked.table.column(user_key).take(pa.array(asked.events.row))
    ids = pc.utf8_trim_whitespace(pc.cast(named, pa.string())).combine_chunks()
    none = pc.equal(ids, "")
    if not words_are_ids:
        none = pc.or_(none, names_no_value(ids))
    none = pc.fill_null(none, True)
    users = pc.dictionary_encode(pc.if_else(none, pa.scalar(None, pa.string()), ids))
    codes = pc.fill_null(users.indices, -1).to_numpy(zero_copy_only=False)
    found = replace(asked.events, user=codes).session_users()
    return users.dictionary.take(pa.array(found, mask=found < 0))


def latest(ids: pa.Array, events: Events, where: str) -> Users:
    """Of each user the session that ends last; of such that end together, the one named last.

    Raises:
        DataError: no session has an event.
    """
    names = pc.dictionary_encode(ids)
    codes = pc.fill_null(names.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    sizes = np.diff(events.offsets)
    usable = np.flatnonzero((codes >= 0) & (sizes > 0))
    if not len(usable):
        raise DataError(f"no user of {where} has an item that the model knows; is this its data?")
    chosen = _last_of_each(codes[usable], events.times[events.offsets[1:][usable] - 1])
    chosen = usable[chosen]
    found = names.dictionary.take(pa.array(codes[chosen]))
    kept = events.choose(chosen)
    return Users(
        ids=found,
        events=kept,
        unknown=len(names.dictionary) - len(chosen),
        nameless=int(np.count_nonzero(codes < 0)),
        several=len(usable) > len(chosen),
        identity=_digest(found, kept),
    )


def _last_of_each(codes: Ints, ends: Ints) -> Ints:
    """Of each code's sessions the one with the greatest end, in the sessions' order."""
    order = np.lexsort((np.arange(len(codes)), ends, codes))
    last = np.append(np.flatnonzero(np.diff(codes[order])), len(order) - 1)
    return np.sort(order[last])


def _digest(ids: pa.Array, events: Events) -> str:
    digest = hashlib.sha256()
    arrays: list[NDArray[Any]] = [events.items, events.times, events.offsets]
    arrays += [events.columns[name] for name in sorted(events.columns)]
    for array in (*arrays, *([] if events.users is None else [events.users])):
        digest.update(np.ascontiguousarray(array).tobytes())
    for text in ids.to_pylist():
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()
