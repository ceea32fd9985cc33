"""Answers, kept under the hash of what was asked: no question is paid for twice."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

from paropt.errors import DataError


class Answers:
    """Texts by (model, limit, prompt), in one SQLite file; safe under several threads' turns."""

    def __init__(self, folder: Path, model: str, max_tokens: int) -> None:
        """
        Raises:
            DataError: the file cannot be written, or is another program's.
        """
        self.path = folder / "answers.sqlite"
        self.about = f"{model}\0{max_tokens}\0"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.connection = sqlite3.connect(self.path, timeout=60)
            self.connection.execute(
                "CREATE TABLE IF NOT EXISTS answers (asked BLOB PRIMARY KEY, text TEXT NOT NULL)"
            )
        except (OSError, sqlite3.Error) as error:
            raise self._broken(error) from None

    def get(self, prompt: str) -> str | None:
        """What was answered before; None: nothing yet."""
        try:
            asked = (self._hash(prompt),)
            row = self.connection.execute(
                "SELECT text FROM answers WHERE asked = ?", asked
            ).fetchone()
        except sqlite3.Error as error:
            raise self._broken(error) from None
        return None if row is None else str(row[0])

    def put(self, prompt: str, text: str) -> None:
        """Keep an answer; it is on the disk when this returns."""
        try:
            with self.connection:
                row = (self._hash(prompt), text)
                self.connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", row)
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def close(self) -> None:
        self.connection.close()

    def _hash(self, prompt: str) -> bytes:
        return hashlib.sha256((self.about + prompt).encode()).digest()

    def _broken(self, error: BaseException) -> DataError:
        return DataError(f"{self.path} cannot be used ({error}); delete it to ask everything anew")
