"""What a number stands beside: the floors of its task, and with a final one session k-NN too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from paropt.training.batches.catalogue import catalogue
from paropt.training.batches.events import known_events
from paropt.training.batches.plans import evaluation
from paropt.training.evaluation.baselines.floors import floor_ranks, floors
from paropt.training.evaluation.baselines.session_knn import session_knn_ranks
from paropt.training.evaluation.bootstrap import Sample
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import EvaluationProtocol, Ties
from paropt.training.evaluation.ranking.judging import ROWS, Evaluation, gains, own_evaluation
from paropt.training.metrics import of_ranks
from paropt.training.registry import (
    Needs,
    complete_params,
    declaration,
    judges_itself,
    model_class,
)

if TYPE_CHECKING:
    from paropt.data.dataset import View


def floors_of(
    models: Sequence[str],
    view: View,
    at: Sequence[int] = (20,),
    ties: Ties = "standard",
    filter_seen: bool = False,
    also: Sequence[str] = (),
    objective: Objective | None = None,
    params: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, float]]:
    """Metrics of what needs no training, by name, in the task that the models are judged by.

    Popularity and co-occurrence where paropt ranks; what models bring along
    (:meth:`Model.floors`) where they judge themselves, with ``params`` where these are theirs.
    """
    own = [model for model in models if judges_itself(model)]
    if not own:
        return floors(view, at, ties, filter_seen, also, objective)
    brought = _brought_along(own, view, objective, params or {})
    return {name: judged.metrics for name, judged in brought.items()}


def baseline_samples(
    models: Sequence[str],
    view: View,
    names: Sequence[str],
    protocol: EvaluationProtocol,
    objective: Objective,
    params: Mapping[str, Any] | None = None,
) -> dict[str, Sample]:
    """A sample of the metrics ``names`` of each baseline on the view's evaluation split.

    They are by the same groups of sessions as a model's, so that differences can be paired. Those
    that models bring along have a sample if they say what their metrics are the means of.
    """
    own = [model for model in models if judges_itself(model)]
    if own:
        n = view.test.n_sessions
        brought = _brought_along(own, view, objective, params or {})
        judged = {name: one.sample(n) for name, one in brought.items()}
        return {name: sample for name, sample in judged.items() if sample is not None}
    rules = protocol.ties, protocol.filter_seen
    ranks = {**floor_ranks(view, *rules), "session k-NN": session_knn_ranks(view, *rules)}
    events = known_events(view.test, view.n_items)
    positions, _ = events.queries()
    sessions = np.searchsorted(events.offsets, positions, side="right") - 1
    n_sessions = len(events.offsets) - 1
    wanted = [name for name in names if of_ranks(name)]
    return {
        name: Sample.of_values(gains(found, wanted, objective), sessions, n_sessions)
        for name, found in ranks.items()
    }


def _there(needs: Needs, view: View) -> Needs:
    """What of these needs the data have: a model may do without, and then has no such floor."""
    kept = view.dataset.fields("events")
    columns = {name: kinds for name, kinds in needs.columns.items() if name in kept}
    return replace(needs, columns=columns, wanted=tuple(n for n in needs.wanted if n in columns))


def _brought_along(
    models: Sequence[str], view: View, objective: Objective | None, params: Mapping[str, Any]
) -> dict[str, Evaluation]:
    """The floors of models that judge themselves, by name."""
    found = {}
    for model in models:
        kind, declared = model_class(model), declaration(model)
        own = {name: value for name, value in params.items() if name in declared}
        complete = complete_params(model, own)
        needs = _there(kind.needs(complete), view)
        batches = evaluation(view.test, view.n_items, None, ROWS, needs=needs)
        with torch.no_grad():
            floors_of_it = kind.floors_with(complete, catalogue(view), batches)
        for name, given in floors_of_it.items():
            found[name] = own_evaluation(name, given, batches, objective)
    return found
