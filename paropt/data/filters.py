"""Which rows of a log are events at all."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paropt.data.events import Bools, Ints

_WHOLE = re.compile(r"\s*\+?(-?)0*(\d+)(?:\.0*)?\s*")


def of_kind(column: pa.ChunkedArray, kinds: tuple[str, ...]) -> Bools:
    """Which rows [rows] are one of these kinds, as text or as the same whole number (4, 4.0).

    Raises:
        LookupError: none is; the message lists kinds that there are.
    """
    encoded = _encoded(column)
    seen = pc.cast(encoded.dictionary, pa.string()).to_pylist()
    wanted = {*kinds, *map(_as_whole, kinds)}
    codes = [code for code, text in enumerate(seen) if text in wanted or _as_whole(text) in wanted]
    if not codes:
        raise LookupError(", ".join(map(repr, seen[:5])))
    found: Bools = np.isin(_codes(encoded), codes)
    return found


def _as_whole(text: str | None) -> str:
    """``4`` of ``4.0``: a column of floats writes whole numbers so."""
    match = _WHOLE.fullmatch(text or "")
    return f"{match[1]}{match[2]}" if match else (text or "")


def raw_codes(column: pa.ChunkedArray) -> Ints:
    """Codes [rows] of what is written in a column, −1 where nothing is."""
    encoded = _encoded(column)
    codes = _codes(encoded)
    nothing = np.flatnonzero(_empty(encoded.dictionary))
    return np.where(np.isin(codes, nothing), -1, codes) if len(nothing) else codes


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    encoded = pc.dictionary_encode(column).combine_chunks()
    return encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded


def _codes(encoded: pa.DictionaryArray) -> Ints:
    codes: Ints = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return codes


def _empty(values: pa.Array) -> Bools:
    """Where nothing is written: null, not a number, no text."""
    nothing = pc.is_null(values, nan_is_null=True)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        nothing = pc.or_(nothing, pc.fill_null(pc.equal(values, ""), True))
    found: Bools = nothing.to_numpy(zero_copy_only=False)
    return found
