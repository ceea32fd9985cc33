"""Spaces held against what models declare. Imports torch, so no slot's process comes here."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from paropt.errors import ParamError
from paropt.search.space.file import EPOCHS, from_json, read_space, suggest
from paropt.search.space.parameter import Parameter
from paropt.search.space.space import Config, Space
from paropt.search.strategy.sampling import uniformly
from paropt.training import registry
from paropt.training.registry import Param

Declare = Callable[[str], Mapping[str, Param]]

_PROBES = 50  # configurations tried on the models' own check
_NUMBERS = {"int": ("int", "float", "sizes"), "float": ("float",)}


def read_checked_space(path: str | Path, fixed: Iterable[str] = ()) -> Space:
    """The space of a file, held against the models' declarations; see :func:`checked`."""
    return checked(read_space(path, fixed))


def checked(space: Space, declare: Declare = registry.declaration) -> Space:
    """The space, with the models' numbers of epochs filled in.

    Raises:
        SpaceError: a parameter that a model doesn't have or that doesn't fit its declaration, or
            parameters that never fit each other.
        ModelError: no such model.
    """
    declared = {model: declare(model) for model in space.models}
    space = _with_texts(space, declared)
    for parameter in space.parameters:
        if parameter.name != "model":
            _check(space, parameter, declared)
    for parameter in space.idle:
        _check_idle(space, parameter, declared)
    epochs = {m: int(params[EPOCHS].default) for m, params in declared.items() if EPOCHS in params}
    for model in space.models:
        if registry.counts(model) or registry.stages_of(model, {}):
            epochs[model] = registry.epochs_of(model)
    space = replace(space, epochs=epochs)
    _check_together(space)
    return space


def _with_texts(space: Space, declared: Mapping[str, Mapping[str, Param]]) -> Space:
    """Numbers given for what a model takes as text (``embedding=0``) become text."""
    fixed = dict(space.source.get("fixed", {}))
    changed = False
    for name, value in fixed.items():
        types = {params[name].type for params in declared.values() if name in params}
        if types == {"str"} and isinstance(value, (int, float)) and not isinstance(value, bool):
            fixed[name], changed = str(value), True
    if not changed:
        return space
    again = from_json({**space.source, "fixed": fixed}, space.origin.name)
    return replace(again, origin=space.origin)


def _check(space: Space, parameter: Parameter, declared: Mapping[str, Mapping[str, Param]]) -> None:
    for model, params in declared.items():
        if not space.holds_with(parameter, model=model):
            continue
        if parameter.name not in params:
            others = [other for other in declared if parameter.name in declared[other]]
            hint = suggest(parameter.name, params)
            if others:
                condition = others if len(others) > 1 else others[0]
                hint = f'say "when": {{"model": {condition!r}}}'.replace("'", '"')
            space.origin.fail(
                parameter.where, f'{model} has no parameter "{parameter.name}"; {hint}'
            )
        if misfit := _misfit(parameter, params[parameter.name]):
            space.origin.fail(parameter.where, f'"{parameter.name}" {misfit}')


def _check_idle(
    space: Space, parameter: Parameter, declared: Mapping[str, Mapping[str, Param]]
) -> None:
    """What is not in force now must fit as well, and its conditions must be able to hold."""
    names = {name for params in declared.values() for name in params}
    for name, ranges in [(parameter.name, parameter), *_conditions(parameter)]:
        misfits = [_misfit(ranges, params[name]) for params in declared.values() if name in params]
        if not misfits and name != "model":
            message = f'{" and ".join(declared)} has no parameter "{name}"; {suggest(name, names)}'
            space.origin.fail(parameter.where, message)
        if misfits and all(misfits):
            why = f'"{name}" {misfits[0]}' if ranges is parameter else f"{name} {misfits[0]}"
            if ranges is not parameter:
                why = f'"{parameter.name}": "when" can\'t hold, {why}'
            space.origin.fail(parameter.where, why)


def _conditions(parameter: Parameter) -> Iterable[tuple[str, Parameter]]:
    """What its conditions demand of others, as ranges."""
    for name, values in parameter.when.items():
        for value in values:
            yield name, Parameter(name, "value", name, choices=(value,))


def _misfit(parameter: Parameter, declared: Param) -> str | None:
    """Why a range doesn't fit a declaration; one clause."""
    if parameter.kind in _NUMBERS and declared.type not in _NUMBERS[parameter.kind]:
        wanted = "an int range or choices" if declared.type in ("int", "sizes") else "choices"
        return f"is a {declared.type}, so search it by {wanted}, not by a {parameter.kind} range"
    if parameter.kind in _NUMBERS:
        values: Iterable[Any] = (parameter.low, parameter.high)
        if declared.choices and parameter.count <= len(declared.choices):
            values = parameter.values()
    else:
        values = parameter.choices
    for value in values:
        try:
            declared.parse(value)
        except ValueError as error:
            return str(error)
    return None


def _check_together(space: Space) -> None:
    """Start points must suit their model as a whole, and of all others some must."""
    for index, point in enumerate(space.start):
        full = space.complete(point, lambda p: p.at(0.5))
        if all(name in point for name in full if name in {p.name for p in space.searched}) and (
            reason := _refused(full)
        ):
            space.origin.fail(("start", index), f"start point {index + 1}: {reason}")
    rng = random.Random(0)
    reasons = [_refused(space.walk(uniformly(rng))) for _ in range(_PROBES)]
    if all(reasons):
        space.origin.fail((), f"no configuration can be trained: {reasons[0]}")


def _refused(config: Config) -> str | None:
    params = {name: value for name, value in config.items() if name != "model"}
    try:
        registry.complete_params(str(config["model"]), params)
    except ParamError as error:
        return str(error)
    return None
