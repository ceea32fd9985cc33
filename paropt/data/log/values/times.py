"""Times of any spelling as int64 milliseconds since 1970, UTC."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.events import Bools, Ints
from paropt.data.log.values.ids import names_no_value
from paropt.data.reading.arrow import as_text, is_moment, is_number, is_text
from paropt.data.reading.read import Place
from paropt.errors import DataError

# unit -> (milliseconds per unit, smallest and largest that the unit is guessed for). The guesses
# hold from 1973 to 5138 except for seconds, which also are what small made-up times are taken for.
UNITS: dict[str, tuple[float, float, float]] = {
    "s": (1e3, -1e11, 1e11),
    "ms": (1.0, 1e11, 1e14),
    "us": (1e-3, 1e14, 1e17),
    "ns": (1e-6, 1e17, 9.3e18),
}
# digits of a time that is written as one number -> its form
_COMPACT = {
    8: "%Y%m%d",
    10: "%Y%m%d%H",
    12: "%Y%m%d%H%M",
    14: "%Y%m%d%H%M%S",
    17: "%Y%m%d%H%M%S and milliseconds",
}
_EARLIEST_YEAR = 1995  # of a log that nobody asks about
_TICKS = (6.2767e17, 6.6247e17)  # of .NET, 1990 to 2099; as ns they are of 1989 and 1990
_DAY_MS = 86_400_000
_BLOCK = 1 << 20  # times that are looked at at once
_EARLIEST_MS, _LATEST_MS = -62_135_596_800_000, 253_402_300_799_999  # years 1 to 9999
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_HAS_ZONE = r"(Z|[+-]\d\d(:?\d\d)?)$"
_DATE_ONLY = r"^\d{4}-\d\d-\d\d$"
_WITH_HOUR = r"[ T]\d\d"


# directives of strptime that are a fixed number of digits
_DIGITS = {"Y": 4, "m": 2, "d": 2, "y": 2, "H": 2, "M": 2, "S": 2, "j": 3}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_DURATION_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_duration(text: str) -> int:
    """Milliseconds of a duration such as ``30m``, ``1h`` or ``1.5d``.

    Raises:
        ValueError: it is no positive duration.
    """
    text = text.strip()
    match = _DURATION.fullmatch(text)
    if text.isdecimal() and int(text):
        units = f"{text}s, {text}m or {text}h"
        raise ValueError(f"{text!r} is no duration without a unit; write {units}")
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{text!r} is no duration; write 30m, 1h or 1d")
    return round(float(match[1]) * _DURATION_MS[match[2]])


def check_time_format(time_format: str | None) -> None:
    """Refuse a strptime format with an hour up to 12 that doesn't say of which half of the day.

    Raises:
        DataError: 03:10 PM would be read as 03:10.
    """
    said = set(re.findall(r"%(.)", time_format or ""))
    if "I" in said and "p" not in said:
        raise DataError(
            f"--time-format {time_format!r}: %I, an hour up to 12, needs %p beside it; write %H if"
            " hours go up to 24"
        )


def parse_moment(text: str) -> int:
    """Milliseconds since 1970 of an ISO 8601 date or time; UTC where it names no zone.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(_iso_chunk(pa.array([text]))[0])
    except pa.ArrowInvalid:
        raise ValueError(f"{text!r} is no time; write 2017-10-16 or 2017-10-16T12:00Z") from None


def odd_span(times: Ints) -> str | None:
    """What to say of times (milliseconds) that are not all from 1995 to next year; else None."""
    if not len(times):
        return None
    first, last = np.array([times.min(), times.max()], "datetime64[ms]").astype("datetime64[D]")
    next_year = datetime.now(UTC).year + 1
    years = [f"{_EARLIEST_YEAR}-01-01", f"{next_year + 1}-01-01"]
    begin, end = np.array(years, "datetime64[ms]").astype(np.int64)
    n_odd = np.count_nonzero((times < begin) | (times >= end))
    if not n_odd:
        return None
    return (
        f"times go from {first} to {last}, and {n_odd:,} of {len(times):,} are not from"
        f" {_EARLIEST_YEAR} to {next_year}: are they in another unit or form?"
        " --time-format says which"
    )


