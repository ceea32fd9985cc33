"""RQ-VAE: its loss, its codebooks' beginning and restart, and what it is judged by."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from models.parts.contract import Catalogue, Facts, Field, Table
from models.parts.fields import Vectors
from models.parts.quantising.held_out import hashed, split_items
from models.parts.quantising.residual import fit_books, residual_codes
from models.rqvae import RqVae
from paropt.training.batches.items import TrainingItems

N, DIM = 400, 12
SMALL = {"vectors": "look", "dims": 6, "levels": 2, "codes": 8, "latent": 4, "hidden": (10,)}
MISSING = torch.arange(N) % 50 == 7


@pytest.fixture(scope="module")
def rows() -> Tensor:
    """Clumps far from zero, some directions much longer than others."""
    draw = torch.Generator().manual_seed(5)
    centres = torch.randn(20, DIM, generator=draw)
    rows = centres[torch.arange(N) % 20] + 0.3 * torch.randn(N, DIM, generator=draw)
    return (rows * torch.linspace(4, 0.5, DIM) + 3).half()


def model_of(rows: Tensor, **given: Any) -> RqVae:
    look = Field("look", "vector", DIM)
    vectors = Vectors(DIM, MISSING, lambda index: rows[index])
    facts = Facts(N, 10, 1000, 10, True, items={"look": look})
    about = Catalogue(
        facts, torch.ones(N, dtype=torch.int64), items=Table({"look": look}, lambda _: vectors)
    )
    declared = {param.name: param.default for param in RqVae.PARAMS}
    return RqVae(declared | SMALL | given, about, seed=1)


def test_the_loss_is_what_the_formula_says(rows: Tensor) -> None:
    """‖x − D(z + sg(ẑ − z))‖² + Σ (‖sg r − e‖² + β ‖r − sg e‖²), by hand, with its gradients."""
    model = model_of(rows, kmeans_init=False, beta=0.4)
    items = model.training_items()[:30]

    loss = model.item_loss(items)
    loss.backward()

    grown = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    assert model.items is not None
    x = model.items.prepared[model.items.place[items]]
    z = model.encoder(x)
    codes = residual_codes(z.detach(), model.books.detach())
    first, second = model.books[0][codes[:, 0]], model.books[1][codes[:, 1]]
    left = z - first.detach()
    learned = squares(z.detach() - first) + squares(left.detach() - second)
    drawn = squares(z - first.detach()) + squares(left - second.detach())
    decoded = model.decoder(z + (first + second - z).detach())
    wanted = (squares(x - decoded) + learned + 0.4 * drawn).mean()
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    wanted.backward()
    for name, parameter in model.named_parameters():
        own, hand = grown[name], parameter.grad
        assert own is not None
        assert hand is not None
        assert float(hand.abs().max()) > 0
        assert torch.allclose(own, hand, rtol=1e-4, atol=1e-5), name


def squares(rows: Tensor) -> Tensor:
    return rows.square().sum(1)


def test_codebooks_begin_as_residual_k_means_of_the_first_encoder(rows: Tensor) -> None:
    model = model_of(rows)
    begun = model_of(rows)

    begun.item_loss(begun.training_items()[:10])

    with torch.no_grad():
        latent = model.encoder(model._prepared(model._some(0, 64 * 8)))
    assert len(latent) == len(model.training_items())
    books = fit_books(latent, 2, 8, seed=1).float()
    assert torch.equal(begun.books.detach(), books)
    begun.item_loss(begun.training_items()[:10])
    assert torch.equal(begun.books.detach(), books)  # once


def test_a_code_that_nothing_had_begins_at_what_an_item_has_left(rows: Tensor) -> None:
    model = model_of(rows, kmeans_init=False, n_epochs=2)
    with torch.no_grad():
        model.books[:, 3] += 1000.0
    before = model.books.detach().clone()

    model.item_loss(model.training_items())
    used = model.used.clone()
    told = model.end_epoch(1)

    assert bool((used[:, 3] == 0).all())
    after = model.books.detach()
    assert torch.equal(after[used > 0], before[used > 0])
    assert told["dead_codes"] == (used == 0).sum(1).tolist()
    shares = used[0][used[0] > 0].double() / used[0].sum()
    assert told["perplexity"][0] == pytest.approx(math.exp(-float((shares * shares.log()).sum())))
    with torch.no_grad():
        latent = model.encoder(model._prepared(model.training_items()))
    assert any(torch.allclose(after[0, 3], one, atol=1e-6) for one in latent)
    assert float(after[1, 3].abs().max()) < 1000
    assert int(model.used.sum()) == 0

    with torch.no_grad():
        model.books[:, 3] += 1000.0
    last = model.books.detach().clone()
    model.item_loss(model.training_items())
    model.end_epoch(2)  # nothing would learn it after the last epoch
    assert torch.equal(model.books.detach(), last)


def test_items_are_held_out_by_their_index_alone() -> None:
    missing = torch.zeros(20_000, dtype=torch.bool)
    trained, out = split_items(missing, 0.1)
    missing[out[0]] = True
    fewer, left = split_items(missing, 0.1)

    assert 1800 < len(out) < 2200
    assert sorted([*trained.tolist(), *out.tolist()]) == list(range(20_000))
    assert torch.equal(fewer, trained)
    assert torch.equal(left, out[1:])
    assert len(split_items(missing, 0.0)[1]) == 0
    parts = torch.histc(hashed(torch.arange(20_000)), 10, 0, 1)
    assert float(parts.min()) > 1850


def test_what_is_lost_is_measured_on_vectors_as_they_are(rows: Tensor) -> None:
    model = model_of(rows).eval()
    model.item_loss(model.training_items())

    with torch.no_grad():
        found = model.evaluate([])

    out = model.held_out
    assert not set(out.tolist()) & set(model.training_items().tolist())
    assert not bool(MISSING[out].any())
    vectors = rows.double()
    mean = vectors[model.training_items()].mean(0)
    rebuilt = model.rebuilt(model.codes(vectors[out]))
    spread = (vectors[~MISSING] - mean).square().sum(1).mean()
    lost = (vectors[out] - rebuilt).square().sum(1) / spread
    assert isinstance(found["lost"], Tensor)
    assert torch.allclose(found["lost"], lost, rtol=1e-5)
    assert isinstance(found["cosine"], Tensor)
    cosine = torch.cosine_similarity(vectors[out] - mean, rebuilt - mean)
    assert torch.allclose(found["cosine"], cosine, rtol=1e-5)
    codes = model.codes(vectors[~MISSING])
    tuples = len({tuple(code) for code in codes.tolist()})
    assert found["collisions"] == pytest.approx(1 - tuples / int((~MISSING).sum()))


def test_beyond_the_collision_limit_nothing_else_counts(rows: Tensor) -> None:
    within, beyond = model_of(rows, collision_limit=1.0), model_of(rows, collision_limit=0.0)

    with torch.no_grad():
        free, bound = within.evaluate([]), beyond.evaluate([])

    assert free["reconstruction"] is free["lost"]
    assert isinstance(free["lost"], Tensor)
    worst = max(1.0, float(free["lost"].mean()))
    assert bound["reconstruction"] == pytest.approx(worst + float(free["collisions"]))


def test_its_floors_are_k_means_of_as_many_codes_and_the_mean(rows: Tensor) -> None:
    model = model_of(rows)

    found = RqVae.floors_with(model.params, model.catalogue, [])

    assert list(found) == ["rq-kmeans 2 × 8", "one mean"]
    kmeans, mean = found.values()
    assert isinstance(kmeans["lost"], Tensor)
    assert isinstance(mean["lost"], Tensor)
    assert len(kmeans["lost"]) == len(mean["lost"]) == len(model.held_out)
    vectors = rows.double()
    away = (vectors - vectors[model.training_items()].mean(0)).square().sum(1)
    assert torch.allclose(mean["lost"], (away / away[~MISSING].mean())[model.held_out])
    assert float(kmeans["lost"].mean()) < 0.5 * float(mean["lost"].mean())


def test_an_epoch_has_every_item_once_and_follows_from_the_seed() -> None:
    items = torch.arange(5, 28)

    one, again, next_one = (
        TrainingItems(items, 10, seed).epoch(epoch) for seed, epoch in ((1, 1), (1, 1), (1, 2))
    )

    assert one.n_targets == [len(batch) for batch in one] == [10, 10, 3]
    assert torch.equal(torch.cat(list(one)).sort().values, items)
    assert torch.equal(one.items, again.items)
    assert not torch.equal(one.items, next_one.items)
    assert not torch.equal(one.items, TrainingItems(items, 10, 2).epoch(1).items)
