"""What paropt keeps as JSON in its tables and Optuna's, and whether a row holds that.

Other programs may write there: Optuna's own command line, its dashboard, an older or newer paropt,
a person with SQL. Whatever is read from a row passes here once and may be relied on afterwards; so
nobody further in asks whether a list is a list. What an object holds besides is nobody's business.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

LARGEST = 1e100  # of any number: sums and squares of such stay finite
DEEPEST = 200  # nested lists and objects; recursion ends not far beyond
INT4 = 2**31 - 1
INT8 = 2**63 - 1


def loads(text: Any) -> Any:
    """The value of a JSON text from a row; all of it can be printed, stored and calculated with.

    Raises:
        ValueError: it isn't JSON, or holds NaN, an infinite number or a character that no file can
            hold; one clause.
    """
    if not isinstance(text, str):
        raise ValueError("it is empty")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError:
        raise ValueError("it is no JSON") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # most texts need no second look
    if "\\u" in text or text.count("[") + text.count("{") > DEEPEST:
        _look_through(value, DEEPEST)
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"it holds {text}")


def _float(text: str) -> float:
    value = float(text)
    if abs(value) > LARGEST:
        raise ValueError("it holds a number beyond all measure")
    return value


def _int(text: str) -> int:
    if len(text) > 100:
        raise ValueError("it holds a number beyond all measure")
    return int(text)


_DECODER = json.JSONDecoder(parse_float=_float, parse_int=_int, parse_constant=_constant)


def _look_through(value: Any, depth: int) -> None:
    if not depth:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            _look_through(key, depth - 1)
            _look_through(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _look_through(item, depth - 1)
    elif isinstance(value, str) and ("\0" in value or not (value.isascii() or _encodes(value))):
        raise ValueError("it holds a character that no file can hold")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- the kinds of shapes ------------------------------------------------------------------------


class RowSchema(Protocol):
    """What a JSON value may be."""

    def fault(self, value: Any) -> str:
        """What follows the value's name in a sentence about what is wrong; empty if nothing is."""


@dataclass(frozen=True)
class Kind:
    """Values for which ``holds`` is true; ``words`` stand after "not" in sentences."""

    words: str
    holds: Callable[[Any], bool]

    def fault(self, value: Any) -> str:
        return "" if self.holds(value) else f" is {short(value)}, not {self.words}"


@dataclass(frozen=True)
class Members:
    """Objects that have all of ``needed``, and may have ``allowed``."""

    needed: Mapping[str, RowSchema]
    allowed: Mapping[str, RowSchema] = field(default_factory=dict)

    def fault(self, value: Any) -> str:
        if not isinstance(value, dict):
            return f" is {short(value)}, not an object"
        for key, shape in self.needed.items():
            if key not in value:
                return f" has no {key!r}"
            if found := shape.fault(value[key]):
                return f".{key}{found}"
        for key, shape in self.allowed.items():
            if key in value and (found := shape.fault(value[key])):
                return f".{key}{found}"
        return ""


@dataclass(frozen=True)
class Every:
    """Lists, or objects, of any length in which every value has the shape ``of``."""

    of: RowSchema
    container: type[list[Any]] | type[dict[str, Any]] = list

    def fault(self, value: Any) -> str:
        if not isinstance(value, self.container):
            kind = "a list" if self.container is list else "an object"
            return f" is {short(value)}, not {kind}"
        items: Iterable[tuple[Any, Any]]
        items = value.items() if isinstance(value, dict) else enumerate(value)
        faults = ((key, self.of.fault(item)) for key, item in items)
        return next((f"[{short(key)}]{found}" for key, found in faults if found), "")


@dataclass(frozen=True)
class Unless:
    """The one value ``empty``, or the shape ``of``."""

    empty: Any
    of: RowSchema

    def fault(self, value: Any) -> str:
        return "" if value == self.empty else self.of.fault(value)


