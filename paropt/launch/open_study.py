"""Before any slot starts: which study on which data, and whether they belong together."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paropt.errors import DataError, ParoptError, StudyError
from paropt.files import readable
from paropt.launch.data_source import (
    DEMO,
    Given,
    Note,
    demo_set,
    named_data,
    open_data,
    silent,
    url_of,
)
from paropt.launch.study_data import matching_data
from paropt.names import allowed
from paropt.search.space.pinning import pinned_words
from paropt.search.study.budgets import Budgets
from paropt.storage.connect import Storage, check_storage, open_storage
from paropt.storage.leases import HEARTBEAT
from paropt.storage.schema import create_tables
from paropt.training.evaluation.protocol import EvaluationProtocol, Ties
from paropt.training.metrics import CUTOFF, Direction, direction_of
from paropt.training.saved_model.header import read_header
from paropt.version import __version__
from paropt.worker.begun_model import description, find, keep

if TYPE_CHECKING:
    from paropt.data import Dataset
    from paropt.search.space.space import Space
    from paropt.search.study.definition import StudyDefinition
    from paropt.search.study.study import Study
    from paropt.training.evaluation.objective import Objective

AUTO = "auto"  # begins the name of a study whose space was made for its data
DEFAULT_TRIALS = 100
MIB = 1 << 20


@dataclass(frozen=True)
class LaunchRequest:
    """What ``launch`` was asked for; None where nothing was said."""

    space: Path | None = None
    data: Given | None = None
    study: str | None = None
    trials: int | None = None
    timeout: float | None = None
    device_hours: float | None = None
    stop_after_stale: int | None = None
    metric: str | None = None
    also: tuple[str, ...] = ()
    constraint: tuple[str, ...] = ()
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
    begin: Path | None = None  # a saved model that every trial begins with
    keep_optimiser: bool = False  # with what its optimiser had gathered

    @property
    def budgets(self) -> Budgets:
        seconds = None if self.device_hours is None else 3600 * self.device_hours
        return Budgets(self.trials, self.timeout, seconds, self.stop_after_stale)


@dataclass
class OpenedStudy:
    """A study that this machine may work on. Close it at the end."""

    storage: Storage
    study: Study
    data: Path
    resumed: bool

    def close(self) -> None:
        self.study.close()
        self.storage.close()

    def __enter__(self) -> OpenedStudy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- launch ---------------------------------------------------------------------------------


def create_or_resume(request: LaunchRequest, note: Note) -> OpenedStudy:
    """The study that ``launch`` is about, made or resumed.

    What can be refused is refused before anything is written.

    Raises:
        SpaceError, ParamError, ModelError, DataError: what was given cannot be searched.
        StudyError: it doesn't match the study of that name.
        StorageUnreachable: no database.
    """
    check_storage(request.storage, request.listen)
    _check_choices(request)
    if request.space is None:
        return _without_space(request, note)
    from paropt.search.setup.check_space import read_checked_space

    file = request.space
    space = read_checked_space(file, request.fixed)
    for line in pinned_words(space):
        note(line)
    space = _begun(request, space, lambda fixed: read_checked_space(file, fixed), note)
    objective = _check_search(request, space)
    dataset = open_data(find_data(request, space, note))
    _check_needs(space, dataset, note)
    name = request.study or default_name(request.space.stem, dataset.path)
    storage = open_storage(request.storage, listen=request.listen, wait=database_wait())
    try:
        known = name in _names(storage)
        if request.study is None:
            note(
                f"study {name!r} goes on"
                if known
                else f"the study is named {name!r}; launch again to go on with it"
            )
        space = _warmed(request, storage, known, space, note)
        return _create(request, storage, name, known, space, objective, dataset, note)
    except BaseException:
        storage.close()
        raise


def _warmed(
    request: LaunchRequest, storage: Storage, known: bool, space: Space, note: Note
) -> Space:
    """A new study's space with the start points that were asked for."""
    if known:
        _ignored(request, note)
    if known or not request.warm_start:
        return space
    from paropt.launch.warm_start import warm_start

    return warm_start(space, request.warm_start, storage, note)


