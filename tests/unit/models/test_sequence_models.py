"""What must hold for SASRec and HSTU in every form: causality, padding, seeds, bad input."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.contract import Catalogue, Facts, SequenceBatch
from models.parts.transformer import losses as losses
from models.parts.transformer.blocks import make_norm
from models.parts.transformer.sequence_model import SequenceModel
from models.parts.transformer.unpadding import Unpadding
from paropt.errors import ParamError
from paropt.training.registry import build, complete_params

N_ITEMS = 30
FACTS = Facts(n_items=N_ITEMS, n_sessions=5, n_events=40, longest=12, has_times=True)
SMALL = {"dim": 16, "heads": 2, "max_length": 12, "dropout": 0.0}
MIXTURE = {"experts": 3, "top_k": 2, "shared_experts": 1}

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "sasrec": ("sasrec", {}),
    "sasrec-post": ("sasrec", {"norm_position": "post", "norm": "rms", "activation": "gelu"}),
    "sasrec-original": ("sasrec", {"norm_position": "original", "tied": False}),
    "sasrec-ligr": ("sasrec", {"skip": "ligr", "activation": "swiglu", "ffn_mult": 2}),
    "sasrec-moe": ("sasrec", MIXTURE),
    "hstu": ("hstu", {}),
    "hstu-query": ("hstu", {"time_mode": "query"}),
    "hstu-linear": ("hstu", {"rotary": "linear", "relative_bias": "none", "norm": "rms"}),
    "hstu-cumlog": ("hstu", {"rotary": "cumlog", "relative_bias": "time"}),
    "hstu-visible": ("hstu", {"normaliser": "visible", "relative_bias": "position"}),
    "hstu-moe": ("hstu", MIXTURE),
}


def make(form: str, **given: Any) -> SequenceModel:
    """A model whose weights are large enough for every part to matter."""
    name, params = FORMS[form]
    support = torch.arange(1, N_ITEMS + 1)
    model = build(name, SMALL | params | given, Catalogue(FACTS, support), seed=3)
    assert isinstance(model, SequenceModel)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.3 * noise)
    return model


def batch_of(lengths: list[int], seed: int = 0) -> SequenceBatch:
    """Random sequences, longest first, with gaps from nothing to months (ms)."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    shape = (len(lengths), width + 1)
    items = torch.randint(N_ITEMS, shape, generator=generator)
    gaps = 10 ** (10 * torch.rand(shape, generator=generator, dtype=torch.float64))
    gaps[:, ::3] = 0
    times = 1_700_000_000_000 + gaps.long().cumsum(1)
    sizes = torch.tensor(lengths)
    real = torch.arange(width) < sizes[:, None]
    return SequenceBatch(
        items=items[:, :-1].where(real, 0),
        targets=items[:, 1:].where(real, -1),
        times=times[:, :-1].where(real, 0),
        query_times=times[:, 1:].where(real, 0),
        lengths=sizes,
    )


