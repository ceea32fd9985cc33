"""``paropt plot``: a study's figures as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from paropt.errors import ParoptError
from paropt.files import file_stem, write_bytes
from paropt.results.figures import png
from paropt.results.figures.description import Figure
from paropt.results.figures.of_study import figures
from paropt.results.figures.svg import document
from paropt.search.study.study import Study
from paropt.storage.connect import open_storage

Format = Literal["svg", "png"]


def plot(
    name: str,
    out: Path,
    *,
    format: Format = "svg",
    overwrite: bool = False,
    storage_url: str | None = None,
) -> list[dict[str, Any]]:
    """Write a study's figures to ``out``; returns file, figure and title of each.

    Everything is drawn before anything is written.

    Raises:
        StudyError: no such study.
        ParoptError: there is nothing to show yet, a file exists, matplotlib is missing.
    """
    draw = _drawing(format)
    with open_storage(storage_url) as storage:
        study = Study.load(storage.url, name)
        try:
            found = figures(study)
        finally:
            study.close()
    if not found:
        raise ParoptError(f"study {name!r} has no epoch yet, so there is nothing to plot")
    stem = file_stem(name)
    drawn = {out / f"{stem}-{figure.name}.{format}": (figure, draw(figure)) for figure in found}
    for path in drawn:
        if path.exists() and not overwrite:
            raise ParoptError(f"{path} exists; add --overwrite to replace it")
    for path, (_, content) in drawn.items():
        write_bytes(path, content, overwrite=overwrite)
    return [
        {"file": str(path), "figure": figure.name, "title": figure.title}
        for path, (figure, _) in drawn.items()
    ]


def _drawing(format: Format) -> Callable[[Figure], bytes]:
    if format == "png":
        png.require()
        return png.png
    return lambda figure: document(figure).encode()
