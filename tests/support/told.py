"""Studies in a real database whose trials a test tells epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paropt.search.study.study import Study
from paropt.search.study.trial import Trial
from paropt.training.evaluation.epochs import EpochReport

SPACE: dict[str, Any] = {
    "model": "gru4rec",
    "fixed": {"loss": "bpr-max", "n_epochs": 4},
    "search": {
        "layers": {"type": "int", "low": 32, "high": 512, "step": 32},
        "learning_rate": {"type": "float", "low": 0.01, "high": 0.3, "log": True},
        "final_act": {"type": "categorical", "choices": ["elu-0.5", "linear"]},
    },
}
OWNER = {"host": "here", "slot": "here/0", "device": "cpu", "threads": 1}
OTHER = {"host": "there", "slot": "there/0"}

Open = Callable[..., Study]
Stored = Callable[[Trial], Any]
LONGER = {**SPACE, "fixed": {**SPACE["fixed"], "n_epochs": 9}}


def take(study: Study, owner: dict[str, Any] = OWNER) -> Trial:
    trial = study.next_trial(owner)
    assert trial is not None
    return trial


def epoch(number: int, mrr: float, **more: Any) -> dict[str, Any]:
    return {
        "event": "epoch", "epoch": number, "metrics": {"mrr@20": mrr, "recall@20": mrr + 0.1},
        "loss": 1.0 / number, "seconds": 2.0, "events_per_second": 100.0, **more,
    }  # fmt: skip


def told(trial: Trial, values: list[float], first: int = 1) -> list[bool]:
    reports = (epoch(number, value) for number, value in enumerate(values, first))
    return [trial.report(EpochReport.from_json(report)) for report in reports]
