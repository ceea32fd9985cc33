"""Before any slot starts: which study on which data, and whether they belong together."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paropt import __version__
from paropt.errors import DataError, ParoptError, StudyError
from paropt.files import readable
from paropt.launch.data_source import DEMO, Given, Note, demo_set, named_data, open_data, silent
from paropt.names import allowed
from paropt.search.space.pinning import pinned_words
from paropt.storage.connect import Storage, check_storage, open_storage
from paropt.storage.leases import HEARTBEAT
from paropt.storage.schema import create_tables
from paropt.training.evaluation import EvaluationProtocol, Ties
from paropt.training.metrics import CUTOFF

if TYPE_CHECKING:
    from paropt.data import Dataset
    from paropt.search.space.space import Space
    from paropt.search.study.definition import StudyDefinition
    from paropt.search.study.study import Study
    from paropt.training.objective import Objective

AUTO = "auto"  # begins the name of a study whose space was made for its data
DEFAULT_TRIALS = 100


@dataclass(frozen=True)
class Wish:
    """What ``launch`` was asked for; None where nothing was said."""

    space: Path | None = None
    data: Given | None = None
    study: str | None = None
    trials: int | None = None
    timeout: float | None = None
    metric: str | None = None
    also: tuple[str, ...] = ()
    filter_seen: bool | None = None
    ties: Ties | None = None
    fixed: tuple[str, ...] = ()
    warm_start: tuple[str, ...] = ()
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
    check_storage(wish.storage, wish.listen)
    _check_choices(wish)
    if wish.space is None:
        return _without_space(wish, note)
    from paropt.search.setup.check_space import read_checked_space

    space = read_checked_space(wish.space, wish.fixed)
    for line in pinned_words(space):
        note(line)
    objective = _check_search(wish, space)
    dataset = open_data(find_data(wish, space, note))
    _check_needs(space, dataset)
    name = wish.study or default_name(wish.space.stem, dataset.path)
    storage = open_storage(wish.storage, listen=wish.listen, wait=database_wait())
    try:
        known = name in _names(storage)
        if wish.study is None:
            note(
                f"study {name!r} goes on"
                if known
                else f"the study is named {name!r}; launch again to go on with it"
            )
        space = _warmed(wish, storage, known, space, note)
        return _create(wish, storage, name, known, space, objective, dataset, note)
    except BaseException:
        storage.close()
        raise


def _warmed(wish: Wish, storage: Storage, known: bool, space: Space, note: Note) -> Space:
    """A new study's space with the start points that were asked for."""
    if known:
        _ignored(wish, note)
    if known or not wish.warm_start:
        return space
    from paropt.launch.warm_start import warm_start

    return warm_start(space, wish.warm_start, storage, note)


def _ignored(wish: Wish, note: Note) -> None:
    """The command that made a study is the one that goes on with it: no reason to refuse it."""
    if wish.warm_start:
        note("the study has begun, so --warm-start changes nothing")


