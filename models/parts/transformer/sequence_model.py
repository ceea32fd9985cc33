"""What SASRec and HSTU share: embedding, packing, losses, item tables, diagnostics, parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import (
    Catalogue,
    Facts,
    Model,
    Needs,
    Param,
    PlanKind,
    Rows,
    SequenceBatch,
    Table,
)
from models.parts.items.params import ITEM_PARAMS, check_items, item_fields, known_by_more
from models.parts.items.tower import IdTable, ItemTower, LookedUp, make_items
from models.parts.rows import within
from models.parts.transformer.actions import ACTION_PARAMS, Actions, action_needs, check_actions
from models.parts.transformer.augmenting import AUGMENT_PARAMS, augmented
from models.parts.transformer.dropout import Dropout
from models.parts.transformer.moe import MoE, tell_steps
from models.parts.transformer.negatives import Targets, session_items
from models.parts.transformer.next_item_loss import NextItemLoss, check_loss
from models.parts.transformer.similarity import Similarity
from models.parts.transformer.time_features import TIME_PARAMS, TimeFeatures, check_times
from models.parts.transformer.unpadding import Plain, Unpadding

SASREC, HSTU = "arXiv 1808.09781", "arXiv 2402.17152"

TRAINING_PARAMS: tuple[Param, ...] = (
    Param("learning_rate", "float", 0.001, "of AdamW", low=0, low_open=True, high=1, source=SASREC),
    Param(
        "weight_decay", "float", 0.0, "of matrices only", low=0, high=10, source="arXiv 1711.05101"
    ),
    Param(
        "beta2",
        "float",
        0.98,
        "AdamW's second moment",
        low=0,
        high=1,
        high_open=True,
        source=SASREC,
    ),
    Param("warmup", "float", 0.0, "steps (below 1: share) of rising learning rate", low=0),
    Param(
        "schedule",
        "str",
        "constant",
        "of the learning rate after the warm-up",
        choices=("constant", "linear", "cosine"),
    ),
    Param("grad_clip", "float", 0.0, "largest norm of the gradient; 0: any", low=0),
    Param("batch_size", "int", 128, "sessions of a batch", low=1, high=65536, source=SASREC),
    Param("n_epochs", "int", 50, "passes over the data", low=1, high=100_000),
    Param("patience", "int", 0, "epochs without a better score that end training; 0: none", low=0),
    Param(
        "precision",
        "str",
        "fp32",
        "of matrix products in training (bf16: for GPUs; slow on most CPUs); "
        "weights, gradients, norms, losses and ranking stay fp32",
        choices=("fp32", "bf16"),
    ),
)


EVENT_PARAMS: tuple[Param, ...] = (*ACTION_PARAMS, *TIME_PARAMS, *ITEM_PARAMS, *AUGMENT_PARAMS)


def size_params(
    dim: int, blocks: int, heads: int, dropout: float, source: str
) -> tuple[Param, ...]:
    """Parameters of size, with a model's own defaults."""
    return (
        Param("dim", "int", dim, "channels of a token", low=1, high=8192, source=source),
        Param("blocks", "int", blocks, "number of blocks", low=1, high=64, source=source),
        Param("heads", "int", heads, "attention heads", low=1, high=256, source=source),
        Param("max_length", "int", 200, "latest events looked at", low=2, high=8192, source=source),
        Param(
            "dropout",
            "float",
            dropout,
            "of embeddings and of each branch",
            low=0,
            high=1,
            high_open=True,
            source=source,
        ),
    )


def check_sequences(params: Mapping[str, Any], facts: Facts | None) -> None:
    """Refuse what of items, losses, actions and times does not fit, and data without a single
    pair of events, or with nothing to choose from.

    Raises:
        ValueError: see above.
    """
    check_items(params, facts)
    check_loss(params)
    check_actions(params, facts)
    check_times(params, facts)
    if facts is None:
        return
    if facts.longest < 2:
        raise ValueError(
            f"the longest training session has {facts.longest} event(s) and 2 are needed; "
            "prepare the data with longer sessions"
        )
    if facts.n_items < 2:
        raise ValueError(f"the catalogue has {facts.n_items} item(s) and 2 are needed")


