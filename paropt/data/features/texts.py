"""Texts of items and users as vectors of an encoder; each text is encoded once, whatever happens.

What was encoded is kept in a file per encoder, under the hash of the text: a run that was stopped
goes on, and a dataset prepared anew encodes only what is new.
"""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from paropt.data.features.encoders import Encoder
from paropt.data.features.vectors import Rows
from paropt.errors import DataError

Note = Callable[[str], None]
T = TypeVar("T")
BATCH = 256  # texts that are encoded, and kept, together
SHOWN = 1024  # rows that are written together
SECONDS = 5.0  # between two remarks on progress


# -- what was encoded ------------------------------------------------------------------------------


class Cache:
    """Vectors by the hash of their text, in one SQLite file per encoder."""

    def __init__(self, folder: Path | None, key: str) -> None:
        """``folder`` None: in memory.

        Raises:
            DataError: the file cannot be written, or is another program's.
        """
        self.path = "" if folder is None else str(folder / f"{key[:40]}.sqlite")
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self.connection = sqlite3.connect(self.path or ":memory:", timeout=60)
            self.connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB NOT NULL)"
            )
        except (OSError, sqlite3.Error) as error:
            raise self._broken(error) from None

    def known(self, hashes: Iterable[bytes]) -> set[bytes]:
        """Those of the texts that are here."""
        return {text for text, _ in self._rows(hashes)}

    def get(self, hashes: Iterable[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors of those that are here."""
        return {text: np.frombuffer(vector, "<f4") for text, vector in self._rows(hashes)}

    def put(self, hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Keep vectors [n, dim]; they are on the disk when this returns."""
        rows = [(h, v.astype("<f4").tobytes()) for h, v in zip(hashes, vectors, strict=True)]
        try:
            with self.connection:
                self.connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def close(self) -> None:
        self.connection.close()

    def _rows(self, hashes: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        try:
            for some in _some(hashes, 500):
                marks = ",".join("?" * len(some))
                asked = f"SELECT text, vector FROM vectors WHERE text IN ({marks})"
                yield from self.connection.execute(asked, some)
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def _broken(self, error: BaseException) -> DataError:
        return DataError(f"{self.path} cannot be used ({error}); delete it to encode texts anew")


def write_text_vectors(
    path: Path,
    name: str,
    texts: Sequence[str | None],
    encoder: Encoder,
    folder: Path | None,
    note: Note,
    whose: str = "items",
) -> NDArray[np.bool_]:
    """Write ``path`` (``rows.npy``) with the vectors of ``texts`` [n]; which have none [n].

    ``folder`` keeps what was encoded; ``note`` is told how far it is; ``whose`` texts they are.

    Raises:
        DataError: the encoder cannot be loaded, or gives no finite vectors.
    """
    missing = np.array([not text for text in texts], bool)
    cache, rows = Cache(folder, encoder.key), Rows(path, len(texts))
    try:
        _encode(name, texts, encoder, cache, note)
        for some in _some(np.flatnonzero(~missing).tolist(), SHOWN):
            hashes = [_text_hash(str(texts[i])) for i in some]
            found = cache.get(hashes)
            vectors = np.stack([found[one] for one in hashes])
            if not np.isfinite(vectors).all():
                raise DataError(f"{name}: the text encoder gives numbers beyond float16")
            rows.write(np.array(some, np.int64), vectors.astype(np.float16))
    finally:
        rows.close()
        cache.close()
    if count := int(missing.sum()):
        note(f"{name}: {count:,} of {len(missing):,} {whose} have no text, so no vector")
    return missing


def _encode(
    name: str, texts: Sequence[str | None], encoder: Encoder, cache: Cache, note: Note
) -> None:
    """Put into the cache what isn't there; the longest first, so that memory shows at once."""
    waiting = {_text_hash(text): text for text in texts if text}
    for one in cache.known(list(waiting)):
        del waiting[one]
    order = sorted(waiting, key=lambda one: -len(waiting[one]))
    began = said = time.monotonic()
    if order:
        note(f"{name}: {len(order):,} texts to encode")
    for number, some in enumerate(_some(order, BATCH), 1):
        cache.put(some, encoder.encode([waiting[one] for one in some]))
        now, done = time.monotonic(), min(number * BATCH, len(order))
        if now - said >= SECONDS and done < len(order):
            said = now
            note(f"{name}: {done:,} of {len(order):,} texts, {done / (now - began):,.0f} a second")


def _some(values: Iterable[T], count: int) -> Iterator[tuple[T, ...]]:
    """The values in tuples of at most ``count``."""
    left = iter(values)
    while some := tuple(itertools.islice(left, count)):
        yield some


def _text_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
