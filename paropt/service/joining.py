"""Before any slot starts: which study on which data, and whether they belong together."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paropt.errors import DataError, ParoptError, StudyError
from paropt.service.leases import HEARTBEAT, create_tables
from paropt.service.postgres.embedded import paropt_home
from paropt.service.postgres.locks import FileLock
from paropt.service.storage import Storage, open_storage

if TYPE_CHECKING:
    from paropt.data import Dataset
    from paropt.search.space import Space
    from paropt.search.study import Study

DEMO = "demo"
METRIC = "mrr@20"
DEFAULT_TRIALS = 100
CUTOFF = 20  # always reported, whichever the metric is


Note = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """What ``launch`` was asked for; None where nothing was said."""

    space: Path | None = None
    data: str | None = None
    study: str | None = None
    trials: int | None = None
    timeout: float | None = None
    metric: str | None = None
    fixed: tuple[str, ...] = ()
    seed: int | None = None
    sampler: dict[str, Any] = field(default_factory=dict)
    pruner: dict[str, Any] = field(default_factory=dict)
    heartbeat: float | None = None
    storage: str | None = None
    listen: str | None = None


@dataclass
class Joined:
    """A study that this machine may work on. Close it at the end."""

    storage: Storage
    study: Study
    data: Path
    resumed: bool

    def close(self) -> None:
        self.study.close()
        self.storage.close()

    def __enter__(self) -> Joined:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- launch ---------------------------------------------------------------------------------


def create_or_resume(wish: Wish, note: Note) -> Joined:
    """The study that ``launch`` is about, made or resumed.

    What can be refused is refused before anything is written.

    Raises:
        SpaceError, ParamError, ModelError, DataError: what was given cannot be searched.
        StudyError: it doesn't match the study of that name.
        StorageUnreachable: no database.
    """
    if wish.space is None:
        return _resume_by_name(wish, note)
    cutoffs(wish.metric or METRIC)
    from paropt.search.declared import read_checked_space

    space = read_checked_space(wish.space, wish.fixed)
    dataset = open_data(find_data(wish, space))
    name = wish.study or default_name(wish.space, dataset.path)
    storage = open_storage(wish.storage, listen=wish.listen, wait=database_wait())
    try:
        known = name in _names(storage)
        if wish.study is None:
            note(
                f"study {name!r} goes on"
                if known
                else f"the study is named {name!r}; launch again to go on with it"
            )
        return _create(wish, storage, name, known, space, dataset)
    except BaseException:
        storage.close()
        raise


def _create(
    wish: Wish, storage: Storage, name: str, known: bool, space: Space, dataset: Dataset
) -> Joined:
    from paropt.search.definition import StudyDefinition
    from paropt.search.study import Study
    from paropt.training.semantics import SEMANTICS

    create_tables(storage.engine())
    recorded = _recorded(storage, name) if known else None
    metric = wish.metric or (recorded.metric if recorded else METRIC)
    definition = StudyDefinition(
        name=name,
        space=space.to_json(),
        metric=metric,
        at=cutoffs(metric),
        data_path=str(dataset.path.resolve()),
        fingerprint=dataset.fingerprint,
        semantics=SEMANTICS,
        seed=wish.seed,
        sampler=wish.sampler,
        pruner=wish.pruner,
        versions=versions(),
        heartbeat=wish.heartbeat or HEARTBEAT,
    )
    budget = wish.trials
    if budget is None and wish.timeout is None and not known:
        budget = DEFAULT_TRIALS
    study = Study.create(storage.url, definition, budget=budget, timeout=wish.timeout)
    return Joined(storage, study, dataset.path, known)


def _resume_by_name(wish: Wish, note: Note) -> Joined:
    """``launch --study NAME``: everything is as the study has it."""
    if wish.study is None:
        raise ParoptError("launch needs --space FILE, or --study NAME to go on with a study")
    from paropt.search.study import Study

    storage = open_storage(wish.storage, listen=wish.listen, wait=database_wait())
    try:
        recorded = _recorded(storage, wish.study)
        for given, has in (("metric", recorded.metric), ("seed", recorded.seed)):
            said = getattr(wish, given)
            if said is not None and said != has:
                raise StudyError(f"study {wish.study!r} has the {given} {has}, not {said}")
        if wish.fixed:
            raise StudyError("--fixed changes a space; give --space too")
        check_semantics(wish.study, recorded.semantics)
        data = matching_data(wish.study, recorded, wish.data)
        note(f"study {wish.study!r} goes on")
        create_tables(storage.engine())
        study = Study.create(storage.url, recorded, budget=wish.trials, timeout=wish.timeout)
        return Joined(storage, study, data, True)
    except BaseException:
        storage.close()
        raise


# -- worker ---------------------------------------------------------------------------------


def join(name: str, storage_url: str | None, data: str | None) -> Joined:
    """An existing study, for a worker.

    Raises:
        StudyError: no such study, or what is here differs from it: both values are named.
        StorageUnreachable: no database.
    """
    from paropt.search.study import Study

    storage = open_storage(storage_url, wait=database_wait())
    try:
        study = Study.load(storage.url, name)
        check_semantics(name, study.definition.semantics)
        path = matching_data(name, study.definition, data)
        create_tables(storage.engine())
        return Joined(storage, study, path, True)
    except BaseException:
        storage.close()
        raise


def check_semantics(name: str, recorded: int) -> None:
    """Raises :class:`StudyError` if this paropt would compute other numbers than the study's."""
    from paropt.training.semantics import SEMANTICS

    if recorded != SEMANTICS:
        raise StudyError(
            f"study {name!r} was made with training semantics {recorded}, and this paropt has "
            f"{SEMANTICS}; use the version that made it, or launch under another name"
        )


