"""Schedules by hand, what decays, and one AdamW step in arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from paropt.training.fitting.optimisers import Optimiser, multiplier


@pytest.mark.parametrize(
    ("step", "warmup", "schedule", "expected"),
    [
        (0, 0, "constant", 1),
        (99, 0, "constant", 1),
        (0, 10, "constant", 0.1),
        (9, 10, "constant", 1),
        (4, 0.1, "linear", 0.5),  # a share of the 100 steps
        (10, 0.1, "linear", 1),
        (55, 10, "linear", 0.5),
        (100, 10, "linear", 0),
        (500, 10, "linear", 0),
        (0, 0, "cosine", 1),
        (25, 0, "cosine", (1 + math.sqrt(0.5)) / 2),
        (50, 0, "cosine", 0.5),
        (100, 0, "cosine", 0),
    ],
)
def test_schedules(step: int, warmup: float, schedule: str, expected: float) -> None:
    assert multiplier(step, 100, warmup, schedule) == pytest.approx(expected, abs=1e-12)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="no learning-rate schedule 'exp'"):
        multiplier(0, 100, 0, "exp")


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(3, 2)
        self.dense = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.positions = nn.Parameter(torch.ones(4, 2))
        self.positions.no_decay = True  # type: ignore[attr-defined]  # as models say it
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def test_only_matrices_decay() -> None:
    model = Mixed()
    optimiser = Optimiser(model, {"weight_decay": 0.1, "learning_rate": 0.01}, 10)
    decay = {
        optimiser.names[id(parameter)]: group["weight_decay"]
        for group in optimiser.adamw.param_groups
        for parameter in group["params"]
    }
    assert decay == {
        "items.weight": 0,
        "dense.weight": 0.1,
        "dense.bias": 0,
        "norm.weight": 0,
        "norm.bias": 0,
        "positions": 0,
    }


def test_one_step_by_hand() -> None:
    """Decoupled decay, clipping to norm 1 and half the rate; the first step is lr·sign(g)."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0]]))
    params = {"learning_rate": 0.2, "weight_decay": 0.5, "warmup": 2, "grad_clip": 1.0}
    optimiser = Optimiser(model, params, 10)
    optimiser.step(0, (model.weight * torch.tensor([[30.0, 40.0]])).sum())
    rate = 0.2 * 1 / 2
    expected = [1 - rate * 0.5 * 1 - rate, -2 + rate * 0.5 * 2 - rate]
    assert model.weight.tolist()[0] == pytest.approx(expected, rel=1e-5)
    moment = optimiser.state()["weight/exp_avg"]
    assert moment.tolist()[0] == pytest.approx([0.1 * 0.6, 0.1 * 0.8], rel=1e-5)


def test_its_state_moves_to_another_one() -> None:
    def trained(steps: int, after: Optimiser | None = None) -> tuple[nn.Linear, Optimiser]:
        torch.manual_seed(1)
        model = nn.Linear(3, 2)
        optimiser = Optimiser(model, {"beta2": 0.9}, 10)
        for step in range(steps):
            optimiser.step(step, model(torch.ones(1, 3)).square().sum())
        return model, optimiser

    model, optimiser = trained(4)
    other, fresh = trained(0)
    other.load_state_dict(model.state_dict())
    fresh.load({name: value.clone() for name, value in optimiser.state().items()})
    for m, o in ((model, optimiser), (other, fresh)):
        o.step(4, m(torch.ones(1, 3)).square().sum())
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)
