"""Best per model at equal spend, from trials written by hand."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from paropt.search.history.equal_spend import by_model
from paropt.search.history.history import Record
from paropt.training.evaluation.objective import Objective

MODELS = ["fast", "slow", "new"]


def trial(
    number: int,
    model: str,
    minute: int,
    seconds: list[float],
    curve: list[float | None],
    state: str = "COMPLETE",
) -> Record:
    """A trial that ended at ``minute``."""
    valued = state not in ("FAIL", "RUNNING")
    value = max((v for v in curve if v is not None), default=None) if valued else None
    ended = None if state in ("RUNNING", "WAITING") else datetime(2026, 1, 1, 12, minute)
    meta: dict[str, Any] = {"model": model, "root": number, "attempt": 1}
    curves = {"mrr@20": list(curve), "seconds": list(seconds)}
    return Record(number, number, state, value, None, ended, meta, {}, curves, {})


def rows(trials: list[Record], models: list[str] = MODELS) -> dict[str, dict[str, Any]]:
    found = by_model(trials, models, Objective("mrr@20"))
    for row in found["models"]:
        del row["steady"]  # see test_one_best
    return {row.pop("model"): row for row in found["models"]} | {"": {"spend": found["spend"]}}


def test_a_value_counts_once_the_spend_of_the_cheapest_has_bought_it() -> None:
    found = rows(
        [
            trial(0, "slow", 1, [10, 10, 10], [0.1, 0.2, 0.9]),
            trial(1, "fast", 2, [5, 5], [0.3, 0.25]),
            trial(2, "fast", 3, [10, 5], [0.35, 0.8]),
        ],
        ["fast", "slow"],
    )
    # 25 seconds for both: slow's third epoch is bought by 30, fast's last by 25
    assert found[""] == {"spend": 25}
    assert found["fast"] == {"best": 0.8, "trial": 2, "trials": 2, "spent": 25, "overall": 0.8}
    assert found["slow"] == {"best": 0.2, "trial": 0, "trials": 1, "spent": 30, "overall": 0.9}


def test_below_a_second_no_model_is_cheaper_than_another() -> None:
    found = rows(
        [trial(0, "slow", 1, [0.06], [0.7]), trial(1, "fast", 2, [0.04], [0.4])], ["fast", "slow"]
    )
    assert found[""] == {"spend": 1.0}
    assert (found["fast"]["best"], found["slow"]["best"]) == (0.4, 0.7)


def test_trials_count_in_the_order_of_their_ends() -> None:
    found = rows(
        [
            trial(0, "slow", 9, [4], [0.9]),  # began first, ended last
            trial(1, "slow", 1, [4], [0.5]),
            trial(2, "fast", 2, [5], [0.1]),
        ],
        ["fast", "slow"],
    )
    assert (found["slow"]["best"], found["slow"]["trial"]) == (0.5, 1)
    assert found["slow"]["overall"] == 0.9


def test_failures_cost_time_and_have_no_value() -> None:
    found = rows(
        [
            trial(0, "fast", 1, [6, 6], [0.7, None], state="FAIL"),
            trial(1, "fast", 2, [6], [0.2], state="PRUNED"),
            trial(2, "fast", 3, [6], [0.3]),
            trial(3, "slow", 4, [18], [0.4]),
            trial(4, "slow", 5, [90], [0.9], state="RUNNING"),
            trial(5, "new", 6, [1], [None], state="FAIL"),
        ]
    )
    # new has nothing to show for its second: it does not set the measure
    assert found[""] == {"spend": 18}
    assert found["fast"] == {"best": 0.2, "trial": 1, "trials": 3, "spent": 24, "overall": 0.3}
    assert found["slow"] == {"best": 0.4, "trial": 3, "trials": 1, "spent": 18, "overall": 0.4}
    assert found["new"] == {"best": None, "trial": None, "trials": 1, "spent": 1, "overall": None}


def test_of_equal_values_the_earlier_trial() -> None:
    found = rows([trial(3, "fast", 1, [1], [0.5]), trial(1, "fast", 2, [1], [0.5])], ["fast"])
    assert found["fast"]["trial"] == 1


def test_before_any_value_there_is_no_spend() -> None:
    found = by_model([], ["fast", "slow"], Objective("mrr@20"))
    assert found["spend"] is None
    assert [row["best"] for row in found["models"]] == [None, None]


def test_counting_for_a_second_is_no_measure_for_a_network() -> None:
    """A tenth of 50 s are 5: one is less, so 20 s count; the counter has all that it took."""
    found = rows(
        [
            trial(0, "fast", 1, [1], [0.4]),
            trial(1, "slow", 2, [10, 10, 10, 20], [0.1, 0.3, 0.5, 0.6]),
            trial(2, "new", 3, [20], [0.2]),
        ]
    )
    assert found[""] == {"spend": 20}
    best = {model: (found[model]["best"], found[model]["overall"]) for model in MODELS}
    assert best == {"fast": (0.4, 0.4), "slow": (0.3, 0.6), "new": (0.2, 0.2)}


def test_what_waits_to_go_on_counts_with_what_it_has() -> None:
    found = rows(
        [trial(0, "fast", 1, [2], [0.4]), trial(1, "slow", 0, [1, 1], [0.3, 0.5], "WAITING")]
    )
    assert found["slow"]["best"] == 0.5
    assert found["slow"]["trials"] == 1
