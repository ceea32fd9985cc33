"""A model with a memory: which items came after which lately, beside what it learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import Catalogue, Model, Param, SequenceBatch


class Keeper(Model):
    """Items by what they follow; the latest pairs of training are remembered, and count more."""

    PARAMS = (
        Param("dim", "int", 8, "channels", low=1, high=64),
        Param("memory_pairs", "int", 40, "pairs that are remembered; 0: none", low=0, high=10_000),
        Param("learning_rate", "float", 0.05, "of AdamW", low=0, low_open=True, high=1),
        Param("batch_size", "int", 16, "sessions of a batch", low=1),
        Param("n_epochs", "int", 3, "passes over the data", low=1),
    )
    MEMORY = "memory_pairs"

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        draw = torch.Generator().manual_seed(seed)
        self.items = nn.Parameter(torch.randn(catalogue.n_items, params["dim"], generator=draw))
        self.load_memory({})

    def loss(self, batch: SequenceBatch) -> Tensor:
        wanted = batch.targets[batch.targets >= 0]
        pairs = torch.stack([batch.items[batch.targets >= 0], wanted], 1)
        most = self.params["memory_pairs"]
        self.pairs = torch.cat([self.pairs, pairs])[-most:] if most else self.pairs
        return F.cross_entropy(self.encode(batch) @ self.items.T, wanted)

    def encode(self, batch: SequenceBatch) -> Tensor:
        return self.items[batch.items[batch.targets >= 0]].roll(1, 1)

    def item_table(self) -> tuple[Tensor, Tensor | None]:
        return self.items, None

    def score(self, batch: SequenceBatch) -> Tensor:
        scores = super().score(batch)
        last = batch.items[batch.targets >= 0]
        rows, kept = (last[:, None] == self.pairs[:, 0]).nonzero(as_tuple=True)
        bonus = torch.ones(len(rows))
        return scores.index_put((rows, self.pairs[kept, 1]), bonus, accumulate=True)

    def memory(self) -> dict[str, Tensor]:
        return {"pairs": self.pairs}

    def load_memory(self, memory: Mapping[str, Tensor]) -> None:
        self.pairs = memory.get("pairs", torch.zeros(0, 2).long())

    def memory_facts(self) -> dict[str, float]:
        return {"items": float(len(self.pairs[:, 0].unique()))}


MODEL = Keeper