def to_milliseconds(
    column: pa.ChunkedArray, name: str, place: Place, time_format: str | None = None
) -> Ints:
    """Int64 milliseconds [rows].

    ``time_format`` is ``s``, ``ms``, ``us``, ``ns``, ``iso`` or a strptime format such as
    ``%d/%m/%Y %H:%M``. Without it, numbers that all are dates (``20140401``, ``20140401235959``)
    are read as such, others are an epoch whose unit follows from their size; text is ISO 8601.
    Times without a zone are UTC.

    Raises:
        DataError: a time does not parse, or the times are in no one unit.
    """
    column = place.plain(column, name)
    nothing = pc.is_null(column, nan_is_null=True)
    if pc.any(nothing).as_py():
        raise place.fail(pc.index(nothing, True).as_py(), name, missing("time"))
    if is_moment(column.type):
        return _moments(column, name, place)
    if not (is_number(column.type) or is_text(column.type)):
        what = f"holds {column.type}, which are no times; write epochs, timestamps or text"
        raise place.refuse(name, what)
    if time_format in UNITS or (time_format is None and _holds_numbers(column)):
        return _epoch(to_numbers(column, name, place, "time"), name, place, time_format)
    if is_number(column.type):
        column = _digits(column)
    if time_format in (None, "iso"):
        return _iso(column, name, place)
    return _strptime(column, name, place, str(time_format))


def unreadable_times(
    column: pa.ChunkedArray, name: str, place: Place, time_format: str | None = None
) -> Bools:
    """Which rows [rows] have no time, or one that :func:`to_milliseconds` does not understand."""
    column = place.plain(column, name)
    bad: Bools = pc.is_null(column, nan_is_null=True).to_numpy().copy()
    if not is_text(column.type):
        return bad
    text = pc.fill_null(column, "")
    if time_format in UNITS or (time_format is None and _holds_numbers(text)):
        bad |= pc.invert(pc.match_substring_regex(text, _NUMBER)).to_numpy()
    elif time_format in (None, "iso"):
        bad |= np.concatenate([np.zeros(0, bool), *map(_bad_iso, text.chunks)])
    else:
        codes, stamps = _parsed(text, str(time_format))
        bad |= np.isnat(stamps)[codes]
    return bad


def to_numbers(column: pa.ChunkedArray, name: str, place: Place, what: str) -> NDArray[Any]:
    """Integers or floats [rows] of numbers, moments or text; int64 if all of a text are integers.

    Raises:
        DataError: some value is no finite number; ``what`` says what it should have been.
    """
    column = place.plain(column, name)
    missing = pc.is_null(column, nan_is_null=True)
    if pc.any(missing).as_py():
        raise place.fail(pc.index(missing, True).as_py(), name, f"the {what} is missing")
    if is_moment(column.type):
        return _moments(column, name, place)
    if is_number(column.type):
        return _finite(_numpy(column), name, place, what)
    if not is_text(column.type):
        raise place.refuse(name, f"holds {column.type}, not a number ({what}); write it as one")
    return _finite(_of_text(column, name, place, what), name, place, what)


def all_numbers(text: pa.ChunkedArray) -> bool:
    """Whether texts are numbers, each of them."""
    return bool(len(text)) and bool(pc.all(pc.match_substring_regex(text, _NUMBER)).as_py())


def to_order(column: pa.ChunkedArray, name: str, place: Place) -> NDArray[Any]:
    """Numbers [rows] that order events, as :func:`to_numbers`.

    Raises:
        DataError: some value is no finite number, or floats are so large that they were rounded.
    """
    values = to_numbers(column, name, place, "order")
    if values.dtype.kind == "f":
        _refuse_coarse(values, name, place, "number")
    return values


