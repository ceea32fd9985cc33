"""The sampler's densities against arithmetic, what trials tell it, and what is drawn together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from paropt.search.history.history import Record
from paropt.search.space.file import from_json
from paropt.search.space.space import Space
from paropt.search.strategy.tpe import Density, Proposer, Seen, Told
from paropt.training.evaluation.limits import read_limits
from paropt.training.evaluation.objective import Objective

METRIC = "mrr@20"
RATE = {"type": "float", "low": 0.001, "high": 1.0, "log": True}
LAYERS = {"type": "int", "low": 32, "high": 96, "step": 32}
LOSS = {"type": "categorical", "choices": ["xe", "bpr", "gbce"]}
FREE = {"type": "float", "low": 0.0, "high": 2.0}


def space_of(**search: Any) -> Space:
    return from_json({"model": "gru4rec", "search": search})


def density(space: Space, *configs: dict[str, Any]) -> Density:
    return Density(space.searched, configs)


def record(number: int, state: str, curve: list[float], why: str = "", **searched: Any) -> Record:
    meta = {"root": number, "model": "gru4rec", "searched": searched}
    value = max(curve) if curve and state in ("COMPLETE", "PRUNED") else None
    end = {"why": why or state.lower(), "epoch": 1, "measures": searched}
    return Record(number, number, state, value, None, None, meta, {}, {METRIC: curve}, end)


def normal(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def kernel(x: float, at: float, width: float) -> float:
    """A normal density on [0, 1]."""
    inside = normal((1 - at) / width) - normal(-at / width)
    return math.exp(-(((x - at) / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi) * inside)


def test_a_density_is_a_mixture_with_a_wide_kernel() -> None:
    found = density(space_of(momentum=FREE), {"momentum": 0.5}, {"momentum": 2.0})
    width = max(0.2 * 2 ** (-1 / 5), 1 / 4)  # two trials, one parameter; at least 1 / (2 + 2)
    for x in (0.0, 0.3, 1.0):
        wanted = (kernel(x, 0.25, width) + kernel(x, 1.0, width) + kernel(x, 0.5, 1.0)) / 3
        assert found.log_at(np.array([[x]])) == pytest.approx(math.log(wanted))


def test_choices_are_those_seen_and_now_and_then_others() -> None:
    found = density(space_of(loss=LOSS), {"loss": "bpr"}, {"loss": "bpr"}, {"loss": "gbce"})
    # kernels of three trials and the wide one; each has a quarter of a trial for every choice
    others, own = 0.25 / 1.75, 1.25 / 1.75
    wanted = [
        (3 * others + 1 / 3) / 4,
        (2 * own + others + 1 / 3) / 4,
        (2 * others + own + 1 / 3) / 4,
    ]
    assert sum(wanted) == pytest.approx(1)
    assert np.exp(found.log_at(np.array([[0.0], [1.0], [2.0]]))) == pytest.approx(wanted)


def test_choices_that_are_numbers_lie_in_their_order() -> None:
    sizes = {"type": "categorical", "choices": [256, 64, 128, 32]}
    found = density(space_of(layers=sizes), {"layers": 64})
    (axis,) = found.axes
    places = (0.125, 0.375, 0.625, 0.875)
    assert [axis.value(place) for place in places] == [32, 64, 128, 256]
    assert [axis.place(size) for size in (32, 64, 128, 256)] == list(places)
    width = max(0.2, 1 / 3)  # of one trial; at least 1 / (2 + 1)
    for x in places:
        wanted = (kernel(x, 0.375, width) + kernel(x, 0.5, 1.0)) / 2
        assert found.log_at(np.array([[x]])) == pytest.approx(math.log(wanted))
    drawn = found.sample(np.random.default_rng(1), 2_000)[:, 0]
    assert {axis.value(place) for place in drawn} == {32, 64, 128, 256}
    assert set(drawn) == set(places)


@pytest.mark.parametrize("choices", [[0, 1], [True, False, "auto"], [1, "auto", 4]])
def test_others_have_no_order(choices: list[Any]) -> None:
    (axis,) = density(space_of(logq={"type": "categorical", "choices": choices})).axes
    assert axis.choices == tuple(choices)
    assert axis.place(choices[1]) == 1.0


def test_several_parameters_are_one_density() -> None:
    space = space_of(learning_rate=RATE, loss=LOSS, momentum=FREE)
    found = density(space, {"learning_rate": 0.01, "loss": "xe", "momentum": 0.5})
    rng = np.random.default_rng(1)
    drawn = np.column_stack([rng.random(40_000), rng.integers(0, 3, 40_000), rng.random(40_000)])
    assert 3 * np.exp(found.log_at(drawn)).mean() == pytest.approx(1, abs=0.02)


def test_samples_follow_the_density() -> None:
    space = space_of(layers=LAYERS, momentum=FREE, loss=LOSS)
    config = {"layers": 96, "momentum": 0.2, "loss": "gbce"}
    found = density(space, *[config] * 40)
    drawn = found.sample(np.random.default_rng(1), 4_000)
    columns = {axis.parameter.label: column for column, axis in enumerate(found.axes)}
    assert set(drawn[:, columns["layers"]].round(4)) == {0.1667, 0.5, 0.8333}
    edges = np.linspace(0, 1, 6)
    alone = density(space_of(momentum=FREE), *[config] * 40)
    alone.width[:-1] = found.width[0]
    grid = (np.arange(5_000) + 0.5) / 5_000
    mass = np.exp(alone.log_at(grid[:, None])).reshape(5, -1).mean(1) / 5
    counts, _ = np.histogram(drawn[:, columns["momentum"]], edges)
    assert counts / 4_000 == pytest.approx(mass, abs=0.02)
    whole = 25 + sum(1 / 40 + k * (39 / 40) / 14 for k in range(15)) + 1  # of the weights
    own = (1 + 1 / 41) / (1 + 3 / 41)
    wanted = (own * (whole - 1) + 1 / 3) / whole
    assert (drawn[:, columns["loss"]] == 2).mean() == pytest.approx(wanted, abs=0.01)


def test_bad_trials_weigh_less_the_older_they_are() -> None:
    weights = density(space_of(momentum=FREE), *[{"momentum": 1.0}] * 29).weights
    wanted = [1 / 29, *[1 / 29 + k * (28 / 29) / 3 for k in (1, 2, 3)], *[1.0] * 26]
    assert weights == pytest.approx(np.array(wanted) / sum(wanted))


def test_what_trials_tell() -> None:
    told = Told(Objective(METRIC)).of(
        [
            record(4, "PRUNED", [0.6, 0.5], x=4),
            record(0, "COMPLETE", [0.1, 0.3], x=0),
            record(1, "COMPLETE", [0.2, 0.4], x=1),
            record(2, "PRUNED", [0.9], x=2),
            record(3, "FAIL", [], "lost", x=3),
            record(5, "RUNNING", [0.9], x=5),
            record(6, "PRUNED", [], "oom", x=6),
        ]
    )
    assert [one.searched["x"] for one in told] == [0, 1, 2, 4, 5, 6]  # oldest first
    ranked = sorted((one.rank, one.searched["x"]) for one in told if one.rank is not None)
    # the complete, the better first; the pruned, the longer first; out of memory last
    assert [x for _, x in ranked] == [1, 0, 4, 2, 6]
    assert [one.searched["x"] for one in told if one.rank is None] == [5]


def test_what_is_beyond_a_limit_is_worse_than_whatever_is_within() -> None:
    objective = Objective(METRIC, limits=read_limits(["parameters<=10"]))
    told = Told(objective).of(
        [
            record(0, "COMPLETE", [0.9], parameters=30),
            record(1, "PRUNED", [0.1], parameters=10),
            record(2, "COMPLETE", [0.8], parameters=20),
        ]
    )
    ranked = sorted((one.rank, one.searched["parameters"]) for one in told if one.rank)
    assert [parameters for _, parameters in ranked] == [10, 20, 30]


def test_parameters_under_one_condition_are_judged_among_their_own() -> None:
    """Of gbce's trials none is among the best of all; of its own the best tenth is."""
    loss = {"type": "categorical", "choices": ["xe", "gbce"]}
    space = space_of(loss=loss, momentum=FREE | {"when": {"loss": "gbce"}})
    seen = [Seen({"loss": "xe"}, (0.0, 0.0, -1.0 - k)) for k in range(40)]
    seen += [Seen({"loss": "gbce", "momentum": 2 * k / 40}, (0.0, 0.0, -k / 40)) for k in range(41)]
    proposer = Proposer(space, seen, candidates=24)
    drawn = [proposer.draw(np.random.default_rng(seed)) for seed in range(60)]
    assert sum(config["loss"] == "xe" for config in drawn) > 50
    of_gbce = proposer._group_of["momentum"]
    places = np.array([[0.2], [0.9], [0.5]])
    assert of_gbce.improvement(places).argmax() == 1
    assert of_gbce.values(places[1]) == {"momentum": 1.8}
    assert all(("momentum" in config) == (config["loss"] == "gbce") for config in drawn)


