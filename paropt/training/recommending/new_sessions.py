"""Next items for sessions that were never in a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from paropt.data.encoding import stranger_numbers
from paropt.data.events import Events as RawEvents
from paropt.data.log.filtering.filters import as_whole, as_wholes
from paropt.data.log.sessions_file import Asked, read_asked
from paropt.data.log.values.ids import names_no_value
from paropt.errors import ModelError
from paropt.training.batches.events import Events
from paropt.training.batches.plans import query_batches
from paropt.training.evaluation.ranking.judging import ROWS, queries, seen_items
from paropt.training.evaluation.ranking.ranks import exclude_items, products, scores_of
from paropt.training.recommending.offer import Offer
from paropt.training.recommending.wanted import unsaid, wanted_values
from paropt.training.registry import scores_itself
from paropt.training.saved_model.known_data import Knowledge
from paropt.training.saved_model.saved import SavedModel

EVERYTHING = Offer()
CHUNK = 1 << 14  # sessions that are answered together


@dataclass(frozen=True)
class Sessions:
    """Sessions of a file, in its order: ``ids`` [S] and the ``events`` that the model knows.

    ``events`` end every session with a placeholder for what comes next. ``notes`` say how the
    file was read, and what it lacks that the model reads.
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
    """For one session, the best items first, with their scores.

    ``popular``: nothing of the session is known, so these are the most popular items.
    """

    session: str
    items: list[str]
    scores: list[float]
    popular: bool = False


def read_sessions(path: Path, saved: SavedModel) -> Sessions:
    """A file read as the log that the model was trained on; see :func:`known_sessions`.

    Raises:
        DataError, ModelError: the file cannot be used.
    """
    knowledge = saved.knowledge
    further = [*knowledge.sources.values(), *([knowledge.user_key] if knowledge.user_key else [])]
    return known_sessions(read_asked(path, None, saved.meta.get("log"), further), saved)


def known_sessions(
    asked: Asked, saved: SavedModel, user_key: str | None = None, want: Sequence[str] = ()
) -> Sessions:
    """The events of a file that a model can read; items that it does not know are skipped.

    The columns that the model reads come from columns of the same names, users from ``user_key``
    (by default the one of its training data, or the session where each session was a user's).
    What the file lacks is unknown. ``want`` says what is wanted of the next event, in columns of
    which the model reads that: "click", or "action=click".

    Raises:
        DataError: the model knows no item of the file.
        ModelError: the model needs times, and the file has none; or it doesn't know what is wanted.
    """
    wanted = wanted_values(saved, want)
    events, notes = file_events(asked, saved, user_key)
    known = events.items < saved.n_items
    kept = known | saved.knowledge.needs.unknown_items
    events = replace(events, targets=np.zeros(len(kept), bool)).take(kept).with_queries(wanted)
    notes = [*notes, *unsaid(saved, wanted)]
    return Sessions(asked.sessions, events, int(np.count_nonzero(~known)), notes)


def file_events(
    asked: Asked, saved: SavedModel, user_key: str | None = None
) -> tuple[Events, list[str]]:
    """All events of a file as :func:`known_sessions` reads it, and what to say of it.

    Every event is a target; items that the model does not know have the index ``n_items``, or
    numbers of their own (:func:`paropt.data.encoding.stranger_numbers`) where it reads them.

    Raises:
        DataError, ModelError: as :func:`known_sessions`.
    """
    asked.refuse_strangers(saved.item_ids.tolist())
    if not asked.timed:
        _check_times(asked, saved)
    knowledge, raw = saved.knowledge, asked.events
    user_key = user_key or knowledge.user_key or asked.session_key
    there = asked.table.column_names
    columns = {
        name: knowledge.encoded(name, asked.table.column(source))[raw.row]
        for name, source in knowledge.sources.items()
        if source in there
    }
    user = None
    if knowledge.needs.who and user_key in there:
        user = knowledge.users(asked.table.column(user_key))[raw.row]
    raw = replace(raw, columns=columns, user=user)
    n_sessions = len(asked.sessions)
    known = pc.index_in(asked.items, value_set=pa.array(saved.item_ids, pa.string()))
    items = pc.fill_null(known, saved.n_items).to_numpy(zero_copy_only=False)
    if knowledge.needs.unknown_items:
        items = np.where(
            items < saved.n_items, items, stranger_numbers(asked.items.to_pylist(), saved.n_items)
        )
    items = items[raw.item]
    events = Events(
        items=items.astype(np.int32),
        times=raw.time.astype(np.int64),
        targets=np.ones(len(items), bool),
        offsets=np.concatenate(([0], np.cumsum(np.bincount(raw.session, minlength=n_sessions)))),
        columns=_complete(knowledge, raw.columns, len(items)),
        users=_users(knowledge, raw, n_sessions),
    )
    unknown = [] if knowledge.needs.unknown_items else _unknown_items(asked, saved)
    unread = _unread(asked, knowledge, columns, user, user_key)
    return events, [*asked.notes, *unknown, *_lacking(asked, knowledge, user_key), *unread]


