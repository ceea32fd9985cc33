"""Schedules by hand, what decays, and one AdamW step in arithmetic."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from paropt.errors import TrainingError
from paropt.training.fitting.optimisers import AdamW, Optimiser, multiplier


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


@pytest.mark.parametrize("kind", [torch.float32, torch.complex64])
def test_it_moves_as_pytorchs_class_does(kind: torch.dtype) -> None:
    """The same bits, of a parameter without a gradient in the first step as well."""
    torch.manual_seed(1)
    begin = [torch.randn(5, 3, dtype=kind), torch.randn(7)]
    ours, theirs = ([nn.Parameter(tensor.clone()) for tensor in begin] for _ in range(2))
    groups = [{"params": [p], "lr": 0.01, "weight_decay": 0.1 * k} for k, p in enumerate(ours)]
    adamw = AdamW(groups, (0.9, 0.98))
    peers = [{"params": [p], "weight_decay": 0.1 * k} for k, p in enumerate(theirs)]
    peer = torch.optim.AdamW(peers, lr=0.01, betas=(0.9, 0.98), fused=kind == torch.float32)
    for step in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = None if step == 0 and p is ours[1] else torch.randn_like(p)
            q.grad = None if p.grad is None else p.grad.clone()
        adamw.step()
        peer.step()
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)
        assert adamw.state[p].keys() == peer.state[q].keys()
        assert all(torch.equal(adamw.state[p][key], peer.state[q][key]) for key in peer.state[q])


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    adamw = AdamW([{"params": [table.weight], "lr": 0.1, "weight_decay": 0.0}], (0.9, 0.99))
    with pytest.raises(TrainingError, match="no sparse gradients"):
        adamw.step()


TRAINS = """
import sys
from pathlib import Path
from paropt.data.dataset import open_dataset
from paropt.training.fitting.fit import Fit
from paropt.training.made_up import made_up_data

view = open_dataset(made_up_data(Path(sys.argv[1]), sessions=40)).view("search")
for model, params in (("gru4rec", {"layers": "8"}), ("sasrec", {"dim": 8, "grad_clip": 1.0})):
    next(iter(Fit(model, params, view, seed=1, epochs=1).epochs()))
print(*[name for name in sys.modules if name in ("torch._dynamo", "torch._inductor")])
"""


def test_training_imports_no_compiler_of_pytorchs(tmp_path: Path) -> None:
    """It takes two seconds of every process that trains."""
    done = subprocess.run(
        [sys.executable, "-c", TRAINS, tmp_path / "data"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
