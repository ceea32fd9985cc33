"""Negatives of batch, catalogue and exposure, margins, triplets and weights, by arithmetic."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.contract import Catalogue, Facts, SequenceBatch
from models.parts.transformer import losses as losses
from models.parts.transformer.negatives import (
    Negatives,
    Targets,
    exposure_buckets,
    session_items,
)
from models.parts.transformer.sequence_model import SequenceModel
from paropt.errors import ParamError
from paropt.training.registry import build, complete_params

SUPPORT = torch.tensor([8, 1, 1, 2, 4, 8, 1, 1])
FACTS = Facts(n_items=8, n_sessions=3, n_events=26, longest=4, has_times=True)
SMALL = {"dim": 4, "blocks": 1, "max_length": 4, "dropout": 0.0}


def model_with(**given: Any) -> SequenceModel:
    model = build("sasrec", SMALL | given, Catalogue(FACTS, SUPPORT), seed=1)
    assert isinstance(model, SequenceModel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=RANDOM.manual_seed(3)))
    return model.eval()


RANDOM = torch.Generator()


def one_batch() -> SequenceBatch:
    """Rows of the items 0 1 2 3, 4 5 4 and 6 0."""
    items = torch.tensor([[0, 1, 2], [4, 5, 0], [6, 0, 0]])
    targets = torch.tensor([[1, 2, 3], [5, 4, -1], [0, -1, -1]])
    times = torch.arange(9).view(3, 3)
    return SequenceBatch(items, targets, times, times + 1, torch.tensor([3, 2, 1]))


def parts(model: SequenceModel) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors of the targets, the item table and the targets."""
    h, targets = model.states(one_batch())
    return h.detach(), model.item_table()[0].detach(), targets


def drawing(kind: str, **given: Any) -> Negatives:
    params = {"n_sample": 6, "logq": 1.0, "negative_sharing": "batch", "sample_alpha": 0.0}
    return Negatives(params | {"negatives": kind} | given, SUPPORT)


# -- where they come from ----------------------------------------------------------------------


def test_buckets_hold_equal_shares_of_the_events() -> None:
    support = torch.tensor([6, 1, 1, 1, 1, 1, 1, 3, 3, 6, 12])
    order, edges = exposure_buckets(support, 6)
    assert edges.tolist()[0] == 0 and edges.tolist()[-1] == 11
    held = [order[a:b].tolist() for a, b in itertools.pairwise(edges)]
    # 36 events, 6 a bucket; the item of 12 covers two and is where its middle is: in the last
    assert held == [[1, 2, 3, 4, 5, 6], [7, 8], [0], [9], [10]]


def test_exposure_draws_equally_from_each_bucket() -> None:
    torch.manual_seed(1)
    source = drawing("exposure", n_sample=6000)
    order, edges = exposure_buckets(SUPPORT)
    counts = Counter(source.draw(Targets(torch.zeros(3, dtype=torch.int64))).items.tolist())
    held = [order[a:b].tolist() for a, b in itertools.pairwise(edges)]
    for bucket in held:
        assert sum(counts[item] for item in bucket) == 6000 / len(held)
        for item in bucket:
            assert counts[item] == pytest.approx(6000 / len(held) / len(bucket), rel=0.15)


@pytest.mark.parametrize("sharing", ["batch", "position"])
def test_negatives_of_the_batch_are_its_targets_and_none_of_the_own_session(sharing: str) -> None:
    batch = one_batch()
    source = drawing("in-batch", negative_sharing=sharing)
    items = batch.targets[batch.targets >= 0]
    row = (batch.targets >= 0).nonzero()[:, 0]
    drawn = source.draw(Targets(items, row, session_items(batch, 8)))
    sessions = [{0, 1, 2, 3}, {4, 5}, {6, 0}]
    assert drawn.forbidden is not None
    if sharing == "batch":  # six targets, six negatives: each once
        assert drawn.items.tolist() == items.tolist()
    assert set(drawn.items.flatten().tolist()) <= set(items.tolist())
    of_each = drawn.items.expand(6, 6)
    for target in range(6):
        for negative in range(6):
            own = int(of_each[target, negative]) in sessions[int(row[target])]
            assert bool(drawn.forbidden[target, negative]) == own


