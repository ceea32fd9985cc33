"""Next items for sessions that were never in a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from paropt.data.reading import look_at, read_columns
from paropt.data.times import to_milliseconds, to_numbers
from paropt.errors import ModelError
from paropt.training.plans import Events, query_batches
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

    ``events`` end every session with a placeholder for what comes next.
    """

    ids: Sequence[str]
    events: Events
    n_unknown: int

    def slice(self, begin: int) -> Events:
        """The events of :data:`CHUNK` sessions."""
        offsets = self.events.offsets[begin : begin + CHUNK + 1]
        low, high = offsets[0], offsets[-1]
        events = self.events
        return Events(
            events.items[low:high],
            events.times[low:high],
            events.targets[low:high],
            offsets - low,
            unknown=0,
        )

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
) -> Sessions:
    """Read sessions from TSV, CSV or Parquet; items that are not in ``item_ids`` are skipped.

    Raises:
        DataError: the file cannot be used.
    """
    layout = look_at(path)
    key = order_column or time_key
    table, place = read_columns([layout], list(dict.fromkeys([session_key, item_key, key])))
    session, names = encode_ids(table.column(session_key), session_key, place, as_text=True)
    item, vocabulary = encode_ids(table.column(item_key), item_key, place, as_text=True)
    if order_column is None:
        time = to_milliseconds(table.column(key), key, place)
    else:
        time = to_numbers(table.column(key), key, place, "order")
    rows = np.arange(len(session))
    raw = in_order(RawEvents(session, item, time, rows))

    known = pc.index_in(vocabulary, value_set=pa.array(item_ids, pa.string()))
    items = pc.fill_null(known, -1).to_numpy(zero_copy_only=False)[raw.item]
    kept = items >= 0
    events = _with_placeholders(
        raw.session[kept], items[kept], raw.time[kept].astype(np.int64), len(names)
    )
    return Sessions(names.to_pylist(), events, int(np.count_nonzero(~kept)))


def _with_placeholders(
    session: NDArray[Any], items: NDArray[Any], times: NDArray[np.int64], n_sessions: int
) -> Events:
    """One more event at the end of each session, the only target: it is what a model predicts."""
    sizes = np.bincount(session, minlength=n_sessions)
    ends = np.cumsum(sizes)
    # asked for at the time of the session's last event
    last = times[np.maximum(ends - 1, 0)] if len(times) else np.zeros(n_sessions, np.int64)
    return Events(
        items=np.insert(items, ends, 0).astype(np.int32),
        times=np.insert(times, ends, last),
        targets=np.insert(np.zeros(len(items), dtype=bool), ends, True),
        offsets=np.concatenate(([0], ends + np.arange(1, n_sessions + 1))),
        unknown=0,
    )


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
            for session, best in _recommend(saved, sessions.slice(begin), top, filter_seen):
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
    batches = query_batches(events, model.max_length, ROWS, model.device)
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
