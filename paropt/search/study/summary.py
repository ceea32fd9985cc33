"""What a study has found, in the words that programs and people read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paropt.search.space.space import Space
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.equal_spend import by_model
from paropt.search.study.history import Record, best_first, counts
from paropt.search.study.trial import metrics_at

if TYPE_CHECKING:
    from paropt.search.study.optuna_view import Memory


def described(record: Record, metric: str) -> dict[str, Any]:
    """One trial as a JSON object.

    ``epoch`` is the best epoch, whose metrics these are; ``epochs`` is how many were run.
    """
    epoch = record.end.get("epoch")
    curve = record.curve(metric)
    return {
        "trial": record.number,
        "state": record.state.lower(),
        "value": record.value,
        "epoch": epoch,
        "epochs": len(curve),
        "model": record.meta["model"],
        "params": dict(record.meta["params"]),
        "metrics": metrics_at(record.curves, epoch) if epoch else {},
        "curve": list(curve),
        "seed": record.meta["seed"],
        "root": record.root,
        "attempt": record.meta["attempt"],
        "why": record.end.get("why"),
        "message": record.end.get("message", ""),
        "seconds": sum(s for s in record.curves.get("seconds", []) if s is not None),
        "owner": {key: value for key, value in record.owner.items() if key != "token"},
    }


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
    unread: int = 0,
) -> dict[str, Any]:
    """A study as a JSON object; its keys are promised in docs/json.md."""
    best = best_first(lineages, definition.metric)[:1]
    shown = ("trial", "value", "epoch", "params", "metrics", "model", "seed")
    return {
        "study": definition.name,
        "model": "/".join(space.models),
        "metric": definition.metric,
        "fingerprint": definition.fingerprint,
        "data": definition.data_path,
        "state": state.get("state", "run"),
        "why": state.get("failures") or state.get("message", ""),
        "counts": counts(lineages),
        "budget": budget,
        "best": {k: v for k, v in described(best[0], definition.metric).items() if k in shown}
        if best
        else None,
        "by_model": by_model(lineages, space.models, definition.metric)
        if len(space.models) > 1
        else None,
        "floor": dict(floor),
        "unread": unread,
        "epochs": spent(lineages, definition.metric),
    }


def spent(lineages: Sequence[Record], metric: str) -> dict[str, int]:
    """Epochs that were ``run``, and those of pruned trials that were ``saved``."""
    pruned = [record for record in lineages if record.outcome == "pruned"]
    return {
        "run": sum(len(record.curve(metric)) for record in lineages),
        "saved": sum(int(r.meta["epochs"]) - len(r.curve(metric)) for r in pruned),
    }


def importances(memory: Memory) -> dict[str, float]:
    """PED-ANOVA (Watanabe et al., IJCAI 2023) over the trials with a value, largest first."""
    import optuna

    study = memory.study()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # "equal, for want of trials"
            found = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError, UserWarning):
        return {}  # too few trials, or all alike
    return {name: float(value) for name, value in found.items()}
