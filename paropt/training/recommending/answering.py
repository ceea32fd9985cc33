"""Next items for sessions that come one by one: what a server asks a saved model.

What costs much and stays the same is worked out once: the table of items, where each id is, the
order of the most popular ones. Sessions that come together are answered together, each with its
own list of candidates, its own length and its own items to leave out. The answers are those of
:mod:`paropt.training.recommending.new_sessions`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.data.encoding import stranger_numbers
from paropt.errors import DataError, ModelError, did_you_mean
from paropt.training.batches.events import Events, unknown_value
from paropt.training.batches.plans import query_batches
from paropt.training.evaluation.ranking.judging import ROWS, queries
from paropt.training.evaluation.ranking.ranks import products, scores_of
from paropt.training.recommending.wanted import wanted_values
from paropt.training.registry import SequenceBatch, scores_itself
from paropt.training.saved_model.header import sources_of
from paropt.training.saved_model.saved import SavedModel

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Ask:
    """What is asked of one session.

    ``items`` are ids in the order of the events, or in any order with ``times`` (milliseconds);
    ``columns`` have a value per event, by the name that the model's log had. ``candidates``: only
    these; ``exclude``: never these. ``want`` is as in ``recommend --want``.
    """

    items: Sequence[str]
    times: Sequence[int] | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    user: str | None = None
    top: int = 20
    filter_seen: bool = False
    want: tuple[str, ...] = ()
    candidates: Sequence[str] | None = None
    exclude: Sequence[str] = ()


@dataclass(frozen=True)
class Answer:
    """The best items first. ``popular``: nothing of the session is known, so these are the most
    popular ones. ``unknown`` counts the session's events of items that the model doesn't know,
    ``unlisted`` ids in its lists likewise."""

    items: list[str]
    scores: list[float]
    popular: bool
    unknown: int
    unlisted: int


@dataclass(frozen=True)
class Prepared:
    """An ask in the model's numbers. ``rows`` are those of the candidates, None for all; ``barred``
    the items to leave out, those seen among them where that is asked for."""

    top: int
    items: NDArray[np.int32]
    times: Ints
    columns: Mapping[str, NDArray[Any]]
    user: int
    wanted: tuple[tuple[str, float], ...]
    rows: Ints | None
    barred: Ints
    unknown: int
    unlisted: int


class Answerer:
    """Answers sessions with a saved model; one call of :meth:`answer` at a time."""

    def __init__(self, saved: SavedModel) -> None:
        """Raises :class:`ModelError` for a model that ranks no items."""
        self.saved, self.model = saved, saved.model
        self._index = {str(item): row for row, item in enumerate(saved.item_ids.tolist())}
        self._users: dict[str, int] = {}
        if saved.knowledge.needs.who:
            self._users = {name: row for row, name in enumerate(saved.knowledge.user_ids)}
        self._table: Tensor | None = None
        self._bias: Tensor | None = None
        if not scores_itself(self.model):
            self._table, self._bias = self._worked_out()
        support = self.model.catalogue.support.cpu()
        self._support = support.numpy()
        self._popular = torch.sort(support, descending=True, stable=True).indices.numpy()
        self._timeless = self._without_times()
        log = saved.meta.get("log") or {}
        self._gap = log.get("session_gap_ms")
        self._log_columns = sources_of(saved.meta["facts"]["columns"], log).values()

    @torch.no_grad()
    def _worked_out(self) -> tuple[Tensor, Tensor | None]:
        try:
            table, bias = self.model.item_table()
        except NotImplementedError:
            name = self.saved.meta["model"]
            raise ModelError(f"model {name!r} ranks no items, so it can't be served") from None
        return table.float().contiguous(), None if bias is None else bias.float()

    def _without_times(self) -> bool:
        """Whether sessions need no times."""
        facts = self.model.catalogue.facts
        if not facts.has_times:
            return True
        try:
            type(self.model).check(self.model.params, dataclasses.replace(facts, has_times=False))
        except ValueError:
            return False
        return True

    # -- what is asked ----------------------------------------------------------------------

    def prepare(self, ask: Ask) -> Prepared:
        """The ask in the model's numbers.

        Raises:
            DataError: none of its candidates is known, nothing is left of them, or the model reads
                no such column.
            ModelError: the model needs times, or reads nothing like what is wanted.
        """
        if ask.times is None and not self._timeless:
            name = self.saved.meta["model"]
            raise ModelError(f"model {name!r} needs times as it was trained; give each item one")
        order = self._order(ask)
        items, unknown = self._items([ask.items[at] for at in order])
        kept = items >= 0
        has_times = ask.times is not None and self.model.catalogue.facts.has_times
        times = np.asarray(ask.times, np.int64)[order] if has_times else np.arange(len(order))
        rows, barred, unlisted = self._lists(ask, items[kept])
        return Prepared(
            top=ask.top,
            items=items[kept],
            times=times[kept],
            columns=self._columns(ask, order, kept),
            user=self._users.get(ask.user, -1) if ask.user is not None else -1,
            wanted=tuple(sorted(wanted_values(self.saved, ask.want).items())),
            rows=rows,
            barred=barred,
            unknown=unknown,
            unlisted=unlisted,
        )

    def _order(self, ask: Ask) -> Ints:
        """Which events there are, in time order: those after the last gap where there are gaps."""
        if ask.times is None:
            return np.arange(len(ask.items))
        array = np.asarray(ask.times, np.int64)
        order = np.argsort(array, kind="stable")
        if self._gap:
            gaps = np.flatnonzero(np.diff(array[order]) > self._gap)
            order = order[gaps[-1] + 1 :] if len(gaps) else order
        return order

    def _items(self, ids: Sequence[str]) -> tuple[NDArray[np.int32], int]:
        n_items = self.saved.n_items
        found = np.array([self._index.get(item, -1) for item in ids], np.int32)
        strange = found < 0
        if strange.any() and self.saved.knowledge.needs.unknown_items:
            found[strange] = stranger_numbers(
                [item for item, is_strange in zip(ids, strange, strict=True) if is_strange], n_items
            )
        return found, int(strange.sum())

    def _columns(self, ask: Ask, order: Ints, kept: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        knowledge, found = self.saved.knowledge, {}
        own = sorted({*self._log_columns, *knowledge.sources.values()})
        for name in ask.columns:
            if name not in own:
                there = f"it had {', '.join(own)}" if own else "it had none"
                hint = did_you_mean(name, own, there)
                raise DataError(f"the log that the model knows had no column {name!r}; {hint}")
        for name, column in knowledge.columns.items():
            given = ask.columns.get(knowledge.sources.get(name, name))
            if given is None:
                kind = np.float32 if column.kind == "number" else np.int32
                empty = np.zeros(len(kept), kind)
                found[name] = np.full(len(kept), unknown_value(empty), kind)[kept]
                continue
            texts = [None if value is None else str(value) for value in given]
            values = pa.chunked_array([pa.array(texts, pa.string())])
            found[name] = knowledge.encoded(name, values)[order][kept]
        return found

    def _lists(self, ask: Ask, items: NDArray[np.int32]) -> tuple[Ints | None, Ints, int]:
        barred, unlisted = self._rows(ask.exclude)
        if ask.filter_seen:
            barred = np.union1d(barred, items[items < self.saved.n_items])
        if ask.candidates is None:
            return None, barred.astype(np.int64), unlisted
        rows, unknown = self._rows(ask.candidates)
        if not len(rows):
            raise DataError(
                f"none of the {len(ask.candidates):,} candidates is known to the model, whose items"
                f" are written as {str(self.saved.item_ids[0])!r}"
            )
        return np.setdiff1d(rows, barred), barred.astype(np.int64), unlisted + unknown

    def _rows(self, ids: Sequence[str]) -> tuple[Ints, int]:
        """The rows of a list of ids, ascending and each once; how many have none."""
        found = [self._index.get(item, -1) for item in ids]
        return np.unique([row for row in found if row >= 0]).astype(np.int64), found.count(-1)

    # -- what is answered -------------------------------------------------------------------

    @torch.no_grad()
    def answer(self, asks: Sequence[Prepared]) -> list[Answer]:
        """The answers, in the order of the asks."""
        answers: list[Answer | None] = [None] * len(asks)
        alike: dict[tuple[tuple[str, float], ...], list[int]] = {}
        for number, ask in enumerate(asks):
            if len(ask.items):
                alike.setdefault(ask.wanted, []).append(number)
            else:
                answers[number] = self._most_popular(ask)
        for wanted, numbers in alike.items():
            events = self._events([asks[number] for number in numbers], dict(wanted))
            for at, rows, scores in self._best(events, [asks[number] for number in numbers]):
                answers[numbers[at]] = self._named(asks[numbers[at]], rows, scores)
        return [answer for answer in answers if answer is not None]

    def _events(self, asks: Sequence[Prepared], wanted: Mapping[str, float]) -> Events:
        sizes = [len(ask.items) for ask in asks]
        columns = self.saved.knowledge.columns
        events = Events(
            items=np.concatenate([ask.items for ask in asks]),
            times=np.concatenate([ask.times for ask in asks]),
            targets=np.zeros(sum(sizes), bool),
            offsets=np.concatenate(([0], np.cumsum(sizes))),
            columns={name: np.concatenate([a.columns[name] for a in asks]) for name in columns},
            users=np.array([ask.user for ask in asks], np.int32)
            if self.saved.knowledge.needs.who
            else None,
        )
        return events.with_queries(wanted)

    def _best(
        self, events: Events, asks: Sequence[Prepared]
    ) -> Iterator[tuple[int, list[int], list[float]]]:
        """Number of the ask, rows of its best items, and their scores."""
        wanted = self.saved.knowledge.needs.wanted
        model = self.model
        for batch in queries(query_batches(events, model.max_length, ROWS, model.device, wanted)):
            asked = batch.histories[:, 1].cpu().numpy()
            numbers = np.searchsorted(events.offsets, asked, side="right") - 1
            if self._table is None:
                yield from self._of_scores(scores_of(model, batch), numbers.tolist(), asks)
            else:
                yield from self._of_vectors(batch, numbers.tolist(), asks)

    def _of_vectors(
        self, batch: SequenceBatch, numbers: Sequence[int], asks: Sequence[Prepared]
    ) -> Iterator[tuple[int, list[int], list[float]]]:
        assert self._table is not None
        vectors = self.model.encode(batch).float()
        listed = [at for at, number in enumerate(numbers) if asks[number].rows is not None]
        for at in listed:
            rows = torch.from_numpy(asks[numbers[at]].rows).to(vectors.device)
            scores = self._table[rows] @ vectors[at]
            if self._bias is not None:
                scores += self._bias[rows]
            yield (numbers[at], *_top(scores, asks[numbers[at]].top, rows))
        rest = [at for at in range(len(numbers)) if at not in set(listed)]
        if rest:
            chosen = vectors if not listed else vectors[rest]
            chunks = products(chosen, self._table, self._bias)
            yield from self._of_scores(chunks, [numbers[at] for at in rest], asks)

    def _of_scores(
        self, chunks: Iterable[Tensor], numbers: Sequence[int], asks: Sequence[Prepared]
    ) -> Iterator[tuple[int, list[int], list[float]]]:
        left = iter(numbers)
        for scores in chunks:
            some = list(itertools.islice(left, len(scores)))
            for row, number in zip(scores, some, strict=True):
                ask = asks[number]
                row[torch.from_numpy(ask.barred).to(row.device)] = -math.inf
                rows = None if ask.rows is None else torch.from_numpy(ask.rows).to(row.device)
                yield (number, *_top(row if rows is None else row[rows], ask.top, rows))

    def _most_popular(self, ask: Prepared) -> Answer:
        order: Iterable[int] = self._popular.tolist()
        if ask.rows is not None:
            counts = self._support[ask.rows]
            order = ask.rows[np.argsort(-counts, kind="stable")].tolist()
        barred = set(ask.barred.tolist())
        rows: list[int] = []
        for row in order:
            if len(rows) == ask.top:
                break
            if row not in barred:
                rows.append(row)
        scores = [float(self._support[row]) for row in rows]
        return dataclasses.replace(self._named(ask, rows, scores), popular=True)

    def _named(self, ask: Prepared, rows: Sequence[int], scores: list[float]) -> Answer:
        ids = [str(self.saved.item_ids[row]) for row in rows]
        return Answer(ids, scores, False, ask.unknown, ask.unlisted)


def _top(scores: Tensor, top: int, rows: Tensor | None) -> tuple[list[int], list[float]]:
    """The best of scores [m], of the items ``rows`` [m]."""
    best = torch.topk(scores, min(top, len(scores)))
    index = best.indices if rows is None else rows[best.indices]
    values = best.values.tolist()
    count = sum(value > -math.inf for value in values)
    return index.tolist()[:count], values[:count]


def use_threads(threads: int | None) -> None:
    """Work with so many threads of the processor; None: with as many as torch finds."""
    if threads is not None:
        torch.set_num_threads(threads)
