"""``paropt compare``: several studies on the same data, at equal spend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paropt.errors import StudyError
from paropt.names import quoted
from paropt.results.final.final_test import latest_report
from paropt.results.spend_curve import Point, best_within, points
from paropt.search.history.equal_spend import LEAST_SPEND
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.search.study.summary import judged
from paropt.storage.connect import Storage


def compare(storage: Storage, names: Sequence[str]) -> dict[str, Any]:
    """Each study's best value at the spend that all of them reached, in device seconds.

    Raises:
        StudyError: a study is not there or has no value, they are of different data, or they
            maximise different metrics; names both.
    """
    studies: list[Study] = []
    try:
        for name in dict.fromkeys(names):
            studies.append(Study.load(storage.url, name))
        _check_alike(studies)
        found = {study.name: points(study) for study in studies}
        for name, ended in found.items():
            if not any(point.value is not None for point in ended):
                raise StudyError(
                    f"study {name!r} has no trial with a value yet; "
                    f"{quoted('launch', '--study', name)} goes on with it"
                )
        spend = max(LEAST_SPEND, min(ended[-1].spent for ended in found.values()))
        return {
            "metric": studies[0].definition.metric,
            "fingerprint": studies[0].definition.fingerprint,
            "split": "train → valid",
            "direction": studies[0].definition.direction,
            "evaluation": studies[0].definition.protocol.to_json(),
            "ties": studies[0].definition.protocol.ties,
            "spend": spend,
            "studies": [_row(study, found[study.name], spend) for study in studies],
        }
    finally:
        for study in studies:
            study.close()


def _check_alike(studies: Sequence[Study]) -> None:
    first = studies[0].definition
    for study in studies:
        if plan := study.definition.plan:
            raise StudyError(
                f"study {study.name!r} is part of a final test and searched nothing; "
                f"compare {plan['of']!r}"
            )
    for study in studies[1:]:
        for key, words in (
            ("fingerprint", "the data fingerprint"),
            ("metric", "the metric"),
            ("semantics", "the training semantics"),
            ("view", "the view"),
            ("evaluation", "the evaluation"),
        ):
            ours, theirs = _shown(first, key), _shown(study.definition, key)
            if ours != theirs:
                raise StudyError(
                    f"study {first.name!r} has {words} {ours}, and {study.name!r} has {theirs}; "
                    "they cannot be compared"
                )


def _shown(definition: StudyDefinition, key: str) -> Any:
    return definition.protocol.words() if key == "evaluation" else getattr(definition, key)


def _row(study: Study, ended: Sequence[Point], spend: float) -> dict[str, Any]:
    objective = study.definition.objective
    at_spend = best_within(ended, spend, objective)
    best = best_within(ended, ended[-1].spent, objective)
    devices = {str(t["owner"].get("device")) for t in study.trials() if t["owner"]}
    report = latest_report(study)
    return {
        "study": study.name,
        "models": study.space.models,
        "seed": study.definition.seed,
        "devices": sorted(devices),
        "trials": len(ended),
        "spent": ended[-1].spent,
        "at_spend": _judged(study, at_spend) if at_spend else None,
        "trials_at_spend": sum(point.spent <= spend for point in ended),
        "best": _judged(study, best) if best else None,
        "points": [{"spent": point.spent, "best": point.best} for point in ended],
        "floor": study.summary()["floor"],
        "test": _test(report),
    }


def _judged(study: Study, point: Point) -> dict[str, Any]:
    """A trial with what its value stands on."""
    record = next(r for r in study.history.all() if r.number == point.trial)
    beside = judged(point.value, record.best_report, study.definition.objective)
    return {**point.to_json(), **beside}


def _test(report: dict[str, Any] | None) -> dict[str, Any] | None:
    """The final test's number, if there was one."""
    if report is None or report["metric"] not in report["test"]["chosen"]["metrics"]:
        return None
    return {
        "final": report["final"],
        "looks": len(report["looks"]),
        "seeds": report["seeds"],
        **report["test"]["chosen"]["metrics"][report["metric"]],
    }