def _of_text(column: pa.ChunkedArray, name: str, place: Place, what: str) -> NDArray[Any]:
    for kind in (pa.int64(), pa.uint64(), pa.float64()):
        try:
            return _numpy(pc.cast(column, kind))
        except pa.ArrowInvalid:
            continue
    wrong = pc.invert(pc.match_substring_regex(column, _NUMBER))
    row = pc.index(wrong, True).as_py()
    if row < 0:  # a spelling that pyarrow's own cast does not take: spaces, a plus sign
        return _numpy(pc.cast(pc.replace_substring_regex(column, r"[\s+]", ""), pa.float64()))
    text = column[row].as_py()
    raise place.fail(row, name, _nothing(text, what) or f"{text!r} is no {what}")


def _finite(values: NDArray[Any], name: str, place: Place, what: str) -> NDArray[Any]:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise place.fail(row, name, f"{values[row]} is no {what}")
    return values


def _holds_numbers(column: pa.ChunkedArray) -> bool:
    """Whether most of the first values are numbers, so that a wrong one is told from a form."""
    if is_number(column.type):
        return True
    texts = [text for text in column[:100].to_pylist() if text]
    return 2 * sum(map(_is_number, texts)) > len(texts)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    array: NDArray[Any] = column.to_numpy()
    return array


def _digits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers as they would be written: 20140401 of 20140401.0."""
    try:
        return as_text(column.cast(pa.int64()))
    except pa.ArrowInvalid:
        return as_text(column)


def _moments(column: pa.ChunkedArray, name: str, place: Place) -> Ints:
    """Milliseconds of timestamps and dates, whatever their unit; a zone is only how they look."""
    kind = column.type
    if pa.types.is_date32(kind):
        days = _numpy(column.cast(pa.int32())).astype(np.int64)
        return _scaled(days * 86_400, "s", name, place)
    if pa.types.is_date64(kind):
        column = column.cast(pa.timestamp("ms"))
    return _scaled(_numpy(column.cast(pa.int64())), column.type.unit, name, place)


def _epoch(values: NDArray[Any], name: str, place: Place, unit: str | None) -> Ints:
    if values.dtype.kind == "f":
        if values.itemsize < 8:
            _refuse_coarse(values, name, place, "time")
        values = values.astype(np.float64, copy=False)
    if unit is None:
        compact = _compact(values, name, place)
        if compact is not None:
            return compact
        unit = _guess_unit(values, name, place)
    return _scaled(values, unit, name, place)


def _refuse_coarse(values: NDArray[Any], name: str, place: Place, what: str) -> None:
    """A float32 holds today's seconds in steps of two minutes: the order of events is lost."""
    if np.abs(values).max(initial=0) >= 2 ** (np.finfo(values.dtype).nmant + 1):
        rounds = f"holds {values.dtype}, which rounds {what}s of this size"
        raise place.refuse(name, f"{rounds}; write double, integers or timestamps")


def _scaled(values: NDArray[Any], unit: str, name: str, place: Place) -> Ints:
    """Milliseconds of numbers in a unit."""
    scale = UNITS[unit][0]
    latest = min(_LATEST_MS / scale, 2**63 - 1)
    far = (values > latest) | (values < _EARLIEST_MS / scale)
    if far.any():
        row = int(np.argmax(far))
        raise place.fail(row, name, f"{values[row]} is too far from 1970 for a time in {unit}")
    if values.dtype.kind in "iu":
        whole = values.astype(np.int64, copy=False)
        return whole * int(scale) if scale >= 1 else whole // round(1 / scale)
    milliseconds = np.empty(len(values), np.int64)
    for block in _blocks(len(values)):
        milliseconds[block] = np.rint(values[block] * scale)
    return milliseconds


