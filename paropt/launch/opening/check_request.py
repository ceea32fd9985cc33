"""What no study could do, refused before a database is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paropt.launch.data.data_source import (
    Note,
)
from paropt.launch.opening.launch_request import LaunchRequest

if TYPE_CHECKING:
    from paropt.data import Dataset
    from paropt.search.space.space import Space
    from paropt.training.evaluation.objective import Objective

MIB = 1 << 20


def check_needs_met(space: Space, dataset: Dataset, note: Note) -> None:
    """A worker needs no such check: its data have the fingerprint of those checked here."""
    from paropt.search.setup.check_needs import check_needs

    if most := check_needs(space, dataset):
        note(f"what a trial remembers of users takes {most / MIB:,.3g} MiB at most, on each slot")


def check_choices(request: LaunchRequest) -> None:
    """Refuse a sampler or pruner that there isn't, before the database is touched."""
    from paropt.search.strategy.pruning import complete_pruner
    from paropt.search.strategy.sampling import complete_sampler

    complete_sampler(request.sampler)
    complete_pruner(request.pruner)


def check_search(request: LaunchRequest, space: Space) -> Objective:
    """What the study looks for; refuse what no trial could report, and what cannot be sampled.

    Raises:
        ParoptError: a model of the space does not report that metric.
        StudyError: the sampler cannot draw from the space.
    """
    from paropt.search.strategy.sampling import check_sampler, complete_sampler, rehearse
    from paropt.training.evaluation.choose_objective import limits_of, more_metrics, objective_of

    objective = objective_of(request.metric, space.models)
    more_metrics(request.also, space.models)
    limits_of(request.constraint, space.models)
    sampler = complete_sampler(request.sampler)
    check_sampler(space, sampler)
    rehearse(space, sampler, objective)
    return objective
