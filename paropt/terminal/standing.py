"""What a study's best value stands on, in lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paropt.names import baseline
from paropt.search.study.summary import below_floor
from paropt.training.evaluation.objective import NOTICEABLE, Objective
from paropt.training.evaluation.protocol import EvaluationProtocol
from paropt.training.evaluation.words import by_itself, cautions, coverage, value_words

Status = Mapping[str, Any]


def objective_of(status: Status) -> Objective:
    """What the study looks for."""
    return Objective(status["metric"], status.get("direction", "maximize"))


def budget_lines(status: Status) -> list[str]:
    """What is used of device hours, and of trials without a better one."""
    lines = []
    if device := status.get("device_seconds"):
        spent, budget = device["spent"] / 3600, device["budget"] / 3600
        lines.append(f"{spent:.4g} of {budget:.4g} device hours used")
    if stale := status.get("stale"):
        since, most = stale["since_better"], stale["budget"]
        lines.append(f"nothing better in the last {since} finished trials of {most} allowed")
    return lines


def constraint_lines(status: Status) -> list[str]:
    """The study's limits, and how many configurations are beyond each."""
    found = status.get("constraints")
    if not found:
        return []
    told = [
        limit + (f" ({count} beyond)" if count else "") for limit, count in found["limits"].items()
    ]
    keep, done = found["keep"], status["counts"]["complete"] + status["counts"]["pruned"]
    words = [f"constraints: {', '.join(told)}"]
    if done:
        words.append(f"{keep} of {done} with a value keep to them")
    return ["; ".join(words)]


def standing(status: Status) -> list[str]:
    """Targets and rules, the best value with its interval, and what a reader must know of it."""
    rules = EvaluationProtocol.from_json(status.get("evaluation", {})).words()
    best = status["best"]
    if best is None:
        return [rules]
    objective = objective_of(status)
    ranked = coverage(best)
    lines = [ranked if by_itself(best) else f"{ranked}; {rules}" if ranked else rules]
    if best.get("interval") or best.get("unknown"):
        lines.append(f"{objective.metric} {value_words(best, best['value'])}")
    runner_up = status.get("runner_up")
    if runner_up and runner_up["within_noise"]:
        lines.append(
            f"trial {runner_up['trial']} with {runner_up['value']:.4f} is the same within noise"
        )
    return lines + [f"Warning: {line}" for line in _warnings(status, objective)]


def _warnings(status: Status, objective: Objective) -> list[str]:
    best, floor = status["best"], status["floor"]
    lines = []
    if above := below_floor(best["value"], floor, objective):
        told = [f"{baseline(name)} reaches {objective.of(floor[name]):.4f}" for name in above]
        lines.append(f"without any training, {' and '.join(told)}: no trial has learned more")
    return lines + cautions(best, objective, ranked_by=", and the trial is ranked by that")


def tie_mark(trial: Mapping[str, Any]) -> str:
    """What stands behind the value of a trial whose equal scores count against it."""
    return " (ties)" if (trial.get("tied") or 0.0) > NOTICEABLE else ""


def remarks(trial: Mapping[str, Any], status: Status) -> str:
    """What follows a trial's value in a line: floors that it does not beat, and equal scores."""
    objective = objective_of(status)
    above = below_floor(trial["value"], status["floor"], objective)
    floors = f", no better than {' and '.join(map(baseline, above))}" if above else ""
    tied = trial.get("tied") or 0.0
    ties = f", {tied:.0%} of its targets tie, counted against it" if tied > NOTICEABLE else ""
    return floors + ties
