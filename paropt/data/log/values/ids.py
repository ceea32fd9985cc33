"""Ids as codes. An id is text; what looks like a confusion of types is refused."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paropt.data.events import Bools, Ints
from paropt.data.reading.arrow import INEXACT_FROM, is_text
from paropt.data.reading.read import Place

# what programs write for "no value", in whatever case; the last ones only as they write them: Na
# and nat may be names. A question mark is none of it, as it may be what somebody typed.
_NO_VALUE = (
    r"^(?i:nan|null|none|nil|undefined|unknown|n/a|#n/a|<na>|\\n|\(null\)|\(none\)|\(not set\)|"
    r"\(unknown\))$|^(?:NA|na|NaT|-)$"
)
_MISSING = "the id is missing; --drop-missing leaves such rows out"
_INTEGER = r"^-?\d+$"
# what a program writes for a number that it holds as a float, and may have rounded
_ROUNDED = r"^\s*[+-]?(?:\d+(?:\.\d*)?[eE]\+?\d+|\d{16,}\.0*)\s*$"
_ANY_NUMBER = r"^\s*[+-]?\d+(?:\.\d*)?(?:[eE]\+?\d+)?\s*$"
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
        DataError: an id is missing, holds control characters, is a word for "no value", is a
            number written in two ways (``7`` and ``7.0``), or one that was rounded.
    """
    encoded = pc.dictionary_encode(_as_ids(column, name, place), null_encoding="encode")
    encoded = encoded.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # what combine_chunks makes of no chunks
        encoded = encoded.chunk(0)
    codes: Ints = encoded.indices.to_numpy(zero_copy_only=False)
    vocabulary = encoded.dictionary
    if pa.types.is_integer(vocabulary.type) and not vocabulary.null_count:
        return codes, pc.cast(vocabulary, pa.string())  # there is one way to write an integer
    if not pa.types.is_string(vocabulary.type):
        vocabulary = pc.cast(vocabulary, pa.string())
    codes, vocabulary = _trimmed(codes, vocabulary)
    _check(vocabulary, codes, name, place, as_text, words_are_ids or as_text)
    return codes, vocabulary


def names_no_value(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Which texts are words that programs write for "no value" [n] bool."""
    return pc.match_substring_regex(texts, _NO_VALUE)


def names_nobody(text: str) -> bool:
    """Whether a text is blank, or such a word."""
    return not text.strip() or re.match(_NO_VALUE, text.strip()) is not None


def twins(vocabulary: pa.Array) -> list[str]:
    """Ids that another one looks like: their letters are the same, coded otherwise (``é`` as one
    character, and as ``e`` with an accent)."""
    composed = pc.utf8_normalize(vocabulary, "NFC")
    if composed.equals(vocabulary):
        return []
    counts = pc.value_counts(composed)
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    other = pc.and_(pc.is_in(composed, twice), pc.not_equal(composed, vocabulary))
    found: list[str] = vocabulary.filter(other).to_pylist()
    return found


def _trimmed(codes: Ints, vocabulary: pa.Array) -> tuple[Ints, pa.Array]:
    """Ids without the blanks that some programs write after a comma, or a byte order mark.

    Such a mark is in front of the first id of each of several files that were put together, and
    keeps CSV from seeing quotes there.
    """
    trimmed = pc.utf8_trim_whitespace(vocabulary)
    unquoted = pc.replace_substring_regex(trimmed, '^\ufeff"(.*)"$', r"\1")
    trimmed = pc.utf8_ltrim(unquoted, "\ufeff")
    if trimmed.equals(vocabulary):
        return codes, vocabulary
    again = pc.dictionary_encode(trimmed, null_encoding="encode")
    return again.indices.to_numpy(zero_copy_only=False)[codes], again.dictionary


def missing_ids(column: pa.ChunkedArray, name: str, place: Place, words: bool = True) -> Bools:
    """Which rows [rows] have no id, or no time: null, not a number, blank or, with ``words``, a
    word for "no value"."""
    column = place.plain(column, name)
    missing = pc.is_null(column, nan_is_null=True)
    if is_text(column.type):
        text = pc.utf8_trim_whitespace(column)
        nothing = pc.equal(text, "")
        if words:
            nothing = pc.or_(nothing, names_no_value(text))
        missing = pc.or_(missing, pc.fill_null(nothing, True))
    found: Bools = missing.to_numpy()
    return found


def _as_ids(column: pa.ChunkedArray, name: str, place: Place) -> pa.ChunkedArray:
    """The column in a type that ids may have: integers and text; whole floats become integers."""
    column = place.plain(column, name)
    kind = column.type
    if pa.types.is_integer(kind) or is_text(kind):
        return column
    if pa.types.is_floating(kind):
        return _whole(column, name, place)
    raise place.refuse(
        name, f"holds {kind}, which are no ids; ids are integers or text: write it as one of these"
    )


def _whole(column: pa.ChunkedArray, name: str, place: Place) -> pa.ChunkedArray:
    """Floats as the integers that they are, if none of these can stand for another."""
    kind = column.type
    missing = pc.is_null(column, nan_is_null=True)
    if pc.any(missing).as_py():
        raise place.fail(pc.index(missing, True).as_py(), name, _MISSING)
    if kind.bit_width == 16:
        column = column.cast(pa.float32())
    too_large = pc.greater_equal(pc.abs(column), float(INEXACT_FROM[kind.bit_width]))
    odd = pc.not_equal(column, pc.floor(column))
    for wrong, what in (
        (odd, "{} is no id; ids are integers or text"),
        (too_large, f"{{}} may stand for other ids too, for {kind} is not exact from"
         f" {INEXACT_FROM[kind.bit_width]} on; write ids as integers or text"),
    ):  # fmt: skip
        if pc.any(wrong).as_py():
            row = pc.index(wrong, True).as_py()
            raise place.fail(row, name, what.format(f"{column[row].as_py():.16g}"))
    return column.cast(pa.int64())


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

    refuse(pc.fill_null(pc.equal(vocabulary, ""), True), _MISSING)
    refuse(
        pc.match_substring_regex(vocabulary, r"[\x00-\x1f]"),
        "the id {value!r} holds control characters",
    )
    if not words_are_ids:
        refuse(
            names_no_value(vocabulary),
            "the id is missing ({value!r}); --drop-missing leaves such rows out,"
            " --words-are-ids takes such words as ids",
        )
    if not as_text and pc.all(pc.match_substring_regex(vocabulary, _ANY_NUMBER)).as_py():
        refuse(
            pc.match_substring_regex(vocabulary, _ROUNDED),
            "the id {value!r} is a number that a program may have rounded; write ids as integers"
            " or text, or say --text-ids if it is as it should be",
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
