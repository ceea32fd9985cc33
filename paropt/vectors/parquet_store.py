"""Vectors as a directory of Parquet files with the columns ``id`` and ``vector``."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from paropt.errors import VectorsError
from paropt.files import write_text
from paropt.vectors.about import About
from paropt.vectors.partial import Partial, check_parent, flush, written_to
from paropt.vectors.sample import Sample
from paropt.vectors.store import Note, Written

FACTS = "_paropt.json"  # readers of Parquet directories pass over names that begin with _
PART = 8 * (1 << 14)  # vectors of a file


class ParquetStore:
    """``DIR.parquet/part-00000.parquet``, …: text and lists of d float32 numbers.

    It grows in ``.DIR.parquet.partial``, file by file; a kill loses the file that was at work.
    """

    batch = 1 << 14

    def __init__(self, place: Path, overwrite: bool = False) -> None:
        self.place, self.overwrite = place, overwrite
        self._partial = Partial(place)
        self._about: About | None = None
        self._ids: pa.Array = pa.array([], pa.string())
        self._held: list[NDArray[np.float32]] = []
        self._first = 0
        self._sample = Sample(0, 1)

    def __str__(self) -> str:
        return str(self.place)

    def check(self) -> None:
        check_parent(self.place)
        if not self.place.exists():
            return
        if not self.place.is_dir():
            raise VectorsError(
                f"{self.place} is a file, and Parquet goes to a directory; choose another"
            )
        if not self.overwrite:
            raise VectorsError(f"{self.place} exists; add --overwrite to replace it")
        if not (self.place / FACTS).is_file():
            raise VectorsError(f"{self.place} is not of paropt embed, so it is not overwritten")

    def begin(self, about: About, ids: pa.Array, note: Note) -> int:
        self._about, self._ids = about, ids
        done = self._partial.open(about, note)
        self._first = done
        self._sample = Sample(min(done, about.count - 1), about.count)
        return done

    def write(self, first: int, vectors: NDArray[np.float32]) -> None:
        for row in self._sample.among(first, len(vectors)):
            self._sample.values[row] = vectors[row - first].tobytes()
        self._held.append(vectors)
        if first + len(vectors) - self._first >= PART:
            self._write_part()

    def _write_part(self) -> None:
        vectors = np.concatenate(self._held)
        flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
        table = pa.table(
            {
                "id": self._ids.slice(self._first, len(vectors)),
                "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
            }
        )
        assert self._about is not None
        table = table.replace_schema_metadata({"paropt": json.dumps(self._about.to_json())})
        part = self._partial.path / f"part-{self._first // PART:05}.parquet"
        with written_to(self.place):
            # floats of a trained table don't compress, and dictionaries of them only cost
            pa.parquet.write_table(table, part, compression="none", use_dictionary=False)
            flush(part)
        self._first += len(vectors)
        self._held = []
        self._partial.note(self._first)

    def finish(self) -> Written:
        if self._held:
            self._write_part()
        compared = self._compare()
        assert self._about is not None
        facts = json.dumps(self._about.to_json(), indent=1) + "\n"
        whole = self._partial.path / "whole"
        with written_to(self.place):
            whole.mkdir(exist_ok=True)
            for part in sorted(self._partial.path.glob("part-*.parquet")):
                part.rename(whole / part.name)
            write_text(whole / FACTS, facts, overwrite=True)
            flush(whole)
            self._put_in_place(whole)
        self._partial.remove()
        return Written(compared)

    def _put_in_place(self, whole: Path) -> None:
        parent = self.place.parent
        if self.place.exists():
            self.check()  # somebody may have put something else there meanwhile
            old = Path(tempfile.mkdtemp(prefix=f".{self.place.name}.old.", dir=parent))
            self.place.rename(old / "old")
            whole.rename(self.place)
            shutil.rmtree(old, ignore_errors=True)
        else:
            whole.rename(self.place)
        flush(parent)

    def _compare(self) -> int:
        by_part = itertools.groupby(self._sample.values, lambda row: row // PART)
        for part, rows in by_part:
            found = pa.parquet.read_table(self._partial.path / f"part-{part:05}.parquet")
            for row in rows:
                ids, vectors = found.column("id"), found.column("vector")
                same = ids[row % PART].as_py() == self._ids[row].as_py()
                numbers = np.asarray(vectors[row % PART].as_py(), np.float32)
                if not same or numbers.tobytes() != self._sample.values[row]:
                    raise VectorsError(
                        f"row {row} of {self.place} isn't what was written; is its disk sound?"
                    )
        return len(self._sample.values)

    def close(self) -> None:
        self._partial.close()