def _compact(values: NDArray[Any], name: str, place: Place) -> Ints | None:
    """Milliseconds of dates that are written as one number; None if these are none.

    No clock has counted to such numbers yet: 20140401 seconds were in August 1970, and
    20140401000000 milliseconds will be in 2608.
    """
    if values.max() >= 2**63:
        return None
    if any((values[block] != np.floor(values[block])).any() for block in _blocks(len(values))):
        return None
    values = values.astype(np.int64, copy=False)
    usual = int(np.quantile(values, 0.5, method="lower"))
    n_digits = len(str(usual))
    if usual < 0 or n_digits not in _COMPACT:
        return None
    milliseconds, valid = np.empty_like(values), np.zeros(len(values), bool)
    wrong = 0
    for block in _blocks(len(values)):
        year = values[block] // 10 ** (n_digits - 4)
        milliseconds[block], valid[block] = _of_digits(values[block], n_digits)
        valid[block] &= (year >= 1970) & (year < 2100)
        wrong += len(year) - int(np.count_nonzero(valid[block]))
        if wrong > 0.1 * len(values) + 1:
            return None
    if valid.mean() < 0.9:
        return None
    if not valid.all():
        row = int(np.argmin(valid))
        raise place.fail(
            row,
            name,
            f"{values[row]} is no date of the form {_COMPACT[n_digits]}, as the others are;"
            " correct it, or say the unit with --time-format s, ms, us or ns",
        )
    return milliseconds


def _blocks(n: int) -> Iterator[slice]:
    """Stretches of n values: what is worked out on the way to a time is several times as large."""
    return (slice(begin, begin + _BLOCK) for begin in range(0, n, _BLOCK))


