"""UR4Rec's formulas against plain ones, its stages, its memory, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.contract import Field, Table, Vectors
from models.parts.ur4rec.alternation import MOST, Alternation
from models.parts.ur4rec.attention import FewKeys
from models.parts.ur4rec.experts import Context, Mixture
from models.parts.ur4rec.fusion import Fusion, fuse
from models.parts.ur4rec.params import STAGES, UR4REC_PARAMS
from models.parts.ur4rec.store import Remembered, Store, bytes_of
from models.ur4rec import BY_SASREC, RANKED_BY, UR4Rec
from paropt.data.dataset import View, open_dataset
from paropt.errors import DataError, ParamError
from paropt.training import registry
from paropt.training.batches import plans
from paropt.training.batches.catalogue import catalogue, facts
from paropt.training.conformance import check_model
from paropt.training.fitting.fit import Fit
from paropt.training.fitting.memory import digest
from paropt.training.made_up import made_up_data

NONE = dict.fromkeys(STAGES, 0)
SMALL = {"dim": 8, "blocks": 1, "batch_size": 16, "memory_threshold": 2, "max_length": 6}
SMALL |= {"max_memory_size": 3, "context_length": 3}


def full(**given: Any) -> dict[str, Any]:
    return registry.complete_params("ur4rec", NONE | SMALL | {"pretrain_retriever": 1} | given)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    needs = UR4Rec.needs(full())
    path = made_up_data(tmp_path_factory.mktemp("data") / "log", sessions=60, needs=needs)
    return open_dataset(path).view("search")


def fitted(view: View, epochs: int | None = None, **given: Any) -> Fit:
    fit = Fit("ur4rec", NONE | SMALL | given, view, seed=3, epochs=epochs)
    list(fit.epochs())
    return fit


def model_of(fit: Fit) -> UR4Rec:
    assert isinstance(fit.model, UR4Rec)
    return fit.model


def queries(fit: Fit, view: View) -> plans.QueryBatches:
    needs = fit.model.needs(fit.model.params)
    return plans.evaluation(view.test, view.n_items, fit.model.max_length, 64, "cpu", needs)


# -- parts ------------------------------------------------------------------------------------


def test_attention_of_one_query_and_of_proxies_is_the_general_one() -> None:
    torch.manual_seed(1)
    attention, q, keys = FewKeys(8, 2), torch.randn(5, 1, 8), torch.randn(5, 4, 8)
    for layer in (attention.query, attention.key_value, attention.merge):
        torch.nn.init.normal_(layer.weight)
    there = torch.tensor([[1, 1, 0, 0], [1] * 4, [0] * 4, [0, 0, 0, 1], [1, 0, 1, 0]]).bool()
    kv = attention.key_value(keys)
    one = attention(q, kv, there)
    many = attention(torch.cat((q, q), 1), kv, there)
    torch.testing.assert_close(one, many[:, :1])
    assert bool((one[2] == 0).all()), "no key, nothing seen"
    # by hand, of the second row
    k, v = (part[1].view(4, 2, 4) for part in kv.chunk(2, -1))
    scores = (attention.query(q)[1].view(1, 2, 4) * k).sum(2) / math.sqrt(4)
    mixed = (torch.softmax(scores, 0)[..., None] * v).sum(0).flatten()
    torch.testing.assert_close(one[1, 0], attention.merge(mixed))
    proxies = torch.randn(3, 8)
    each = torch.cat((q, proxies.expand(5, -1, -1)), 1)
    plain = attention(torch.cat((q, q), 1), attention.key_value(each), torch.ones(5, 4).bool())
    found = attention.of_own_and_shared(q[:, 0], proxies)
    torch.testing.assert_close(found, plain[:, 0])


def test_an_expert_without_a_context_gives_the_query_and_has_no_weight() -> None:
    torch.manual_seed(1)
    mixture = Mixture(("preference", "embeddings"), 8, 2, 8, 0.0, True, 1.0)
    table = torch.randn(6, 8)
    there = torch.tensor([[True], [False], [False]])
    one = Context(table, torch.zeros(3, 1).long(), there)
    some = torch.tensor([[True, True], [True, False], [False, False]])
    other = Context(table, torch.tensor([[1, 2], [3, 0], [0, 0]]), some)
    q = torch.randn(3, 1, 8)
    with torch.no_grad():
        mixed, weights = mixture(q, {"preference": one, "embeddings": other})
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 1))
    assert float(weights[1, 0, 0]) == 0 and 0 < float(weights[0, 0, 0]) < 1
    torch.testing.assert_close(mixed[2], q[2])
    assert not torch.allclose(mixed[1], q[1])
    torch.testing.assert_close(other.pool()[0], table[1:3].mean(0))
    nothing, none = Mixture((), 8, 2, 8, 0.0, True, 1.0)(q, {})
    assert torch.equal(nothing, q) and none.shape == (3, 1, 0)


@pytest.mark.parametrize("scale", ["log-softmax", "z-score"])
@pytest.mark.parametrize("kind", ["weighted", "learned", "adaptive"])
def test_the_fusion_as_one_product_ranks_as_the_plain_form(kind: str, scale: str) -> None:
    torch.manual_seed(2)
    h, r, items, texts = (torch.randn(n, 8) for n in (6, 6, 50, 50))
    fusion = Fusion(kind, 0.3, scale, 8)
    if kind == "adaptive":
        torch.nn.init.normal_(fusion.mlp[2].weight)
    weight = fusion.weight(h, r)
    one = fusion(h, items, r, texts, weight) @ torch.cat((items, texts), 1).T
    first, second = h @ items.T, 3 * r @ texts.T
    one_of_three = fusion(h, items, 3 * r, texts, weight) @ torch.cat((items, texts), 1).T
    if scale == "z-score":
        parts = [(x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True)
                 for x in (first, second)]  # fmt: skip
    else:
        parts = [torch.log_softmax(x, 1) for x in (first, second)]
    plain = weight * parts[0] + (1 - weight) * parts[1]
    assert torch.equal(one_of_three.argsort(1), plain.argsort(1))
    assert torch.equal(fuse(first, second, weight, scale).argsort(1), plain.argsort(1))
    if scale == "log-softmax":
        assert not torch.equal(one.argsort(1), plain.argsort(1)), "the scale matters"
    assert (len(set(weight.flatten().tolist())) > 1) == (kind == "adaptive")
    if kind != "adaptive":
        torch.testing.assert_close(weight, torch.full((6, 1), 0.3))


def test_turns_end_when_the_loss_stands_still_and_never_last_for_ever() -> None:
    turns = Alternation("loss")
    for _ in range(5):
        turns.watch(torch.tensor(2.0))
        assert turns.sasrec
        turns.after_step()
    assert not turns.sasrec, "it stood still for five steps"
    for step in range(MOST):
        assert not turns.sasrec
        turns.watch(torch.tensor(1.5**step))
        turns.after_step()
    assert turns.sasrec and turns.end_epoch() == {"sasrec": 5, "retriever": MOST}
    again = Alternation("loss")
    again.load(turns.state())
    assert vars(again) == vars(turns)


# -- memory -----------------------------------------------------------------------------------


def test_the_store_is_bounded_and_forgets_who_was_not_met_for_longest() -> None:
    store = Store(9, most=3, ring=1, dim=2)

    def put(users: list[int], seen: list[int]) -> None:
        nobody = store.get(torch.full((len(users),), -1))
        values = torch.tensor(seen)
        states = values[:, None, None].expand(-1, 2, 2).float()
        one = torch.ones_like(values)
        found = {name: one for name in ("filled", "interactions", "updated_at", "updated_time")}
        put_in = type(nobody)(states=states, lately=states[:, 0], seen=values, **found)
        store.put(torch.tensor(users), put_in)

    put([1, 2, 2, -1], [5, 7, 6, 9])
    assert store.tensors()["user"].tolist() == [1, 2]
    assert store.get(torch.tensor([2, 1, 3])).seen.tolist() == [7, 5, 0], "the later of two"
    put([4, 1], [8, 4])
    assert store.get(torch.tensor([1])).seen.tolist() == [5], "what is earlier is not kept"
    put([2], [9])
    put([6], [3])
    assert sorted(store.tensors()["user"].tolist()) == [2, 4, 6]
    kept = store.tensors()
    other = Store(9, most=3, ring=1, dim=2)
    other.load(kept)
    assert digest(other.tensors()) == digest(kept)
    assert other.get(torch.tensor([6])).states.tolist() == [[[3.0, 3.0]]]
    assert sum(x.numel() * x.element_size() for x in kept.values()) == bytes_of(3, 1, 2)
    with pytest.raises(ValueError, match="states is"):
        Store(9, most=3, ring=2, dim=2).load(kept)


def test_the_default_memory_of_a_million_users_takes_less_than_two_gigabytes() -> None:
    params = registry.complete_params("ur4rec", {"dim": 256})
    about = registry.Facts(9, 9, 9, 9, True, n_users=1_000_000)
    assert 1.5e9 < UR4Rec.memory_bytes(params, about) < 2e9
    assert UR4Rec.memory_bytes(params | {"memory_users": 0}, about) == 0


def moved(fit: Fit, z: Tensor, times: Tensor, **given: Any) -> Any:
    """What a memory makes of positions in one row."""
    from models.parts.ur4rec.memory import Grid
    from models.parts.ur4rec.store import Remembered

    memory = model_of(fit).retriever.memory
    assert memory is not None
    for name, value in given.items():
        setattr(memory, name, value)
    count = torch.arange(1, len(z) + 1)[None]
    grid = Grid(torch.arange(len(z))[None], torch.ones(1, len(z)).bool(), count, times[None])
    start = Remembered.nothing(1, z.shape[1], z.device)
    return memory.move(z, grid, start, explicit=False), start, memory


def test_triggers_fire_when_they_should(view: View) -> None:
    fit = fitted(view, pretrain_retriever=1, epochs=1)
    torch.manual_seed(0)
    z, times = torch.randn(7, 8), torch.tensor([0, 10, 20, 45, 50, 60, 95])
    found, start, memory = moved(fit, z, times, trigger="INTERACTION_COUNT", threshold=3)
    assert found.updates.tolist() == [[0, 0, 1, 1, 1, 2, 2]]
    by_hand = memory.cell(z[2][None], torch.zeros(1, 8))
    torch.testing.assert_close(found.states[:, 0], by_hand)
    torch.testing.assert_close(found.states[:, 1], memory.cell(z[5][None], memory.decay * by_hand))
    visible = memory.visible(found, start.filled)[0]
    assert visible.tolist() == [[False] * 2] * 2 + [[True, False]] * 3 + [[True, True]] * 2
    assert found.after.filled.tolist() == [2] and found.after.updated_at.tolist() == [6]
    lately = z[0]
    for one in z[1:]:
        lately = 0.9 * lately + 0.1 * one
    torch.testing.assert_close(found.after.lately[0], lately.detach())
    found, *_ = moved(fit, z, times, trigger="TIME_BASED", interval=30)
    assert found.updates.tolist() == [[0, 0, 0, 1, 1, 1, 2]]
    found, *_ = moved(fit, z, times, trigger="EXPLICIT")
    assert found.updates.tolist() == [[0] * 7] and found.states.shape[1] == 0
    alike = z[:1].expand(7, -1)
    found, *_ = moved(fit, alike, times, trigger="DRIFT_THRESHOLD", drift=0.3, threshold=3)
    assert found.updates.tolist() == [[1] * 7], "the first is remembered, and nothing drifts"
    turned = torch.cat((alike[:3], -20 * alike[:4]))
    found, *_ = moved(fit, turned, times, trigger="DRIFT_THRESHOLD", drift=0.5, threshold=3)
    assert found.updates.tolist() == [[1, 1, 1, 2, 2, 2, 2]]


def test_no_position_reads_what_was_remembered_later(view: View) -> None:
    fit = fitted(view, pretrain_retriever=1, epochs=1)
    torch.manual_seed(0)
    times = torch.arange(7)
    z = torch.randn(7, 8)
    kinds = ("INTERACTION_COUNT", "DRIFT_THRESHOLD", "TIME_BASED")
    for kind in kinds:
        reads = []
        for change in (0.0, 1.0):
            other = z.clone()
            other[4:] += change
            found, start, memory = moved(fit, other, times, trigger=kind, threshold=2, interval=2)
            there = memory.visible(found, start.filled)[0, :4]
            width = int(there.sum(1).max())
            assert width
            reads.append(torch.where(there[:, :width, None], found.states[0, :width], 0.0))
        assert torch.equal(*reads)


def test_a_window_reads_nothing_that_was_remembered_of_later(view: View) -> None:
    fit = fitted(view, pretrain_retriever=1, positions=1, retriever_dropout=0)
    model, store = model_of(fit).eval(), model_of(fit).retriever.store
    assert store is not None and model.retriever.memory is not None
    torch.nn.init.ones_(model.retriever.memory.gate)
    batch = fit.plans.training.epoch(1)[0] if fit.plans.training else None
    assert batch is not None and batch.users is not None
    times = batch.times

    def read(seen: int) -> Tensor:
        store.load({})
        one = torch.ones_like(batch.users)
        states = torch.ones(len(one), store.kept, 8)
        found = {name: one for name in ("filled", "interactions", "updated_at", "updated_time")}
        store.put(batch.users, Remembered(states, lately=states[:, 0], seen=one * seen, **found))
        asked, _ = model._ask(batch, sample=False)
        with torch.no_grad():
            return model.retriever(asked, model._still(), move=True)[0]

    store.load({})
    asked, _ = model._ask(batch, sample=False)
    with torch.no_grad():
        nothing = model.retriever(asked, model._still(), move=True)[0]
    assert torch.equal(read(int(times.max()) + 1), nothing)
    assert not torch.equal(read(int(times[:, 0].min())), nothing), "what is older is read"


def test_the_contract_is_kept_by_all_of_its_parts() -> None:
    given = NONE | {"pretrain_retriever": 1, "joint_finetune": 1, "fusion": "adaptive"}
    results = check_model("ur4rec", given | {"user_text": "none"}, without="choice")
    assert [f"{r.name}: {r.message}" for r in results if r.status == "failed"] == []


def test_every_choice_of_its_own_trains_or_is_refused(view: View) -> None:
    for param in UR4REC_PARAMS:
        for value in param.choices:
            try:
                fit = fitted(view, pretrain_retriever=1, **{param.name: value})
            except ParamError as error:
                assert param.name == "contexts" and "needs query candidate" in str(error)
                continue
            assert fit.epoch == 1


# -- stages -----------------------------------------------------------------------------------


def test_sasrec_alone_is_a_point_of_the_same_space(view: View) -> None:
    same = {"dim": 8, "blocks": 1, "batch_size": 16, "max_length": 6}
    plain = Fit("sasrec", same | {"n_epochs": 2}, view, seed=3)
    losses = [epoch.loss for epoch in plain.epochs()]
    alone = Fit("ur4rec", NONE | SMALL | {"pretrain_sasrec": 2}, view, seed=3)
    reports = list(alone.epochs())
    assert [report.loss for report in reports] == losses
    theirs = alone.model.state_dict()
    assert all(torch.equal(v, theirs[name]) for name, v in plain.model.state_dict().items())
    assert int(model_of(alone).ranked_by) == BY_SASREC


def test_stages_leave_what_they_do_not_train_and_joint_gives_steps_to_both(view: View) -> None:
    stages = {"pretrain_sasrec": 1, "pretrain_retriever": 1, "joint_finetune": 1, "end_to_end": 1}
    fit = Fit("ur4rec", NONE | SMALL | stages, view, seed=3)
    before, moved_by = _weights(fit.model), {}
    for epoch in fit.epochs():
        after = _weights(fit.model)
        changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
        moved_by[epoch.stage] = {name.split(".")[0] for name in changed}
        steps, before = epoch.extra.get("steps"), after
        if epoch.stage == "joint_finetune":
            assert steps["sasrec"] >= steps["retriever"] >= 1
            assert steps["sasrec"] + steps["retriever"] == fit.plans.steps_per_epoch
    sasrec = {"items", "positions", "blocks", "norm"}
    assert moved_by == {
        "pretrain_sasrec": sasrec,
        "pretrain_retriever": {"retriever"},
        "joint_finetune": sasrec | {"retriever"},
        "end_to_end": sasrec | {"retriever"},
    }


def _weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_the_two_parts_have_rates_of_their_own(view: View) -> None:
    rates = {"learning_rate": 0.002, "retriever_learning_rate": 0.0005, "end_to_end_rate": 0.5}
    fit = fitted(view, end_to_end=1, **rates)
    assert fit.optimiser is not None
    found = {
        round(group["lr"], 9): {fit.optimiser.names[id(p)].split(".")[0] for p in group["params"]}
        for group in fit.optimiser.adamw.param_groups
    }
    assert set(found) == {0.001, 0.00025} and found[0.00025] == {"retriever"}


def test_the_joint_stage_resumes_as_if_it_had_not_been_cut(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fit, "_next_range", lambda self, steps, took: 1)
    given = NONE | SMALL | {"joint_finetune": 2, "alternate": "loss", "fusion": "learned"}
    whole = Fit("ur4rec", given, view, seed=3)
    list(whole.epochs())
    cut = Fit("ur4rec", given, view, seed=3)
    cut.on_progress = lambda epoch, step, *_: cut.stop() if (epoch, step) >= (2, 2) else None
    list(cut.epochs())
    cut.save(tmp_path / "checkpoint")
    again = Fit("ur4rec", given, view, seed=3)
    again.resume(tmp_path / "checkpoint")
    list(again.epochs())
    theirs = again.model.state_dict()
    assert all(torch.equal(v, theirs[name]) for name, v in whole.model.state_dict().items())
    assert digest(again.model.memory()) == digest(whole.model.memory())


# -- ranking ----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["fused", "retriever", "sasrec"])
def test_ranking_is_what_rank_by_says(view: View, by: str) -> None:
    fit = fitted(view, pretrain_retriever=1, rank_by=by, fusion_weight=0.3)
    model = model_of(fit).eval()
    batch = queries(fit, view)[0]
    with torch.no_grad():
        found = model.score(batch)
        asked, _ = model._ask(batch, sample=False)
        r, _ = model.retriever(asked, model._still(), move=False)
        sasrec = asked.query @ model.items.weight.T
        table = model.retriever.table(model.items.weight)
    theirs = r @ table.T / 0.07
    torch.testing.assert_close(r.norm(dim=1), torch.ones(len(r)))
    fused = 0.3 * F.log_softmax(sasrec, 1) + 0.7 * F.log_softmax(theirs, 1)
    expected = {"fused": fused, "retriever": theirs, "sasrec": sasrec}[by]
    assert torch.equal(found.topk(5).indices, expected.topk(5).indices)


@pytest.mark.parametrize("contexts", ["history", "candidate"])
def test_candidates_are_the_first_of_sasrecs_and_the_rest_stay_in_order(
    view: View, contexts: str
) -> None:
    fit = fitted(view, pretrain_retriever=1, query="candidate", contexts=contexts, rerank=5)
    model = model_of(fit).eval()
    batch = queries(fit, view)[0]
    with torch.no_grad():
        order = model.score(batch).argsort(1, descending=True)
        sasrec = (model._ask(batch, sample=False)[0].query @ model.items.weight.T).argsort(
            1, descending=True
        )
    assert torch.equal(order[:, :5].sort(1).values, sasrec[:, :5].sort(1).values)
    assert not torch.equal(order[:, :5], sasrec[:, :5])
    assert torch.equal(order[:, 5:], sasrec[:, 5:])


def vectors(rows: Tensor, missing: Tensor) -> Table:
    """A table of one field of vectors."""
    field = Field("wish_vector", "vector", rows.shape[1])

    def read(index: Tensor) -> Tensor:
        return rows[index].half()

    return Table({field.name: field}, lambda of: Vectors(of.size, missing, read))


def test_a_users_text_is_read_and_who_has_none_is_told_apart(view: View) -> None:
    torch.manual_seed(5)
    about = catalogue(view)
    missing = torch.zeros(about.facts.n_users, dtype=torch.bool)
    missing[2] = True
    users = vectors(torch.randn(len(missing), 5), missing)
    items = about.items.only(("title_vector",))
    about = replace(about, users=users, items=items)
    params = full(user_text="wish_vector", rank_by="retriever")
    model = UR4Rec(params, about, 1).eval()
    model.ranked_by.fill_(RANKED_BY["retriever"])
    assert model.retriever.mixture.names == ["preference", "descriptions", "embeddings"]
    fit = fitted(view, pretrain_retriever=1, epochs=1)
    batch = queries(fit, view)[0].part(slice(0, 1), 1, torch.zeros(1, 1).long())

    def asked(*of: int) -> tuple[Tensor, Tensor]:
        same = torch.zeros(len(of), 1, dtype=torch.int64)
        one = replace(batch, items=same, targets=same, times=same, query_times=same)
        one = replace(one, lengths=torch.ones(len(of)).long(), users=torch.tensor(of))
        with torch.no_grad():
            found, _ = model._ask(one, sample=False)
            return model.retriever(found, model._still(), move=False)

    r, weights = asked(0, 1, 2, -1, 10_000)
    assert (weights[:, 0] > 0).tolist() == [True, True, True, False, False]
    assert len({tuple(row) for row in r.tolist()}) == 4, "both strangers are alike"
    torch.testing.assert_close(r[3], r[4])
    with torch.no_grad():
        wishes = model.retriever.wishes
        assert wishes is not None
        null = wishes.norm(wishes.null[0])
        torch.testing.assert_close(wishes.rows(torch.tensor([2]))[0], null)
        kept = model.worked_out()
    bare = replace(about, users=Table(users.fields, lambda of: Vectors(of.size, missing, None)))
    again = UR4Rec(params, bare, 1).eval()
    again.load_state_dict(model.state_dict())
    again.load_worked_out(kept)
    model = again
    torch.testing.assert_close(asked(0, 1, 2, -1, 10_000)[0], r)


# -- what cannot be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"retriever_heads": 3}, "dim 8 is not divisible by retriever_heads 3"),
        ({"retriever_experts": "words"}, "retriever_experts has 'words', and there are pref"),
        ({"contexts": "candidate"}, "contexts candidate needs query candidate, not user"),
        ({"query": "candidate", "end_to_end": 1}, "end_to_end needs query user"),
        ({"pretrain_retriever": 0}, "none of the stages pretrain_sasrec, pretrain_retriever"),
    ],
)
def test_what_does_not_fit_is_refused(given: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ParamError, match=message):
        full(**given)


def test_data_without_texts_or_users_are_refused_in_a_sentence(tmp_path: Path) -> None:
    bare = open_dataset(made_up_data(tmp_path / "bare", sessions=30)).view("search")
    about = facts(bare)
    with pytest.raises(ParamError, match="a memory is of users, and the data don't say whose"):
        registry.complete_params("ur4rec", {}, about)
    with pytest.raises(DataError, match="the items' feature 'title_vector', which the data lack"):
        registry.complete_params("ur4rec", {"memory_users": 0}, about)
    registry.complete_params("ur4rec", {"memory_users": 0, "item_text": "none"}, about)