def _check_times(asked: Asked, saved: SavedModel) -> None:
    """Refuse a file without times for a model that would not train without them."""
    model, facts = saved.model, saved.model.catalogue.facts
    if not facts.has_times:
        return
    try:
        type(model).check(model.params, replace(facts, has_times=False))
    except ValueError:
        raise ModelError(
            f"{asked.path} has no times, and model {saved.meta['model']!r} needs them as it was"
            " trained; name their column with --time-key"
        ) from None


def _unknown_items(asked: Asked, saved: SavedModel) -> list[str]:
    """What to say of items that the model doesn't know: how many events, and whether it knows one
    of them by another spelling."""
    ids = pa.array(saved.item_ids, pa.string())
    unknown = pc.is_null(pc.index_in(asked.items, value_set=ids)).to_numpy(zero_copy_only=False)
    if not unknown.any():
        return []
    strange = asked.items.filter(pa.array(unknown)).to_pylist()
    many = int(unknown[asked.events.item].sum())
    told = (
        f"{many:,} of {len(asked.events):,} events are of items that the model doesn't know, as"
        f" {strange[0]!r}"
    )
    written = pa.array(list(map(as_whole, strange)), pa.string())
    places = pc.index_in(written, value_set=as_wholes(ids)).to_pylist()
    for text, place in zip(strange, places, strict=True):
        if place is not None:
            own = ids[place].as_py()
            return [f"warning: {told}; {text!r} may be the model's {own!r}, written otherwise"]
    return [told]


def _unread(
    asked: Asked,
    knowledge: Knowledge,
    columns: Mapping[str, NDArray[Any]],
    user: NDArray[np.int32] | None,
    user_key: str,
) -> list[str]:
    """What to say of columns that hold values, of which the model knows none, or not all; that it
    knows not every user is no news."""
    read = {knowledge.sources[name]: values for name, values in columns.items()}
    if user is not None:
        read[user_key] = user
    told = []
    for name, values in read.items():
        nothing = np.isnan(values) if values.dtype.kind == "f" else values < 0
        found = asked.table.column(name).take(pa.array(asked.events.row))
        written = pc.utf8_trim_whitespace(pc.cast(found, pa.string()))
        none = pc.or_(pc.is_in(written, pa.array(["", "nan"])), names_no_value(written))
        said = ~np.asarray(pc.fill_null(none, True), bool)
        unknown = np.flatnonzero(said & nothing)
        if not len(unknown):
            continue
        example = found[int(unknown[0])].as_py()
        if len(unknown) == said.sum():
            told.append(
                f"{asked.path}: the model knows no value of column {name!r} (as"
                f" {example!r}), so it is unknown throughout"
            )
        elif name != user_key:
            told.append(
                f"{asked.path}: of {said.sum():,} events with a {name!r} {len(unknown):,} have one"
                f" that the model doesn't know, as {example!r}: there it is as good as missing"
            )
    return told


def _lacking(asked: Asked, knowledge: Knowledge, user_key: str) -> list[str]:
    """What to say of the columns that the model reads and the file lacks."""
    read = [*knowledge.sources.values(), *([user_key] if knowledge.needs.who else [])]
    told = f"{asked.path} has no column {{!r}}, which the model reads, so it is unknown throughout"
    return [told.format(name) for name in read if name not in asked.table.column_names]


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
    """Each session's user [S], as training has them."""
    if not knowledge.needs.who:
        return None
    users = np.full(n_sessions, -1, np.int32)
    if raw.user is not None:
        starts = raw.starts()
        users[raw.session[starts]] = raw.session_users()
    return users


