"""The model of long and short parts: its pieces against arithmetic, its floors against a dict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.parts.contract import SequenceBatch
from models.parts.long_short.bags import counted, hashed, idf
from models.parts.long_short.events import time_numbers
from models.parts.long_short.retrieval import TOP, Wanted, nearest, own_ranks, rank_metrics
from models.parts.long_short.stretches import PART, Histories, Stretches, tokens_of
from models.parts.long_short.tower import full_attention
from models.parts.transformer.unpadding import Unpadding
from paropt.data.dataset import View, open_dataset
from paropt.data.encoding import stranger_numbers
from paropt.errors import DataError, ParamError
from paropt.training.batches.catalogue import catalogue
from paropt.training.batches.events import known_events
from paropt.training.batches.plans import evaluation
from paropt.training.evaluation.baselines.beside import floors_of
from paropt.training.evaluation.ranking.judging import evaluate
from paropt.training.fitting.fit import Fit
from paropt.training.made_up import made_up_data
from paropt.training.registry import Model, Needs, build, model_class

NEEDS = Needs(
    columns={PART: (), "category": (), "behaviour": ()}, items={"category": ("category",)}
)
SMALL = {"dim": 8, "head_dim": 4, "out_dim": 8, "item_dim": 4, "experts": 0, "bag_dim": 512}
MINUTE = 60_000


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    """Walks along a ring of items; a fifth of the users are tested on."""
    path = made_up_data(tmp_path_factory.mktemp("long-short") / "data", sessions=120, needs=NEEDS)
    return open_dataset(path).view("search")


def batches_of(view: View) -> Sequence[SequenceBatch]:
    needs = model_class("long_short").needs(build("long_short", SMALL, catalogue(view), 1).params)
    return evaluation(view.test, view.n_items, None, 64, needs=needs)


# -- pieces -----------------------------------------------------------------------------------


def batch(parts: str, items: Sequence[int]) -> SequenceBatch:
    """One user whose events are a minute apart; the last is what is asked for."""
    codes = torch.tensor([["LS".index(letter) for letter in parts]])
    numbers, times = torch.tensor([items]), torch.arange(len(parts))[None] * MINUTE
    asked = torch.full_like(numbers[:, 1:], -1)
    asked[:, -1] = numbers[:, -1]
    return SequenceBatch(
        numbers[:, :-1],
        asked,
        times[:, :-1],
        times[:, 1:],
        torch.tensor([len(parts) - 1]),
        columns={PART: codes[:, :-1]},
        wanted={PART: codes[:, 1:]},
    )


def test_a_history_is_cut_where_its_part_changes() -> None:
    histories = Histories.whole(batch("LLLLSS", [5, 6, 7, 8, 9, 4]))
    assert histories.items.tolist() == [[5, 6, 7, 8, 9, 4]]
    long, short = histories.parts()
    assert tokens_of(histories, long.latest(3)).items.tolist() == [6, 7, 8]
    after = tokens_of(histories, short)
    assert after.items.tolist() == [9, 4] and after.times.tolist() == [4 * MINUTE, 5 * MINUTE]


def test_numbers_of_time_are_of_the_part_alone() -> None:
    """Three events a minute apart: log(61)/10 since the last, log(121)/10 and log(61)/10 to go."""
    histories = Histories.whole(batch("LLLSS", [1, 2, 3, 4, 5]))
    minute, two = math.log(61) / 10, math.log(121) / 10
    expected = [[0, two, 0, 1], [minute, minute, 0.5, 0.5], [minute, 0, 1, 0]]
    numbers = time_numbers(tokens_of(histories, histories.parts()[0]))
    torch.testing.assert_close(numbers, torch.tensor(expected))


def test_stretches_come_back_in_the_order_asked_for() -> None:
    histories = Histories.of_inputs(batch("LLLLLL", [1, 2, 3, 4, 5, 6]))
    asked = Stretches(
        torch.zeros(3, dtype=torch.long), torch.tensor([0, 0, 2]), torch.tensor([1, 4, 2])
    )
    tokens = tokens_of(histories, asked)
    first = torch.zeros(3, dtype=torch.long).index_put(
        (tokens.row[tokens.position == 0],), tokens.items[tokens.position == 0]
    )
    assert first[tokens.back].tolist() == [1, 1, 3]
    assert tokens.layout.lengths.tolist() == [4, 2, 1]


def test_attention_sees_its_row_and_no_padding() -> None:
    torch.manual_seed(3)
    lengths = torch.tensor([5, 3, 1])
    layout = Unpadding(lengths, 5)
    q, k, v = (torch.randn(9, 8) for _ in range(3))
    found = full_attention(q, k, v, layout, heads=2)
    begin = 0
    for length in lengths.tolist():
        rows = slice(begin, begin + length)
        begin += length
        alone = [x[rows].view(length, 2, 4).transpose(0, 1) for x in (q, k, v)]
        weights = (alone[0] @ alone[1].transpose(1, 2) / 2).softmax(-1)
        expected = (weights @ alone[2]).transpose(0, 1).reshape(length, 8)
        torch.testing.assert_close(found[rows], expected)


def test_events_of_a_code_weigh_its_logarithm_together() -> None:
    codes, rows = torch.tensor([4, 4, 9, 4, -1]), torch.tensor([0, 0, 0, 1, 1])
    two = math.log(3) / 2
    expected = [two, two, math.log(2), math.log(2), math.log(2)]
    torch.testing.assert_close(counted(codes, rows), torch.tensor(expected))
    weights = idf(torch.tensor([9, 0]), 2, 9)
    torch.testing.assert_close(weights, torch.tensor([1.0, 1 + math.log(10), 1 + math.log(10)]))


def test_products_of_sketches_are_those_of_bags() -> None:
    """Of 400 items each, a quarter shared: the cosine .25, give or take a few of 1/√4096."""
    numbers = torch.arange(700) * 37
    places, signs = hashed(numbers, 4096)
    table = torch.zeros(700, 4096).scatter_add(1, places, signs / 2)
    one, two = table[:400].sum(0), table[300:].sum(0)
    cosine = float(torch.nn.functional.cosine_similarity(one, two, dim=0))
    assert abs(cosine - 0.25) < 5 / 64
    assert places.max() < 4096 and abs(float(signs.mean())) < 0.1


def test_a_rank_counts_better_ones_and_half_of_equal_ones() -> None:
    scores = torch.tensor([[3.0, 9, 1, 3], [0, 0, 0, 0], [5, 4, 6, 7], [1, 2, 3, 4]])
    ranks = own_ranks(lambda some: scores[some], 4)
    assert ranks.tolist() == [2.5, 2.5, 2.0, 1.0]
    found = {
        name: float(torch.as_tensor(value).mean()) for name, value in rank_metrics(ranks).items()
    }
    assert found == {"mrr": pytest.approx((0.4 + 0.4 + 0.5 + 1) / 4), "hr@1": 0.25, "hr@10": 1.0}


def test_the_nearest_codes_are_those_of_a_full_sort() -> None:
    torch.manual_seed(1)
    vectors, table = torch.randn(7, 5), torch.randn(91, 5)
    best = nearest(vectors, lambda some: table[some], 91, chunk=13)
    assert torch.equal(best, (vectors @ table.T).topk(TOP, 1).indices)
    wanted = Wanted(
        torch.tensor([0, 0, 1, 2]), torch.tensor([int(best[0, 3]), -1, 95, int(best[2, 19])])
    )
    assert (
        wanted.known(91).hits(best) == 1.0
        and Wanted(*torch.zeros(2, 0, dtype=torch.long)).hits(best) is None
    )


# -- the model on data ------------------------------------------------------------------------


def plain_floor(view: View, column: str | None) -> float:
    """MRR by TF-IDF in dicts, user by user."""
    train = view.train
    codes = train.items if column is None else train.columns[column]
    holders = Counter(
        code
        for s in range(train.n_sessions)
        for code in set(codes[train.offsets[s] : train.offsets[s + 1]].tolist())
    )
    weight = {code: math.log((1 + train.n_sessions) / (1 + n)) + 1 for code, n in holders.items()}
    unknown = math.log(1 + train.n_sessions) + 1
    test, bags = view.test, []
    of_test = test.items if column is None else test.columns[column]
    for s in range(test.n_sessions):
        at = slice(test.offsets[s], test.offsets[s + 1])
        pairs = list(zip(test.columns[PART][at].tolist(), of_test[at].tolist(), strict=True))
        sides = [Counter(code for part, code in pairs if part == side) for side in (0, 1)]
        bags.append(
            [{c: math.log1p(n) * weight.get(c, unknown) for c, n in side.items()} for side in sides]
        )

    def cosine(one: dict[int, float], two: dict[int, float]) -> float:
        product = sum(value * two.get(code, 0) for code, value in one.items())
        lengths = [math.sqrt(sum(v * v for v in bag.values())) for bag in (one, two)]
        return product / (lengths[0] * lengths[1])

    total = 0.0
    for user, (long, _) in enumerate(bags):
        scores = [round(cosine(long, short), 5) for _, short in bags]
        own = scores[user]
        ties = sum(score == own for score in scores) - 1
        total += 1 / (1 + sum(score > own for score in scores) + ties / 2)
    return total / len(bags)


def test_floors_are_what_dicts_make_of_them(view: View) -> None:
    found = floors_of(["long_short"], view)
    assert list(found) == [
        "TF-IDF of items",
        "TF-IDF of categories",
        "TF-IDF of both",
        "popularity",
    ]
    for name, column in (("items", None), ("categories", "category")):
        assert found[f"TF-IDF of {name}"]["mrr"] == pytest.approx(
            plain_floor(view, column), abs=0.03
        )
    support = Counter(view.train.items.tolist())
    popular = {item for item, _ in support.most_common(TOP)}
    short = view.test.items[view.test.columns[PART] == 1]
    known = short[short < view.n_items]
    share = sum(item in popular for item in known.tolist()) / len(known)
    assert found["popularity"]["next_item_hr@20"] == pytest.approx(share, abs=0.02)
    assert "mrr" not in found["popularity"]


def test_the_model_begins_as_its_floor(view: View) -> None:
    """With a bag as wide as can be and no say of the tower, ranks are those of TF-IDF."""
    params = {**SMALL, "bag_dim": 65536, "bag_category_share": 0, "tower_share": 0}
    model = build("long_short", params | {"next_items": False}, catalogue(view), 1)
    began = evaluate(model, view.test, view.n_items).metrics["mrr"]
    assert began == pytest.approx(
        floors_of(["long_short"], view)["TF-IDF of items"]["mrr"], abs=0.05
    )


def trained(view: View, **params: object) -> Fit:
    fit = Fit("long_short", {**SMALL, "n_epochs": 2, "batch_size": 32, **params}, view, seed=1)
    list(fit.epochs())
    return fit


def test_users_and_epochs_say_what_was_judged(view: View) -> None:
    fit = trained(view, experts=4)
    report = fit.best_report
    assert report is not None and fit.judged is not None
    assert len(fit.judged.values["mrr"]) == view.test.n_sessions
    assert set(report.stderr) == {"mrr", "hr@1", "hr@10"}
    assert {"next_item_hr@20", "next_category_hr@20"} < set(report.metrics)
    (long, short) = report.extra["experts"]
    assert sum(long["load"]) == pytest.approx(1, abs=1e-4) and "dead" in short


@pytest.mark.parametrize(
    "params",
    [
        {"towers": "shared", "pool": "mean", "loss": "bpr", "negatives": 3},
        {"moe_place": "before", "experts": 4, "balance": "epoch_div", "depth": 2},
        {"bag": False, "category": False, "behaviour": False, "rotary": "none"},
        {"depth": 0, "bag_learned": True, "bag_category_dim": 8},
    ],
    ids=["shared", "before", "towers-alone", "no-blocks"],
)
def test_forms_learn(view: View, params: dict[str, object]) -> None:
    model = trained(view, n_epochs=1, **params).model
    for shown in batches_of(view):
        vectors = model.user_vectors(shown)
        assert vectors.shape[0] == len(shown.lengths)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))


def test_a_user_is_what_encode_gives_at_the_end(view: View) -> None:
    model = build("long_short", SMALL, catalogue(view), 1).eval()
    shown = batches_of(view)[0]
    at_end = torch.full_like(shown.targets, -1)
    at_end[torch.arange(len(at_end)), shown.lengths - 1] = 0
    asked = replace(shown, targets=at_end)
    torch.testing.assert_close(model.encode(asked), model.user_vectors(shown))


def test_unknown_items_keep_a_number_of_their_own(view: View) -> None:
    few = 9  # as if training had seen so many
    kept = known_events(view.test, few, Needs(unknown_items=True))
    assert len(kept.items) == view.test.n_events and kept.unknown == 0
    ids = view.dataset.item_ids()
    for index in (9, 15):
        numbers = set(kept.items[view.test.items == index].tolist())
        assert numbers == {int(stranger_numbers([ids[index]], few)[0])} and min(numbers) >= few
    assert len(known_events(view.test, few).items) < view.test.n_events


def test_what_cannot_be_is_refused(view: View, tmp_path: Path) -> None:
    def said(**params: object) -> str:
        with pytest.raises(ParamError) as error:
            Fit("long_short", {**SMALL, **params}, view, seed=1)
        return str(error.value)

    assert "top_k 5 is above experts 4" in said(experts=4, top_k=5)
    assert "head_dim 3 must be even" in said(head_dim=3)
    plain = open_dataset(made_up_data(tmp_path / "plain", sessions=60)).view("search")
    with pytest.raises(DataError, match="'part', which the data lack"):
        Fit("long_short", SMALL, plain, seed=1)


def _model(view: View) -> Model:
    return build("long_short", SMALL, catalogue(view), 1)


def test_nobody_without_both_parts_is_judged(view: View) -> None:
    shown: list[SequenceBatch] = list(batches_of(view))
    unknown: dict[str, Tensor] = {PART: torch.full_like(shown[0].items, -1)}
    nobody = replace(
        shown[0],
        columns={**shown[0].columns, **unknown},
        wanted={**shown[0].wanted, **unknown},
    )
    with pytest.raises(ValueError, match="prepare the data with --protocol long-short"):
        _model(view).evaluate([nobody])
