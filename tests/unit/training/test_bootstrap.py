"""Rank tables and their intervals against arithmetic."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest

from paropt.training.evaluation import bootstrap
from paropt.training.evaluation.bootstrap import Sample, Table, metrics, pack, rank_table, unpack
from paropt.training.evaluation.ranking.judging import metrics_of
from paropt.training.metrics import names_at

AT = (1, 5, 20)


def intervals(table: Table, at: Sequence[int]) -> dict[str, tuple[float, float]]:
    return Sample.of_ranks(table, names_at(at)).intervals()


def differences(
    table: Table, other: Table, at: Sequence[int]
) -> dict[str, tuple[float, float, float]]:
    names = names_at(at)
    return Sample.of_ranks(table, names).above(Sample.of_ranks(other, names))


def some_ranks(targets: int, seed: int = 1) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).integers(1, 60, targets).astype(np.float64)


@pytest.mark.parametrize("n_sessions", [7, 1000, 5000])
def test_a_table_has_the_metrics_of_its_ranks(n_sessions: int) -> None:
    ranks = some_ranks(9000)
    sessions = np.random.default_rng(2).integers(0, n_sessions, 9000)
    table = rank_table(ranks, sessions, n_sessions, 20)
    assert table.shape == (min(n_sessions, 1000), 21)
    assert metrics(table, AT) == pytest.approx(metrics_of(ranks, AT), abs=1e-14)
    assert (unpack(pack(table)) == table).all()


def test_up_to_a_thousand_sessions_each_is_its_own_group() -> None:
    table = rank_table(np.array([1.0, 3.0, 99.0]), np.array([0, 2, 2]), 4, 5)
    assert table.tolist() == [
        [1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 1],
        [0, 0, 0, 0, 0, 0],
    ]


def test_a_session_stays_together_in_its_group_and_groups_are_even() -> None:
    sessions = np.arange(50_000)
    groups = bootstrap.groups_of(sessions, 50_000)
    assert (groups == bootstrap.groups_of(sessions, 60_000)).all()
    sizes = np.bincount(groups, minlength=1000)
    assert len(sizes) == 1000
    # a binomial count around 50 with a standard deviation of 7
    assert sizes.mean() == 50 and 6 < sizes.std() < 8.2
    # not a function of the time of day: neighbours do not share a group more often than others
    assert (groups[1:] == groups[:-1]).mean() < 0.003


def test_intervals_cover_as_the_normal_approximation_says() -> None:
    """Recall of one target per session is a proportion: its interval is ±1.96 √(p(1-p)/n)."""
    n = 900
    ranks = np.where(np.arange(n) < 300, 1.0, 50.0)
    table = rank_table(ranks, np.arange(n), n, 20)
    low, high = intervals(table, [20])["recall@20"]
    half = 1.96 * math.sqrt((1 / 3) * (2 / 3) / n)
    assert low == pytest.approx(1 / 3 - half, abs=0.002)
    assert high == pytest.approx(1 / 3 + half, abs=0.002)


def test_sessions_are_drawn_and_not_targets() -> None:
    """Ten equal targets per session say no more than one: the interval is as wide."""
    n = 400
    ranks = np.where(np.arange(n) < 100, 1.0, 50.0)
    once = intervals(rank_table(ranks, np.arange(n), n, 20), [20])
    tens = rank_table(np.repeat(ranks, 10), np.repeat(np.arange(n), 10), n, 20)
    assert intervals(tens, [20])["mrr@20"] == pytest.approx(once["mrr@20"], abs=1e-12)


def test_hashed_groups_give_the_same_interval_as_sessions() -> None:
    n = 20_000
    ranks = np.where(np.arange(n) < 5000, 1.0, 50.0)
    low, high = intervals(rank_table(ranks, np.arange(n), n, 20), [20])["recall@20"]
    exact = 2 * 1.96 * math.sqrt(0.25 * 0.75 / n)
    assert high - low == pytest.approx(exact, rel=0.1)  # groups estimate the variance to ~2 %


def test_differences_are_paired() -> None:
    """Two models that agree on all but four sessions differ by these, however hard the rest is."""
    n = 500
    theirs = some_ranks(n)
    ours = theirs.copy()
    theirs[:4], ours[:4] = 50, 1
    a, b = (rank_table(ranks, np.arange(n), n, 20) for ranks in (ours, theirs))
    value, low, high = differences(a, b, [20])["recall@20"]
    assert value == pytest.approx(4 / n, abs=1e-12)
    # a count of mean 4: between 1 and 8 or 9 in 95 % of draws; unpaired it were ±30
    assert 0 <= low <= 1.5 / n
    assert 7.5 / n <= high <= 10 / n
    same = differences(a, a, [20])
    assert set(same.values()) == {(0.0, 0.0, 0.0)}


def test_the_mean_over_seeds_has_the_mean_of_the_metrics() -> None:
    one, two = (rank_table(some_ranks(300, s), np.arange(300), 300, 20) for s in (1, 2))
    both = metrics((one + two) / 2, AT)
    for name in both:
        assert both[name] == pytest.approx((metrics(one, AT)[name] + metrics(two, AT)[name]) / 2)


def test_a_sample_of_values_has_their_means_and_survives_json() -> None:
    values = {"hit": np.array([1.0, 0.0, 1.0, 1.0]), "rank": np.array([1.0, 9.0, 2.0, 3.0])}
    sample = Sample.of_values(values, np.array([0, 0, 2, 2]), 3)
    assert sample.values == {"hit": 0.75, "rank": 15 / 4}
    assert sample.sums.tolist() == [[1.0, 10.0], [0.0, 0.0], [2.0, 5.0]]
    assert sample.counts.tolist() == [2.0, 0.0, 2.0]
    again = Sample.from_json(json.loads(json.dumps(sample.to_json())))
    assert again.names == sample.names and (again.sums == sample.sums).all()
    assert again.intervals() == sample.intervals()
    thrice = {name: 3 * of for name, of in values.items()}
    mean = Sample.mean([sample, Sample.of_values(thrice, np.array([0, 0, 2, 2]), 3)])
    assert mean.values == {"hit": 1.5, "rank": 7.5}


def test_a_sample_of_values_is_that_of_ranks_where_they_say_the_same() -> None:
    ranks, sessions = some_ranks(3000), np.random.default_rng(2).integers(0, 400, 3000)
    of_ranks = Sample.of_ranks(rank_table(ranks, sessions, 400, 20), ["mrr@20"])
    value = np.where(ranks <= 20, 1 / ranks, 0.0)
    of_values = Sample.of_values({"mrr@20": value}, sessions, 400)
    assert of_values.intervals()["mrr@20"] == pytest.approx(of_ranks.intervals()["mrr@20"])
    other = Sample.of_values({"mrr@20": value}, np.arange(3000), 3000)
    assert other.above(of_ranks) == {}, "of other groups, so that nothing can be paired"
