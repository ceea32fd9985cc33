"""What came of one training or of one test, beside its floors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.objective import Objective, flattered
from paropt.training.evaluation.ranking.judging import Evaluation
from paropt.training.metrics import DEFAULT


@dataclass(frozen=True)
class RunResult:
    """What ``train --json`` and ``evaluate --json`` print; see docs/json.md.

    ``floor`` is None where the model was trained on other data than it is tested on; ``cold`` are
    the targets that training never saw, where they were asked for; ``begun_from`` the model that
    it began with; ``trained_on`` the split of a saved model that is evaluated.
    """

    model: str
    metrics: dict[str, float]
    targets: int
    unknown: int
    seconds: float
    events_per_second: float
    params: dict[str, Any]
    fingerprint: str
    seed: int
    split: str
    ties: str
    filter_seen: bool
    threads: int
    device: str
    epochs: int
    floor: dict[str, dict[str, float]] | None
    best_epoch: int | None = None
    stage: str | None = None
    loss: float | None = None
    saved: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    metric: str = DEFAULT
    interval: tuple[float, float] | None = None
    with_misses: float | None = None
    sessions: int | None = None
    tied: float | None = None
    conservative: dict[str, float] = field(default_factory=dict)
    stderr: dict[str, float] = field(default_factory=dict)
    candidates: str = "all"
    cold: dict[str, Any] | None = None
    begun_from: dict[str, Any] | None = None
    trained_on: str | None = None


def standing(found: EpochReport | Evaluation, objective: Objective) -> dict[str, Any]:
    """What an outcome's numbers stand on."""
    report = found if isinstance(found, EpochReport) else found.report()
    value, error = objective.value(report), report.stderr.get(objective.metric)
    exact = value is not None and error is not None and not flattered(report)
    known = value is not None and report.targets is not None
    return {
        "metric": objective.metric,
        "interval": objective.interval(value or 0.0, error or 0.0) if exact else None,
        "with_misses": objective.with_misses(value or 0.0, report.targets or 0, report.unknown or 0)
        if known
        else None,
        "sessions": report.sessions,
        "tied": report.tied,
        "conservative": dict(report.conservative),
        "stderr": dict(report.stderr),
    }