def _create(
    wish: Wish,
    storage: Storage,
    name: str,
    known: bool,
    space: Space,
    objective: Objective,
    dataset: Dataset,
    note: Note,
) -> Joined:
    from paropt.search.study.definition import StudyDefinition
    from paropt.search.study.study import Study
    from paropt.training.semantics import SEMANTICS

    create_tables(storage.engine())
    recorded = _recorded(storage, name) if known else None
    if recorded and wish.metric is None:
        objective = recorded.objective
    protocol, why = _protocol(wish, recorded, dataset)
    definition = StudyDefinition(
        name=name,
        space=space.to_json(),
        metric=objective.metric,
        direction=objective.direction,
        at=sorted({CUTOFF, *objective.at}),
        also=_also(wish, recorded),
        evaluation=protocol.to_json(),
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
    study = Study.create(storage.url, definition, budget=budget, timeout=wish.timeout, space=space)
    note(f"judged by {_goal(objective)} on valid, {protocol.words()}{why}")
    return Joined(storage, study, dataset.path, known)


def _protocol(
    wish: Wish, recorded: StudyDefinition | None, dataset: Dataset
) -> tuple[EvaluationProtocol, str]:
    """How trials are judged, and why so if nobody asked for it."""
    if recorded is not None:
        return recorded.protocol.asked(wish.filter_seen, wish.ties), ""
    usual = EvaluationProtocol.of_data(dataset.protocol)
    why = f" (usual for {dataset.protocol} data; --filter-seen or --no-filter-seen decides)"
    return usual.asked(wish.filter_seen, wish.ties), why if wish.filter_seen is None else ""


def _also(wish: Wish, recorded: StudyDefinition | None) -> list[str]:
    from paropt.training.wanted import more_metrics

    return list(recorded.also) if recorded and not wish.also else more_metrics(wish.also)


def _goal(objective: Objective) -> str:
    return objective.metric if objective.larger else f"{objective.metric} (smaller is better)"


def _without_space(wish: Wish, note: Note) -> Joined:
    """The study of that name goes on as it is; a new one searches what suits its data."""
    named = wish.data or (None if wish.study else os.environ.get("PAROPT_DATASET"))
    if wish.study is None and not named:
        raise ParoptError(
            "launch needs --data to search what suits it, --space FILE, or --study NAME to go on "
            "with a study"
        )
    dataset = open_data(named_data(named, note)) if named else None
    storage = open_storage(wish.storage, listen=wish.listen, wait=database_wait())
    try:
        name = wish.study or default_name(AUTO, dataset.path if dataset else Path())
        if dataset is None or name in _names(storage):
            found = dataset.path if dataset else None
            return _resume(replace(wish, study=name, data=found), storage, note)
        from paropt.search.setup.auto_space import suited_space

        space, reasons = suited_space(dataset, wish.fixed)
        objective = _check_search(wish, space)
        _check_needs(space, dataset)
        note("no --space, so one is made for this data:")
        for reason in reasons:
            note(f"  {reason}")
        space = _warmed(wish, storage, False, space, note)
        note(f"the study is named {name!r}; launch again to go on with it")
        return _create(wish, storage, name, False, space, objective, dataset, note)
    except BaseException:
        storage.close()
        raise


def _resume(wish: Wish, storage: Storage, note: Note) -> Joined:
    """Everything is as the study has it."""
    from paropt.search.study.study import Study

    assert wish.study is not None
    recorded = _recorded(storage, wish.study)
    metric = _metric_of(wish, recorded)
    asked = recorded.protocol.asked(wish.filter_seen, wish.ties)
    replace(recorded, evaluation=asked.to_json()).joined_to(recorded)
    for given, said, has in (
        ("metric", metric, recorded.metric),
        ("seed", wish.seed, recorded.seed),
    ):
        if said is not None and said != has:
            raise StudyError(
                f"study {wish.study!r} has the {given} {has}, not {said}; leave --{given} out, or "
                "give --space and another name"
            )
    if wish.fixed:
        raise StudyError("--fixed changes a space; give --space too")
    check_semantics(wish.study, recorded.semantics)
    data = matching_data(wish.study, recorded, wish.data, note)
    note(f"study {wish.study!r} goes on")
    _ignored(wish, note)
    create_tables(storage.engine())
    study = Study.create(storage.url, recorded, budget=wish.trials, timeout=wish.timeout)
    note(f"judged by {_goal(recorded.objective)} on valid, {recorded.protocol.words()}")
    return Joined(storage, study, data, True)


def _check_needs(space: Space, dataset: Dataset) -> None:
    """A worker needs no such check: its data have the fingerprint of those checked here."""
    from paropt.search.setup.check_needs import check_needs

    check_needs(space, dataset)


def _metric_of(wish: Wish, recorded: StudyDefinition) -> str | None:
    """What ``--metric`` means for the models of a study that there is."""
    from paropt.search.space.file import from_json
    from paropt.training.wanted import objective_of

    if wish.metric is None or wish.metric == recorded.metric:
        return None
    return objective_of(wish.metric, from_json(recorded.space).models).metric


# -- worker ---------------------------------------------------------------------------------


def join(name: str, storage_url: str | None, data: Given | None, note: Note = silent) -> Joined:
    """An existing study, for a worker.

    Raises:
        StudyError: no such study, or what is here differs from it: both values are named.
        StorageUnreachable: no database.
    """
    from paropt.search.study.study import Study

    storage = open_storage(storage_url, wait=database_wait())
    try:
        study = Study.load(storage.url, name)
        check_semantics(name, study.definition.semantics)
        path = matching_data(name, study.definition, data, note)
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


def matching_data(name: str, definition: Any, given: Given | None, note: Note = silent) -> Path:
    """The dataset directory of a study, as it lies on this machine.

    Raises:
        StudyError: it isn't there, or another one is; both fingerprints are named.
    """
    place = named_data(given, note) if given else Path(definition.data_path)
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
    return dataset.path


# -- parts ----------------------------------------------------------------------------------


def find_data(wish: Wish, space: Space, note: Note = silent) -> Path:
    """``--data``, else the space's, else ``PAROPT_DATASET``; ``demo`` is made if it is not there.

    A space means the demo set by ``demo``, whatever lies in the current directory.

    Raises:
        DataError: nothing is named, or what is named cannot be used.
    """
    if wish.data:
        return named_data(wish.data, note)
    if space.data == DEMO:
        return demo_set()
    if space.data:
        assert wish.space is not None
        beside = wish.space.parent / space.data
        return named_data(beside if beside.exists() else space.data, note)
    if named := os.environ.get("PAROPT_DATASET"):
        return named_data(named, note)
    raise DataError(
        "no data: give --data DIR or event files, name a directory in the space, or set "
        "PAROPT_DATASET ('paropt prepare' makes such a directory)"
    )


def default_name(stem: str, data: Path) -> str:
    """The same for the same space file and dataset, so that launching twice is resuming."""
    directory = data.name
    found = stem if stem == directory else f"{stem}-{directory}"
    return found if allowed(found) else readable(found, 200)


def database_wait() -> float:
    """Seconds to wait for a database that is started after us."""
    return float(os.environ.get("PAROPT_OUTAGE") or 600)


def _check_choices(wish: Wish) -> None:
    """Refuse a sampler or pruner that there isn't, before the database is touched."""
    from paropt.search.study.pruning import complete_pruner
    from paropt.search.study.sampling import complete_sampler

    complete_sampler(wish.sampler)
    complete_pruner(wish.pruner)


def _check_search(wish: Wish, space: Space) -> Objective:
    """What the study looks for; refuse what no trial could report, and what cannot be sampled.

    Raises:
        ParoptError: a model of the space does not report that metric.
        StudyError: the sampler cannot draw from the space.
    """
    from paropt.search.study.sampling import check_sampler, complete_sampler
    from paropt.training.wanted import more_metrics, objective_of

    objective = objective_of(wish.metric, space.models)
    more_metrics(wish.also)
    check_sampler(space, complete_sampler(wish.sampler))
    return objective


def versions() -> dict[str, str]:
    """What the study's numbers were computed with."""
    names = ("torch", "optuna", "numpy")
    return {
        "python": platform.python_version(),
        "paropt": __version__,
        **{name: importlib.metadata.version(name) for name in names},
    }


def _names(storage: Storage) -> list[str]:
    from paropt.search.study.study import Study

    return Study.names(storage.url)


def _recorded(storage: Storage, name: str) -> StudyDefinition:
    from paropt.search.study.study import Study

    return Study.recorded(storage.url, name)
