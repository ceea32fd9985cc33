"""A parameter space: which configurations of which models a study may try."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paropt.search.space.json_with_lines import Origin
from paropt.search.space.parameter import Parameter, same

Config = dict[str, Any]
"""The active parameters of one configuration by name, ``model`` among them."""

Choose = Callable[[Parameter], Any]


@dataclass(frozen=True)
class Space:
    """What a study searches.

    ``parameters`` holds constants and ranges, the model among them (named ``model``), each after
    those that its conditions mention. ``epochs`` is the number of epochs by model where no
    parameter says it. ``source`` is the JSON object that it was read from, ``--fixed`` included.
    ``idle`` are the ranges that are not in force as long as other parameters are fixed as they are.
    ``start_from`` says of each start point whose it is, None where nothing is said.
    """

    parameters: tuple[Parameter, ...]
    start: tuple[Mapping[str, Any], ...] = ()
    data: str | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)
    origin: Origin = field(default=Origin("space"), compare=False, repr=False)
    idle: tuple[Parameter, ...] = ()
    start_from: tuple[str | None, ...] = field(default=(), compare=False)

    @property
    def models(self) -> list[str]:
        """The models it may choose."""
        return [str(choice) for p in self.parameters if p.name == "model" for choice in p.choices]

    @property
    def searched(self) -> list[Parameter]:
        return [parameter for parameter in self.parameters if parameter.searched]

    @property
    def constants(self) -> dict[str, Any]:
        """What every configuration has, by name, but for the model."""
        fixed = [p for p in self.parameters if not p.searched and not p.when and p.name != "model"]
        return {parameter.name: parameter.choices[0] for parameter in fixed}

    @property
    def conditional(self) -> bool:
        """Whether some searched parameter is not always in force."""
        chosen = {parameter.name for parameter in self.searched}
        return any(chosen & set(parameter.when) for parameter in self.searched)

    def walk(self, choose: Choose, config: Config | None = None) -> Config:
        """A configuration made by asking ``choose`` for every searched parameter in force.

        It is built in ``config``, an empty one, where ``choose`` may see what there is so far.
        """
        config = {} if config is None else config
        for parameter in self.parameters:
            if parameter.holds(config):
                chosen = choose(parameter) if parameter.searched else parameter.choices[0]
                config[parameter.name] = chosen
        return config

    def active(self, config: Mapping[str, Any]) -> list[Parameter]:
        """The parameters in force in a complete configuration."""
        return [parameter for parameter in self.parameters if parameter.holds(config)]

    def canonical(self, config: Mapping[str, Any]) -> Hashable:
        """Equal for equal configurations: what was searched and is in force, on its grid."""
        return tuple(
            (p.label, repr(p.nearest(config[p.name]))) for p in self.active(config) if p.searched
        )

    def complete(self, point: Mapping[str, Any], choose: Choose) -> Config:
        """A point to start from, with ``choose`` asked for what it leaves out.

        Raises:
            ValueError: it says something that the space does not contain; one clause.
        """
        left = dict(point)

        def take(parameter: Parameter) -> Any:
            if parameter.name not in left:
                return choose(parameter)
            try:
                return parameter.nearest(left.pop(parameter.name))
            except ValueError as error:
                raise ValueError(f'"{parameter.name}" {error}') from None

        config = self.walk(take)
        for name, value in left.items():
            if name not in config:
                known = any(p.name == name for p in (*self.parameters, *self.idle))
                why = "is not in force there" if known else "is not in the space"
                raise ValueError(f'"{name}" {why}')
            if not same(config[name], value):
                raise ValueError(f'"{name}" is fixed to {config[name]}, not {value}')
        return config

    def holds_with(self, parameter: Parameter, **demanded: Any) -> bool:
        """Whether a parameter can be in force while others have the demanded values."""
        by_name: dict[str, list[Parameter]] = {}
        for other in self.parameters:
            by_name.setdefault(other.name, []).append(other)
        return reachable(parameter, by_name, {name: (v,) for name, v in demanded.items()})

    def size(self) -> float:
        """How many different configurations there are; inf with a continuous parameter."""
        mentioned: dict[str, list[Any]] = {}
        for parameter in self.parameters:
            for name, values in parameter.when.items():
                mentioned.setdefault(name, []).extend(values)
        return _count(self.parameters, {}, mentioned)

    def enumerate(self) -> Iterator[Config]:
        """Every configuration of a finite space, in order."""
        return _enumerate(self.parameters, {})

    def to_json(self) -> dict[str, Any]:
        """What a study stores; :func:`paropt.search.space.file.from_json` reads it."""
        return {**self.source, **({"epochs": dict(self.epochs)} if self.epochs else {})}


_OTHER = object()  # a value that no condition mentions


def _count(
    parameters: Sequence[Parameter], config: Config, mentioned: Mapping[str, Sequence[Any]]
) -> float:
    """Counts without enumerating: only the values that conditions mention make a difference."""
    total: float = 1
    for index, parameter in enumerate(parameters):
        if not parameter.holds(config):
            continue
        if parameter.name not in mentioned:
            total *= parameter.count
            continue
        rest = parameters[index + 1 :]
        named = {
            repr(parameter.nearest(v)): v for v in mentioned[parameter.name] if parameter.can_be(v)
        }
        branches = [_count(rest, {**config, parameter.name: v}, mentioned) for v in named.values()]
        if others := parameter.count - len(named):
            branches.append(others * _count(rest, {**config, parameter.name: _OTHER}, mentioned))
        return total * math.fsum(branches)
    return total


def _enumerate(parameters: Sequence[Parameter], config: Config) -> Iterator[Config]:
    waiting = list(itertools.dropwhile(lambda p: not p.holds(config), parameters))
    if not waiting:
        yield dict(config)
        return
    first, *rest = waiting
    for value in first.values():
        yield from _enumerate(rest, {**config, first.name: value})


def reachable(
    parameter: Parameter,
    by_name: Mapping[str, Sequence[Parameter]],
    demanded: Mapping[str, tuple[Any, ...]],
) -> bool:
    """Whether the conditions of a parameter and of all it depends on leave each of them a value."""
    demands = dict(demanded)
    for name, values in parameter.when.items():
        kept = tuple(v for v in demands.get(name, values) if any(same(v, w) for w in values))
        if not kept:
            return False
        demands[name] = kept
    return all(
        any(
            reachable(other, by_name, demands)
            for other in by_name[name]
            if any(other.can_be(value) for value in demands[name])
        )
        for name in parameter.when
    )
