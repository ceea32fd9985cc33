"""A study's data as they lie on this machine: where they were recorded, or where somebody says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from paropt.errors import DataError, StudyError
from paropt.launch.data.data_source import Given, Note, named_data, open_data, silent
from paropt.launch.data.remote_data import kept
from paropt.machine.remote import is_url

if TYPE_CHECKING:
    from paropt.search.study.definition import StudyDefinition


def matching_data(
    name: str, definition: StudyDefinition, given: Given | None, note: Note = silent
) -> Path:
    """The dataset directory of a study, as it lies on this machine.

    Raises:
        StudyError: it isn't there, or another one is; both fingerprints are named.
    """
    place = named_data(given, note) if given else _recorded_data(name, definition, note)
    if not given and not place.exists():
        raise StudyError(
            f"study {name!r} recorded its data in {place}, which is not on this machine; say where "
            "it is with --data DIR"
        )
    try:
        dataset = open_data(place)
    except DataError as error:
        if given:
            raise
        raise StudyError(
            f"study {name!r} recorded its data in {definition.data_path}, which cannot be used "
            f"here ({error}); say where it is with --data DIR"
        ) from None
    if dataset.fingerprint != definition.fingerprint:
        raise StudyError(
            f"study {name!r} has the data fingerprint {definition.fingerprint[:12]}, and {place} "
            f"has {dataset.fingerprint[:12]}; give the study's data with --data DIR"
        )
    definition.check_added({added: one.digest for added, one in dataset.added.items()})
    return dataset.path


def _recorded_data(name: str, definition: StudyDefinition, note: Note) -> Path:
    """Where the study's data should lie here; what it recorded as a URL is fetched."""
    place: str = definition.data_path
    if not is_url(place):
        return Path(place)
    here = kept(definition.fingerprint, dict(definition.added))
    if here is not None:
        return here
    try:
        return named_data(place, note)
    except DataError as error:
        raise StudyError(
            f"study {name!r} recorded its data in {place}, and {error}; or say where else they are "
            "with --data"
        ) from None