def matching_data(name: str, definition: Any, given: str | None) -> Path:
    """The dataset directory of a study, as it lies on this machine.

    Raises:
        StudyError: it isn't there, or another one is; both fingerprints are named.
    """
    place = named_data(given) if given else Path(definition.data_path)
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
            f"study {name!r} has the data fingerprint {definition.fingerprint}, and {place} has "
            f"{dataset.fingerprint}; give the study's data with --data DIR"
        )
    return dataset.path


# -- parts ----------------------------------------------------------------------------------


def find_data(wish: Wish, space: Space) -> Path:
    """``--data``, else the space's, else ``PAROPT_DATASET``; ``demo`` is made if it is not there.

    Raises:
        DataError: nothing is named.
    """
    if wish.data:
        return named_data(wish.data)
    if space.data:
        assert wish.space is not None
        beside = wish.space.parent / space.data
        return beside if beside.is_dir() else named_data(space.data)
    if named := os.environ.get("PAROPT_DATASET"):
        return named_data(named)
    raise DataError(
        "no data: give --data DIR, name it in the space, or set PAROPT_DATASET "
        "('paropt prepare' makes such a directory)"
    )


def named_data(name: str) -> Path:
    """A directory by its path; the demo set by its name."""
    if name != DEMO or Path(name).is_dir():
        return Path(name)
    path = paropt_home() / "datasets" / DEMO
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")) as lock:
        lock.exclude()
        if not (path / "meta.json").exists():
            from paropt.data.prepare import prepare_demo

            prepare_demo(path)
    return path


def open_data(path: Path) -> Dataset:
    """See :func:`paropt.data.open_dataset`."""
    from paropt.data import open_dataset

    return open_dataset(path.absolute())


def default_name(space: Path, data: Path) -> str:
    """The same for the same space file and dataset, so that launching twice is resuming."""
    stem, directory = space.stem, data.name
    return stem if stem == directory else f"{stem}-{directory}"


def database_wait() -> float:
    """Seconds to wait for a database that is started after us."""
    return float(os.environ.get("PAROPT_OUTAGE") or 600)


def cutoffs(metric: str) -> list[int]:
    """The cut-offs to evaluate for a metric.

    Raises:
        ParoptError: no name of a metric.
    """
    found = re.fullmatch(r"([a-z][a-z0-9_-]*)(?:@([1-9]\d*))?", metric)
    if not found:
        raise ParoptError(f"--metric is a name like mrr@20 or recall@20, not {metric!r}")
    return sorted({CUTOFF, int(found[2] or CUTOFF)})


def versions() -> dict[str, str]:
    """What the study's numbers were computed with."""
    names = ("paropt", "torch", "optuna", "numpy")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }


def _names(storage: Storage) -> list[str]:
    from paropt.search.study import Study

    return Study.names(storage.url)


def _recorded(storage: Storage, name: str) -> Any:
    from paropt.search.study import Study

    study = Study.load(storage.url, name)
    study.close()
    return study.definition
