"""GRU4Rec's steps against the float64 reference, plain autograd, and themselves in other ranges."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gru4rec_numpy import schedule
from gru4rec_torch import (
    RecordedMasks,
    RecordedNegatives,
    batch_of,
    build,
    plain_loss,
    torch_plan,
)
from make_vectors import CASES, EPOCHS, FOLDER, N_ITEMS, make, params_of

from models.gru4rec import Gru4Rec
from models.parts.contract import SessionParallelPlan

Arrays = dict[str, Any]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Arrays:
    with np.load(Path(FOLDER) / f"gru4rec_{request.param}.npz") as arrays:
        return {"name": request.param, **arrays}


def under(arrays: Arrays, prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def set_up(
    arrays: Arrays, dtype: torch.dtype, accelerate: str = "none"
) -> tuple[Gru4Rec, SessionParallelPlan]:
    """The model before its first step, and the epoch's plan."""
    params = json.loads(str(arrays["params"])) | {"accelerate": accelerate}
    support = np.bincount(arrays["sessions"], minlength=N_ITEMS)
    model = build(params, support, under(arrays, "init."), dtype=dtype)
    model.negatives = RecordedNegatives(arrays["samples"])
    model.masks = RecordedMasks(  # type: ignore[assignment]  # what the model would draw
        [arrays.get(f"masks.{k}") for k in range(1 + len(model.cells))]
    )
    sessions = [part.tolist() for part in np.split(arrays["sessions"], arrays["offsets"][1:-1])]
    plan = schedule(sessions, params["batch_size"], model.min_rows)
    return model, torch_plan(plan, params["batch_size"])


def trained(model: Gru4Rec, plan: SessionParallelPlan) -> torch.Tensor:
    return torch.cat([model.run_steps(plan, 0, plan.steps) for _ in range(EPOCHS)])


@pytest.mark.parametrize("way", ["auto", "flexible", "static", "graph", "graph-unordered"])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
def test_follows_the_vectors(case: Arrays, dtype: torch.dtype, rtol: float, way: str) -> None:
    """Also with shapes that are the same in every step, as on a GPU, and as a graph has them."""
    model, plan = set_up(case, dtype, "none" if way in ("flexible", "static") else way)
    model.training_steps().static = way not in ("auto", "flexible")
    fast = way == "auto" and dtype == torch.float32  # made for no other
    assert (model.training_steps().kernels is not None) == fast
    np.testing.assert_allclose(trained(model, plan), case["loss"], rtol=rtol)
    for name, value in under(case, "final.").items():
        found = model.state_dict()[name]
        np.testing.assert_allclose(found, value, rtol=rtol, atol=rtol / 10, err_msg=name)
    table, bias = model.item_table()
    assert bias is not None
    scores = model.encode(batch_of([[3, 1, 4, 0]])) @ table.T + bias
    np.testing.assert_allclose(scores, case["scores"], rtol=rtol, atol=rtol / 10)


def test_the_vectors_are_the_references(case: Arrays) -> None:
    made = make(case["name"])
    assert set(made) == set(case) - {"name"}
    for name, value in made.items():
        if name == "params":
            assert json.loads(str(value)) == json.loads(str(case[name]))
        else:
            np.testing.assert_allclose(value, case[name], rtol=1e-9, atol=1e-12, err_msg=name)


# a cap changes the gradients after they are found
@pytest.mark.parametrize("case", [c for c in CASES if not params_of(c)["grad_cap"]], indirect=True)
def test_gradients_are_autograds(case: Arrays) -> None:
    """One step, in float64: what moves a parameter by hand is what autograd finds."""
    model, plan = set_up(case, torch.float64)
    m = plan.n_valid[0]
    masks = model.masks.draw(0, 1, model.device, torch.float64)
    first = [None if mask is None else mask[0] for mask in masks]
    states = [torch.zeros(m, cell.size, dtype=torch.float64) for cell in model.recurrent()]
    names = [name for name, _ in model.named_parameters()]
    loss, _ = plain_loss(
        model, plan.inputs[0, :m], plan.targets[0, :m], torch.as_tensor(case["samples"][0]),
        states, first, plan.batch_size,
    )  # fmt: skip
    wanted = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    found = model.run_steps(plan, 0, 1)
    assert found.item() == pytest.approx(loss.item(), rel=1e-12)
    # after one step Adagrad's squares are the squared gradients, above their first value
    for name, squares in model.training_state().items():
        if name.endswith(".squares"):
            of = name.removesuffix(".squares")
            parts = [wanted[n] for n in names if n == of or n.startswith(f"{of}.")]
            gradient = torch.cat([part.reshape(-1) for part in parts])
            torch.testing.assert_close(
                (squares.reshape(-1) - 1e-6), gradient.square(), rtol=1e-6, atol=1e-14
            )


SHAPES: dict[str, dict[str, Any]] = {
    "shared": {},
    "separate": {"constrained_embedding": False, "embedding": 4, "layers": "5/4"},
    "none": {"constrained_embedding": False, "loss": "bpr-max", "momentum": 0.3},
    "plain loss": {"loss": "top1", "momentum": 0.3},
}