class SequenceModel(Model, ABC):
    """Reads right-padded sequences, predicts the next item at every position.

    A subclass makes its layers in :meth:`build` and runs them in :meth:`layers`.
    """

    PLAN: ClassVar[PlanKind] = "sequences"

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        dim = int(params["dim"])
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            self.items = make_items(params, catalogue, dim)
            self.positions = IdTable(int(params["max_length"]), dim)
            tied = params.get("tied", True)
            self.outputs = None if tied else make_items(params, catalogue, dim)
            self.build(dim)
            self.actions = Actions(params, catalogue.facts, dim)
            self.clock = TimeFeatures(params["time_features"], dim)
            self.hidden = IdTable(1, dim) if params.get("augment_mask") else None
        finally:
            torch.set_rng_state(state)
        self.drop = Dropout(params["dropout"])
        self.next_item = NextItemLoss(params, catalogue.support)
        self.similarity = Similarity()
        self.mixtures = [module for module in self.modules() if isinstance(module, MoE)]
        tell_steps(self.mixtures, params, catalogue.facts)

    @classmethod
    def needs(cls, params: Mapping[str, Any]) -> Needs:
        return replace(action_needs(params), items=item_fields(params))

    @abstractmethod
    def build(self, dim: int) -> None:
        """Make the layers; torch's random stream is seeded here."""

    @abstractmethod
    def layers(self, h: Tensor, batch: SequenceBatch, layout: Unpadding) -> Tensor:
        """Tokens [T, d] from embeddings to outputs."""

    def states(
        self,
        batch: SequenceBatch,
        known: LookedUp | None = None,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Vectors [n_targets, d] and items [n_targets] of the positions with a target; ``known``
        are the items to be read, and ``hidden`` [B, L] are not to be."""
        known = known or self.items.looked_up(whole=True)
        layout = Unpadding(batch.lengths, batch.items.shape[1])
        targets = layout.pack(batch.targets)
        h = self.tokens(batch, layout, known, hidden)
        wanted = targets >= 0
        if not bool(wanted.all()):
            chosen = wanted.nonzero().squeeze(1)
            h, targets = h.index_select(0, chosen), targets.index_select(0, chosen)
        return self.actions.condition(h, batch), targets

    def tokens(
        self,
        batch: SequenceBatch,
        layout: Unpadding,
        known: LookedUp,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """What the layers give for every token [T, d]."""
        x = known.rows(layout.pack(batch.items))
        if hidden is not None and self.hidden is not None:
            x = torch.where(layout.pack(hidden)[:, None], self.hidden.weight, x)
        h = x * self.params["dim"] ** 0.5 + self.positions(layout.position)
        h = self.clock.add(self.actions.add_input(h, batch, layout), batch, layout)
        return self.layers(self.drop(h), batch, layout)

    def portable(self) -> nn.Module:
        if self.mixtures:
            raise NotImplementedError("its mixtures choose experts token by token")
        if self.needs(self.params).columns:
            raise NotImplementedError("it reads columns of events beside items and times")
        return _LastToken(self)

    # -- training ---------------------------------------------------------------------------

    def loss(self, batch: SequenceBatch) -> Tensor:
        whole = self.next_item.whole
        known = self.items.looked_up(whole and self.outputs is None)
        batch, hidden = augmented(batch, self.params)
        h, items = self.states(batch, known, hidden)
        targets = self._targets(batch, items)
        others = self.similarity.draw(items, self.catalogue.n_items)
        drawn = self.next_item.draw(targets)
        scored = known if self.outputs is None else self.outputs.looked_up(whole)
        table, (right, wrong, others) = scored.table(items, drawn.items, others)
        self.similarity.watch(h, table, right, others)
        if self.params["similarity"] == "cosine":
            h, table = F.normalize(h.float(), dim=1), F.normalize(table.float(), dim=1)
        loss: Tensor = self.next_item(h, table, targets, drawn, (right, wrong))
        for mixture in self.mixtures:
            loss = loss + mixture.aux_loss
        return loss

    def _targets(self, batch: SequenceBatch, items: Tensor) -> Targets:
        """Which items are predicted, and what the loss is to know of them."""
        weights, decay = self.actions.weigh(batch), self.params["position_decay"]
        if decay == 1 and not self.next_item.of_batch:
            return Targets(items, weights=weights)
        row, position = (batch.targets >= 0).nonzero(as_tuple=True)
        if decay != 1:
            by_position = decay ** (batch.lengths[row] - 1 - position).float()
            weights = by_position if weights is None else weights * by_position
        if not self.next_item.of_batch:
            return Targets(items, weights=weights)
        return Targets(items, row, session_items(batch, self.catalogue.n_items), weights)

    def begin_epoch(self, epoch: int) -> str:
        self.similarity.begin_epoch()
        for mixture in self.mixtures:
            mixture.begin_epoch()
        return "main"

    def after_step(self) -> None:
        for mixture in self.mixtures:
            mixture.after_step()

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        found: dict[str, Any] = {"similarity": self.similarity.end_epoch()}
        if self.mixtures:
            found["experts"] = [mixture.end_epoch() for mixture in self.mixtures]
        return found

    def keyed_rows(self) -> dict[str, Rows]:
        found = within("items", self.items.keyed_rows())
        if self.outputs is not None:
            found |= within("outputs", self.outputs.keyed_rows())
        return found | within("actions", self.actions.keyed_rows())

    # -- ranking ----------------------------------------------------------------------------

    def encode(self, batch: SequenceBatch) -> Tensor:
        h, _ = self.states(batch)
        return F.normalize(h.float(), dim=1) if self.params["similarity"] == "cosine" else h

    def item_table(self) -> tuple[Tensor, Tensor | None]:
        table = (self.items if self.outputs is None else self.outputs).all_items()
        if self.params["similarity"] == "cosine":
            table = F.normalize(table.float(), dim=1)
        return table, None

    def add_items(self, items: Table, count: int) -> None:
        if count and not known_by_more(self.params):
            raise NotImplementedError("it knows items by their ids alone (features, vectors: none)")
        for tower in self._towers().values():
            tower.add(items, count)

    def worked_out(self) -> dict[str, Tensor]:
        towers = self._towers().items()
        return {name: tower.all_items() for name, tower in towers if tower.reads_vectors}

    def load_worked_out(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tower in self._towers().items():
            if name in tensors:
                tower.use_worked_out(tensors[name])

    def _towers(self) -> dict[str, ItemTower]:
        tables = {"items": self.items, "outputs": self.outputs}
        return {name: table for name, table in tables.items() if isinstance(table, ItemTower)}

    @property
    def max_length(self) -> int | None:
        return int(self.params["max_length"])


class _LastToken(nn.Module):
    """What :meth:`Model.portable` asks for: the vector after each session's last event."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model
        self.known = model.items.looked_up(whole=True)

    def forward(self, items: Tensor, times: Tensor, lengths: Tensor) -> Tensor:
        """[B, L], [B, L] and [B] int64 → [B, d]."""
        rows, width = items.shape
        last = lengths[:, None] - 1
        column = torch.arange(width, device=items.device)
        # the next event's time, and of the last its own; where padded, the last event's
        times = times.gather(1, torch.minimum(column, last))
        asked = times.gather(1, torch.minimum(column + 1, last))
        batch = SequenceBatch(items, items, times, asked, lengths)
        layout = Plain(lengths, rows, width)
        h = self.model.tokens(batch, layout, self.known).view(rows, width, -1)
        h = h.gather(1, last[:, :, None].expand(-1, -1, h.shape[2])).squeeze(1)
        return F.normalize(h.float(), dim=1) if self.model.params["similarity"] == "cosine" else h
