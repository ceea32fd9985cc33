"""Targets that training never saw, ranked by what is known of their items.

They are judged by themselves and never mixed into the usual metrics, of which they are no part:
another question, with other candidates and other histories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from paropt.data.dataset import View
from paropt.errors import ModelError
from paropt.training.batches.catalogue import catalogue
from paropt.training.batches.events import EventArrays, known_events
from paropt.training.batches.plans import query_batches
from paropt.training.evaluation.protocol import EvaluationProtocol
from paropt.training.evaluation.ranking.judging import ROWS, judge
from paropt.training.registry import Catalogue, Model


@dataclass(frozen=True)
class ColdItems:
    """What became of them: ``targets`` predictions of ``items`` different ones in ``sessions``
    sessions, each among all ``candidates``, those that training saw included.

    ``metrics`` by name ("mrr@20") and their standard errors are over these targets alone; there are
    none where there are no targets. Items of which the same is known have the same score, so that
    ties are common: ``tied`` is the share of targets that have some, and ``conservative`` are the
    metrics with them counted against the target, where there are more than a few.
    """

    targets: int
    items: int
    sessions: int
    candidates: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    stderr: Mapping[str, float] = field(default_factory=dict)
    tied: float | None = None
    conservative: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return asdict(self)


def check_cold(model: Model, about: Catalogue) -> None:
    """Refuse a model that cannot rank items that it never saw.

    Raises:
        ModelError: see above; of data that have no such items, no model is refused.
    """
    try:
        model.add_items(about.unseen, about.n_unseen)
    except NotImplementedError as error:
        name = type(model).__name__
        raise ModelError(f"{name} cannot rank items that training never saw: {error}") from None
    model.add_items(about.unseen, 0)


def cold_items_of(
    model: Model,
    split: EventArrays,
    about: Catalogue,
    protocol: EvaluationProtocol,
    at: Sequence[int],
) -> ColdItems | None:
    """:func:`evaluate_cold`; None where the model cannot, or no target is one."""
    if not about.n_unseen or not about.items.only(model.needs(model.params).items).fields:
        return None
    try:
        found = evaluate_cold(model, split, about, protocol, at)
    except ModelError:
        return None
    return found if found.targets else None


def evaluate_cold(
    model: Model,
    split: EventArrays,
    about: Catalogue,
    protocol: EvaluationProtocol,
    at: Sequence[int],
) -> ColdItems:
    """Rank every target of ``split`` that is in ``about.unseen``, among all items.

    Histories have these items too, where the usual evaluation leaves them out. The model is as it
    was before.

    Raises:
        ModelError: the model knows items by their ids only.
        Diverged: a score is not finite.
    """
    check_cold(model, about)
    n_items, needs = about.n_items, model.needs(model.params)
    events = known_events(split, n_items + about.n_unseen, needs)
    events = replace(events, targets=events.targets & (events.items >= n_items))
    batches = query_batches(events, model.max_length, ROWS, model.device, needs.wanted)
    positions, _ = events.queries()
    different, candidates = len(np.unique(events.items[positions])), n_items + about.n_unseen
    if not batches.total:
        return ColdItems(0, 0, 0, candidates)
    model.add_items(about.unseen, about.n_unseen)
    try:
        found = judge(model, batches, at=at, ties=protocol.ties, filter_seen=protocol.filter_seen)
    finally:
        model.add_items(about.unseen, 0)
    return ColdItems(
        batches.total,
        different,
        found.n_sessions or 0,
        candidates,
        found.metrics,
        found.stderr,
        found.tied,
        found.conservative,
    )


def cold_targets(
    model: Model, view: View, protocol: EvaluationProtocol, at: Sequence[int]
) -> dict[str, Any]:
    """The view's targets that its training never saw, judged by themselves."""
    split = view.dataset.split(view.test.name, view.train.name)
    return evaluate_cold(model, split, catalogue(view), protocol, at).to_json()