def recommend(
    saved: SavedModel,
    sessions: Sessions,
    top: int = 20,
    filter_seen: bool = False,
    offer: Offer = EVERYTHING,
) -> Iterator[Recommendation]:
    """The ``top`` items for each session, in the sessions' order.

    A session without a known item gets the items with most events in training, which
    ``popular`` says; their score is the number of these. ``filter_seen`` leaves out the items of
    the session; none is recommended that ``offer`` hasn't got.

    Raises:
        ModelError: the model does not score items.
    """
    popular = _popular(saved, top, offer)
    for begin in range(0, len(sessions.ids), CHUNK):
        found: dict[int, tuple[list[int], list[float]]] = {}
        try:
            events = sessions.events.sessions(begin, begin + CHUNK)
            for session, best in _recommend(saved, events, top, filter_seen, offer):
                found[begin + session] = best
        except NotImplementedError as error:
            raise ModelError(
                f"model {saved.meta['model']!r} ranks no items, so it cannot recommend"
            ) from error
        for session in range(begin, min(begin + CHUNK, len(sessions.ids))):
            items, scores = found.get(session, popular)
            ids = [str(saved.item_ids[item]) for item in items]
            yield Recommendation(sessions.ids[session], ids, scores, session not in found)


def _popular(saved: SavedModel, top: int, offer: Offer) -> tuple[list[int], list[float]]:
    """The items with most events in training, and how many; of items added later there are 0."""
    support = saved.model.catalogue.support
    added = saved.n_items - len(support)
    support = offer.items(torch.cat((support, support.new_zeros(added))))
    best = torch.sort(support, descending=True, stable=True).indices[:top]
    counts = [float(n) for n in support[best].tolist()]
    return (best if offer.rows is None else offer.rows[best]).tolist(), counts


def _recommend(
    saved: SavedModel, events: Events, top: int, filter_seen: bool, offer: Offer
) -> Iterator[tuple[int, tuple[list[int], list[float]]]]:
    model = saved.model
    wanted = saved.knowledge.needs.wanted
    batches = query_batches(events, model.max_length, ROWS, model.device, wanted)
    if batches.total == 0:
        return
    with torch.no_grad():
        table, bias = (None, None) if scores_itself(model) else model.item_table()
        if table is not None:
            table = offer.items(table.float())
            bias = None if bias is None else offer.items(bias)
        for batch in queries(batches):
            asked = batch.histories[:, 1].cpu().numpy()
            exclude = seen_items(batch.histories, batches.store.items) if filter_seen else None
            if exclude is not None:
                exclude = offer.places(exclude, saved.n_items)
            if table is None:
                scores = _columns(scores_of(model, batch), offer)
            else:
                scores = products(model.encode(batch).float(), table, bias)
            best = _top(scores, top, exclude, offer.rows)
            session = np.searchsorted(events.offsets, asked, side="right") - 1
            yield from zip(session.tolist(), best, strict=True)


def _columns(chunks: Iterator[torch.Tensor], offer: Offer) -> Iterator[torch.Tensor]:
    """The scores of what is offered."""
    for scores in chunks:
        yield offer.items(scores.T).T


def _top(
    chunks: Iterable[torch.Tensor],
    top: int,
    exclude: tuple[torch.Tensor, torch.Tensor] | None,
    rows: torch.Tensor | None,
) -> Iterator[tuple[list[int], list[float]]]:
    """The best items and scores of each row of scores, whose columns are the items ``rows``."""
    begin = 0
    for scores in chunks:
        if exclude is not None:
            exclude_items(scores, begin, *exclude)
        begin += len(scores)
        best = torch.topk(scores, min(top, scores.shape[1]))
        columns = best.indices if rows is None else rows.to(scores.device)[best.indices]
        for items, values in zip(columns.tolist(), best.values.tolist(), strict=True):
            finite = [value > -np.inf for value in values]
            yield (
                [item for item, ok in zip(items, finite, strict=True) if ok],
                [value for value in values if value > -np.inf],
            )
