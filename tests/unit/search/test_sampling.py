"""Sampling from a history that the test makes up: order, distinctness, seeds, good sense."""

from __future__ import annotations

import random
from typing import Any

import pytest

from paropt.errors import StudyError, UsageError
from paropt.search.history.history import History, Record, counts
from paropt.search.space.file import from_json
from paropt.search.space.space import Config, Space
from paropt.search.strategy.sampling import (
    Sampler,
    Undrawn,
    complete_sampler,
    derived_seed,
    rehearse,
)
from paropt.training.evaluation.objective import Objective

METRIC = "mrr@20"
MRR = Objective(METRIC)
GRID = {
    "layers": {"type": "int", "low": 32, "high": 96, "step": 32},
    "loss": {"type": "categorical", "choices": ["cross-entropy", "bpr-max"]},
    "bpreg": {"type": "float", "low": 0, "high": 1, "step": 0.5, "when": {"loss": "bpr-max"}},
}  # 3 × (1 + 3) = 12 configurations
WIDE = {
    "learning_rate": {"type": "float", "low": 0.001, "high": 1.0, "log": True},
    "momentum": {"type": "float", "low": 0.0, "high": 1.0},
}


def space_of(search: dict[str, Any], **more: Any) -> Space:
    return from_json({"model": "gru4rec", "search": search, **more})


def sampler_of(space: Space, name: str = "tpe", seed: int = 1) -> Sampler:
    return Sampler(space, complete_sampler(name), seed, MRR)


def add(
    history: History,
    sampler: Sampler,
    config: Config,
    state: str = "COMPLETE",
    value: float | None = 0.5,
    why: str = "",
) -> None:
    index = len(history.records)
    meta = {
        "root": index,
        "index": index,
        "attempt": 1,
        "model": "gru4rec",
        "params": {k: v for k, v in config.items() if k != "model"},
        "searched": sampler.searched(config),
        "seed": 0,
        "epochs": 1,
    }
    curves = {METRIC: [value]} if value is not None else {}
    end = {"why": why or state.lower()}
    history.records[index] = Record(index, index, state, value, None, None, meta, {}, curves, end)


def draws(sampler: Sampler, count: int, state: str = "COMPLETE") -> list[Config]:
    history = History(0)
    drawn = []
    for _ in range(count):
        config = sampler.draw(history)
        assert config is not None
        drawn.append(config)
        add(history, sampler, config, state, 0.5 if state == "COMPLETE" else None)
    return drawn


@pytest.mark.parametrize("name", ["tpe", "random", "grid"])
def test_a_finite_space_is_used_up_without_repeats(name: str) -> None:
    sampler = sampler_of(space_of(GRID), name)
    history = History(0)
    while (config := sampler.draw(history)) is not None:
        add(history, sampler, config, value=random.random())
        assert len(history.records) <= 12
    assert len({record.key for record in history.all()}) == 12


def test_failed_configurations_are_not_tried_again() -> None:
    sampler = sampler_of(space_of(GRID), "random")
    assert len({str(sampler.searched(c)) for c in draws(sampler, 12, "FAIL")}) == 12


def test_start_points_come_first_and_repeats_of_them_do_not() -> None:
    start = [{"layers": 96, "loss": "cross-entropy"}, {"layers": 96, "loss": "cross-entropy"},
             {"layers": 32, "loss": "bpr-max", "bpreg": 0.5}]  # fmt: skip
    drawn = draws(sampler_of(space_of(GRID, start=start)), 4)
    assert [config["layers"] for config in drawn[:2]] == [96, 32]
    assert drawn[1]["bpreg"] == 0.5


def test_a_start_point_is_filled_by_the_seed() -> None:
    space = space_of(WIDE, start=[{"momentum": 0.25}])
    first, again, other = (draws(sampler_of(space, seed=seed), 1)[0] for seed in (1, 1, 2))
    assert first["momentum"] == 0.25
    assert first == again
    assert first["learning_rate"] != other["learning_rate"]


def test_the_design_does_not_depend_on_who_ended_when() -> None:
    space = space_of(WIDE)
    ended = draws(sampler_of(space), 10)
    running = draws(sampler_of(space), 10, "RUNNING")
    assert ended == running
    assert ended != draws(sampler_of(space, seed=2), 10)


def test_the_design_covers_every_stratum_of_every_parameter() -> None:
    design = draws(sampler_of(space_of(WIDE)), 10)
    assert sorted(int(10 * config["momentum"]) for config in design) == list(range(10))
    # ten strata over three decades of the logarithm
    assert sorted(int(10 * (1 + _decades(c) / 3)) for c in design) == list(range(10))


@pytest.mark.parametrize(("starts", "designed"), [(7, 3), (10, 0), (11, 0)])
def test_the_design_makes_start_points_ten_and_adds_none_to_more(
    starts: int, designed: int
) -> None:
    start = [{"momentum": 0.05 * k, "learning_rate": 0.1} for k in range(starts)]
    sampler, history = sampler_of(space_of(WIDE, start=start)), History(0)
    while not isinstance(config := sampler.choose(history, None), Undrawn):
        assert config is not None
        add(history, sampler, config)
    assert len(history.records) == starts + designed, "then TPE is to propose one"


def _decades(config: Config) -> float:
    import math

    return math.log10(config["learning_rate"])


