"""``--fixed`` of a parameter that a space searches: it keeps its place, and gets one value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paropt.errors import SpaceError
from paropt.search.space.parameter import Parameter, same
from paropt.search.space.space import Space
from paropt.search.space.start_points import changed, distinct, values_of

Source = dict[str, Any]


def searched_names(source: Any, given: Mapping[str, Any]) -> list[str]:
    """Those of ``given`` that the space's object searches."""
    search = source.get("search") if isinstance(source, dict) else None
    return [name for name in given if name in search] if isinstance(search, dict) else []


def pinned(source: Source, values: Mapping[str, Any]) -> Source:
    """The object with one value for each of these searched parameters, where it is in force.

    Raises:
        SpaceError: ``model`` is none that the space chooses from.
    """
    search = {
        name: _with_value(entry, values[name]) if name in values else entry
        for name, entry in source["search"].items()
    }
    found = {**source, "search": search}
    if "model" in values:
        found = _of_one_model(found, source, values["model"])
    return _with_possible_conditions(found)


def moved(bare: Space, points: Any, values: Mapping[str, Any]) -> Any:
    """Start points with the pinned values and without what these put out of force; those that are
    none then, or equal another, go."""
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        return points  # the reader says what is wrong
    kept: list[Any] = []
    for point in points:
        pinned_here = {n: v for n, v in values.items() if n in point and n != "model"}
        there = {**values_of(point), **pinned_here}
        if pinned_here:
            there = _in_force(bare, there)
        there = changed(point, there)
        if _possible(bare, there) or (there == point and not values.keys() & {"model"}):
            kept.append(there)  # one that was wrong before is to be refused
    return distinct(kept)


def _in_force(bare: Space, point: Mapping[str, Any]) -> dict[str, Any]:
    """The point without what is not in force there."""

    def choose(parameter: Parameter) -> Any:
        value = point.get(parameter.name)
        return value if parameter.can_be(value) else _any(parameter)

    config = bare.walk(choose)
    known = {p.name for p in (*bare.parameters, *bare.idle)}
    return {name: value for name, value in point.items() if name in config or name not in known}


def pinned_words(space: Space) -> list[str]:
    """A sentence for each parameter that ``--fixed`` took from the search."""
    search = space.source.get("search", {})
    found = {p.name: p.choices[0] for p in space.parameters if p.name in space.origin.given}
    names = [name for name in found if name in search or name == "model"]
    return [f"{name} is {found[name]} in every trial, as --fixed says" for name in names]


def _with_value(entry: Any, value: Any) -> Any:
    if isinstance(entry, list):
        return [_with_value(one, value) for one in entry]
    when = entry.get("when") if isinstance(entry, dict) else None
    return {"value": value, **({"when": when} if when else {})}


def _of_one_model(found: Source, source: Source, model: Any) -> Source:
    """Without what is there for other models only, and what depends on that."""
    choice = source["search"]["model"]
    choices = choice.get("choices", []) if isinstance(choice, dict) else []
    if model not in choices:
        known = ", ".join(map(str, choices))
        raise SpaceError(f"--fixed model={model}: the space chooses from {known}")
    parts = {key: dict(found.get(key, {})) for key in ("fixed", "search")}
    del parts["search"]["model"]
    while True:
        names = {"model", *parts["fixed"], *parts["search"]}
        left = {
            key: {n: kept for n, e in part.items() if (kept := _left(e, model, names)) is not None}
            for key, part in parts.items()
        }
        if left == parts:
            return {**found, **parts, "model": model}
        parts = left


def _left(entry: Any, model: Any, names: set[str]) -> Any:
    """What is left of a range, or of several; None for nothing."""
    if isinstance(entry, list):
        kept = [left for one in entry if (left := _left(one, model, names)) is not None]
        return kept or None
    when = entry.get("when") if isinstance(entry, dict) else None
    if not isinstance(when, dict):
        return entry
    models = when.get("model", [model])
    models = models if isinstance(models, list) else [models]
    if not any(same(model, one) for one in models) or not when.keys() <= names:
        return None
    return _with_when(entry, {name: value for name, value in when.items() if name != "model"})


def _with_possible_conditions(source: Source) -> Source:
    """Without values in conditions that what they ask of cannot have any more.

    A condition that cannot hold at all stays as it is: what has it is idle.
    """
    parts = {key: source.get(key, {}) for key in ("fixed", "search")}
    choices = {n: _choices(e) for part in parts.values() for n, e in part.items()}
    changed = {
        key: {name: _narrowed(entry, choices) for name, entry in part.items()}
        for key, part in parts.items()
    }
    return {**source, **{key: part for key, part in changed.items() if key in source}}


def _choices(entry: Any) -> list[Any] | None:
    """What a parameter may be; None where that is a range of numbers."""
    if isinstance(entry, list):
        several = [_choices(one) for one in entry]
        return None if None in several else [v for one in several if one for v in one]
    if not isinstance(entry, dict):
        return [entry]
    if "value" in entry:
        return [entry["value"]]
    found = entry.get("choices")
    return found if isinstance(found, list) else None


def _narrowed(entry: Any, choices: Mapping[str, list[Any] | None]) -> Any:
    if isinstance(entry, list):
        return [_narrowed(one, choices) for one in entry]
    when = entry.get("when") if isinstance(entry, dict) else None
    if not isinstance(when, dict):
        return entry
    narrowed = {}
    for name, values in when.items():
        known = choices.get(name)
        possible = [
            value
            for value in (values if isinstance(values, list) else [values])
            if known is None or any(same(value, one) for one in known)
        ]
        narrowed[name] = possible if isinstance(values, list) and possible else values
    return _with_when(entry, narrowed)


def _with_when(entry: Mapping[str, Any], when: Mapping[str, Any]) -> Source:
    bare = {key: value for key, value in entry.items() if key != "when"}
    return {**bare, "when": dict(when)} if when else bare


def _possible(bare: Space, point: Mapping[str, Any]) -> bool:
    try:
        bare.complete(values_of(point), _any)
    except ValueError:
        return False
    return True


def _any(parameter: Parameter) -> Any:
    return parameter.nth(0) if parameter.count < float("inf") else parameter.low
