"""The steps of an epoch: a model's own, or ours over its loss. Both run in ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor

from paropt.errors import ModelError, TrainingError
from paropt.training.batches import plans
from paropt.training.batches.items import ItemBatches, TrainingItems
from paropt.training.fitting.optimisers import Optimiser
from paropt.training.registry import (
    Model,
    SequenceBatch,
    SessionParallelPlan,
    TrainingEvents,
)

if TYPE_CHECKING:
    from paropt.data.dataset import View

Plan = SessionParallelPlan | plans.SequenceBatches | TrainingEvents | ItemBatches


class Steps(Protocol):
    """``weights`` are the targets of each step."""

    weights: list[int]

    def run(self, begin: int, end: int) -> Tensor:
        """Train on steps begin…end−1; their losses, on the device."""


class OwnSteps:
    """Those of a model with ``run_steps``."""

    def __init__(
        self, model: Model, plan: SessionParallelPlan | plans.SequenceBatches | ItemBatches
    ) -> None:
        self.model, self.plan = model, plan
        self.weights = plan.n_valid if isinstance(plan, SessionParallelPlan) else plan.n_targets

    def run(self, begin: int, end: int) -> Tensor:
        losses: Tensor = cast(Any, self.model).run_steps(self.plan, begin, end)
        return losses.detach()


class LossSteps:
    """Differentiate the loss of a batch, clip, step the optimiser, tell the model."""

    def __init__(
        self,
        model: Model,
        batches: plans.SequenceBatches | ItemBatches,
        optimiser: Optimiser,
        first: int,
    ) -> None:
        """``first``: how many steps the epochs before had."""
        self.model, self.batches, self.optimiser, self.first = model, batches, optimiser, first
        self.weights = batches.n_targets
        self.half = model.params.get("precision") == "bf16"

    def run(self, begin: int, end: int) -> Tensor:
        losses = []
        for step in range(begin, end):
            loss = self._loss(self.batches[step])
            self.optimiser.step(self.first + step, loss)
            self.model.after_step()
            losses.append(loss.detach())
        return torch.stack(losses).float()

    def _loss(self, batch: SequenceBatch | Tensor) -> Tensor:
        items = batch if isinstance(batch, Tensor) else batch.items
        # weights, their gradients and the optimiser's state stay float32
        with torch.autocast(items.device.type, torch.bfloat16, enabled=self.half):
            if isinstance(batch, Tensor):
                return self.model.item_loss(batch)
            return self.model.loss(batch)


class CountingSteps:
    """The one pass of a model that counts. It has no loss; what stands for it is never shown."""

    def __init__(self, model: Model, events: TrainingEvents) -> None:
        self.model, self.events = model, events
        self.weights = [len(events.items)]

    def run(self, begin: int, end: int) -> Tensor:
        with torch.no_grad():
            self.model.count(self.events)
        return torch.zeros(end - begin, device=self.events.items.device)


class Plans:
    """Makes the plan of each epoch of one training, keeping on the device what they share."""

    def __init__(self, name: str, model: Model, view: View, seed: int, device: torch.device):
        self.model, self.own = model, hasattr(model, "run_steps")
        batch_size = int(model.params.get("batch_size", 128))
        needs = model.needs(model.params)
        self.schedule: SessionParallelPlan | None = None
        self.training: plans.TrainingSequences | None = None
        self.whole: TrainingEvents | None = None
        self.items: TrainingItems | None = None
        if model.PLAN == "counting":
            self.whole = plans.training_events(view.train, view.n_items, device, needs)
            steps = int(bool((self.whole.offsets.diff() > 1).any()))
        elif model.PLAN == "items":
            self.items = TrainingItems(model.training_items(), batch_size, seed, device)
            steps = self.items.n_batches
        elif model.PLAN == "session-parallel":
            if not self.own:
                raise ModelError(f"{name} has no run_steps(), which its plan needs")
            plan = plans.session_parallel(
                view.train, view.n_items, batch_size, model.min_rows, needs
            )
            self.schedule = plans.on_device(plan, device)
            steps = plan.steps
        else:
            self.training = plans.TrainingSequences(
                view.train, view.n_items, model.max_length, batch_size, seed, device, needs
            )
            steps = self.training.n_batches
        if steps == 0:
            lacking = f"no session of split {view.train.name!r} has two events"
            if self.items is not None:
                lacking = "no item has what the model reads"
            raise TrainingError(f"nothing to train on: {lacking}")
        self.steps_per_epoch = steps

    def epoch(self, epoch: int) -> Plan:
        """The plan of epoch ``epoch`` (from 1)."""
        if self.whole is not None:
            return self.whole
        if self.schedule is not None:
            return self.schedule
        if self.items is not None:
            return self.items.epoch(epoch)
        assert self.training is not None
        return self.training.epoch(epoch)
