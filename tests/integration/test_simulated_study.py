"""The simulator decides as a study in a real database does."""

from __future__ import annotations

from typing import Any

import pytest
from replay import METRIC, Job, Ours, World, run
from strategies import Strategy

from paropt.search.space.file import from_json
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.objective import Objective

pytestmark = pytest.mark.postgres

EPOCHS, TRIALS = 5, 30
SPACE = {
    "model": "gru4rec",
    "fixed": {"n_epochs": EPOCHS},
    "search": {
        "layers": {"type": "int", "low": 32, "high": 512, "step": 32},
        "learning_rate": {"type": "float", "low": 0.01, "high": 0.3, "log": True},
    },
    "start": [{"layers": 96, "learning_rate": 0.2}],
}


class Known(World):
    """Answers by arithmetic instead of a table."""

    def __init__(self) -> None:
        self.surrogate = self  # type: ignore[assignment]
        self.table = self
        self.curves = type("Curves", (), {"shape": (0, EPOCHS)})

    def train(self, config: dict[str, Any], index: int) -> tuple[list[float], float, float]:
        final = 0.3 - abs(config["learning_rate"] - 0.1) - abs(config["layers"] - 256) / 5000
        curve = [final * (1 - 0.5**k) for k in range(1, EPOCHS + 1)]
        return curve, 1.0 / EPOCHS, final


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_the_same_trials_and_the_same_cuts(module_database_url: str, pruner: str) -> None:
    space = from_json(SPACE)
    world = Known()
    definition = StudyDefinition(
        f"simulated-{pruner}", space.to_json(), METRIC, [20], "/data", "abc", seed=7,
        pruner={"name": pruner},
    )  # fmt: skip
    study = Study.create(module_database_url, definition, budget=TRIALS)
    found: list[tuple[dict[str, Any], str, int]] = []
    for _ in range(TRIALS):
        trial = study.next_trial({"host": "here"})
        assert trial is not None
        curve, _, _ = world.train(trial.params, 0)
        for number, value in enumerate(curve, 1):
            event = {"epoch": number, "metrics": {METRIC: value}, "loss": 1.0, "seconds": 1.0}
            if trial.report(EpochReport.from_json(event)) and number < EPOCHS:
                trial.prune()
                break
        else:
            trial.complete()
        searched = {key: trial.params[key] for key in ("layers", "learning_rate")}
        found.append((searched, "pruned" if number < EPOCHS else "complete", number))
    study.close()

    search = Ours(space, Strategy(pruner=pruner), 7)
    ended: list[Job] = []
    end = search.end

    def ending(job: Job, pruned: bool) -> None:
        end(job, pruned)
        ended.append(job)

    search.end = ending  # type: ignore[method-assign]
    run(search, world, TRIALS, 1)
    simulated = [
        (dict(record.meta["searched"]), record.outcome, len(record.curve(Objective(METRIC))))
        for record in list(search.history.records.values())[:TRIALS]
    ]
    assert len(ended) >= TRIALS
    assert simulated == found
    assert {state for _, state, _ in found} == {"pruned", "complete"}
