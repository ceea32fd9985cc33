"""The parts of GRU4Rec: activations, distinct rows, negatives, noise, Adagrad."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from models.parts.gru4rec.activations import Activation
from models.parts.gru4rec.adagrad import DenseAdagrad, RowAdagrad, Rule
from models.parts.gru4rec.negatives import PopularityNegatives, alias_table
from models.parts.gru4rec.seeded_random import DropoutMasks, blocks, generator
from models.parts.gru4rec.unique_rows import distinct, occurrences
from models.parts.gru4rec.workspace import Workspace

CPU = torch.device("cpu")
ACTIVATIONS = ["linear", "relu", "tanh", "leaky-0.3", "elu-0.5", "elu-1", "selu-1.05-1.67"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_forms_agree(name: str) -> None:
    act = Activation.named(name)
    x = torch.linspace(-3, 3, 24, dtype=torch.float64, requires_grad=True)
    y = act(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    in_place = act.apply_(x.detach().clone())
    torch.testing.assert_close(in_place, y.detach())
    grad = torch.full_like(in_place, 2.0)
    torch.testing.assert_close(act.backward_(grad, in_place), 2 * slope)


def test_activation_values() -> None:
    x = torch.tensor([-1.0, 2.0])
    low = math.expm1(-1)
    expected = {"relu": [0, 2], "leaky-0.3": [-0.3, 2], "elu-0.5": [0.5 * low, 2],
                "selu-2-3": [6 * low, 4], "elu-1e-2": [0.01 * low, 2]}  # fmt: skip
    for name, values in expected.items():
        torch.testing.assert_close(Activation.named(name)(x), torch.tensor(values).float())


@pytest.mark.parametrize("name", ["elu", "relu-1", "selu-1", "swish"])
def test_no_such_activation(name: str) -> None:
    with pytest.raises(ValueError, match="is no activation"):
        Activation.named(name)


@pytest.mark.parametrize("static", [False, True])
def test_distinct(static: bool) -> None:
    """The leading ids first, then what only the rest has, each once, by position."""
    ids = torch.randint(0, 9, (40, 8), generator=torch.Generator().manual_seed(1))
    found = distinct(ids, 5, padding=99, static=static)
    for t, row in enumerate(ids.tolist()):
        lead = sorted(set(row[:5]))
        rest = sorted(set(row) - set(lead))
        gap = [99] * (5 - len(lead)) if static else []
        wanted = lead + gap + rest
        assert found.ids[t].tolist() == wanted + [99] * (8 - len(wanted))
        assert [found.ids[t, p].item() for p in found.position[t].tolist()] == row
        assert found.leading[t] == (5 if static else len(lead))
        assert found.used[t] == (8 if static else len(wanted))


def test_occurrences() -> None:
    counts = occurrences(torch.tensor([[0, 2, 2], [1, 1, 1]]), 4)
    assert counts.tolist() == [[1, 0, 2, 0], [0, 3, 0, 0]]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 2, 5, 3000])
def test_alias_table_holds_the_weights(n: int, alpha: float) -> None:
    """Place i is taken with keep[i]/n, and by those whose alias it is with what they don't keep."""
    support = torch.randint(1, 10_000, (n,), generator=torch.Generator().manual_seed(n))
    weights = support.double().pow(2 * alpha)
    keep, alias = alias_table(weights)
    assert ((keep >= 0) & (keep <= 1)).all()
    mass = keep.clone().index_add_(0, alias, 1 - keep) / n
    torch.testing.assert_close(mass, weights / weights.sum(), rtol=1e-6, atol=1e-12)


def test_weights_that_are_alike_need_no_alias() -> None:
    """Also where rounding leaves every one of them just below the mean."""
    weights = torch.full((3,), 3**0.5, dtype=torch.float64)
    assert bool((weights * (3 / weights.sum()) < 1).all())
    keep, alias = alias_table(weights)
    assert (keep.tolist(), alias.tolist()) == ([1, 1, 1], [0, 1, 2])


def test_negatives_follow_support_to_the_alpha() -> None:
    support = torch.tensor([1, 4, 9, 16, 0])
    drawn = PopularityNegatives(support, 0.5, 10_000, seed=3).draw(0, 20, CPU)
    shares = torch.bincount(drawn.reshape(-1), minlength=5) / drawn.numel()
    # 200,000 draws: standard errors are below 0.0012
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.3, 0.4, 0]), atol=0.006, rtol=0)


