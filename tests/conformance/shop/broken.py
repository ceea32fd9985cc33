"""Models with one bug each, and the check that should find it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from models.parts.contract import Catalogue, Param, SequenceBatch
from shop.alien import Alien


class Plain(Alien):
    """Ranked by paropt, in one stage, as most models are."""

    METRICS = ()
    PARAMS = tuple(replace(p, default=0) if p.name == "first_epochs" else p for p in Alien.PARAMS)

    def evaluate(self, batches: Any) -> None:
        return None


class LooksAhead(Plain):
    def encode(self, batch: SequenceBatch) -> Tensor:
        ahead = torch.roll(batch.items, -1, 1)
        return super().encode(batch) + 0.1 * super().encode(replace(batch, items=ahead))


class SeesPadding(Plain):
    def encode(self, batch: SequenceBatch) -> Tensor:
        return super().encode(batch) / batch.items.shape[1]


class DrawsWithoutItsSeed(Plain):
    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        fresh = torch.Generator()
        fresh.seed()
        self.own = nn.Parameter(torch.randn(self.own.shape, generator=fresh))


class IgnoresItsSeed(Plain):
    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, 0)


class ForgetsState(Plain):
    def training_state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Not today."""


class KeepsWeightsOutOfItsState(Plain):
    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        self.tilt = 0.0

    def after_step(self) -> None:
        self.tilt += 0.5

    def encode(self, batch: SequenceBatch) -> Tensor:
        return super().encode(batch) + self.tilt


class LearnsInEvaluation(Plain):
    def encode(self, batch: SequenceBatch) -> Tensor:
        if not self.training:
            self.own.data.mul_(0.9)
        return super().encode(batch)


class CrashesOnAChoice(Plain):
    PARAMS = (*Plain.PARAMS, Param("shape", "str", "round", "of it", choices=("round", "square")))

    def loss(self, batch: SequenceBatch) -> Tensor:
        if self.params["shape"] == "square":
            raise IndexError("no corner")
        return super().loss(batch)


class BadDefault(Plain):
    PARAMS = (*Plain.PARAMS, Param("size", "int", 5, "of it", high=4))


class TellsNoJson(Plain):
    def end_epoch(self, epoch: int) -> dict[str, Any]:
        return {"own": self.own}


class RunsBackwards(Plain):
    def loss(self, batch: SequenceBatch) -> Tensor:
        loss = super().loss(batch)
        return 2 * loss.detach() - loss


class NeedsNineItems(Plain):
    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        self.ninth = float(self.own[8, 0].detach())
