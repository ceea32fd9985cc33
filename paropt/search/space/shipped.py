"""The parameter spaces and paramfiles that come with paropt, wherever it is installed."""

from __future__ import annotations

from pathlib import Path

from paropt.errors import did_you_mean

# beside the package, in a checkout and where it is installed
_ROOT = Path(__file__).parents[3]
SPACES, PARAMFILES = "paramspaces", "paramfiles"


def spaces() -> dict[str, Path]:
    """The shipped spaces by name."""
    return _all(SPACES)


def paramfiles() -> dict[str, Path]:
    """The shipped paramfiles by name."""
    return _all(PARAMFILES)


def find_space(given: str | Path) -> Path | None:
    """The file of a space: one that is there, or the shipped one of that name.

    ``demo``, ``demo.json`` and ``paramspaces/demo.json`` all mean the shipped one where no such
    file is.
    """
    return _find(Path(given), SPACES)


def find_paramfile(given: str | Path) -> Path | None:
    """The same of a paramfile."""
    return _find(Path(given), PARAMFILES)


def _all(folder: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((_ROOT / folder).glob("*.json"))}


def _find(path: Path, folder: str) -> Path | None:
    if path.is_file():
        return path
    if str(path.parent) not in (".", folder) or path.suffix not in ("", ".json"):
        return None
    return _all(folder).get(path.stem)


def missing(given: str | Path, kind: str = "space") -> str:
    """The sentence that there is no such space, or "paramfile", with what may have been meant."""
    path, names = Path(given), spaces() if kind == "space" else paramfiles()
    if not str(given):
        return f"an empty word is no {kind}; name a file, or one of paropt's own"
    if path.is_dir():
        return f"{given} is a directory, not a {kind}"
    hint = did_you_mean(path.stem, names, f"it has {', '.join(names)}")
    return f"there is no file {given}, and paropt has no {kind} of that name; {hint}"