def test_a_larger_batch_is_drawn_from() -> None:
    torch.manual_seed(2)
    source = drawing("in-batch", n_sample=4000)
    items = torch.tensor([0, 0, 0, 5] * 2000)
    drawn = source.draw(Targets(items, torch.zeros(8000, dtype=torch.int64), torch.tensor([7])))
    assert len(drawn.items) == 4000
    assert (drawn.items == 0).float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_mixed_negatives_are_half_and_half() -> None:
    torch.manual_seed(2)
    source, batch = drawing("mixed", n_sample=8), one_batch()
    items = batch.targets[batch.targets >= 0]
    row = (batch.targets >= 0).nonzero()[:, 0]
    drawn = source.draw(Targets(items, row, session_items(batch, 8)))
    assert drawn.parts == (("in-batch", 4), ("sampled", 4)) and drawn.items.shape == (8,)
    assert set(drawn.items[:4].tolist()) <= set(items.tolist())


# -- logQ --------------------------------------------------------------------------------------

SHARE = SUPPORT.double() / SUPPORT.sum()


def expected_counts(kind: str, alpha: float) -> list[float]:
    """How often each item is expected among six negatives."""
    sampled = SUPPORT.double() ** alpha
    sampled = sampled / sampled.sum()
    if kind == "exposure":
        order, edges = exposure_buckets(SUPPORT)
        counts = [0.0] * 8
        held = list(itertools.pairwise(edges.tolist()))
        for place in range(6):
            begin, end = held[place % len(held)]
            for item in order[begin:end].tolist():
                counts[item] += 1 / (end - begin)
        return counts
    mixture = {"sampled": 6 * sampled, "in-batch": 6 * SHARE, "mixed": 3 * SHARE + 3 * sampled}
    found: list[float] = mixture[kind].tolist()
    return found


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["sampled", "in-batch", "mixed", "exposure"])
def test_logq_is_the_log_of_the_expected_count(kind: str, alpha: float) -> None:
    source, batch = drawing(kind, sample_alpha=alpha, logq=0.5), one_batch()
    items = batch.targets[batch.targets >= 0]
    row = (batch.targets >= 0).nonzero()[:, 0]
    drawn = source.draw(Targets(items, row, session_items(batch, 8)))
    correction = torch.as_tensor(source.correction(drawn))
    counts = expected_counts(kind, alpha)
    wanted = [0.5 * math.log(counts[int(item)]) for item in drawn.items]
    assert correction.tolist() == pytest.approx(wanted, rel=1e-5)


# -- losses ------------------------------------------------------------------------------------


def test_the_default_draws_and_gives_what_it_always_did() -> None:
    model = model_with(loss="sampled-softmax", n_sample=5, logq=1.0, temperature=0.5)
    h, table, targets = parts(model)
    torch.manual_seed(9)
    model.similarity.draw(targets, 8)  # before the loss does
    negatives = torch.randint(8, (5,))
    positive = losses.positive_logits(h / 0.5, table, targets)
    negative = losses.negative_logits(h / 0.5, table, targets, negatives)
    expected = losses.sampled_softmax(positive, negative, math.log(5 / 8))
    torch.manual_seed(9)
    torch.testing.assert_close(model.loss(one_batch()), expected)


def plain(model: SequenceModel, negatives: list[int], sessions: list[set[int]] | None) -> list[Any]:
    """For each target its own cosine, those of its negatives, and their items."""
    h, table, targets = parts(model)
    rows = (one_batch().targets >= 0).nonzero()[:, 0].tolist()
    found = []
    for vector, target, row in zip(h, targets.tolist(), rows, strict=True):

        def cosine(item: int, vector: Tensor = vector) -> float:
            one = table[item]
            return float(vector @ one / (vector.norm() * one.norm()))

        own = {target} | (sessions[row] if sessions else set())
        others = [item for item in negatives if item not in own]
        found.append((cosine(target), [cosine(item) for item in others], others))
    return found


SESSIONS = [{0, 1, 2, 3}, {4, 5}, {6, 0}]


