"""One training or one test: from what the user said to numbers beside their floors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from paropt.data.dataset import VIEWS, Dataset, View, open_dataset
from paropt.data.log.options import Options
from paropt.data.log.sessions_file import read_asked
from paropt.errors import DataError, ParamError
from paropt.training.batches.catalogue import catalogue, facts
from paropt.training.batches.events import EventArrays, Events
from paropt.training.evaluation.baselines import floors_of
from paropt.training.evaluation.choose_objective import objective_of
from paropt.training.evaluation.cold import check_cold, evaluate_cold
from paropt.training.evaluation.epochs import EpochReport, costs
from paropt.training.evaluation.objective import Objective, flattered, interval
from paropt.training.evaluation.protocol import SAMPLED, EvaluationProtocol, Ties
from paropt.training.evaluation.ranking import Evaluation, evaluate
from paropt.training.evaluation.sampled import evaluate_sampled
from paropt.training.fitting.earlier import Earlier
from paropt.training.fitting.fit import Fit
from paropt.training.metrics import DEFAULT, OF_TRAININGS, picked
from paropt.training.registry import Model, complete_params, model_class, stages_of
from paropt.training.saved_model.dataset_events import foreign, is_own, split_events
from paropt.training.saved_model.earlier import read_earlier
from paropt.training.saved_model.ensemble import load_models
from paropt.training.saved_model.kept_stages import KeptStages
from paropt.training.saved_model.recommending import file_events
from paropt.training.saved_model.saved import LastEpochs, SavedModel, check_place, save_model
from paropt.training.semantics import DEFAULT_SEED
from paropt.training.tensorboard import EventFile, of_training, require, where

if TYPE_CHECKING:
    from paropt.training.fitting.fit import OnProgress

MIB = 1 << 20
LEAST_KNOWN = 0.05  # of the targets: a model that knows fewer is tested on other data than its own


@dataclass(frozen=True)
class TrainRequest:
    """What is to be trained, and how it is judged. None: as :func:`train` finds it best.

    ``stages`` are the epochs of each stage, of a model that has some, where nothing may be chosen
    by what the training is tested on. ``begin`` is a saved model of the same kind whose weights it
    begins with, with ``keep_optimiser`` also its optimiser's state; ``params`` then are those that
    differ from its own.
    """

    model: str
    params: Mapping[str, Any]
    split: str = "search"
    seed: int = DEFAULT_SEED
    epochs: int | None = None
    stages: Mapping[str, int] | None = None
    threads: int | None = None
    device: str = "cpu"
    at: tuple[int, ...] = (20,)
    also: tuple[str, ...] = ()
    metric: str | None = None
    ties: Ties | None = None
    filter_seen: bool | None = None
    cold_items: bool = False
    begin: Path | None = None
    keep_optimiser: bool = False


@dataclass(frozen=True)
class RunResult:
    """What ``train --json`` and ``evaluate --json`` print; see docs/json.md.

    ``floor`` is None where the model was trained on other data than it is tested on; ``cold`` are
    the targets that training never saw, where they were asked for; ``begun_from`` the model that
    it began with.
    """

    model: str
    metrics: dict[str, float]
    targets: int
    unknown: int
    seconds: float
    events_per_second: float
    params: dict[str, Any]
    fingerprint: str
    seed: int
    split: str
    ties: str
    filter_seen: bool
    threads: int
    device: str
    epochs: int
    floor: dict[str, dict[str, float]] | None
    best_epoch: int | None = None
    stage: str | None = None
    loss: float | None = None
    saved: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    metric: str = DEFAULT
    interval: tuple[float, float] | None = None
    with_misses: float | None = None
    sessions: int | None = None
    tied: float | None = None
    conservative: dict[str, float] = field(default_factory=dict)
    stderr: dict[str, float] = field(default_factory=dict)
    candidates: str = "all"
    cold: dict[str, Any] | None = None
    begun_from: dict[str, Any] | None = None


UNSAID = ("adapt_params", "[]")  # in GRU4Rec's own lines of parameters: Adagrad has none


def parse_params(text: str) -> dict[str, str]:
    """``k=v,k=v`` as text by name; the model's declaration gives the types.

    Raises:
        ParamError: a part without a name or a value, or a name given twice.
    """
    params: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise ParamError(f"parameters are written k=v,k=v; {part!r} is not")
        if name in params:
            raise ParamError(f"parameter {name!r} is given twice")
        params[name] = value
    return {name: value for name, value in params.items() if (name, value) != UNSAID}


def train(
    request: TrainRequest,
    data: str | Path,
    *,
    save: Path | None = None,
    keep_last: int = 0,
    keep_stages: bool = False,
    save_optimiser: bool = False,
    tensorboard: Path | None = None,
    on_epoch: Callable[[EpochReport, int], None] = lambda epoch, epochs: None,
    on_progress: OnProgress | None = None,
    provenance: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = lambda message: None,
) -> RunResult:
    """Train a configuration to its last epoch, test it and, if asked, save it.

    ``on_epoch`` takes each epoch and how many there will be; ``note`` remarks; ``provenance`` is
    the paramfile's, and kept with the saved model. ``tensorboard`` gets a new folder of events.
    ``keep_last`` epochs are saved beside ``save`` too, and with ``keep_stages`` every stage;
    ``save_optimiser``: with the model what its optimiser has gathered.

    Raises:
        ParoptError: whatever of it cannot be done.
    """
    began = time.perf_counter()
    if save is not None:
        check_place(save)
    kept = LastEpochs(save, keep_last) if save is not None and keep_last else None
    events = _events(tensorboard, note)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    request, earlier = _taken_over(request)
    view = open_dataset(data).view(request.split)
    theirs = str((provenance or {}).get("fingerprint", view.fingerprint))
    if theirs != view.fingerprint:
        note(f"the paramfile is from other data ({theirs[:12]}, not {view.fingerprint[:12]})")
    objective = objective_of(request.metric, [request.model], request.at)
    usual = EvaluationProtocol.of_data(view.dataset.protocol)
    protocol = usual.asked(request.filter_seen, request.ties)
    note(f"judged with {protocol.words()}{_why(request.filter_seen, view.dataset)}")
    # test chooses no weights to hand over: each stage has the epochs that suited it on valid
    params = complete_params(request.model, request.params)
    stages = KeptStages(save, stages_of(request.model, params)) if save and keep_stages else None
    if most := model_class(request.model).memory_bytes(params, facts(view)):
        note(f"its memory takes {most / MIB:,.3g} MiB at most")
    blind = request.split != "search" and bool(stages_of(request.model, params))
    fit = Fit(
        request.model,
        request.params,
        view,
        seed=request.seed,
        device=request.device,
        epochs=request.stages if blind and request.stages else request.epochs,
        evaluate="last" if blind else True,
        at=request.at,
        also=request.also,
        objective=objective,
        ties=protocol.ties,
        filter_seen=protocol.filter_seen,
        earlier=earlier,
    )
    _note_beginning(fit, request, provenance or {}, note)
    if request.cold_items:
        check_cold(fit.model, catalogue(view))
    fit.on_progress = on_progress
    last: EpochReport | None = None
    reports: list[EpochReport] = []
    for last in fit.epochs():
        reports.append(last)
        on_epoch(last, fit.n_epochs)
        if kept is not None:
            kept.save(fit, last.epoch, _as_judged(last, objective, protocol, view, provenance))
        if stages is not None:
            stages.after(fit, last, lambda r: _as_judged(r, objective, protocol, view, provenance))
        if events is not None:
            events.write(last, fit.learning_rate)
    if last is None:
        raise ParamError(f"there is nothing to train in {fit.n_epochs} epochs")
    if fit.stages and fit.best_report:
        last = fit.best_report  # of the weights that the training ended with
    outcome = RunResult(
        model=fit.name,
        metrics=dict(last.metrics) | picked(costs(reports), request.also),
        targets=last.targets or 0,
        unknown=last.unknown or 0,
        seconds=time.perf_counter() - began,
        events_per_second=float(np.mean([r.events_per_second or 0.0 for r in reports])),
        params=fit.params,
        fingerprint=view.fingerprint,
        seed=request.seed,
        split=request.split,
        ties=protocol.ties,
        filter_seen=protocol.filter_seen,
        threads=torch.get_num_threads(),
        device=str(fit.device),
        epochs=last.epoch,
        floor=floors_of(
            [fit.name],
            view,
            request.at,
            protocol.ties,
            protocol.filter_seen,
            request.also,
            objective,
            fit.params,
        ),
        best_epoch=fit.best_epoch,
        stage=last.stage if fit.stages else None,
        loss=last.loss,
        saved=str(save) if save else None,
        extra=dict(last.extra),
        cold=_cold(fit.model, view, protocol, request.at) if request.cold_items else None,
        begun_from=_begun_from(request, fit),
        **_standing(last, objective),
    )
    if save is not None:
        judged = _as_judged(last, objective, protocol, view, provenance)
        save_model(save, fit, judged, optimiser=save_optimiser)
        if stages is not None:
            stages.write(last)
            note(f"the stages: {', '.join(map(str, stages.places.values()))}; {stages.results}")
        if kept is not None:
            note(f"the last {len(kept.places)} epochs: {', '.join(map(str, kept.places))}")
    return outcome


def _taken_over(request: TrainRequest) -> tuple[TrainRequest, Earlier | None]:
    """The model that the training begins with, and the request with its parameters."""
    if request.begin is None:
        return request, None
    earlier = read_earlier(request.begin, request.keep_optimiser)
    return replace(request, params={**earlier.params, **request.params}), earlier


def _note_beginning(
    fit: Fit, request: TrainRequest, provenance: Mapping[str, Any], note: Callable[[str], None]
) -> None:
    if fit.carried is not None:
        note(f"it begins with {request.begin}: {fit.carried.words()}")
    elif begun := provenance.get("begun_from"):
        note(f"the paramfile's trial began with {begun['path']}; --from does so here")


def _begun_from(request: TrainRequest, fit: Fit) -> dict[str, Any] | None:
    if fit.carried is None or fit.beginning is None:
        return None
    digest = fit.beginning.earlier.digest
    return {"model": str(request.begin), "digest": digest, **fit.carried.to_json()}


def _as_judged(
    report: EpochReport,
    objective: Objective,
    protocol: EvaluationProtocol,
    view: View,
    provenance: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What a saved model says of how it was judged."""
    return {
        "epoch": report.epoch,
        "metrics": report.metrics,
        "metric": objective.metric,
        **protocol.to_json(),
        "protocol": view.dataset.protocol,
        "paramfile": dict(provenance or {}),
    }


