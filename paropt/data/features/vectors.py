"""Vectors of items from files, into one array of the dataset that is never held in memory.

``.npy`` with the ids in another file, Parquet with a list column, JSON lines with a list; a
directory is read part by part. The dimension is the data's. They are stored as float16, in the
order of the items' index.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet
from numpy.lib.format import read_array_header_1_0, read_magic, write_array_header_1_0
from numpy.typing import NDArray

from paropt.data.features.tables import opened
from paropt.data.reading.layouts import DAMAGED, damaged, one_line
from paropt.data.reading.pickles import NUMPY_OPTION, read_pickle
from paropt.errors import DataError

Note = Callable[[str], None]
CHUNK_BYTES = 32 << 20  # of vectors that are held at once
LINES = 2048  # of JSON that are parsed at once
LARGEST = 65504.0  # that a float16 holds
SAME = 1e-12  # of the mean square is what rounding leaves of a variance of 0
BLURRED = 0.05  # of what tells vectors apart may be lost
# what a name says of the dimension: emb_81_32 (as the ads competition writes), title_384d
_SAYS_DIM = re.compile(r"(?:^|.*[_-])emb_\d+_(\d+)(?:_parquet)?|.*[_-](\d+)d")
_ID_FILES = (".ids.npy", ".ids.txt", ".ids", "_ids.npy", "_ids.txt")
Chunk = tuple[list[str], NDArray[Any] | None]
"""Ids [m], and their vectors [m, dim]; None for ids that have none."""


@dataclass(frozen=True)
class VectorFile:
    """``--item-vectors NAME=FILE`` or ``NAME=FILE,IDS``; ``pickled``: a pickle may be read."""

    name: str
    path: Path
    ids: Path | None = None
    pickled: bool = False

    @classmethod
    def parse(cls, text: str) -> VectorFile:
        """What was written on the command line.

        Raises:
            ValueError: it is not of that form.
        """
        name, equals, rest = text.partition("=")
        path, comma, ids = rest.partition(",")
        if not (name and equals and path) or (comma and not ids):
            raise ValueError(f"{text!r} is not NAME=FILE or NAME=FILE,IDS")
        return cls(name, Path(path), Path(ids) if ids else None)


# -- reading ---------------------------------------------------------------------------------------


def read_vectors(file: VectorFile, key: str) -> Iterator[Chunk]:
    """The file's ids and vectors, a few at a time; ``key`` is the name of its ids.

    Raises:
        DataError: it cannot be read, holds no vectors, or they differ in length.
    """
    parts = sorted(p for p in file.path.iterdir() if p.is_file()) if file.path.is_dir() else []
    for path in parts or [file.path]:
        magic = _magic(path)
        if magic.startswith(b"\x93NUMPY"):
            yield from _from_npy(path, file.ids or _id_file(path))
        elif magic.startswith(b"PAR1"):
            yield from _from_parquet(path, file.name, key)
        elif magic[:1] == b"\x80" or path.suffix in (".pkl", ".pickle"):
            if not file.pickled:
                raise DataError(
                    f"{path} is a pickle; save it as .npy, or say {NUMPY_OPTION}, which reads numpy"
                    " arrays by id out of it and runs nothing"
                )
            yield from _from_pickle(path)
        else:
            yield from _from_json(path, file.name, key)


def _magic(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(6)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def _from_pickle(path: Path) -> Iterator[Chunk]:
    """A dict of arrays by id."""
    content = read_pickle(path, numpy_arrays=True)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path} holds no dict of vectors by id")
    entries = iter(content.items())
    while some := list(itertools.islice(entries, LINES)):
        ids = [str(one) for one, _ in some]
        try:
            rows = [value.numbers() for _, value in some]
        except (AttributeError, ValueError):
            raise DataError(f"{path} holds other than arrays of floats by id") from None
        odd = [one for one, row in zip(ids, rows, strict=True) if row.shape != rows[0].shape]
        if odd or rows[0].ndim != 1:
            raise DataError(f"{path}: vectors differ in length: that of item {(odd or ids)[0]}")
        yield ids, np.stack(rows)


def _id_file(path: Path) -> Path:
    """The file of ids beside a file of vectors; if there are several, they have to agree."""
    beside = [path.with_name(path.stem + ending) for ending in _ID_FILES]
    there = [file for file in beside if file.is_file()]
    if not there:
        raise DataError(
            f"{path} has no ids: put them beside it in {path.stem}.ids.txt (one per line) or"
            f" {path.stem}.ids.npy, or name their file after a comma"
        )
    for other in there[1:]:
        if _read_ids(other) != _read_ids(there[0]):
            raise DataError(
                f"{path} has ids in {there[0].name} and others in {other.name}; remove the wrong"
                " file, or name the right one after a comma"
            )
    return there[0]


def _read_ids(path: Path) -> list[str]:
    if _magic(path).startswith(b"\x93NUMPY"):
        try:
            ids = np.load(path, allow_pickle=False)
        except ValueError as error:
            raise DataError(f"{path} cannot be read: {one_line(error)}") from None
        if ids.ndim != 1 or ids.dtype.kind not in "iuUS":
            raise DataError(f"{path} holds {ids.dtype} {list(ids.shape)}, not one id per vector")
        return [v.decode() if isinstance(v, bytes) else str(v) for v in ids.tolist()]
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from None


def _from_npy(path: Path, id_path: Path) -> Iterator[Chunk]:
    ids = _read_ids(id_path)
    try:
        with path.open("rb") as file:
            if read_magic(file) > (1, 0):
                raise ValueError("its header is of another version")
            shape, by_columns, dtype = read_array_header_1_0(file)
            if by_columns:
                raise ValueError("it is in Fortran order; save np.ascontiguousarray of it")
            if len(shape) != 2 or dtype.kind not in "fiu":
                raise ValueError(f"it holds {dtype} {list(shape)}, not rows of numbers")
            if len(ids) != shape[0]:
                raise ValueError(f"it has {shape[0]:,} vectors, and {id_path} {len(ids):,} ids")
            size = max(1, CHUNK_BYTES // max(1, 4 * shape[1]))
            for begin in range(0, shape[0], size):
                rows = min(size, shape[0] - begin)
                chunk = file.read(rows * shape[1] * dtype.itemsize)
                if len(chunk) < rows * shape[1] * dtype.itemsize:
                    raise ValueError(f"it is cut short: it should have {shape[0]:,} vectors")
                read = np.frombuffer(chunk, dtype)
                yield ids[begin : begin + rows], read.reshape(rows, shape[1])
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be used: {one_line(error)}") from None


def _from_parquet(path: Path, name: str, key: str) -> Iterator[Chunk]:
    try:
        with pa.parquet.ParquetFile(path) as file:
            id_column, column = _columns(path, file.schema_arrow, name, key)
            for batch in file.iter_batches(LINES, columns=[id_column, column]):
                yield from _of_lists(path, batch.column(id_column), batch.column(column))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is cut short or damaged: {one_line(error)}") from None


def _from_json(path: Path, name: str, key: str) -> Iterator[Chunk]:
    number = 0
    try:
        with opened(path) as file:
            while lines := list(itertools.islice(file, LINES)):
                table = pa.json.read_json(BytesIO(b"".join(lines)))
                if table.column_names == [key]:  # of these, nothing has a vector
                    table = table.append_column(name, pa.nulls(len(table), pa.list_(pa.float32())))
                id_column, column = _columns(path, table.schema, name, key)
                ids, vectors = table.column(id_column), table.column(column)
                yield from _of_lists(path, ids.combine_chunks(), vectors.combine_chunks())
                number += len(lines)
    except pa.ArrowException as error:
        raise DataError(
            f"{path}: lines {number + 1} to {number + LINES} are no JSON objects with an id and a"
            f" list: {one_line(error)}"
        ) from None
    except DAMAGED as error:
        raise damaged(path, error) from None


def _columns(path: Path, schema: pa.Schema, name: str, key: str) -> tuple[str, str]:
    """The names of the column of ids and of the one of vectors."""
    lists = [
        f.name
        for f in schema
        if pa.types.is_list(f.type)
        or pa.types.is_large_list(f.type)
        or pa.types.is_fixed_size_list(f.type)
    ]
    others = [f.name for f in schema if f.name not in lists]
    column = name if name in lists else lists[0] if len(lists) == 1 else None
    ids = key if key in others else others[0] if len(others) == 1 else None
    if column is None or ids is None:
        raise DataError(
            f"{path} has the columns {', '.join(schema.names)}: it needs ids in {key!r} and one"
            " column of lists"
        )
    return ids, column


def _of_lists(path: Path, ids: Any, lists: Any) -> Iterator[Chunk]:
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks)
    there = pc.is_valid(lists)
    ids = pa.array(ids.cast(pa.string()).to_pylist(), pa.string())
    if lists.null_count:
        yield [str(one) for one in ids.filter(pc.invert(there)).to_pylist()], None
        ids, lists = ids.filter(there), lists.filter(there)
    if not len(lists):
        return
    lengths = pc.list_value_length(lists).to_numpy()
    if lengths.min() != lengths.max():
        odd = int(np.argmax(lengths != lengths[0]))
        raise DataError(
            f"{path}: vectors differ in length: {lengths[0]} for item {ids[0]}, {lengths[odd]} for"
            f" item {ids[odd]}"
        )
    values = pc.list_flatten(lists)
    numbers = values.cast(pa.float32()).to_numpy(zero_copy_only=False)
    yield [str(one) for one in ids.to_pylist()], numbers.reshape(len(lists), int(lengths[0]))


# -- writing ---------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What was found on the way; ``first`` examples by the same names."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, ids: Sequence[str]) -> None:
        if ids:
            self.counts[what] = self.counts.get(what, 0) + len(ids)
            self.first.setdefault(what, ids[0])

    def __getitem__(self, what: str) -> int:
        return self.counts.get(what, 0)


@dataclass
class Rows:
    """``rows.npy``, float16 [n, dim], filled in any order; its size is that of the first chunk."""

    path: Path
    n_rows: int
    dim: int = 0
    _begin: int = 0
    _handle: int = -1

    def write(self, at: NDArray[np.int64], vectors: NDArray[np.float16]) -> None:
        """Put vectors [m, dim] at the rows ``at`` [m]."""
        if self._handle < 0:
            self._create(vectors.shape[1])
        order = np.argsort(at)
        at, size = at[order], 2 * self.dim
        edges = np.flatnonzero(np.diff(at, prepend=-2, append=-2) != 1)
        for begin, end in itertools.pairwise(edges.tolist()):
            run = np.ascontiguousarray(vectors[order[begin:end]]).view(np.uint8).data
            os.pwrite(self._handle, run, self._begin + int(at[begin]) * size)

    def _create(self, dim: int) -> None:
        self.dim = dim
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (self.n_rows, dim)}
            write_array_header_1_0(file, header)
            self._begin = file.tell()
            file.truncate(self._begin + 2 * self.n_rows * dim)
        self._handle = os.open(self.path, os.O_WRONLY)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)


def digest_of(path: Path) -> str:
    """A SHA-256 of an array file's bytes, read a little at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_vectors(
    path: Path, file: VectorFile, key: str, ids: Sequence[str], note: Note
) -> NDArray[np.bool_]:
    """Write ``path`` (``rows.npy``) for all ``ids`` [n]; which of them have none [n].

    Raises:
        DataError: the vectors cannot be used; see the sentences.
    """
    index = {one: number for number, one in enumerate(ids)}
    missing, tally, rows = np.ones(len(ids), bool), Tally(), Rows(path, len(ids))
    blur = Blur()
    try:
        for names, vectors in read_vectors(file, key):
            if vectors is None:
                tally.add("none", names)
                continue
            if rows.dim and vectors.shape[1] != rows.dim:
                raise DataError(
                    f"{file.path}: vectors differ in length: {rows.dim}, and {vectors.shape[1]} for"
                    f" item {names[0]}"
                )
            _check_dim(file, vectors.shape[1])
            at = np.array([index.get(one, -1) for one in names], np.int64)
            tally.add("others", [one for one, a in zip(names, at.tolist(), strict=True) if a < 0])
            known = at >= 0
            vectors, at = vectors[known], at[known]
            if not len(at):
                continue
            _check_once(file, at, missing, ids)
            half, usable = _half(vectors, at, ids, tally)
            missing[at[usable]] = False
            rows.write(at[usable], half[usable])
            blur.add(vectors[usable], half[usable])
    finally:
        rows.close()
    _refuse_bad(file, tally, missing)
    _say(file, tally, missing, note)
    if (share := blur.share()) > BLURRED:
        note(
            f"warning: {file.path}: float16 takes {100 * share:.0f} % of what tells its vectors"
            " apart; subtract their mean, and scale them to about one"
        )
    return missing


