"""A model unlike paropt's own: item features, two stages, state beside weights, its own metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import Catalogue, Facts, Metric, Model, Param, SequenceBatch


class Alien(Model):
    """A decaying average of item features; first the features are fitted, then the items."""

    PARAMS = (
        Param("dim", "int", 16, "channels", low=2, high=256),
        Param("decay", "float", 0.7, "weight of each older event", low=0, high=1),
        Param("price", "bool", True, "whether prices are looked at"),
        Param("first_epochs", "int", 1, "epochs that train the features only", low=0),
        Param("learning_rate", "float", 0.05, "of AdamW", low=0, low_open=True, high=1),
        Param("batch_size", "int", 32, "sessions of a batch", low=1),
        Param("n_epochs", "int", 4, "passes over the data", low=1),
    )

    METRICS = (
        Metric("kind_rank", "minimize", "mean rank among the items of the target's own kind"),
        Metric("kind_mrr", "maximize", "mean of one over that rank"),
    )

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        if "kind" not in catalogue.features:
            raise ValueError("the items have no feature 'kind'")
        self.kinds = catalogue.features["kind"].long()
        price = catalogue.features["price"].float()[:, None] * params["price"]
        self.register_buffer("given", torch.cat([F.one_hot(self.kinds + 1).float(), price], 1))
        draw = torch.Generator().manual_seed(seed)
        self.project = nn.Parameter(
            0.1 * torch.randn(self.given.shape[1], params["dim"], generator=draw)
        )
        self.own = nn.Parameter(0.1 * torch.randn(catalogue.n_items, params["dim"], generator=draw))
        self.seen, self.words = torch.zeros(catalogue.n_items), "nothing yet"

    @classmethod
    def check(cls, params: Mapping[str, Any], facts: Facts | None = None) -> None:
        if params["first_epochs"] > params["n_epochs"]:
            raise ValueError(
                f"first_epochs {params['first_epochs']} is above n_epochs {params['n_epochs']}"
            )

    def begin_epoch(self, epoch: int) -> str:
        features_only = epoch <= self.params["first_epochs"]
        self.own.requires_grad_(not features_only)
        self.project.requires_grad_(features_only)
        return "features" if features_only else "items"

    def loss(self, batch: SequenceBatch) -> Tensor:
        wanted = batch.targets[batch.targets >= 0]
        self.seen += torch.bincount(wanted, minlength=len(self.seen))
        table, bias = self.item_table()
        return F.cross_entropy(self.encode(batch) @ table.T + bias, wanted)

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        self.words = f"{epoch} epochs, {int(self.seen.sum())} events"
        return {"words": self.words, "own": bool(self.own.requires_grad)}

    def training_state(self) -> dict[str, Any]:
        return {"seen": self.seen, "words": self.words}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        self.seen, self.words = state["seen"], state["words"]

    def encode(self, batch: SequenceBatch) -> Tensor:
        embedded = self.item_table()[0][batch.items]
        state, states = torch.zeros_like(embedded[:, 0]), []
        for step in embedded.unbind(1):
            state = self.params["decay"] * state + step
            states.append(state)
        return torch.stack(states, 1)[batch.targets >= 0]

    def item_table(self) -> tuple[Tensor, Tensor | None]:
        return self.given @ self.project + self.own, torch.zeros(len(self.own))

    def evaluate(self, batches: Iterable[SequenceBatch]) -> Mapping[str, float | Tensor]:
        """The rank of every target among the items of its own kind."""
        table = self.item_table()[0]
        return _by_kind(self.kinds, ((batch, self.encode(batch) @ table.T) for batch in batches))

    @classmethod
    def floors(
        cls, catalogue: Catalogue, batches: Iterable[SequenceBatch]
    ) -> Mapping[str, Mapping[str, float | Tensor]]:
        """How well the popular ones of each kind would do."""
        kinds, support = catalogue.features["kind"].long(), catalogue.support.float()
        scored = ((batch, support.repeat(batch.n_targets, 1)) for batch in batches)
        return {"popular of its kind": _by_kind(kinds, scored)}


def _by_kind(
    kinds: Tensor, scored: Iterable[tuple[SequenceBatch, Tensor]]
) -> dict[str, float | Tensor]:
    """Every target's metrics, of batches and their scores [targets, items]."""
    ranks = []
    for batch, scores in scored:
        wanted = batch.targets[batch.targets >= 0]
        scores[kinds != kinds[wanted][:, None]] = -torch.inf
        ranks.append(1 + (scores > scores.gather(1, wanted[:, None])).sum(1))
    found = torch.cat(ranks).double()
    return {"kind_rank": found, "kind_mrr": 1 / found}


MODEL = Alien
