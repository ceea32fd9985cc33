"""Options of a study as a script gives them, held to what the command line takes of each."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

from paropt.data.log.values.times import parse_duration
from paropt.errors import ParoptError, did_you_mean
from paropt.launch.opening.launch_request import LaunchRequest
from paropt.names import check_name
from paropt.training.evaluation.protocol import TIES


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of :class:`LaunchRequest`, as plain numbers and tuples; None says nothing.

    Numbers may be numpy's, durations also texts such as "2h", and one text stands for a list of it.

    Raises:
        ParoptError: there is no such option, or it takes no such value.
    """
    known = [field.name for field in fields(LaunchRequest)]
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            hint = did_you_mean(name, known, "docs/python.md says where they are listed")
            raise ParoptError(f"a study has no option {name!r}; {hint}")
        found[name] = value if value is None else _CHECKS.get(name, _as_it_is)(name, value)
    return {name: value for name, value in found.items() if value is not None}


def _as_it_is(name: str, value: Any) -> Any:
    return value


def _count(name: str, value: Any, least: int = 1) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ParoptError(f"{name} is a whole number, not {value!r}") from None
    if number < least:
        raise ParoptError(f"{name} is {least} or more, not {value!r}")
    return number


def _seed(name: str, value: Any) -> int:
    return _count(name, value, 0)


def _amount(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool | str):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ParoptError(f"{name} is a number, not {value!r}") from None
    if not (number > 0 and math.isfinite(number)):
        raise ParoptError(f"{name} is above 0, not {value!r}")
    return number


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, str):
        try:
            return _amount(name, parse_duration(value) / 1000)
        except ValueError as error:
            raise ParoptError(f"{name}: {error}") from None
    return _amount(name, value)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    one = isinstance(value, str | os.PathLike)
    if not one and (isinstance(value, Mapping) or not isinstance(value, Iterable)):
        raise ParoptError(f"{name} is a list of texts, not {value!r}")
    texts = (value,) if one else tuple(value)
    if not all(isinstance(text, str | os.PathLike) for text in texts):
        raise ParoptError(f"{name} is a list of texts, not {value!r}")
    return tuple(os.fspath(text) for text in texts)


def _choice(name: str, value: Any) -> dict[str, Any]:
    """A sampler or pruner by its name, or with its options."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping):
        raise ParoptError(f"{name} is a name or a dict with its options, not {value!r}")
    return dict(value)


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):
        raise ParoptError(f"{name} is True or False, not {value!r}")
    return bool(value)


def _ties(name: str, value: Any) -> str:
    if value not in TIES:
        raise ParoptError(f"ties are {', '.join(TIES)}, not {value!r}")
    return str(value)


def _name(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ParoptError(f"study is a name, not {value!r}")
    try:
        check_name(value)
    except ParoptError as error:
        raise ParoptError(f"study: {error}") from None
    return value


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "trials": _count,
    "stop_after_stale": _count,
    "seed": _seed,
    "timeout": _seconds,
    "heartbeat": _seconds,
    "device_hours": _amount,
    **dict.fromkeys(("also", "constraint", "fixed", "warm_start"), _texts),
    **dict.fromkeys(("sampler", "pruner"), _choice),
    "filter_seen": _truth,
    "keep_optimiser": _truth,
    "ties": _ties,
    "study": _name,
}