def _of_digits(values: Ints, n_digits: int) -> tuple[Ints, Bools]:
    """Milliseconds, and which values are dates at all."""
    parts, rest = [], values
    for place in (n_digits - 4, n_digits - 6, n_digits - 8):
        parts.append(rest // 10**place)
        rest = rest % 10**place
    year, month, day = parts
    begin = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    date = begin.astype("datetime64[D]") + (day - 1)
    valid = (month >= 1) & (month <= 12) & (day >= 1) & (date.astype("datetime64[M]") == begin)
    clock = rest * 10 ** (17 - n_digits)  # HHMMSSfff
    hour, minute, second = clock // 10**7, clock // 10**5 % 100, clock // 10**3 % 100
    valid &= (hour < 24) & (minute < 60) & (second < 60)
    of_day = ((hour * 60 + minute) * 60 + second) * 1000 + clock % 1000
    return date.astype(np.int64) * _DAY_MS + of_day, valid


def _guess_unit(values: NDArray[Any], name: str, place: Place) -> str:
    low, high = float(values.min()), float(values.max())
    if _TICKS[0] <= low and high < _TICKS[1]:
        raise place.fail(
            0,
            name,
            f"{values[0]} looks like .NET ticks, ten million a second since the year 1; write"
            " (ticks - 621355968000000000) / 10000 as ms, or say --time-format ns if it isn't",
        )
    for unit, (_, least, most) in UNITS.items():
        if least <= low and high < most:
            return unit
    usual = float(np.quantile(values, 0.5, method="lower"))
    by_most = next(
        (least <= low for _, least, most in UNITS.values() if least <= usual < most), False
    )
    row = int(np.argmax(values)) if by_most else int(np.argmin(values))
    raise place.fail(
        row,
        name,
        f"{values[row]} is not in the unit of the other times (around {usual:.0f});"
        " correct it, or say the unit with --time-format s, ms, us or ns",
    )


def _iso(column: pa.ChunkedArray, name: str, place: Place) -> Ints:
    """Chunk by chunk, so that only one chunk's spellings are in memory."""
    parts, before = [], 0
    for chunk in column.chunks:
        try:
            parts.append(_iso_chunk(chunk))
        except pa.ArrowInvalid:
            row = before + _first_bad_iso(chunk)
            raise place.fail(row, name, _no_time(column[row].as_py())) from None
        before += len(chunk)
    return np.concatenate(parts)


def missing(what: str, word: str = "") -> str:
    return f"the {what} is missing{word}; --drop-missing leaves such rows out"


def _nothing(text: str, what: str) -> str:
    """What to say of a text that is blank, or a word for "no value"; empty for any other."""
    if not text.strip():
        return missing(what)
    word = names_no_value(pa.array([text.strip()]))[0].as_py()
    return missing(what, f" ({text!r})") if word else ""


def _no_time(text: str) -> str:
    return _nothing(text, "time") or (
        f"{text!r} is no time; give epoch numbers, ISO 8601, or the format,"
        " as in --time-format '%d/%m/%Y %H:%M'"
    )


def _iso_chunk(chunk: pa.Array) -> Ints:
    text = pc.utf8_trim_whitespace(chunk)
    text = pc.replace_substring_regex(text, r" ?(UTC|GMT)$", "Z")
    zoned = pc.and_(
        pc.match_substring_regex(text, _HAS_ZONE), pc.match_substring_regex(text, _WITH_HOUR)
    )
    date_only = pc.match_substring_regex(text, _DATE_ONLY)
    suffix = pc.if_else(zoned, "", pc.if_else(date_only, " 00Z", "Z"))
    text = pc.binary_join_element_wise(text, suffix, "")
    stamps = pc.cast(text, pa.timestamp("ns", "UTC"))
    array: Ints = pc.cast(stamps, pa.int64()).to_numpy(zero_copy_only=False)
    return array // 1_000_000


def _first_bad_iso(chunk: pa.Array) -> int:
    return int(np.argmax(_bad_iso(chunk, first_only=True)))


def _bad_iso(chunk: pa.Array, first_only: bool = False) -> Bools:
    """Which values of a chunk do not parse, by halving."""
    bad = np.zeros(len(chunk), bool)
    pending = [(0, len(chunk))]
    while pending and not (first_only and bad.any()):
        low, high = pending.pop()
        try:
            _iso_chunk(chunk.slice(low, high - low))
        except pa.ArrowInvalid:
            middle = (low + high) // 2
            bad[low] = high - low == 1
            pending += [(middle, high), (low, middle)] if high - low > 1 else []
    return bad


def _strptime(column: pa.ChunkedArray, name: str, place: Place, time_format: str) -> Ints:
    codes, stamps = _parsed(column, time_format)
    bad = np.isnat(stamps)
    if bad.any():
        row = int(np.argmax(bad[codes]))
        text = column[row].as_py()
        what = _nothing(text, "time") or f"{text!r} is no time of the form {time_format!r}"
        raise place.fail(row, name, what)
    if (other := _other_half(column, codes, stamps, time_format)) is not None:
        raise place.fail(
            other,
            name,
            f"{column[other].as_py()!r} would be read without its AM or PM by {time_format!r}, as"
            " %p counts only with %I; write %I, an hour up to 12, in place of %H",
        )
    per_text: Ints = stamps.astype(np.int64)
    return per_text[codes]


def _other_half(
    column: pa.ChunkedArray, codes: Ints, stamps: NDArray[np.datetime64], time_format: str
) -> int | None:
    """The first row whose hour is in the other half of the day than its AM or PM says; strptime
    overlooks that beside ``%H``, which is right where hours go up to 23."""
    said = set(re.findall(r"%(.)", time_format))
    if "p" not in said or "I" in said:
        return None
    afternoon = (stamps - stamps.astype("datetime64[D]")) >= np.timedelta64(12, "h")
    after_noon = pc.match_substring_regex(column, r"(?i)p\.?m")
    wrong = np.asarray(after_noon, bool) != afternoon[codes]
    return int(np.argmax(wrong)) if wrong.any() else None


def _parsed(column: pa.ChunkedArray, time_format: str) -> tuple[Ints, NDArray[np.datetime64]]:
    """Codes [rows] into moments, not-a-time where a text is not of the form."""
    import pandas as pd  # half of what importing this module would take

    encoded = pc.dictionary_encode(column).combine_chunks()
    texts = encoded.dictionary.to_pandas()
    if width := _width(time_format):  # 1012024 is the first of January or the tenth
        texts = texts.where(texts.str.strip().str.len() == width)
    try:
        stamps = pd.to_datetime(texts, format=time_format, utc=True, errors="coerce")
    except ValueError as error:
        raise DataError(f"--time-format {time_format!r}: {error}") from None
    return encoded.indices.to_numpy(), stamps.dt.tz_localize(None).to_numpy("datetime64[ms]")


def _width(time_format: str) -> int:
    """How many digits a time has in a format of nothing but numbers; 0 for any other."""
    parts = time_format.split("%")[1:]
    if "%" + "%".join(parts) != time_format or any(part not in _DIGITS for part in parts):
        return 0
    return sum(_DIGITS[part] for part in parts)
