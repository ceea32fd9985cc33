"""UR4Rec in the space made for a dataset: where its items have texts, whose vectors are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paropt.data import Dataset
    from paropt.data.features.fields import FieldOf

UR4REC = "ur4rec"
SUFFIX = "_vector"  # of a text's name, for its vectors (``prepare --text-vectors``)
STAGES = ("pretrain_sasrec", "pretrain_retriever", "joint_finetune", "end_to_end")
MEMORY = ("memory_trigger", "memory_threshold", "drift_threshold", "memory_decay")


@dataclass(frozen=True)
class TextFacts:
    """Fields of vectors that were made of texts, of items and of users, and whether it is known
    whose sessions they are."""

    items: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    has_users: bool = False


def text_facts(dataset: Dataset, least: float) -> TextFacts:
    """What is known; texts that fewer than this share of the items have are left out."""
    most = (1 - least) * dataset.n_items("test")
    return TextFacts(
        tuple(
            name
            for name in _of_texts(dataset, "items")
            if dataset.fields("items")[name].missing <= most
        ),
        _of_texts(dataset, "users"),
        dataset.n_users("train") > 0,
    )


def _of_texts(dataset: Dataset, of: FieldOf) -> tuple[str, ...]:
    fields = dataset.fields(of)
    kinds = {name: field.kind for name, field in fields.items()}
    return tuple(
        name
        for name, kind in kinds.items()
        if kind == "vector"
        and "+" not in name
        and name.endswith(SUFFIX)
        and kinds.get(name.removesuffix(SUFFIX)) == "text"
    )


def suit_texts(source: dict[str, Any], facts: TextFacts, epochs: int | None) -> None:
    """Name the texts, leave out what the data have nothing for, and train for ``epochs`` at most
    in each stage."""
    fixed, search, start = source["fixed"], source["search"], source["start"]
    fixed["item_text"] = "+".join(facts.items) or "none"
    fixed["user_text"] = "+".join(facts.users) or "none"
    if not facts.has_users:
        fixed["memory_users"] = 0
        for name in ("max_memory_size", *MEMORY):
            del search[name]
            for point in start:
                point.pop(name, None)
    if epochs is not None:
        for stage in STAGES:
            choices = search[stage]["choices"]
            search[stage]["choices"] = [n for n in choices if n <= epochs] or [min(choices)]
