"""Where a new study begins that others came before: their best configurations, made to fit.

A start point costs one trial, which the pruner may cut short, and counts for nothing else: what is
good elsewhere and bad here is forgotten as fast as any other trial. So a warm start can hurt by
what its points cost, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from paropt.search.history.history import Record, best_first
from paropt.search.space.file import from_json
from paropt.search.space.parameter import Parameter
from paropt.search.space.space import Space
from paropt.search.space.start_points import distinct
from paropt.training.evaluation.objective import Objective

POINTS = 5  # of one earlier study: as many as most shipped spaces start with

Point = dict[str, Any]


def fit_into(space: Space, model: str, params: Mapping[str, Any]) -> Point | None:
    """The point of the space that is nearest to a configuration from elsewhere.

    What the space fixes stays as it is there, and numbers outside a range become its bound. What
    the configuration does not say is left to chance, unless other parameters depend on it. None if
    the space does not search the model, or nothing of the configuration is left.
    """
    if model not in space.models:
        return None
    given = {"model": model, **params}
    mentioned = {name for parameter in space.parameters for name in parameter.when}
    point: Point = {}
    fits = 0

    def choose(parameter: Parameter) -> Any:
        nonlocal fits
        value = _near(parameter, given.get(parameter.name))
        if value is None:
            value = parameter.nth(0)
            if parameter.name in mentioned:  # left to chance, it might undo what follows from it
                point[parameter.name] = value
            return value
        fits += parameter.name != "model"
        point[parameter.name] = value
        return value

    space.walk(choose)
    return point if fits else None


def _near(parameter: Parameter, value: Any) -> Any:
    """The parameter's value next to one from elsewhere; None if it has none like that."""
    if parameter.kind == "categorical":
        return parameter.nearest(value) if parameter.can_be(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return parameter.snap(value)


def best_points(space: Space, lineages: Iterable[Record], objective: Objective) -> list[Point]:
    """The best trials of an earlier study that fit, at most ``POINTS``, no point twice."""
    points: list[Point] = []
    for record in best_first(lineages, objective):
        point = fit_into(space, str(record.meta["model"]), record.meta["params"])
        if point is not None and point not in points:
            points.append(point)
        if len(points) == POINTS:
            break
    return points


def warmed(space: Space, points: Sequence[Point]) -> Space:
    """The space with more points to start from, before its own."""
    start = distinct([*points, *space.source.get("start", ())])
    source = {**space.to_json(), "start": start}
    return replace(from_json(source), origin=space.origin)
