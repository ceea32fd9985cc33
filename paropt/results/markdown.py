"""A report as the numbers and sentences of a page: Markdown here, the same cells in HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paropt.names import command

Report = Mapping[str, Any]


def roles(report: Report) -> list[str]:
    """Whom the test was of: the chosen one, and the control unless that is the same."""
    return [role for role in ("chosen", "control") if report["test"] and report["test"][role]]


def markdown(report: Report) -> str:
    """The report for people."""
    lines = [f"# {title(report)}", "", facts(report), ""]
    if report["test"]:
        lines += [
            f"**{result(report)}**",
            "",
            *filter(None, [beaten(report)]),
            "",
            look(report),
            "",
        ]
        for measure, names in measures(report).items():
            lines += [f"## {measure} on test", ""]
            lines += table(["", *names], test_rows(report, names))
            lines += [""]
        lines += [how(report), "", "## Choosing on valid", ""]
        lines += table(CHOICE, choice_rows(report))
        lines += ["", flattery(report), "", "## Configurations", ""]
        for role in roles(report):
            tested = report["test"][role]
            params = json.dumps({"model": tested["model"], **tested["params"]})
            lines += [f"{role} ({described(tested)}): `{params}`", ""]
        lines += ["## Again", "", *(f"    {line}" for line in commands(report)), ""]
    lines += [versions(report), ""]
    return "\n".join(lines)


def title(report: Report) -> str:
    """What it is a report of."""
    if not report["test"]:
        return f"Study {report['study']}"
    return f"Final test {report['final']} of study {report['study']}"


def facts(report: Report) -> str:
    """What every number below is of."""
    searched = report["search"]
    counts = searched["counts"]
    text = (
        f"Data {report['fingerprint']} ({report['data']}); ties {report['ties']}. "
        f"The search, on {searched['split']} with seed {searched['seed']}, had "
        f"{counts['complete']} trials complete, {counts['pruned']} pruned and "
        f"{counts['failed']} failed, on {', '.join(report['devices']) or 'no device'}."
    )
    if not report["test"]:
        return text
    seeds = ", ".join(map(str, report["seeds"]))
    return f"{text} The test is on {report['test']['split']} with the seeds {seeds}."


def result(report: Report) -> str:
    """The final number in a sentence."""
    test, metric = report["test"], report["metric"]
    ours = test["chosen"]["metrics"][metric]
    text = f"{test['chosen']['model']}: {metric} {number(ours)}"
    if test["control"] is None:
        return f"{text}; the search found nothing better than its control"
    text += (
        f"; the control ({test['control']['source']}) {number(test['control']['metrics'][metric])}"
    )
    if test["difference"] and metric in test["difference"]:
        text += f"; difference {number(test['difference'][metric], sign='+')}"
    return text


def beaten(report: Report) -> str:
    """A warning if something that needs no training is at least as good; else nothing."""
    test, metric = report["test"], report["metric"]
    ours = test["chosen"]["metrics"][metric]["mean"]
    better = [
        f"{name} reaches {found['metrics'][metric]['mean']:.4f}"
        for name, found in test["baselines"].items()
        if metric in found["metrics"] and found["metrics"][metric]["mean"] >= ours
    ]
    return f"Without any training, {' and '.join(better)}." if better else ""


def look(report: Report) -> str:
    """How often the test set was looked at."""
    looks = report["looks"]
    if len(looks) == 1:
        return "This was the first look at this test set."
    earlier = ", ".join(f"{one['study']} ({one['at'][:10]})" for one in looks[:-1])
    return (
        f"**This was look {len(looks)} at this test set** (before: {earlier}). A test set that was "
        "looked at before is a validation set: read the numbers so."
    )


def measures(report: Report) -> dict[str, list[str]]:
    """The names of the metrics by what they measure: recall@1 … recall@20 under recall."""
    at = {f"@{k}" for k in report["at"]}
    found: dict[str, list[str]] = {}
    for name in report["test"]["chosen"]["metrics"]:
        measure, cut, _ = name.partition("@")
        if not cut or name[len(measure) :] in at:
            found.setdefault(measure, []).append(name)
    return found


def test_rows(report: Report, names: Sequence[str]) -> list[list[str]]:
    """One row per thing tested: chosen, control, their difference, baselines."""
    test = report["test"]
    rows = {role: test[role]["metrics"] for role in roles(report)}
    cells = [[role, *_cells(metrics, names)] for role, metrics in rows.items()]
    if test["difference"]:
        cells.append(["chosen − control", *_cells(test["difference"], names, sign="+")])
    for name, baseline in test["baselines"].items():
        cells.append([name, *_cells(baseline["metrics"], names)])
    return cells


def _cells(metrics: Mapping[str, Any], names: Iterable[str], sign: str = "") -> list[str]:
    return [number(metrics[name], sign) if name in metrics else "" for name in names]


def number(value: Mapping[str, Any], sign: str = "") -> str:
    """``0.1234 ± 0.0012 [0.1201, 0.1268]``: mean, spread between seeds, interval over sessions."""
    text = f"{value['mean']:{sign}.4f}"
    if value.get("spread") is not None:
        text += f" ± {value['spread']:.4f}"
    if value.get("interval"):
        low, high = value["interval"]
        text += f" [{low:{sign}.4f}, {high:{sign}.4f}]"
    return text


def how(report: Report) -> str:
    """How to read the numbers."""
    method, seeds = report["test"]["intervals"], len(report["seeds"])
    groups = "groups of sessions" if method["hashed"] else "sessions"
    return (
        f"Mean ± standard deviation over {seeds} seeds, [{method['level']:.0%} bootstrap interval] "
        f"over {method['groups']:,} {groups} ({method['draws']:,} draws, "
        f"{method['targets']:,} targets; percentiles, of the mean over the seeds). The difference "
        "is paired: the same sessions are drawn for both."
    )


CHOICE = ["", "from", "in the search", "fresh seeds", "epoch", "flattered by"]


def choice_rows(report: Report) -> list[list[str]]:
    """One row per configuration that was trained again on valid."""
    rows = []
    for entry in report["entries"]:
        name = entry["name"] + (" (chosen)" if entry["name"] == report["chosen"] else "")
        searched = f"{entry['found']['value']:.4f}" if entry["found"] else ""
        row = [name, described(entry), searched]
        if entry["failures"]:
            row += [f"failed: {entry['failures'][0]}", "", ""]
        else:
            flattered = entry["flattered"]
            epoch = f"{entry['epoch']}/{entry['epochs']}"
            row += [number(entry), epoch, "" if flattered is None else f"{flattered:+.4f}"]
        rows.append(row)
    return rows


def described(entry: Mapping[str, Any]) -> str:
    """Where a configuration is from."""
    found = f"trial {entry['found']['trial']}" if entry["found"] else ""
    return ", ".join(filter(None, (entry["model"], found, entry["source"])))


def flattery(report: Report) -> str:
    """How much better the search made itself look than it is."""
    found, metric = report["flattery"], report["metric"]
    if found["flattered"] is None:
        return f"The search's best configuration ({metric} {found['search']:.4f}) failed."
    flattered = found["flattered"]
    where = "above" if flattered > 0 else "below"
    text = (
        f"The search's best {metric}, {found['search']:.4f}, is {abs(flattered):.4f} {where} the "
        f"mean of {found['seeds']} fresh seeds of the same configuration, {found['fresh']:.4f}"
    )
    return f"{text}: so much it flattered." if flattered > 0 else f"{text}: it did not flatter."


def commands(report: Report) -> list[str]:
    """How to get the numbers again."""
    seeds = " ".join(map(str, report["seeds"]))
    trained = [
        f"for seed in {seeds}; do "
        f"{command('train', '--params', f'{role}.json', '--data', report['data'])} --seed $seed; "
        "done"
        for role in roles(report)
    ]
    return [f"{command('report', report['study'])}    # from the same database", *trained]


def versions(report: Report) -> str:
    """What it was computed with."""
    listed = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return f"Training semantics {report['semantics']}; {listed}."


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

    return [line(header), line(["---"] * len(header)), *map(line, rows)]