def distance(config: Config) -> float:
    return abs(_decades(config) + 1) / 3 + abs(config["momentum"] - 0.3)


def test_tpe_finds_a_hill_better_than_random() -> None:
    found = {}
    for name in ("tpe", "random"):
        total = 0.0
        for seed in range(3):
            sampler, history = sampler_of(space_of(WIDE), name, seed), History(0)
            for _ in range(50):
                config = sampler.draw(history)
                assert config is not None
                add(history, sampler, config, value=-distance(config))
            late = list(history.records.values())[-20:]
            total += sum(-(record.value or 0) for record in late) / 20
        found[name] = total
    assert found["tpe"] < 0.5 * found["random"]


def test_tpe_keeps_away_from_what_ran_out_of_memory() -> None:
    sampler, history = sampler_of(space_of(WIDE)), History(0)
    for _ in range(60):
        config = sampler.draw(history)
        assert config is not None
        if config["momentum"] > 0.5:
            add(history, sampler, config, "PRUNED", None, "oom")
        else:
            add(history, sampler, config, value=config["momentum"])
    late = list(history.records.values())[-20:]
    assert sum(record.failed for record in late) <= 10
    assert counts(history.all())["pruned"] == 0  # out of memory is a failure, not a result


def test_what_ran_out_of_memory_is_enough_to_begin_with() -> None:
    """Else TPE would wait for ten values where hardly any configuration has one."""
    sampler, history = sampler_of(space_of(WIDE)), History(0)
    for number in range(12):
        assert sampler.propose(history) is None or number >= 10
        config = sampler.draw(history)
        assert config is not None
        why = ("oom", "diverged")[number % 2]
        add(history, sampler, config, "PRUNED", None, why)
    assert sampler.propose(history) is not None


def test_tpe_is_the_same_for_the_same_history() -> None:
    space = space_of(GRID | WIDE)
    drawn = [draws(sampler_of(space), 15) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_grid_needs_steps() -> None:
    with pytest.raises(StudyError, match="needs a step"):
        sampler_of(space_of(WIDE), "grid")


def test_derived_seeds_differ_and_stay() -> None:
    seeds = {derived_seed(study, "training", index) for study in (1, 2) for index in range(100)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derived_seed(42, "training", 0) == derived_seed(42, "training", 0)


# -- Optuna's own ------------------------------------------------------------------------------


def of_optuna(options: dict[str, Any], space: Space) -> Sampler:
    return Sampler(space, complete_sampler(options), 1, MRR)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "TPESampler", "n_startup_trials": 3, "multivariate": True},
        {"name": "NSGAIISampler", "population_size": 3},  # it remembers generations
        {"name": "RandomSampler"},
    ],
)
def test_optunas_samplers_draw_what_follows_from_the_history(options: dict[str, Any]) -> None:
    space = space_of(WIDE, start=[{"momentum": 0.25}])
    sampler, history = of_optuna(options, space), History(0)
    for number in range(9):
        config = sampler.draw(history)
        assert config is not None
        add(history, sampler, config, value=config["momentum"])
        if number == 0:
            assert config["momentum"] == 0.25  # start points come first
    assert len({record.key for record in history.all()}) == 9
    # a worker that comes later has the same state
    assert sampler.draw(history) == of_optuna(options, space).draw(history)
    assert sampler.draw(history) != Sampler(space, sampler.options, 2, MRR).draw(history)


def test_a_genetic_algorithm_comes_to_later_generations() -> None:
    sampler, history = (
        of_optuna({"name": "NSGAIISampler", "population_size": 3}, space_of(WIDE)),
        History(0),
    )
    for _ in range(8):
        config = sampler.draw(history)
        assert config is not None
        add(history, sampler, config, value=config["momentum"])
    sampler.draw(history)
    told = [attrs["NSGAIISampler:generation"] for attrs in sampler._replayed._asked.values()]
    assert told == [0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": "CmaEsSmpler"}, "did you mean 'CmaEsSampler'?"),
        ({"name": "foo"}, "there are tpe, random and grid, and Optuna's"),
        ({"name": "GridSampler"}, "--sampler grid goes through the space's"),
        ({"name": "PartialFixedSampler"}, "--fixed"),
        ({"name": "TPESampler", "seed": 3}, "say --seed"),
        ({"name": "TPESampler", "candidates": 3}, "has no argument 'candidates'"),
        ({"name": "TPESampler", "n_startup_trials": "x"}, "cannot work with this"),
    ],
)
def test_what_cannot_sample_is_refused_in_a_sentence(options: dict[str, Any], told: str) -> None:
    with pytest.raises((StudyError, UsageError)) as refused:
        rehearse(space_of(WIDE), complete_sampler(options), MRR)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_sampler_without_its_package_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna.samplers import RandomSampler

    def lacking(self: Any, seed: int | None = None) -> None:
        raise ImportError("Tried to import 'cmaes' but failed.")

    monkeypatch.setattr(RandomSampler, "__init__", lacking)
    with pytest.raises(StudyError, match=r"needs cmaes, which .* pip install 'paropt\[samplers\]'"):
        rehearse(space_of(WIDE), complete_sampler("RandomSampler"), MRR)


def test_a_sampler_of_numbers_needs_some() -> None:
    space = space_of({"loss": GRID["loss"]})
    with pytest.raises(StudyError, match="the space has none"):
        rehearse(space, {"name": "CmaEsSampler"}, MRR)
