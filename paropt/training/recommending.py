"""Next items for sessions that were never in a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from paropt.data.events import Events as RawEvents
from paropt.data.events import in_order
from paropt.data.ids import encode_ids
from paropt.data.reading import Layout, look_at, read_columns
from paropt.data.times import to_milliseconds, to_numbers
from paropt.errors import ModelError
from paropt.training.events import Events
from paropt.training.knowledge import Knowledge
from paropt.training.plans import query_batches
from paropt.training.ranking import (
    ROWS,
    exclude_items,
    products,
    queries,
    scores_of,
    seen_items,
)
from paropt.training.registry import scores_itself
from paropt.training.saved import SavedModel

CHUNK = 1 << 14  # sessions that are answered together


@dataclass(frozen=True)
class Sessions:
    """Sessions of a file, in its order: ``ids`` [S] and the ``events`` that the model knows.

    ``events`` end every session with a placeholder for what comes next. ``notes`` say what the
    file lacks that the model reads.
    """

    ids: Sequence[str]
    events: Events
    n_unknown: int
    notes: Sequence[str] = ()

    @property
    def empty(self) -> list[str]:
        """The sessions without a known item."""
        sizes = np.diff(self.events.offsets)
        return [self.ids[session] for session in np.flatnonzero(sizes == 1).tolist()]


@dataclass(frozen=True)
class Recommendation:
    """For one session, the best items first, with their scores."""

    session: str
    items: list[str]
    scores: list[float]


def read_sessions(
    path: Path,
    item_ids: NDArray[Any],
    *,
    session_key: str = "SessionId",
    item_key: str = "ItemId",
    time_key: str = "Time",
    order_column: str | None = None,
    user_key: str | None = None,
    knowledge: Knowledge | None = None,
) -> Sessions:
    """Read sessions from TSV, CSV or Parquet; items that are not in ``item_ids`` are skipped.

    ``knowledge`` is the model's: the columns that it reads come from columns of the same names,
    users from ``user_key`` (by default the one of its training data, or the session where each
    session was a user's). What the file lacks is unknown.

    Raises:
        DataError: the file cannot be used.
    """
    layout = look_at(path)
    key = order_column or time_key
    knowledge = knowledge or Knowledge()
    user_key = user_key or knowledge.user_key or session_key
    more, notes = _further(layout, knowledge, user_key)
    keys = [session_key, item_key, key, *more]
    table, place = read_columns([layout], list(dict.fromkeys(keys)))
    session, names = encode_ids(table.column(session_key), session_key, place, as_text=True)
    item, vocabulary = encode_ids(table.column(item_key), item_key, place, as_text=True)
    if order_column is None:
        time = to_milliseconds(table.column(key), key, place)
    else:
        time = to_numbers(table.column(key), key, place, "order")
    rows = np.arange(len(session))
    read = [name for name in more if name in knowledge.columns]
    columns = {name: knowledge.encoded(name, table.column(name)) for name in read}
    user = None
    if knowledge.needs.who and user_key in more:
        user = knowledge.users(table.column(user_key))
    raw = in_order(RawEvents(session, item, time, rows, columns, user))

    known = pc.index_in(vocabulary, value_set=pa.array(item_ids, pa.string()))
    items = pc.fill_null(known, -1).to_numpy(zero_copy_only=False)[raw.item]
    kept = items >= 0
    events = Events(
        items=items.astype(np.int32),
        times=raw.time.astype(np.int64),
        targets=np.zeros(len(items), bool),
        offsets=np.concatenate(([0], np.cumsum(np.bincount(raw.session, minlength=len(names))))),
        columns=_complete(knowledge, raw.columns, len(items)),
        users=_users(knowledge, raw, len(names)),
    )
    events = events.take(kept).with_queries()
    return Sessions(names.to_pylist(), events, int(np.count_nonzero(~kept)), notes)


def _further(layout: Layout, knowledge: Knowledge, user_key: str) -> tuple[list[str], list[str]]:
    """The columns that the model reads and the file has, and what to say of those it lacks."""
    asked = list(knowledge.columns)
    if knowledge.needs.who:
        asked.append(user_key)
    told = f"{layout.path} has no column {{!r}}, which the model reads, so it is unknown throughout"
    lacking = [name for name in dict.fromkeys(asked) if name not in layout.names]
    return [name for name in asked if name not in lacking], [told.format(n) for n in lacking]


def _complete(
    knowledge: Knowledge, columns: Mapping[str, NDArray[Any]], n_events: int
) -> dict[str, NDArray[Any]]:
    """Every column that the model reads, unknown throughout where the file lacks it."""
    return {
        name: columns.get(
            name,
            np.full(n_events, np.nan, np.float32)
            if kept.kind == "number"
            else np.full(n_events, -1, np.int32),
        )
        for name, kept in knowledge.columns.items()
    }


def _users(knowledge: Knowledge, raw: RawEvents, n_sessions: int) -> NDArray[np.int32] | None:
    """Each session's user [S]: that of its first event."""
    if not knowledge.needs.who:
        return None
    users = np.full(n_sessions, -1, np.int32)
    if raw.user is not None:
        starts = raw.starts()
        users[raw.session[starts]] = raw.user[starts]
    return users


def recommend(
    saved: SavedModel, sessions: Sessions, top: int = 20, filter_seen: bool = False
) -> Iterator[Recommendation]:
    """The ``top`` items for each session that has a known item, in the sessions' order.

    ``filter_seen`` leaves out the items of the session.

    Raises:
        ModelError: the model does not score items.
    """
    for begin in range(0, len(sessions.ids), CHUNK):
        found: dict[int, tuple[list[int], list[float]]] = {}
        try:
            events = sessions.events.sessions(begin, begin + CHUNK)
            for session, best in _recommend(saved, events, top, filter_seen):
                found[begin + session] = best
        except NotImplementedError as error:
            raise ModelError(f"model {saved.meta['model']!r} cannot recommend: {error}") from None
        for session in sorted(found):
            items, scores = found[session]
            ids = [str(saved.item_ids[item]) for item in items]
            yield Recommendation(sessions.ids[session], ids, scores)


def _recommend(
    saved: SavedModel, events: Events, top: int, filter_seen: bool
) -> Iterator[tuple[int, tuple[list[int], list[float]]]]:
    model = saved.model
    wanted = saved.knowledge.needs.wanted
    batches = query_batches(events, model.max_length, ROWS, model.device, wanted)
    if batches.total == 0:
        return
    with torch.no_grad():
        table, bias = (None, None) if scores_itself(model) else model.item_table()
        for batch in queries(batches):
            asked = batch.histories[:, 1].cpu().numpy()
            exclude = seen_items(batch.histories, batches.store.items) if filter_seen else None
            if table is None:
                scores = scores_of(model, batch)
            else:
                scores = products(model.encode(batch).float(), table.float(), bias)
            best = _top(scores, top, exclude)
            session = np.searchsorted(events.offsets, asked, side="right") - 1
            yield from zip(session.tolist(), best, strict=True)


def _top(
    chunks: Iterable[torch.Tensor], top: int, exclude: tuple[torch.Tensor, torch.Tensor] | None
) -> Iterator[tuple[list[int], list[float]]]:
    """The best items and scores of each row of scores."""
    begin = 0
    for scores in chunks:
        if exclude is not None:
            exclude_items(scores, begin, *exclude)
        begin += len(scores)
        best = torch.topk(scores, min(top, scores.shape[1]))
        for items, values in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            finite = [value > -np.inf for value in values]
            yield (
                [item for item, ok in zip(items, finite, strict=True) if ok],
                [value for value in values if value > -np.inf],
            )
