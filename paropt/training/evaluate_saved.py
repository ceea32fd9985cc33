"""A saved model, or several as one, judged on a dataset or on files of events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paropt.data.dataset import VIEWS, Dataset, View, open_dataset
from paropt.data.log.options import Options
from paropt.data.log.sessions_file import read_asked
from paropt.errors import DataError, ParamError
from paropt.training.batches.events import EventArrays, Events
from paropt.training.evaluation.baselines.beside import floors_of
from paropt.training.evaluation.choose_objective import objective_of
from paropt.training.evaluation.cold import cold_targets
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import SAMPLED, EvaluationProtocol, Ties
from paropt.training.evaluation.ranking.judging import Evaluation, evaluate
from paropt.training.evaluation.sampled import evaluate_sampled
from paropt.training.metrics import DEFAULT, OF_TRAININGS
from paropt.training.recommending.dataset_events import foreign, is_own, split_events
from paropt.training.recommending.new_sessions import file_events
from paropt.training.run_result import RunResult, standing
from paropt.training.saved_model.ensemble import load_models
from paropt.training.saved_model.header import made_anew, seen_by_then
from paropt.training.saved_model.saved import SavedModel

LEAST_KNOWN = 0.05  # of the targets: a model that knows fewer is tested on other data than its own


def evaluate_saved(
    directory: Path,
    data: Path,
    *,
    split: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    at: Sequence[int] = (20,),
    also: Sequence[str] = (),
    metric: str | None = None,
    ties: Ties | None = None,
    filter_seen: bool | None = None,
    others: Sequence[Path] = (),
    cold_items: bool = False,
    candidates: str = "all",
    note: Callable[[str], None] = lambda message: None,
) -> RunResult:
    """Test a saved model on the evaluation split of a view, its own by default.

    With ``others`` it is all of them as one.

    On data that it was not trained on, items are matched by their ids. It is judged as it was in
    its training, unless something else is said.

    Raises:
        ParoptError: whatever of it cannot be done.
    """
    began = time.perf_counter()
    _check_also(also)
    if threads is not None:
        torch.set_num_threads(threads)
    saved = load_models([directory, *others], device)
    note_ensemble(len(others), note)
    dataset = open_dataset(data)
    name = split or saved.meta["split"]
    view = dataset.view(name)
    trained = VIEWS[saved.meta["split"]][0]
    events = split_events(saved, dataset, view.test.name)
    own = is_own(saved, dataset)
    if not own:
        if cold_items:
            raise DataError(
                f"{data} is not what {directory} was trained on, so its codes are others: "
                "--cold-items is for the model's own data"
            )
        note(foreign(saved, dataset, directory))
        if seen := seen_by_then(saved.meta, directory, events, dataset.has_times):
            note(f"warning: {seen}")
    elif cold_items and (other := _made_anew(saved, dataset)):
        raise DataError(
            f"{other!r} of {data} was made anew since {directory} was trained, and --cold-items"
            " would read it as what it was; train the model again, or leave --cold-items out"
        )
    elif (saved.meta["split"], name) == ("full", "search"):
        note(f"{directory} was trained on train_full, which holds the targets of valid: no test")
    own_metric = None if candidates == SAMPLED else _own_metric(saved)
    objective = objective_of(metric or own_metric, [saved.meta["model"]], at)
    protocol = _protocol_of(saved, dataset).asked(filter_seen, ties)
    protocol = replace(protocol, candidates=candidates)
    note(f"judged with {protocol.words()}")
    if caution := protocol.caution(events, saved.n_items):
        note(f"warning: {caution}")
    floor: dict[str, dict[str, float]] | None = None
    judged = View(view.name, dataset, dataset.split(trained), view.test)
    if candidates == SAMPLED:
        note("a legacy evaluation: its numbers can't be compared with those of all items")
        found, floor = _among_sampled(saved, events, at, also, objective, protocol)
    else:
        found = _judged(saved, events, at, also, objective, protocol)
    _check_known(found, directory, str(data))
    if own and floor is None:
        rules = protocol.ties, protocol.filter_seen
        asked = at, *rules, also, objective, saved.meta["params"]
        floor = floors_of([saved.meta["model"]], judged, *asked)
    return RunResult(
        model=saved.meta["model"],
        metrics=found.metrics,
        targets=found.targets,
        unknown=found.unknown,
        seconds=time.perf_counter() - began,
        events_per_second=found.targets / found.seconds,
        params=saved.meta["params"],
        fingerprint=dataset.fingerprint,
        seed=saved.meta["seed"],
        split=name,
        ties=protocol.ties,
        candidates=protocol.candidates,
        filter_seen=protocol.filter_seen,
        threads=torch.get_num_threads(),
        device=str(saved.model.device),
        epochs=saved.meta["epoch"],
        floor=floor,
        cold=cold_targets(saved.model, judged, protocol, at) if cold_items else None,
        trained_on=saved.meta["split"],
        extra=_told(saved),
        **standing(found, objective),
    )


def evaluate_files(
    directory: Path,
    files: Sequence[Path],
    options: Options,
    *,
    device: str = "cpu",
    threads: int | None = None,
    at: Sequence[int] = (20,),
    also: Sequence[str] = (),
    metric: str | None = None,
    ties: Ties | None = None,
    filter_seen: bool | None = None,
    others: Sequence[Path] = (),
    note: Callable[[str], None] = lambda message: None,
) -> list[RunResult]:
    """Test a saved model, or several as one, on files that are test sets as they are.

    There is an outcome for each file.

    They are read as the log that the model was trained on, but for what ``options`` say. Every
    event after a session's first is predicted, or the last one only if the model is of data that
    were split leave-one-out.

    Raises:
        ParoptError: whatever of it cannot be done.
    """
    _check_also(also)
    if threads is not None:
        torch.set_num_threads(threads)
    saved = load_models([directory, *others], device)
    note_ensemble(len(others), note)
    objective = objective_of(metric or _own_metric(saved), [saved.meta["model"]], at)
    usual = EvaluationProtocol.of_data(str(saved.meta.get("protocol")))
    stored = EvaluationProtocol.from_json({**usual.to_json(), **saved.meta})
    protocol = stored.asked(filter_seen, ties)
    last = saved.meta.get("protocol") == "leave-one-out"
    what = "the last event of each session" if last else "every event after a session's first"
    note(f"judged with {protocol.words()}; {what} is predicted")
    outcomes = []
    for path in files:
        began = time.perf_counter()
        events = _file_events(path, saved, directory, options, last, note)
        if caution := protocol.caution(events, saved.n_items):
            note(f"warning: {caution}")
        found = _judged(saved, events, at, also, objective, protocol)
        _check_known(found, directory, str(path))
        seconds = time.perf_counter() - began
        outcomes.append(_outcome(saved, found, protocol, objective, seconds))
    return outcomes


def _own_metric(saved: SavedModel) -> str | None:
    """What it was looked for by, where that is something of its own."""
    found = saved.meta.get("metric")
    return None if found in (None, DEFAULT) else str(found)


def _made_anew(saved: SavedModel, dataset: Dataset) -> str:
    needs = saved.model.needs(saved.model.params)
    return made_anew(saved.meta.get("added", {}), dataset.digests(needs.items))


def _check_also(also: Sequence[str]) -> None:
    """Refuse what only a training has."""
    if named := [name for name in also if name in OF_TRAININGS]:
        raise ParamError(f"--also {named[0]}: it is of a training, and nothing is trained here")


def _file_events(
    path: Path,
    saved: SavedModel,
    directory: Path,
    options: Options,
    last: bool,
    note: Callable[[str], None],
) -> Events:
    knowledge = saved.knowledge
    user_key = options.user_key or knowledge.user_key
    further = [*knowledge.sources.values(), *([user_key] if user_key else [])]
    asked = read_asked(path, options, saved.meta.get("log"), further)
    events, notes = file_events(asked, saved, options.user_key)
    for line in notes:
        note(line)
    if last:
        targets = np.zeros(len(events.items), bool)
        targets[events.offsets[1:][np.diff(events.offsets) > 0] - 1] = True
        events = replace(events, targets=targets)
    if seen := seen_by_then(saved.meta, directory, events, asked.timed):
        note(f"warning: {seen}")
    return events


def _told(saved: SavedModel) -> dict[str, Any]:
    """What the model is told of each target itself."""
    given = saved.knowledge.needs.given
    return {"given": given} if given else {}


def _outcome(
    saved: SavedModel,
    found: Evaluation,
    protocol: EvaluationProtocol,
    objective: Objective,
    seconds: float,
) -> RunResult:
    """Of a file, which has no training split that floors could come from."""
    return RunResult(
        model=saved.meta["model"],
        metrics=found.metrics,
        targets=found.targets,
        unknown=found.unknown,
        seconds=seconds,
        events_per_second=found.targets / found.seconds,
        params=saved.meta["params"],
        fingerprint=saved.meta["fingerprint"],
        seed=saved.meta["seed"],
        split="file",
        ties=protocol.ties,
        filter_seen=protocol.filter_seen,
        threads=torch.get_num_threads(),
        device=str(saved.model.device),
        epochs=saved.meta["epoch"],
        floor=None,
        extra=_told(saved),
        **standing(found, objective),
    )


def note_ensemble(others: int, note: Callable[[str], None]) -> None:
    """Say that it is more than one model."""
    if others:
        note(f"the mean of {others + 1} models' standardised scores")


def _protocol_of(saved: SavedModel, dataset: Dataset) -> EvaluationProtocol:
    """How a saved model was judged; those of paropt 0.1 say their tie rule only."""
    usual = EvaluationProtocol.of_data(dataset.protocol)
    return EvaluationProtocol.from_json({**usual.to_json(), **saved.meta})


def _judged(
    saved: SavedModel,
    events: EventArrays,
    at: Sequence[int],
    also: Sequence[str],
    objective: Objective,
    protocol: EvaluationProtocol,
) -> Evaluation:
    return evaluate(
        saved.model,
        events,
        saved.n_items,
        at=at,
        also=also,
        objective=objective,
        ties=protocol.ties,
        filter_seen=protocol.filter_seen,
    )


def _among_sampled(
    saved: SavedModel,
    events: EventArrays,
    at: Sequence[int],
    also: Sequence[str],
    objective: Objective,
    protocol: EvaluationProtocol,
) -> tuple[Evaluation, dict[str, dict[str, float]]]:
    return evaluate_sampled(
        saved.model,
        events,
        saved.n_items,
        at=at,
        also=also,
        objective=objective,
        ties=protocol.ties,
        filter_seen=protocol.filter_seen,
    )


def _check_known(found: Evaluation, directory: Path, where: str) -> None:
    """Raises :class:`DataError` where nearly all targets are unknown to the model."""
    every = found.targets + found.unknown
    if found.targets < LEAST_KNOWN * every:
        raise DataError(
            f"{directory} knows the items of {found.targets:,} of {every:,} targets in {where}, "
            "which is another shop's data or much later; train a model on data like these"
        )
