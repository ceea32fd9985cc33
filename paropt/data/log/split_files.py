"""Files of a log that was split elsewhere, by the name of their split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

SplitFiles = Mapping[str, Path | Sequence[Path]]


def files_of_splits(given: SplitFiles) -> list[tuple[str, Path]]:
    """Each file with the name of its split."""
    lists = {name: [one] if isinstance(one, Path) else one for name, one in given.items()}
    return [(name, path) for name, paths in lists.items() for path in paths]