def rows_of(model: SequenceModel, batch: SequenceBatch) -> Tensor:
    """Vectors [B, L, d] of a batch in eval mode, zero where padded."""
    model.eval()
    with torch.no_grad():
        return Unpadding(batch.lengths, batch.items.shape[1]).unpack(model.encode(batch))


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# -- what a position sees ----------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_later_events_change_nothing_earlier(form: str) -> None:
    model, batch = make(form), batch_of([9, 9])
    before = rows_of(model, batch)
    for position in range(1, 9):
        items, times = batch.items.clone(), batch.times.clone()
        items[:, position:] = (items[:, position:] + 11) % N_ITEMS
        times[:, position:] += 987_654_321
        asked = batch.query_times.clone()
        asked[:, position:] += 987_654_321
        after = rows_of(model, replace(batch, items=items, times=times, query_times=asked))
        same(after[:, :position], before[:, :position])
        assert not torch.allclose(after[:, position:], before[:, position:], atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_earlier_events_matter(form: str) -> None:
    model, batch = make(form), batch_of([9])
    before = rows_of(model, batch)
    items = batch.items.clone()
    items[:, 0] = (items[:, 0] + 11) % N_ITEMS
    assert not torch.allclose(rows_of(model, replace(batch, items=items))[:, 8], before[:, 8])


@pytest.mark.parametrize("form", FORMS)
def test_appending_an_event_leaves_earlier_vectors(form: str) -> None:
    model, batch = make(form), batch_of([9])
    shorter = batch.part(slice(0, 1), 8, batch.targets[:, :8])
    same(rows_of(model, batch)[:, :8], rows_of(model, shorter))


MANY = [12, 12, 11, 10, 10, 9, 8, 7, 7, 6, 5, 5, 4, 3, 2, 2, 1]


@pytest.mark.parametrize("lengths", [[12, 7, 7, 3, 1], MANY], ids=["one group", "groups"])
@pytest.mark.parametrize("form", FORMS)
def test_packed_equals_dense(form: str, lengths: list[int]) -> None:
    """A batch of many lengths gives each row what it gets alone, where nothing is padded."""
    model, batch = make(form), batch_of(lengths)
    together = rows_of(model, batch)
    for row, length in enumerate(batch.lengths.tolist()):
        alone = batch.part(slice(row, row + 1), length, batch.targets[row : row + 1, :length])
        same(together[row, :length], rows_of(model, alone)[0])


@pytest.mark.parametrize("form", FORMS)
def test_what_is_in_the_padding_does_not_matter(form: str) -> None:
    model, batch = make(form), batch_of([12, 5, 2])
    real = torch.arange(12) < batch.lengths[:, None]
    dirty = replace(
        batch,
        items=batch.items.where(real, 17),
        times=batch.times.where(real, 5_555_555_555_555),
        query_times=batch.query_times.where(real, 9_999_999_999_999),
    )
    assert torch.equal(rows_of(model, dirty), rows_of(model, batch))


@pytest.mark.parametrize("form", ["hstu", "hstu-query", "hstu-linear", "hstu-cumlog"])
def test_shifting_all_times_changes_nothing(form: str) -> None:
    model, batch = make(form), batch_of([9, 4])
    shift = 86_400_000 * 365 * 10 + 1
    shifted = replace(batch, times=batch.times + shift, query_times=batch.query_times + shift)
    assert torch.equal(rows_of(model, shifted), rows_of(model, batch))


def test_encode_gives_targets_in_row_major_order() -> None:
    model, batch = make("sasrec"), batch_of([6, 4])
    everything = rows_of(model, batch)
    targets = torch.full_like(batch.targets, -1)
    targets[0, 5], targets[1, 0], targets[1, 3] = 4, 5, 6
    with torch.no_grad():
        found = model.encode(replace(batch, targets=targets))
    expected = torch.stack([everything[0, 5], everything[1, 0], everything[1, 3]])
    torch.testing.assert_close(found, expected)


# -- losses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sasrec", "sasrec-original", "hstu"])
def test_loss_is_that_of_what_ranking_uses(form: str) -> None:
    model, batch = make(form), batch_of([8, 3])
    model.eval()
    table, bias = model.item_table()
    assert bias is None
    logits = model.encode(batch) @ table.T / model.params["temperature"]
    expected = F.cross_entropy(logits, batch.targets[batch.targets >= 0])
    torch.testing.assert_close(model.loss(batch), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_products_leave_the_loss_in_float32(form: str) -> None:
    """What a GPU's autocast does, on a CPU."""
    model, batch = make(form, precision="bf16"), batch_of([12, 8, 3])
    model.eval()
    exact = model.loss(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.loss(batch)
    rough.backward()
    assert rough.dtype == torch.float32 and rough.item() != exact.item()
    assert rough.item() == pytest.approx(exact.item(), rel=0.05)
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms_compute_in_float32_under_autocast(kind: str) -> None:
    norm = make_norm(kind, 64)
    torch.manual_seed(0)
    x = (300 + torch.randn(5, 64)).bfloat16()
    exact = norm(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x)
    assert torch.equal(found, exact.bfloat16())


def test_losses_compute_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    h, table = 3 * torch.randn(40, 8), torch.randn(30, 8)
    targets, negatives = torch.randint(30, (40,)), torch.randint(30, (9,))

    def found() -> list[Tensor]:
        positive = losses.positive_logits(h, table, targets)
        negative = losses.negative_logits(h, table, targets, negatives)
        return [
            losses.full_cross_entropy(h, table, targets),
            losses.sampled_softmax(positive, negative),
            losses.gbce(positive, negative, 0.5),
        ]

    exact = found()
    with torch.autocast("cpu", torch.bfloat16):
        rough = found()
    assert all(value.dtype == torch.float32 for value in rough)
    assert rough == exact


def test_positions_without_a_target_cost_nothing() -> None:
    model, batch = make("sasrec"), batch_of([8, 3])
    targets = batch.targets.clone()
    targets[0, 2:] = -1
    model.eval()
    logits = model.encode(replace(batch, targets=targets)) @ model.item_table()[0].T
    expected = F.cross_entropy(logits, targets[targets >= 0])
    torch.testing.assert_close(model.loss(replace(batch, targets=targets)), expected)


SAMPLED = list(itertools.product(["sampled-softmax", "gbce", "bce"], ["batch", "position"]))


@pytest.mark.parametrize(("loss", "sharing"), SAMPLED)
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_sampled_losses_train(loss: str, sharing: str, alpha: float) -> None:
    given = {"loss": loss, "negative_sharing": sharing, "n_sample": 9, "logq": 1.0}
    model, batch = make("sasrec", **given, sample_alpha=alpha), batch_of([8, 3])
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    found = []
    for _ in range(40):
        optimiser.zero_grad()
        value = model.loss(batch)
        value.backward()
        optimiser.step()
        found.append(float(value.detach()))
    assert sum(found[-5:]) < 0.7 * sum(found[:5])


def test_the_balancing_loss_is_part_of_the_loss() -> None:
    batch = batch_of([8, 3])
    plain = make("sasrec-moe", balance="none").loss(batch)
    balanced = make("sasrec-moe", balance="aux", aux_weight=0.5)
    found = balanced.loss(batch)
    added = sum(float(torch.as_tensor(m.aux_loss).detach()) for m in balanced.mixtures)
    assert added > 0 and len(balanced.mixtures) == 2
    assert found.item() == pytest.approx(plain.item() + added, rel=1e-5)


# -- seeds and state ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_weights_follow_from_the_seed_alone(form: str) -> None:
    name, params = FORMS[form]
    catalogue = Catalogue(FACTS, torch.ones(N_ITEMS, dtype=torch.int64))
    torch.manual_seed(1)
    first = build(name, SMALL | params, catalogue, seed=5).state_dict()
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)  # the process's own stream is as it was
    again = build(name, SMALL | params, catalogue, seed=5).state_dict()
    other = build(name, SMALL | params, catalogue, seed=6).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["items.weight"], other["items.weight"])


@pytest.mark.parametrize("form", ["sasrec-moe", "hstu"])
def test_evaluation_changes_no_state(form: str) -> None:
    model, batch = make(form), batch_of([8, 3])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rows_of(model, batch)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_diagnostics_of_an_epoch() -> None:
    model, batch = make("hstu-moe"), batch_of([8, 3])
    model.train()
    assert model.begin_epoch(1) == "main"
    model.loss(batch)
    h, targets = model.states(batch)  # before the step moves what balances experts
    model.after_step()
    found = model.end_epoch(1)
    right = F.cosine_similarity(h, model.items.weight[targets]).double().mean()
    similarity = found["similarity"]
    assert similarity["positive"] == pytest.approx(float(right.detach()), rel=1e-5)
    assert similarity["gap"] == pytest.approx(similarity["positive"] - similarity["negative"])
    assert similarity["alignment"] == pytest.approx(2 - 2 * similarity["positive"])
    assert sum(similarity["positive_histogram"]) == 11
    assert 0 <= similarity["auc"] <= 1 and similarity["uniformity"] < 0
    assert [sum(layer["load"]) for layer in found["experts"]] == pytest.approx([1, 1], abs=1e-5)
    model.begin_epoch(2)
    assert model.end_epoch(2)["similarity"] == {}


# -- bad input ---------------------------------------------------------------------------------

ORDER_ONLY = replace(FACTS, has_times=False)


@pytest.mark.parametrize(
    ("name", "given", "facts", "message"),
    [
        ("sasrec", {"max_length": 1}, FACTS, "sasrec: max_length must be at least 2, not 1"),
        ("sasrec", {"dim": 30, "heads": 4}, FACTS, "dim 30 is not divisible by heads 4"),
        ("hstu", {"dim": 30, "heads": 4}, FACTS, "dim 30 is not divisible by heads 4"),
        ("sasrec", {"experts": 4, "top_k": 8}, FACTS, "top_k 8 is above experts 4; lower top_k"),
        (
            "sasrec",
            {"skip": "ligr", "norm_position": "post"},
            FACTS,
            "ligr needs norm_position pre",
        ),
        ("hstu", {}, ORDER_ONLY, "relative_bias both needs time stamps"),
        (
            "hstu",
            {"relative_bias": "position", "rotary": "linear"},
            ORDER_ONLY,
            "rotary linear needs time stamps",
        ),
        ("hstu", {"rotary": "index", "dim": 50}, FACTS, "multiple of 4, or rotary none"),
        ("sasrec", {}, replace(FACTS, longest=1), "the longest training session has 1 event"),
        ("hstu", {}, replace(FACTS, n_items=1), "the catalogue has 1 item"),
    ],
)
def test_what_cannot_work_is_refused(
    name: str, given: dict[str, Any], facts: Facts, message: str
) -> None:
    with pytest.raises(ParamError, match=message.replace("(", r"\(")) as caught:
        complete_params(name, given, facts)
    assert "\n" not in str(caught.value)


def test_order_is_enough_without_time_bias() -> None:
    complete_params("hstu", {"relative_bias": "position", "rotary": "index"}, ORDER_ONLY)
    complete_params("sasrec", {}, ORDER_ONLY)


@pytest.mark.parametrize("loss", ["cross-entropy", "sampled-softmax", "gbce", "bce"])
def test_three_items_are_enough(loss: str) -> None:
    catalogue = Catalogue(replace(FACTS, n_items=3), torch.tensor([5, 1, 1]))
    model = build("sasrec", SMALL | {"loss": loss}, catalogue, seed=1)
    batch = batch_of([4, 2])
    small = replace(batch, items=batch.items % 3, targets=batch.targets.clamp(max=2))
    value = model.loss(small)
    assert torch.isfinite(value)
