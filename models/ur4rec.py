"""UR4Rec: SASRec, and beside it a retriever that reads what items and users are in words.

Three experts look at what the user would like, at what the latest items are said to be, and at
their embeddings; a router and proxies mix what they find, a memory adds what was remembered of the
user, and the outcome is matched with items' texts and embeddings. The two scores are fused. Both
parts are trained in four stages, any of which may be left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.contract import (
    Catalogue,
    Facts,
    Needs,
    Param,
    Rows,
    SequenceBatch,
    Stage,
    Table,
)
from models.parts.items.tower import LookedUp
from models.parts.transformer import losses
from models.parts.transformer.unpadding import Unpadding
from models.parts.ur4rec.alternation import Alternation
from models.parts.ur4rec.fusion import Fusion, fuse
from models.parts.ur4rec.params import STAGES, UR4REC_PARAMS, check_retriever, remembers, trains
from models.parts.ur4rec.retriever import Asked, Embed, Retriever
from models.parts.ur4rec.store import bytes_of
from models.sasrec import SASRec

SASREC_PARAMS = tuple(param for param in SASRec.PARAMS if param.name != "n_epochs")
OWN = ("retriever", "fusion")
FUSION_EVERY = 4
FUSED, BY_SASREC, BY_RETRIEVER = range(3)
RANKED_BY = {"fused": FUSED, "sasrec": BY_SASREC, "retriever": BY_RETRIEVER}


class UR4Rec(SASRec):
    """SASRec and a retriever of texts with experts and memory, fused and trained in stages."""

    PARAMS: ClassVar[tuple[Param, ...]] = (*SASREC_PARAMS, *UR4REC_PARAMS)
    MEMORY: ClassVar[str] = "memory_users"

    ranked_by: Tensor

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed + 1)
        try:
            self.retriever = Retriever(self.params, catalogue)
            self.fusion = Fusion(
                params["fusion"], params["fusion_weight"], params["fusion_scale"], params["dim"]
            )
        finally:
            torch.set_rng_state(state)
        for part in OWN:
            for parameter in getattr(self, part).parameters():
                rate = params["retriever_learning_rate"] / params["learning_rate"]
                parameter.rate_scale = rate
        by = RANKED_BY[params["rank_by"]] if trains(params) else BY_SASREC
        self.register_buffer("ranked_by", torch.tensor(by))
        self.alternation = Alternation(params["alternate"])
        self.watched: dict[str, list[Tensor]] = {}

    @classmethod
    def check(cls, params: Mapping[str, Any], facts: Facts | None = None) -> None:
        super().check(params, facts)
        check_retriever(params, facts)

    @classmethod
    def needs(cls, params: Mapping[str, Any]) -> Needs:
        base = super().needs(params)
        if not trains(params):
            return base
        return replace(
            base,
            items={**base.items, **{name: ("vector",) for name in params["item_text"]}},
            users={**base.users, **{name: ("vector",) for name in params["user_text"]}},
            user_index=base.user_index or remembers(params),
        )

    # -- stages -----------------------------------------------------------------------------

    @classmethod
    def stages(cls, params: Mapping[str, Any]) -> Sequence[Stage]:
        own = OWN if params["fusion"] != "weighted" else OWN[:1]
        slower = params["learning_rate"] * params["end_to_end_rate"]
        return [
            Stage(
                name,
                int(params[name]),
                trains=own if name == STAGES[1] else (),
                leaves=OWN if name == STAGES[0] else (),
                learning_rate=slower if name == STAGES[3] else None,
                patience=int(params["patience"]),
            )
            for name in STAGES
        ]

    def begin_epoch(self, epoch: int) -> str:
        super().begin_epoch(epoch)
        alone = self.stage == STAGES[0]
        self.ranked_by.fill_(BY_SASREC if alone else RANKED_BY[self.params["rank_by"]])
        self.watched = {}
        if not alone and self.retriever.store is not None:
            self.retriever.store.begin_epoch()
        return self.stage

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        found = super().end_epoch(epoch)
        means = {name: torch.stack(values).mean(0) for name, values in self.watched.items()}
        if "experts" in means:
            names = self.retriever.mixture.names
            found["expert_weights"] = dict(zip(names, means["experts"].tolist(), strict=True))
        if "fusion" in means:
            found["fusion_weight"] = float(means["fusion"])
        if self.stage == STAGES[2]:
            found["steps"] = self.alternation.end_epoch()
        return found

    # -- training ---------------------------------------------------------------------------

    def loss(self, batch: SequenceBatch) -> Tensor:
        if self.stage == STAGES[0]:
            return super().loss(batch)
        if self.stage == STAGES[3]:
            return self._everything_loss(batch)
        if self.stage == STAGES[2] and self.alternation.sasrec:
            return self.alternation.watch(super().loss(batch))
        loss = self._retriever_loss(batch)
        return self.alternation.watch(loss) if self.stage == STAGES[2] else loss

    def after_step(self) -> None:
        super().after_step()
        if self.stage == STAGES[2]:
            self.alternation.after_step()

    def _retriever_loss(self, batch: SequenceBatch) -> Tensor:
        """The retriever's own loss, SASRec left as it is; and the fusion's, if that learns."""
        with self._sasrec_still(), torch.no_grad():
            asked, targets = self._ask(batch, sample=True)
            table, embed = self._sasrec_table(), self._still()
        if self.params["query"] == "candidate":
            return self._candidates_loss(asked, embed, table, targets)
        r, weights = self.retriever(asked, embed, move=True)
        self._watch("experts", weights.detach().mean(0))
        if not self.next_item.whole:
            return self._sampled_loss(r, embed, targets)
        texts = self.retriever.table(embed(None))
        loss = losses.full_cross_entropy(self._retriever_logits(r), texts, targets)
        if self.fusion.learns:
            # the fusion alone learns of this one: few weights, for which some positions will do
            h, r, targets = (x[::FUSION_EVERY] for x in (asked.query, r.detach(), targets))
            loss = loss + self._fused_loss(h, table, r, texts.detach(), targets)
        return loss

    def _everything_loss(self, batch: SequenceBatch) -> Tensor:
        own = super().loss(batch)
        asked, targets = self._ask(batch, sample=True)
        items = self.items if self.outputs is None else self.outputs
        embed = _lookup(_whole(self.items.looked_up(whole=True)))
        table = embed(None) if self.outputs is None else _whole(items.looked_up(whole=True))
        if self.params["similarity"] == "cosine":
            table = F.normalize(table.float(), dim=1)
        r, weights = self.retriever(asked, embed, move=True)
        self._watch("experts", weights.detach().mean(0))
        texts = self.retriever.table(embed(None))
        theirs = losses.full_cross_entropy(self._retriever_logits(r), texts, targets)
        return self._fused_loss(asked.query, table, r, texts, targets) + 0.5 * (own + theirs)

    def _sampled_loss(self, r: Tensor, embed: Embed, targets: Tensor) -> Tensor:
        """Softmax over negatives that are drawn uniformly, the same for all positions."""
        count = (int(self.params["n_sample"]),)
        negatives = torch.randint(self.catalogue.n_items, count, device=r.device)
        items, places = torch.unique(torch.cat((targets, negatives)), return_inverse=True)
        table, r = self.retriever.table(embed(items), items), self._retriever_logits(r)
        targets, negatives = places[: len(targets)], places[len(targets) :]
        negative = losses.negative_logits(r, table, targets, negatives)
        return losses.sampled_softmax(losses.positive_logits(r, table, targets), negative)

    def _fused_loss(
        self, h: Tensor, items: Tensor, r: Tensor, texts: Tensor, targets: Tensor
    ) -> Tensor:
        """Cross-entropy of the fused scores over the catalogue."""
        h, r = self._sasrec_logits(h), self._retriever_logits(r)
        weight = self.fusion.weight(h, r)
        self._watch("fusion", weight.detach().mean())
        table = torch.cat((items.float(), texts), 1)
        return losses.full_cross_entropy(self.fusion(h, items, r, texts, weight), table, targets)

    def _candidates_loss(
        self, asked: Asked, embed: Embed, table: Tensor, targets: Tensor
    ) -> Tensor:
        """Of the right item among some that are drawn uniformly."""
        shape = (len(targets), self.params["candidate_negatives"])
        drawn = torch.randint(self.catalogue.n_items, shape, device=targets.device)
        candidates = torch.cat((targets[:, None], drawn), 1)
        scores, weights = self._candidate_scores(asked, candidates, embed, move=True)
        self._watch("experts", weights.detach().mean((0, 1)))
        same = F.pad(drawn == targets[:, None], (1, 0))
        right = torch.zeros_like(targets)
        loss = F.cross_entropy(scores.masked_fill(same, -torch.inf), right)
        if not self.fusion.learns:
            return loss
        h = self._sasrec_logits(asked.query)
        theirs = (table[candidates] * h[:, None]).sum(2)
        weight = self.fusion.weight(h, torch.zeros_like(h))
        self._watch("fusion", weight.detach().mean())
        fused = fuse(theirs, scores.detach(), weight, self.params["fusion_scale"])
        return loss + F.cross_entropy(fused.masked_fill(same, -torch.inf), right)

    # -- parts ------------------------------------------------------------------------------

    def _ask(self, batch: SequenceBatch, sample: bool) -> tuple[Asked, Tensor]:
        """The positions with a target, or a sample of them with the last of every row; their
        targets."""
        layout = Unpadding(batch.lengths, batch.items.shape[1])
        states, _ = self.states(_everywhere(batch))
        targets = layout.pack(batch.targets)
        wanted = targets >= 0
        if sample and self.params["positions"] < 1:
            drawn = torch.rand(len(targets), device=targets.device) < self.params["positions"]
            last = layout.position == (layout.lengths - 1)[layout.row]
            wanted &= drawn | last
        tokens = wanted.nonzero().squeeze(1)
        length = min(int(self.params["context_length"]), batch.items.shape[1])
        return Asked.at(batch, layout, tokens, states, length), targets[tokens]

    def _still(self) -> Embed:
        """SASRec's embeddings, fixed."""
        return _lookup(self.items.all_items().detach())

    def _sasrec_table(self) -> Tensor:
        table: Tensor = super().item_table()[0]
        return table

    def _sasrec_logits(self, h: Tensor) -> Tensor:
        """What :meth:`item_table` is multiplied with to give the logits that were trained."""
        if self.params["similarity"] == "cosine":
            h = F.normalize(h.float(), dim=1)
        return h.float() / float(self.params["temperature"])

    def _retriever_logits(self, r: Tensor) -> Tensor:
        return r / float(self.params["retriever_temperature"])

    @contextmanager
    def _sasrec_still(self) -> Iterator[None]:
        """Within, SASRec drops nothing out."""
        parts = [part for name, part in self.named_children() if name not in OWN]
        for part in parts:
            part.eval()
        try:
            yield
        finally:
            for part in parts:
                part.train(self.training)

    def _watch(self, name: str, value: Tensor) -> None:
        self.watched.setdefault(name, []).append(value)

    # -- ranking ----------------------------------------------------------------------------

    @property
    def scores_itself(self) -> bool:
        return self.params["query"] == "candidate" and self._by != BY_SASREC

    @property
    def _by(self) -> int:
        return int(self.ranked_by)

    def encode(self, batch: SequenceBatch) -> Tensor:
        if self._by == BY_SASREC:
            return super().encode(batch)
        asked, _ = self._ask(batch, sample=False)
        embed = self._still()
        r, _ = self.retriever(asked, embed, move=False)
        if self._by == BY_RETRIEVER:
            own: Tensor = r
            return own
        h, r = self._sasrec_logits(asked.query), self._retriever_logits(r)
        items, texts = self._sasrec_table(), self.retriever.table(embed(None))
        fused: Tensor = self.fusion(h, items, r, texts, self.fusion.weight(h, r))
        return fused

    def item_table(self) -> tuple[Tensor, Tensor | None]:
        if self._by == BY_SASREC:
            return super().item_table()
        texts = self.retriever.table(self._still()(None))
        both = texts if self._by == BY_RETRIEVER else torch.cat((self._sasrec_table(), texts), 1)
        return both, None

    def score(self, batch: SequenceBatch) -> Tensor:
        """SASRec's scores; with query candidate the first ``rerank`` of them ranked anew."""
        if not self.scores_itself:
            return super().score(batch)
        asked, _ = self._ask(batch, sample=False)
        h, table = self._sasrec_logits(asked.query), self._sasrec_table().float()
        scores = h @ table.T
        first = scores.topk(min(int(self.params["rerank"]), scores.shape[1]), 1)
        anew, _ = self._candidate_scores(asked, first.indices, self._still(), move=False)
        if self._by == FUSED:
            weight = self.fusion.weight(h, torch.zeros_like(h))
            anew = fuse(first.values, anew, weight, self.params["fusion_scale"])
        # above all the others, which stay in SASRec's order
        lift = first.values.amax(1, keepdim=True) - anew.amin(1, keepdim=True)
        return scores.scatter(1, first.indices, anew + lift + 1)

    def _candidate_scores(
        self, asked: Asked, candidates: Tensor, embed: Embed, move: bool
    ) -> tuple[Tensor, Tensor]:
        """Of candidates [Q, C], and the experts' weights."""
        r, weights = self.retriever.of_candidates(asked, candidates, embed, move)
        known, at = torch.unique(candidates, return_inverse=True)
        matched = F.embedding(at, self.retriever.table(embed(known), known))
        return (r * matched).sum(2) / self.params["retriever_temperature"], weights

    def add_items(self, items: Table, count: int) -> None:
        if count and self._by != BY_SASREC:
            raise NotImplementedError("its retriever matches the items of its training only")
        super().add_items(items, count)

    # -- what is kept -----------------------------------------------------------------------

    def keyed_rows(self) -> dict[str, Rows]:
        raise NotImplementedError("its texts and its memory are of the users of its own data")

    def training_state(self) -> dict[str, Any]:
        store = self.retriever.store
        own = {"alternation": self.alternation.state(), "since": store.since if store else 0}
        return super().training_state() | own

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        super().load_training_state(state)
        self.alternation.load(state["alternation"])
        if self.retriever.store is not None:
            self.retriever.store.since = state["since"]

    def memory(self) -> dict[str, Tensor]:
        return {} if self.retriever.store is None else self.retriever.store.tensors()

    def load_memory(self, memory: Mapping[str, Tensor]) -> None:
        if self.retriever.store is not None:
            self.retriever.store.load(memory)

    def memory_facts(self) -> dict[str, float]:
        return {} if self.retriever.store is None else self.retriever.store.facts()

    @classmethod
    def memory_bytes(cls, params: Mapping[str, Any], facts: Facts) -> int:
        if not remembers(params):
            return 0
        rows = min(int(params["memory_users"]), facts.n_users)
        return bytes_of(rows, int(params["max_memory_size"]), int(params["dim"]))

    def update_memory(self, batch: SequenceBatch) -> int:
        asked, _ = self._ask(_everywhere(batch), sample=False)
        return self.retriever.update(asked, self._still(), self.catalogue.facts.has_times)

    def worked_out(self) -> dict[str, Tensor]:
        found = super().worked_out()
        for name, texts in (("texts", self.retriever.texts), ("wishes", self.retriever.wishes)):
            if texts is not None:
                found[f"retriever/{name}"] = texts.rows()
        return found

    def load_worked_out(self, tensors: Mapping[str, Tensor]) -> None:
        super().load_worked_out(tensors)
        for name, texts in (("texts", self.retriever.texts), ("wishes", self.retriever.wishes)):
            if texts is not None:
                texts.keep(tensors[f"retriever/{name}"])


def _lookup(table: Tensor) -> Embed:
    """Rows [..., d] of items [...], or the table where it is asked for nothing."""
    return lambda items: table if items is None else F.embedding(items, table)


def _whole(known: LookedUp) -> Tensor:
    """The table of all items."""
    return known.table()[0]


def _real(batch: SequenceBatch) -> Tensor:
    """Items [B, L], −1 where padded: targets that ask for every position."""
    column = torch.arange(batch.items.shape[1], device=batch.items.device)
    return torch.where(column < batch.lengths[:, None], batch.items, -1)


def _everywhere(batch: SequenceBatch) -> SequenceBatch:
    """The batch with something asked at every position."""
    return replace(batch, targets=_real(batch))


MODEL = UR4Rec
