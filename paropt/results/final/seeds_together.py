"""The seeds of one configuration as one model, judged on the test as each of them was.

Seeds score on scales of their own, so what is averaged are standardised scores: with x_s(i) what
seed s gives item i for a target, m_s and d_s their mean and standard deviation over the catalogue,
the ensemble of S seeds gives it Σ_s (x_s(i) − m_s) / d_s / S
(:mod:`paropt.training.saved_model.ensemble`). The trainers of a final test's second part keep their
models (:attr:`paropt.worker.checkpoints.Checkpoints.models`), so nothing is trained again, and
targets are taken a block at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paropt.errors import ParoptError
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import EvaluationProtocol

if TYPE_CHECKING:
    from paropt.data.dataset import View
    from paropt.training.evaluation.bootstrap import Sample


@dataclass(frozen=True)
class Together:
    """Several seeds as one model: its ``metrics``, and what intervals follow from.

    ``models`` are the members' directories by seed; ``why`` says why there is no such model.
    """

    models: Mapping[int, Path] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    sample: Sample | None = None
    why: str = ""

    def to_json(self, each: Sample | None) -> dict[str, Any]:
        """As a report holds it; ``each`` is the mean of its members, each by itself."""
        if self.why:
            return {"why": self.why}
        bounds = self.sample.intervals() if self.sample else {}
        above = self.sample.above(each) if self.sample and each else {}
        return {
            "why": None,
            "models": {str(seed): str(path) for seed, path in self.models.items()},
            "metrics": {
                name: {"mean": value, "interval": list(bounds[name]) if name in bounds else None}
                for name, value in self.metrics.items()
            },
            "difference": {
                name: {"mean": mean, "interval": [low, high]}
                for name, (mean, low, high) in above.items()
            },
        }


@dataclass(frozen=True)
class Judging:
    """How a test judges: on ``view``, by metrics at the cut-offs ``at`` and those of ``also``."""

    view: View
    at: Sequence[int]
    also: Sequence[str]
    objective: Objective
    protocol: EvaluationProtocol
    device: str = "cpu"


def together(models: Mapping[int, Path], judging: Judging) -> Together:
    """The models of these seeds as one, judged on the view's test."""
    from paropt.training.evaluation.ranking.judging import evaluate
    from paropt.training.metrics import is_measure
    from paropt.training.recommending.dataset_events import split_events
    from paropt.training.saved_model.ensemble import load_models

    away = [seed for seed, path in models.items() if not path.is_dir()]
    if away:
        seeds = f"seed{'s' * (len(away) > 1)} {', '.join(map(str, away))}"
        return Together(why=f"what {seeds} became was not kept on this machine")
    view, objective, protocol = judging.view, judging.objective, judging.protocol
    try:
        saved = load_models(list(models.values()), judging.device)
        found = evaluate(
            saved.model,
            split_events(saved, view.dataset, view.test.name),
            saved.n_items,
            at=judging.at,
            also=[name for name in judging.also if not is_measure(name)],
            objective=objective,
            ties=protocol.ties,
            filter_seen=protocol.filter_seen,
        )
    except ParoptError as error:
        return Together(why=str(error))
    return Together(models, found.metrics, found.sample(view.test.n_sessions, objective))
