"""Lists that stand in a cell as text, as pandas writes a column of them: ``['Action', 'Indie']``.

They are read by a small grammar, of texts and numbers as Python or JSON write them; nothing is run.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from paropt.data.log.values.ids import names_no_value

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NOTHING = ("None", "null", "nan", "NaN")
_MEMBER = (
    r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|"
    rf"{_NUMBER}|{'|'.join(_NOTHING)}|[Tt]rue|[Ff]alse"
)
_LIST = rf"(?s)^\[\s*(?:(?:{_MEMBER})(?:\s*,\s*(?:{_MEMBER}))*\s*,?\s*)?\]$"
_MEMBERS = re.compile(_MEMBER, re.DOTALL)


def lists_in(text: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The members of each cell's list, null where there is none; None unless all cells are lists.

    Beside lists, a word for "no value" is missing. Members are text, or floats where all are
    numbers and some have a fraction.
    """
    encoded = pc.dictionary_encode(text).combine_chunks()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    cells = encoded.dictionary
    lists = pc.match_substring_regex(cells, _LIST)
    if not pc.all(pc.or_(lists, names_no_value(cells))).as_py():
        return None
    pairs = zip(cells.to_pylist(), lists.to_pylist(), strict=True)
    written = [_MEMBERS.findall(cell) if is_list else None for cell, is_list in pairs]
    try:
        found = _in_one_type(written)
    except (ValueError, SyntaxError):  # an escape that there isn't, or half of a letter
        return None
    return None if found is None else pa.chunked_array([found.take(encoded.indices)])


def _in_one_type(written: list[list[str] | None]) -> pa.Array | None:
    """Lists of members as they are written; None if none has a member."""
    every = {member for members in written for member in members or ()}
    if not every:
        return None
    some = every.difference(_NOTHING)
    numbers = bool(some) and all(re.fullmatch(_NUMBER, member) for member in some)
    as_floats = numbers and any(not member.lstrip("+-").isdigit() for member in some)
    with warnings.catch_warnings(action="ignore"):  # of escapes that Python has no meaning for
        meant: dict[str, Any] = {
            member: float(member) if as_floats else _word(member) for member in some
        }
    rows = [None if members is None else list(map(meant.get, members)) for members in written]
    return pa.array(rows, pa.list_(pa.float64() if as_floats else pa.string()))


def _word(member: str) -> str:
    """A member without its quotes.

    Raises:
        ValueError, SyntaxError: it holds an escape of neither JSON nor Python.
    """
    if member[0] not in "'\"":
        return member.lower()  # true and false, as JSON writes them; numbers have no letters but e
    try:
        word = json.loads(member)
    except ValueError:
        word = ast.literal_eval(member)
    return str(word).encode().decode()
