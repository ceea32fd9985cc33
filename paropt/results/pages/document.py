"""A page for people, as blocks: all its words are here, none on how they look.

Markdown (:mod:`.markdown`) and HTML (:mod:`.html_page`) are made of the same blocks, so that they
cannot say different things.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from paropt.results.figures.description import Figure
from paropt.results.words import MEANINGS


@dataclass(frozen=True)
class Strong:
    """Words that stand out."""

    text: str


@dataclass(frozen=True)
class Code:
    """A name or a command within a sentence."""

    text: str


@dataclass(frozen=True)
class Term:
    """A word that is explained: ``key`` into :data:`paropt.results.words.MEANINGS`, ``text`` as it
    stands in the sentence."""

    key: str
    text: str = ""

    @property
    def said(self) -> str:
        return self.text or self.key

    @property
    def meaning(self) -> str:
        return MEANINGS[self.key]


Words = str | Strong | Code | Term
Text = Sequence[Words]


@dataclass(frozen=True)
class Cell:
    """Of a table: ``text``, below it in small type a ``note``; ``full`` is what was shortened."""

    text: str = ""
    note: str = ""
    strong: bool = False
    full: str = ""


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Headline:
    """The one number of a page: ``what`` it is, its ``value`` and ``interval``, ``of`` what."""

    what: str
    value: str
    interval: str
    of: Text


@dataclass(frozen=True)
class Paragraph:
    """``kind``: "warning" is to be seen, "aside" is for who wants to know more."""

    text: Text
    kind: Literal["", "warning", "aside"] = ""


@dataclass(frozen=True)
class Facts:
    """Names with what there is to say of each."""

    rows: Sequence[tuple[str, Text]]


@dataclass(frozen=True)
class Table:
    """``numbers`` are the places of the columns that hold numbers, which stand at the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: Collection[int] = ()
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure, with a sentence on how to read it."""

    figure: Figure
    caption: Text = ()


@dataclass(frozen=True)
class Commands:
    """Lines to type in a shell, each with what it does."""

    lines: Sequence[tuple[str, str]]


Block = Heading | Headline | Paragraph | Facts | Table | Picture | Commands


@dataclass(frozen=True)
class Document:
    """A page: its title, and blocks from the top."""

    title: str
    blocks: Sequence[Block] = field(default_factory=list)

    @property
    def terms(self) -> list[Term]:
        """What is explained at the end, each once, in the order in which it is met."""
        found = {
            word.key: word
            for text in map(texts_of, self.blocks)
            for word in text
            if isinstance(word, Term)
        }
        return list(found.values())


def texts_of(block: Block) -> list[Words]:
    """The words of a block that may hold terms."""
    match block:
        case Headline():
            return list(block.of)
        case Paragraph():
            return list(block.text)
        case Facts():
            return [word for _, text in block.rows for word in text]
        case Picture():
            return list(block.caption)
    return []


def cells(*texts: str | Cell) -> list[Cell]:
    """A row of a table."""
    return [text if isinstance(text, Cell) else Cell(text) for text in texts]
