"""What a study has found, in the words that programs and people read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paropt.search.history.equal_spend import by_model
from paropt.search.history.history import Record, best_first, counts
from paropt.search.space.space import Space
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.front import described_front
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.limits import broken
from paropt.training.evaluation.objective import Objective, flattered
from paropt.training.evaluation.words import experts
from paropt.training.metrics import MEASURES, picked

if TYPE_CHECKING:
    import optuna

    from paropt.search.strategy.optuna_view import OptunaView

LEAST_TRIALS = 10  # with a value, of which importances are told


def described(record: Record, objective: Objective) -> dict[str, Any]:
    """One trial as a JSON object.

    ``epoch`` is the best epoch, whose metrics these are; ``epochs`` is how many were run.
    """
    report = record.best_report
    curve = record.curve(objective)
    return {
        "trial": record.number,
        "state": record.state.lower(),
        "value": record.value,
        "steady": record.worth(objective),
        "epoch": record.end.get("epoch"),
        "epochs": len(curve),
        "model": record.meta["model"],
        "params": dict(record.meta["params"]),
        "metrics": dict(report.metrics) if report else {},
        "measures": picked(record.values, MEASURES),
        "beyond": broken(objective.limits, record.values),
        **judged(record.value, report, objective),
        "stages": objective.stages(record.reports, report) if report else {},
        "curve": list(curve),
        "seed": record.meta["seed"],
        "root": record.root,
        "attempt": record.meta["attempt"],
        "why": record.end.get("why"),
        "message": record.end.get("message", ""),
        "seconds": record.seconds,
        "owner": {key: value for key, value in record.owner.items() if key != "token"},
    }


# what a trial's value stands on, by the keys that described() has beside it
JUDGED = (
    "interval", "with_misses", "targets", "unknown", "sessions", "tied", "conservative", "stage",
    "given", "memory", "experts",
)  # fmt: skip


def judged(value: float | None, report: EpochReport | None, objective: Objective) -> dict[str, Any]:
    """What a value stands on: its interval, its targets, those left out, equal scores.

    Each is None where it is not known: in trials of paropt 0.1, and where a model judges itself.
    """
    found: dict[str, Any] = dict.fromkeys(JUDGED)
    if value is None or report is None:
        return found
    error = report.stderr.get(objective.metric)
    if error is not None and not flattered(report):
        found["interval"] = list(objective.interval(value, error))
    if report.targets is not None and report.unknown is not None:
        found["with_misses"] = objective.with_misses(value, report.targets, report.unknown)
    found |= {key: getattr(report, key) for key in ("targets", "unknown", "sessions", "tied")}
    found |= {"conservative": dict(report.conservative) or None, "stage": report.stage}
    found |= {key: report.extra.get(key) for key in ("given", "memory")}
    found["experts"] = experts(report.extra) or None
    return found


def diagnostics(record: Record) -> list[dict[str, Any]]:
    """What the model said of itself after each epoch (``Model.end_epoch``)."""
    return [extra or {} for extra in record.curves.get("extra", [])]


def summary(
    definition: StudyDefinition,
    space: Space,
    lineages: Sequence[Record],
    *,
    budget: int | None,
    state: Mapping[str, Any],
    floor: Mapping[str, Any],
    seconds_left: float | None = None,
    unread: int = 0,
    budgets: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A study as a JSON object; its keys are promised in docs/json.md."""
    objective = definition.objective
    first, second = (*best_first(lineages, objective)[:2], None, None)[:2]
    return {
        "study": definition.name,
        "model": "/".join(space.models),
        "metric": definition.metric,
        "direction": definition.direction,
        "evaluation": definition.protocol.to_json(),
        "fingerprint": definition.fingerprint,
        "data": definition.data_path,
        "begin": dict(definition.begin) or None,
        "heartbeat": definition.heartbeat,
        "state": state.get("state", "run"),
        "why": state.get("failures") or state.get("message", ""),
        "counts": counts(lineages),
        "budget": budget,
        "seconds_left": seconds_left,
        **(budgets or {"device_seconds": None, "stale": None, "over": ""}),
        "best": _shown(first, objective),
        "runner_up": _runner_up(first, second, objective),
        "by_model": by_model(lineages, space.models, objective) if len(space.models) > 1 else None,
        "floor": dict(floor),
        "below_floor": below_floor(first.value, floor, objective) if first else [],
        "unread": unread,
        "epochs": spent(lineages, objective),
        "constraints": constraints(lineages, objective),
        "pareto": described_front(lineages, definition) if definition.beside else None,
    }


