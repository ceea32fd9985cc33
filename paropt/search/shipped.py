"""The parameter spaces that come with paropt, wherever it is installed."""

from __future__ import annotations

import difflib
from pathlib import Path

# beside the package, in a checkout and where it is installed
_FOLDER = Path(__file__).parents[2] / "paramspaces"


def spaces() -> dict[str, Path]:
    """The shipped spaces by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.json"))}


def find_space(given: str | Path) -> Path | None:
    """The file of a space: one that is there, or the shipped one of that name.

    ``demo``, ``demo.json`` and ``paramspaces/demo.json`` all mean the shipped one where no such
    file is.
    """
    path = Path(given)
    if path.is_file():
        return path
    if str(path.parent) not in (".", "paramspaces") or path.suffix not in ("", ".json"):
        return None
    return spaces().get(path.stem)


def missing(given: str | Path) -> str:
    """The sentence that there is no such space, with what may have been meant."""
    path, names = Path(given), spaces()
    if path.is_dir():
        return f"{given} is a directory, not a space"
    close = difflib.get_close_matches(path.stem, names, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)}"
    return f"there is no file {given}, and paropt has no space of that name; {hint}"
