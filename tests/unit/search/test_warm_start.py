"""Configurations from elsewhere as start points: what fits, what is bent to fit, what is left."""

from __future__ import annotations

import random
from typing import Any

import pytest

from paropt.search.history.history import History, Record
from paropt.search.setup.warm_start import POINTS, best_points, fit_into, warmed
from paropt.search.space.file import from_json
from paropt.search.strategy.sampling import Sampler, complete_sampler, uniformly
from paropt.training.evaluation.objective import Objective

GRU4REC, BPR_MAX = {"model": "gru4rec"}, {"loss": "bpr-max"}
SPACE = from_json(
    {
        "search": {
            "model": {"type": "categorical", "choices": ["gru4rec", "sasrec"]},
            "layers": {"type": "int", "low": 32, "high": 96, "step": 32, "when": GRU4REC},
            "loss": {
                "type": "categorical",
                "choices": ["cross-entropy", "bpr-max"],
                "when": GRU4REC,
            },
            "bpreg": {"type": "float", "low": 0, "high": 2, "step": 0.5, "when": BPR_MAX},
            "dropout": {"type": "float", "low": 0, "high": 0.5, "when": {"model": "sasrec"}},
        },
        "start": [{"model": "sasrec", "dropout": 0.2}],
    }
)


@pytest.mark.parametrize(
    ("model", "params", "point"),
    [
        (
            "gru4rec",  # onto the grid, into the range; what is not searched here is left out
            {"layers": 70, "loss": "bpr-max", "bpreg": 9.0, "n_sample": 64},
            {"model": "gru4rec", "layers": 64, "loss": "bpr-max", "bpreg": 2.0},
        ),
        (
            "gru4rec",  # no such loss here: the first, because bpreg depends on it
            {"layers": 500, "loss": "top1", "bpreg": 1.0},
            {"model": "gru4rec", "layers": 96, "loss": "cross-entropy"},
        ),
        ("sasrec", {"dropout": 0.9, "layers": 3}, {"model": "sasrec", "dropout": 0.5}),
        ("sasrec", {"blocks": 2}, None),
        ("hstu", {"dropout": 0.1}, None),
        ("sasrec", {"dropout": "much"}, None),
        ("sasrec", {"dropout": True}, None),
    ],
)
def test_a_configuration_is_made_to_fit(
    model: str, params: dict[str, Any], point: dict[str, Any] | None
) -> None:
    assert fit_into(SPACE, model, params) == point
    if point is not None:  # and it is one that trials can start from, whatever chance adds
        for seed in range(20):
            SPACE.complete(point, uniformly(random.Random(seed)))


def test_what_a_space_fixes_stays() -> None:
    fixed = from_json(
        {
            "model": "gru4rec",
            "fixed": {"loss": "cross-entropy"},
            "search": {"layers": {"type": "int", "low": 32, "high": 96, "step": 32}},
        }
    )
    assert fit_into(fixed, "gru4rec", {"layers": 32, "loss": "bpr-max"}) == {"layers": 32}


def _record(number: int, value: float | None, state: str, **params: Any) -> Record:
    meta = {"root": number, "model": "sasrec", "params": params, "searched": params}
    return Record(number, number, state, value, None, None, meta, {}, {}, {})


def test_the_best_distinct_ones_are_taken_first() -> None:
    records = [
        _record(0, 0.1, "COMPLETE", dropout=0.0),
        _record(1, 0.3, "PRUNED", dropout=0.3),
        _record(2, 0.5, "COMPLETE", dropout=0.7),  # both outside: one point
        _record(3, 0.4, "COMPLETE", dropout=0.6),
        _record(4, None, "FAIL", dropout=0.2),
        *(_record(5 + k, 0.01 * k, "COMPLETE", dropout=0.1 + 0.01 * k) for k in range(5)),
    ]
    points = best_points(SPACE, records, Objective("mrr@20"))
    assert [point["dropout"] for point in points] == pytest.approx([0.5, 0.3, 0.0, 0.14, 0.13])
    assert len(points) == POINTS


def test_they_come_before_the_spaces_own() -> None:
    point = {"model": "gru4rec", "layers": 64, "loss": "bpr-max", "bpreg": 2.0}
    space = warmed(SPACE, [point, {"model": "sasrec", "dropout": 0.2}])
    assert list(space.start) == [point, {"model": "sasrec", "dropout": 0.2}]
    sampler = Sampler(from_json(space.to_json()), complete_sampler("tpe"), 1, Objective("mrr@20"))
    assert sampler.draw(History(1)) == point
