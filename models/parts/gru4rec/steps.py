"""GRU4Rec's training steps: forward, backward and update, by hand.

Whatever a step needs beside the model's state is worked out for many steps at once; see
``docs/gru4rec.md``, "How it is fast".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.kernels.library import Kernels, kernels
from models.parts.contract import Catalogue, SessionParallelPlan
from models.parts.gru4rec.activations import Activation
from models.parts.gru4rec.adagrad import DenseAdagrad, RowAdagrad, Rule
from models.parts.gru4rec.cells import GruCell, RowGruCell
from models.parts.gru4rec.cuda_graph import Feed, GraphReplay, order_kept_by_hand
from models.parts.gru4rec.losses import LOSSES, bpr_max_gradient_, softmax_gradient_
from models.parts.gru4rec.matmul import CellContext
from models.parts.gru4rec.negatives import Negatives
from models.parts.gru4rec.seeded_random import DropoutMasks, blocks
from models.parts.gru4rec.table_update import Gathered, InPlace, Sums, add_rows_
from models.parts.gru4rec.unique_rows import Groups, distinct, groups, occurrences
from models.parts.gru4rec.workspace import Workspace

SOFTMAX_OF = {"cross-entropy": "softmax", "xe_logit": "softmax_logit"}
# "auto" is what the official versions take where nothing is said
AUTO_ACT = {"bpr-max": "elu-0.5"}
# values of "accelerate" with which a device repeats a recorded step
GRAPHS = ("graph", "graph-unordered")


class Trained(Protocol):
    """What the steps train: the parts of a GRU4Rec that they read and move.

    ``output`` [n_items, H] and ``bias`` [n_items] score the items; ``embedding`` [n_items, …] is
    read instead of ``output`` unless it is None. ``negatives`` and ``masks`` are drawn for
    ``block`` steps at once.
    """

    params: dict[str, Any]
    catalogue: Catalogue
    cells: nn.ModuleList
    output: nn.Parameter
    bias: nn.Parameter
    embedding: nn.Parameter | None
    negatives: Negatives
    masks: DropoutMasks
    block: int

    def recurrent(self) -> Iterator[GruCell | RowGruCell]:
        """The layers, first to last."""
        ...


@dataclass(frozen=True, slots=True)
class StepRows:
    """What a step with M rows reads.

    ``items`` are the distinct rows of the output table, first the C that are scored, ``scored``
    [C], then, in shared mode, those that are only read. ``own`` [M]: places of the targets among
    them. ``read``: the distinct rows of a separate input table. ``inputs`` [M]: places of the
    inputs in ``read``, or in ``items`` in shared mode. Fast losses have ``weight`` [C], the
    logarithm of the items' summed weight as columns, and ``share`` [M, 1] (see
    :mod:`models.parts.gru4rec.losses`). Plain ones have ``columns`` [M + n_sample], places among
    ``items``, and ``shift``, what logQ adds to each column. ``input_sums`` and ``column_sums``
    group the places of inputs and columns, where they are summed so (:func:`add_groups_`).
    """

    items: Tensor
    scored: Tensor
    own: Tensor
    read: Tensor | None
    inputs: Tensor
    weight: Tensor | None = None
    share: Tensor | None = None
    columns: Tensor | None = None
    shift: Tensor | None = None
    input_sums: Sums | None = None
    column_sums: Sums | None = None


@dataclass(frozen=True, slots=True)
class StepBlock:
    """What :class:`StepRows` has, for several steps with equally many rows.

    ``fields`` are [T, …]. Of each step's ``items`` the first ``scored[t]`` and ``items[t]`` count,
    of its ``read`` the first ``read[t]``.
    """

    fields: dict[str, Tensor]
    scored: list[int]
    items: list[int]
    read: list[int]

    def step(self, t: int) -> StepRows:
        now = {name: field[t] for name, field in self.fields.items()}
        return rows_of(now, self.scored[t], self.items[t], self.read[t] if self.read else 0)

    def __len__(self) -> int:
        return len(self.scored)


def rows_of(now: Mapping[str, Tensor], scored: int, items: int, read: int) -> StepRows:
    """One step's fields, cut to the rows that count."""

    def sums(name: str) -> Sums | None:
        parts = [now.get(f"{name}.{what}") for what in ("order", "places", "bounds")]
        order, places, bounds = parts
        if order is None or places is None or bounds is None:
            return None
        return order, places, bounds

    return StepRows(
        items=now["items"][:items],
        scored=now["items"][:scored],
        own=now["own"],
        read=now["read"][:read] if "read" in now else None,
        inputs=now["inputs"],
        weight=now["weight"][:scored] if "weight" in now else None,
        share=now.get("share"),
        columns=now.get("columns"),
        shift=now.get("shift"),
        input_sums=sums("input_sums"),
        column_sums=sums("column_sums"),
    )