def _ignored(request: LaunchRequest, note: Note) -> None:
    """The command that made a study is the one that goes on with it: no reason to refuse it."""
    if request.warm_start:
        note("the study has begun, so --warm-start changes nothing")


def _create(
    request: LaunchRequest,
    storage: Storage,
    name: str,
    known: bool,
    space: Space,
    objective: Objective,
    dataset: Dataset,
    note: Note,
) -> OpenedStudy:
    from paropt.search.study.definition import StudyDefinition
    from paropt.search.study.study import Study
    from paropt.training.semantics import SEMANTICS

    create_tables(storage.engine())
    recorded = _recorded(storage, name) if known else None
    if recorded and request.metric is None:
        objective = recorded.objective
    protocol, why = _protocol(request, recorded, dataset)
    definition = StudyDefinition(
        name=name,
        space=space.to_json(),
        metric=objective.metric,
        direction=objective.direction,
        at=sorted({CUTOFF, *objective.at}),
        also=_also(request, recorded, space.models),
        evaluation=protocol.to_json(),
        data_path=_place(request, space, dataset),
        fingerprint=dataset.fingerprint,
        added=_added(space, dataset),
        constraints=_constraints(request, space.models),
        directions=_directions(_also(request, recorded, space.models), space.models),
        semantics=SEMANTICS,
        seed=request.seed,
        sampler=request.sampler,
        pruner=request.pruner,
        versions=versions(),
        heartbeat=request.heartbeat or HEARTBEAT,
        begin=_begin(request),
    )
    if recorded:
        definition.joined_to(recorded)
    if request.begin:
        keep(request.begin, definition.begin)
    budgets = request.budgets
    if not budgets.said and not known:
        budgets = replace(budgets, trials=DEFAULT_TRIALS)
    study = Study.create(storage.url, definition, budgets, space=space)
    note(f"judged by {_goal(study.definition.objective)} on valid, {protocol.words()}{why}")
    _remark_on_pruning(study.definition, note)
    return OpenedStudy(storage, study, dataset.path, known)


def _remark_on_pruning(definition: StudyDefinition, note: Note) -> None:
    from paropt.search.study.sampling import of_complete

    name = definition.sampler["name"]
    if definition.pruner["name"] != "none" and of_complete(name):
        note(f"{name} learns from complete trials only; with --pruner none every trial is one")


def _place(request: LaunchRequest, space: Space, dataset: Dataset) -> str:
    """Where others find the data: a URL where one was named, else the directory here."""
    named = request.data or space.data or os.environ.get("PAROPT_DATASET")
    return url_of(named) or str(dataset.path.resolve())


def _fixed_model(request: LaunchRequest) -> tuple[str, ...]:
    """``--fixed``, with the model that the trials begin with where nobody wrote a space."""
    if request.begin is None:
        return request.fixed
    return (*request.fixed, f"model={read_header(request.begin).meta['model']}")


def _begun(
    request: LaunchRequest, space: Space, read: Callable[[Iterable[str]], Space], note: Note
) -> Space:
    """The space as it is for trials that begin with a saved model, if they do."""
    if request.begin is None:
        return space
    from paropt.search.setup.going_on import begun_space
    from paropt.training.saved_model.earlier import read_earlier

    fixed = _fixed_model(request) if request.space is None else request.fixed
    earlier = read_earlier(request.begin, request.keep_optimiser)
    space, said = begun_space(read, fixed, earlier)
    for line in said:
        note(line)
    return space


def _begin(request: LaunchRequest) -> dict[str, str]:
    """What a study says of the model that its trials begin with."""
    if request.begin is None:
        return {}
    model = str(read_header(request.begin).meta["model"])
    return description(request.begin, model, request.keep_optimiser)


