"""Items made of more than their ids: each vector once a step, the same as token by token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.contract import (
    Bags,
    Catalogue,
    Facts,
    Field,
    Model,
    SequenceBatch,
    Table,
    Vectors,
)
from models.parts.items.encoders import Categories, Category, Number, Vector
from models.parts.items.tower import IdTable, ItemTower
from models.parts.items.whitening import fit_whitening, whitened
from models.parts.transformer import losses
from models.parts.transformer.negatives import Targets
from models.parts.transformer.sequence_model import SequenceModel
from paropt.errors import ParamError
from paropt.training.registry import build, complete_params

N, DIM, WIDE = 40, 8, 12
FIELDS = {
    "brand": Field("brand", "category", 6),
    "tags": Field("tags", "categories", 7),
    "price": Field("price", "number"),
    "words": Field("words", "vector", WIDE),
}
FACTS = Facts(n_items=N, n_sessions=5, n_events=90, longest=12, has_times=True, items=FIELDS)
SMALL: dict[str, Any] = {"dim": DIM, "heads": 2, "max_length": 12, "dropout": 0.0, "n_sample": 6}
RICH: dict[str, Any] = {"features": "brand+tags+price", "vectors": "words", "vector_dims": 5}


def table_of(n: int, seed: int, present: bool = True, words: Tensor | None = None) -> Table:
    """Items of which some lack this, some that; code 5 of ``brand`` is for items of seed 2 only."""
    draw = torch.Generator().manual_seed(seed)
    brand = torch.randint(-1, 5 if seed != 2 else 6, (n,), generator=draw)
    sizes = torch.randint(0, 4, (n,), generator=draw)
    offsets = F.pad(sizes.cumsum(0), (1, 0))
    tags = torch.randint(0, 7, (int(offsets[-1]),), generator=draw)
    price = torch.rand(n, generator=draw) * 100
    price[::7] = torch.nan
    found = torch.randn(n, WIDE, generator=draw) @ torch.randn(WIDE, WIDE, generator=draw) + 3
    found = (found if words is None else words).half()
    missing = torch.arange(n) % 9 == 4
    found[missing] = 0
    read = {
        "brand": brand,
        "tags": Bags(tags, offsets, (sizes == 0) & (torch.arange(n) % 2 == 0)),
        "price": price,
        "words": Vectors(WIDE, missing, found.__getitem__ if present else None),
    }
    return Table(FIELDS, lambda field: read[field.name])


def catalogue() -> Catalogue:
    return Catalogue(FACTS, torch.arange(1, N + 1), items=table_of(N, seed=1))


def make(name: str = "sasrec", about: Catalogue | None = None, **given: Any) -> SequenceModel:
    """A model whose weights are large enough for every part to matter."""
    model = build(name, SMALL | RICH | given, about or catalogue(), seed=3)
    assert isinstance(model, SequenceModel)
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return model


def batch_of(lengths: list[int], n_items: int = N) -> SequenceBatch:
    draw = torch.Generator().manual_seed(0)
    shape = (len(lengths), max(lengths) + 1)
    items = torch.randint(n_items, shape, generator=draw)
    sizes = torch.tensor(lengths)
    real = torch.arange(shape[1] - 1) < sizes[:, None]
    times = torch.arange(shape[1]).expand(shape) * 60_000
    return SequenceBatch(
        items=items[:, :-1].where(real, 0),
        targets=items[:, 1:].where(real, -1),
        times=times[:, :-1],
        query_times=times[:, 1:],
        lengths=sizes,
    )


def tower_of(model: SequenceModel) -> ItemTower:
    assert isinstance(model.items, ItemTower)
    return model.items


# -- one item by hand ------------------------------------------------------------------------------


def by_hand(tower: ItemTower, item: int, table: Table, known: bool = True) -> Tensor:
    """One item's vector, part by part, from what the table says."""
    parts = []
    if tower.ids is not None:
        parts.append(tower.ids.weight[item] if known else torch.zeros(DIM))
    for encoder in tower.encoders:
        if isinstance(encoder, Category):
            code = int(table.codes("brand")[item])
            parts.append(encoder.embedding.weight[code if 0 <= code < 5 else -1])
        elif isinstance(encoder, Categories):
            bags = table.bags("tags")
            own = bags.codes[int(bags.offsets[item]) : int(bags.offsets[item + 1])]
            if bags.missing[item]:
                parts.append(encoder.embedding.weight[-1])
            else:
                parts.append(
                    encoder.embedding.weight[own].mean(0) if len(own) else torch.zeros(DIM)
                )
        elif isinstance(encoder, Number):
            all_of_them = catalogue().items.numbers("price")
            all_of_them = all_of_them[~all_of_them.isnan()]
            price = table.numbers("price")[item]
            lacks = bool(price.isnan())
            own = (price - all_of_them.mean()) / all_of_them.std(correction=0)
            parts.append(encoder.weight[1] if lacks else own * encoder.weight[0])
        elif isinstance(encoder, Vector):
            vectors = table.vectors("words")
            white = (vectors.rows(torch.tensor(item)) - encoder.mean) @ encoder.projection
            text = F.layer_norm(white, white.shape).half().float() @ encoder.weight / len(white)
            parts.append(encoder.missing if vectors.missing[item] else text)
    whole = torch.stack(parts).sum(0)
    return whole if tower.mlp is None else whole + tower.mlp(torch.cat(parts))


