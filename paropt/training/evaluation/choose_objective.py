"""What a training or a study is to look for, as far as its models can report that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paropt.errors import ParamError
from paropt.training import registry
from paropt.training.evaluation.limits import Limit, read_limits
from paropt.training.evaluation.objective import Objective
from paropt.training.metrics import CUTOFF, Direction, canonical, direction_of, is_measure, recorded


def objective_of(
    metric: str | None, models: Sequence[str], at: Sequence[int] = (CUTOFF,)
) -> Objective:
    """The objective by its text; None: mrr@20 (or at the deepest cut-off of ``at``, if 20 is none
    of them), or what models that judge themselves report first.

    Raises:
        ParamError: there is no such metric, or some of the models do not report it.
        ModelError: there is no such model.
    """
    own = {model: registry.own_metrics(model) for model in models if registry.judges_itself(model)}
    ranked = [model for model in models if model not in own]
    declared: dict[str, Direction] = {name: d for of in own.values() for name, d in of.items()}
    if metric is None:
        first = next(iter(declared), None) if not ranked else None
        usual = Objective(f"mrr@{CUTOFF if CUTOFF in at else max(at)}")
        return Objective(first, declared[first]) if first else usual
    silent = any(not of for of in own.values())  # it declares nothing, so any name may be one
    try:
        objective = Objective.parse(metric, declared)
    except ParamError:
        if not silent or ranked:
            raise
        return Objective(metric.strip())
    for model, of in own.items():
        if of and (missing := [name for name in objective.names if name not in of]):
            raise ParamError(
                f"--metric {metric}: {model} judges itself and reports {', '.join(of)}, "
                f"not {missing[0]}"
            )
    if ranked and (others := [name for name in objective.names if name in declared]):
        raise ParamError(
            f"--metric {metric}: {ranked[0]} is judged by ranking, which has no {others[0]}"
        )
    return objective


def more_metrics(names: Sequence[str], models: Sequence[str] = ()) -> list[str]:
    """Metrics and measures to report beside the objective, each once.

    ``models`` may report metrics of their own.

    Raises:
        ParamError: there is no such metric.
    """
    own = _declared(models)
    return list(dict.fromkeys(recorded(name, own) for text in names for name in text.split(",")))


def limits_of(texts: Sequence[str], models: Sequence[str]) -> tuple[Limit, ...]:
    """What ``--constraint`` says, as far as all of the models report it.

    Raises:
        ParamError: it is no limit, two contradict each other, or a model reports no such metric.
    """
    limits = read_limits(texts, _declared(models))
    for limit in limits:
        silent = [model for model in models if not _reports(model, limit.name)]
        if silent:
            raise ParamError(
                f"--constraint {limit.text}: {silent[0]} reports no {limit.name}, so that none of "
                "its trials could keep to it"
            )
    return limits


def _reports(model: str, name: str) -> bool:
    if is_measure(name):
        return True
    if registry.judges_itself(model):
        own = registry.own_metrics(model)
        return name in own or not own
    try:
        return canonical(name) == name
    except ParamError:
        return False


def directions(names: Iterable[str], models: Sequence[str] = ()) -> dict[str, Direction]:
    """Of each of some metrics and measures whether more or less of it is better."""
    own = _declared(models)
    return {name: own.get(name) or direction_of(name) for name in names}


def _declared(models: Sequence[str]) -> dict[str, Direction]:
    """The metrics that models report of themselves."""
    own = [registry.own_metrics(model) for model in models if registry.judges_itself(model)]
    return {name: direction for of in own for name, direction in of.items()}
