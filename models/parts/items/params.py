"""The parameters by which a model says what its items' vectors are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.parts.contract import Facts, Kinds, Param

READ: Kinds = ("category", "categories", "number")

ITEM_PARAMS: tuple[Param, ...] = (
    Param(
        "features",
        "names",
        (),
        "categories and numbers of items that their vectors are made of; also what training says "
        "of them, as stats.events",
    ),
    Param("vectors", "names", (), "vectors of items (of texts, say) that theirs are made of"),
    Param(
        "id_init",
        "str",
        "normal",
        "how the vectors of ids begin; none: items are what is known of them, and have no ids",
        choices=("normal", "zero", "none"),
    ),
    Param(
        "fuse",
        "str",
        "sum",
        "what is made of the parts: their sum, or to that what an MLP makes of all of them",
        choices=("sum", "mlp"),
    ),
    Param(
        "bag",
        "str",
        "mean",
        "what is made of several categories of one item",
        choices=("mean", "sum"),
    ),
    Param(
        "vector_dims",
        "int",
        128,
        "directions that whitening keeps of each of the vectors, at most",
        low=1,
        high=8192,
    ),
    Param(
        "id_dropout",
        "float",
        0.0,
        "share of items whose ids a step goes without, so that the other parts learn to do alone",
        low=0,
        high=1,
        high_open=True,
        source="DropoutNet (NIPS 2017)",
    ),
)


def item_fields(params: Mapping[str, Any]) -> dict[str, Kinds]:
    """The fields of items that these parameters name, with the kinds that will do."""
    read: dict[str, Kinds] = {name: READ for name in params["features"]}
    return read | {name: ("vector",) for name in params["vectors"]}


def check_items(params: Mapping[str, Any], facts: Facts | None = None) -> None:
    """Refuse items that would be made of nothing, and fields that have another place.

    Raises:
        ValueError: one clause with the parameters and what would fit.
    """
    if both := [name for name in params["vectors"] if name in params["features"]]:
        raise ValueError(f"features and vectors both name {both[0]!r}; name it in one of them")
    for name in params["features"]:
        kind = facts.items[name].kind if facts and name in facts.items else ""
        if kind == "vector":
            raise ValueError(f"features name {name!r}, which is a vector; name it in vectors")
        if kind == "text":
            raise ValueError(
                f"features name {name!r}, which is a text; prepare the data with --text-vectors "
                f"{name}, and name {name}_vector in vectors"
            )
    if known_by_more(params):
        return
    if params["id_init"] != "normal":
        raise ValueError(
            f"id_init={params['id_init']} leaves items with nothing that tells them apart; name "
            "features or vectors of theirs, or set id_init to normal"
        )
    if params["id_dropout"]:
        raise ValueError(
            f"id_dropout={params['id_dropout']} has no place where items are their ids alone; "
            "name features or vectors, or set it to 0"
        )


def known_by_more(params: Mapping[str, Any]) -> bool:
    """Whether items are more than their ids."""
    return bool(params["features"] or params["vectors"])
