"""A request's JSON as what is asked of the model; every field is looked at."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from paropt.errors import did_you_mean
from paropt.serving.limits import Limits, Refused
from paropt.training.recommending.answering import Ask

COMMON = ("top", "filter_seen", "want", "candidates", "exclude")
OF_SESSION = ("id", "items", "times", "columns", "user", *COMMON)


def read_request(body: bytes, limits: Limits) -> list[tuple[str | None, Ask]]:
    """The sessions of a request: each one's id, if it has one, and what is asked.

    It is one session, or ``{"sessions": [session, …]}``; what stands beside ``sessions`` holds for
    each that doesn't say otherwise.

    Raises:
        Refused: 400 for what is malformed, 422 for what is too much.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {error}") from None
    given = _object(given, "the body")
    if "sessions" not in given:
        return [_session(given, {}, "", limits)]
    common = {key: value for key, value in given.items() if key != "sessions"}
    _known(common, COMMON, "beside 'sessions'")
    sessions = given["sessions"]
    if not isinstance(sessions, list) or not sessions:
        raise Refused(400, "'sessions' is a list of at least one session")
    if len(sessions) > limits.sessions:
        raise Refused(
            422, f"a request has at most {limits.sessions:,} sessions, not {len(sessions):,}"
        )
    return [
        _session(_object(one, f"session {number}"), common, f"session {number}: ", limits)
        for number, one in enumerate(sessions, 1)
    ]


def _session(
    given: Mapping[str, Any], common: Mapping[str, Any], where: str, limits: Limits
) -> tuple[str | None, Ask]:
    try:
        _known(given, OF_SESSION, "in a session")
        asked = {**common, **given}
        if "items" not in asked:
            raise Refused(400, "'items' is missing: the ids of the session's items")
        items = _ids(asked["items"], "items", limits.events)
        times = asked.get("times")
        name = asked.get("id")
        return None if name is None else _id(name, "id"), Ask(
            items=items,
            times=None if times is None else _times(times, len(items)),
            columns=_columns(asked.get("columns", {}), len(items)),
            user=None if asked.get("user") is None else _id(asked["user"], "user"),
            top=_top(asked.get("top", min(20, limits.top)), limits),
            filter_seen=_flag(asked.get("filter_seen", False), "filter_seen"),
            want=tuple(_ids(asked.get("want", []), "want", limits.listed)),
            candidates=None
            if asked.get("candidates") is None
            else _ids(asked["candidates"], "candidates", limits.listed),
            exclude=_ids(asked.get("exclude", []), "exclude", limits.listed),
        )
    except Refused as refused:
        raise Refused(refused.status, f"{where}{refused}") from None


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Refused(400, f"{what} is no JSON object")
    return value


def _known(given: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for name in given:
        if name not in names:
            hint = did_you_mean(name, names, f"there are {', '.join(names)}")
            raise Refused(400, f"there is no {name!r} {where}; {hint}")


def _id(value: Any, name: str) -> str:
    """Ids are text; whole numbers are taken as they are written."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Refused(400, f"{name!r} has {_short(value)}, and ids are text or whole numbers")


def _ids(value: Any, name: str, most: int) -> list[str]:
    if not isinstance(value, list):
        raise Refused(400, f"{name!r} is a list, not {_short(value)}")
    if len(value) > most:
        raise Refused(422, f"{name!r} has at most {most:,} entries, not {len(value):,}")
    return [_id(one, name) for one in value]


def _times(value: Any, count: int) -> list[int]:
    """Seconds since 1970, or ISO 8601 (without an offset: UTC), as milliseconds."""
    if not isinstance(value, list) or len(value) != count:
        raise Refused(400, f"'times' is a list with a time for each of the {count} items")
    return [_milliseconds(one) for one in value]


def _milliseconds(value: Any) -> int:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise Refused(400, f"'times' has {value!r}, which is no ISO 8601 time") from None
        known = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return round(known.timestamp() * 1000)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        if abs(value) < 1e12:
            return round(value * 1000)
        raise Refused(400, f"'times' has {value}, and times are seconds since 1970")
    raise Refused(400, f"'times' has {_short(value)}, and times are seconds since 1970 or ISO 8601")


def _columns(value: Any, count: int) -> dict[str, list[Any]]:
    columns = _object(value, "'columns'")
    for name, values in columns.items():
        if not isinstance(values, list) or len(values) != count:
            raise Refused(
                400, f"column {name!r} is a list with a value for each of the {count} items"
            )
        for one in values:
            if one is not None and not isinstance(one, str | int | float):
                raise Refused(400, f"column {name!r} has {_short(one)}, no text or number")
    return dict(columns)


def _top(value: Any, limits: Limits) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Refused(400, f"'top' is a whole number from 1, not {_short(value)}")
    if value > limits.top:
        raise Refused(422, f"'top' is at most {limits.top:,}, not {value:,}")
    return value


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise Refused(400, f"{name!r} is true or false, not {_short(value)}")
    return value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
