"""One training: from a request to numbers beside their floors, and a saved model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paropt.data.dataset import Dataset, View, open_dataset
from paropt.errors import ParamError
from paropt.training.batches.catalogue import catalogue, facts
from paropt.training.evaluation.baselines.beside import floors_of
from paropt.training.evaluation.choose_objective import objective_of
from paropt.training.evaluation.cold import check_cold, cold_targets
from paropt.training.evaluation.epochs import EpochReport, costs
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import EvaluationProtocol
from paropt.training.fitting.earlier import Earlier
from paropt.training.fitting.fit import Fit, OnProgress
from paropt.training.metrics import picked
from paropt.training.registry import complete_params, model_class, stages_of
from paropt.training.run_result import RunResult, standing
from paropt.training.saved_model.earlier import read_earlier
from paropt.training.saved_model.header import has_seen_valid, made_anew, read_header, seen_by_then
from paropt.training.saved_model.kept_stages import KeptStages
from paropt.training.saved_model.saved import LastEpochs, check_place, judged_as, save_model
from paropt.training.tensorboard import EventFile, of_training, require, where
from paropt.training.train_request import TrainRequest

MIB = 1 << 20


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
    _note_rules(protocol, request, view, note)
    # test chooses no weights to hand over: each stage has the epochs that suited it on valid
    params = complete_params(request.model, request.params)
    stages = KeptStages(save, stages_of(request.model, params)) if save and keep_stages else None
    if most := model_class(request.model).memory_bytes(params, facts(view)):
        note(f"its memory takes {most / MIB:,.3g} MiB at most")
    blind = request.split != "search" and bool(stages_of(request.model, params))
    fit = Fit(
        request.model,
        _patient(request, params, note),
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
        cold=cold_targets(fit.model, view, protocol, request.at) if request.cold_items else None,
        begun_from=_begun_from(request, fit),
        **standing(last, objective),
    )
    if save is not None:
        judged = _as_judged(last, objective, protocol, view, provenance)
        save_model(save, fit, judged, optimiser=save_optimiser)
        if stages is not None:
            stages.write(last)
            note(f"the stages: {', '.join(map(str, stages.saved))}; {stages.results}")
        if kept is not None:
            note(f"the last {len(kept.places)} epochs: {', '.join(map(str, kept.places))}")
    return outcome


def _taken_over(request: TrainRequest) -> tuple[TrainRequest, Earlier | None]:
    """The model that the training begins with, and the request with its parameters."""
    if request.begin is None:
        return request, None
    earlier = read_earlier(request.begin, request.keep_optimiser)
    return replace(request, params={**earlier.params, **request.params}), earlier


def _note_rules(
    protocol: EvaluationProtocol, request: TrainRequest, view: View, note: Callable[[str], None]
) -> None:
    note(f"judged with {protocol.words()}{_why(request.filter_seen, view.dataset)}")
    if caution := protocol.caution(view.test, view.n_items):
        note(f"warning: {caution}")


def _note_beginning(
    fit: Fit, request: TrainRequest, provenance: Mapping[str, Any], note: Callable[[str], None]
) -> None:
    view = fit.view
    read = view.dataset.digests(fit.model.needs(fit.params).items)
    if other := made_anew(provenance.get("added", {}), read):
        note(f"warning: {other!r} was made anew since the paramfile's trial: numbers will differ")
    if request.begin is not None and fit.carried is not None:
        note(f"it begins with {request.begin}: {fit.carried.words()}")
        meta = read_header(request.begin).meta
        if request.split == "search" and has_seen_valid(meta, view.fingerprint):
            note("that model was trained on valid, too: what it has there says nothing of others")
        elif seen := seen_by_then(meta, request.begin, view.test, view.dataset.has_times):
            note(f"warning: {seen}")
    elif begun := provenance.get("begun_from"):
        options = "--from and --keep-optimiser do" if "optimiser" in begun else "--from does"
        note(f"the paramfile's trial began with {begun['path']}; {options} so here")


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
    judged = judged_as(report.epoch, report.metrics, objective, protocol, view)
    return {**judged, "paramfile": dict(provenance or {})}


def _events(directory: Path | None, note: Callable[[str], None]) -> EventFile | None:
    if directory is None:
        return None
    require(directory)
    run = of_training(directory)
    note(f"{where(directory)}, as {run.name}")
    return EventFile(run, note)


def _why(asked: bool | None, dataset: Dataset) -> str:
    if asked is not None:
        return ""
    return f" (usual for {dataset.protocol} data; --filter-seen or --no-filter-seen decides)"


def _patient(
    request: TrainRequest, params: Mapping[str, Any], note: Callable[[str], None]
) -> Mapping[str, Any]:
    """The parameters that were asked for; on test without ``patience``, for when to stop is chosen
    by what is judged after each epoch."""
    if request.split == "search" or not params.get("patience"):
        return request.params
    note("test is not to say when to stop: patience is for valid, and all epochs are trained")
    return {**request.params, "patience": 0}
