"""Pruners against arithmetic on short curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from paropt.errors import StudyError
from paropt.search.strategy.pruning import STILL, complete_pruner, reason_to_prune, stands_still
from paropt.search.strategy.sampling import complete_sampler
from paropt.training.evaluation.objective import Objective

MEDIAN = {"name": "median", "startup": 3, "warmup": 2}
ASHA = {"name": "asha", "startup": 0, "min_epochs": 1, "factor": 3}


def median(curve: list[Any], ended: list[Any], running: Sequence[Any] = ()) -> str | None:
    return reason_to_prune(MEDIAN, curve, ended, running)


def test_median_compares_the_best_so_far_at_the_same_epoch() -> None:
    # bests after 2 epochs: 0.2, 0.3, 0.5; the third epoch's 0.9 must not count
    ended = [[0.1, 0.2, 0.9], [0.3, 0.1, 0.9], [0.5, 0.5, 0.9]]
    assert (
        median([0.1, 0.29], ended) == "0.2900 after epoch 2 is below the median 0.3000 of 3 trials"
    )
    assert median([0.1, 0.3], ended) is None
    assert median([0.3, 0.1], ended) is None


def test_median_waits_for_warm_up_and_for_enough_trials() -> None:
    ended = [[0.5, 0.5]] * 3
    assert median([0.1], ended) is None
    assert median([0.1, 0.1], ended[:2]) is None
    assert median([0.1, 0.1], ended)


def test_pruned_trials_stay_in_the_median_with_what_they_had() -> None:
    # without the two that were pruned at 0.1 the median would be 0.6 and prune this one
    ended = [[0.1, 0.1], [0.1, 0.1], [0.5, 0.5, 0.6], [0.5, 0.5, 0.6]]
    assert median([0.2, 0.3, 0.4], ended) is None  # median of 0.1, 0.1, 0.6, 0.6 is 0.35
    assert median([0.2, 0.3, 0.3], ended) is not None


def test_where_less_is_more_the_worse_is_above() -> None:
    rank = Objective("avg_rank", "minimize")
    ended = [[90.0, 80.0], [70.0, 75.0], [50.0, 55.0]]  # bests after 2 epochs: 80, 70, 50
    told = reason_to_prune(MEDIAN, [99.0, 71.0], ended, (), 4, rank)
    assert told == "71.0000 after epoch 2 is above the median 70.0000 of 3 trials"
    assert reason_to_prune(MEDIAN, [99.0, 69.0], ended, (), 4, rank) is None
    told = reason_to_prune(ASHA, [60.0], [[90.0], [70.0], [50.0]], (), 4, rank)
    assert told == "60.0000 after epoch 1 is not among the best 1 of 4 trials"
    assert reason_to_prune(ASHA, [40.0], [[90.0], [70.0], [50.0]], (), 4, rank) is None


def test_running_trials_count_once_they_have_warmed_up() -> None:
    ended = [[0.1, 0.1], [0.1, 0.1], [0.5, 0.5]]
    assert median([0.2, 0.2], ended, [[0.9], [0.9]]) is None
    assert median([0.2, 0.2], ended, [[0.9, 0.9], [0.9, 0.9]]) is not None


def test_epochs_that_were_lost_are_no_reason() -> None:
    ended = [[0.5, 0.5]] * 3
    assert median([None, 0.6], ended) is None
    assert median([], ended) is None


def asha(curve: list[Any], peers: list[Any]) -> str | None:
    return reason_to_prune(ASHA, curve, peers, [])


def test_asha_keeps_the_best_third_at_each_rung() -> None:
    peers = [[0.1], [0.2], [0.3], [0.4], [0.5]]
    # six values at rung 1, so the best two stay: 0.5 and 0.45
    assert asha([0.45], peers) is None
    assert asha([0.39], peers) == "0.3900 after epoch 1 is not among the best 2 of 6 trials"
    # two is no rung, and at three only those count that got there
    assert asha([0.1, 0.1], peers) is None
    assert asha([0.1, 0.1, 0.2], [*peers, [0.1, 0.1, 0.3]]) is not None
    assert asha([0.1, 0.1, 0.3], [*peers, [0.1, 0.1, 0.2]]) is None


def test_asha_begins_at_a_fifth_of_the_epochs() -> None:
    pruner = complete_pruner("asha")
    peers = [[0.5] * 40] * 3
    for epochs, rungs in ((10, [2, 4, 8]), (40, [8, 16, 32]), (4, [1, 2])):
        cut = [n for n in range(1, epochs) if reason_to_prune(pruner, [0.1] * n, peers, (), epochs)]
        assert cut == rungs
    later = complete_pruner({"name": "asha", "min_epochs": 2, "factor": 3})
    assert [n for n in range(1, 40) if reason_to_prune(later, [0.1] * n, peers, (), 40)] == [
        2,
        6,
        18,
    ]


def test_asha_lets_the_first_pass() -> None:
    assert asha([0.01], []) is None


def test_none_never_prunes() -> None:
    assert reason_to_prune(complete_pruner("none"), [0.0] * 9, [[1.0] * 9] * 99) is None


def test_choices_are_completed_and_refused() -> None:
    assert complete_pruner(None) == {
        "name": "asha", "startup": 0, "min_epochs": 0, "factor": 2, "still": STILL,
    }  # fmt: skip
    assert complete_pruner({"factor": 4})["factor"] == 4
    assert complete_pruner("median")["warmup"] == 2
    assert complete_sampler("random") == {"name": "random"}
    for bad, message in (
        ("hyperband", "no pruner 'hyperband'; there are median, asha, none"),
        ({"name": "asha", "warmup": 1}, "'asha' has no option 'warmup'"),
        ({"name": "asha", "factor": 1}, "factor must be an integer of at least 2"),
        ({"startup": -1}, "startup must be"),
        ({"startup": "9"}, "startup must be"),
    ):
        with pytest.raises(StudyError, match=message):
            complete_pruner(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("curve", "epochs", "ended"),
    [
        ([0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1], 20, True),  # a fifth are four
        ([0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1], 21, False),  # now five, so that a mean is of two
        ([0.1, 0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1], 21, True),
        ([0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.15], 20, False),  # the last is the third best
        ([0.3, 0.2, 0.25, 0.2, 0.2, 0.2, 0.2], 10, True),  # as good as the third brings nothing
        ([0.3, 0.2, 0.1, 0.1, 0.1, 0.1], 10, False),  # of ten epochs four, too, beside three
        ([0.1, 0.2, 0.3, 0.29, 0.28, 0.27, 0.2, 0.1], 10, False),  # past its peak, mean rising
        ([0.1, 0.2, 0.3, 0.29, 0.28, 0.27, 0.2, 0.1, 0.1], 10, True),
        ([None, 0.2, 0.3, 0.2, 0.1, None, None, 0.1], 10, True),  # no value brings nothing either
    ],
)
def test_a_curve_stands_still_where_its_last_epochs_are_not_among_the_best_three(
    curve: list[float | None], epochs: int, ended: bool
) -> None:
    found = stands_still({"name": "asha", "still": 20}, curve, epochs)
    still = 5 if epochs > 20 else 4
    assert found == (f"none of the last {still} epochs is among the best 3" if ended else None)


def test_where_less_is_more_a_falling_curve_does_not_stand_still() -> None:
    rank = Objective("avg_rank", "minimize")
    pruner = {"name": "none", "still": 20}
    falling = [90.0, 80.0, 70.0, 60.0, 50.0, 40.0, 30.0]
    assert stands_still(pruner, falling, 10, rank) is None
    assert stands_still(pruner, falling[::-1], 10, rank) is not None


def test_studies_of_earlier_versions_know_nothing_of_standing_still() -> None:
    assert stands_still(ASHA, [0.3, 0.2, 0.1, *[0.0] * 20], 40) is None
    assert complete_pruner("none")["still"] == 0
    assert complete_pruner("asha")["still"] == complete_pruner("median")["still"] == STILL