class TrainingSteps:
    """The training steps of one model on one device: optimisers, hidden state, buffers."""

    def __init__(self, model: Trained) -> None:
        self.model = model
        p = self.params = model.params
        self.device, dtype = model.output.device, model.output.dtype
        self.scratch = Workspace(self.device, dtype)
        self.graph = p["accelerate"] in GRAPHS
        native = p["accelerate"] == "auto" and Kernels.take(model.output)
        self.kernels = kernels() if native else None
        rule = Rule(p["learning_rate"], p["momentum"], p["lmbd"], not self.graph, self.kernels)
        self.loss = p["loss"]
        # a fast loss sums equal columns; logQ differs between the two kinds of column, which a
        # softmax can weigh and BPR-max cannot
        self.fast = not p["smoothing"] and (
            self.loss in SOFTMAX_OF or (self.loss == "bpr-max" and not p["logq"])
        )
        # what a cap scales down must be there in full before anything moves
        self.at_once = self.fast and not p["grad_cap"]
        self.dense = DenseAdagrad(model.cells.parameters(), rule, self.at_once)
        self.output = RowAdagrad(model.output, rule, self.scratch, "output")
        self.bias = RowAdagrad(model.bias, rule, self.scratch, "bias")
        self.embedding = (
            None
            if model.embedding is None
            else RowAdagrad(model.embedding, rule, self.scratch, "embedding")
        )
        self.tools = CellContext(self.scratch, self.dense.learn, self.kernels)
        self.items = self._table(self.output)
        self.lookup = None if self.embedding is None else self._table(self.embedding)
        # fixed shapes and no waiting, where waiting for the device would cost
        self.static = self.graph or self.device.type != "cpu"
        self.grouped = p["accelerate"] == "graph"
        self._replay: StepReplay | None = None
        self.cells = list(model.recurrent())
        self.hidden: list[Tensor] = []
        self.done = 0  # steps since the first of the first epoch
        self.act = Activation("linear")
        if self.loss not in SOFTMAX_OF:
            auto = AUTO_ACT.get(self.loss, "linear")
            self.act = Activation.named(auto if p["final_act"] == "auto" else p["final_act"])
        log_support = model.catalogue.support.clamp(min=1).to(self.device, torch.float64).log()
        # a column's score is lowered by logq·log q: q is the support of an item of the batch, and
        # support^sample_alpha of a sampled one; the last entry is for padding
        shift = torch.cat([-p["logq"] * log_support, log_support.new_zeros(1)])
        self.shift_target = shift.to(dtype)
        self.shift_sample = (p["sample_alpha"] * shift).to(dtype)
        self._noise: tuple[int, Tensor, list[Tensor | None]] | None = None

    def _table(self, owner: RowAdagrad) -> Gathered | InPlace:
        if self.kernels is None or not self.at_once or not self.kernels.multiply(owner.weight):
            return Gathered(owner)
        return InPlace(owner, self.kernels)

    @property
    def attached(self) -> bool:
        """Whether the model's parameters still are the ones moved here."""
        return all(owner.attached for owner in self._optimisers().values())

    def _optimisers(self) -> dict[str, DenseAdagrad | RowAdagrad]:
        owners: dict[str, DenseAdagrad | RowAdagrad]
        owners = {"cells": self.dense, "output": self.output, "bias": self.bias}
        return owners if self.embedding is None else {**owners, "embedding": self.embedding}

    # -- state ------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"step": self.done}
        for k, hidden in enumerate(self.hidden):
            state[f"hidden.{k}"] = hidden
        state |= {name.replace("/", "."): tensor for name, tensor in self.accumulators().items()}
        return state

    def accumulators(self) -> dict[str, Tensor]:
        """What the optimisers have gathered of each weight, live."""
        return {
            f"{name}/{what}": tensor
            for name, owner in self._optimisers().items()
            for what, tensor in owner.state().items()
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.done = int(state["step"])
        self._replay = None  # it moves the hidden state that was
        self.hidden = [
            state[f"hidden.{k}"].to(self.scratch.device, self.scratch.dtype, copy=True)
            for k in range(len(self.cells))
            if f"hidden.{k}" in state
        ]
        for name, owner in self._optimisers().items():
            for what, tensor in owner.state().items():
                tensor.copy_(state[f"{name}.{what}"])

    # -- running ----------------------------------------------------------------------------

    def run(self, plan: SessionParallelPlan, begin: int, end: int) -> Tensor:
        if not self.graph:
            return self._run(plan, begin, end)
        with order_kept_by_hand():
            return self._run(plan, begin, end)

    def _run(self, plan: SessionParallelPlan, begin: int, end: int) -> Tensor:
        if begin == 0:
            self._forget(plan.inputs.shape[1])
        losses = self.model.output.new_zeros(end - begin)
        offset = self.done - begin  # from steps of this epoch to steps since the first
        size = self.model.block
        for block, first, last in blocks(begin + offset, end + offset, size):
            samples, masks = self._draw(block)
            for n_valid, run in groupby(range(first, last), lambda g: plan.n_valid[g - offset]):
                steps = list(run)
                a, b = steps[0], steps[-1] + 1
                part = slice(a - offset, b - offset)
                inputs = plan.inputs[part, :n_valid].to(self.device)
                targets = plan.targets[part, :n_valid].to(self.device)
                resets = plan.resets[part, :n_valid, None].to(self.device)
                drawn = slice(a - block * size, b - block * size)
                rows = self._prepare(inputs, targets, samples[drawn])
                dropped = [m if m is None else m[drawn, :n_valid] for m in masks]
                out = losses[a - offset - begin : b - offset - begin]
                if self.graph and n_valid == plan.n_valid[0]:
                    self._play(rows, resets, dropped, plan.batch_size, out)
                else:
                    self._step_by_step(rows, resets, dropped, plan.batch_size, out)
        self.done += end - begin
        return losses

    def _forget(self, slots: int) -> None:
        """All states are zero where an epoch begins; their memory stays."""
        if self.hidden and len(self.hidden[0]) == slots:
            for hidden in self.hidden:
                hidden.zero_()
        else:
            new_zeros = self.model.output.new_zeros
            self.hidden = [new_zeros(slots, cell.size) for cell in self.cells]
            self._replay = None

    def _step_by_step(
        self,
        rows: StepBlock,
        resets: Tensor,
        masks: list[Tensor | None],
        batch_size: int,
        losses: Tensor,
    ) -> None:
        """The steps of ``rows``, each told to the device call by call."""
        for t in range(len(rows)):
            dropped = [m if m is None else m[t] for m in masks]
            losses[t].copy_(self._step(rows.step(t), resets[t], dropped, batch_size))

    def _play(
        self,
        rows: StepBlock,
        resets: Tensor,
        masks: list[Tensor | None],
        batch_size: int,
        losses: Tensor,
    ) -> None:
        """The same by :class:`StepReplay`, recorded anew when the memory it knows has moved."""
        fields = {**rows.fields, "resets": resets}
        fields |= {f"masks.{k}": mask for k, mask in enumerate(masks) if mask is not None}
        if self._replay is None or self._replay.version != self.scratch.version:
            self._replay = StepReplay(self, rows, fields, batch_size)
        self._replay.run(fields, losses)

    def _draw(self, block: int) -> tuple[Tensor, list[Tensor | None]]:
        """The negatives [block, n_sample] and dropout masks [block, B, width] of a block."""
        if self._noise is None or self._noise[0] != block:
            model, dtype = self.model, self.scratch.dtype
            samples = model.negatives.draw(block, model.block, self.device)
            masks = model.masks.draw(block, model.block, self.device, dtype)
            self._noise = block, samples, masks
        return self._noise[1:]

    def _prepare(self, inputs: Tensor, targets: Tensor, samples: Tensor) -> StepBlock:
        """Work out the rows of steps with equally many rows: inputs, targets [T, M]."""
        n, m = samples.shape[1], targets.shape[1]
        static, padding = self.static, self.model.catalogue.n_items
        shared = self.embedding is None
        ids = torch.cat([targets, samples, inputs] if shared else [targets, samples], 1)
        out = distinct(ids, m + n, padding, static)
        own, columns, places = (
            out.position[:, a:b] for a, b in ((0, m), (0, m + n), (m + n, len(ids[0])))
        )
        fields = {"items": out.ids, "own": own}
        read: list[int] = []
        if not shared:
            found = distinct(inputs, m, padding, static)
            fields["read"], places, read = found.ids, found.position, found.used
        fields["inputs"] = places
        if self.fast:
            weight, share = self._weigh(out.ids[:, : m + n], targets, own, columns[:, m:])
            fields |= {"weight": weight, "share": share}
        else:
            shift = torch.cat([self.shift_target[targets], self.shift_sample[samples]], 1)
            fields |= {"columns": columns, "shift": shift}
        if self.grouped:
            fields |= _named("input_sums", groups(places))
            fields |= {} if self.fast else _named("column_sums", groups(columns))
        return StepBlock(fields, out.leading, out.used, read)

    def _weigh(
        self, ids: Tensor, targets: Tensor, own: Tensor, sampled: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``StepRows.weight`` [T, K] and ``share`` [T, M, 1] from ids [T, K] and places.

        What stands beyond the scored ids gets weight 0, which is −∞ here.
        """
        k = ids.shape[1]
        as_target, as_sample = (
            occurrences(places, k).to(self.scratch.dtype) for places in (own, sampled)
        )
        if self.params["logq"]:
            # by logarithms: a power of a large support leaves float32
            weight = torch.logaddexp(
                as_target.log_().add_(self.shift_target[ids]),
                as_sample.log_().add_(self.shift_sample[ids]),
            )
        else:
            weight = as_target.add_(as_sample).log_()
        at_own = weight.gather(1, own)
        if self.loss in SOFTMAX_OF:
            share = self.shift_target[targets] - at_own
        else:
            share = torch.log1p(-torch.exp(-at_own).clamp_(max=1))
        return weight, share.unsqueeze(2)

    # -- one step ---------------------------------------------------------------------------

    def _step(
        self, step: StepRows, resets: Tensor, masks: list[Tensor | None], batch_size: int
    ) -> Tensor:
        """Forward, backward and update; returns the loss, a scalar on the device."""
        m, lookup = len(resets), self._read(step)
        bias = self.bias.gather(step.scored)
        x = lookup.at(step.inputs, self.scratch("x", m, lookup.owner.rest[0]))
        if masks[0] is not None:
            x.mul_(masks[0])
        states = [hidden[:m].masked_fill_(resets, 0) for hidden in self.hidden]
        inputs = [x]
        for k, cell in enumerate(self.cells):
            out = cell.step(inputs[k], states[k], self.tools, f"cell{k}")
            mask = masks[k + 1]
            inputs.append(out if mask is None else out.mul_(mask))
        loss, grad = self._score(step, inputs[-1], bias, batch_size)
        for k in reversed(range(len(self.cells))):
            mask = masks[k + 1]
            if mask is not None:
                grad.mul_(mask)
            grad = self.cells[k].backward(grad, inputs[k], states[k], self.tools, f"cell{k}")
        if masks[0] is not None:
            grad.mul_(masks[0])
        lookup.add(step.inputs, grad, step.input_sums)
        self._update(step)
        for state, out in zip(states, inputs[1:], strict=True):
            state.copy_(out)
        return loss

    def _read(self, step: StepRows) -> Gathered | InPlace:
        """Turn the tables to the step's rows; returns that of the inputs."""
        self.items.read(step.items)
        if self.lookup is None or step.read is None:
            return self.items
        self.lookup.read(step.read)
        return self.lookup

    def _score(
        self, step: StepRows, top: Tensor, bias: Tensor, batch_size: int
    ) -> tuple[Tensor, Tensor]:
        """The loss of the scores top·itemsᵀ + bias, and the gradient of ``top`` [M, H].

        Leaves the gradients of the items' rows and biases where they are moved by.
        """
        if step.weight is None or step.share is None:
            return self._score_plain(step, top, bias, batch_size)
        scratch, c = self.scratch, len(bias)
        own = step.own.unsqueeze(1)
        scores = scratch("scores", len(top), c)
        rows = torch.full_like(own, 1 / batch_size, dtype=top.dtype)
        if self.loss in SOFTMAX_OF:
            self.items.dots(top, bias + step.weight, out=scores)
            logits = self.loss == "xe_logit"
            losses, d, factor = softmax_gradient_(scores, own, step.share, logits)
            if factor is not None:
                rows.mul_(factor)
        else:
            self.items.dots(top, bias, out=scores)
            losses, d = bpr_max_gradient_(
                scores, own, step.weight, step.share, self.act, self.params["bpreg"], scratch,
                self.kernels,
            )  # fmt: skip
        self.items.add_product(d, torch.mul(top, rows, out=scratch("top", *top.shape)))
        torch.mv(d.t(), rows.squeeze(1), out=self.bias.grad(c))
        back = self.items.weighed(d, out=scratch("dtop", *top.shape)).mul_(rows)
        return losses.sum() / batch_size, back

    def _score_plain(
        self, step: StepRows, top: Tensor, bias: Tensor, batch_size: int
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`_score` with one column per target and sample, the loss by autograd."""
        assert step.columns is not None and step.shift is not None
        columns, sums = step.columns, step.column_sums
        table = self.items.at(columns, self.scratch("columns", len(columns), top.shape[1]))
        shift = bias.index_select(0, step.columns) + step.shift
        with torch.enable_grad():
            scores = torch.addmm(shift, top, table.t()).requires_grad_()
            per_row = LOSSES[self.loss]
            losses = per_row(self.act(scores), self.params["bpreg"], self.params["smoothing"])
            loss = losses.sum() / batch_size
            (d,) = torch.autograd.grad(loss, scores)
        self.items.add(columns, d.t() @ top, sums)
        add_rows_(self.bias.grad(len(bias)).zero_(), d.sum(0), columns, sums)
        return loss.detach(), d @ table

    def _update(self, step: StepRows) -> None:
        """Move the cells and the touched rows by their gradients."""
        tables = [self.items] if self.lookup is None else [self.items, self.lookup]
        if self.params["grad_cap"]:
            grads = [table.grad for table in tables if isinstance(table, Gathered)]
            self._cap([self.dense.grad, self.bias.grad(len(step.scored)), *grads])
        self.dense.step()
        self.bias.step(step.scored)
        for table in tables:
            table.step()

    def _cap(self, grads: Iterable[Tensor]) -> None:
        """Scale all gradients down together where their norm is above ``grad_cap``."""
        grads = list(grads)
        norm = torch.stack([grad.square().sum() for grad in grads]).sum().sqrt_()
        for grad in grads:
            grad.mul_(torch.clamp(self.params["grad_cap"] / norm, max=1))


class StepReplay:
    """The step with all rows in use, in a form that a device can repeat by itself."""

    def __init__(
        self, steps: TrainingSteps, rows: StepBlock, fields: Mapping[str, Tensor], batch_size: int
    ) -> None:
        """``rows`` and ``fields`` are those of any such steps; only their shapes count."""
        self.steps, self.batch_size = steps, batch_size
        self.feed = Feed(fields, steps.model.block)
        self.rows = rows_of(
            self.feed.now, rows.scored[0], rows.items[0], rows.read[0] if rows.read else 0
        )
        self.masks = [self.feed.now.get(f"masks.{k}") for k in range(1 + len(steps.cells))]
        self.losses = steps.model.output.new_zeros(steps.model.block)
        self.replay = GraphReplay(self.step, steps.device)
        self.version = steps.scratch.version

    def run(self, fields: Mapping[str, Tensor], losses: Tensor) -> None:
        """As many steps as ``losses`` has places, which it fills."""
        self.feed.fill(fields)
        self.replay.run(len(losses))
        losses.copy_(self.losses[: len(losses)])
        self.version = self.steps.scratch.version

    def step(self) -> None:
        """The step at the feed's cursor, and on to the next."""
        self.feed.fetch()
        loss = self.steps._step(self.rows, self.feed.now["resets"], self.masks, self.batch_size)
        self.losses.index_copy_(0, self.feed.cursor, loss.reshape(1))
        self.feed.cursor.add_(1)


def _named(name: str, found: Groups) -> dict[str, Tensor]:
    return {
        f"{name}.order": found.order,
        f"{name}.places": found.places,
        f"{name}.bounds": found.bounds,
    }
