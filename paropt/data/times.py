"""Times of any spelling as int64 milliseconds since 1970, UTC."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.events import Ints
from paropt.data.reading import Place
from paropt.errors import DataError

# unit -> (milliseconds per unit, smallest and largest that the unit is guessed for). The guesses
# hold from 1973 to 5138 except for seconds, which also are what small made-up times are taken for.
UNITS: dict[str, tuple[float, float, float]] = {
    "s": (1e3, -1e11, 1e11),
    "ms": (1.0, 1e11, 1e14),
    "us": (1e-3, 1e14, 1e17),
    "ns": (1e-6, 1e17, 9.3e18),
}
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_HAS_ZONE = r"(Z|[+-]\d\d(:?\d\d)?)$"
_DATE_ONLY = r"^\d{4}-\d\d-\d\d$"
_WITH_HOUR = r"[ T]\d\d"


_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_DURATION_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_duration(text: str) -> int:
    """Milliseconds of a duration such as ``30m``, ``1h`` or ``1.5d``.

    Raises:
        ValueError: it is no positive duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{text!r} is no duration; write 30m, 1h or 1d")
    return round(float(match[1]) * _DURATION_MS[match[2]])


def parse_moment(text: str) -> int:
    """Milliseconds since 1970 of an ISO 8601 date or time; UTC where it names no zone.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(_iso_chunk(pa.array([text]))[0])
    except pa.ArrowInvalid:
        raise ValueError(f"{text!r} is no time; write 2017-10-16 or 2017-10-16T12:00Z") from None


def to_milliseconds(
    column: pa.ChunkedArray, name: str, place: Place, time_format: str | None = None
) -> Ints:
    """Int64 milliseconds [rows].

    ``time_format`` is ``s``, ``ms``, ``us``, ``ns``, ``iso`` or a strptime format such as
    ``%d/%m/%Y %H:%M``. Without it, numbers are an epoch whose unit follows from their size, text
    is ISO 8601. Times without a zone are UTC.

    Raises:
        DataError: a time does not parse, or the times are in no one unit.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return to_milliseconds(column.cast(kind.value_type), name, place, time_format)
    missing = pc.is_null(column, nan_is_null=True)
    if pc.any(missing).as_py():
        raise place.fail(pc.index(missing, True).as_py(), name, "the time is missing")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        in_ms = column.cast(pa.timestamp("ms", getattr(kind, "tz", None)), safe=False)
        return _numpy(in_ms.cast(pa.int64()))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _epoch(_numpy(column), name, place, time_format)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"column {name!r} holds {kind}, which are no times")
    if time_format in UNITS or (time_format is None and _is_number(column[0].as_py())):
        return _epoch(to_numbers(column, name, place, "time"), name, place, time_format)
    if time_format in (None, "iso"):
        return _iso(column, name, place)
    return _strptime(column, name, place, str(time_format))


def to_numbers(column: pa.ChunkedArray, name: str, place: Place, what: str) -> NDArray[Any]:
    """Text as int64 if all of it are integers, else float64.

    Raises:
        DataError: some value is no finite number; ``what`` says what it should have been.
    """
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise DataError(f"column {name!r} holds {column.type}, not a number ({what})")
        return _numpy(column)
    for kind in (pa.int64(), pa.float64()):
        try:
            return _numpy(pc.cast(column, kind))
        except pa.ArrowInvalid:
            continue
    wrong = pc.invert(pc.match_substring_regex(column, _NUMBER))
    row = pc.index(wrong, True).as_py()
    if row < 0:  # a spelling that pyarrow's own cast does not take: spaces, a plus sign
        return _numpy(pc.cast(pc.replace_substring_regex(column, r"[\s+]", ""), pa.float64()))
    raise place.fail(row, name, f"{column[row].as_py()!r} is no {what}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    array: NDArray[Any] = column.to_numpy()
    return array


def _epoch(values: NDArray[Any], name: str, place: Place, unit: str | None) -> Ints:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise place.fail(row, name, f"{values[row]} is no time")
    if unit is None or unit not in UNITS:
        unit = _guess_unit(values, name, place)
    scale = UNITS[unit][0]
    if values.dtype.kind in "iu":
        whole = values.astype(np.int64, copy=False)
        return whole * int(scale) if scale >= 1 else whole // round(1 / scale)
    return np.rint(values * scale).astype(np.int64)


def _guess_unit(values: NDArray[Any], name: str, place: Place) -> str:
    low, high = float(values.min()), float(values.max())
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


def _no_time(text: str) -> str:
    return (
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
    """By halving: the first value of a chunk that does not parse."""
    low, high = 0, len(chunk)  # [0, low) parses, [0, high) does not
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _iso_chunk(chunk.slice(low, middle - low))
        except pa.ArrowInvalid:
            high = middle
        else:
            low = middle
    return low


def _strptime(column: pa.ChunkedArray, name: str, place: Place, time_format: str) -> Ints:
    encoded = pc.dictionary_encode(column).combine_chunks()
    texts = encoded.dictionary.to_pandas()
    try:
        stamps = pd.to_datetime(texts, format=time_format, utc=True, errors="coerce")
    except ValueError as error:
        raise DataError(f"--time-format {time_format!r}: {error}") from None
    codes: Ints = encoded.indices.to_numpy()
    bad = stamps.isna().to_numpy()
    if bad.any():
        row = int(np.argmax(bad[codes]))
        what = f"{column[row].as_py()!r} is no time of the form {time_format!r}"
        raise place.fail(row, name, what)
    per_text: Ints = stamps.dt.tz_localize(None).to_numpy("datetime64[ms]").astype(np.int64)
    return per_text[codes]
