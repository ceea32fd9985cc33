"""Mixtures of experts: routing, gates, loads, balancing, grouped against looped."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.contract import Param
from models.parts.transformer.moe import (
    MOE_PARAMS,
    MoE,
    can_group,
    check_moe,
    expert_width,
    has_moe,
)

DEFAULTS: dict[str, Any] = {param.name: param.default for param in MOE_PARAMS} | {"blocks": 2}


def mixture(seed: int = 0, **given: Any) -> MoE:
    torch.manual_seed(seed)
    sizes = {"dim": 8, "hidden": 12, "n_experts": 5, "top_k": 2}
    layer = MoE(**{**sizes, **given})
    for weights in (layer.router, layer.gate_and_value, layer.out):
        torch.nn.init.normal_(weights)
    return layer


def by_hand(layer: MoE, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Token by token, from the formulas."""
    rows = []
    for token in x:
        logits = layer.router @ token
        scores = logits.sigmoid() if layer.gate == "sigmoid" else logits.softmax(0)
        preference = scores if bias is None else scores + bias
        chosen = preference.argsort(descending=True)[: layer.top_k].tolist()
        total = sum(scores[e] for e in chosen) if layer.top_k > 1 else 1.0
        y = torch.zeros(len(token))
        for e in chosen:
            gate, value = (token @ layer.gate_and_value[e]).chunk(2)
            y = y + scores[e] / total * ((F.silu(gate) * value) @ layer.out[e])
        rows.append(y + layer.shared(token) if layer.shared else y)
    return torch.stack(rows)


