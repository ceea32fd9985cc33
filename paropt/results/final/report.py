"""What a final test found, as the object that its JSON, Markdown and HTML are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paropt.data.dataset import VIEWS
from paropt.results.final.final_choice import Judged
from paropt.results.final.looks_at_test import Look
from paropt.results.final.seeds_together import Together
from paropt.results.pairwise import pairwise
from paropt.results.searched import Searched
from paropt.search.study.plan import Candidate, FinalPlan
from paropt.search.study.study import Study
from paropt.search.study.summary import judged
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import EvaluationProtocol

if TYPE_CHECKING:
    from paropt.training.evaluation.bootstrap import Sample

FORMAT = 1
AT = (1, 5, 10, 20)


@dataclass(frozen=True)
class Finding:
    """All of a final test that is done. ``judged`` is the first part, ``tested`` the second, in
    the view ``tested_in``; ``baselines`` are samples of what needs no training, and ``together``
    the seeds of what was tested as one model, by the entry's name."""

    search: Study
    plan: FinalPlan
    judged: Sequence[Judged]
    chosen: Judged
    control: Judged
    tested: Sequence[Judged]
    looks: Sequence[Look]
    baselines: Mapping[str, Sample]
    data: Path
    protocol: EvaluationProtocol
    tested_in: str
    together: Mapping[str, Together] = field(default_factory=dict)


def gather(found: Finding) -> dict[str, Any]:
    """The report as a JSON object; docs/final.md lists its keys."""
    return {
        **search_report(found.search),
        "final": found.plan.number,
        "data": str(found.data.resolve()),
        "seeds": list(found.plan.seeds),
        "entries": [_entry(one, found.search.definition.objective) for one in found.judged],
        "chosen": found.chosen.entry.name,
        "control": found.control.entry.name,
        "flattery": _flattery(found),
        "test": _tested(found),
        "looks": [look.to_json() for look in found.looks],
        "again": len(found.looks) > 1,
    }


def search_report(study: Study) -> dict[str, Any]:
    """What is known of a study without a final test; ``test`` is null."""
    searched = Searched.of(study)
    return {
        "paropt_report": FORMAT,
        "study": searched.name,
        "metric": searched.metric,
        "fingerprint": searched.fingerprint,
        **({"added": added} if (added := dict(study.definition.added)) else {}),
        "data": searched.data,
        "semantics": searched.semantics,
        "versions": dict(searched.versions),
        "ties": searched.ties,
        "at": list(AT),
        "devices": list(searched.devices),
        "search": searched.to_json(),
        "test": None,
    }


def _entry(one: Judged, objective: Objective) -> dict[str, Any]:
    entry = {**_described(one.entry), "failures": list(one.failures)}
    if one.failures:
        return entry
    return {
        **entry,
        "epoch": one.epoch,
        "mean": one.mean,
        "spread": spread(one.values),
        "values": list(one.values),
        "curve": [value if math.isfinite(value) else None for value in one.curve],
        "seconds": one.seconds,
        "flattered": _better_by(objective, one.entry.found["value"], one.mean)
        if one.entry.found
        else None,
    }


def _described(entry: Candidate) -> dict[str, Any]:
    return {
        "name": entry.name,
        "model": entry.model,
        "params": dict(entry.params),
        "epochs": entry.epochs,
        "stages": dict(entry.stages),
        "found": dict(entry.found),
        "source": entry.source,
    }


def _better_by(objective: Objective, value: float, other: float) -> float:
    """By how much ``value`` is the better of two; negative if it is the worse."""
    return objective.key(value) - objective.key(other)


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation between seeds (n - 1); None of a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _flattery(found: Finding) -> dict[str, Any]:
    """By how much the search's best trial is above fresh seeds of the same configuration."""
    first = next(one for one in found.judged if one.entry.found)  # candidates are in their order
    best = float(first.entry.found["value"])
    mean = None if first.failures else first.mean
    return {
        "entry": first.entry.name,
        "search": best,
        "fresh": mean,
        "flattered": None
        if mean is None or found.protocol != found.search.definition.protocol
        else _better_by(found.search.definition.objective, best, mean),
        "seeds": len(first.values),
    }


# -- the test -----------------------------------------------------------------------------------


def _tested(found: Finding) -> dict[str, Any]:
    by_name = {one.entry.name: one for one in found.tested}
    chosen, control = by_name[found.chosen.entry.name], by_name[found.control.entry.name]
    ours, theirs = _sample(chosen), _sample(control)
    same = chosen is control
    objective = found.search.definition.objective
    return {
        "split": " → ".join(VIEWS[found.tested_in]),
        "view": found.tested_in,
        "evaluation": found.protocol.to_json(),
        "chosen": {**_numbers(chosen, ours, objective), **_ensemble(found, chosen, ours)},
        "control": None
        if same
        else {**_numbers(control, theirs, objective), **_ensemble(found, control, theirs)},
        "difference": None if same or not (ours and theirs) else _paired(ours, theirs),
        "baselines": {name: _baseline(one, ours) for name, one in found.baselines.items()},
        "pairs": _pairs(found, {"chosen": ours, "control": None if same else theirs}),
        "intervals": _method(ours or next(iter(found.baselines.values()), None)),
    }


