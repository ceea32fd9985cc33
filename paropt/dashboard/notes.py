"""Notes in Markdown for the dashboard: of a study, and of a trial."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from paropt.files import paramfile_name
from paropt.names import baseline, command
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.history import Record
from paropt.search.study.trial import reached
from paropt.training.objective import Objective

# Recall@20 and MRR@20 on test that GRU4Rec's authors give for its official code, by the format of
# the log and so by its published cleaning and split
PUBLISHED = {
    "rsc15": (0.7283, 0.3205),
    "yoochoose": (0.6789, 0.3024),
    "rees46": (0.5293, 0.2008),
    "coveo": (0.3135, 0.1010),
    "retailrocket": (0.5186, 0.2175),
    "diginetica": (0.4995, 0.1542),
}


def study_note(definition: StudyDefinition, summary: Mapping[str, Any]) -> str:
    """What is searched on which data, the floor, the best, how to get it again."""
    metric = definition.metric
    searched = definition.space.get("search", {})
    lines = [
        f"## {_code(definition.name)}",
        "",
        f"{_code(summary['model'])} by {_code(metric)} on {_code(definition.data_path)}, "
        f"fingerprint {_code(definition.fingerprint[:12])}, view {_code(definition.view)}, "
        f"seed {definition.seed}.",
        "",
        f"Searched: {', '.join(map(_code, searched))}.",
        "",
        f"| on valid | trial | epoch | {metric} |",
        "|---|---|---|---|",
        *_floors(summary["floor"], metric),
    ]
    best = summary["best"]
    if best:
        lines.append(f"| **best** | {best['trial']} | {best['epoch']} | **{best['value']:.4f}** |")
    counted = ", ".join(f"{number} {state}" for state, number in summary["counts"].items())
    budget = f"; budget {summary['budget']}" if summary["budget"] else ""
    lines += ["", f"{counted}{budget}.", "", *_published(definition)]
    if best:
        shown = [
            f"{key}={_short(value)}" for key, value in best["params"].items() if key in searched
        ]
        name, data = _one_line(definition.name), _one_line(definition.data_path)
        params = f"best/{paramfile_name(definition.name, 1, best['trial'])}"
        lines += [
            f"Best parameters: {', '.join(map(_code, shown))}",
            "",
            "Again, and on the test set:",
            "",
            f"    {command('export', name, '--out', 'best')}",
            f"    {command('train', '--params', params, '--data', data, '--split', 'full')}",
            f"    {command('final', name)}",
            "",
        ]
    versions = ", ".join(f"{_plain(name)} {_plain(v)}" for name, v in definition.versions.items())
    return "\n".join([*lines, versions, ""])


def _floors(floor: Mapping[str, Mapping[str, float]], metric: str) -> Iterable[str]:
    for name, values in floor.items():
        if metric in values:
            shown = _plain(baseline(name))
            yield f"| {shown} (no training) | | | {values[metric]:.4f} |"


def _published(definition: StudyDefinition) -> list[str]:
    """The published result on this very kind of data, where the dataset can be looked at."""
    try:
        meta = json.loads((Path(definition.data_path) / "meta.json").read_text())
        if meta["fingerprint"] != definition.fingerprint:
            return []
        recall, mrr = PUBLISHED[meta["format_name"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [f"Published for GRU4Rec, on test: recall@20 {recall:.4f}, mrr@20 {mrr:.4f}.", ""]


def trial_note(record: Record, objective: Objective) -> str:
    """What one wants to know of a trial first, as a table of two columns."""
    metric, found = objective.metric, reached(record.reports, objective)
    owner = record.owner
    memory = found.get("peak_memory_mib")
    cells: dict[str, Any] = {
        metric: _rounded(found.get(metric)),
        **{name: _rounded(found[name]) for name in ("recall@20", "mrr@20") if name in found},
        "equal scores": found.get("tied", ""),
        "best epoch": f"{found['epoch']} of {found['epochs']} run" if "epoch" in found else "",
        "events/s": f"{found['events_per_second']:,.0f}" if "events_per_second" in found else "",
        "seconds per epoch": found.get("seconds_per_epoch", ""),
        "peak memory": f"{memory:,.0f} MiB" if memory is not None else "",
        "device": f"{owner.get('device', '')} on {owner.get('host', '')}" if owner else "",
        "attempt": record.meta["attempt"] if record.meta["attempt"] > 1 else "",
        "why it ended": _why(record),
    }
    rows = [f"| {name} | {_plain(value)} |" for name, value in cells.items() if value != ""]
    return "\n".join([f"| {_plain(record.meta['model'])} | |", "|---|---|", *rows, ""])


def _why(record: Record) -> str:
    why, message = record.end.get("why", ""), record.end.get("message", "")
    return f"{why}: {message}" if message else str(why)


def _rounded(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else ""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(text: Any) -> str:
    """Without what Markdown would read: names and paths come from whoever made the study."""
    return "".join(c for c in str(text) if c not in "`<>|[]()*_\\\n\r")


def _one_line(text: str) -> str:
    """So that it stays within a block of code."""
    return " ".join(text.split())


def _code(text: Any) -> str:
    return f"`{' '.join(str(text).replace('`', '').split())}`"