@pytest.mark.parametrize("gate", ["sigmoid", "softmax"])
@pytest.mark.parametrize("top_k", [1, 2, 5])
@pytest.mark.parametrize("shared", [0, 2])
def test_forward_by_hand(gate: str, top_k: int, shared: int) -> None:
    layer = mixture(gate=gate, top_k=top_k, n_shared=shared)
    x = torch.randn(17, 8)
    torch.testing.assert_close(layer(x), by_hand(layer, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gate", ["sigmoid", "softmax"])
def test_one_expert_is_a_dense_feed_forward(gate: str) -> None:
    layer = mixture(gate=gate, n_experts=1, top_k=1)
    x = torch.randn(9, 8)
    gate_part, value = (x @ layer.gate_and_value[0]).chunk(2, 1)
    torch.testing.assert_close(layer(x), (F.silu(gate_part) * value) @ layer.out[0])


@pytest.mark.parametrize("n_tokens", [1, 40])
def test_loop_equals_grouped_in_value_and_gradient(n_tokens: int) -> None:
    layer = mixture(n_shared=1)
    x = torch.randn(n_tokens, 8, requires_grad=True)
    assert can_group(x, layer.gate_and_value) and can_group(x, layer.out)
    leaves = [x, *layer.parameters()]
    weight = torch.randn(n_tokens, 8)
    found = {}
    for grouped in (True, False):
        layer.grouped = grouped
        y = layer(x)
        found[grouped] = [y, *torch.autograd.grad((y * weight).sum(), leaves)]
    for mine, theirs in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_widths_that_grouped_products_refuse_are_looped() -> None:
    layer = mixture(dim=6, hidden=8)
    x = torch.randn(10, 6)
    assert not can_group(x, layer.gate_and_value)
    torch.testing.assert_close(layer(x), by_hand(layer, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("top_k", [1, 3])
def test_loads_sum_to_tokens_times_top_k(top_k: int) -> None:
    layer = mixture(top_k=top_k)
    layer.begin_epoch()
    for n_tokens in (7, 12):
        layer(torch.randn(n_tokens, 8))
    layer.eval()
    layer(torch.randn(30, 8))  # an evaluation counts for nothing
    assert int(layer.load.sum()) == (7 + 12) * top_k
    layer.begin_epoch()
    assert int(layer.load.sum()) == 0


def test_utilisation_by_hand() -> None:
    layer = mixture(n_experts=4, top_k=1)
    layer.begin_epoch()
    layer.load += torch.tensor([6, 3, 0, 1])
    layer.gate_sum += 5.0
    found = layer.end_epoch()
    assert found["load"] == [0.6, 0.3, 0.0, 0.1]
    assert found["max_violation"] == pytest.approx(0.6 * 4 - 1)
    entropy = -(0.6 * math.log(0.6) + 0.3 * math.log(0.3) + 0.1 * math.log(0.1)) / math.log(4)
    assert found["entropy"] == pytest.approx(entropy)
    assert found["dead"] == 1
    variance = ((0.6 - 0.25) ** 2 + 0.05**2 + 0.25**2 + 0.15**2) / 4
    assert found["variation"] == pytest.approx(math.sqrt(variance) * 4)
    assert found["top_gate"] == pytest.approx(0.5)


# -- balancing -------------------------------------------------------------------------------


def test_bias_selects_but_does_not_weigh() -> None:
    layer = mixture(balance="bias")
    layer.select_bias.copy_(torch.tensor([0.0, 5.0, 0.0, 0.0, 5.0]))
    x = torch.randn(11, 8)
    chosen, _ = layer.route(x)
    assert set(chosen.flatten().tolist()) == {1, 4}
    expected = by_hand(layer, x, layer.select_bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "given", "rate"),
    [(8, 0, 0.02), (100, 0, 0.01), (100_000, 0, 0.001), (8, 0.3, 0.3)],
)
def test_the_automatic_rate_follows_from_the_steps(steps: int, given: float, rate: float) -> None:
    layer = mixture(balance_rate=given)
    layer.steps_per_epoch = steps
    assert layer.rate == pytest.approx(rate)


def test_a_hundred_steps_of_the_automatic_rate_spread_the_tokens() -> None:
    """A router that prefers one expert by .4 for every token keeps it so at 0.001 a step."""
    busiest = {}
    for given in (0.001, 0.0):
        layer = mixture(n_experts=4, top_k=1, balance_rate=given)
        layer.steps_per_epoch = 20
        with torch.no_grad():
            layer.router.mul_(0.1)[2] += torch.ones(8) * 0.25
        for step in range(100):
            if step == 80:
                layer.begin_epoch()
            layer(torch.randn(64, 8) * 0.2 + 1)
            layer.after_step()
        busiest[given] = max(layer.end_epoch()["load"])
    assert busiest[0.001] == 1.0 and busiest[0.0] < 0.5


def test_bias_moves_towards_idle_experts_once_per_step() -> None:
    layer = mixture(balance="bias", balance_rate=0.1)
    x = torch.randn(50, 8)
    layer(x)
    load = layer.load.clone()
    layer.after_step()
    mean = 50 * 2 / 5
    expected = [0.1 if n < mean else -0.1 if n > mean else 0.0 for n in load.tolist()]
    assert layer.select_bias.tolist() == pytest.approx(expected)
    layer.after_step()  # without a forward pass in between nothing is known
    assert layer.select_bias.tolist() == pytest.approx(expected)
    layer.eval()
    layer(x)
    layer.after_step()
    assert layer.select_bias.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("gate", ["sigmoid", "softmax"])
def test_auxiliary_loss_by_hand(gate: str) -> None:
    layer = mixture(balance="aux", aux_weight=0.5, gate=gate)
    x = torch.randn(13, 8)
    chosen, _ = layer.route(x)
    counts = [int((chosen == e).sum()) for e in range(5)]
    expected = 0.0
    for e in range(5):
        probabilities = []
        for token in x:
            scores = (layer.router @ token).detach()
            scores = scores.sigmoid() if gate == "sigmoid" else scores.softmax(0)
            probabilities.append(float(scores[e] / scores.sum()))
        expected += counts[e] * sum(probabilities) / 13
    loss = layer.aux_loss
    assert isinstance(loss, Tensor)
    assert loss.item() == pytest.approx(0.5 * 5 / (2 * 13) * expected, rel=1e-5)
    (grad,) = torch.autograd.grad(loss, [layer.router])
    assert grad.abs().sum() > 0


def test_division_by_share_begins_after_the_first_epoch() -> None:
    layer = mixture(balance="epoch_div", n_experts=4, top_k=1)
    x = torch.randn(40, 8)
    plain = mixture(balance="none", n_experts=4, top_k=1)
    assert torch.equal(layer.route(x)[0], plain.route(x)[0])
    layer.begin_epoch()
    layer.load += torch.tensor([80, 20, 0, 0])
    layer.end_epoch()
    # half of 1/4 and half of the share seen
    assert layer.share.tolist() == pytest.approx([0.525, 0.225, 0.125, 0.125])
    scores = (x @ layer.router.T).sigmoid()
    divided = scores / torch.tensor([2.1, 0.9, 0.5, 0.5])
    chosen, gates = layer.route(x)
    assert torch.equal(chosen[:, 0], divided.argmax(1))
    torch.testing.assert_close(gates, scores.gather(1, chosen))
    assert "share" in layer.state_dict()


def test_division_by_share_is_bounded() -> None:
    layer = mixture(balance="epoch_div", n_experts=4, top_k=1)
    layer.share.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    scores = torch.full((1, 4), 0.5)
    assert layer._preference(scores).tolist() == [pytest.approx([0.125, 10, 10, 10])]


def test_the_router_learns_with_top_1() -> None:
    layer = mixture(top_k=1)
    layer(torch.randn(20, 8)).square().sum().backward()
    assert layer.router.grad is not None and layer.router.grad.abs().sum() > 0


# -- parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"experts": 4, "top_k": 5}, "top_k 5 is above experts 4; lower top_k"),
        ({"experts": 4, "moe_every": 3}, "moe_every 3 is above blocks 2"),
    ],
)
def test_impossible_mixtures_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_moe(DEFAULTS | given)


def test_no_experts_no_demands() -> None:
    check_moe(DEFAULTS | {"experts": 0, "top_k": 5, "moe_every": 9})
    assert not has_moe(DEFAULTS, 1)


def test_every_second_block() -> None:
    params = DEFAULTS | {"experts": 4, "moe_every": 2}
    assert [has_moe(params, block) for block in range(4)] == [False, True, False, True]


@pytest.mark.parametrize(("mult", "width"), [(0.5, 32), (0.3, 20), (0.01, 4)])
def test_widths_suit_grouped_products(mult: float, width: int) -> None:
    assert expert_width(64, mult) == width


def test_defaults_parse() -> None:
    for param in MOE_PARAMS:
        assert isinstance(param, Param) and param.parse(param.default) == param.default
