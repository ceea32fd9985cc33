"""The stages of a training as saved models beside its last one, and what each came to.

::

    DIR-STAGE/            a saved model with a stage's best weights, and memory
    DIR-results.json      what each stage, and the training, came to
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paropt.errors import DataError, ParamError
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.fitting.fit import Fit
from paropt.training.fitting.weights import everything, load_everything
from paropt.training.registry import Stage
from paropt.training.saved_model.saved import check_place, save_model

Judged = Callable[[EpochReport], dict[str, Any]]


class KeptStages:
    """Saves each stage when it is over.

    Raises:
        ParamError: the training has no stages.
        DataError: a place is taken, or cannot be written.
    """

    def __init__(self, directory: Path, stages: tuple[Stage, ...]) -> None:
        if not stages:
            raise ParamError("--keep-stages: this model is not trained in stages")
        self.results = directory.with_name(f"{directory.name}-results.json")
        self.places = {
            stage.name: directory.with_name(f"{directory.name}-{stage.name}")
            for stage in stages
            if stage.epochs
        }
        for place in (*self.places.values(), self.results):
            check_place(place)
        self.reports: dict[str, list[EpochReport]] = {}

    @property
    def saved(self) -> list[Path]:
        """The stages that came to their end: a training may be over before its last one."""
        return [place for place in self.places.values() if place.is_dir()]

    def after(self, fit: Fit, report: EpochReport, judged: Judged) -> None:
        """Take note of an epoch; save its stage, with its best weights, if it was the last."""
        name = report.stage or ""
        self.reports.setdefault(name, []).append(report)
        assert fit.stages is not None
        if not fit.stages.over:
            return
        now = {part: value.clone() for part, value in everything(fit.model).items()}
        try:
            if fit.stages.weights:
                load_everything(fit.model, fit.stages.weights)
            best = self._best(name, fit.stages.best_epoch)
            save_model(self.places[name], fit, {**judged(best), "stage": name})
        finally:
            load_everything(fit.model, now)

    def _best(self, stage: str, epoch: int) -> EpochReport:
        reports = self.reports[stage]
        return next((one for one in reports if one.stage_epoch == epoch), reports[-1])

    def write(self, final: EpochReport) -> None:
        """Write what it all came to.

        Raises:
            DataError: it cannot be written.
        """
        told = {
            "stages": [self._told(name, reports) for name, reports in self.reports.items()],
            "final": {"stage": final.stage, "epoch": final.epoch, "metrics": dict(final.metrics)},
        }
        beside = self.results.with_name(f".{self.results.name}.{os.getpid()}")
        try:
            beside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
            beside.replace(self.results)
        except OSError as error:
            why = error.strerror or error
            raise DataError(f"{self.results} cannot be written: {why}") from None
        finally:
            beside.unlink(missing_ok=True)

    def _told(self, name: str, reports: list[EpochReport]) -> Mapping[str, Any]:
        return {
            "stage": name,
            "model": str(self.places[name]),
            "epochs": [
                {
                    "epoch": one.epoch,
                    "loss": one.loss,
                    "metrics": dict(one.metrics),
                    "seconds": one.seconds,
                    "extra": dict(one.extra),
                }
                for one in reports
            ],
        }
