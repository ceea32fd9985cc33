"""A report as one HTML page that needs nothing else: styles and plots are inside, no scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from paropt.results import markdown
from paropt.results.figures.description import COLOURS, Lines, Mark, Series
from paropt.results.figures.of_study import over_time
from paropt.results.figures.svg import intervals, svg

Report = Mapping[str, Any]

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --dim: #6b7280; --rule: #d4d4d8; --paper: #fff;
  LIGHT; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e7eb; --dim: #9ca3af; --rule: #3f3f46;
  --paper: #18181b; --c0: #60a5fa; --c1: #fb923c; --c2: #9ca3af; --c3: #34d399; --c4: #c084fc;
  --c5: #fbbf24; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.result { font-size: 1.1rem; font-weight: 600; } .warn { border-left: 4px solid var(--c1);
  padding-left: .8rem; } .dim { color: var(--dim); font-size: .9rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
td .dim { display: block; font-size: .75rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .7rem .25rem 0;
  border-bottom: 1px solid var(--rule); white-space: nowrap; }
pre { overflow-x: auto; font-size: .85rem; border: 1px solid var(--rule); padding: .6rem; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui; }
svg .dim { fill: var(--dim); font-size: 11px; } svg .rule { stroke: var(--rule); }
""".replace("LIGHT", "; ".join(f"--c{i}: {colour}" for i, colour in enumerate(COLOURS)))


def page(report: Report) -> str:
    """The whole page."""
    title = escape(markdown.title(report))
    body = "\n".join(_body(report))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )


def _body(report: Report) -> Iterable[str]:
    yield _p(markdown.facts(report), "dim")
    if report["test"]:
        yield from _tested(report)
    yield "<h2>The search</h2>"
    yield from _search(report)
    yield _p(markdown.versions(report), "dim")


def _tested(report: Report) -> Iterable[str]:
    yield _p(markdown.result(report), "result")
    if warning := markdown.beaten(report):
        yield _p(warning, "warn")
    yield _p(markdown.look(report).replace("**", ""), "warn" if report["again"] else "dim")
    yield from _test_figure(report)
    for measure, names in markdown.measures(report).items():
        yield f"<h2>{escape(measure)} on test</h2>"
        yield _table(["", *names], markdown.test_rows(report, names))
    yield _p(markdown.how(report), "dim")
    yield "<h2>Choosing on valid</h2>"
    yield _table(markdown.CHOICE, markdown.choice_rows(report))
    yield _p(markdown.flattery(report))
    yield from _choice_figure(report)
    yield "<h2>Configurations</h2>"
    for role in markdown.roles(report):
        tested = report["test"][role]
        words = " ".join(f"{name}={value}" for name, value in tested["params"].items())
        yield _p(f"{role}: {markdown.described(tested)}, {tested['epochs']} epochs")
        yield f"<pre>{escape(words or 'defaults')}</pre>"
    yield "<h2>Again</h2>"
    yield f"<pre>{escape(chr(10).join(markdown.commands(report)))}</pre>"


def _search(report: Report) -> Iterable[str]:
    best, metric = report["search"]["best"], report["metric"]
    if best is None:
        yield _p("No trial has a value yet.")
        return
    yield _p(f"Best {metric} {best['value']:.4f}: trial {best['trial']}, epoch {best['epoch']}.")
    words = " ".join(f"{name}={value}" for name, value in best["params"].items())
    yield f"<pre>{escape(best['model'])} {escape(words)}</pre>"
    yield _search_figure(report)


# -- plots --------------------------------------------------------------------------------------


def _test_figure(report: Report) -> Iterable[str]:
    metric = report["metric"]
    test = report["test"]
    tested = {role: test[role]["metrics"] for role in markdown.roles(report)}
    tested |= {name: baseline["metrics"] for name, baseline in test["baselines"].items()}
    marks = [
        Mark(name, of[metric]["mean"], of[metric]["interval"], of[metric].get("values", ()))
        for name, of in tested.items()
        if metric in of
    ]
    yield intervals(marks, f"{metric} on test: mean, 95 % interval over sessions, each seed")


def _choice_figure(report: Report) -> Iterable[str]:
    series = [
        Series(entry["name"], list(enumerate(entry["curve"], 1)))
        for entry in report["entries"]
        if not entry["failures"]
    ]
    title = f"{report['metric']} on valid, mean of {len(report['seeds'])} seeds"
    yield svg(Lines("choice", title, "epoch", report["metric"], series, whole=True))


def _search_figure(report: Report) -> str:
    found = report["search"]
    return svg(over_time(report["metric"], found["points"], found["floor"]))


# -- words --------------------------------------------------------------------------------------


def _p(text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f"<p{named}>{escape(text)}</p>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>\n" for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def _cell(text: str) -> str:
    """An interval goes to a line of its own, so that four cut-offs fit side by side."""
    value, bracket, interval = text.partition(" [")
    if not bracket:
        return escape(text)
    return f'{escape(value)}<span class="dim">[{escape(interval)}</span>'
