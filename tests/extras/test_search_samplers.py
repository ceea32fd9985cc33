"""CMA-ES, whose optimiser is worked out from the history: nothing pickled is ever stored."""

from __future__ import annotations

import math

import pytest

from paropt.search.history.history import History, Record
from paropt.search.space.file import from_json
from paropt.search.strategy.sampling import Sampler, complete_sampler, rehearse
from paropt.training.evaluation.objective import Objective

pytestmark = pytest.mark.extras

MRR = Objective("mrr@20")
SPACE = from_json(
    {
        "model": "gru4rec",
        "search": {
            "learning_rate": {"type": "float", "low": 0.001, "high": 1.0, "log": True},
            "momentum": {"type": "float", "low": 0.0, "high": 1.0},
        },
    }
)


def worth(learning_rate: float, momentum: float) -> float:
    return -((math.log10(learning_rate) + 1.5) ** 2) - (momentum - 0.3) ** 2


def test_cma_es_closes_in_on_the_best_and_every_worker_has_its_state() -> None:
    options = complete_sampler({"name": "CmaEsSampler", "sigma0": 0.2})
    rehearse(SPACE, options, MRR)
    sampler, history, values = Sampler(SPACE, options, 1, MRR), History(0), []
    for number in range(60):
        config = sampler.draw(history)
        assert config is not None
        values.append(value := worth(config["learning_rate"], config["momentum"]))
        meta = {"root": number, "searched": sampler.searched(config), "model": "gru4rec"}
        curves, end = {"mrr@20": [value]}, {"why": "complete", "epoch": 1}
        history.records[number] = Record(
            number, number, "COMPLETE", value, None, None, meta, {}, curves, end
        )
    assert sum(values[-10:]) / 10 > sum(values[:10]) / 10 / 2
    assert sampler.draw(history) == Sampler(SPACE, options, 1, MRR).draw(history)
