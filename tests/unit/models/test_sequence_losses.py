"""Losses of sequence models against arithmetic in float64, and against torch's plain forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.transformer import losses as losses


@pytest.fixture
def case() -> tuple[Tensor, Tensor, Tensor]:
    """h [700, 6], table [40, 6], targets [700]: more tokens than one chunk holds."""
    torch.manual_seed(1)
    h = torch.randn(700, 6, requires_grad=True)
    table = torch.randn(40, 6, requires_grad=True)
    return h, table, torch.randint(40, (700,))


def test_full_cross_entropy_is_the_plain_one_in_value_and_gradient(
    case: tuple[Tensor, Tensor, Tensor],
) -> None:
    h, table, targets = case
    assert losses.chunk_rows(len(table), h.device) < len(h)
    plain = F.cross_entropy(h @ table.T, targets)
    expected = torch.autograd.grad(plain, (h, table))
    fused = losses.full_cross_entropy(h, table, targets)
    # a factor behind the loss must reach the gradients made in the forward pass
    found = torch.autograd.grad(3 * fused, (h, table))
    assert fused.item() == pytest.approx(plain.item(), rel=1e-6)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, 3 * theirs, rtol=1e-4, atol=1e-7)


def test_full_cross_entropy_survives_large_logits() -> None:
    h, table = torch.tensor([[200.0], [-200.0]]), torch.tensor([[1.0], [-1.0]])
    # the right item scores 200 and the other −200: nothing is lost; and the reverse costs 400
    assert losses.full_cross_entropy(h, table, torch.tensor([0, 1])).item() == 0
    assert losses.full_cross_entropy(h, table, torch.tensor([1, 0])).item() == 400


@pytest.mark.parametrize(("items", "rows"), [(10, 512), (4096, 128), (10**6, 64)])
def test_chunks_bound_the_logits(items: int, rows: int) -> None:
    assert losses.chunk_rows(items, torch.device("cpu")) == rows


@pytest.mark.parametrize("shape", [(5,), (3, 5)], ids=["shared", "own"])
def test_negatives_never_equal_the_positive(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    h, table, targets = torch.randn(3, 4), torch.randn(4, 4), torch.tensor([0, 1, 2])
    negatives = torch.randint(4, shape)
    negatives[..., 0] = 1
    logits = losses.negative_logits(h, table, targets, negatives)
    for row in range(3):
        for column in range(5):
            item = int(negatives[column] if len(shape) == 1 else negatives[row, column])
            if item == targets[row]:
                assert logits[row, column] == -math.inf
            else:
                expected = sum(float(h[row, c] * table[item, c]) for c in range(4))
                assert float(logits[row, column]) == pytest.approx(expected, rel=1e-5)


def test_sampled_softmax_by_hand() -> None:
    positive = torch.tensor([1.0, 2.0])
    negative = torch.tensor([[0.5, -math.inf], [3.0, 1.0]])
    first = -math.log(math.e / (math.e + math.exp(0.5)))
    second = -math.log(math.exp(2) / (math.exp(2) + math.exp(3) + math.exp(1)))
    found = losses.sampled_softmax(positive, negative)
    assert found.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_logq_makes_the_sum_an_estimate_of_the_catalogues() -> None:
    """Each item drawn once, so R·q_j = 1 for R = N uniform: nothing to correct."""
    h, table = torch.randn(2, 3), torch.randn(7, 3)
    targets = torch.tensor([3, 6])
    everything = torch.arange(7)
    negative = losses.negative_logits(h, table, targets, everything)
    positive = losses.positive_logits(h, table, targets)
    full = F.cross_entropy(h @ table.T, targets)
    corrected = losses.sampled_softmax(positive, negative, torch.full((7,), math.log(7 / 7)))
    assert corrected.item() == pytest.approx(full.item(), rel=1e-6)
    # twice as many draws, each item twice: only the correction by log 2 keeps the value
    doubled = torch.cat([everything, everything])
    negative = losses.negative_logits(h, table, targets, doubled)
    corrected = losses.sampled_softmax(positive, negative, math.log(2))
    assert corrected.item() == pytest.approx(full.item(), rel=1e-6)


def test_sampled_softmax_of_masked_negatives_only_is_zero() -> None:
    found = losses.sampled_softmax(torch.tensor([1.0]), torch.tensor([[-math.inf]]))
    assert found.item() == 0


def test_gbce_by_hand() -> None:
    def sigma(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    positive, negative = torch.tensor([0.3]), torch.tensor([[1.2, -0.4]])
    # α = 2/8, t = .75: β = α(t(1 − 1/α) + 1/α) = .25(.75·(1 − 4) + 4) = .4375
    beta = losses.gbce_beta(2, 9, 0.75)
    assert beta == pytest.approx(0.4375)
    expected = -(beta * math.log(sigma(0.3)) + math.log(sigma(-1.2)) + math.log(sigma(0.4))) / 3
    assert losses.gbce(positive, negative, beta).item() == pytest.approx(expected, rel=1e-6)


def test_gbce_without_calibration_is_bce() -> None:
    assert losses.gbce_beta(5, 1000, 0.0) == pytest.approx(1)
    assert losses.gbce_beta(500, 10, 0.75) == 1  # more negatives than items: all are seen


def test_gbce_ignores_masked_negatives_without_nan() -> None:
    positive = torch.tensor([0.3], requires_grad=True)
    scores = torch.tensor([[1.2, 5.0]], requires_grad=True)
    masked = scores.masked_fill(torch.tensor([[False, True]]), -math.inf)
    loss = losses.gbce(positive, masked, 1.0)
    loss.backward()
    expected = (math.log(1 + math.exp(-0.3)) + math.log(1 + math.exp(1.2))) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert scores.grad is not None and scores.grad[0, 1] == 0
    assert torch.isfinite(scores.grad).all()


def test_negatives_follow_their_distribution() -> None:
    torch.manual_seed(0)
    log_q = torch.tensor([0.5, 0.25, 0.25, 1e-12]).log()
    drawn = losses.draw_negatives(log_q, 4, (40_000,), torch.device("cpu"))
    share = torch.bincount(drawn, minlength=4) / 40_000
    # four standard deviations of a share of 1/2 over 40,000 draws
    torch.testing.assert_close(share, torch.tensor([0.5, 0.25, 0.25, 0]), atol=0.01, rtol=0)
    uniform = losses.draw_negatives(None, 4, (3, 5), torch.device("cpu"))
    assert uniform.shape == (3, 5) and int(uniform.min()) >= 0 and int(uniform.max()) < 4
