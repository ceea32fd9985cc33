"""What a final test found, as the object that its JSON, Markdown and HTML are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paropt.results.final_choice import Judged
from paropt.results.looks_at_test import Look
from paropt.results.searched import Searched
from paropt.search.study.plan import Entry, Plan
from paropt.search.study.study import Study

FORMAT = 1
AT = (1, 5, 10, 20)


@dataclass(frozen=True)
class Finding:
    """All of a final test that is done. ``judged`` is the first part, ``tested`` the second;
    ``tables`` are the baselines' rank tables."""

    search: Study
    plan: Plan
    judged: Sequence[Judged]
    chosen: Judged
    control: Judged
    tested: Sequence[Judged]
    looks: Sequence[Look]
    tables: Mapping[str, Any]
    data: Path


def gather(found: Finding) -> dict[str, Any]:
    """The report as a JSON object; docs/final.md lists its keys."""
    return {
        **search_report(found.search),
        "final": found.plan.number,
        "data": str(found.data.resolve()),
        "seeds": list(found.plan.seeds),
        "entries": [_entry(one) for one in found.judged],
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
        "data": searched.data,
        "semantics": searched.semantics,
        "versions": dict(searched.versions),
        "ties": searched.ties,
        "at": list(AT),
        "devices": list(searched.devices),
        "search": searched.to_json(),
        "test": None,
    }


def _entry(one: Judged) -> dict[str, Any]:
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
        "flattered": one.entry.found["value"] - one.mean if one.entry.found else None,
    }


def _described(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "model": entry.model,
        "params": dict(entry.params),
        "epochs": entry.epochs,
        "found": dict(entry.found),
        "source": entry.source,
    }


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
        "flattered": None if mean is None else best - mean,
        "seeds": len(first.values),
    }


# -- the test -----------------------------------------------------------------------------------


def _tested(found: Finding) -> dict[str, Any]:
    by_name = {one.entry.name: one for one in found.tested}
    chosen, control = by_name[found.chosen.entry.name], by_name[found.control.entry.name]
    ours, theirs = _table(found, chosen), _table(found, control)
    same = chosen is control
    paired = ours is not None and theirs is not None
    return {
        "split": "train_full → test",
        "chosen": _numbers(chosen, ours),
        "control": None if same else _numbers(control, theirs),
        "difference": _paired(ours, theirs) if paired and not same else None,
        "baselines": {name: _baseline(table, ours) for name, table in found.tables.items()},
        "intervals": _method(next(iter(found.tables.values()))),
    }


def _method(table: Any) -> dict[str, Any]:
    from paropt.training.bootstrap import DRAWS, GROUPS, LEVEL

    return {
        "level": LEVEL,
        "draws": DRAWS,
        "groups": len(table),
        "hashed": len(table) == GROUPS,
        "targets": int(table.sum()),
    }


def _table(found: Finding, one: Judged) -> Any:
    """The mean of the seeds' rank tables; None where a model judged itself."""
    from paropt.training.bootstrap import unpack

    tables = [unpack(packed) for packed in one.ranks if packed]
    return np.mean(tables, axis=0) if len(tables) == len(one.values) else None


def _numbers(one: Judged, table: Any) -> dict[str, Any]:
    """Mean, spread, least and most over the seeds, and the interval over sessions, by metric."""
    bounds = _intervals(table)
    metrics = {}
    for name in one.reports[0].metrics:
        values = [float(report.metrics[name]) for report in one.reports]
        metrics[name] = {
            "mean": float(np.mean(values)),
            "spread": spread(values),
            "least": min(values),
            "most": max(values),
            "interval": bounds.get(name),
            "values": values,
        }
    threads = {owner.get("threads") for owner in one.owners}
    return {
        **_described(one.entry),
        "seconds": one.seconds,
        "devices": sorted({str(owner.get("device")) for owner in one.owners}),
        "threads": threads.pop() if len(threads) == 1 else None,
        "metrics": metrics,
    }


def _intervals(table: Any) -> dict[str, list[float]]:
    if table is None:
        return {}
    from paropt.training.bootstrap import intervals

    return {name: list(bounds) for name, bounds in intervals(table, AT).items()}


def _paired(table: Any, other: Any) -> dict[str, dict[str, Any]]:
    from paropt.training.bootstrap import differences

    return {
        name: {"mean": value, "interval": [low, high]}
        for name, (value, low, high) in differences(table, other, AT).items()
    }


def _baseline(table: Any, ours: Any) -> dict[str, Any]:
    from paropt.training.bootstrap import metrics

    bounds = _intervals(table)
    values = metrics(table, AT)
    found = {name: {"mean": value, "interval": bounds[name]} for name, value in values.items()}
    return {"metrics": found, "difference": None if ours is None else _paired(ours, table)}