def constraints(lineages: Sequence[Record], objective: Objective) -> dict[str, Any] | None:
    """What the study's limits did so far: by the text of each how many configurations are beyond
    it, and how many with a value ``keep`` to all. None without limits."""
    if not objective.limits:
        return None
    ended = [record for record in lineages if not record.open]
    return {
        "limits": {
            limit.text: sum(bool(broken([limit], record.values)) for record in ended)
            for limit in objective.limits
        },
        "keep": sum(record.scored and record.keeps(objective) for record in ended),
    }


def _shown(best: Record | None, objective: Objective) -> dict[str, Any] | None:
    if best is None:
        return None
    shown = (
        "trial", "value", "steady", "epoch", "stages", "params", "metrics", "measures", "model",
        "seed",
    )  # fmt: skip
    found = described(best, objective)
    return {key: found[key] for key in (*shown, *JUDGED)}


def _runner_up(
    best: Record | None, second: Record | None, objective: Objective
) -> dict[str, Any] | None:
    """The second best trial; ``within_noise``: its value is inside the best one's interval."""
    if best is None or second is None or second.value is None:
        return None
    bounds = judged(best.value, best.best_report, objective)["interval"]
    within = None if bounds is None else bounds[0] <= second.value <= bounds[1]
    return {"trial": second.number, "value": second.value, "within_noise": within}


def below_floor(
    value: float | None, floor: Mapping[str, Mapping[str, float]], objective: Objective
) -> list[str]:
    """The names of what needs no training and is as good as ``value``, or better."""
    found = {name: objective.of(values) for name, values in floor.items()}
    return [
        name
        for name, of in found.items()
        if value is not None and of is not None and not objective.better(value, of)
    ]


def spent(lineages: Sequence[Record], objective: Objective) -> dict[str, int]:
    """Epochs that were ``run``, those of pruned trials that were ``saved``, and those that
    ``rested`` trials, complete before their last one, had no use for (``unneeded``)."""
    left = [(r.outcome, int(r.meta["epochs"]) - len(r.curve(objective))) for r in lineages]
    rested = [epochs for outcome, epochs in left if outcome == "complete" and epochs > 0]
    return {
        "run": sum(len(record.curve(objective)) for record in lineages),
        "saved": sum(epochs for outcome, epochs in left if outcome == "pruned"),
        "rested": len(rested),
        "unneeded": sum(rested),
    }


@dataclass(frozen=True)
class Importance:
    """How much the parameters of one model matter.

    ``shares`` sum to 1, largest first, as ``trials`` tell; ``untold`` are the parameters that only
    some of these trials have, so that they cannot be weighed against the others.
    """

    model: str
    shares: Mapping[str, float]
    trials: int
    untold: Sequence[str] = ()


def importances(view: OptunaView, space: Space, lineages: Sequence[Record]) -> list[Importance]:
    """PED-ANOVA (Watanabe et al., IJCAI 2023) of each model's own parameters, over its trials with
    a value; models with fewer than :data:`LEAST_TRIALS` of them are left out.

    Over all models at once, only what all of them have could be weighed: the model.
    """
    found = []
    names = {parameter.label: parameter.name for parameter in space.searched}
    for model in space.models:
        records = [r for r in lineages if r.scored and r.meta["model"] == model]
        if len(records) < LEAST_TRIALS:
            continue
        had = [set(record.meta["searched"]) - {"model"} for record in records]
        shared = sorted(set.intersection(*had))
        shares = _shares(view.study({record.number for record in records}), shared)
        untold = sorted({names[label] for label in set.union(*had) - set(shared)})
        if shares:
            named = {names[label]: share for label, share in shares.items()}
            found.append(Importance(model, named, len(records), untold))
    return found


def _shares(study: optuna.Study, params: list[str]) -> dict[str, float]:
    """By label, largest first; none for too few trials, or if all are alike."""
    import optuna

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what it says for want of trials
            found = optuna.importance.get_param_importances(study, params=params)
    except (ValueError, RuntimeError):
        return {}
    if len(found) > 1 and len(set(found.values())) == 1:
        return {}  # that is how it says that it does not know
    return {name: float(value) for name, value in found.items()}