def test_dropout_masks_keep_the_mean() -> None:
    masks = DropoutMasks(((50, 0.3), (8, 0.0)), rows=40, seed=1)
    assert masks.numbers == 2000
    first, none = masks.draw(2, 30, CPU, torch.float32)
    assert none is None and first is not None
    assert first.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert first.mean().item() == pytest.approx(1, abs=0.015)  # standard error 0.0027
    again, _ = masks.draw(2, 30, CPU, torch.float32)
    other, _ = masks.draw(3, 30, CPU, torch.float32)
    assert again is not None and other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_generators_differ_by_every_part_of_the_key() -> None:
    keys = [(1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1)]
    drawn = [torch.rand(4, generator=generator(CPU, *key)).tolist() for key in keys]
    assert len({tuple(numbers) for numbers in drawn}) == 4


def test_blocks() -> None:
    assert blocks(5, 18, 7) == [(0, 5, 7), (1, 7, 14), (2, 14, 18)]
    assert blocks(7, 14, 7) == [(1, 7, 14)]
    assert blocks(3, 3, 7) == []


def test_scratch_gives_the_same_memory() -> None:
    scratch = Workspace(CPU, torch.float32)
    big = scratch("a", 4, 5)
    small = scratch("a", 3, 2)
    assert small.is_contiguous() and small.data_ptr() == big.data_ptr()
    assert scratch("b", 4, 5).data_ptr() != big.data_ptr()
    bigger = scratch("a", 6, 5)
    assert scratch("a", 4, 5).data_ptr() == bigger.data_ptr()


def by_hand(
    weight: np.ndarray, grads: list[np.ndarray], momentum: float, decay: float
) -> np.ndarray:
    """lr 0.1: A ← A + g²; v ← μv − lr·g/√(A + 1e-6); p ← (1 − lr·decay)·p + v."""
    squares, velocity = np.zeros_like(weight), np.zeros_like(weight)
    for g in grads:
        squares = squares + g**2
        velocity = momentum * velocity - 0.1 * g / np.sqrt(squares + 1e-6)
        weight = (1 - 0.1 * decay) * weight + velocity
    return weight


RULES = [(0.0, 0.0), (0.5, 0.0), (0.5, 0.3)]


@pytest.mark.parametrize(("momentum", "decay"), RULES)
def test_dense_adagrad(momentum: float, decay: float) -> None:
    source = np.random.default_rng(1)
    weight, grads = source.normal(size=(3, 4)), list(source.normal(size=(5, 3, 4)))
    a, b = (nn.Parameter(torch.tensor(part)) for part in (weight[:1], weight[1:]))
    owner = DenseAdagrad([a, b], Rule(0.1, momentum, decay))
    for g in grads:
        for p, part in ((a, g[:1]), (b, g[1:])):
            assert p.grad is not None
            p.grad.copy_(torch.tensor(part))
        owner.step()
    found = np.concatenate([a.detach(), b.detach()])
    np.testing.assert_allclose(found, by_hand(weight, grads, momentum, decay), rtol=1e-9)


@pytest.mark.parametrize(("momentum", "decay"), RULES)
@pytest.mark.parametrize("shape", [(6,), (6, 3)])
def test_row_adagrad(shape: tuple[int, ...], momentum: float, decay: float) -> None:
    """Each row as if it were alone, in the steps that touch it."""
    source = np.random.default_rng(2)
    weight = source.normal(size=shape)
    parameter = nn.Parameter(torch.tensor(weight))
    scratch = Workspace(CPU, torch.float64)
    owner = RowAdagrad(parameter, Rule(0.1, momentum, decay), scratch, "table")
    seen: list[list[np.ndarray]] = [[] for _ in range(6)]
    for rows in ([0, 2, 5], [2], [5, 3, 0, 2]):
        grads = source.normal(size=(len(rows), *shape[1:]))
        ids = torch.tensor(rows)
        owner.gather(ids)
        owner.grad(len(rows)).copy_(torch.tensor(grads))
        owner.step(ids)
        for row, g in zip(rows, grads, strict=True):
            seen[row].append(g)
    for row, grads_of_row in enumerate(seen):
        wanted = by_hand(weight[row], grads_of_row, momentum, decay)
        np.testing.assert_allclose(parameter[row].detach(), wanted, rtol=1e-9)
    assert [len(value) for value in owner.state().values()] == [6] * (2 if momentum else 1)
