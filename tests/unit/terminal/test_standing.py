"""What is said beside the best value: coverage, interval, noise, floors, ties, what comes next."""

from __future__ import annotations

from typing import Any

import pytest

from paropt.terminal.launch_summary import next_commands
from paropt.terminal.live import best_line, trial_line
from paropt.terminal.standing import standing

BEST: dict[str, Any] = {
    "trial": 3, "epoch": 2, "value": 0.75, "interval": [0.7, 0.8], "with_misses": 0.131,
    "targets": 1932, "unknown": 9155, "sessions": 536, "tied": 0.0, "conservative": None,
}  # fmt: skip
STATUS: dict[str, Any] = {
    "study": "shop",
    "metric": "mrr@20",
    "direction": "maximize",
    "evaluation": {"filter_seen": True, "ties": "standard", "candidates": "all"},
    "best": BEST,
    "runner_up": {"trial": 1, "value": 0.71, "within_noise": True},
    "floor": {"popularity": {"mrr@20": 0.01}, "cooccurrence": {"mrr@20": 0.2}},
    "below_floor": [],
}


def test_coverage_interval_and_noise() -> None:
    assert standing(STATUS) == [
        "1,932 of 11,087 targets ranked, of 536 sessions; history filtered, standard ties",
        "mrr@20 0.7500 [0.7000, 0.8000], 0.1310 with the left-out targets as misses",
        "trial 1 with 0.7100 is the same within noise",
        "Warning: only 1,932 of 11,087 targets were ranked: training never saw the items of the "
        "others, or none before them",
    ]


def test_few_targets() -> None:
    best = BEST | {"targets": 62, "unknown": 0, "sessions": 40}
    lines = standing(STATUS | {"best": best, "runner_up": None})
    assert lines[0].startswith("62 targets ranked, of 40 sessions; ")
    assert lines[-1] == "Warning: only 62 targets were ranked, fewer than 1,000: numbers are rough"


def test_below_the_floor_is_said_where_it_happens() -> None:
    best = BEST | {"value": 0.1, "unknown": 0}
    status = STATUS | {"best": best, "below_floor": ["cooccurrence"], "runner_up": None}
    assert standing(status)[-1] == (
        "Warning: without any training, co-occurrence reaches 0.2000: no trial has learned more"
    )
    assert best_line(status).endswith("co-occurrence 0.2000: not passed yet")
    assert "not reached" not in best_line(STATUS)
    trial = {"trial": 3, "state": "complete", "value": 0.1, "epoch": 2, "epochs": 4, "tied": 0.0}
    line = "trial 3 complete: mrr@20 0.1000 (epoch 2 of 4), no better than co-occurrence"
    assert trial_line(trial, "mrr@20", status) == line


def test_smaller_may_be_better() -> None:
    floor = {"popularity": {"avg_rank": 90.0}, "cooccurrence": {"avg_rank": 40.0}}
    status = {"metric": "avg_rank", "direction": "minimize", "floor": floor}
    trial = {"trial": 0, "state": "pruned", "value": 50.0, "epoch": 1, "epochs": 1, "tied": None}
    assert trial_line(trial, "avg_rank", status).endswith("), no better than co-occurrence")


def test_ties_are_said_with_the_conservative_value() -> None:
    best = BEST | {"value": 0.125, "tied": 1.0, "conservative": {"mrr@20": 0.125}}
    best |= {"interval": None, "unknown": 0, "targets": 5000}
    assert standing(STATUS | {"best": best, "runner_up": None})[1:] == [
        "Warning: without any training, co-occurrence reaches 0.2000: no trial has learned more",
        "Warning: 100.0% of the targets tie with another item; counted against them, mrr@20 is "
        "0.1250, and the trial is ranked by that",
    ]
    trial = {"trial": 3, "state": "complete", "epoch": 2, "epochs": 4, **best}
    line = trial_line(trial, "mrr@20", STATUS)
    assert line.endswith(
        "no better than co-occurrence, 100% of its targets tie, counted against it"
    )


def test_what_paropt_0_1_did_not_count() -> None:
    best = {"trial": 3, "epoch": 2, "value": 0.75}
    old = {"metric": "mrr@20", "best": best, "floor": {}}
    assert standing(old) == ["history not filtered, standard ties"]
    assert standing(old | {"best": None}) == ["history not filtered, standard ties"]


def status_of(
    complete: int = 0, budget: int | None = 20, seconds_left: float | None = None
) -> dict[str, Any]:
    counts = {"complete": complete, "pruned": 0}
    return {"study": "shop", "counts": counts, "budget": budget, "seconds_left": seconds_left}


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (status_of(20), "paropt launch --study shop --trials N    (goes on, up to N trials)"),
        (status_of(8), "paropt launch --study shop    (goes on; 12 of its 20 trials left)"),
        (
            status_of(8, seconds_left=2880.5),
            "paropt launch --study shop --timeout 49m    (goes on with what is left of its time "
            "and 12 of its 20 trials left)",
        ),
        (
            status_of(8, None, 59.2),
            "paropt launch --study shop --timeout 60s    (goes on with what is left of its time)",
        ),
        (
            status_of(8, None, 0.0),
            "paropt launch --study shop --timeout TIME    (its time is up; goes on for so long)",
        ),
        (
            status_of(8, seconds_left=0.0),
            "paropt launch --study shop --timeout TIME    (its time is up; goes on for so long; "
            "12 of its 20 trials left)",
        ),
        (
            status_of(20, seconds_left=50.0),
            "paropt launch --study shop --trials N    (goes on, up to N trials)",
        ),
    ],
)
def test_the_search_goes_on_with_what_is_left(status: dict[str, Any], line: str) -> None:
    assert next_commands(status)[3].strip() == line


def test_what_comes_next_leads_to_the_number_to_quote() -> None:
    there = ("--storage", "postgresql://db/x"), ("--data", "a b")
    assert next_commands(status_of(complete=20), *there)[1:3] == [
        "  paropt final shop --out runs/shop/final --storage postgresql://db/x --data 'a b'"
        "    (the number to quote)",
        "  paropt export shop --out runs/shop --storage postgresql://db/x",
    ]
    header, first, *rest = next_commands(status_of(complete=20))
    assert (header, first.split("    ")[0]) == (
        "next:",
        "  paropt final shop --out runs/shop/final",
    )
    assert not any("--split full" in line for line in rest)
