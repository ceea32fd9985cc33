"""Declared parameters: what each may be, and how it is read from text, JSON or Python.

Part of the contract: import :class:`Param` from :mod:`models.parts.contract`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

ParamType = Literal["int", "float", "bool", "str", "sizes", "names"]


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a model: what it may be, what it is if nobody says, what it does.

    ``type`` "sizes" is a list of positive ints that may be written as one int, a list, or
    ``"200/200"``; "names" is a list of names (of columns, of features) that may be written as
    ``"genre+price"``, or ``"none"``. ``low`` and ``high`` are inclusive unless
    ``low_open``/``high_open``. A "str" has ``choices`` or a ``pattern`` that must match in full;
    with a pattern it takes an integer as its digits ("embedding": 0 or "layersize"). ``source``
    names the paper, section or program that the parameter or its default comes from.
    """

    name: str
    type: ParamType
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[str | int | float, ...] = ()
    pattern: str = ""
    source: str = ""

    def parse(self, value: Any) -> Any:
        """The value in this parameter's own type; text is taken as on a command line.

        Raises:
            ValueError: one clause that says what the value should have been.
        """
        if self.pattern and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        parsed = _PARSERS[self.type](value)
        if self.type != "names":
            for number in parsed if isinstance(parsed, tuple) else (parsed,):
                self._check_range(number)
        if self.choices and parsed not in self.choices:
            raise ValueError(f"must be one of {', '.join(map(str, self.choices))}, not {value!r}")
        if self.pattern and not re.fullmatch(self.pattern, str(parsed)):
            raise ValueError(f"{value!r} is not of the form {self.pattern}")
        return parsed

    def _check_range(self, number: Any) -> None:
        if self.low is not None and (number < self.low or (self.low_open and number == self.low)):
            raise ValueError(
                f"must be {'above' if self.low_open else 'at least'} {self.low:g}, not {number}"
            )
        if self.high is not None and (
            number > self.high or (self.high_open and number == self.high)
        ):
            raise ValueError(
                f"must be {'below' if self.high_open else 'at most'} {self.high:g}, not {number}"
            )


def _parse_int(value: Any) -> int:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            raise ValueError(f"must be an integer, not {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise ValueError(f"must be an integer, not {value!r}")
    return int(value)


def _parse_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"must be a number, not {value!r}")
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"must be a number, not {value!r}") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"must be a finite number, not {value!r}")
    return number


def _parse_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value in ("True", "true", "1", "False", "false", "0"):
        return value in ("True", "true", "1")
    raise ValueError(f"must be true or false, not {value!r}")


def _parse_str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {value!r}")
    return value


def _parse_sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        value = value.split("/")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"must be a size, a list of sizes or '200/200', not {value!r}")
    return tuple(_parse_int(size) for size in value)


def _parse_names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [] if value in ("", "none") else value.split("+")
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) and v for v in value):
        raise ValueError(f"must be names like 'genre+price', or 'none', not {value!r}")
    if twice := [name for name in value if list(value).count(name) > 1]:
        raise ValueError(f"names {twice[0]!r} twice")
    return tuple(value)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "int": _parse_int,
    "float": _parse_float,
    "bool": _parse_bool,
    "str": _parse_str,
    "sizes": _parse_sizes,
    "names": _parse_names,
}