def short(value: Any) -> str:
    """A value in a message, on one line."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def number(least: float = -LARGEST, most: float = LARGEST) -> Kind:
    """A finite number, no bool."""
    words = "a number" if least == -LARGEST else f"a number from {least:g} to {most:g}"
    return Kind(words, lambda value: type(value) in (int, float) and least <= value <= most)


def whole(least: int = 0, most: int = INT4) -> Kind:
    """An integer."""
    words = f"an integer from {least} to {most}"
    return Kind(words, lambda value: type(value) is int and least <= value <= most)


def one_of(known: Container[Any], words: str) -> Kind:
    """A text out of some."""
    return Kind(words, lambda value: isinstance(value, str) and value in known)


def optional(kind: Kind) -> Kind:
    """The same or null."""
    return Kind(f"{kind.words} or null", lambda value: value is None or kind.holds(value))


ANYTHING = Kind("", lambda _: True)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
TEXT = Kind("a text", lambda value: isinstance(value, str))
NAME = Kind(
    "a name", lambda value: isinstance(value, str) and 0 < len(value) < 256 and value.isprintable()
)
BOOL = Kind("true or false", lambda value: isinstance(value, bool))

# -- a trial's attributes -----------------------------------------------------------------------

_PLAIN = {str, int, float, bool, type(None)}
_NUMBERS = {int, float, type(None)}
_SAID = {dict, type(None)}
# what a column of paropt.training.evaluation.epochs.EpochReport may hold, if not numbers
_CELLS = {**dict.fromkeys(("extra", "conservative", "stderr"), _SAID), "stage": {str, type(None)}}


def _is_owner(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(map(type, value.values())) <= _PLAIN
        and isinstance(value.get("token"), str | None)
    )


def _is_curves(value: Any) -> bool:
    """Numbers epoch by epoch by their name; some columns have texts, or objects of numbers, and
    "extra" is what the model said after each."""
    return (
        isinstance(value, dict)
        and all(
            isinstance(values, list) and set(map(type, values)) <= _CELLS.get(name, _NUMBERS)
            for name, values in value.items()
        )
        and all(
            set(map(type, cell.values())) <= _NUMBERS
            for name in ("conservative", "stderr")
            for cell in value.get(name, ())
            if cell is not None
        )
    )


OWNER = Kind("an object of plain values", _is_owner)
CURVES = Kind("lists of numbers", _is_curves)
END = Members(
    {},
    {
        "why": TEXT,
        "message": TEXT,
        "epoch": optional(whole(1)),
        "by": optional(TEXT),
        "next": whole(),
        "measures": Every(number(), dict),
    },
)


def meta(searched: RowSchema, jobs: Container[str] | None = None) -> Members:
    """What a trial is; ``jobs`` are the names that a plan knows, None where nothing is planned."""
    common: dict[str, RowSchema] = {
        "root": whole(),
        "index": whole(),
        "attempt": whole(1),
        "model": NAME,
        "params": OBJECT,
        "searched": searched,
        "seed": whole(0, INT8),
        "epochs": whole(1),
    }
    if jobs is not None:
        common["job"] = one_of(jobs, "a job of the plan")
    return Members(common, {"once": BOOL, "stages": Every(whole(), dict)})


META = meta(OBJECT)


def is_value(value: Any) -> bool:
    """Whether a column of floats holds something that can be calculated with, or nothing."""
    return value is None or (math.isfinite(value) and abs(value) <= LARGEST)


# -- a study's attributes -----------------------------------------------------------------------

STATES = ("run", "pause", "stop")
STATE = Members(
    {"state": one_of(STATES, "one of run, pause and stop")},
    {"since": number(), "message": TEXT, "failures": TEXT, "over": TEXT},
)
FLOOR = Every(Every(number(), dict), dict)

# of a configuration in a final test: the search's trial, if that found it
FOUND = Unless({}, Members({"value": number(), "trial": whole()}, {"epoch": optional(whole(1))}))
_ENTRY = Members(
    {"name": NAME, "model": NAME, "params": OBJECT, "epochs": whole(1)},
    {
        "found": FOUND,
        "source": TEXT,
        "stages": Every(whole(), dict),
    },
)
PLAN = Members(
    {"of": TEXT, "number": whole(1), "entries": Every(_ENTRY), "seeds": Every(whole(0, INT8))},
    {"once": BOOL, "again": BOOL, "without_valid": BOOL},
)
BEGIN = Members({"model": NAME, "path": TEXT, "digest": NAME}, {"optimiser": NAME})
DEFINITION = Members(
    {
        "name": TEXT,
        "space": OBJECT,
        "metric": NAME,
        "at": Every(whole(1)),
        "data_path": TEXT,
        "fingerprint": NAME,
    },
    {
        "direction": one_of(("maximize", "minimize"), "one of maximize and minimize"),
        "also": Every(NAME),
        "evaluation": Members(
            {},
            {
                "filter_seen": BOOL,
                "ties": one_of(
                    ("standard", "conservative", "median"),
                    "one of standard, conservative and median",
                ),
                "candidates": one_of(("all",), "all"),
            },
        ),
        "view": one_of(
            ("search", "full", "without-valid"), "one of search, full and without-valid"
        ),
        "semantics": whole(),
        "seed": optional(whole(0, INT8)),
        "sampler": OBJECT,
        "pruner": OBJECT,
        "versions": Every(TEXT, dict),
        "heartbeat": number(0.01, 1e6),
        "plan": Unless({}, PLAN),
        "added": Every(NAME, dict),
        "constraints": Every(NAME),
        "directions": Every(one_of(("maximize", "minimize"), "one of maximize and minimize"), dict),
        "begin": Unless({}, BEGIN),
    },
)

# -- a slot's state -----------------------------------------------------------------------------

SLOT: Mapping[str, Kind] = {
    "phase": TEXT,
    "trial": optional(whole()),
    "epoch": optional(whole()),
    "epochs": optional(whole()),
    "value": optional(number()),
    "events_per_second": optional(number()),
}


def said(text: Any) -> dict[str, Any]:
    """What a slot says of itself, without what cannot be shown."""
    try:
        state = loads(text)
    except ValueError:
        return {}
    if not isinstance(state, dict):
        return {}
    return {key: value for key, value in state.items() if SLOT.get(key, ANYTHING).holds(value)}
