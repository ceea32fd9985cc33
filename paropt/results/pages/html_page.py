"""A document as one HTML page that needs nothing else: styles and figures are inside, no scripts.

It is to be read on a telephone (400 pixels), on paper, and in the light and the dark. Figures are
drawn twice, wide and narrow, and the page shows the one that fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from paropt.results.figures.description import COLOURS
from paropt.results.figures.svg import NARROW, WIDE, svg
from paropt.results.pages.document import (
    Block,
    Cell,
    Code,
    Commands,
    Document,
    Facts,
    Heading,
    Headline,
    Paragraph,
    Picture,
    Strong,
    Table,
    Term,
    Text,
    Words,
)

DARK = ("#60a5fa", "#fb923c", "#9ca3af", "#34d399", "#c084fc", "#fbbf24")


def _variables(colours: Sequence[str]) -> str:
    return " ".join(f"--c{place}: {colour};" for place, colour in enumerate(colours))


STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --dim: #5b6270; --rule: #d4d4d8; --paper: #fff;
  --box: #f5f5f7; LIGHT }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e7eb; --dim: #a1a8b3; --rule: #3f3f46;
  --paper: #18181b; --box: #232327; DARK } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 58rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
.headline { background: var(--box); border-left: 5px solid var(--c0); padding: .8rem 1rem;
  margin: 0 0 1rem; }
.headline .what { color: var(--dim); } .headline .value { font-size: 2.4rem; font-weight: 700;
  line-height: 1.15; font-variant-numeric: tabular-nums; }
.headline .interval { color: var(--dim); font-size: 1.1rem; white-space: nowrap; }
.headline p { margin: .3rem 0 0; }
.warning { border-left: 5px solid var(--c1); padding-left: .8rem; }
.aside, figcaption, .caption, .does { color: var(--dim); font-size: .9rem; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .25rem 1rem;
  margin: .6rem 0; } dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere;
  min-width: 0; }
.box { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
.caption { margin: 1rem 0 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0;
  border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; } th.number, td.number { text-align: right; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); }
td small { display: block; color: var(--dim); font-size: .9em; }
pre { overflow-x: auto; font-size: .85rem; background: var(--box); padding: .7rem .8rem;
  margin: .6rem 0; } code { font-size: .9em; overflow-wrap: anywhere; }
abbr { text-decoration: underline dotted; cursor: help; }
figure { margin: 1rem 0 1.4rem; } svg { display: block; max-width: 100%; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .title { font-weight: 600; font-size: 13px; }
svg .dim { fill: var(--dim); font-size: 11px; } svg .rule { stroke: var(--rule); }
.narrow { display: none; }
@media screen and (max-width: 600px) { .wide { display: none; } .narrow { display: block; }
  body { margin: 1rem auto; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin: 0 0 .5rem; } }
@media print { :root { color-scheme: light; --ink: #000; --dim: #444; --rule: #bbb; --paper: #fff;
  --box: #f3f3f3; LIGHT } body { font-size: 10pt; margin: 0; max-width: none; }
  h2, h3, .caption { break-after: avoid; } figure, tr, .headline, pre { break-inside: avoid; }
  .box, pre { overflow: visible; } pre { white-space: pre-wrap; } table { font-size: 8pt; }
  th, td { white-space: normal; padding-right: .5rem; } abbr { text-decoration: none; } }
""".replace("LIGHT", _variables(COLOURS)).replace("DARK", _variables(DARK))


def page(document: Document) -> str:
    """The whole page."""
    title = escape(document.title)
    body = "\n".join([part for block in document.blocks for part in _block(block)])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n{body}\n{_glossary(document)}</body>\n</html>\n"
    )


def _block(block: Block) -> Iterable[str]:
    match block:
        case Heading():
            yield f"<h{block.level}>{escape(block.text)}</h{block.level}>"
        case Headline():
            yield _headline(block)
        case Paragraph():
            yield f"<p{_class(block.kind)}>{_text(block.text)}</p>"
        case Facts():
            rows = [f"<dt>{escape(name)}</dt><dd>{_text(text)}</dd>" for name, text in block.rows]
            yield f"<dl>{''.join(rows)}</dl>"
        case Table():
            yield _table(block)
        case Picture():
            yield _picture(block)
        case Commands():
            yield _commands(block)


def _headline(block: Headline) -> str:
    interval = (
        f' <span class="interval">[{escape(block.interval)}]</span>' if block.interval else ""
    )
    return (
        f'<div class="headline"><div class="what">{escape(block.what)}</div>'
        f'<div><span class="value">{escape(block.value)}</span>{interval}</div>'
        f"<p>{_text(block.of)}</p></div>"
    )


def _table(block: Table) -> str:
    kinds = ["number" if place in block.numbers else "" for place in range(len(block.header))]
    heads = zip(kinds, block.header, strict=True)
    head = "".join(f"<th{_class(kind)}>{_breakable(text)}</th>" for kind, text in heads)
    body = "\n".join(
        f"<tr>{''.join(_cell(cell, kind) for cell, kind in zip(row, kinds, strict=True))}</tr>"
        for row in block.rows
    )
    said = escape(block.caption)
    caption = f'<p class="caption">{said}</p>\n' if said else ""
    label = f' aria-label="{said}"' if said else ""
    return (
        f'{caption}<div class="box"><table{label}><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def _breakable(name: str) -> str:
    """A parameter's name as a head of a column, which is to be narrow."""
    return escape(name).replace("_", "_<wbr>").replace("+", "+<wbr>")


def _cell(cell: Cell, kind: str) -> str:
    text = f"<strong>{escape(cell.text)}</strong>" if cell.strong else escape(cell.text)
    note = f"<small>{escape(cell.note)}</small>" if cell.note else ""
    full = f' title="{escape(cell.full)}"' if cell.full else ""
    return f"<td{_class(kind)}{full}>{text}{note}</td>"


def _picture(block: Picture) -> str:
    caption = f"<figcaption>{_text(block.caption)}</figcaption>" if block.caption else ""
    return (
        f'<figure><div class="wide">{svg(block.figure, WIDE)}</div>'
        f'<div class="narrow">{svg(block.figure, NARROW)}</div>{caption}</figure>'
    )


def _commands(block: Commands) -> str:
    lines = [
        escape(command) + (f'   <span class="does"># {escape(does)}</span>' if does else "")
        for command, does in block.lines
    ]
    return f"<pre>{chr(10).join(lines)}</pre>"


def _glossary(document: Document) -> str:
    rows = [f"<dt>{escape(t.key)}</dt><dd>{escape(t.meaning)}</dd>" for t in document.terms]
    return f"<h2>Words</h2>\n<dl>{''.join(rows)}</dl>\n" if rows else ""


def _text(text: Text) -> str:
    return "".join(map(_words, text))


def _words(words: Words) -> str:
    match words:
        case Strong():
            return f"<strong>{escape(words.text)}</strong>"
        case Code():
            return f"<code>{escape(words.text)}</code>"
        case Term():
            return f'<abbr title="{escape(words.meaning)}">{escape(words.said)}</abbr>'
    return escape(words)


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