@pytest.mark.parametrize("given", [{}, {"fuse": "mlp"}, {"id_init": "none"}], ids=str)
def test_a_vector_is_the_sum_of_what_is_known_of_the_item(given: dict[str, Any]) -> None:
    tower = tower_of(make(**given)).eval()
    table = catalogue().items
    expected = torch.stack([by_hand(tower, item, table) for item in range(N)])
    torch.testing.assert_close(tower.all_items(), expected.detach(), rtol=2e-3, atol=2e-3)


def test_ids_begin_as_they_are_told_to() -> None:
    for begin in ("normal", "zero", "none"):
        model = build("sasrec", SMALL | RICH | {"id_init": begin}, catalogue(), seed=3)
        assert isinstance(model, SequenceModel)
        ids = tower_of(model).ids
        assert (ids is None) == (begin == "none")
        assert ids is None or bool((ids.weight == 0).all()) == (begin == "zero")


def test_ids_alone_are_the_table_of_ids_that_they_were() -> None:
    model = build("sasrec", SMALL, catalogue(), seed=3)
    assert isinstance(model, SequenceModel) and isinstance(model.items, IdTable)
    names = [name for name in model.state_dict() if name.startswith("items")]
    assert names == ["items.weight"]


# -- gradients -------------------------------------------------------------------------------------


def token_by_token(model: SequenceModel, batch: SequenceBatch) -> Tensor:
    """The loss in the plain form: an item's vector is worked out anew wherever it occurs."""
    tower = tower_of(model)

    class PerToken:
        def rows(self, items: Tensor) -> Tensor:
            found = [tower.work_out(item[None])[0] for item in items.reshape(-1)]
            return torch.stack(found).view(*items.shape, DIM)

        def table(self, *items: Tensor) -> tuple[Tensor, list[Tensor]]:
            raise AssertionError("never asked for")

    h, targets = model.states(batch, PerToken())
    model.similarity.draw(targets, N)
    if model.params["loss"] == "cross-entropy":
        return F.cross_entropy(h @ PerToken().rows(torch.arange(N)).T, targets)
    negatives = model.next_item.draw(Targets(targets)).items
    wrong = PerToken().rows(negatives.expand(len(targets), -1))
    right = (h * PerToken().rows(targets)).sum(1)
    logits = (wrong * h[:, None]).sum(2).masked_fill(negatives == targets[:, None], -torch.inf)
    return losses.sampled_softmax(right, logits)


