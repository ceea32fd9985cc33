"""The training loop: epochs of ranges of steps, with a place to stop, save and report in between.

::

    fit = Fit("gru4rec", params, dataset.view("search"), seed=42)
    for epoch in fit.epochs():
        print(epoch.epoch, epoch.metrics)

A *range* is a number of steps that takes a fraction of a second. Between two of them the fit looks
whether it should stop, and may be saved. Where ranges begin and end changes no number, and neither
does what else happens in the process: a fit has a random stream of its own.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from paropt.errors import CheckpointError, Diverged
from paropt.training.batches import plans
from paropt.training.batches.catalogue import catalogue
from paropt.training.evaluation.choose_objective import objective_of
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import EvaluationProtocol, Ties
from paropt.training.evaluation.ranking import measures
from paropt.training.evaluation.ranking.judging import ROWS, Evaluation, judge
from paropt.training.fitting import checksummed_file, runtime
from paropt.training.fitting.earlier import Beginning, Carried, Earlier
from paropt.training.fitting.memory import facts_of
from paropt.training.fitting.optimisers import Optimiser
from paropt.training.fitting.stages import Stages
from paropt.training.fitting.steps import CountingSteps, LossSteps, OwnSteps, Plans, Steps
from paropt.training.fitting.weights import load_everything, load_weights
from paropt.training.metrics import CUTOFF, DEFAULT, is_measure
from paropt.training.registry import (
    SessionParallelPlan,
    TrainingEvents,
    build,
    counts,
    declaration,
    epochs_of,
    stages_of,
)
from paropt.training.semantics import SEMANTICS

if TYPE_CHECKING:
    from paropt.data.dataset import View

CHECKPOINT_VERSION = 1
RANGE_SECONDS = 0.3  # of work between two looks at stop()
# what paropt 0.1 counted its best epoch by, and judged with, without saying so in a checkpoint
_UNSAID = {"metric": DEFAULT, "evaluation": EvaluationProtocol().to_json(), "added": {}}
OnProgress = Callable[[int, int, int, float], None]


class Fit:
    """One training of one configuration, on the train split of a view, judged on its other split.

    ``epochs`` ends it earlier or later than its parameter ``n_epochs`` says, without touching the
    learning rate's schedule; of a model with stages, earlier than these do, or by the epochs of
    each. ``evaluate`` is after every epoch (True), after the last one only
    ("last"), or never; an epoch without an evaluation has no metrics, and patience needs them all.
    ``objective`` says which epoch is the best, which patience counts from; ``also`` names metrics
    beside recall, mrr and ndcg at the cut-offs ``at``, and measures of the model. It begins with
    the weights of ``earlier``, and :attr:`carried` says of how many items these are.

    Raises:
        ParamError, ModelError: what cannot be built, or cannot begin with that model.
        DataError: the data lack what the model reads.
        TrainingError: a split without a session of two events, or a device that is not there.
        OutOfMemory: the device is too small for the model.
    """

    def __init__(
        self,
        model: str,
        params: Mapping[str, Any],
        view: View,
        *,
        seed: int,
        device: str = "cpu",
        epochs: int | Mapping[str, int] | None = None,
        at: Sequence[int] = (20,),
        also: Sequence[str] = (),
        objective: Objective | None = None,
        ties: Ties = "standard",
        filter_seen: bool = False,
        evaluate: bool | Literal["last"] = True,
        earlier: Earlier | None = None,
    ) -> None:
        self.name, self.view, self.seed = model, view, seed
        self.at, self.evaluate = tuple(at), evaluate
        self.also = tuple(name for name in also if not is_measure(name))
        self._measured = tuple(filter(is_measure, also))
        self.objective = objective or objective_of(None, [model], self.at or (CUTOFF,))
        self.protocol = EvaluationProtocol(filter_seen, ties)
        self.device = runtime.usable_device(device)
        runtime.forget_peak(self.device)
        self.random = runtime.RandomStream(seed, self.device)
        with self._on_own_ground():
            self.model = build(model, params, catalogue(view), seed).to(self.device)
            self.beginning, self.carried = self._begun(earlier)
            runtime.half_precision(self.model.params.get("precision", "fp32"), self.device)
            self.plans = Plans(model, self.model, view, seed, self.device)
        self.params = self.model.params
        self.sizes = measures.sizes(self.model, self._measured)
        self.latency: float | None = None  # in milliseconds, once it is asked for and measured
        self.counts = counts(model)
        self.stages = self._stages(epochs)
        declared = epochs_of(model, self.params)
        self.n_epochs = self.stages.total if self.stages else declared
        if isinstance(epochs, int) and not self.stages and not self.counts:
            self.n_epochs = epochs
        # epoch 7 of 10 is the same in a training that ends there: its schedule is that of all 10
        self.horizon = max(declared, self.n_epochs) * self.plans.steps_per_epoch
        self.on_progress: OnProgress | None = None

        self.epoch = 0  # the epoch begun last
        self.step = 0  # its next step
        self.closed = True  # whether it has been judged
        self.stage = ""
        self.losses: list[Tensor] = []  # of its ranges so far
        self.train_seconds = 0.0
        self.best: float | None = None  # the objective's value in its best epoch so far
        self.best_epoch = 0
        self.best_report: EpochReport | None = None  # since this fit was made or resumed
        self.optimiser: Optimiser | None = None
        self._stop = threading.Event()
        self.judged: Evaluation | None = None  # the last evaluation
        self._queries: plans.QueryBatches | None = None
        self._range = 1

    def _begun(self, earlier: Earlier | None) -> tuple[Beginning | None, Carried | None]:
        if earlier is None:
            return None, None
        ids = self.view.dataset.item_ids()[: self.view.n_items].tolist()
        beginning = Beginning(earlier, self.model, ids)
        return beginning, beginning.weights(self.model.catalogue)

    def _stages(self, epochs: int | Mapping[str, int] | None) -> Stages | None:
        stages = stages_of(self.name, self.params)
        if not stages:
            return None
        return Stages(stages, self.objective, epochs, self.evaluate is True)

    # -- the loop ---------------------------------------------------------------------------

    def epochs(self) -> Iterator[EpochReport]:
        """Train, rank, yield after every epoch, until the last one, :meth:`stop` or patience.

        Raises:
            Diverged: a loss or a score is not finite.
            OutOfMemory: the device is too small.
        """
        while not self.stopped and not self.finished:
            with self._on_own_ground():
                if self.closed:
                    self._begin(self.epoch + 1)
                epoch = self._close() if self._train() else None
            if epoch is not None:
                yield epoch

    def stop(self) -> None:
        """End :meth:`epochs` at the next range of steps; from any thread."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    @property
    def finished(self) -> bool:
        """Whether the last epoch is over, or ``patience`` epochs brought nothing better."""
        if self.stages:
            return self.closed and self.epoch > 0 and self.stages.finished
        patience = int(self.params.get("patience", 0)) if self.evaluate is True else 0
        tired = 0 < patience <= self.epoch - self.best_epoch
        return self.closed and (tired or self.epoch >= self.n_epochs)

    @property
    def learning_rate(self) -> float | None:
        """That of the last step; None where the model has no such parameter."""
        if self.optimiser is not None:
            return float(self.optimiser.adamw.param_groups[0]["lr"])
        rate = self.params.get("learning_rate")
        return None if rate is None else float(rate)

    def _begin(self, epoch: int) -> None:
        if self.stages:
            self.stages.begin_epoch(self.model)
        self._enter(epoch)
        self.epoch, self.step, self.closed = epoch, 0, False
        self.losses, self.train_seconds = [], 0.0

    def _enter(self, epoch: int) -> None:
        """A new stage trains other parameters, so it has a new optimiser."""
        params, horizon = self.params, self.horizon
        if self.stages:
            self.stages.enter(self.model)
            params = self.stages.params(params)
            horizon = self.stages.stage.epochs * self.plans.steps_per_epoch
        said = self.model.begin_epoch(epoch)
        stage = self.stages.stage.name if self.stages else said
        own = hasattr(self.model, "run_steps")
        if stage != self.stage and not own and not self.counts:
            self.optimiser = Optimiser(self.model, params, horizon)
        if self.beginning is not None and epoch == 1:
            self.beginning.optimiser(self.optimiser)
        self.stage = stage

    def _train(self) -> bool:
        """The epoch's remaining steps; False if stopped meanwhile."""
        steps = self._steps = self._make_steps()
        total = len(steps.weights)
        done = sum(steps.weights[: self.step])
        self.model.train()
        while self.step < total:
            if self.stopped:
                return False
            end = min(total, self.step + self._range)
            began = time.perf_counter()
            losses = steps.run(self.step, end)
            self._check(losses)  # waits for the device
            took = time.perf_counter() - began
            self._range = self._next_range(end - self.step, took)
            done += sum(steps.weights[self.step : end])
            self.losses.append(losses)
            self.step, self.train_seconds = end, self.train_seconds + took
            if self.on_progress is not None:
                self.on_progress(self.epoch, end, total, done / self.train_seconds)
        return not self.stopped

    def _next_range(self, steps: int, took: float) -> int:
        """How many steps the next range has; at most double, since the first steps are slow."""
        wanted = int(steps * RANGE_SECONDS / max(took, 1e-6))
        return max(1, min(wanted, 2 * self._range))

    def _make_steps(self) -> Steps:
        plan = self.plans.epoch(self.epoch)
        if isinstance(plan, TrainingEvents):
            return CountingSteps(self.model, plan)
        if self.optimiser is None or isinstance(plan, SessionParallelPlan):
            return OwnSteps(self.model, plan)
        done = (self.stages.epoch if self.stages else self.epoch) - 1
        first = done * self.plans.steps_per_epoch
        return LossSteps(self.model, plan, self.optimiser, first)

    def _check(self, losses: Tensor) -> None:
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            at = int((~finite).nonzero()[0])
            raise Diverged(
                f"the loss became {float(losses[at])} in epoch {self.epoch} at step "
                f"{self.step + at + 1}; lower the learning rate"
            )

    def _close(self) -> EpochReport:
        extra = self.model.end_epoch(self.epoch)
        if (memory := facts_of(self.model)) is not None:
            extra = {**extra, "memory": memory.to_json()}
        if given := self.model.needs(self.params).given:
            extra = {**extra, "given": given}
        judged = self.judged = self._judge()
        losses = torch.cat(self.losses).double().cpu()
        weights = torch.tensor(self._steps.weights, dtype=torch.float64)
        self.closed = True
        report = EpochReport(
            epoch=self.epoch,
            metrics={**judged.metrics, **self._costs()} if judged.metrics else {},
            loss=None if self.counts else float((losses * weights).sum() / weights.sum()),
            seconds=self.train_seconds + judged.seconds,
            train_seconds=self.train_seconds,
            evaluation_seconds=judged.seconds,
            events_per_second=float(weights.sum()) / max(self.train_seconds, 1e-9),
            peak_memory=runtime.peak_memory(self.device),
            stage=self.stage,
            stage_epoch=self.stages.epoch if self.stages else None,
            stage_epochs=self.stages.limit if self.stages else None,
            targets=judged.targets,
            unknown=judged.unknown,
            sessions=judged.n_sessions,
            tied=judged.tied,
            conservative=judged.conservative,
            stderr=judged.stderr,
            extra=extra,
        )
        self._remember(report)
        return report

    def _costs(self) -> dict[str, float]:
        """The measures of the model that are asked for; its weights do not change them."""
        if self.counts:  # it is as large as what it has counted
            self.sizes = measures.sizes(self.model, self._measured)
        asked = "latency_ms" in self._measured
        if asked and self.latency is None and self._queries is not None:
            with runtime.RandomStream(self.seed, self.device).drawn():
                self.latency = measures.latency_ms(self.model, self._queries)
        return self.sizes if self.latency is None else {**self.sizes, "latency_ms": self.latency}

    def _judge(self) -> Evaluation:
        waits = self.evaluate == "last" and self.epoch < self.n_epochs
        if waits or not self.evaluate:
            return Evaluation({}, 0, 0, 0.0, np.zeros(0), np.zeros(0, dtype=np.int64))
        if self._queries is None:
            self._queries = plans.evaluation(
                self.view.test,
                self.view.n_items,
                self.model.max_length,
                ROWS,
                self.device,
                self.model.needs(self.params),
            )
        try:
            return judge(
                self.model,
                self._queries,
                at=self.at,
                also=self.also,
                objective=self.objective,
                ties=self.protocol.ties,
                filter_seen=self.protocol.filter_seen,
            )
        except Diverged as error:
            raise Diverged(f"after epoch {self.epoch} {error}") from None

    def _remember(self, report: EpochReport) -> None:
        """The best epoch so far; of a model that reports other metrics, by its first one."""
        value = self.objective.value(report)
        if value is None:
            value = next(iter(report.metrics.values()), None)
        if value is not None and (self.best is None or self.objective.better(value, self.best)):
            self.best, self.best_epoch, self.best_report = value, self.epoch, report
        if self.stages:
            self.stages.remember(value, self.model)
            if self.stages.finished and self.stages.top_weights:
                load_everything(self.model, self.stages.top_weights)

    @contextmanager
    def _on_own_ground(self) -> Iterator[None]:
        with (
            runtime.memory_errors(self.device),
            runtime.deterministic(self.device),
            self.random.drawn(),
        ):
            yield

    # -- checkpoints ------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree on for its numbers to be this training's."""
        identity = {
            "checkpoint": CHECKPOINT_VERSION,
            "semantics": SEMANTICS,
            "model": self.name,
            "params": self.params,
            "seed": self.seed,
            "view": self.view.name,
            "fingerprint": self.view.fingerprint,
            "added": self.view.dataset.digests(self.model.needs(self.params).items),
            "metric": self.objective.metric,
            "evaluation": self.protocol.to_json(),
            "earlier": self.beginning.earlier.digest if self.beginning else None,
        }
        plain: dict[str, Any] = json.loads(json.dumps(identity))
        return plain

    def _defaults(self) -> dict[str, Any]:
        declared = declaration(self.name).values()
        plain: dict[str, Any] = json.loads(json.dumps({p.name: p.default for p in declared}))
        return plain

    def gathered(self) -> dict[str, Tensor]:
        """What the optimiser knows of each weight, by "weight/accumulator"."""
        return self.optimiser.state() if self.optimiser else self.model.optimiser_state()

    def save(self, path: str | Path) -> None:
        """Write a checkpoint, atomically; between two ranges, so also in the middle of an epoch.

        Raises:
            OSError: it cannot be written; a file that was there is as it was.
        """
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"memory/{name}": value for name, value in self.model.memory().items()}
        tensors |= {f"random/{name}": value for name, value in self.random.state.items()}
        if self.optimiser is not None:
            tensors |= {f"adamw/{name}": value for name, value in self.optimiser.state().items()}
        if self.stages:
            tensors |= {f"stages/{name}": value for name, value in self.stages.tensors().items()}
        if self.losses:
            tensors["losses"] = torch.cat(self.losses)
        state = dict(self.model.training_state())
        for name in [name for name, value in state.items() if isinstance(value, Tensor)]:
            tensors[f"state/{name}"] = state.pop(name)
        header = self.identity() | {
            "epoch": self.epoch,
            "step": self.step,
            "closed": self.closed,
            "stage": self.stage,
            "train_seconds": self.train_seconds,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "state": state,
        }
        if self.stages:
            header["stages"] = self.stages.header()
        checksummed_file.write(Path(path), header, tensors)

    def resume(self, path: str | Path) -> int | None:
        """Go on from a checkpoint, before :meth:`epochs`; None if there is no such file.

        Returns how many epochs were complete; :attr:`step` says how far the next one had come.

        Raises:
            CheckpointError: it is damaged, or of another training; begin with a new fit then.
        """
        path = Path(path)
        try:
            header, tensors = checksummed_file.read(path)
        except FileNotFoundError:
            return None
        except (checksummed_file.Unchecked, OSError) as error:
            raise CheckpointError(f"checkpoint {path} cannot be used: {error}") from None
        for name, mine in self.identity().items():
            theirs = header.get(name, _UNSAID.get(name))
            if name == "params" and isinstance(theirs, dict):
                theirs = self._defaults() | theirs  # of parameters that came after the checkpoint
            if theirs != mine:
                raise CheckpointError(
                    f"checkpoint {path} is of another training: its {name} is {theirs}, not {mine}"
                )
        try:
            with self._on_own_ground():
                self._restore(header, tensors)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            why = str(error).splitlines()[0]
            raise CheckpointError(
                f"checkpoint {path} does not fit the model {self.name!r} as it is now: {why}"
            ) from error
        return self.epoch if self.closed else self.epoch - 1

    def _restore(self, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """In the order in which things come about, as begin_epoch decides what is trained."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.epoch, self.step, self.closed = header["epoch"], header["step"], header["closed"]
        if self.stages:
            best, top = under("stages/best/"), under("stages/top/")
            self.stages.restore(header["stages"], best, top)
        if self.epoch:
            self._enter(self.epoch)
        load_weights(self.model, under("model/"))
        if self.model.MEMORY:
            memory = under("memory/").items()
            self.model.load_memory({name: value.to(self.device) for name, value in memory})
        if self.optimiser is not None:
            self.optimiser.load(under("adamw/"))
        state = {name: value.to(self.device) for name, value in under("state/").items()}
        self.model.load_training_state(header["state"] | state)
        self.losses = [tensors["losses"].to(self.device)] if "losses" in tensors else []
        self.train_seconds = header["train_seconds"]
        self.best_epoch = header["best_epoch"]
        self.best = header["best"]
        self.random.state = under("random/")
