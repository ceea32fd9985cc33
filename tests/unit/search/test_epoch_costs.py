"""What an epoch is thought to cost, by trials whose cost is known to be a product of powers."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from paropt.search.history.history import History, Record
from paropt.search.space.file import from_json
from paropt.search.space.space import Config
from paropt.search.strategy.epoch_costs import LEAST, CostModel, EpochCosts, sizes_of
from paropt.search.strategy.sampling import Sampler, complete_sampler, uniformly
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


def test_only_trials_of_the_model_tell_and_enough_of_them() -> None:
    known = trials(LEAST, "gru4rec")
    costs = EpochCosts(SPACE)
    assert costs.of_model("gru4rec", known[1:]) is None
    assert costs.of_model("sasrec", known) is None
    found = costs.of_model("gru4rec", known)
    assert found is not None
    config: Config = {"model": "gru4rec", "layers": 64, "batch_size": 128}
    dear = config | {"layers": 512, "batch_size": 16}
    cheap, expensive = found.at(np.array([sizes_of(SPACE, one) for one in (config, dear)]))
    assert expensive > 20 * cheap  # 512² / 16 = 16,384 against 64² / 128 = 32


def test_a_trial_that_runs_is_asked_again() -> None:
    known = trials(LEAST, "gru4rec")
    began = replace(known[0], state="RUNNING", value=None, curves={"seconds": []})
    costs = EpochCosts(SPACE)
    assert costs.of_model("gru4rec", [began, *known[1:]]) is None
    assert costs.of_model("gru4rec", known) is not None


def test_a_configuration_may_be_said_in_part() -> None:
    whole = sizes_of(SPACE, {"model": "gru4rec", "layers": 64, "batch_size": 16})
    assert list(sizes_of(SPACE, {"model": "gru4rec", "layers": 64})) == list(whole)


def test_a_sampler_looks_for_what_promises_most_for_a_second() -> None:
    """All trials are worth the same, so what differs is what they cost."""
    records: list[Record] = []
    for pair in zip(trials(30, "gru4rec"), trials(30, "sasrec"), strict=True):
        for one in pair:
            number = len(records)
            records.append(
                replace(one, id=number, number=number, meta={**one.meta, "root": number})
            )
    history = History(0, records={record.id: record for record in records})

    def proposed(cost: int) -> list[Config]:
        options = complete_sampler({"name": "tpe", "cost": cost})
        samplers = [Sampler(SPACE, options, seed, Objective("mrr@20")) for seed in range(40)]
        found = [sampler.propose(history) for sampler in samplers]
        return [one.config for one in found if one and one.config]

    def typical(configs: list[Config], model: str) -> float:
        return float(np.median([seconds(one) for one in configs if one["model"] == model]))

    aside, per_second = proposed(0), proposed(1)
    assert len(aside) == len(per_second) == 40
    for model in ("gru4rec", "sasrec"):
        assert typical(per_second, model) < 0.6 * typical(aside, model)
    # SASRec costs a millionth, and that is not what decides between models
    counts = [sum(one["model"] == "gru4rec" for one in found) for found in (aside, per_second)]
    assert counts[0] == counts[1]


def test_what_all_trials_have_alike_tells_nothing() -> None:
    """The second column is .3 throughout, but for rounding that its spread is made of."""
    rng = np.random.default_rng(3)
    for _ in range(100):
        sizes = np.column_stack([rng.normal(size=12), np.full(12, 0.1) + 0.2])
        model = CostModel(sizes, np.exp(sizes[:, 0]))
        here, there = model.at(np.array([[0.0, 0.3], [0.0, 5.0]]))
        assert here == there