def _ensemble(found: Finding, one: Judged, each: Sample | None) -> dict[str, Any]:
    """The seeds as one model, beside the mean of them; null of a single seed."""
    seeds = found.together.get(one.entry.name)
    return {"ensemble": seeds.to_json(each) if seeds else None}


def _pairs(found: Finding, trained: Mapping[str, Sample | None]) -> list[dict[str, Any]]:
    """Whatever was judged on the test, two by two, by the study's metric."""
    samples = {name: sample for name, sample in trained.items() if sample is not None}
    return pairwise({**samples, **found.baselines}, found.search.definition.metric)


def _method(sample: Sample | None) -> dict[str, Any]:
    """How intervals were got; 0 groups: there are none, as a model said no single values."""
    from paropt.training.evaluation.bootstrap import DRAWS, GROUPS, LEVEL

    return {
        "level": LEVEL,
        "draws": DRAWS,
        "groups": len(sample.counts) if sample else 0,
        "hashed": sample is not None and len(sample.counts) == GROUPS,
        "targets": int(sample.counts.sum()) if sample else 0,
    }


def _sample(one: Judged) -> Sample | None:
    """The mean of the seeds' samples; None where a model judged itself and said no values."""
    from paropt.training.evaluation.bootstrap import Sample, unpack
    from paropt.training.metrics import of_ranks

    found = [
        Sample.from_json(packed)
        if "sums" in packed
        else Sample.of_ranks(unpack(packed), list(filter(of_ranks, report.metrics)))
        for packed, report in zip(one.samples, one.reports, strict=True)
        if packed
    ]
    return Sample.mean(found) if len(found) == len(one.values) else None


def _numbers(one: Judged, sample: Sample | None, objective: Objective) -> dict[str, Any]:
    """Mean, spread, least and most over the seeds, and the interval over sessions, by metric."""
    bounds = sample.intervals() if sample else {}
    metrics = {}
    for name in one.reports[0].metrics:
        values = [float(report.metrics[name]) for report in one.reports]
        metrics[name] = {
            "mean": float(np.mean(values)),
            "spread": spread(values),
            "least": min(values),
            "most": max(values),
            "interval": list(bounds[name]) if name in bounds else None,
            "values": values,
        }
    threads = {owner.get("threads") for owner in one.owners}
    return {
        **_described(one.entry),
        "seconds": one.seconds,
        "devices": sorted({str(owner.get("device")) for owner in one.owners}),
        "threads": threads.pop() if len(threads) == 1 else None,
        "metrics": metrics,
        "cold": _cold(one),
        **_standing(one, objective),
    }


def _cold(one: Judged) -> dict[str, Any] | None:
    """Targets that training never saw, if the model ranked them: the mean of its seeds."""
    found = [report.extra["cold"] for report in one.reports if report.extra.get("cold")]
    if len(found) < len(one.reports):
        return None
    means = {
        name: float(np.mean([cold["metrics"][name] for cold in found]))
        for name in found[0]["metrics"]
    }
    return {**found[0], "metrics": means, "stderr": {}, "conservative": _worst(found, means)}


def _worst(found: Sequence[Mapping[str, Any]], means: Mapping[str, float]) -> dict[str, float]:
    """The mean of the metrics with ties counted against the target, where any seed has such."""
    if not any(cold["conservative"] for cold in found):
        return {}
    each = [{**cold["metrics"], **cold["conservative"]} for cold in found]
    return {name: float(np.mean([values[name] for values in each])) for name in means}


def _standing(one: Judged, objective: Objective) -> dict[str, Any]:
    """What the numbers stand on; ``tied`` and ``conservative`` are of the seed with most ties."""
    worst = max(one.reports, key=lambda report: report.tied or 0.0)
    found = judged(one.mean, one.reports[0], objective)
    kept = ("targets", "unknown", "sessions", "with_misses", "given")
    return {
        **{key: found[key] for key in kept},
        "tied": worst.tied,
        "conservative": dict(worst.conservative) or None,
    }


def _paired(ours: Sample, other: Sample) -> dict[str, dict[str, Any]]:
    return {
        name: {"mean": value, "interval": [low, high]}
        for name, (value, low, high) in ours.above(other).items()
    }


def _baseline(sample: Sample, ours: Sample | None) -> dict[str, Any]:
    bounds = sample.intervals()
    metrics = {
        name: {"mean": value, "interval": list(bounds[name])}
        for name, value in sample.values.items()
    }
    return {"metrics": metrics, "difference": None if ours is None else _paired(ours, sample)}
