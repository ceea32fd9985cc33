"""What a study is made of beside its space: how trials are judged, on what, within what."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paropt.errors import StudyError
from paropt.launch.data.data_source import (
    Note,
    url_of,
)
from paropt.launch.opening.launch_request import LaunchRequest
from paropt.training.evaluation.protocol import EvaluationProtocol
from paropt.training.metrics import Direction, direction_of
from paropt.training.saved_model.header import has_seen_valid, read_header, seen_by_then
from paropt.version import __version__
from paropt.worker.begun_model import description

if TYPE_CHECKING:
    from paropt.data import Dataset
    from paropt.search.space.space import Space
    from paropt.search.study.definition import StudyDefinition
    from paropt.training.evaluation.objective import Objective


def place_of_data(request: LaunchRequest, space: Space, dataset: Dataset) -> str:
    """Where others find the data: a URL where one was named, else the directory here."""
    named = request.data or space.data or os.environ.get("PAROPT_DATASET")
    return url_of(named) or str(dataset.path.resolve())


def fixed_model(request: LaunchRequest) -> tuple[str, ...]:
    """``--fixed``, with the model that the trials begin with where nobody wrote a space."""
    if request.begin is None:
        return request.fixed
    return (*request.fixed, f"model={read_header(request.begin).meta['model']}")


def beginning(request: LaunchRequest, dataset: Dataset, note: Note) -> dict[str, str]:
    """What a study says of the model that its trials begin with.

    Raises:
        StudyError: the model has seen the very sessions that trials are judged on.
    """
    if request.begin is None:
        return {}
    meta = read_header(request.begin).meta
    if has_seen_valid(meta, dataset.fingerprint):
        raise StudyError(
            f"--from {request.begin} was trained on all of these data but the test, valid among "
            "it, on which trials are judged; begin with one that was trained with --split search, "
            "or give newer data"
        )
    if seen := seen_by_then(meta, request.begin, dataset.split("valid"), dataset.has_times):
        note(f"warning: {seen}")
    return description(request.begin, str(meta["model"]), request.keep_optimiser)


def judging_protocol(
    request: LaunchRequest, recorded: StudyDefinition | None, dataset: Dataset
) -> tuple[EvaluationProtocol, str]:
    """How trials are judged, and why so if nobody asked for it."""
    if recorded is not None:
        return recorded.protocol.asked(request.filter_seen, request.ties), ""
    usual = EvaluationProtocol.of_data(dataset.protocol)
    why = f" (usual for {dataset.protocol} data; --filter-seen or --no-filter-seen decides)"
    return usual.asked(
        request.filter_seen, request.ties
    ), why if request.filter_seen is None else ""


def also_measured(
    request: LaunchRequest, recorded: StudyDefinition | None, models: Sequence[str]
) -> list[str]:
    """What each epoch reports beside the metric: as it was recorded, unless something is asked."""
    from paropt.training.evaluation.choose_objective import more_metrics

    if recorded and not request.also:
        return list(recorded.also)
    return more_metrics(request.also, models)


def told_directions(also: Sequence[str], models: Sequence[str]) -> dict[str, Direction]:
    """Where what is better cannot be told by the name."""
    from paropt.training.evaluation.choose_objective import directions

    found = directions(also, models)
    return {name: better for name, better in found.items() if better != direction_of(name)}


def limits_asked(request: LaunchRequest, models: Sequence[str]) -> list[str]:
    """The constraints, as a definition writes them."""
    from paropt.training.evaluation.choose_objective import limits_of

    return [limit.text for limit in limits_of(request.constraint, models)]


def goal_words(objective: Objective) -> str:
    """What a study looks for, in a line."""
    goal = objective.metric if objective.larger else f"{objective.metric} (smaller is better)"
    return goal + "".join(f", {limit.text}" for limit in objective.limits)


def additions_read(space: Space, dataset: Dataset) -> dict[str, str]:
    """Digests of what was added to the data since, and the space reads."""
    from paropt.search.setup.check_needs import items_read

    return dataset.digests(items_read(space)) if dataset.added else {}


def versions() -> dict[str, str]:
    """What the study's numbers were computed with."""
    names = ("torch", "optuna", "numpy")
    return {
        "python": platform.python_version(),
        "paropt": __version__,
        **{name: importlib.metadata.version(name) for name in names},
    }