class Blur:
    """What rounding does to vectors, beside how far they are apart: around 10,000 a float16 counts
    by eights, and below .0001 it has few digits left."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: NDArray[np.float64] | float = 0.0
        self._squares: NDArray[np.float64] | float = 0.0
        self._lost = 0.0

    def add(self, vectors: NDArray[Any], rounded: NDArray[np.float16]) -> None:
        """Some vectors [n, dim], and what is kept of them."""
        exact = vectors.astype(np.float64)
        self._count += len(exact)
        self._sum = self._sum + exact.sum(0)
        self._squares = self._squares + np.square(exact).sum(0)
        self._lost += float(np.square(exact - rounded).sum())

    def share(self) -> float:
        """The root of what rounding moved beside the variance of the vectors; 0 of equal ones."""
        if not self._count:
            return 0.0
        mean, square = self._sum / self._count, self._squares / self._count
        variance = float(np.sum(square - mean * mean))
        if variance <= SAME * float(np.sum(square)):  # what is left of the subtraction
            return 0.0
        return math.sqrt(self._lost / self._count / variance)


def _check_dim(file: VectorFile, dim: int) -> None:
    for name in (file.name, file.path.stem):
        found = _SAYS_DIM.fullmatch(name)
        said = int(found[1] or found[2]) if found else dim
        if said != dim:
            raise DataError(
                f"{file.path}: the name {name!r} says {said} dimensions and the vectors have {dim};"
                " name them otherwise, or give the right file"
            )


def _check_once(
    file: VectorFile, at: NDArray[np.int64], missing: NDArray[np.bool_], ids: Sequence[str]
) -> None:
    _, first = np.unique(at, return_index=True)
    twice = np.setdiff1d(np.arange(len(at)), first)
    again = np.append(at[twice], at[~missing[at]])
    if len(again):
        raise DataError(f"{file.path}: item {ids[int(again[0])]} has two vectors")


def _half(
    vectors: NDArray[Any], at: NDArray[np.int64], ids: Sequence[str], tally: Tally
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """As float16, and which of them are vectors at all: finite, and not all zero."""
    with np.errstate(over="ignore"):
        half = vectors.astype(np.float16)
    finite = np.isfinite(vectors).all(1) if vectors.dtype.kind == "f" else np.ones(len(at), bool)
    fits = np.isfinite(half).all(1) | ~finite
    zero = ~vectors.any(1)
    vanished = ~half.any(1) & ~zero & finite
    for what, those in (
        ("not finite", ~finite),
        ("too large", ~fits),
        ("zero", zero),
        ("too small", vanished),
    ):
        tally.add(what, [ids[a] for a in at[those].tolist()])
    return half, finite & fits & ~zero & ~vanished


def _refuse_bad(file: VectorFile, tally: Tally, missing: NDArray[np.bool_]) -> None:
    for what, told in (
        ("not finite", "hold NaN or infinity; mend them or leave them out"),
        ("too large", f"go beyond ±{LARGEST:,.0f}, which float16 does not hold; scale them"),
        ("too small", "vanish in float16; scale them"),
    ):
        if tally[what]:
            raise DataError(
                f"{file.path}: {tally[what]:,} vectors (the first is that of item"
                f" {tally.first[what]}) {told}"
            )
    if missing.all():
        why = "all of its vectors are zero" if tally["zero"] else "none of its ids is in the log"
        if tally["none"]:
            why = f"none of its ids that are in the log has a vector ({tally['none']:,} have none)"
        raise DataError(f"{file.path}: {why}")


def _say(file: VectorFile, tally: Tally, missing: NDArray[np.bool_], note: Note) -> None:
    told = []
    if count := int(missing.sum()):
        told.append(f"{count:,} of {len(missing):,} items have no vector")
    if tally["zero"]:
        told.append(f"{tally['zero']:,} are all zero and count as none")
    if tally["others"]:
        told.append(f"{tally['others']:,} vectors are of ids that the log does not have")
    if told:
        note(f"{file.path}: {'; '.join(told)}")
