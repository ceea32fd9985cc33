"""A training of several stages: which one runs, how far it is, and the best weights so far.

A stage trains some of the parameters for some epochs and hands its best weights to the next. What
a training ends with are the best weights of all its stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from paropt.errors import ModelError
from paropt.training.evaluation.objective import Objective
from paropt.training.fitting.weights import everything, load_everything
from paropt.training.registry import Model, Stage

Weights = dict[str, Tensor]


class Stages:
    """Where a training of several stages stands.

    ``epochs`` ends it early: after so many in all, or after so many of each stage by name, which
    then need no patience. ``patient``: whether every epoch is judged, so that patience can count
    and there are best weights to hand over; else each stage hands over its last.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        objective: Objective,
        epochs: int | Mapping[str, int] | None,
        patient: bool,
    ) -> None:
        self.objective = objective
        self.patient = patient and not isinstance(epochs, Mapping)
        lengths = _lengths(stages, epochs)
        self.stages = [stage for stage in stages if lengths[stage.name]]
        self.limits = [lengths[stage.name] for stage in self.stages]
        self.index = self.epoch = 0  # the stage, and the epoch of it that was begun last
        self.best: float | None = None  # of this stage
        self.best_epoch = 0
        self.weights: Weights = {}  # in that epoch
        self.top: float | None = None  # of all stages
        self.top_weights: Weights = {}

    @property
    def total(self) -> int:
        """The most epochs that there can be."""
        return sum(self.limits)

    @property
    def stage(self) -> Stage:
        """The one that runs."""
        return self.stages[self.index]

    @property
    def limit(self) -> int:
        """The most epochs of this stage."""
        return self.limits[self.index]

    @property
    def over(self) -> bool:
        """Whether this stage is over, once its epoch was closed."""
        tired = 0 < self.stage.patience <= self.epoch - self.best_epoch
        return self.epoch >= self.limit or (self.patient and tired)

    @property
    def finished(self) -> bool:
        """Whether nothing comes after this stage, and it is over."""
        return self.over and self.index == len(self.stages) - 1

    def begin_epoch(self, model: Model) -> None:
        """The next epoch; of the next stage, from this one's best weights, if this one is over."""
        if self.epoch and self.over:
            if self.weights:
                load_everything(model, self.weights)
            self.index, self.epoch = self.index + 1, 0
            self.best, self.best_epoch, self.weights = None, 0, {}
        self.epoch += 1

    def remember(self, value: float | None, model: Model) -> None:
        """Take note of what the model is worth now."""
        if value is None:
            return
        if self.best is None or self.objective.better(value, self.best):
            self.best, self.best_epoch, self.weights = value, self.epoch, _copied(model)
            if self.top is None or self.objective.better(value, self.top):
                self.top, self.top_weights = value, self.weights

    def enter(self, model: Model) -> None:
        """Let only the parameters of this stage be trained.

        Raises:
            ModelError: the stage names parameters that there are not.
        """
        wanted = self.stage.trains
        used = set()
        for name, parameter in model.named_parameters():
            parts = [part for part in wanted if name == part or name.startswith(f"{part}.")]
            used |= set(parts)
            left = any(name == part or name.startswith(f"{part}.") for part in self.stage.leaves)
            parameter.requires_grad_((not wanted or bool(parts)) and not left)
        if unused := [part for part in wanted if part not in used]:
            raise ModelError(
                f"{type(model).__name__}: stage {self.stage.name!r} trains {unused[0]!r}, which "
                "names none of its parameters"
            )
        model.stage = self.stage.name

    def params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The optimiser's parameters in this stage."""
        said = {key: getattr(self.stage, key) for key in ("learning_rate", "schedule", "warmup")}
        return {**params, **{key: value for key, value in said.items() if value is not None}}

    # -- checkpoints ------------------------------------------------------------------------

    def header(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        names = ("index", "epoch", "best", "best_epoch", "top")
        return {name: getattr(self, name) for name in names}

    def tensors(self) -> Weights:
        """The weights that a checkpoint keeps."""
        found = {f"best/{name}": value for name, value in self.weights.items()}
        if self.top_weights is not self.weights:
            found |= {f"top/{name}": value for name, value in self.top_weights.items()}
        return found

    def restore(self, header: Mapping[str, Any], best: Weights, top: Weights) -> None:
        """The reverse of :meth:`header` and :meth:`tensors`."""
        for name in self.header():
            setattr(self, name, header[name])
        self.weights = best
        self.top_weights = top or best


def _lengths(stages: Sequence[Stage], epochs: int | Mapping[str, int] | None) -> dict[str, int]:
    """How many epochs each stage has at most, by name."""
    if isinstance(epochs, Mapping):
        return {stage.name: int(epochs.get(stage.name, 0)) for stage in stages}
    left = sum(stage.epochs for stage in stages) if epochs is None else epochs
    found = {}
    for stage in stages:
        found[stage.name] = min(stage.epochs, left)
        left -= found[stage.name]
    return found


def _copied(model: Model) -> Weights:
    return {name: value.detach().cpu().clone() for name, value in everything(model).items()}