def test_sampled_softmax_of_the_batch_with_margin_and_logq_by_hand() -> None:
    given = {"similarity": "cosine", "temperature": 0.2, "margin": 0.05, "logq": 1.0}
    model = model_with(loss="sampled-softmax", negatives="in-batch", n_sample=6, **given)
    targets = parts(model)[2].tolist()
    losses_by_hand = []
    for right, wrong, items in plain(model, targets, SESSIONS):
        top = math.exp((right - 0.05) / 0.2)
        rest = sum(
            math.exp(cosine / 0.2) / (6 * float(SHARE[item]))
            for cosine, item in zip(wrong, items, strict=True)
        )
        losses_by_hand.append(-math.log(top / (top + rest)))
    assert model.loss(one_batch()).item() == pytest.approx(sum(losses_by_hand) / 6, rel=1e-4)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("weight", [0.05, 1.0])
def test_triplets_by_hand(similarity: str, weight: float) -> None:
    given = {"negatives": "in-batch", "n_sample": 6, "triplet_margin": 0.3}
    model = model_with(similarity=similarity, triplet_weight=weight, **given)
    h, table, targets = parts(model)
    by_hand = [
        sum(max(0.0, 0.3 - right + one) for one in wrong) / len(wrong)
        for right, wrong, _ in plain(model, targets.tolist(), SESSIONS)
    ]
    if similarity == "cosine":
        h = F.normalize(h, dim=1)
    entropy = float(F.cross_entropy(h @ table.T, targets))
    expected = (1 - weight) * entropy + weight * sum(by_hand) / 6
    assert model.loss(one_batch()).item() == pytest.approx(expected, rel=1e-4)


def test_triplets_have_gradients_where_negatives_are_masked() -> None:
    positive = torch.tensor([0.1, 0.9], requires_grad=True)
    scores = torch.tensor([[0.5, 2.0], [2.0, 3.0]], requires_grad=True)
    masked = scores.masked_fill(torch.tensor([[False, True], [True, True]]), -math.inf)
    loss = losses.triplet(positive, masked, 0.2)
    loss.backward()
    assert loss.item() == pytest.approx((0.2 - 0.1 + 0.5) / 2)
    assert positive.grad is not None and scores.grad is not None
    assert positive.grad.tolist() == [-0.5, 0] and scores.grad.tolist() == [[0.5, 0], [0, 0]]


def test_weights_are_those_of_a_mean() -> None:
    torch.manual_seed(1)
    h, table = torch.randn(700, 6, requires_grad=True), torch.randn(40, 6, requires_grad=True)
    targets, weights = torch.randint(40, (700,)), torch.rand(700)
    each = F.cross_entropy(h @ table.T, targets, reduction="none")
    expected = (each * weights).sum() / weights.sum()
    found = losses.full_cross_entropy(h, table, targets, weights)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    mine = torch.autograd.grad(found, (h, table))
    for one, other in zip(mine, torch.autograd.grad(expected, (h, table)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    # where nothing counts there is nothing to learn
    nothing = losses.full_cross_entropy(h, table, targets, torch.zeros(700))
    assert nothing.item() == 0
    assert not any(g.any() for g in torch.autograd.grad(nothing, (h, table)))


def test_later_positions_count_more() -> None:
    model = model_with(position_decay=0.5)
    h, table, targets = parts(model)
    each = F.cross_entropy(h @ table.T, targets, reduction="none")
    weights = torch.tensor([0.25, 0.5, 1, 0.5, 1, 1])  # of rows of three, two and one targets
    expected = (each * weights).sum() / weights.sum()
    torch.testing.assert_close(model.loss(one_batch()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["cross-entropy", "sampled-softmax", "gbce", "bce"])
@pytest.mark.parametrize("kind", ["sampled", "in-batch", "mixed", "exposure"])
def test_every_loss_takes_every_kind_of_negatives(loss: str, kind: str) -> None:
    for sharing in ("batch", "position"):
        given = {"negative_sharing": sharing, "triplet_weight": 0.1, "position_decay": 0.9}
        model = model_with(loss=loss, negatives=kind, n_sample=7, logq=1.0, **given)
        value = model.loss(one_batch())
        value.backward()
        assert torch.isfinite(value)
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"negatives": "mixed", "n_sample": 1}, "negatives mixed needs n_sample of at least 2"),
        ({"negatives": "exposure", "n_sample": 5}, "n_sample of at least 6, not 5"),
        ({"margin": 0.1}, "margin 0.1 is one of cosines, and similarity is dot; set"),
        ({"triplet_weight": 1.5}, "triplet_weight must be at most 1"),
        ({"negatives": "uniform"}, "negatives must be one of sampled, in-batch, mixed, exposure"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamError, match=message):
        complete_params("sasrec", given)
