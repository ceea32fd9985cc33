"""A space held against the data: whether they have what its configurations read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from paropt.errors import DataError, ParamError
from paropt.search.space.parameter import Parameter
from paropt.search.space.space import Choose, Config, Space
from paropt.search.strategy.sampling import uniformly
from paropt.training import registry
from paropt.training.batches.catalogue import facts

if TYPE_CHECKING:
    from paropt.data.dataset import Dataset

_PROBES = 20  # configurations drawn at random
_TRIES = 8  # to draw one in which a parameter is in force


def check_needs(space: Space, dataset: Dataset) -> int:
    """Refuse data that lack something that a configuration of the space reads.

    Start points, every choice of every parameter, and some configurations at random are tried; a
    trial's own check is the last word.

    Returns:
        The most bytes that one of these remembers of users (:meth:`Model.memory_bytes`).

    Raises:
        DataError: which parameter asks for what, and which option of ``prepare`` gives it.
    """
    if not any(registry.reads_more(model) for model in space.models):
        return 0
    about, most = facts(dataset.view("search")), 0
    for config, parameter in configurations(space):
        model = str(config["model"])
        params = {name: value for name, value in config.items() if name != "model"}
        try:
            complete = registry.complete_params(model, params, about)
            most = max(most, registry.model_class(model).memory_bytes(complete, about))
        except ParamError:
            continue  # what never fits is the space's own check
        except DataError as error:
            value = config[parameter.name] if parameter else None
            told = f' ("{parameter.name}" may be {value})' if parameter else ""
            raise DataError(f"{error}{told}") from None
    return most


def items_read(space: Space) -> set[str]:
    """The fields of items that configurations of the space read, by name."""
    found: set[str] = set()
    for config, _ in configurations(space):
        model = str(config["model"])
        params = {name: value for name, value in config.items() if name != "model"}
        try:
            complete = registry.complete_params(model, params)
        except ParamError:
            continue
        found |= set(registry.model_class(model).needs(complete).items)
    return found


def configurations(space: Space) -> Iterator[tuple[Config, Parameter | None]]:
    """Configurations to try, each with the parameter whose choice it is there for."""
    rng = random.Random(0)
    draw = uniformly(rng)
    for point in space.start:
        yield space.complete(point, draw), None
    for parameter in space.searched:
        if parameter.kind != "categorical" or parameter.name == "model":
            continue
        for choice in parameter.choices:
            for _ in range(_TRIES):
                config = space.walk(_with(parameter, choice, draw))
                if config.get(parameter.name) == choice:
                    yield config, parameter
                    break
    for _ in range(_PROBES):
        yield space.walk(draw), None


def _with(parameter: Parameter, choice: Any, draw: Choose) -> Choose:
    return lambda asked: choice if asked.label == parameter.label else draw(asked)
