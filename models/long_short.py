"""Long-term interest: two towers, of which one reads a user's long history and one what came after.

Each gives a vector; those of one user are to be nearer to each other than to anybody else's. The
long tower's vector is made offline and served to online models. Beside a Transformer with a
mixture of experts a tower has a *bag*: sketched TF-IDF of what it has read, with learned weights.
The bag by itself is the floor of this task, so the model begins there and can only learn to be
better; with ``bag`` off it is the towers alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import (
    Catalogue,
    Facts,
    Kinds,
    Metric,
    Model,
    Needs,
    Param,
    SequenceBatch,
)
from models.parts.long_short import retrieval
from models.parts.long_short.bags import SIDES, Bag
from models.parts.long_short.events import EventEncoder, columns_of
from models.parts.long_short.parameters import PARAMS, check_together
from models.parts.long_short.retrieval import Judged
from models.parts.long_short.stretches import (
    PART,
    Histories,
    Stretches,
    tokens_of,
)
from models.parts.long_short.tower import Tower
from models.parts.transformer.moe import MoE, tell_steps
from models.parts.transformer.similarity import Similarity

MANY_ITEMS = 200_000  # for the items nearest to each user to be worth an evaluation's time
_NUMBERS = 1 << 24  # of the vectors of items that are made at once


class LongShort(Model):
    """Two towers over a user's long and short history, with a mixture of experts."""

    PARAMS: ClassVar[tuple[Param, ...]] = PARAMS
    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("mrr", help="of a user's own short part among all users' short parts"),
        Metric("hr@1", help="share of users whose own short part comes first"),
        Metric("hr@10", help="share of users whose own short part is among the first ten"),
    )

    usual: Tensor

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            self._build()
        finally:
            torch.set_rng_state(state)
        self.similarity = Similarity()
        self.mixtures = [module for module in self.modules() if isinstance(module, MoE)]
        tell_steps(self.mixtures, params, catalogue.facts)

    def _build(self) -> None:
        params, catalogue = self.params, self.catalogue
        self.events = EventEncoder(params, catalogue)
        sides = SIDES if params["towers"] == "own" else SIDES[:1]
        self.towers = nn.ModuleDict({side: Tower(params) for side in sides})
        self.bag = Bag(params, catalogue) if params["bag"] else None
        parts = 1 if self.bag is None else 2 if self.bag.categories is None else 3
        begin = torch.tensor([1.0, params["bag_category_share"], params["tower_share"]])
        shares = begin[[0, 2]] if parts == 2 else begin[-parts:]
        self.shares = nn.Parameter(shares.clamp(min=1e-4).log() / 2)
        self.mix = nn.ModuleDict({side: _zeros(params["out_dim"], parts) for side in SIDES})
        usual = catalogue.holders.get("behaviour") if params["behaviour"] else None
        code = torch.zeros(1, dtype=torch.int64) if usual is None else usual.argmax()[None]
        self.register_buffer("usual", code)

    @classmethod
    def check(cls, params: Mapping[str, Any], facts: Facts | None = None) -> None:
        check_together(params)
        if facts is not None and not facts.has_times:
            raise ValueError("it reads times and the data has only an order; prepare it with times")

    @classmethod
    def needs(cls, params: Mapping[str, Any]) -> Needs:
        names = [PART, *columns_of(params)]
        items: dict[str, Kinds] = {"category": ("category",)} if params["category"] else {}
        return Needs(
            columns={name: ("category",) for name in names},
            wanted=tuple(names),
            loss_only=tuple(names),  # of the short part: a request has none
            items=items,
            unknown_items=True,
        )

    # -- vectors ----------------------------------------------------------------------------

    def vectors(self, histories: Histories, stretches: Stretches, side: str) -> Tensor:
        """Of length one [R, d], of stretches of histories as the tower of a side sees them."""
        most = int(self.params[f"{side}_length"])
        tokens = tokens_of(histories, stretches.latest(most))
        tower = self.towers[side if side in self.towers else SIDES[0]]
        out = tower(self.events(tokens), tokens)
        parts = [F.normalize(out.float(), dim=1)]
        if self.bag is not None:
            whole = tokens if self._fits(stretches, most) else tokens_of(histories, stretches)
            parts = [*self.bag(whole, side), *parts]
        scales = (self.shares + self.mix[side](out).clamp(-4, 4)).exp()
        joined = torch.cat([part * scales[:, [i]] for i, part in enumerate(parts)], 1)
        return F.normalize(joined, dim=1)

    @staticmethod
    def _fits(stretches: Stretches, most: int) -> bool:
        return bool((stretches.lengths <= most).all())

    def user_vectors(self, batch: SequenceBatch) -> Tensor:
        """The long tower's vector of everything that a row shows [B, d]."""
        histories = Histories.of_inputs(batch)
        rows = torch.arange(len(batch.lengths), device=batch.lengths.device)
        whole = Stretches(rows, torch.zeros_like(rows), batch.lengths)
        return self.vectors(histories, whole, "long")

    def encode(self, batch: SequenceBatch) -> Tensor:
        """The long tower's vector of what comes before each target [n_targets, d]."""
        rows, positions = (batch.targets >= 0).nonzero(as_tuple=True)
        before = Stretches(rows, torch.zeros_like(rows), positions + 1)
        return self.vectors(Histories.of_inputs(batch), before, "long")

    # -- training ---------------------------------------------------------------------------

    def loss(self, batch: SequenceBatch) -> Tensor:
        histories = Histories.whole(batch)
        parts = histories.parts()
        both = (parts[0].lengths > 0) & (parts[1].lengths > 0)
        long, short = (
            self.vectors(histories, part.of(both), side)
            for part, side in zip(parts, SIDES, strict=True)
        )
        own = torch.arange(len(long), device=long.device)
        if len(long):
            self.similarity.watch(long, short, own, self.similarity.draw(own, len(own)))
        loss = self._contrast(long @ short.T / self.params["temperature"])
        for mixture in self.mixtures:
            loss = loss + mixture.aux_loss
        return loss

    def _contrast(self, logits: Tensor) -> Tensor:
        """Of users [B, B], whose own short parts are on the diagonal."""
        own = torch.arange(len(logits), device=logits.device)
        if len(own) < 2:
            return logits.sum() * 0.0
        if self.params["loss"] == "info-nce":
            return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        count = int(self.params["negatives"])
        step = torch.randint(1, len(own), (len(own), count), device=own.device)
        others = logits.gather(1, (own[:, None] + step) % len(own))
        return -F.logsigmoid(logits.diagonal()[:, None] - others).mean()

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

    # -- evaluation -------------------------------------------------------------------------

    def evaluate(self, batches: Iterable[SequenceBatch]) -> Mapping[str, float | Tensor]:
        """How well each user's own short part is found, and next items and categories.

        Raises:
            ValueError: no history has a long and a short part.
        """
        found: list[tuple[Tensor, Tensor]] = []
        shown: list[SequenceBatch] = []
        for batch in batches:
            histories = Histories.whole(batch)
            parts = histories.parts()
            both = (parts[0].lengths > 0) & (parts[1].lengths > 0)
            if bool(both.any()):
                long, short = (
                    self.vectors(histories, part.of(both), side)
                    for part, side in zip(parts, SIDES, strict=True)
                )
                found.append((long, short))
                shown.append(batch)
        if not found:
            raise ValueError(
                "no history is cut into a long and a short part; "
                "prepare the data with --protocol long-short"
            )
        long, short = (torch.cat(side) for side in zip(*found, strict=True))
        ranks = retrieval.own_ranks(lambda some: long[some] @ short.T, len(long))
        return retrieval.rank_metrics(ranks) | self._next(long, Judged.of(shown))

    def _next(self, long: Tensor, judged: Judged) -> retrieval.Metrics:
        if not self.params["next_items"]:
            return {}
        n_items = self.catalogue.n_items
        now = torch.stack([tokens.last.max() for tokens in judged.long]).max()
        chunk = max(64, _NUMBERS // long.shape[1])
        categories = None
        if self.params["category"]:
            categories = self.catalogue.items.codes("category").to(long.device)
        item = category = None
        if n_items <= MANY_ITEMS:

            def of_items(some: slice) -> Tensor:
                codes = torch.arange(some.start, some.stop, device=long.device)
                return self._single(codes, None if categories is None else categories[some], now)

            near = retrieval.nearest(long, of_items, n_items, chunk)
            item = judged.wanted(None).known(n_items).hits(near)
        if self.params["category"]:
            size = self.catalogue.facts.columns["category"].size

            def of_categories(some: slice) -> Tensor:
                codes = torch.arange(some.start, some.stop, device=long.device)
                return self._single(torch.full_like(codes, -1), codes, now)

            near = retrieval.nearest(long, of_categories, size, chunk)
            category = judged.wanted("category").known(size).hits(near)
        return retrieval.next_metrics(item=item, category=category)

    def _single(self, items: Tensor, categories: Tensor | None, now: Tensor) -> Tensor:
        """The short tower's vectors of single events; an item −1 is none."""
        ones = torch.ones_like(items)
        columns = {PART: ones[:, None]}
        if categories is not None:
            columns["category"] = categories[:, None]
        if self.params["behaviour"]:
            columns["behaviour"] = self.usual.expand(len(items))[:, None]
        histories = Histories(items[:, None], now.expand(len(items))[:, None], columns, ones)
        rows = torch.arange(len(items), device=items.device)
        return self.vectors(histories, Stretches(rows, torch.zeros_like(rows), ones), "short")

    @classmethod
    def floors(
        cls, catalogue: Catalogue, batches: Iterable[SequenceBatch]
    ) -> Mapping[str, Mapping[str, float | Tensor]]:
        return retrieval.floors(catalogue, Judged.of(batches))


def _zeros(n_in: int, n_out: int) -> nn.Linear:
    layer = nn.Linear(n_in, n_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


MODEL = LongShort
