"""Conditions on rows, as in ``--where "Quantity > 0 and Country in ('France', 'Spain')"``.

A small grammar of its own, parsed and never run as code::

    condition  = both {"or" both}
    both       = one {"and" one}
    one        = "not" one | "(" condition ")" | column test
    test       = ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") value
               | ["not"] "in" "(" value {"," value} ")" | ["not"] "like" text
               | "is" ["not"] "null"
    value      = number | 'text' | "text" | true | false
    column     = a bare name | `any name`

As in SQL, a comparison with a missing value is neither true nor false, and ``not`` leaves it so;
a row stays only where the condition is true. In ``like``, % is any text and _ any character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Value = float | int | str | bool


@dataclass(frozen=True)
class Pattern:
    """A text with ``%`` and ``_``."""

    text: str


@dataclass(frozen=True)
class Bound:
    """A text that others are to come before or after."""

    text: str


# gives a column in a form that can be compared with such a value
Fetch = Callable[[str, Value | Pattern | Bound | None], tuple[pa.ChunkedArray, Any]]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|'(?P<single>(?:[^']|'')*)'|\"(?P<double>(?:[^\"]|\"\")*)\""
    r"|`(?P<quoted>[^`]+)`|(?P<word>[^\W\d][\w.]*)"
    r"|(?P<sign><>|<=|>=|==|!=|=|<|>|\(|\)|,))"
)
_EQUALS = {"=": "equal", "==": "equal", "!=": "not_equal", "<>": "not_equal"}
_ORDERS = {"<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}
_COMPARE = _EQUALS | _ORDERS
MOST_PARTS = 150  # comparisons, brackets and nots of one condition: each is a call inside others
_LARGEST = 2**63 - 1  # what Arrow compares as a whole number
_EXAMPLE = "write, say, Quantity > 0 and Country in ('France', 'Spain')"


@dataclass(frozen=True)
class Condition:
    """A parsed condition: the ``columns`` that it names, and which rows it holds for."""

    text: str
    columns: tuple[str, ...]
    holds: Callable[[Fetch], pa.ChunkedArray]


def parse_condition(text: str) -> Condition:
    """Parse one ``--where``.

    Raises:
        ValueError: it is not in the grammar; the message says where.
    """
    parser = _Parser(text)
    holds = parser.condition()
    if parser.kind != "end":
        raise parser.wrong("expected 'and', 'or' or the end")
    return Condition(text, tuple(dict.fromkeys(parser.columns)), holds)


Holds = Callable[[Fetch], pa.ChunkedArray]


class _Parser:
    """Reads one token ahead: its ``kind`` and ``value``."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = self.began = self.parts = 0
        self.columns: list[str] = []
        self.kind, self.value = "", ""
        self.advance()

    def advance(self) -> None:
        self.began = self.at
        if not self.text[self.at :].strip():
            self.kind, self.value = "end", ""
            return
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            raise self.wrong("cannot be read")
        self.at = match.end()
        self.kind = str(match.lastgroup)
        self.value = match[self.kind]

    def wrong(self, what: str) -> ValueError:
        rest = self.text[self.began :].strip()
        near = f" at {rest!r}" if rest else " at its end"
        hint = _EXAMPLE
        if self.kind == "word" and self.columns:
            hint = "a column with blanks in its name is written `in backticks`"
        return ValueError(f"{self.text!r}: {what}{near}; {hint}")

    def takes(self, *words: str) -> bool:
        """Go on if the next token is one of these words or signs."""
        if self.kind in ("word", "sign") and self.value.lower() in words:
            self.advance()
            return True
        return False

    def expect(self, sign: str) -> None:
        if not self.takes(sign):
            raise self.wrong(f"expected {sign!r}")

    def condition(self) -> Holds:
        left = self.both()
        while self.takes("or"):
            left = _joined(pc.or_kleene, left, self.both())
        return left

    def both(self) -> Holds:
        left = self.one()
        while self.takes("and"):
            left = _joined(pc.and_kleene, left, self.one())
        return left

    def one(self) -> Holds:
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise ValueError(
                f"it has more than {MOST_PARTS} parts; divide it between several --where"
            )
        if self.takes("not"):
            return _negated(self.one())
        if self.takes("("):
            inner = self.condition()
            self.expect(")")
            return inner
        return self.test(self.column())

    def column(self) -> str:
        if self.kind not in ("word", "quoted"):
            raise self.wrong("expected the name of a column")
        self.columns.append(self.value)
        self.advance()
        return self.columns[-1]

    def test(self, column: str) -> Holds:
        if self.kind == "sign" and self.value in _COMPARE:
            sign = self.value
            self.advance()
            value: Value | Bound = self.literal()
            if sign in _ORDERS and isinstance(value, str):
                value = Bound(value)
            return _comparison(getattr(pc, _COMPARE[sign]), column, value)
        if self.takes("is"):
            negated = self.takes("not")
            self.expect("null")
            return _negated(_is_null(column)) if negated else _is_null(column)
        negated = self.takes("not")
        if self.takes("in"):
            found = _is_in(column, self.literals())
        elif self.takes("like"):
            found = _is_like(column, self.pattern())
        else:
            raise self.wrong("expected a comparison, 'in', 'like' or 'is null'")
        return _negated(found) if negated else found

    def literal(self) -> Value:
        kind, text = self.kind, self.value
        value: Value
        if kind == "number":
            whole = not re.search(r"[.eE]", text) and abs(float(text)) < _LARGEST
            value = int(text) if whole else float(text)
        elif kind in ("single", "double"):
            quote = "'" if kind == "single" else '"'
            value = text.replace(quote * 2, quote)
        elif kind == "word" and text.lower() in ("true", "false"):
            value = text.lower() == "true"
        else:
            raise self.wrong("expected a number or a 'text'")
        self.advance()
        return value

    def literals(self) -> list[Value]:
        self.expect("(")
        values = [self.literal()]
        while self.takes(","):
            values.append(self.literal())
        self.expect(")")
        return values

    def pattern(self) -> Pattern:
        value = self.literal()
        if not isinstance(value, str):
            raise self.wrong("'like' takes a 'text'")
        return Pattern(value)


# -- what holds -----------------------------------------------------------------------------


def _joined(how: Callable[..., Any], left: Holds, right: Holds) -> Holds:
    return lambda fetch: how(left(fetch), right(fetch))


def _negated(holds: Holds) -> Holds:
    return lambda fetch: pc.invert(holds(fetch))


def _comparison(compare: Callable[..., Any], column: str, value: Value | Bound) -> Holds:
    def holds(fetch: Fetch) -> pa.ChunkedArray:
        return compare(*fetch(column, value))

    return holds


def _is_in(column: str, values: Sequence[Value]) -> Holds:
    def holds(fetch: Fetch) -> pa.ChunkedArray:
        found = pc.equal(*fetch(column, values[0]))
        for value in values[1:]:
            found = pc.or_kleene(found, pc.equal(*fetch(column, value)))
        return found

    return holds


def _is_like(column: str, pattern: Pattern) -> Holds:
    def holds(fetch: Fetch) -> pa.ChunkedArray:
        return pc.match_like(*fetch(column, pattern))

    return holds


def _is_null(column: str) -> Holds:
    def holds(fetch: Fetch) -> pa.ChunkedArray:
        values, _ = fetch(column, None)
        return pc.is_null(values, nan_is_null=True)

    return holds
