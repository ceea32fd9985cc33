"""Columns of any Arrow type in the few types that the rest knows: text, numbers, moments, bools.

Parquet files hold what their writer likes: pandas and polars write text as ``large_string``,
others as views, bytes, dictionaries; databases write integers as decimals.
"""

from __future__ import annotations

import uuid

import pyarrow as pa
import pyarrow.compute as pc

_BYTES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)
_WIDE_TEXT = (pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
_AS_IT_IS = (
    pa.types.is_string,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_timestamp,
    pa.types.is_date,
)
# extension types that are stored as what they mean
_TRANSPARENT = ("arrow.json", "arrow.bool8")

# bits of a float -> the least whole number that also stands for its neighbour
INEXACT_FROM = {16: 2**11, 32: 2**24, 64: 2**53}
WHOLE_AS_FLOAT = r"^(-?\d+)\.0*$"

_REMEDY = "write it as text, numbers or timestamps"


class UnknownTypeError(Exception):
    """Values of a type that is no text, number or moment; the text says which and what to do."""


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as text (``string``), integers, floats, bools, timestamps or dates.

    Bytes are taken for UTF-8 text, decimals for integers, or for floats where they have a
    fraction; UUIDs become their usual spelling.

    Raises:
        UnknownTypeError: it holds lists, durations or others that are none of these, or bytes
            that are no text.
    """
    kind = column.type
    try:
        return _plain(column)
    except pa.ArrowException as error:
        why = " ".join(str(error).split())
        raise UnknownTypeError(f"holds {kind} that cannot be read ({why})") from None


def check_known(field: pa.Field) -> None:
    """Refuse an extension type that Arrow does not know, and so reads as what it is stored as.

    Raises:
        UnknownTypeError: it is one: the integers of a pandas period are no seconds.
    """
    name = (field.metadata or {}).get(b"ARROW:extension:name")
    if name:
        raise UnknownTypeError(f"holds {name.decode()}; {_REMEDY}")


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values as they are written, ``string``; null stays null. See :func:`plain`."""
    column = plain(column)
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit))  # in UTC, without asking for a zone's rules
    return column.cast(pa.string())


def without_zeros(text: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """``7`` of ``7.0``: a column of floats writes whole numbers so; other text as it is."""
    return pc.replace_substring_regex(text, WHOLE_AS_FLOAT, r"\1")


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind))


def is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def is_moment(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _of_extension(column)
    if pa.types.is_dictionary(kind):
        chunks = [chunk.dictionary_decode() for chunk in column.chunks]
        return _plain(pa.chunked_array(chunks, kind.value_type))
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(column))
    if pa.types.is_decimal(kind):
        return _of_decimals(column)
    if any(is_kind(kind) for is_kind in _BYTES):
        return _of_bytes(column)
    if any(is_kind(kind) for is_kind in _WIDE_TEXT):
        column = column.cast(pa.string())
    elif not any(is_kind(kind) for is_kind in _AS_IT_IS):
        what = "lists or objects, not single values" if pa.types.is_nested(kind) else str(kind)
        raise UnknownTypeError(f"holds {what}; {_REMEDY}")
    if is_text(column.type):
        _check_text(column)
    return column


def _of_extension(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    stored = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
    if kind.extension_name == "arrow.uuid":
        return pa.chunked_array([_spelt(chunk) for chunk in stored.chunks], pa.string())
    if kind.extension_name in _TRANSPARENT:
        return _plain(stored)
    raise UnknownTypeError(f"holds {kind}; {_REMEDY}")


def _spelt(uuids: pa.Array) -> pa.Array:
    encoded = uuids.dictionary_encode()
    spelt = [str(uuid.UUID(bytes=value)) for value in encoded.dictionary.to_pylist()]
    return pa.array(spelt, pa.string()).take(encoded.indices)


def _of_decimals(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Integers where none has a fraction, as text where they are too long for int64."""
    kind = column.type
    if kind.bit_width < 128:  # what Arrow's casts want
        column = column.cast(pa.decimal128(38, kind.scale))
    for whole in (pa.int64(), pa.decimal256(76, 0)):
        try:
            column = column.cast(whole)
        except pa.ArrowInvalid:  # a fraction, or too long
            continue
        return column if whole == pa.int64() else column.cast(pa.string())
    return column.cast(pa.float64())


def _of_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        raise UnknownTypeError(
            f"holds {column.type} that is no UTF-8 text; write it as text"
        ) from None


def _check_text(column: pa.ChunkedArray) -> None:
    """Parquet does not look whether what is called text is text."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        raise UnknownTypeError("holds text that is not UTF-8; write it as UTF-8") from None
