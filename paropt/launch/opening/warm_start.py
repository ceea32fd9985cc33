"""``launch --warm-start``: what studies and paramfiles give a new study to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paropt.errors import StudyError, did_you_mean
from paropt.launch.data.data_source import Note

if TYPE_CHECKING:
    from paropt.search.setup.warm_start import Point
    from paropt.search.space.space import Space
    from paropt.storage.connect import Storage


def warm_start(space: Space, named: Sequence[str], storage: Storage, note: Note) -> Space:
    """The space with what is ``named`` to start from: paramfiles, and studies of this storage.

    Raises:
        SpaceError: a paramfile cannot be read.
        StudyError: neither a file nor a study, or nothing of it fits the space.
    """
    from paropt.search.setup.warm_start import warmed

    points: list[Point] = []
    for name in named:
        found = _points(space, name, storage)
        count = f"{len(found)} configurations" if len(found) > 1 else "1 configuration"
        note(f"the study begins with {count} of {name}")
        points += found
    return warmed(space, points)


def _points(space: Space, name: str, storage: Storage) -> list[Point]:
    from paropt.search.setup.warm_start import best_points, fit_into
    from paropt.search.space import shipped
    from paropt.search.space.paramfiles import read_paramfile
    from paropt.search.study.study import Study

    models = " or ".join(space.models)
    known = Study.names(storage.url)
    path = Path(name) if Path(name).is_file() else None
    if path is None and name not in known:
        path = shipped.find_paramfile(name)
    if path is not None:
        paramfile = read_paramfile(path)
        point = fit_into(space, paramfile.model, paramfile.params)
        if point is None:
            raise StudyError(
                f"--warm-start {name}: the paramfile is of {paramfile.model}, and nothing of it is "
                f"searched here ({models}); leave it out"
            )
        return [point]
    if name not in known:
        hint = did_you_mean(name, known, "'paropt status' lists the studies")
        raise StudyError(
            f"--warm-start {name}: neither a study nor a paramfile of that name; {hint}"
        )
    study = Study.load(storage.url, name)
    try:
        study.refresh()
        found = best_points(space, study.history.lineages(), study.definition.objective)
    finally:
        study.close()
    if not found:
        raise StudyError(
            f"--warm-start {name}: none of that study's trials is of a model that is searched here "
            f"({models}) and has a value; leave it out"
        )
    return found
