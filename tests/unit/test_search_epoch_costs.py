"""What an epoch is thought to cost, by trials whose cost is known to be a product of powers."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from paropt.search.space.file import from_json
from paropt.search.space.space import Config
from paropt.search.study.epoch_costs import LEAST, CostModel, EpochCosts, sizes_of
from paropt.search.study.history import History, Record
from paropt.search.study.sampling import Sampler, complete_sampler, uniformly
from paropt.training.evaluation.objective import Objective

SPACE = from_json(
    {
        "search": {
            "model": {"type": "categorical", "choices": ["gru4rec", "sasrec"]},
            "layers": {"type": "int", "low": 32, "high": 512, "when": {"model": "gru4rec"}},
            "dim": {"type": "int", "low": 32, "high": 512, "when": {"model": "sasrec"}},
            "batch_size": {"type": "int", "low": 16, "high": 256},
        },
    }
)


def seconds(config: Config) -> float:
    """A GRU's work is its width squared by its steps; SASRec's is tiny here."""
    if config["model"] == "sasrec":
        return config["dim"] / 1e4
    return float(config["layers"] ** 2 / config["batch_size"])


def trial(number: int, config: Config, curve: tuple[float, ...] = (0.1, 0.2)) -> Record:
    params = {name: value for name, value in config.items() if name != "model"}
    meta: dict[str, Any] = {"model": config["model"], "params": params, "root": number}
    searched = {p.label: config[p.name] for p in SPACE.active(config) if p.searched}
    meta |= {"searched": searched, "index": number, "epochs": 2}
    took = [9 * seconds(config), *[seconds(config)] * (len(curve) - 1)]  # the first starts slowly
    curves: dict[str, list[Any]] = {"mrr@20": list(curve), "seconds": took}
    return Record(
        number, number, "COMPLETE", max(curve), None, None, meta, {}, curves, {"epoch": 1}
    )


def trials(count: int, model: str, least: int = 16) -> list[Record]:
    rng, found = random.Random(1), []
    while len(found) < count:
        config = SPACE.walk(uniformly(rng))
        if config["model"] == model and config["batch_size"] >= least:
            found.append(trial(len(found), config, (0.1, 0.2, 0.2)))
    return found


def test_a_power_law_is_found() -> None:
    rng = random.Random(2)
    configs = [SPACE.walk(uniformly(rng)) for _ in range(200)]
    configs = [config for config in configs if config["model"] == "gru4rec"]
    rows = np.array([sizes_of(SPACE, config) for config in configs])
    took = np.array([seconds(config) for config in configs])
    model = CostModel(rows[:60], took[:60])
    assert model.at(rows[60:]) == pytest.approx(took[60:], rel=0.01)
    assert model.left_out == pytest.approx(took[:60], rel=0.01)


def test_leaving_a_trial_out_is_what_it_says() -> None:
    """The shortcut against solving again without the row, with the ridge that was chosen."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((12, 2))
    took = np.exp(rows @ [1.0, -0.5] + 0.3 * rng.standard_normal(12))
    model = CostModel(rows, took)
    z = (rows - rows.mean(0)) / rows.std(0)
    design = np.hstack([np.ones((12, 1)), z, z**2])
    kept = np.arange(12) != 4
    found = []
    for ridge in (1e-3, 1e-2, 1e-1, 1.0, 10.0):
        penalty = np.diag([0.0, *[ridge] * 4])
        gram = design[kept].T @ design[kept] + penalty
        weights = np.linalg.solve(gram, design[kept].T @ np.log(took[kept]))
        found.append(float(np.exp(design[4] @ weights)))
    assert min(abs(model.left_out[4] / one - 1) for one in found) < 1e-6


GRUS: list[Config] = [
    {"model": "gru4rec", "layers": 512, "batch_size": 16},
    {"model": "gru4rec", "layers": 64, "batch_size": 128},
    {"model": "gru4rec", "layers": 64, "batch_size": 16},
]
SASREC: Config = {"model": "sasrec", "dim": 32, "batch_size": 16}


def test_the_cheapest_of_the_first_ones_model() -> None:
    """512² / 16 = 16,384; 64² / 128 = 32; 64² / 16 = 256. SASRec would cost next to nothing."""
    known = trials(30, "gru4rec")
    assert EpochCosts(SPACE).cheapest(GRUS, known) == GRUS[1]
    assert EpochCosts(SPACE).cheapest([GRUS[0], SASREC, GRUS[2]], known) == GRUS[2]
    assert EpochCosts(SPACE).cheapest([SASREC, *GRUS], known) == SASREC


def test_before_enough_trials_have_told_the_first_is_taken() -> None:
    assert EpochCosts(SPACE).cheapest(GRUS, trials(LEAST - 1, "gru4rec")) == GRUS[0]
    assert EpochCosts(SPACE).cheapest(GRUS, trials(LEAST, "gru4rec")) == GRUS[1]
    assert EpochCosts(SPACE).cheapest(GRUS, trials(30, "sasrec")) == GRUS[0]


def test_a_sampler_proposes_the_cheapest_of_three() -> None:
    """Of one proposal it is the very one that it was before there was a choice."""
    records = trials(20, "gru4rec")
    for other in trials(20, "sasrec"):  # a model that nobody has tried is always proposed
        number = len(records)
        meta = {**other.meta, "root": number}
        records.append(replace(other, id=number, number=number, meta=meta))
    history = History(0, records={record.id: record for record in records})

    def proposed(count: int) -> Config:
        options = complete_sampler({"name": "tpe", "cheapest": count})
        found = Sampler(SPACE, options, 2, Objective("mrr@20")).propose(history)
        assert found is not None
        assert found.config is not None
        return found.config

    sampler = Sampler(SPACE, complete_sampler("tpe"), 2, Objective("mrr@20"))
    drawn = list(itertools.islice(sampler.drawn(history, len(records), ""), 3))
    assert proposed(1) == drawn[0]
    assert proposed(3) == EpochCosts(SPACE).cheapest(drawn, records)
    alike = [config for config in drawn if config["model"] == drawn[0]["model"]]
    assert seconds(proposed(3)) == min(map(seconds, alike)) < seconds(proposed(1))
