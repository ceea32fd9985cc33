"""What the trainings of a final test's first part say, and which configuration it chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from paropt.errors import StudyError
from paropt.search.history.history import Record
from paropt.search.study.plan import Candidate, FinalPlan
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.objective import Objective

if TYPE_CHECKING:
    from paropt.search.study.study import Study


@dataclass(frozen=True)
class Judged:
    """An entry after its trainings.

    ``epoch`` is where the mean over the seeds is best; ``values`` are the seeds' at that epoch and
    ``reports`` all that was said of that epoch; ``samples`` are what intervals follow from, packed,
    if they were judged once; ``owners`` are the slots; ``trained`` has each seed's root and
    attempt. ``failures`` are the messages of trainings without a value; then there is nothing else.
    Of a model with stages ``epoch`` is the sum of ``stages``, the epochs of each that suited the
    seeds best, up to the best stage.
    """

    entry: Candidate
    epoch: int = 0
    stages: Mapping[str, int] = field(default_factory=dict)
    values: tuple[float, ...] = ()
    curve: tuple[float, ...] = ()
    reports: tuple[EpochReport, ...] = ()
    samples: tuple[Mapping[str, Any] | None, ...] = ()
    seconds: float = 0.0
    owners: tuple[Mapping[str, Any], ...] = ()
    trained: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    failures: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        return fmean(self.values)


def judge(study: Study) -> list[Judged]:
    """The entries of a study's plan by what their trainings reported, in the plan's order.

    Only call it when nothing waits or runs. An epoch counts if every seed reached it.
    """
    study.refresh()
    plan = FinalPlan.from_json(study.definition.plan)
    objective = study.definition.objective
    by_entry: dict[str, list[Record]] = {entry.name: [] for entry in plan.entries}
    for record in study.history.lineages():
        by_entry[record.meta["job"]].append(record)
    return [_judged(entry, by_entry[entry.name], objective) for entry in plan.entries]


def _judged(entry: Candidate, records: Sequence[Record], objective: Objective) -> Judged:
    import numpy as np  # here, as every verb imports this module

    failures = tuple(
        f"seed {r.meta['seed']}: {r.end.get('message', '')}" for r in records if not r.scored
    )
    if failures or not records:
        return Judged(entry, failures=failures or ("it was not trained",))
    if any(report.stage_epoch for report in records[0].reports):
        return _judged_by_stage(entry, records, objective)
    reached = min(len(record.curve(objective)) for record in records)
    curves = np.array([record.curve(objective)[:reached] for record in records], dtype=np.float64)
    curve = curves.mean(0)  # nan where an epoch was not evaluated
    epoch = int(np.nanargmax(curve if objective.larger else -curve)) + 1
    reports = [report for record in records if (report := record.report(epoch)) is not None]
    return Judged(
        entry=entry,
        epoch=epoch,
        values=tuple(curves[:, epoch - 1].tolist()),
        curve=tuple(curve.tolist()),
        reports=tuple(reports),
        samples=tuple(_sampled(report.extra) for report in reports),
        seconds=sum(record.seconds for record in records),
        owners=tuple(record.owner for record in records),
        trained=_trained(records),
    )


def _trained(records: Sequence[Record]) -> dict[int, tuple[int, int]]:
    return {int(r.meta["seed"]): (r.root, int(r.meta["attempt"])) for r in records}


def _judged_by_stage(entry: Candidate, records: Sequence[Record], objective: Objective) -> Judged:
    """As :func:`_judged`: seeds are compared at the same epoch of the same stage, as their
    patience may have ended stages at different ones."""
    import numpy as np  # here, as every verb imports this module

    stages: dict[str, int] = {}
    best: tuple[float, dict[str, int], list[EpochReport]] | None = None
    curve: list[float] = []
    names = dict.fromkeys(r.stage for record in records for r in record.reports if r.stage)
    for name in names:
        of = [[r for r in record.reports if r.stage == name] for record in records]
        reached = min(map(len, of))
        if not reached:
            break
        values = np.array([[objective.value(r) for r in rs[:reached]] for rs in of], np.float64)
        means = values.mean(0)
        at = int(np.nanargmax(means if objective.larger else -means))
        stages = {**stages, name: at + 1}
        curve += means.tolist()
        if best is None or objective.better(float(means[at]), best[0]):
            best = float(means[at]), stages, [rs[at] for rs in of]
    if best is None:
        return Judged(entry, failures=("its seeds share no stage",))
    _, chosen, reports = best
    return Judged(
        entry=entry,
        epoch=sum(chosen.values()),
        stages=chosen,
        values=tuple(objective.value(report) or 0.0 for report in reports),
        curve=tuple(curve),
        reports=tuple(reports),
        samples=tuple(_sampled(report.extra) for report in reports),
        seconds=sum(record.seconds for record in records),
        owners=tuple(record.owner for record in records),
        trained=_trained(records),
    )


def _sampled(extra: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A rank table, or the values of a model that judged itself, packed."""
    return extra.get("ranks") or extra.get("values")


def choose(judged: Sequence[Judged], objective: Objective) -> tuple[Judged, Judged]:
    """The candidate with the best mean, and the control of its model, which may be itself.

    Raises:
        StudyError: no candidate, or no control, was trained with every seed.
    """
    usable = [one for one in judged if not one.failures]
    candidates = [one for one in usable if one.entry.found]
    if not candidates:
        reason = next((f for one in judged for f in one.failures), "there is none")
        raise StudyError(f"no candidate could be trained with every seed; the first: {reason}")
    best = max(candidates, key=lambda one: objective.key(one.mean))
    controls = [one for one in judged if one.entry.source]
    if len(controls) > 1:
        controls = [one for one in controls if one.entry.model == best.entry.model]
    control = controls[0]
    if control.failures:
        reason = control.failures[0]
        raise StudyError(f"the control could not be trained with every seed: {reason}")
    return best, control
