"""JSON that remembers the line of everything in it, for messages that name ``file:line``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from paropt.errors import SpaceError

Path = tuple[str | int, ...]

_SPACE = re.compile(r"[ \t\n\r]*")
_DEPTH = 40  # deeper than any space; keeps hostile input from exhausting the stack


class JsonError(ValueError):
    """Text that isn't JSON, or says a key twice."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def load(text: str, first_line: int = 1) -> tuple[Any, dict[Path, int]]:
    """The value of a JSON text, and the line on which every value (keyed by its path) begins.

    Members of an object are found at the line of their key. The empty path is the whole value.

    Raises:
        JsonError: not JSON, a key said twice, NaN or Infinity, or nested without end.
    """
    scanner = _Scanner(text, first_line)
    value, end = scanner.value(scanner.skip(0), ())
    if scanner.skip(end) != len(text):
        scanner.fail(scanner.skip(end), "there is more text after the end of the JSON value")
    return value, scanner.lines


class _Scanner:
    def __init__(self, text: str, first_line: int) -> None:
        self.text = text
        self.first_line = first_line
        self.lines: dict[Path, int] = {}
        self.scalars = json.JSONDecoder(parse_constant=self._constant)

    def line(self, at: int) -> int:
        return self.first_line + self.text.count("\n", 0, at)

    def fail(self, at: int, message: str) -> NoReturn:
        raise JsonError(self.line(at), message)

    def skip(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        assert match is not None
        return match.end()

    def _constant(self, name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON number")

    def value(self, at: int, path: Path) -> tuple[Any, int]:
        if len(path) > _DEPTH:
            self.fail(at, f"nested more than {_DEPTH} levels deep")
        self.lines.setdefault(path, self.line(at))
        first = self.text[at : at + 1]
        if first == "{":
            return self.object(at, path)
        if first == "[":
            return self.array(at, path)
        return self.scalar(at, "a value")

    def scalar(self, at: int, wanted: str) -> tuple[Any, int]:
        if at >= len(self.text):
            self.fail(at, f"the text ends where {wanted} should be")
        try:
            return self.scalars.raw_decode(self.text, at)
        except json.JSONDecodeError as error:
            found = self.text[at : at + 12].split("\n")[0]
            detail = "" if error.msg == "Expecting value" else f" ({error.msg})"
            raise JsonError(self.line(at), f"{wanted} should be at {found!r}{detail}") from None
        except ValueError as error:
            raise JsonError(self.line(at), str(error)) from None

    def object(self, at: int, path: Path) -> tuple[dict[str, Any], int]:
        members: dict[str, Any] = {}
        at = self.skip(at + 1)
        while self.text[at : at + 1] != "}":
            if members:
                at = self.comma(at, "}")
            if self.text[at : at + 1] != '"':
                self.fail(at, f'a "name" should be at {self.text[at : at + 12]!r}')
            key, colon = self.scalar(at, 'a "name"')
            if key in members:
                self.fail(at, f'"{key}" is said twice, first on line {self.lines[*path, key]}')
            self.lines[*path, key] = self.line(at)
            at = self.skip(colon)
            if self.text[at : at + 1] != ":":
                self.fail(at, f'a colon should follow "{key}"')
            members[key], at = self.value(self.skip(at + 1), (*path, key))
            at = self.skip(at)
        return members, at + 1

    def array(self, at: int, path: Path) -> tuple[list[Any], int]:
        items: list[Any] = []
        at = self.skip(at + 1)
        while self.text[at : at + 1] != "]":
            if items:
                at = self.comma(at, "]")
            item, at = self.value(at, (*path, len(items)))
            items.append(item)
            at = self.skip(at)
        return items, at + 1

    def comma(self, at: int, end: str) -> int:
        if self.text[at : at + 1] != ",":
            self.fail(at, f"a comma or {end!r} should be at {self.text[at : at + 12]!r}")
        return self.skip(at + 1)


@dataclass(frozen=True)
class Origin:
    """Where an object was read from: the file's name, and the lines of what is in it.

    ``given`` names the fixed parameters that came from the command line and so are on no line.
    """

    name: str
    lines: Mapping[Path, int] = field(default_factory=dict)
    given: frozenset[str] = frozenset()

    def fail(self, where: Path, message: str) -> NoReturn:
        """Raises a :class:`SpaceError` that names the file and the nearest known line."""
        if len(where) > 1 and where[0] == "fixed" and where[1] in self.given:
            raise SpaceError(f"--fixed: {message}")
        while where and where not in self.lines:
            where = where[:-1]
        line = f":{self.lines[where]}" if where in self.lines else ""
        raise SpaceError(f"{self.name}{line}: {message}")
