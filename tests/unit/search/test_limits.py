"""What trials must keep to: read, counted, told to the sampler, and no part of a value."""

from __future__ import annotations

from typing import Any

import pytest

from paropt.errors import ParamError
from paropt.search.history.failures import ALIKE_BEYOND, alike
from paropt.search.history.history import History, Record, best_first, constraint_attributes
from paropt.search.space.file import from_json
from paropt.search.strategy.sampling import Sampler, complete_sampler
from paropt.search.study.summary import constraints
from paropt.training.evaluation.choose_objective import limits_of
from paropt.training.evaluation.limits import Limit, broken, read_limits
from paropt.training.evaluation.objective import Objective

LIMITS = read_limits(["parameters<=500", "recall@20>=0.25"])
WITHIN = Objective("mrr@20", "maximize", LIMITS)


def record(number: int, x: float, value: float | None, **more: Any) -> Record:
    """A trial of x, of 1000 x parameters; without a value it ended before training."""
    meta = {"root": number, "model": "gru4rec", "searched": {"x": x}, "seed": 0, "epochs": 1}
    reported = {"mrr@20": value, "recall@20": 0.3, "parameters": 1000 * x, **more}
    curves = {name: [told] for name, told in reported.items()} if value is not None else {}
    end: dict[str, Any] = {"why": "complete", "epoch": 1}
    if value is None:
        end = {"why": "constraint", "message": "much", "measures": {"parameters": 1000 * x}}
    state = "PRUNED" if value is None else "COMPLETE"
    return Record(number, number, state, value, None, None, meta, {}, curves, end)


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("parameters<=5e6", "parameters<=5000000"),
        (" HR@5 ≥ 0.3 ", "recall@5>=0.3"),
        ("latency_ms<=2.5", "latency_ms<=2.5"),
        ("gini@10<=1_0", "gini@10<=10"),
    ],
)
def test_a_limit_has_one_spelling(typed: str, text: str) -> None:
    assert Limit.parse(typed).text == text
    assert Limit.stored(text) == Limit.parse(typed)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["parameters<5"], "is written like parameters<=5e6"),
        (["<=5"], "is written like"),
        (["parameters<=many"], "'many' is no number"),
        (["parameters<=nan"], "'nan' is no number"),
        (["parametrs<=5"], "did you mean parameters?"),
        (["mrr<=5", "mrr<=6"], "limited by mrr<=5 already"),
        (["mrr@5<=0.1", "mrr@5>=0.2"], "no value keeps to both mrr@5<=0.1 and mrr@5>=0.2"),
    ],
)
def test_what_is_no_limit_is_refused_in_a_sentence(typed: list[str], told: str) -> None:
    with pytest.raises(ParamError) as refused:
        read_limits(typed)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_limit_on_what_a_model_does_not_report_is_refused() -> None:
    with pytest.raises(ParamError, match="rqvae reports no recall@5"):
        limits_of(["recall@5>=0.1"], ["rqvae"])
    assert len(limits_of(["parameters<=9", "recall@5>=0.1"], ["sasrec", "session_knn"])) == 2


def test_the_best_is_the_best_of_those_within() -> None:
    trials = [
        record(0, 0.9, 0.9),  # too large
        record(1, 0.4, 0.5),
        record(2, 0.5, 0.6),  # at the bound
        record(3, 0.3, 0.8, **{"recall@20": 0.2}),
        record(4, 0.8, None),
    ]
    assert [one.number for one in best_first(trials, WITHIN)] == [2, 1]
    assert [one.number for one in best_first(trials, Objective("mrr@20"))] == [0, 3, 2, 1]
    found = constraints(trials, WITHIN)
    assert found == {"limits": {"parameters<=500": 2, "recall@20>=0.25": 1}, "keep": 2}
    assert broken(LIMITS, trials[3].values) == ["recall@20 0.2000 is below 0.2500"]


def test_optuna_is_told_how_far_each_is_beyond() -> None:
    def told(one: Record) -> dict[str, float]:
        return constraint_attributes(WITHIN, one.values, one.end)

    large = told(record(0, 0.75, 0.1))
    assert large["constraints:parameters<=500"] == pytest.approx(250 / 500)
    assert large["constraints:recall@20>=0.25"] == pytest.approx(-0.05 / 0.25)
    assert told(record(1, 1.0, None)) == {"constraints:parameters<=500": 1.0}
    unmeasured = Record(2, 2, "COMPLETE", 0.1, None, None, {}, {}, {"mrr@20": [0.1]}, {"epoch": 1})
    assert set(told(unmeasured).values()) == {1.0}


def test_the_sampler_looks_within() -> None:
    """The larger x, the better the value, and half of the range is beyond the limit."""
    space = from_json(
        {"model": "gru4rec", "search": {"momentum": {"type": "float", "low": 0.0, "high": 1.0}}}
    )

    def drawn(objective: Objective) -> list[float]:
        sampler, history = Sampler(space, complete_sampler("tpe"), 1, objective), History(0)
        found = []
        for number in range(30):
            config = sampler.draw(history)
            assert config is not None
            found.append(x := config["momentum"])
            trial = record(number, x, x if x <= 0.5 or not objective.limits else None)
            meta = {**trial.meta, "searched": sampler.searched(config)}
            history.records[number] = Record(**{**vars(trial), "meta": meta})
        return found[10:]

    assert sum(x <= 0.5 for x in drawn(WITHIN)) >= 11
    assert sum(x <= 0.5 for x in drawn(Objective("mrr@20"))) <= 5


def test_a_space_beyond_the_limits_pauses_the_study() -> None:
    from datetime import datetime

    trials = [record(number, 0.9, None) for number in range(ALIKE_BEYOND)]
    ended = [
        Record(**{**vars(one), "ended": datetime(2026, 1, 1, second=n)})
        for n, one in enumerate(trials)
    ]
    assert alike(ended[1:], 0.0, "shop") is None
    told = alike(ended, 0.0, "shop")
    assert told is not None and "its last 50 configurations were all beyond a constraint" in told