def _events(directory: Path | None, note: Callable[[str], None]) -> EventFile | None:
    if directory is None:
        return None
    require(directory)
    run = of_training(directory)
    note(f"{where(directory)}, as {run.name}")
    return EventFile(run, note)


def test(
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
    elif (saved.meta["split"], name) == ("full", "search"):
        note(f"{directory} was trained on train_full, which holds the targets of valid: no test")
    objective = objective_of(metric, [saved.meta["model"]], at)
    protocol = _protocol_of(saved, dataset).asked(filter_seen, ties)
    protocol = replace(protocol, candidates=candidates)
    note(f"judged with {protocol.words()}")
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
        cold=_cold(saved.model, judged, protocol, at) if cold_items else None,
        extra=_told(saved),
        **_standing(found, objective),
    )


def _check_also(also: Sequence[str]) -> None:
    """Refuse what only a training has."""
    if named := [name for name in also if name in OF_TRAININGS]:
        raise ParamError(f"--also {named[0]}: it is of a training, and nothing is trained here")


def _cold(
    model: Model, view: View, protocol: EvaluationProtocol, at: Sequence[int]
) -> dict[str, Any]:
    """The view's targets that its training never saw, judged by themselves."""
    split = view.dataset.split(view.test.name, view.train.name)
    return evaluate_cold(model, split, catalogue(view), protocol, at).to_json()


