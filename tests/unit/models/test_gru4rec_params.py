"""GRU4Rec's parameters: what it takes, what it refuses, and why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gru4rec_torch import build

from models.gru4rec import Gru4Rec
from models.parts.gru4rec.cells import GruCell, RowGruCell
from paropt.errors import ParamError
from paropt.training.registry import complete_params

SUPPORT = [3, 1, 2, 2, 4, 1, 1]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"loss": "xe_logit", "final_act": "softmax_logit"},
        {"loss": "cross-entropy", "final_act": "softmax", "bpreg": 1.5},
        {"loss": "bpr-max", "final_act": "selu-1.05-1.67", "logq": 1, "bpreg": 0},
        {"loss": "top1", "final_act": "tanh", "hidden_act": "leaky-0.1"},
        {"constrained_embedding": False, "embedding": 0, "dropout_p_embed": 0.3},
        {"constrained_embedding": "False", "embedding": "layersize"},
        {"loss": "cross-entropy", "smoothing": 0.1, "n_sample": 0},
    ],
)
def test_takes(params: dict[str, Any]) -> None:
    complete_params("gru4rec", params)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"loss": "bpr-max", "final_act": "softmax"}, "softmax does not go with loss=bpr-max"),
        ({"final_act": "elu-0.5"}, "which needs softmax"),
        ({"loss": "xe_logit", "final_act": "softmax"}, "which needs softmax_logit"),
        ({"loss": "bpr-max", "final_act": "elu"}, "'elu' is not of the form"),
        ({"embedding": 32}, "embedding=32 has no place with constrained_embedding=True"),
        ({"embedding": "big"}, "'big' is not of the form"),
        ({"loss": "bpr", "smoothing": 0.1}, "smoothing=0.1 is for cross-entropy and xe_logit"),
        ({"batch_size": 1, "n_sample": 0}, "leaves no negatives"),
        ({"momentum": 1}, "must be below 1"),
        ({"dropout_p_hidden": 1}, "must be below 1"),
        ({"learning_rate": 0}, "must be above 0"),
        ({"n_sample": -1}, "must be at least 0"),
        ({"layers": "100/0"}, "must be at least 1"),
        ({"adapt": "adam"}, "must be one of adagrad"),
        ({"train_random_order": True}, "are trained in time order"),
        ({"time_sort": False}, "are trained in time order"),
    ],
)
def test_refuses(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamError) as caught:
        complete_params("gru4rec", params)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "kind", "alpha"),
    [("bpr-max", "elu", 0.5), ("top1", "linear", 1.0), ("cross-entropy", "linear", 1.0)],
)
def test_the_loss_decides_the_activation_that_is_not_named(
    loss: str, kind: str, alpha: float
) -> None:
    act = build({"loss": loss, "layers": 3}, SUPPORT).training_steps().act
    assert (act.kind, act.alpha) == (kind, alpha)


@pytest.mark.parametrize(
    ("params", "embedding", "cells", "inputs"),
    [
        ({"layers": "6/4"}, None, (GruCell, GruCell), (4, 6)),
        ({"constrained_embedding": False, "embedding": 5, "layers": "6/4"}, (7, 5),
         (GruCell, GruCell), (5, 6)),
        ({"constrained_embedding": False, "embedding": "layersize", "layers": "6/4"}, (7, 6),
         (GruCell, GruCell), (6, 6)),
        ({"constrained_embedding": False, "layers": "6/4"}, (7, 18),
         (RowGruCell, GruCell), (None, 6)),
    ],
)  # fmt: skip
def test_shapes(
    params: dict[str, Any],
    embedding: tuple[int, int] | None,
    cells: tuple[type, ...],
    inputs: tuple[int | None, ...],
) -> None:
    model = build(params, SUPPORT)
    assert (None if model.embedding is None else tuple(model.embedding.shape)) == embedding
    assert tuple(type(cell) for cell in model.cells) == cells
    for cell, n_in in zip(model.cells, inputs, strict=True):
        if isinstance(cell, GruCell):
            assert cell.weight_ih.shape[1] == n_in
    assert model.output.shape == (7, 4)


def spread(model: Gru4Rec) -> dict[str, float]:
    """The largest absolute weight of each block, over the bound that its shape gives it."""
    found = {}
    for name, p in model.named_parameters():
        if "bias" in name:
            assert not p.any()
            continue
        blocks = p.chunk(3) if "weight_ih" in name or "weight_hh" in name else (p,)
        for k, block in enumerate(blocks):
            bound = (6 / sum(block.shape)) ** 0.5
            found[f"{name}.{k}"] = block.abs().max().item() / bound
    return found


def test_published_initialisation() -> None:
    """U(−s, s) per gate block, s = √(6/(rows + columns))."""
    model = build({"layers": "60/40"}, [1] * 50)
    for name, reach in spread(model).items():
        assert 0.97 < reach <= 1, name
    unscaled = build({"layers": 40, "sigma": 0.25}, [1] * 50)
    assert 0.249 < unscaled.output.abs().max().item() <= 0.25
    normal = build({"layers": 60, "init_as_normal": True, "sigma": 0.25}, [1] * 200)
    assert normal.output.std().item() == pytest.approx(0.25, rel=0.03)
    assert normal.output.abs().max().item() > 0.6


def test_no_dropout_where_there_is_no_embedding() -> None:
    params = {"constrained_embedding": False, "dropout_p_embed": 0.5, "dropout_p_hidden": 0.2}
    model = build({**params, "layers": 4, "batch_size": 3}, SUPPORT)
    first, second = model.masks.draw(0, 2, torch.device("cpu"), torch.float32)
    assert first is None
    assert second is not None and second.shape == (2, 3, 4)