def _protocol(
    request: LaunchRequest, recorded: StudyDefinition | None, dataset: Dataset
) -> tuple[EvaluationProtocol, str]:
    """How trials are judged, and why so if nobody asked for it."""
    if recorded is not None:
        return recorded.protocol.asked(request.filter_seen, request.ties), ""
    usual = EvaluationProtocol.of_data(dataset.protocol)
    why = f" (usual for {dataset.protocol} data; --filter-seen or --no-filter-seen decides)"
    return usual.asked(
        request.filter_seen, request.ties
    ), why if request.filter_seen is None else ""


def _also(
    request: LaunchRequest, recorded: StudyDefinition | None, models: Sequence[str]
) -> list[str]:
    from paropt.training.evaluation.choose_objective import more_metrics

    if recorded and not request.also:
        return list(recorded.also)
    return more_metrics(request.also, models)


def _directions(also: Sequence[str], models: Sequence[str]) -> dict[str, Direction]:
    """Where what is better cannot be told by the name."""
    from paropt.training.evaluation.choose_objective import directions

    found = directions(also, models)
    return {name: better for name, better in found.items() if better != direction_of(name)}


def _constraints(request: LaunchRequest, models: Sequence[str]) -> list[str]:
    from paropt.training.evaluation.choose_objective import limits_of

    return [limit.text for limit in limits_of(request.constraint, models)]


def _goal(objective: Objective) -> str:
    goal = objective.metric if objective.larger else f"{objective.metric} (smaller is better)"
    return goal + "".join(f", {limit.text}" for limit in objective.limits)


def _without_space(request: LaunchRequest, note: Note) -> OpenedStudy:
    """The study of that name goes on as it is; a new one searches what suits its data."""
    named = request.data or (None if request.study else os.environ.get("PAROPT_DATASET"))
    if request.study is None and not named:
        raise ParoptError(
            "launch needs --data to search what suits it, --space FILE, or --study NAME to go on "
            "with a study"
        )
    dataset = open_data(named_data(named, note)) if named else None
    storage = open_storage(request.storage, listen=request.listen, wait=database_wait())
    try:
        name = request.study or default_name(AUTO, dataset.path if dataset else Path())
        if dataset is None or name in _names(storage):
            found = dataset.path if dataset else None
            return _resume(replace(request, study=name, data=found), storage, note)
        from paropt.search.setup.auto_space import suited_space

        space, reasons = suited_space(dataset, _fixed_model(request))
        objective = _check_search(request, space)
        _check_needs(space, dataset, note)
        note("no --space, so one is made for this data:")
        for reason in reasons:
            said = "as the model that the trials begin with" if request.begin else "as --fixed says"
            note(f"  {reason.replace('as --fixed says', said)}")
        there = dataset
        space = _begun(request, space, lambda fixed: suited_space(there, fixed)[0], note)
        space = _warmed(request, storage, False, space, note)
        note(f"the study is named {name!r}; launch again to go on with it")
        return _create(request, storage, name, False, space, objective, dataset, note)
    except BaseException:
        storage.close()
        raise


def _resume(request: LaunchRequest, storage: Storage, note: Note) -> OpenedStudy:
    """Everything is as the study has it."""
    from paropt.search.study.study import Study

    assert request.study is not None
    recorded = _recorded(storage, request.study)
    metric = _metric_of(request, recorded)
    _like_recorded(request, recorded).joined_to(recorded)
    for given, said, has in (
        ("metric", metric, recorded.metric),
        ("seed", request.seed, recorded.seed),
    ):
        if said is not None and said != has:
            raise StudyError(
                f"study {request.study!r} has the {given} {has}, not {said}; "
                f"leave --{given} out, or give --space and another name"
            )
    if request.fixed:
        raise StudyError("--fixed changes a space; give --space too")
    check_semantics(request.study, recorded.semantics)
    data = matching_data(request.study, recorded, request.data, note)
    find(request.study, recorded.begin, request.begin)
    if request.keep_optimiser:
        recorded.check_optimiser(kept=True)
    note(f"study {request.study!r} goes on")
    _ignored(request, note)
    create_tables(storage.engine())
    study = Study.create(storage.url, recorded, request.budgets)
    note(f"judged by {_goal(recorded.objective)} on valid, {recorded.protocol.words()}")
    return OpenedStudy(storage, study, data, True)


