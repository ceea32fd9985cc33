"""What GRU4Rec's tests share: the model on given numbers, and a plain autograd step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.gru4rec import Gru4Rec
from models.parts.contract import Catalogue, Facts, SequenceBatch, SessionParallelPlan
from models.parts.gru4rec.losses import LOSSES
from paropt.training.registry import complete_params


class Recorded:
    """Numbers [steps, …] that stand in for what the model would draw."""

    def __init__(self, numbers: Any) -> None:
        self.numbers = torch.as_tensor(np.asarray(numbers))

    def block(self, block: int, steps: int) -> Tensor:
        part = self.numbers[block * steps : (block + 1) * steps]
        return torch.cat([part, part.new_zeros(steps - len(part), *part.shape[1:])])


class RecordedNegatives(Recorded):
    def draw(self, block: int, steps: int, device: torch.device) -> Tensor:
        return self.block(block, steps)


class RecordedMasks:
    numbers = 0

    def __init__(self, masks: list[Any]) -> None:
        self.masks = [None if mask is None else Recorded(mask) for mask in masks]

    def draw(
        self, block: int, steps: int, device: torch.device, dtype: torch.dtype
    ) -> list[Tensor | None]:
        return [None if mask is None else mask.block(block, steps).to(dtype) for mask in self.masks]


def build(
    params: Mapping[str, Any],
    support: Any,
    weights: Mapping[str, Any] | None = None,
    seed: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Gru4Rec:
    """The model on a catalogue of ``support``, with these weights if any."""
    support = torch.as_tensor(np.asarray(support))
    facts = Facts(len(support), 100, int(support.sum()), 20, True)
    model = Gru4Rec(complete_params("gru4rec", params, facts), Catalogue(facts, support), seed)
    model.to(dtype)
    if weights is not None:
        model.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()})
    return model


def torch_plan(plan: Mapping[str, Any], nominal: int) -> SessionParallelPlan:
    """The reference's schedule as a model takes it."""
    n_valid = (plan["inputs"] >= 0).sum(1)
    inputs, targets = (torch.as_tensor(np.maximum(plan[k], 0)) for k in ("inputs", "targets"))
    return SessionParallelPlan(
        inputs=inputs,
        targets=targets,
        resets=torch.as_tensor(plan["resets"]),
        n_valid=n_valid.tolist(),
        batch_size=nominal,
        n_full=int((n_valid == nominal).sum()),
    )


def batch_of(sessions: list[list[int]]) -> SequenceBatch:
    """Sessions, longest first, all of whose events after the first are targets."""
    lengths = [len(session) - 1 for session in sessions]
    items = torch.zeros(len(sessions), max(lengths), dtype=torch.int64)
    targets = torch.full_like(items, -1)
    for row, session in enumerate(sessions):
        items[row, : lengths[row]] = torch.tensor(session[:-1])
        targets[row, : lengths[row]] = torch.tensor(session[1:])
    times = torch.arange(items.shape[1]).expand_as(items)
    return SequenceBatch(items, targets, times, times + 1, torch.tensor(lengths))


def plain_loss(
    model: Gru4Rec,
    inputs: Tensor,
    targets: Tensor,
    samples: Tensor,
    states: list[Tensor],
    masks: list[Tensor | None],
    nominal: int,
) -> tuple[Tensor, list[Tensor]]:
    """A step's loss with a graph, and the states after: one column per target and sample."""
    p, m = model.params, len(inputs)
    x, after = model.rows(inputs), []
    x = x if masks[0] is None else x * masks[0][:m]
    for cell, state, mask in zip(model.recurrent(), states, masks[1:], strict=True):
        x = cell(x, state)
        x = x if mask is None else x * mask[:m]
        after.append(x.detach())
    support = model.catalogue.support.to(x.dtype)
    q = torch.cat([support[targets], support[samples] ** p["sample_alpha"]])
    columns = torch.cat([targets, samples])
    scores = x @ model.output[columns].T + model.bias[columns] - p["logq"] * q.log()
    act = model.training_steps().act
    return LOSSES[p["loss"]](act(scores), p["bpreg"], p["smoothing"]).sum() / nominal, after
