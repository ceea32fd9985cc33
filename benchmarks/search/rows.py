"""Rows of a long measurement in a CSV file: a second run goes on where the first one ended."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Rows:
    path: Path
    columns: Sequence[str]

    def read(self) -> list[dict[str, Any]]:
        """Those so far, as text; none without a file."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def has(self, key: Mapping[str, str]) -> bool:
        """Whether one of them has these values."""
        return any(key.items() <= row.items() for row in self.read())

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """What belongs together is written at once; a column that a row lacks stays empty."""
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows(rows)