def drawing(shape: str) -> tuple[Gru4Rec, SessionParallelPlan]:
    """A model that draws for itself, with dropout."""
    params = {
        "layers": 5, "batch_size": 4, "n_sample": 5, "dropout_p_embed": 0.4,
        "dropout_p_hidden": 0.2, **SHAPES[shape],
    }  # fmt: skip
    source = np.random.default_rng(3)
    sessions = [source.integers(0, 12, source.integers(2, 9)).tolist() for _ in range(60)]
    support = np.bincount(np.concatenate(sessions), minlength=12)
    model = build(params, support, seed=5)
    model.block = 7  # blocks of drawn numbers end inside and outside of ranges
    return model, torch_plan(schedule(sessions, 4), 4)


def in_ranges(model: Gru4Rec, plan: SessionParallelPlan, ends: list[int]) -> torch.Tensor:
    cuts = [0, *ends, plan.steps]
    return torch.cat([model.run_steps(plan, a, b) for a, b in itertools.pairwise(cuts)])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 5, 7, 16])
def test_ranges_of_any_size_give_the_same(shape: str, size: int) -> None:
    one, plan = drawing(shape)
    other, _ = drawing(shape)
    for _ in range(2):
        whole = in_ranges(one, plan, [])
        parts = in_ranges(other, plan, list(range(size, plan.steps, size)))
        assert torch.equal(whole, parts)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stop", [1, 7, 30])
def test_resumed_is_uninterrupted(shape: str, stop: int) -> None:
    one, plan = drawing(shape)
    in_ranges(one, plan, [])
    one.run_steps(plan, 0, stop)
    weights = {name: value.clone() for name, value in one.state_dict().items()}
    state = {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in one.training_state().items()
    }
    rest = one.run_steps(plan, stop, plan.steps)

    other, _ = drawing(shape)
    other.load_state_dict(weights)
    other.load_training_state(state)
    assert torch.equal(other.run_steps(plan, stop, plan.steps), rest)
    assert torch.equal(other.run_steps(plan, 0, plan.steps), one.run_steps(plan, 0, plan.steps))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_state_before_the_first_step_can_be_loaded() -> None:
    one, plan = drawing("separate")
    other, _ = drawing("separate")
    other.load_training_state(one.training_state())
    assert torch.equal(one.run_steps(plan, 0, 9), other.run_steps(plan, 0, 9))


def test_moving_the_model_keeps_its_training() -> None:
    """``.to()`` gives the parameters other memory; accumulators and state follow."""
    one, plan = drawing("shared")
    other, _ = drawing("shared")
    for model in (one, other):
        model.run_steps(plan, 0, 10)
    for p in other.parameters():
        p.data = p.data.clone()
    assert torch.equal(one.run_steps(plan, 10, 20), other.run_steps(plan, 10, 20))


def test_seeds_differ_and_repeat() -> None:
    params = {"layers": 5, "batch_size": 4, "n_sample": 5}
    a, b, c = (build(params, np.arange(1, 13), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a.output, b.output)
    assert not torch.equal(a.output, c.output)
    device = torch.device("cpu")
    assert torch.equal(a.negatives.draw(3, 4, device), b.negatives.draw(3, 4, device))
    assert not torch.equal(a.negatives.draw(3, 4, device), a.negatives.draw(4, 4, device))
    assert not torch.equal(a.negatives.draw(3, 4, device), c.negatives.draw(3, 4, device))


def test_untouched_rows_keep_weights_and_velocity() -> None:
    params = {"layers": 3, "batch_size": 2, "n_sample": 0, "momentum": 0.9, "loss": "bpr-max"}
    model = build(params, np.ones(10))
    before = model.output.detach().clone()
    plan = torch_plan(schedule([[0, 1], [2, 3]], 2), 2)
    model.run_steps(plan, 0, 1)
    moved = (model.output != before).any(1)
    assert moved.tolist() == [True] * 4 + [False] * 6
    state = model.training_state()
    assert (state["output.velocity"] != 0).any(1).tolist() == moved.tolist()
    # the bias of an item that was only read is no column's
    assert (state["bias.velocity"] != 0).tolist() == [False, True, False, True] + [False] * 6


def test_encode_of_a_ragged_batch_is_that_of_each_session() -> None:
    model, _ = drawing("separate")
    sessions = [[1, 2, 3, 4, 5], [7, 0, 7], [9, 9]]
    together = model.encode(batch_of(sessions))
    alone = torch.cat([model.encode(batch_of([session])) for session in sessions])
    assert together.shape == (7, 4)
    torch.testing.assert_close(together, alone)


def test_fewer_sessions_than_rows() -> None:
    model = build({"layers": 4, "batch_size": 8, "n_sample": 3}, np.ones(6))
    plan = torch_plan(schedule([[0, 1, 2], [3, 4]], 8), 8)
    assert plan.n_valid == [2, 1]
    assert torch.isfinite(model.run_steps(plan, 0, 2)).all()
