"""Bags of what stretches hold: TF-IDF, exactly as a floor and sketched as a part of a vector.

A bag weighs each code by log(1 + how often) · idf, with idf = log((1 + n) / (1 + holders)) + 1 of
the n training sessions of which so many hold the code (the smooth form of scikit-learn's). One
that no training session holds weighs most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import Catalogue
from models.parts.long_short.events import NUMBERS, time_numbers
from models.parts.long_short.stretches import Tokens
from models.parts.transformer.blocks import linear

SIDES = ("long", "short")
_SIGNS = 4  # entries that an item has in a sketch
_MIX = 0x2545F4914F6CDD1D  # an odd number; products wrap around


def idf(holders: Tensor | None, size: int, n_sessions: int) -> Tensor:
    """Weights [size + 1] float32; the last is that of what is unknown."""
    known = torch.zeros(size) if holders is None else holders.float()
    weights: Tensor = torch.log((1 + n_sessions) / (1 + F.pad(known, (0, 1)))) + 1
    return weights


def counted(codes: Tensor, row: Tensor) -> Tensor:
    """log(1 + c)/c [T] for each event whose code is c times in its stretch, so that a code's
    events together weigh log(1 + c)."""
    pair = row << 32 | (codes + 1)  # a code is below 2³¹, and −1 where unknown
    _, inverse, counts = torch.unique(pair, return_inverse=True, return_counts=True)
    c = counts[inverse].float()
    weights: Tensor = torch.log1p(c) / c
    return weights


class Bag(nn.Module):
    """Sketched TF-IDF bags of a stretch's items and categories, [R, items_dim + categories_dim].

    An item has a few entries ±1 at places that its number is hashed to (a count sketch, Charikar
    et al. 2002): the product of two sketches is that of the bags, give or take 1/√dim, whatever the
    items, known from training or not. A category has a direction of its own, random at first, and
    learned. What an event of a side ("long", "short") weighs is learned as well, from what was done
    and when, and begins as one.
    """

    item_idf: Tensor
    category_idf: Tensor

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue) -> None:
        super().__init__()
        self.n_items, self.dim = catalogue.n_items, int(params["bag_dim"])
        n_sessions, holders = catalogue.facts.n_sessions, catalogue.holders
        self.register_buffer("item_idf", idf(holders.get("item"), self.n_items, n_sessions))
        self.categories: nn.Embedding | None = None
        if params["category"]:
            size, width = catalogue.facts.columns["category"].size, int(params["bag_category_dim"])
            self.register_buffer("category_idf", idf(holders.get("category"), size, n_sessions))
            self.categories = nn.Embedding(size, width)
            nn.init.normal_(self.categories.weight, std=width**-0.5)
            if size <= width:  # room for each to have a direction that no other shares
                nn.init.eye_(self.categories.weight)
            self.categories.weight.requires_grad_(bool(params["bag_learned"]))
        behaviours = catalogue.facts.columns["behaviour"].size if params["behaviour"] else 0
        self.behaviour = nn.Embedding(behaviours + 1, 8)
        self.weigh = nn.ModuleDict({side: EventWeights() for side in SIDES})

    def forward(self, tokens: Tokens, side: str) -> list[Tensor]:
        """Of items, and of categories if they are read; each of length one, or zero where empty."""
        weights = self._weights(tokens, side)
        known = tokens.items.clamp(max=self.n_items)
        items = counted(tokens.items, tokens.row) * self.item_idf[known] * weights[:, 0]
        found = [self._sketch(tokens, items)]
        if self.categories is not None:
            codes = tokens.columns["category"]
            weight = counted(codes, tokens.row) * self.category_idf[codes] * weights[:, 1]
            vectors = self.categories(codes.clamp(min=0)) * (weight * (codes >= 0))[:, None]
            summed = vectors.new_zeros(tokens.rows, vectors.shape[1])
            found.append(summed.index_add(0, tokens.row, vectors))
        return [F.normalize(vectors[tokens.back], dim=1) for vectors in found]

    def _weights(self, tokens: Tokens, side: str) -> Tensor:
        """What the events weigh in the bags of items and of categories [T, 2]."""
        done = tokens.columns.get("behaviour")
        code = torch.zeros_like(tokens.items) if done is None else done + 1
        told = torch.cat([self.behaviour(code), time_numbers(tokens)], 1)
        weights: Tensor = self.weigh[side](told)
        return weights

    def _sketch(self, tokens: Tokens, weights: Tensor) -> Tensor:
        places, signs = hashed(tokens.items, self.dim)
        at = tokens.row[:, None] * self.dim + places
        values = weights[:, None] * signs * _SIGNS**-0.5
        flat = values.new_zeros(tokens.rows * self.dim)
        summed: Tensor = flat.index_add(0, at.flatten(), values.flatten())
        return summed.view(tokens.rows, self.dim)


class EventWeights(nn.Module):
    """What an event weighs in two bags, from its behaviour and its time; one at first."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = linear(8 + NUMBERS, 16), linear(16, 2)
        nn.init.xavier_uniform_(self.inner.weight)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.out(F.silu(self.inner(x)))
        bounded: Tensor = weights.clamp(-4, 4).exp()
        return bounded


def hashed(numbers: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Places [T, 4] int64 below ``dim`` and signs [T, 4] of some numbers, anywhere the same."""
    salt = torch.arange(1, _SIGNS + 1, device=numbers.device)
    x = numbers[:, None] * _SIGNS + salt
    for _ in range(2):  # multiply and shift: every bit of a number reaches every bit of its hash
        x = x * _MIX
        x = x ^ (x >> 29 & (1 << 35) - 1)
    return (x >> 8 & (1 << 40) - 1) % dim, (x & 1).float() * 2 - 1
