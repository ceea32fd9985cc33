"""A few items with those that are nearest by their codes, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paropt.training.registry import Quantiser
from paropt.training.semantic_ids.items import ItemVectors

EXAMPLES = 4  # items that are shown
NEAREST = 3  # of each
LOOKED_AT = 2000  # of those with the same first codes, at most
LONGEST = 70  # characters of a title


@dataclass(frozen=True)
class Neighbour:
    """An item that shares its first ``shared`` codes with another."""

    item: str
    shared: int
    title: str | None = None


@dataclass(frozen=True)
class Neighbours:
    """An item, its codes, and the items nearest by their codes."""

    item: str
    codes: list[int]
    nearest: list[Neighbour]
    title: str | None = None


def examples(items: ItemVectors, quantiser: Quantiser, codes: Tensor) -> list[Neighbours]:
    """The items with most events, each with those that share most of its first codes; of these the
    ones whose codes stand for the most similar vectors.

    ``codes`` [coded items, levels] are those of ``items.coded``.
    """
    support = np.bincount(items.dataset.split("train").items, minlength=len(items.vectors))
    order = np.argsort(-support[items.trained.numpy()], kind="stable")[:EXAMPLES]
    said = _Said(items)
    return [_example(int(row), said, items.coded.tolist(), quantiser, codes) for row in order]


def _example(
    row: int, said: _Said, coded: Sequence[int], quantiser: Quantiser, codes: Tensor
) -> Neighbours:
    same = (codes == codes[row]).long().cumprod(1).sum(1)  # how many of the first codes are shared
    same[row] = -1
    most = torch.sort(same, descending=True, stable=True).indices[:LOOKED_AT]
    asked = quantiser.rebuilt(codes[row : row + 1])
    away = (quantiser.rebuilt(codes[most]) - asked).square().sum(1)
    by_both = np.lexsort((away.numpy(), -same[most].numpy()))[:NEAREST]
    found = [int(most[at]) for at in by_both]
    return Neighbours(
        said.ids[coded[row]],
        codes[row].tolist(),
        [
            Neighbour(said.ids[coded[one]], int(same[one]), said.title(coded[one]))
            for one in found
            if same[one] > 0
        ],
        said.title(coded[row]),
    )


class _Said:
    """What people call items."""

    def __init__(self, items: ItemVectors) -> None:
        self.ids = items.dataset.item_ids()
        field = items.title_field()
        self.texts = field.texts() if field else None

    def title(self, item: int) -> str | None:
        text = self.texts[item] if self.texts is not None else None
        if text is None or len(text) <= LONGEST:
            return text
        return text[: LONGEST - 1].rstrip() + "…"
