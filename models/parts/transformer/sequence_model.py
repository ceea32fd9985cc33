"""What SASRec and HSTU share: embedding, packing, losses, item tables, diagnostics, parameters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import Catalogue, Facts, Model, Param, PlanKind, SequenceBatch
from models.parts.transformer import losses as losses
from models.parts.transformer.dropout import Dropout
from models.parts.transformer.moe import MoE
from models.parts.transformer.similarity import Similarity
from models.parts.transformer.unpadding import Unpadding

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


def loss_params(similarity: str, temperature: float) -> tuple[Param, ...]:
    """Parameters of the loss, with a model's own defaults."""
    return (
        Param(
            "loss",
            "str",
            "cross-entropy",
            "over the catalogue, or over sampled negatives",
            choices=("cross-entropy", "sampled-softmax", "gbce", "bce"),
            source="arXiv 2309.07602; 2308.07192 (gbce)",
        ),
        Param(
            "similarity",
            "str",
            similarity,
            "what a logit is: a dot product, or a cosine",
            choices=("dot", "cosine"),
            source=HSTU,
        ),
        Param(
            "temperature",
            "float",
            temperature,
            "divides logits",
            low=0,
            low_open=True,
            high=100,
            source=HSTU,
        ),
        Param(
            "n_sample",
            "int",
            256,
            "negatives of the sampled losses",
            low=1,
            source="arXiv 2308.07192",
        ),
        Param(
            "negative_sharing",
            "str",
            "batch",
            "whether all positions of a batch share their negatives, or each has its own",
            choices=("batch", "position"),
            source="arXiv 2309.07602",
        ),
        Param(
            "sample_alpha",
            "float",
            0.0,
            "negatives are drawn by support^sample_alpha; 0: uniformly",
            low=0,
            high=1,
            source="arXiv 1706.03847",
        ),
        Param(
            "logq",
            "float",
            0.0,
            "part of log(n_sample · q) that a negative's logit loses in sampled-softmax",
            low=0,
            high=1,
            source="Bengio & Senécal 2008",
        ),
        Param(
            "gbce_t", "float", 0.75, "calibration of gbce", low=0, high=1, source="arXiv 2308.07192"
        ),
    )


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


def check_sequences(facts: Facts | None) -> None:
    """Refuse data without a single pair of events, or with nothing to choose from.

    Raises:
        ValueError: see above.
    """
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
            self.items = _embedding(catalogue.n_items, dim)
            self.positions = _embedding(int(params["max_length"]), dim)
            self.outputs = None if params.get("tied", True) else _embedding(catalogue.n_items, dim)
            self.build(dim)
        finally:
            torch.set_rng_state(state)
        self.drop = Dropout(params["dropout"])
        self.similarity = Similarity()
        self.mixtures = [module for module in self.modules() if isinstance(module, MoE)]
        self.log_q: Tensor | None
        self.register_buffer("log_q", self._log_q(catalogue.support), persistent=False)

    @abstractmethod
    def build(self, dim: int) -> None:
        """Make the layers; torch's random stream is seeded here."""

    @abstractmethod
    def layers(self, h: Tensor, batch: SequenceBatch, layout: Unpadding) -> Tensor:
        """Tokens [T, d] from embeddings to outputs."""

    def states(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """Vectors [n_targets, d] and items [n_targets] of the positions with a target."""
        layout = Unpadding(batch.lengths, batch.items.shape[1])
        items, targets = layout.pack(batch.items), layout.pack(batch.targets)
        h = self.items(items) * self.params["dim"] ** 0.5 + self.positions(layout.position)
        h = self.layers(self.drop(h), batch, layout)
        wanted = targets >= 0
        if bool(wanted.all()):
            return h, targets
        chosen = wanted.nonzero().squeeze(1)
        return h.index_select(0, chosen), targets.index_select(0, chosen)

    # -- training ---------------------------------------------------------------------------

    def loss(self, batch: SequenceBatch) -> Tensor:
        h, targets = self.states(batch)
        table = self._table()
        self.similarity.watch(h, table, targets)
        if self.params["similarity"] == "cosine":
            h, table = F.normalize(h.float(), dim=1), F.normalize(table.float(), dim=1)
        loss = self._next_item_loss(h / self.params["temperature"], table, targets)
        for mixture in self.mixtures:
            loss = loss + mixture.aux_loss
        return loss

    def _next_item_loss(self, h: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        kind, n_sample = self.params["loss"], self.params["n_sample"]
        if kind == "cross-entropy":
            return losses.full_cross_entropy(h, table, targets)
        own = self.params["negative_sharing"] == "position"
        shape = (len(targets), n_sample) if own else (n_sample,)
        negatives = losses.draw_negatives(self.log_q, len(table), shape, h.device)
        positive = losses.positive_logits(h, table, targets)
        negative = losses.negative_logits(h, table, targets, negatives)
        if kind == "sampled-softmax":
            return losses.sampled_softmax(positive, negative, self._correction(negatives))
        t = self.params["gbce_t"] if kind == "gbce" else 0.0
        return losses.gbce(positive, negative, losses.gbce_beta(n_sample, len(table), t))

    def _log_q(self, support: Tensor) -> Tensor | None:
        """log of each item's probability as a negative; None where it is uniform."""
        alpha = self.params["sample_alpha"]
        if alpha == 0 or self.params["loss"] == "cross-entropy":
            return None
        return torch.log_softmax(alpha * support.clamp(min=1).double().log(), 0).float()

    def _correction(self, negatives: Tensor) -> Tensor | float:
        """logq · log(R · q_j) of each negative."""
        part, count = float(self.params["logq"]), float(negatives.shape[-1])
        if part == 0:
            return 0.0
        if self.log_q is None:
            q = torch.full(negatives.shape, 1 / self.catalogue.n_items, device=negatives.device)
            return q.mul_(count).log_().mul_(part)
        log_q: Tensor = self.log_q[negatives]
        return (log_q + math.log(count)) * part

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

    # -- ranking ----------------------------------------------------------------------------

    def encode(self, batch: SequenceBatch) -> Tensor:
        h, _ = self.states(batch)
        return F.normalize(h.float(), dim=1) if self.params["similarity"] == "cosine" else h

    def item_table(self) -> tuple[Tensor, Tensor | None]:
        table = self._table()
        if self.params["similarity"] == "cosine":
            table = F.normalize(table.float(), dim=1)
        return table, None

    def _table(self) -> Tensor:
        table: Tensor = (self.items if self.outputs is None else self.outputs).weight
        return table

    @property
    def max_length(self) -> int | None:
        return int(self.params["max_length"])


def _embedding(count: int, dim: int) -> nn.Embedding:
    embedding = nn.Embedding(count, dim)
    nn.init.normal_(embedding.weight, std=0.02)
    return embedding
