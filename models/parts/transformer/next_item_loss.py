"""The loss of next-item models: its parameters, and how they are put together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from models.parts.contract import Param
from models.parts.transformer import losses as losses
from models.parts.transformer.negatives import BUCKETS, Drawn, Negatives, Targets

HSTU = "arXiv 2402.17152"
Places = tuple[Tensor, Tensor]
"""Where in a table targets [T] are, and negatives [R] or [T, R]."""


def loss_params(similarity: str, temperature: float) -> tuple[Param, ...]:
    """Parameters of the loss, with a model's own defaults."""
    return (
        Param("loss", "str", "cross-entropy",
              "over the catalogue, or over negatives; sampled-softmax of cosines is InfoNCE",
              choices=("cross-entropy", "sampled-softmax", "gbce", "bce"),
              source="arXiv 2309.07602; 2308.07192 (gbce)"),
        Param("label_smoothing", "float", 0.0,
              "share of a target that cross-entropy spreads over the catalogue evenly",
              low=0, high=1, high_open=True, source="arXiv 1512.00567"),
        Param("similarity", "str", similarity, "what a logit is: a dot product, or a cosine",
              choices=("dot", "cosine"), source=HSTU),
        Param("temperature", "float", temperature, "divides logits",
              low=0, low_open=True, high=100, source=HSTU),
        Param("n_sample", "int", 256, "negatives of the sampled losses and of the triplet loss",
              low=1, source="arXiv 2308.07192"),
        Param("negatives", "str", "sampled",
              "where negatives come from: the catalogue (by sample_alpha), the batch's targets, "
              f"half from each, or as many from each of {BUCKETS} buckets of items that share the "
              "training events equally",
              choices=("sampled", "in-batch", "mixed", "exposure"), source="arXiv 2004.06390"),
        Param("negative_sharing", "str", "batch",
              "whether all positions of a batch share their negatives, or each has its own",
              choices=("batch", "position"), source="arXiv 2309.07602"),
        Param("sample_alpha", "float", 0.0,
              "the catalogue's negatives are drawn by support^sample_alpha; 0: uniformly",
              low=0, high=1, source="arXiv 1706.03847"),
        Param("logq", "float", 0.0,
              "part of log(n_sample · q) that a negative's logit loses in sampled-softmax",
              low=0, high=1, source="Bengio & Senécal 2008"),
        Param("gbce_t", "float", 0.75, "calibration of gbce", low=0, high=1,
              source="arXiv 2308.07192"),
        Param("margin", "float", 0.0,
              "what the target's cosine loses in sampled-softmax of cosines", low=0, high=1,
              source="arXiv 1801.05599"),
        Param("triplet_weight", "float", 0.0,
              "part of the loss that is the triplet loss of cosines; 0: none", low=0, high=1,
              source="arXiv 1503.03832"),
        Param("triplet_margin", "float", 0.2,
              "by which the target's cosine should be above a negative's", low=0, high=2,
              source="arXiv 1503.03832"),
        Param("position_decay", "float", 1.0,
              "a position counts position_decay^(positions after it); 1: all alike",
              low=0, low_open=True, high=1),
    )  # fmt: skip


def check_loss(params: Mapping[str, Any]) -> None:
    """Refuse parameters of the loss that do not fit each other.

    Raises:
        ValueError: one clause.
    """
    kind, n_sample = params["negatives"], params["n_sample"]
    least = {"mixed": 2, "exposure": BUCKETS}.get(kind, 1)
    if n_sample < least:
        raise ValueError(f"negatives {kind} needs n_sample of at least {least}, not {n_sample}")
    if params["label_smoothing"] and params["loss"] != "cross-entropy":
        raise ValueError(
            f"label_smoothing {params['label_smoothing']:g} is one of cross-entropy, and loss is "
            f"{params['loss']}; set it to 0, or loss to cross-entropy"
        )
    if params["margin"] and params["similarity"] != "cosine":
        raise ValueError(
            f"margin {params['margin']:g} is one of cosines, and similarity is "
            f"{params['similarity']}; set similarity to cosine, or margin to 0"
        )


class NextItemLoss(nn.Module):
    """The loss of vectors h [T, d] with their targets in an item table [N, d]."""

    def __init__(self, params: Mapping[str, Any], support: Tensor) -> None:
        super().__init__()
        self.kind, self.params = str(params["loss"]), params
        self.triplet = float(params["triplet_weight"])
        self.samples = self.kind != "cross-entropy" or self.triplet > 0
        self.negatives = Negatives(params, support)

    @property
    def of_batch(self) -> bool:
        """Whether targets are to say in which session they are."""
        return self.samples and self.negatives.of_batch

    @property
    def whole(self) -> bool:
        """Whether it needs all items."""
        return self.kind == "cross-entropy" and self.triplet < 1

    def draw(self, targets: Targets) -> Drawn:
        """Negatives for :meth:`forward`; none where it needs none."""
        return self.negatives.draw(targets) if self.samples else Drawn(targets.items[:0], ())

    def forward(
        self, h: Tensor, table: Tensor, targets: Targets, drawn: Drawn, places: Places
    ) -> Tensor:
        """The weighted mean over targets, a scalar; h · table are the similarities, undivided.

        ``places`` say where in the table targets and negatives are.
        """
        (right, wrong), weights = places, targets.weights
        triplet: Tensor | float = 0.0
        if self.triplet:
            cosines = losses.cosines(h, table, right, wrong, drawn.forbidden)
            triplet = losses.triplet(*cosines, self.params["triplet_margin"], weights)
        if self.triplet == 1:
            assert isinstance(triplet, Tensor)
            return triplet
        scaled = h / self.params["temperature"]
        if self.kind == "cross-entropy":
            loss = losses.full_cross_entropy(scaled, table, right, weights)
            if smoothing := self.params["label_smoothing"]:
                loss = loss + smoothing * losses.above_average(scaled, table, right, weights)
        else:
            loss = self._sampled(scaled, table, weights, drawn, places)
        return loss if not self.triplet else (1 - self.triplet) * loss + self.triplet * triplet

    def _sampled(
        self, scaled: Tensor, table: Tensor, weights: Tensor | None, drawn: Drawn, places: Places
    ) -> Tensor:
        right, wrong = places
        positive = losses.positive_logits(scaled, table, right)
        negative = losses.negative_logits(scaled, table, right, wrong)
        if drawn.forbidden is not None:
            negative = negative.masked_fill(drawn.forbidden, -math.inf)
        if self.kind == "sampled-softmax":
            if self.params["margin"]:
                positive = positive - self.params["margin"] / self.params["temperature"]
            correction = self.negatives.correction(drawn)
            return losses.sampled_softmax(positive, negative, correction, weights)
        n_sample = wrong.shape[-1]
        t = self.params["gbce_t"] if self.kind == "gbce" else 0.0
        beta = losses.gbce_beta(n_sample, self.negatives.n_items, t)
        return losses.gbce(positive, negative, beta, weights)
