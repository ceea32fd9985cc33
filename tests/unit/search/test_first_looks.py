"""How long a family of models is looked at before the next, by arithmetic on trials by hand."""

from __future__ import annotations

from typing import Any

import pytest

from paropt.search.history.history import History, Record
from paropt.search.strategy.first_looks import GAVE_WAY, FirstLook, share, unseen
from paropt.training.evaluation.objective import Objective

MODELS = ["markov", "gru4rec", "sasrec"]


def trial(
    number: int, model: str, state: str, curve: list[float | None], seconds: float, why: str = ""
) -> Record:
    """Of ``seconds`` an epoch."""
    meta: dict[str, Any] = {"model": model, "root": number, "attempt": 1}
    curves: dict[str, list[Any]] = {"mrr@20": list(curve), "seconds": [seconds] * len(curve)}
    value = None if state == "RUNNING" else max(v for v in curve if v is not None)
    end = {"why": why} if why else {}
    return Record(number, number, state, value, None, None, meta, {}, curves, end)


def over(trials: list[Record], own: int, left: float | None, models: list[str] = MODELS) -> bool:
    history = History(1, records={record.id: record for record in trials})
    look = FirstLook(history, Objective("mrr@20"), models, lambda connection, slots: left)
    return look.over(None, own) is not None  # type: ignore[arg-type]


COUNTED = trial(0, "markov", "COMPLETE", [0.3], 1)


def test_half_of_the_time_is_shared_by_those_that_come_and_those_that_run() -> None:
    # one slot, one to come: half of 400 s for two; two slots: both have all of the half
    assert share(400, 1, 1) == 100
    assert share(400, 2, 0) == 200
    assert share(400, 2, 2) == 100


@pytest.mark.parametrize(("epochs", "gives"), [(4, False), (5, True), (6, True)])
def test_a_trial_gives_way_when_it_has_had_its_share(epochs: int, gives: bool) -> None:
    """sasrec is to come: half of 400 s for two, so 100 s, which are five epochs of 20."""
    running = trial(1, "gru4rec", "RUNNING", [0.1] * epochs, 20)
    assert over([COUNTED, running], 1, 400) is gives


def test_without_a_limit_or_another_model_nobody_gives_way() -> None:
    running = trial(1, "gru4rec", "RUNNING", [0.1], 1000)
    assert not over([COUNTED, running], 1, None)
    assert not over([running], 1, 400, ["gru4rec"])
    assert over([running], 1, 400)


def test_the_last_to_be_looked_at_gives_way_to_what_is_better() -> None:
    worse = trial(1, "gru4rec", "WAITING", [0.1], 100, GAVE_WAY)
    better = trial(1, "gru4rec", "WAITING", [0.3], 100, GAVE_WAY)
    handed_back = trial(1, "gru4rec", "WAITING", [0.3], 100, "handed back")
    running = trial(2, "sasrec", "RUNNING", [0.2], 1000)
    assert not over([COUNTED, worse, running], 2, 400)
    assert over([COUNTED, better, running], 2, 400)
    assert not over([COUNTED, handed_back, running], 2, 400)


def test_nobody_gives_way_twice_and_no_second_trial_of_a_model() -> None:
    again = trial(1, "gru4rec", "RUNNING", [0.1], 1000, GAVE_WAY)
    first = trial(1, "gru4rec", "COMPLETE", [0.1], 1)
    second = trial(2, "gru4rec", "RUNNING", [0.1], 1000)
    assert not over([COUNTED, again], 1, 400)
    assert not over([COUNTED, first, second], 2, 400)


def test_models_without_a_trial() -> None:
    assert unseen(MODELS, [COUNTED]) == ["gru4rec", "sasrec"]