def _like_recorded(request: LaunchRequest, recorded: StudyDefinition) -> StudyDefinition:
    """The study that there is, but for what the request says otherwise of how trials compare."""
    from paropt.search.space.file import from_json

    models = from_json(recorded.space).models if request.also or request.constraint else []
    return replace(
        recorded,
        evaluation=recorded.protocol.asked(request.filter_seen, request.ties).to_json(),
        also=_also(request, recorded, models),
        constraints=_constraints(request, models),
    )


def _check_needs(space: Space, dataset: Dataset, note: Note) -> None:
    """A worker needs no such check: its data have the fingerprint of those checked here."""
    from paropt.search.setup.check_needs import check_needs

    if most := check_needs(space, dataset):
        note(f"what a trial remembers of users takes {most / MIB:,.3g} MiB at most, on each slot")


def _added(space: Space, dataset: Dataset) -> dict[str, str]:
    """Digests of what was added to the data since, and the space reads."""
    from paropt.search.setup.check_needs import items_read

    return dataset.digests(items_read(space)) if dataset.added else {}


def _metric_of(request: LaunchRequest, recorded: StudyDefinition) -> str | None:
    """What ``--metric`` means for the models of a study that there is."""
    from paropt.search.space.file import from_json
    from paropt.training.evaluation.choose_objective import objective_of

    if request.metric is None or request.metric == recorded.metric:
        return None
    return objective_of(request.metric, from_json(recorded.space).models).metric


# -- worker ---------------------------------------------------------------------------------


def join(
    name: str,
    storage_url: str | None,
    data: Given | None,
    note: Note = silent,
    begin: Path | None = None,
) -> OpenedStudy:
    """An existing study, for a worker; ``begin`` is where the model lies that its trials begin
    with.

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
        find(name, study.definition.begin, begin)
        create_tables(storage.engine())
        return OpenedStudy(storage, study, path, True)
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


# -- parts ----------------------------------------------------------------------------------


def find_data(request: LaunchRequest, space: Space, note: Note = silent) -> Path:
    """``--data``, else the space's, else ``PAROPT_DATASET``; ``demo`` is made if it is not there.

    A space means the demo set by ``demo``, whatever lies in the current directory.

    Raises:
        DataError: nothing is named, or what is named cannot be used.
    """
    if request.data:
        return named_data(request.data, note)
    if space.data == DEMO:
        return demo_set()
    if space.data:
        assert request.space is not None
        beside = request.space.parent / space.data
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


def _check_choices(request: LaunchRequest) -> None:
    """Refuse a sampler or pruner that there isn't, before the database is touched."""
    from paropt.search.study.pruning import complete_pruner
    from paropt.search.study.sampling import complete_sampler

    complete_sampler(request.sampler)
    complete_pruner(request.pruner)


def _check_search(request: LaunchRequest, space: Space) -> Objective:
    """What the study looks for; refuse what no trial could report, and what cannot be sampled.

    Raises:
        ParoptError: a model of the space does not report that metric.
        StudyError: the sampler cannot draw from the space.
    """
    from paropt.search.study.sampling import check_sampler, complete_sampler, rehearse
    from paropt.training.evaluation.choose_objective import limits_of, more_metrics, objective_of

    objective = objective_of(request.metric, space.models)
    more_metrics(request.also, space.models)
    limits_of(request.constraint, space.models)
    sampler = complete_sampler(request.sampler)
    check_sampler(space, sampler)
    rehearse(space, sampler, objective)
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
