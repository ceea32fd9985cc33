"""The parameters of the model of long and short parts, and which don't go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.parts.contract import Param
from models.parts.transformer.moe import MOE_PARAMS, check_moe
from models.parts.transformer.sequence_model import TRAINING_PARAMS

SEED = "the code of github.com/zy-hang/LongTermInterestModel"


def _own(params: tuple[Param, ...], **defaults: Any) -> tuple[Param, ...]:
    """Shared parameters with this model's defaults."""
    return tuple(replace(p, default=defaults.get(p.name, p.default)) for p in params)


_SIZES = (
    Param("dim", "int", 32, "channels of an event", low=4, high=4096, source=SEED),
    Param("depth", "int", 1, "blocks of a tower", low=0, high=64, source=SEED),
    Param("heads", "int", 2, "attention heads", low=1, high=256, source=SEED),
    Param("head_dim", "int", 16, "channels of a head", low=2, high=512, source=SEED),
    Param("out_dim", "int", 32, "channels of a tower's vector", low=1, high=4096, source=SEED),
    Param("item_dim", "int", 16, "channels of an item, and of a category", low=1, high=4096),
    Param("ffn_mult", "float", 2.0, "width of the feed-forward over dim", low=0.25, high=16),
    Param(
        "long_length",
        "int",
        100,
        "latest events that the long tower reads",
        low=1,
        high=8192,
        source=SEED,
    ),
    Param(
        "short_length",
        "int",
        20,
        "latest events that the short tower reads",
        low=1,
        high=8192,
        source=SEED,
    ),
    Param("dropout", "float", 0.1, "of events and of each branch", low=0, high=1, high_open=True),
    Param(
        "rotary",
        "str",
        "index",
        "rotary encoding of where an event stands, or none",
        choices=("index", "none"),
        source="arXiv 2104.09864",
    ),
    Param(
        "pool",
        "str",
        "cls",
        "the state of a learned token, or the mean of all states",
        choices=("cls", "mean"),
        source=SEED,
    ),
    Param(
        "towers",
        "str",
        "own",
        "whether the two towers have weights of their own, or share them",
        choices=("own", "shared"),
        source=SEED,
    ),
)
_EVENTS = (
    Param("category", "bool", True, "read the column 'category' of events and items"),
    Param("behaviour", "bool", True, "read the column 'behaviour' of events"),
    Param(
        "item_support",
        "int",
        5,
        "an item with fewer training events is unknown to the towers",
        low=1,
    ),
    Param(
        "item_dropout",
        "float",
        0.3,
        "share of items that training takes for unknown",
        low=0,
        high=1,
    ),
)
_BAG = (
    Param(
        "bag",
        "bool",
        True,
        "join bags (sketched TF-IDF with learned weights) to the towers' vectors",
    ),
    Param(
        "bag_dim",
        "int",
        4096,
        "channels of the items' bag; its products are off by about 1/√bag_dim",
        low=8,
        high=65536,
    ),
    Param(
        "bag_category_dim",
        "int",
        1024,
        "channels of the categories' bag; exact from as many on as there are categories",
        low=8,
        high=65536,
    ),
    Param(
        "bag_learned",
        "bool",
        False,
        "learn the categories' directions, which are random at first",
    ),
    Param(
        "bag_category_share",
        "float",
        0.2,
        "of categories in a cosine at first, where items have 1",
        low=0,
        high=100,
    ),
    Param("tower_share", "float", 0.01, "of the towers, likewise", low=0, high=100),
)
_LOSS = (
    Param(
        "loss",
        "str",
        "info-nce",
        "against all users of the batch, or against some (BPR)",
        choices=("info-nce", "bpr"),
        source="arXiv 1807.03748; 1205.2618",
    ),
    Param(
        "negatives", "int", 1, "other users that BPR compares with", low=1, high=1024, source=SEED
    ),
    Param("temperature", "float", 0.01, "divides cosines", low=0, low_open=True, high=100),
    Param("next_items", "bool", True, "also report how often next items and categories are found"),
)
_MOE = (
    Param(
        "moe_place",
        "str",
        "blocks",
        "experts in each block in place of its feed-forward, or once before the blocks",
        choices=("blocks", "before"),
        source=SEED,
    ),
    *_own(MOE_PARAMS, experts=4, top_k=2, shared_experts=1),
)
PARAMS: tuple[Param, ...] = (
    *_SIZES,
    *_EVENTS,
    *_BAG,
    *_LOSS,
    *_MOE,
    *_own(TRAINING_PARAMS, n_epochs=10, learning_rate=0.001),
)


def check_together(params: Mapping[str, Any]) -> None:
    """Refuse what doesn't go together.

    Raises:
        ValueError: one clause.
    """
    if params["rotary"] == "index" and params["head_dim"] % 2:
        raise ValueError(f"rotary index turns pairs, so head_dim {params['head_dim']} must be even")
    if params["moe_place"] == "before" or not params["depth"]:
        check_moe({**params, "blocks": 1, "moe_every": 1})
    else:
        check_moe({**params, "blocks": params["depth"]})
