"""Before any slot starts: which study on which data, and whether they belong together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paropt.errors import StudyError, UsageError
from paropt.files import readable
from paropt.launch.data.data_source import (
    Given,
    Note,
    named_data,
    open_data,
    silent,
    url_of,
)
from paropt.launch.data.study_data import matching_data
from paropt.launch.opening.check_request import check_choices, check_needs_met, check_search
from paropt.launch.opening.launch_request import LaunchRequest, find_data
from paropt.launch.opening.study_terms import (
    additions_read,
    also_measured,
    beginning,
    fixed_model,
    goal_words,
    judging_protocol,
    limits_asked,
    place_of_data,
    told_directions,
    versions,
)
from paropt.names import allowed, of_final_test
from paropt.search.space.pinning import pinned_words
from paropt.search.space.start_points import values_of
from paropt.storage.connect import Storage, check_storage, open_storage
from paropt.storage.leases import HEARTBEAT
from paropt.storage.schema import create_tables
from paropt.training.metrics import CUTOFF
from paropt.worker.begun_model import find, keep

if TYPE_CHECKING:
    from paropt.data import Dataset
    from paropt.search.space.space import Space
    from paropt.search.study.definition import StudyDefinition
    from paropt.search.study.study import Study
    from paropt.training.evaluation.objective import Objective

AUTO = "auto"  # begins the name of a study whose space was made for its data
DEFAULT_TRIALS = 100


@dataclass
class OpenedStudy:
    """A study that this machine may work on. Close it at the end."""

    storage: Storage
    study: Study
    data: Path
    resumed: bool

    def data_options(self) -> list[str]:
        """The words by which a command finds the data: none where the study says it rightly."""
        recorded = self.study.definition.data_path
        there = url_of(recorded) is not None or Path(recorded).is_dir()
        return [] if there else ["--data", str(self.data)]

    def close(self) -> None:
        self.study.close()
        self.storage.close()

    def __enter__(self) -> OpenedStudy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def create_or_resume(request: LaunchRequest, note: Note) -> OpenedStudy:
    """The study that ``launch`` is about, made or resumed.

    What can be refused is refused before anything is written.

    Raises:
        SpaceError, ParamError, ModelError, DataError: what was given cannot be searched.
        StudyError: it doesn't match the study of that name.
        StorageUnreachable: no database.
    """
    check_storage(request.storage, request.listen)
    check_choices(request)
    if request.space is None:
        return _without_space(request, note)
    from paropt.search.setup.check_space import read_checked_space

    file = request.space
    space = read_checked_space(file, request.fixed)
    for line in pinned_words(space):
        note(line)
    space = _begun(request, space, lambda fixed: read_checked_space(file, fixed), note)
    objective = check_search(request, space)
    dataset = open_data(find_data(request, space, note))
    check_needs_met(space, dataset, note)
    name = request.study or default_name(request.space.stem, dataset.path)
    storage = open_storage(request.storage, listen=request.listen, wait=database_wait(), note=note)
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
    from paropt.launch.opening.warm_start import warm_start

    return warm_start(space, request.warm_start, storage, note)


def _ignored(request: LaunchRequest, note: Note) -> None:
    """The command that made a study is the one that goes on with it: no reason to refuse it."""
    if request.warm_start:
        note("the study has begun, so --warm-start changes nothing")


def _keeps(
    request: LaunchRequest,
    recorded: StudyDefinition,
    start: Sequence[Mapping[str, Any]],
    note: Note,
) -> None:
    """What else a study that has begun leaves as it is."""
    if request.heartbeat is not None and request.heartbeat != recorded.heartbeat:
        note(f"the study has begun with a heartbeat of {recorded.heartbeat:g} s, which it keeps")
    known = [values_of(point) for point in recorded.space.get("start") or ()]
    if more := sum(values_of(point) not in known for point in start):
        points = f"{more} point{'s' * (more > 1)} to start from"
        note(f"the study has begun, and {points} that the space has now had no say in it")


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

    if not known and of_final_test(name):
        raise StudyError(f"{name!r} is what a final test calls its trainings; choose another name")
    create_tables(storage.engine())
    recorded = _recorded(storage, name) if known else None
    if recorded and request.metric is None:
        objective = recorded.objective
    protocol, why = judging_protocol(request, recorded, dataset)
    definition = StudyDefinition(
        name=name,
        space=space.to_json(),
        metric=objective.metric,
        direction=objective.direction,
        at=sorted({CUTOFF, *objective.at}),
        also=also_measured(request, recorded, space.models),
        evaluation=protocol.to_json(),
        data_path=place_of_data(request, space, dataset),
        fingerprint=dataset.fingerprint,
        added=additions_read(space, dataset),
        constraints=limits_asked(request, space.models),
        directions=told_directions(also_measured(request, recorded, space.models), space.models),
        semantics=SEMANTICS,
        seed=request.seed,
        sampler=request.sampler,
        pruner=request.pruner,
        versions=versions(),
        heartbeat=request.heartbeat or HEARTBEAT,
        begin=beginning(request, dataset, note),
    )
    if recorded:
        definition.joined_to(recorded)
        _keeps(request, recorded, definition.space.get("start") or (), note)
    if request.begin:
        keep(request.begin, definition.begin)
    budgets = request.budgets
    if not budgets.said and not known:
        budgets = replace(budgets, trials=DEFAULT_TRIALS)
    study = Study.create(storage.url, definition, budgets, space=space)
    note(f"judged by {goal_words(study.definition.objective)} on valid, {protocol.words()}{why}")
    if caution := protocol.caution(dataset.split("valid"), dataset.n_items("train")):
        note(f"warning: {caution}")
    _remark_on_pruning(study.definition, note)
    return OpenedStudy(storage, study, dataset.path, known)


def _remark_on_pruning(definition: StudyDefinition, note: Note) -> None:
    from paropt.search.strategy.sampling import of_complete

    name = definition.sampler["name"]
    if definition.pruner["name"] != "none" and of_complete(name):
        note(f"{name} learns from complete trials only; with --pruner none every trial is one")


def _begun(
    request: LaunchRequest, space: Space, read: Callable[[Iterable[str]], Space], note: Note
) -> Space:
    """The space as it is for trials that begin with a saved model, if they do."""
    if request.begin is None:
        return space
    from paropt.search.setup.going_on import begun_space
    from paropt.training.saved_model.earlier import read_earlier

    fixed = fixed_model(request) if request.space is None else request.fixed
    earlier = read_earlier(request.begin, request.keep_optimiser)
    space, said = begun_space(read, fixed, earlier)
    for line in said:
        note(line)
    return space


def _without_space(request: LaunchRequest, note: Note) -> OpenedStudy:
    """The study of that name goes on as it is; a new one searches what suits its data."""
    named = request.data or (None if request.study else os.environ.get("PAROPT_DATASET"))
    if request.study is None and not named:
        raise UsageError(
            "launch needs --data to search what suits it, --space FILE, or --study NAME to go on "
            "with a study"
        )
    dataset = open_data(named_data(named, note)) if named else None
    storage = open_storage(request.storage, listen=request.listen, wait=database_wait(), note=note)
    try:
        name = request.study or default_name(AUTO, dataset.path if dataset else Path())
        if dataset is None or name in _names(storage):
            found = dataset.path if dataset else None
            return _resume(replace(request, study=name, data=found), storage, note)
        from paropt.search.setup.auto_space import suited_space

        space, reasons = suited_space(dataset, fixed_model(request))
        objective = check_search(request, space)
        check_needs_met(space, dataset, note)
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
    _keeps(request, recorded, (), note)
    create_tables(storage.engine())
    study = Study.create(storage.url, recorded, request.budgets)
    note(f"judged by {goal_words(recorded.objective)} on valid, {recorded.protocol.words()}")
    return OpenedStudy(storage, study, data, True)


def _like_recorded(request: LaunchRequest, recorded: StudyDefinition) -> StudyDefinition:
    """The study that there is, but for what the request says otherwise of how trials compare."""
    from paropt.search.space.file import from_json

    models = from_json(recorded.space).models if request.also or request.constraint else []
    return replace(
        recorded,
        evaluation=recorded.protocol.asked(request.filter_seen, request.ties).to_json(),
        also=also_measured(request, recorded, models),
        **{key: said for key in ("sampler", "pruner") if (said := getattr(request, key))},
        constraints=limits_asked(request, models),
    )


def _metric_of(request: LaunchRequest, recorded: StudyDefinition) -> str | None:
    """What ``--metric`` means for the models of a study that there is."""
    from paropt.search.space.file import from_json
    from paropt.training.evaluation.choose_objective import objective_of

    if request.metric is None or request.metric == recorded.metric:
        return None
    return objective_of(request.metric, from_json(recorded.space).models).metric


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

    storage = open_storage(storage_url, wait=database_wait(), note=note)
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


def default_name(stem: str, data: Path) -> str:
    """The same for the same space file and dataset, so that launching twice is resuming."""
    directory = data.name
    found = stem if stem == directory else f"{stem}-{directory}"
    return found if allowed(found) else readable(found, 200)


def database_wait() -> float:
    """Seconds to wait for a database that is started after us."""
    return float(os.environ.get("PAROPT_OUTAGE") or 600)


def _names(storage: Storage) -> list[str]:
    from paropt.search.study.study import Study

    return Study.names(storage.url)


def _recorded(storage: Storage, name: str) -> StudyDefinition:
    from paropt.search.study.study import Study

    return Study.recorded(storage.url, name)