@pytest.mark.parametrize("loss", ["cross-entropy", "sampled-softmax"])
@pytest.mark.parametrize("fuse", ["sum", "mlp"])
def test_gradients_are_those_of_the_plain_form(loss: str, fuse: str) -> None:
    batch = batch_of([9, 7, 4, 2])
    found = []
    for plain in (False, True):
        model = make(loss=loss, fuse=fuse)
        torch.manual_seed(5)
        value = token_by_token(model, batch) if plain else model.loss(batch)
        torch.autograd.backward(value)
        found.append((value, {name: p.grad for name, p in model.named_parameters()}))
    (value, grads), (plain_value, plain_grads) = found
    torch.testing.assert_close(value, plain_value, rtol=1e-5, atol=1e-5)
    for name, grad in plain_grads.items():
        assert grad is not None and grads[name] is not None, name
        torch.testing.assert_close(
            grads[name], grad, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("tied", [True, False])
def test_a_step_works_every_item_out_once(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(loss="bce", n_sample=3, tied=tied), batch_of([9, 7, 4, 2])
    done: list[int] = []
    work_out = ItemTower.work_out

    def counted(self: ItemTower, rows: Tensor | None) -> Tensor:
        assert rows is not None
        if self is model.items:
            done.extend(rows.tolist())
        return work_out(self, rows)

    monkeypatch.setattr(ItemTower, "work_out", counted)
    model.loss(batch)
    read = set(batch.items[batch.targets >= 0].tolist())
    assert len(done) == len(set(done)) and read <= set(done)
    assert tied or set(done) == read


def test_a_loss_has_its_gradient_outside_of_training_too() -> None:
    model = make(loss="sampled-softmax").eval()
    torch.autograd.backward(model.loss(batch_of([9, 7])))
    assert all(parameter.grad is not None for parameter in model.items.parameters())


# -- evaluation ------------------------------------------------------------------------------------


def test_an_evaluation_works_the_table_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make().eval()
    calls = []
    work_out = ItemTower.work_out
    monkeypatch.setattr(
        ItemTower, "work_out", lambda self, rows: calls.append(1) or work_out(self, rows)
    )
    with torch.no_grad():
        before, _ = model.item_table()
        model.encode(batch_of([9, 2]))
        assert len(calls) == 1
        next(model.items.parameters()).add_(1.0)
        assert not torch.equal(model.item_table()[0], before)


def test_new_items_are_ranked_and_read_by_what_is_known_of_them() -> None:
    model, new = make(), table_of(6, seed=2)
    tower = tower_of(model)
    model.eval()
    with torch.no_grad():
        known = model.item_table()[0].clone()
        model.add_items(new, 6)
        table, _ = model.item_table()
        torch.testing.assert_close(table[:N], known)
        own = torch.stack([by_hand(tower, item, new, known=False) for item in range(6)])
        torch.testing.assert_close(table[N:], own, rtol=2e-3, atol=2e-3)
        assert model.encode(batch_of([9, 7], n_items=N + 6)).isfinite().all()
        model.add_items(new, 0)
        assert len(model.item_table()[0]) == N


def test_ids_alone_cannot_take_new_items() -> None:
    model = build("hstu", SMALL, catalogue(), seed=3)
    with pytest.raises(NotImplementedError, match="ids alone"):
        model.add_items(table_of(6, seed=2), 6)


def test_a_model_without_its_vectors_has_what_it_worked_out() -> None:
    model = make(tied=False).eval()
    bare = replace(catalogue(), items=table_of(N, seed=1, present=False))
    other: Model = build("sasrec", model.params, bare, seed=3).eval()
    with torch.no_grad():
        other.load_state_dict(model.state_dict())
        other.load_worked_out(model.worked_out())
        batch = batch_of([9, 7])
        for one, two in ((model.encode(batch), other.encode(batch)),):
            assert torch.equal(one, two)
        assert torch.equal(model.item_table()[0], other.item_table()[0])
        for each in (model, other):
            each.add_items(table_of(6, seed=2), 6)
        assert torch.equal(model.item_table()[0], other.item_table()[0])


def test_ids_can_be_left_out_in_training_only() -> None:
    tower = tower_of(make(id_dropout=0.5))
    assert tower.ids is not None
    torch.manual_seed(1)
    tower.train()
    without = replace_ids(tower, 0.0)
    mixed = tower.work_out(None)
    with_ids = without + tower.ids.weight
    dropped = torch.isclose(mixed, without, atol=1e-5).all(1)
    kept = torch.isclose(mixed, with_ids, atol=1e-5).all(1)
    assert bool((dropped ^ kept).all()) and 0 < int(dropped.sum()) < N
    tower.eval()
    torch.testing.assert_close(tower.all_items(), with_ids.detach())


def replace_ids(tower: ItemTower, value: float) -> Tensor:
    """What the tower makes of its fields alone."""
    assert tower.ids is not None
    return tower._fused(torch.full_like(tower.ids.weight, value), tower._of_catalogue(), None)


# -- whitening -------------------------------------------------------------------------------------


def test_whitening_is_fitted_on_items_in_training_only() -> None:
    words = torch.randn(N, WIDE, generator=torch.Generator().manual_seed(4))
    far = words.clone()
    far[30:] += 1000
    support = torch.arange(1, N + 1)
    support[30:] = 0
    found = []
    for one in (words, far):
        items = table_of(N, seed=1, words=one)
        model = make(about=Catalogue(FACTS, support, items=items))
        found.append({n: b for n, b in model.state_dict().items() if "projection" in n})
    assert found[0] and all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_what_is_white_has_no_direction() -> None:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(500, WIDE, generator=draw, dtype=torch.float64)
    x = (x @ torch.randn(WIDE, WIDE, generator=draw, dtype=torch.float64) + 5).float()
    x[:, 3] = x[:, 2]  # of one dimension less
    vectors = Vectors(WIDE, torch.zeros(500, dtype=torch.bool), x.__getitem__)
    mean, projection = fit_whitening(vectors, torch.arange(500), WIDE)
    white = ((x - mean) @ projection).double()
    expected = torch.eye(WIDE, dtype=torch.float64)
    expected[-1, -1] = 0
    torch.testing.assert_close(white.T @ white / 500, expected, rtol=1e-3, atol=1e-3)
    same = whitened(vectors, mean, projection).double()
    torch.testing.assert_close(same.mean(1), torch.zeros(500).double(), rtol=0, atol=1e-3)


def test_what_was_whitened_once_is_there_for_the_next_training() -> None:
    reads: list[int] = []
    rows = torch.randn(N, WIDE, generator=torch.Generator().manual_seed(4)).half()

    def read(index: Tensor) -> Tensor:
        reads.append(len(index))
        return rows[index]

    memo: dict[Any, Any] = {}

    def about() -> Catalogue:
        vectors = Vectors(WIDE, torch.zeros(N, dtype=torch.bool), read, memo)
        only = Table({"words": FIELDS["words"]}, lambda _: vectors)
        return Catalogue(FACTS, torch.ones(N, dtype=torch.int64), items=only)

    given: dict[str, Any] = {"features": "none", "id_init": "zero"}
    first, count = tower_of(make(about=about(), **given)).eval().all_items(), len(reads)
    assert count > 0
    again = make(about=about(), **given)
    assert torch.equal(tower_of(again).eval().all_items(), first) and len(reads) == count
    # weights of other data bring their own whitening, which leaves that of these data alone
    other = {n: b.roll(1, 1) if "projection" in n else b for n, b in again.state_dict().items()}
    third = make(about=about(), **given)
    third.load_state_dict(other)
    assert not torch.equal(tower_of(third).eval().all_items(), first)
    assert torch.equal(tower_of(make(about=about(), **given)).eval().all_items(), first)


def test_a_vector_that_no_item_has_teaches_nothing() -> None:
    vectors = Vectors(WIDE, torch.ones(N, dtype=torch.bool), torch.zeros(N, WIDE).__getitem__)
    mean, projection = fit_whitening(vectors, torch.arange(0), 4)
    assert not mean.any() and not projection.any() and projection.shape == (WIDE, 4)


# -- what is refused -------------------------------------------------------------------------------


def test_vectors_and_texts_among_features_are_told_their_place() -> None:
    title = Field("title", "text")
    facts = replace(FACTS, items={**FIELDS, "title": title})
    with pytest.raises(ParamError, match="'words', which is a vector; name it in vectors"):
        complete_params("sasrec", {"features": "words"}, facts)
    with pytest.raises(ParamError, match="--text-vectors title, and name title_vector"):
        complete_params("sasrec", {"features": "title"}, facts)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"id_init": "zero"}, "id_init=zero leaves items with nothing"),
        ({"id_init": "none"}, "id_init=none leaves items with nothing"),
        ({"id_dropout": 0.5}, "id_dropout=0.5 has no place"),
        ({"features": "brand", "vectors": "brand"}, "features and vectors both name 'brand'"),
    ],
)
def test_items_made_of_nothing_are_refused(given: dict[str, Any], message: str) -> None:
    for name in ("sasrec", "hstu"):
        with pytest.raises(ParamError, match=message):
            complete_params(name, given)


def test_parts_of_vectors_begin_as_large_as_ids_and_learn_as_quickly() -> None:
    """One step of Adam on a loss that pulls every number of every item up by the same."""
    model = build("sasrec", SMALL | {"vectors": "words"}, catalogue(), seed=3)
    assert isinstance(model, SequenceModel)
    (encoder,) = tower_of(model).encoders
    assert isinstance(encoder, Vector)
    inputs = encoder.read(catalogue().items)
    known = ~inputs[1]
    before = encoder(inputs, None)[known].detach()
    assert float(before.std()) == pytest.approx(0.02, rel=0.25)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=0.001)
    encoder(inputs, None)[known].sum().backward()
    optimiser.step()
    moved = (encoder(inputs, None)[known].detach() - before).abs()
    assert float(moved.max()) <= 0.001 * 1.001  # where an id would have moved by .001
