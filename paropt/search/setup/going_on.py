"""A space whose trials begin with a saved model: what they have of it, and what may differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from paropt.errors import DataError, ParamError, SpaceError
from paropt.search.setup.check_needs import configurations
from paropt.search.space.file import parse_fixed
from paropt.search.space.parameter import same
from paropt.search.space.space import Space
from paropt.training.fitting.earlier import Earlier, shapes
from paropt.training.registry import Bags, Catalogue, Field, Table, Vectors, build, declaration

ITEMS = 16  # of the catalogue on which shapes are tried: they don't depend on how many there are
Read = Callable[[Iterable[str]], Space]


def begun_space(read: Read, fixed: Iterable[str], earlier: Earlier) -> tuple[Space, list[str]]:
    """The space of trials that begin with a saved model, and what to say of it.

    Its model is that model's. What would change a shape has one value, the model's; so has what the
    space leaves out, where the model has another than the default. ``read`` reads the space with
    texts ``k=v,…`` in place of what it searches.

    Raises:
        SpaceError: the space hasn't got that model.
        ParamError: ``fixed`` says something that would change a shape.
    """
    texts = list(fixed)
    space = read(texts)
    if earlier.name not in space.models:
        raise SpaceError(
            f"the trials begin with a {earlier.name}, and the space is of "
            f"{' and '.join(space.models)}; give one of that model"
        )
    said = []
    if len(space.models) > 1:
        said.append(f"the trials begin with a {earlier.name}, so they are of that model")
        texts.append(f"model={earlier.name}")
        space = read(texts)
    pins, left_out = _shaping(space, earlier), _left_out(space, earlier)
    given = parse_fixed(texts)
    for name in pins:
        if name in given:
            raise ParamError(
                f"--fixed {name}={given[name]} would change shapes of the model that the trials "
                f"begin with, where it is {pins[name]}; leave it out"
            )
    said += [
        f"{name} is {value} in every trial, as in the model that it begins with: another would "
        "change its shapes"
        for name, value in pins.items()
    ]
    if left_out:
        listed = ", ".join(f"{name}={value}" for name, value in left_out.items())
        said.append(f"what the space leaves out is as in that model: {listed}")
    more = [f"{name}={value}" for name, value in (pins | left_out).items()]
    return read([*texts, *more]), said


def _left_out(space: Space, earlier: Earlier) -> dict[str, str]:
    """The model's parameters that the space says nothing of, where they aren't the defaults."""
    mentioned = {parameter.name for parameter in (*space.parameters, *space.idle)}
    return {
        name: _written(earlier.params[name])
        for name, param in declaration(earlier.name).items()
        if name not in mentioned and earlier.params[name] != param.default
    }


def _shaping(space: Space, earlier: Earlier) -> dict[str, str]:
    """The parameters of the space that change a shape, with the model's values."""
    about = _few(earlier.catalogue)
    usual = _shapes(earlier, earlier.params, about)
    pins: dict[str, Any] = {}
    for config, _ in configurations(space):
        own = {name: value for name, value in config.items() if name != "model"}
        params = {**earlier.params, **own, **pins}
        found = _shapes(earlier, params, about)
        if found is None or found == usual:
            continue
        for name in own:
            there = earlier.params[name]
            if same(params[name], there) or name in pins:
                continue
            if _shapes(earlier, {**params, name: there}, about) not in (None, found):
                pins[name] = there
    return {name: _written(value) for name, value in pins.items()}


def _shapes(earlier: Earlier, params: Mapping[str, Any], about: Catalogue) -> Any:
    """Of the weights with these parameters; None where they don't fit each other."""
    try:
        model = build(earlier.name, params, about, 0)
    except (ParamError, DataError):
        return None
    return shapes(model.state_dict(), model.keyed_rows())


def _few(about: Catalogue) -> Catalogue:
    """The same catalogue with few items."""
    count = min(ITEMS, about.n_items)
    if count == about.n_items:
        return about

    def read(field: Field) -> Any:
        if field.kind == "vector":
            return Vectors(field.size, about.items.vectors(field.name).missing[:count], None)
        if field.kind == "categories":
            bags = about.items.bags(field.name)
            offsets = bags.offsets[: count + 1]
            return Bags(bags.codes[: int(offsets[-1])], offsets, bags.missing[:count])
        if field.kind == "category":
            return about.items.codes(field.name)[:count]
        return about.items.numbers(field.name)[:count]

    return replace(
        about,
        facts=replace(about.facts, n_items=count),
        support=about.support[:count],
        features={name: values[:count] for name, values in about.features.items()},
        items=Table(about.items.fields, read),
    )


def _written(value: Any) -> str:
    """As ``--fixed`` takes it."""
    if isinstance(value, tuple):
        numbers = all(isinstance(one, int) for one in value)
        return ("/" if numbers and value else "+").join(map(str, value)) or "none"
    return str(value)