def test_proposals_lie_where_trials_were_good_and_not_where_others_are_at_it() -> None:
    space = space_of(momentum=FREE)
    seen = [Seen({"momentum": k / 20}, (0.0, 0.0, abs(k / 20 - 1.5))) for k in range(41)]

    def mean(more: list[Seen]) -> float:
        proposer = Proposer(space, seen + more, candidates=24)
        drawn = [proposer.draw(np.random.default_rng(k))["momentum"] for k in range(40)]
        return float(np.mean(drawn))

    assert mean([]) == pytest.approx(1.5, abs=0.1)
    running = [Seen({"momentum": 1.45 + k / 1_000}, None) for k in range(12)]
    assert mean(running) > 1.55


def test_of_equal_promises_the_cheapest_is_taken() -> None:
    space = space_of(momentum=FREE)
    plain = [Proposer(space, [], 24).draw(np.random.default_rng(seed)) for seed in range(9)]

    class Costs:
        """An epoch takes twice as long for each .1 of momentum."""

        def at(self, sizes: Any) -> Any:
            return 2 ** (10 * sizes[:, 0])

    def sizes(space: Space, config: dict[str, Any]) -> Any:
        return np.array([config["momentum"]])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paropt.search.strategy.tpe.sizes_of", sizes)
        cheap = Proposer(space, [], 24, lambda model: Costs())
        drawn = [cheap.draw(np.random.default_rng(seed)) for seed in range(9)]
    # each the least of 24 that are evenly spread over 0 to 2
    assert np.mean([one["momentum"] for one in drawn]) < 0.2
    assert np.mean([one["momentum"] for one in plain]) > 0.5


@pytest.mark.parametrize("loss", [{"fixed": {"loss": "b"}}, {"choices": ["b"]}])
def test_a_cost_is_seen_where_a_condition_has_one_value(loss: dict[str, Any]) -> None:
    """``n_sample`` is in force as long as the loss is b, which nobody chooses."""
    search: dict[str, Any] = {
        "n_sample": {"type": "categorical", "choices": [64, 256, 1024], "when": {"loss": "b"}}
    }
    if choices := loss.get("choices"):
        search = {"loss": {"type": "categorical", "choices": choices}, **search}
    space = from_json({"model": "gru4rec", "fixed": loss.get("fixed", {}), "search": search})
    seen: list[float] = []

    class Costs:
        def at(self, sizes: Any) -> Any:
            seen.extend(np.exp(sizes[:, -1]).round().tolist())
            return np.ones(len(sizes))

    Proposer(space, [], 24, lambda model: Costs()).draw(np.random.default_rng(1))
    assert set(seen) == {64, 256, 1024}
