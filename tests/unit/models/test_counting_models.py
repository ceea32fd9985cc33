"""Counting models: scores against arithmetic by hand, ranked and recommended like any other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.item_knn import ItemKnn
from models.markov import Markov
from models.parts.contract import (
    Catalogue,
    Facts,
    Model,
    Param,
    SequenceBatch,
    TrainingEvents,
)
from models.parts.counting import Pairs, decay, strongest
from models.session_knn import SessionKnn
from paropt.data.dataset import open_dataset
from paropt.errors import ModelError
from paropt.training.batches.events import Events
from paropt.training.batches.plans import query_batches
from paropt.training.evaluation.ranking import judging
from paropt.training.fitting.fit import Fit
from paropt.training.made_up import made_up_data
from paropt.training.recommending.new_sessions import read_sessions, recommend
from paropt.training.saved_model.saved import load_model, save_model

# four sessions of five items; the time of each is its number
SESSIONS = [[0, 1, 2], [1, 2, 0], [0, 3], [1, 3, 4]]
SUPPORT = [3, 3, 2, 2, 1]  # events of each item
GRADES = [2, 2, 1, 1, 0]  # of the distinct supports 1, 2, 3
POPULARITY = [grade / 3 for grade in GRADES]


def counted(model: type[Model], **given: Any) -> Model:
    params = {param.name: param.default for param in model.PARAMS} | given
    facts = Facts(5, 4, 11, 3, has_times=True)
    built = model(params, Catalogue(facts, torch.tensor(SUPPORT)), seed=1)
    sizes = [len(session) for session in SESSIONS]
    built.count(
        TrainingEvents(
            items=torch.tensor([item for session in SESSIONS for item in session]),
            times=torch.arange(4).repeat_interleave(torch.tensor(sizes)),
            offsets=torch.tensor([0, *np.cumsum(sizes).tolist()]),
        )
    )
    return built.eval()


def asked(*prefixes: list[int]) -> SequenceBatch:
    """What comes after each prefix, and after nothing before its end; longest first."""
    longest = len(prefixes[0])
    items = torch.zeros(len(prefixes), longest).long()
    targets = torch.full_like(items, -1)
    for row, prefix in enumerate(prefixes):
        items[row, : len(prefix)] = torch.tensor(prefix)
        targets[row, len(prefix) - 1] = 0
    lengths = torch.tensor([len(prefix) for prefix in prefixes])
    return SequenceBatch(items, targets, torch.zeros_like(items), torch.zeros_like(items), lengths)


def in_order(votes: list[float]) -> Tensor:
    """As scores: votes first, the rest by popularity."""
    scores = [
        vote * (1 + 1e-4 * popular) if vote else popular - 1
        for vote, popular in zip(votes, POPULARITY, strict=True)
    ]
    return torch.tensor(scores)


def test_first_order_chain_counts_successors() -> None:
    model = counted(Markov, steps=1)
    # after 1 came 2, 2 and 3; after 0 came 1 and 3
    scores = model.score(asked([0, 1], [0]))
    torch.testing.assert_close(scores[0], in_order([0, 0, 2, 1, 0]))
    torch.testing.assert_close(scores[1], in_order([0, 1, 0, 1, 0]))


def test_rules_decay_by_distance_and_items_by_age() -> None:
    model = counted(Markov, steps=2, decay="harmonic", item_decay="quadratic", normalise=1.0)
    # 0 → 1: 1, 0 → 2: 1/2, 0 → 3: 1 (of 3 events); 1 → 2: 2, 1 → 0: 1/2, 1 → 3: 1, 1 → 4: 1/2
    after_0 = [0, 1 / 3, 1 / 6, 1 / 3, 0]
    after_1 = [1 / 6, 0, 2 / 3, 1 / 3, 1 / 6]
    votes = [last + before / 4 for last, before in zip(after_1, after_0, strict=True)]
    torch.testing.assert_close(model.score(asked([0, 1]))[0], in_order(votes))


def test_old_sessions_count_less() -> None:
    model = counted(Markov, steps=1, age_decay=3.0)
    # 0 → 1 in the first of four sessions (age 1), 0 → 3 in the third (age 1/3)
    votes = [0, math.exp(-3), 0, math.exp(-1), 0]
    torch.testing.assert_close(model.score(asked([0]))[0], in_order(votes))


def test_the_heaviest_rules_are_kept() -> None:
    model = counted(Markov, steps=1, rules=1)
    torch.testing.assert_close(model.score(asked([1]))[0], in_order([0, 0, 2, 0, 0]))


def test_item_knn_is_a_shrunken_cosine() -> None:
    model = counted(ItemKnn, shrink=2.0, item_decay="none")
    # item 2 is in two sessions, both with 0 and 1, which are in three each
    cosine = 2 / (math.sqrt(2 * 3) + 2)
    torch.testing.assert_close(model.score(asked([2]))[0], in_order([cosine, cosine, 0, 0, 0]))


def test_vsknn_weighs_the_prefix_linearly_and_sums_similar_sessions() -> None:
    model = counted(SessionKnn, item_decay="linear", similarity="dot", votes="same")
    # of [0, 1] item 0 has weight 1/2, 1 has 1: the sessions' similarities are 3/2, 3/2, 1/2 and 1
    votes = [3.5, 4.0, 3.0, 1.5, 1.0]
    torch.testing.assert_close(model.score(asked([0, 1]))[0], in_order(votes))


def test_stan_decays_three_ways() -> None:
    model = counted(
        SessionKnn,
        item_decay="exponential",
        item_tau=2.0,
        similarity="cosine",
        age_decay=0.6,
        votes="distance",
        vote_tau=0.5,
    )
    # of [0, 3]: item 3 weighs 1, item 0 e^(−1/2); ages of the sessions are 1, 2/3, 1/3 and 0
    old = math.exp(-1 / 2)
    ages = [math.exp(-0.6 * age) for age in (1, 2 / 3, 1 / 3, 0)]
    similar = [
        old / math.sqrt(2 * 3) * ages[0],
        old / math.sqrt(2 * 3) * ages[1],
        (1 + old) / math.sqrt(2 * 2) * ages[2],
        1 / math.sqrt(2 * 3) * ages[3],
    ]
    near = [1, math.exp(-2), math.exp(-4)]  # by the distance from the item that was seen last
    votes = [0.0] * 5
    for session, anchor, weight in zip(SESSIONS, (0, 2, 1, 1), similar, strict=True):
        for place, item in enumerate(session):
            votes[item] += weight * near[abs(place - anchor)]
    torch.testing.assert_close(model.score(asked([0, 3]))[0], in_order(votes))


def test_neighbours_are_the_most_similar_of_the_latest() -> None:
    # item 0 is in the sessions 0, 1 and 2: of the latest two both are equally similar
    one = counted(SessionKnn, neighbours=1, sample=2)
    torch.testing.assert_close(one.score(asked([0]))[0], in_order([1, 0, 0, 1, 0]))
    # [1, 2, 0] shares two items with [0, 1], later than [0, 1, 2]
    both = counted(SessionKnn, neighbours=1, sample=2, item_decay="same")
    torch.testing.assert_close(both.score(asked([0, 2]))[0], in_order([2, 2, 2, 0, 0]))


def test_rare_items_weigh_more_by_idf() -> None:
    model = counted(SessionKnn, idf=2.0)
    # of the four sessions 3 is in two and 4 in one; the last session alone has both
    rare = [1 + 2 * math.log(4 / held) for held in (3, 3, 2, 2, 1)]
    votes = [0, rare[1], 0, rare[3], rare[4]]
    torch.testing.assert_close(model.score(asked([4]))[0], in_order(votes))


@pytest.mark.parametrize("model", [Markov, ItemKnn, SessionKnn])
def test_scores_do_not_depend_on_what_is_asked_together(model: type[Model]) -> None:
    built = counted(model)
    batch = asked([0, 1, 3], [2, 4], [1])
    together = built.score(batch)
    for row, prefix in enumerate(([0, 1, 3], [2, 4], [1])):
        assert torch.equal(built.score(asked(prefix))[0], together[row])
    parts = [built.score(part) for part in batch.parts(2)]
    assert [len(part) for part in parts] == [2, 1]
    assert torch.equal(torch.cat(parts), together)


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("same", [1, 1, 1]),
        ("linear", [1, 3 / 4, 2 / 4]),
        ("harmonic", [1, 1 / 2, 1 / 3]),
        ("quadratic", [1, 1 / 4, 1 / 9]),
        ("logarithmic", [1, 1 / math.log2(3), 1 / 2]),
        ("exponential", [1, math.exp(-1 / 5), math.exp(-2 / 5)]),
    ],
)
def test_decays(kind: str, weights: list[float]) -> None:
    found = decay(kind, torch.arange(3), 4, tau=5.0)
    torch.testing.assert_close(found, torch.tensor(weights).float())


def test_pairs_are_summed_in_any_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.parts.counting.AT_ONCE", 3)
    pairs = Pairs(4, torch.device("cpu"))
    for first, second, weight in [([3, 0], [1, 2], [1, 2]), ([3, 3], [1, 0], [4, 5])]:
        pairs.add(torch.tensor(first), torch.tensor(second), torch.tensor(weight))
    found = [part.tolist() for part in pairs.summed()]
    assert found == [[0, 3, 3], [2, 0, 1], [2.0, 5.0, 5.0]]
    rows, weights = torch.tensor([0, 3, 3]), torch.tensor([2.0, 4.0, 5.0])
    assert strongest(rows, weights, 1).tolist() == [0, 2]


# -- models that score by themselves, in paropt's hands ------------------------------------------


class Fixed(Model):
    """Scores that are written down."""

    PARAMS = (Param("wide", "bool", False, "one item too many"),)
    PLAN = "counting"
    SCORES = torch.tensor([[0.1, 0.9, 0.5, 0.5], [0.3, 0.2, 0.2, 0.8]])

    def count(self, events: TrainingEvents) -> None:
        pass

    def score(self, batch: SequenceBatch) -> Tensor:
        last = batch.items[batch.targets >= 0]
        return self.SCORES[last % 2, : 3 if self.params["wide"] else None].clone()


def fixed(**params: Any) -> Fixed:
    facts = Facts(4, 1, 4, 4, has_times=True)
    return Fixed({"wide": False, **params}, Catalogue(facts, torch.ones(4)), 1).eval()


def events_of(items: list[int]) -> Events:
    n = len(items)
    flags = np.arange(n) > 0
    return Events(np.array(items, np.int32), np.arange(n), flags, np.array([0, n]), 0)


@pytest.mark.parametrize(
    ("ties", "filter_seen", "ranks"),
    [
        # after 0 comes 2 (two items of score .5), after 2 comes 1, after 1 comes 2 (two of .2)
        ("standard", False, [2, 1, 3]),
        ("conservative", False, [3, 1, 4]),
        ("median", False, [2.5, 1, 3.5]),
        # without the history, but for the target itself: {0}, {0, 2} and {0, 2, 1}
        ("standard", True, [2, 1, 2]),
        ("conservative", True, [3, 1, 2]),
    ],
)
def test_written_scores_are_ranked(ties: Any, filter_seen: bool, ranks: list[float]) -> None:
    batches = query_batches(events_of([0, 2, 1, 2]), None, 8)
    found = judging.judge(fixed(), batches, at=(20,), ties=ties, filter_seen=filter_seen)
    assert found.ranks.tolist() == ranks
    assert found.metrics["mrr@20"] == pytest.approx(np.mean(1 / np.array(ranks)))


def test_scores_of_another_shape_are_refused() -> None:
    batches = query_batches(events_of([0, 2, 1, 2]), None, 8)
    with pytest.raises(ModelError, match=r"Fixed.score\(\) gave \(3, 3\) scores, not \(3, 4\)"):
        judging.judge(fixed(wide=True), batches, at=(20,), ties="standard", filter_seen=False)


def test_a_fit_of_a_counting_model_has_one_epoch_without_a_loss(tmp_path: Path) -> None:
    view = open_dataset(made_up_data(tmp_path / "data")).view("search")
    fit = Fit("markov", {"steps": 1}, view, seed=1, epochs=7)
    (epoch,) = fit.epochs()
    assert epoch.loss is None and epoch.metrics["mrr@20"] > 0.5 and fit.finished
    save_model(tmp_path / "saved", fit)
    saved = load_model(tmp_path / "saved")
    assert torch.equal(saved.model.get_buffer("weights"), fit.model.get_buffer("weights"))
    ids = [str(item) for item in saved.item_ids]
    file = tmp_path / "sessions.tsv"
    file.write_text(f"SessionId\tItemId\tTime\nnew\t{ids[0]}\t1700000000\n")
    (found,) = recommend(saved, read_sessions(file, saved), top=len(ids))
    with torch.no_grad():
        scores = fit.model.score(asked([0]))[0]
    assert found.scores == sorted(scores.tolist(), reverse=True)
    (unseen,) = recommend(saved, read_sessions(file, saved), top=99, filter_seen=True)
    assert ids[0] not in unseen.items and len(unseen.items) == len(ids) - 1
