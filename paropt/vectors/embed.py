"""From a saved model to vectors in their place: what ``paropt embed`` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paropt.data.dataset import open_dataset
from paropt.data.log.options import Options
from paropt.training.recommending.dataset_events import foreign, is_own
from paropt.training.recommending.user_events import Users, users_of_dataset, users_of_log
from paropt.training.recommending.vectors import ItemVectors, UserVectors, version_of
from paropt.training.recommending.wanted import unsaid, wanted_values
from paropt.training.saved_model.saved import SavedModel, load_model
from paropt.vectors.about import About, What
from paropt.vectors.store import Note, Store

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """Whose vectors, of which model. ``data`` is a dataset directory, or with ``log`` (how it is
    read) an event file; items need none."""

    model: Path
    data: Path | None = None
    log: Options | None = None
    what: What = "users"
    split: str = "all"
    want: Sequence[str] = ()
    device: str = "cpu"


@dataclass(frozen=True)
class Embedded:
    """What ``paropt embed --json`` prints; see docs/json.md."""

    to: str
    what: str
    model: str
    version: str
    dimension: int
    bias: bool
    split: str | None
    vectors: int
    there: int
    unknown: int
    nameless: int
    compared: int
    seconds: float
    writing: float
    vectors_per_second: float
    warnings: list[str]


def embed(request: Request, store: Store, note: Note, progress: Progress) -> Embedded:
    """Write the vectors of every user, or item, of a request; go on where a killed run ended.

    ``note`` remarks, ``progress`` is told how many of how many are there.

    Raises:
        ParoptError: whatever of it cannot be done.
    """
    began = time.perf_counter()
    saved = load_model(request.model, request.device)
    users = _users(request, saved, note)
    source = ItemVectors(saved) if users is None else _of_users(request, saved, users, note)
    about = About(
        what=request.what,
        model=str(saved.meta["model"]),
        version=version_of(request.model),
        dimension=source.dimension,
        bias=source.has_bias,
        data=users.identity if users is not None else "",
        split=request.split if users is not None and request.log is None else None,
        want=", ".join(request.want),
        count=len(source.ids),
    )
    if about.bias:
        last = "each item's bias" if users is None else "1, for the items' biases"
        note(f"the last of the {about.dimension} dimensions is {last}")
    try:
        there = store.begin(about, source.ids, note)
        if there:
            note(f"{there:,} of {about.count:,} vectors are there already: going on with the rest")
        writing = _write(store, source.blocks(there), there, about.count, progress)
        began_end = time.perf_counter()
        written = store.finish()
        writing += time.perf_counter() - began_end
    finally:
        store.close()
    seconds = time.perf_counter() - began
    return Embedded(
        to=str(store),
        what=request.what,
        model=about.model,
        version=about.version,
        dimension=about.dimension,
        bias=about.bias,
        split=about.split,
        vectors=about.count,
        there=there,
        unknown=users.unknown if users is not None else 0,
        nameless=users.nameless if users is not None else 0,
        compared=written.compared,
        seconds=seconds,
        writing=writing,
        vectors_per_second=(about.count - there) / seconds,
        warnings=written.warnings,
    )


def _of_users(request: Request, saved: SavedModel, users: Users, note: Note) -> UserVectors:
    wanted = wanted_values(saved, request.want)
    for line in unsaid(saved, wanted):
        note(line)
    return UserVectors(saved, users, wanted)


def _write(
    store: Store,
    blocks: Iterator[NDArray[np.float32]],
    there: int,
    count: int,
    progress: Progress,
) -> float:
    """Write every block in the store's batches; the seconds that went into writing."""
    spent, first = 0.0, there
    for block in blocks:
        for begin in range(0, len(block), store.batch):
            since = time.perf_counter()
            part = block[begin : begin + store.batch]
            store.write(first, part)
            first += len(part)
            spent += time.perf_counter() - since
            progress(first, count)
    return spent


def _users(request: Request, saved: SavedModel, note: Note) -> Users | None:
    """The users whose vectors are asked for, with what is to be said of them; None for items."""
    if request.what == "items":
        return None
    assert request.data is not None
    if request.log is not None:
        users = users_of_log(saved, request.data, request.log)
    else:
        dataset = open_dataset(request.data)
        if dataset.protocol == "long-short":
            note(
                "users whom 'paropt prepare' left out, and events between the two parts, are not"
                " among these; the log in place of the dataset has all"
            )
        if not is_own(saved, dataset):
            note(foreign(saved, dataset, request.model))
        users = users_of_dataset(saved, dataset, request.split)
        note(_which(saved, request.split, users))
    for line in (*users.notes, *_remarks(users)):
        note(line)
    return users


def _which(saved: SavedModel, split: str, users: Users) -> str:
    """Which events of a dataset make a user's vector."""
    most = saved.model.max_length
    latest = "all events" if most is None else f"the latest {most} events"
    of = "train_full and test" if split == "all" else split
    who = "session, since nobody says whose it is" if not users.named else "user"
    return f"{latest} of {of}, for each {who}"


def _remarks(users: Users) -> Iterator[str]:
    if users.several:
        yield "users have several sessions: each one's latest is taken"
    if users.unknown:
        why = "since the model knows none of their items"
        yield f"users without a vector, {why}: {users.unknown:,}"
    if users.nameless:
        yield f"sessions without a vector, since they name no user: {users.nameless:,}"
