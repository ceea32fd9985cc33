"""Ids as codes. An id is text; what looks like a confusion of types is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paropt.data.events import Ints
from paropt.data.reading import Place
from paropt.errors import DataError

# what programs write for "no value", in whatever case; NA in capitals only
_NO_VALUE = (
    r"^(?i:nan|null|none|nil|undefined|unknown|n/a|#n/a|<na>|\\n|\(null\)|\(none\)|\(not set\)|"
    r"\(unknown\))$|^NA$"
)
_INTEGER = r"^-?\d+$"
# a number that is an integer, however it is written: " 7", "+7", "007", "7.0"
_WRITTEN_OTHERWISE = r"^\s*\+?(-?)0*(\d+)(?:\.0*)?\s*$"


def encode_ids(
    column: pa.ChunkedArray,
    name: str,
    place: Place,
    as_text: bool = False,
    words_are_ids: bool = False,
) -> tuple[Ints, pa.Array]:
    """Codes int32 [rows] into a vocabulary of text, in order of first appearance.

    ``words_are_ids`` takes a word for "no value" (``nan``, ``unknown``) as an id; ``as_text``
    takes any text as one, also a number that is written in two ways.

    Raises:
        DataError: an id is missing, holds control characters, is a word for "no value", or is a
            number written in two ways (``7`` and ``7.0``).
    """
    encoded = pc.dictionary_encode(_as_ids(column, name, place), null_encoding="encode")
    encoded = encoded.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # what combine_chunks makes of no chunks
        encoded = encoded.chunk(0)
    codes: Ints = encoded.indices.to_numpy(zero_copy_only=False)
    vocabulary = encoded.dictionary
    if not pa.types.is_string(vocabulary.type):
        vocabulary = pc.cast(vocabulary, pa.string())
    codes, vocabulary = _trimmed(codes, vocabulary)
    _check(vocabulary, codes, name, place, as_text, words_are_ids or as_text)
    return codes, vocabulary


def names_no_value(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Which texts are words that programs write for "no value" [n] bool."""
    return pc.match_substring_regex(texts, _NO_VALUE)


def _trimmed(codes: Ints, vocabulary: pa.Array) -> tuple[Ints, pa.Array]:
    """Ids without the blanks that some programs write after a comma."""
    trimmed = pc.utf8_trim_whitespace(vocabulary)
    if trimmed.equals(vocabulary):
        return codes, vocabulary
    again = pc.dictionary_encode(trimmed, null_encoding="encode")
    return again.indices.to_numpy(zero_copy_only=False)[codes], again.dictionary


def _as_ids(column: pa.ChunkedArray, name: str, place: Place) -> pa.ChunkedArray:
    """The column in a type that ids may have: integers and text; whole floats become integers."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _as_ids(column.cast(kind.value_type), name, place)
    if pa.types.is_integer(kind) or pa.types.is_string(kind):
        return column
    if pa.types.is_large_string(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind):
        odd = pc.fill_null(pc.not_equal(column, pc.floor(column)), False)
        if pc.any(odd).as_py():
            row = pc.index(odd, True).as_py()
            raise place.fail(row, name, f"{column[row]} is no id; ids are integers or text")
        missing = pc.is_null(column, nan_is_null=True)
        if pc.any(missing).as_py():
            raise place.fail(pc.index(missing, True).as_py(), name, "the id is missing")
        return column.cast(pa.int64())
    raise DataError(f"column {name!r} holds {kind}, which are no ids; ids are integers or text")


def _check(
    vocabulary: pa.Array, codes: Ints, name: str, place: Place, as_text: bool, words_are_ids: bool
) -> None:
    def refuse(bad: pa.Array, what: str) -> None:
        """Point to the first row that holds one of the ``bad`` ids, if there are any."""
        found = pc.indices_nonzero(pc.fill_null(bad, True))
        if len(found):
            row = int(np.argmax(np.isin(codes, found.to_numpy())))
            value = vocabulary[int(codes[row])].as_py()
            raise place.fail(row, name, what.format(value=value))

    refuse(pc.fill_null(pc.equal(vocabulary, ""), True), "the id is missing")
    refuse(
        pc.match_substring_regex(vocabulary, r"[\x00-\x1f]"),
        "the id {value!r} holds control characters",
    )
    if not words_are_ids:
        refuse(
            names_no_value(vocabulary),
            "the id is missing ({value!r}); --words-are-ids takes such words as ids",
        )
    if as_text or not pc.any(pc.match_substring_regex(vocabulary, _INTEGER)).as_py():
        return
    normal = pc.replace_substring_regex(vocabulary, _WRITTEN_OTHERWISE, r"\1\2")
    refuse(
        _twice(normal),
        "the id {value!r} is a number that also appears written otherwise; write it in one way,"
        " or say --text-ids if these are different ids",
    )


def _twice(values: pa.Array) -> pa.Array:
    """Which values were there before [n] bool."""
    codes = pc.dictionary_encode(values).indices.to_numpy()
    first = np.full(int(codes.max(initial=-1)) + 1, len(codes))
    np.minimum.at(first, codes, np.arange(len(codes)))
    return pa.array(first[codes] != np.arange(len(codes)))
