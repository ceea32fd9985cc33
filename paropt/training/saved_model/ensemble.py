"""Several saved models as one: seeds, or a training's last epochs, whose scores are averaged.

Models score on scales of their own, so each target's scores over the catalogue are divided by
their standard deviation first. Of a product of a vector h and a table T that deviation is
√(hᵀ Cov(T) h), so the average is such a product too, and is ranked as fast as any model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paropt.errors import DataError
from paropt.training.registry import (
    Model,
    Needs,
    SequenceBatch,
    Table,
    model_class,
    scores_itself,
)
from paropt.training.saved_model.saved import SavedModel, load_model

_LEAST = 1e-12  # a model that gives all items one score adds nothing


class Ensemble(Model):
    """The mean of standardised scores of models that rank the same items by the same events."""

    def __init__(self, name: str, members: Sequence[Model]) -> None:
        first = members[0]
        super().__init__({"model": name, "params": first.params}, first.catalogue, first.seed)
        self.members = nn.ModuleList(members)

    @classmethod
    def needs(cls, params: Mapping[str, Any]) -> Needs:
        of_each = dict(params)  # not parameters that a model declares
        return model_class(of_each["model"]).needs(of_each["params"])

    @property
    def max_length(self) -> int | None:
        return self._models()[0].max_length

    def add_items(self, items: Table, count: int) -> None:
        for member in self._models():
            member.add_items(items, count)

    def _models(self) -> list[Model]:
        return [member for member in self.members if isinstance(member, Model)]


class VectorEnsemble(Ensemble):
    """Of models with vectors and a table of items: both in a row, h₁/σ₁ … and T₁ …."""

    def __init__(self, name: str, members: Sequence[Model]) -> None:
        super().__init__(name, members)
        self._spreads: list[Tensor] = []  # Cov(T) of each: the tables move by add_items only

    def add_items(self, items: Table, count: int) -> None:
        super().add_items(items, count)
        self._spreads = []

    def encode(self, batch: SequenceBatch) -> Tensor:
        if not self._spreads:
            self._spreads = [_covariance(_with_bias(member)) for member in self._models()]
        pairs = zip(self._models(), self._spreads, strict=True)
        return torch.cat([_standardised(member, batch, spread) for member, spread in pairs], 1)

    def item_table(self) -> tuple[Tensor, Tensor | None]:
        return torch.cat([_with_bias(member) for member in self._models()], 1), None


class ScoreEnsemble(Ensemble):
    """Of models that score every item themselves."""

    def score(self, batch: SequenceBatch) -> Tensor:
        total: Tensor | None = None
        for member in self._models():
            scores = member.score(batch).double()
            spread = scores.std(1, correction=0, keepdim=True).clamp(min=_LEAST)
            part = (scores - scores.mean(1, keepdim=True)) / spread
            total = part if total is None else total + part
        assert total is not None
        return total / len(self.members)


def _with_bias(member: Model) -> Tensor:
    """The member's table [n_items, d]; a bias is a column of it."""
    table, bias = member.item_table()
    table = table.float()
    return table if bias is None else torch.cat([table, bias.float()[:, None]], 1)


def _covariance(table: Tensor) -> Tensor:
    centred = table.double() - table.double().mean(0)
    return centred.T @ centred / len(table)


def _standardised(member: Model, batch: SequenceBatch, covariance: Tensor) -> Tensor:
    h = member.encode(batch).float()
    if len(covariance) > h.shape[1]:  # the bias
        h = torch.cat([h, h.new_ones(len(h), 1)], 1)
    spread = ((h.double() @ covariance) * h.double()).sum(1).clamp(min=_LEAST**2).sqrt()
    return (h.double() / spread[:, None]).float()


def load_models(directories: Sequence[Path], device: str = "cpu") -> SavedModel:
    """One saved model, or several as one, which is called as the first.

    Raises:
        DataError: one is none, or they don't rank the same items from the same events.
    """
    first, *others = (load_model(directory, device) for directory in directories)
    if not others:
        return first
    for directory, other in zip(directories[1:], others, strict=True):
        if why := _differ(first, other):
            raise DataError(f"{directory} does not go together with {directories[0]}: {why}")
    members = [first.model, *(other.model for other in others)]
    scored = any(map(scores_itself, members))
    kind = ScoreEnsemble if scored else VectorEnsemble
    model = kind(first.meta["model"], members).eval()
    return SavedModel(model, first.item_ids, first.meta, first.knowledge)


def _differ(first: SavedModel, other: SavedModel) -> str:
    """Why two models cannot be one; nothing if they can."""
    for saved in (first, other):
        if type(saved.model).METRICS:
            return f"{saved.meta['model']} judges itself, and has no scores that could be averaged"
    same = {
        "data": [saved.meta["fingerprint"] for saved in (first, other)],
        "split": [saved.meta["split"] for saved in (first, other)],
        "max_length": [saved.model.max_length for saved in (first, other)],
    }
    for name, (one, two) in same.items():
        if one != two:
            return f"{name} is {str(two)[:12]}, not {str(one)[:12]}"
    if first.knowledge.needs != other.knowledge.needs:
        return "they read different columns of events or users"
    return ""
