"""A document as Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from paropt.results.figures.description import Bars
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
    Text,
    Words,
)


def markdown(document: Document) -> str:
    """The document for people who read text: figures are left out but for bars, and headings that
    have nothing else below them."""
    lines = [f"# {_plain(document.title)}", ""]
    said = [(block, told) for block in document.blocks if (told := _block(block))]
    for place, (block, told) in enumerate(said):
        following = said[place + 1][0] if place + 1 < len(said) else Heading("")
        if not (isinstance(block, Heading) and isinstance(following, Heading)):
            lines += [*told, ""]
    if terms := document.terms:
        lines += ["## Words", ""]
        lines += [f"- **{term.key}**: {_plain(term.meaning)}." for term in terms]
        lines += [""]
    return "\n".join(lines)


def _block(block: Block) -> list[str]:
    match block:
        case Heading():
            return [f"{'#' * block.level} {_plain(block.text)}"]
        case Headline():
            interval = f" [{block.interval}]" if block.interval else ""
            return [f"**{_plain(block.what)} {block.value}{interval}**. {_text(block.of)}"]
        case Paragraph():
            return [
                f"**Beware:** {_text(block.text)}" if block.kind == "warning" else _text(block.text)
            ]
        case Facts():
            return [f"- {_plain(name)}: {_text(text)}" for name, text in block.rows]
        case Table():
            return list(_table(block))
        case Commands():
            return [*_commands(block)]
        case Picture(figure=Bars() as bars):
            shares = ", ".join(f"{name} {share:.0%}" for name, share in bars.bars if share >= 0.01)
            return [f"{_plain(bars.title)}: {_plain(shares)}. {_text(block.caption)}"]
    return []


def _table(block: Table) -> Iterable[str]:
    if block.caption:
        yield f"{_plain(block.caption)}:"
        yield ""
    rows = [[*map(_plain, block.header)], *([*map(_cell, row)] for row in block.rows)]
    widths = [max(3, *(len(row[place]) for row in rows)) for place in range(len(block.header))]
    rule = ["-" * width for width in widths]
    rules = [f"{line[:-1]}:" if p in block.numbers else line for p, line in enumerate(rule)]
    for row in (rows[0], rules, *rows[1:]):
        yield _row(row, widths, block.numbers)


def _row(cells: Sequence[str], widths: Sequence[int], numbers: Collection[int]) -> str:
    """In columns, as it is read in terminals, too."""
    filled = (
        cell.rjust(width) if place in numbers else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(filled)} |"


def _cell(cell: Cell) -> str:
    text = _plain(cell.text)
    if cell.note:
        text += f" {_plain(cell.note)}"
    return f"**{text}**" if cell.strong and text else text


def _commands(block: Commands) -> Iterable[str]:
    for command, does in block.lines:
        yield f"    {_one_line(command)}" + (f"    # {_one_line(does)}" if does else "")


def _text(text: Text) -> str:
    return "".join(map(_words, text))


def _words(words: Words) -> str:
    match words:
        case Strong():
            return f"**{_plain(words.text)}**"
        case Code():
            return f"`{_one_line(words.text).replace('`', '')}`"
        case str():
            return _plain(words)
    return _plain(words.said)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Words as they are: what Markdown or HTML would read as more is escaped, and nothing else, as
    it is read in terminals, too."""
    return re.sub(r"([`*|]|<(?=[A-Za-z/!?])|\](?=[(\[:]))", r"\\\1", re.sub(r"\s*\n\s*", " ", text))