def test_files(
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
    objective = objective_of(metric, [saved.meta["model"]], at)
    usual = EvaluationProtocol.of_data(str(saved.meta.get("protocol")))
    stored = EvaluationProtocol.from_json({**usual.to_json(), **saved.meta})
    protocol = stored.asked(filter_seen, ties)
    last = saved.meta.get("protocol") == "leave-one-out"
    what = "the last event of each session" if last else "every event after a session's first"
    note(f"judged with {protocol.words()}; {what} is predicted")
    outcomes = []
    for path in files:
        began = time.perf_counter()
        events = _file_events(path, saved, options, last, note)
        found = _judged(saved, events, at, also, objective, protocol)
        _check_known(found, directory, str(path))
        seconds = time.perf_counter() - began
        outcomes.append(_outcome(saved, found, protocol, objective, seconds))
    return outcomes


def _file_events(
    path: Path, saved: SavedModel, options: Options, last: bool, note: Callable[[str], None]
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
        **_standing(found, objective),
    )


def note_ensemble(others: int, note: Callable[[str], None]) -> None:
    """Say that it is more than one model."""
    if others:
        note(f"the mean of {others + 1} models' standardised scores")


def _why(asked: bool | None, dataset: Dataset) -> str:
    if asked is not None:
        return ""
    return f" (usual for {dataset.protocol} data; --filter-seen or --no-filter-seen decides)"


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


def _standing(found: EpochReport | Evaluation, objective: Objective) -> dict[str, Any]:
    """What an outcome's numbers stand on."""
    report = found if isinstance(found, EpochReport) else found.report()
    value, error = objective.value(report), report.stderr.get(objective.metric)
    exact = value is not None and error is not None and not flattered(report)
    known = value is not None and report.targets is not None
    return {
        "metric": objective.metric,
        "interval": interval(value or 0.0, error or 0.0) if exact else None,
        "with_misses": objective.with_misses(value or 0.0, report.targets or 0, report.unknown or 0)
        if known
        else None,
        "sessions": report.sessions,
        "tied": report.tied,
        "conservative": dict(report.conservative),
        "stderr": dict(report.stderr),
    }
