"""Events as JSON lines: one object per line. Numbers stay as they are written, as in a CSV."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from paropt.errors import DataError

_CHUNK = 1 << 16  # rows per Arrow array
# numbers as text: an id 9007199254740993 is no other, and 7.0 is not 7
_decode = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).decode


class BadLineError(Exception):
    """A line that is no event; the text says why."""


def first_keys(path: Path, head: bytes, whole: bool) -> tuple[str, ...]:
    """The keys of a file's first objects, in order of appearance.

    ``head`` is how the file begins, ``whole`` whether that is all of it.

    Raises:
        DataError: the file is JSON of another form.
    """
    if head.lstrip().startswith(b"["):
        raise DataError(
            f"{path} is a JSON array; write one object per line (jq -c '.[]' {path} > events.jsonl)"
        )
    lines = head.split(b"\n")
    complete = lines if whole or len(lines) == 1 else lines[:-1]
    keys: dict[str, None] = {}
    for number, line in enumerate(complete, 1):
        if line.strip():
            try:
                keys |= dict.fromkeys(_object(line))
            except BadLineError as error:
                if keys:
                    break  # told when the file is read
                raise DataError(
                    f"{path}:{number}: {error}; write one object per line"
                    f" (jq -c . {path} > events.jsonl)"
                ) from None
    return tuple(keys)


def read_lines(
    path: Path, gzipped: bool, columns: Sequence[str], bad: Callable[[int, int, str], None]
) -> pa.Table:
    """The named values of all objects as text; null where an object lacks one.

    ``bad`` is called with row, line and reason of a line that is no event; if it returns, the
    line is left out.

    Raises:
        OSError, EOFError, zlib.error: the file cannot be read.
    """
    chunks: dict[str, list[pa.Array]] = {name: [] for name in columns}
    with gzip.open(path) if gzipped else path.open("rb") as file:
        for rows in _chunks(_values(file, columns, bad)):
            for name, values in zip(columns, zip(*rows, strict=True), strict=True):
                chunks[name].append(pa.array(values, pa.string()))
    return pa.table({name: pa.chunked_array(chunks[name], pa.string()) for name in columns})


def line_of(path: Path, gzipped: bool, row: int) -> int:
    """The number of the line that a row is on."""
    with gzip.open(path) if gzipped else path.open("rb") as file:
        numbers = (number for number, line in enumerate(file, 1) if line.strip())
        return next(itertools.islice(numbers, row, None), 0)


def _chunks(rows: Iterator[list[str | None]]) -> Iterator[list[list[str | None]]]:
    chunk = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _values(
    lines: Iterable[bytes], columns: Sequence[str], bad: Callable[[int, int, str], None]
) -> Iterator[list[str | None]]:
    row = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = _object(line)
            yield [_text(found.get(name), name) for name in columns]
        except BadLineError as error:
            bad(row, number, str(error))
        row += 1


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = _decode(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadLineError("not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise BadLineError("no complete JSON object") from None
    if not isinstance(found, dict):
        raise BadLineError("no JSON object")
    return found


def _text(value: Any, name: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value.isascii() or value.encode()
        except UnicodeEncodeError:
            raise BadLineError(f"column {name!r}: {value!r} is no text") from None
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    raise BadLineError(f"column {name!r}: holds a list or an object, not a single value")
