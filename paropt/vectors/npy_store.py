"""Vectors as one array that FAISS and NumPy take as it is, with the ids of its rows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from paropt.errors import VectorsError
from paropt.files import write_text
from paropt.vectors.about import About
from paropt.vectors.partial import Partial, check_parent, flush, written_to
from paropt.vectors.sample import Sample
from paropt.vectors.store import Note, Written


class NpyStore:
    """``NAME.npy`` float32 [n, d], ``NAME.ids.txt`` with an id per line, and ``NAME.json``.

    It grows in ``.NAME.npy.partial``; the array is renamed last, so where it is the rest is.
    """

    batch = 1 << 14

    def __init__(self, place: Path, overwrite: bool = False) -> None:
        self.place, self.overwrite = place, overwrite
        self.ids_file = place.with_name(f"{place.stem}.ids.txt")
        self.facts_file = place.with_name(f"{place.stem}.json")
        self._partial = Partial(place)
        self._file: BinaryIO | None = None
        self._about: About | None = None
        self._ids: pa.Array = pa.array([], pa.string())
        self._sample = Sample(0, 1)

    def __str__(self) -> str:
        return str(self.place)

    def check(self) -> None:
        check_parent(self.place)
        # where a run ended while it put its files in place, the small ones are its own
        beside = [] if self._partial.path.exists() else [self.ids_file, self.facts_file]
        for path in (self.place, *beside):
            if path.is_dir():
                raise VectorsError(f"{path} is a directory; choose another file")
            if path.exists() and not self.overwrite:
                raise VectorsError(f"{path} exists; add --overwrite to replace it")

    def begin(self, about: About, ids: pa.Array, note: Note) -> int:
        self._about, self._ids = about, ids
        _check_lines(ids)
        done = self._partial.open(about, note)
        grown, header = self._partial.path / "vectors.npy", _header(about)
        row = 4 * about.dimension
        with written_to(self.place):
            self._file = grown.open("r+b" if done else "w+b")
            if not done:
                self._file.write(header)
            done = min(done, (self._file.seek(0, io.SEEK_END) - len(header)) // row)
            self._file.truncate(self._file.seek(len(header) + done * row))
        self._sample = Sample(min(done, about.count - 1), about.count)
        return done

    def write(self, first: int, vectors: NDArray[np.float32]) -> None:
        file = self._open()
        stored = np.ascontiguousarray(vectors, dtype="<f4")
        for row in self._sample.among(first, len(stored)):
            self._sample.values[row] = stored[row - first].tobytes()
        with written_to(self.place):
            file.write(stored.data)
            file.flush()
        self._partial.note(first + len(stored))

    def finish(self) -> Written:
        compared = self._compare()
        grown = self._partial.path / "vectors.npy"
        text = "".join(f"{one}\n" for one in self._ids.to_pylist())
        write_text(self.ids_file, text, overwrite=True)
        assert self._about is not None
        facts = json.dumps(self._about.to_json(), indent=1) + "\n"
        write_text(self.facts_file, facts, overwrite=True)
        with written_to(self.place):
            self._open().close()
            flush(grown)
            grown.rename(self.place)
            flush(self.place.parent)
        self._partial.remove()
        return Written(compared)

    def _compare(self) -> int:
        found = np.load(self._partial.path / "vectors.npy", mmap_mode="r", allow_pickle=False)
        for row, value in self._sample.values.items():
            if found[row].tobytes() != value:
                raise VectorsError(
                    f"row {row} of {self.place} isn't what was written; is its disk sound?"
                )
        return len(self._sample.values)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._partial.close()

    def _open(self) -> BinaryIO:
        assert self._file is not None  # begin() was called
        return self._file


def _header(about: About) -> bytes:
    """What begins a .npy file of this many vectors."""
    made = io.BytesIO()
    shape = (about.count, about.dimension)
    facts = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(made, facts)
    return made.getvalue()


def _check_lines(ids: pa.Array) -> None:
    """Raises :class:`VectorsError` if an id doesn't fit into a line."""
    for one in ids.to_pylist():
        if "\n" in one or "\r" in one:
            raise VectorsError(
                f"the id {one!r} has a line break, and FILE.ids.txt is one id per line; write to"
                " DIR.parquet"
            )
