"""The saved model that a study's trials begin with, as it is found on this machine.

A study says where it was and the digest of its weights. Whoever launches or joins with ``--from``
keeps a copy of it, named after the digest, so that slots find it here whatever becomes of the
original::

    PAROPT_HOME/begun/DIGEST/             a saved model
    PAROPT_HOME/begun/DIGEST-OPTIMISER/   one with its optimiser's state, for studies that keep it
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paropt.errors import DataError, StudyError
from paropt.files import link
from paropt.machine.home import paropt_home
from paropt.training.saved_model import optimiser_state
from paropt.training.saved_model.header import require_files, sha256

WEIGHTS = optimiser_state.WEIGHTS
FILES = ("model.json", WEIGHTS, "items.parquet")
OPTIMISER = "optimiser"  # the digest of its state, in what a study says of its model
SHOWN = 12  # characters of a digest in messages


def digest_of(directory: Path) -> str:
    """The digest of a saved model's weights.

    Raises:
        DataError: it is no saved model.
    """
    require_files(directory)
    return sha256(directory / WEIGHTS)


def description(directory: Path, model: str, keep_optimiser: bool = False) -> dict[str, str]:
    """What a study says of the model in ``directory`` that its trials begin with.

    Raises:
        DataError: it is no saved model, or keeps no state of its optimiser.
    """
    found = {"model": model, "path": str(directory.absolute()), "digest": digest_of(directory)}
    if keep_optimiser:
        found[OPTIMISER] = optimiser_state.digest_of(directory)
    return found


def keep(directory: Path, begin: Mapping[str, Any]) -> Path:
    """Keep a copy of a saved model; linked, not copied, where that can be.

    Raises:
        DataError: it cannot be written.
    """
    place, files = _kept(begin), (*FILES, *([optimiser_state.FILE] if OPTIMISER in begin else []))
    if place.is_dir():
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        try:
            for name in files:
                link(directory / name, beside / name)
            beside.rename(place)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        if not place.is_dir():  # another launch was first
            why = error.strerror or error
            raise DataError(f"no copy of {directory} can be kept in {place}: {why}") from None
    return place


def find(study: str, begin: Mapping[str, Any], given: Path | None = None) -> Path | None:
    """The model that the trials of a study begin with; None if they begin with none.

    ``given`` is where somebody says it is; a copy of that is kept.

    Raises:
        StudyError: it isn't here, or what is given is another one.
        DataError: what is given is no saved model.
    """
    if not begin:
        if given is not None:
            raise StudyError(f"study {study!r} begins with no saved model; leave --from out")
        return None
    digest = str(begin["digest"])
    if given is not None:
        if (found := digest_of(given)) != digest:
            raise StudyError(
                f"study {study!r} begins with the model whose weights have the digest "
                f"{digest[:SHOWN]}, and {given} has {found[:SHOWN]}; give that one with --from"
            )
        if not _has_optimiser(given, begin):
            raise StudyError(
                f"study {study!r} begins with what the model's optimiser had gathered, too, and "
                f"{given} has not got that; copy {optimiser_state.FILE} from where the study was "
                "launched"
            )
        return keep(given, begin)
    kept, recorded = _kept(begin), Path(str(begin["path"]))
    for place in (kept, recorded):
        if not (place / WEIGHTS).is_file() or sha256(place / WEIGHTS) != digest:
            continue
        if _has_optimiser(place, begin):
            return place
    raise StudyError(
        f"study {study!r} begins with a model that was in {recorded}, which is not on this machine "
        "or was changed; copy it here and say where it is with --from DIR"
    )


def _has_optimiser(place: Path, begin: Mapping[str, Any]) -> bool:
    """Whether the optimiser's state is there that the study's trials begin with, if they do."""
    file = place / optimiser_state.FILE
    return OPTIMISER not in begin or (file.is_file() and sha256(file) == begin[OPTIMISER])


def _kept(begin: Mapping[str, Any]) -> Path:
    name = str(begin["digest"])[:32]
    if OPTIMISER in begin:
        name += f"-{str(begin[OPTIMISER])[:8]}"
    return paropt_home() / "begun" / name
