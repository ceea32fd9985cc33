"""The retriever: from SASRec's states and what a user's latest items say to vectors that texts and
embeddings of items are matched with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import Catalogue, SequenceBatch
from models.parts.transformer.blocks import LayerNorm, linear
from models.parts.transformer.unpadding import Unpadding
from models.parts.ur4rec.attention import Proxies
from models.parts.ur4rec.experts import Context, Mixture
from models.parts.ur4rec.memory import Grid, Memory, Moved
from models.parts.ur4rec.params import remembers, trains
from models.parts.ur4rec.store import Remembered, Store
from models.parts.ur4rec.texts import Texts

LONG_AGO = torch.iinfo(torch.int64).min
Embed = Callable[[Tensor | None], Tensor]
"""SASRec's embeddings [..., d] of items [...]; of all of them, where it is asked for nothing."""


@dataclass(frozen=True)
class Asked:
    """Q positions of a batch, in its order: the ``tokens`` [Q] of ``layout`` that they are, their
    ``rows`` [Q], what they ask with [Q, d], and the latest items [Q, m] up to each."""

    batch: SequenceBatch
    layout: Unpadding
    tokens: Tensor
    query: Tensor
    items: Tensor
    there: Tensor

    @property
    def rows(self) -> Tensor:
        return self.layout.row[self.tokens]

    @classmethod
    def at(
        cls, batch: SequenceBatch, layout: Unpadding, tokens: Tensor, states: Tensor, length: int
    ) -> Asked:
        """Of SASRec's ``states`` [T, d]; ``length`` is how many items are looked at."""
        back = torch.arange(length - 1, -1, -1, device=tokens.device)
        there = back <= layout.position[tokens][:, None]
        items = layout.pack(batch.items)[(tokens[:, None] - back).clamp(min=0)]
        return cls(batch, layout, tokens, states[tokens], items, there)

    def grid(self, since: Tensor, met: Tensor) -> Grid:
        """The positions by row. Events later than ``since`` [B] count as interactions, from
        ``met`` [B] on."""
        own = torch.zeros(len(self.batch.items), dtype=torch.int64, device=self.tokens.device)
        own.index_add_(0, self.rows, torch.ones_like(self.tokens))
        column = torch.arange(max(1, int(own.max())), device=own.device)
        real = column < own[:, None]
        of = ((own.cumsum(0) - own)[:, None] + column).where(real, 0)
        event = self.layout.position[self.tokens[of]]
        new = (self.batch.times > since[:, None]).long()
        count = met[:, None] + new.cumsum(1).gather(1, event)
        return Grid(of, real, count, self.batch.times.gather(1, event))


class Retriever(nn.Module):
    """Texts, experts, router, proxies and memory (the formulas are in their files)."""

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue) -> None:
        super().__init__()
        self.params = dict(params)
        dim, heads = int(params["dim"]), int(params["retriever_heads"])
        dropout, proxies = float(params["retriever_dropout"]), int(params["moe_num_proxies"])
        self.texts, self.wishes = (
            Texts(table, params[names], dim) if params[names] and trains(params) else None
            for table, names in ((catalogue.items, "item_text"), (catalogue.users, "user_text"))
        )
        self.embedded, self.embedded_norm = linear(dim, dim), LayerNorm(dim)
        with torch.no_grad():
            self.embedded.weight.copy_(torch.eye(dim))
        self.mixture = Mixture(
            self._experts(),
            dim,
            heads,
            round(dim * params["retriever_ffn"]),
            dropout,
            proxies > 0,
            float(params["router_temperature"]),
        )
        self.proxies = Proxies(dim, heads, proxies, dropout) if proxies else None
        self.norm = LayerNorm(dim)
        self.memory = Memory(params) if remembers(params) else None
        self.store: Store | None = None
        if self.memory is not None:
            most, ring = int(params["memory_users"]), int(params["max_memory_size"])
            self.store = Store(catalogue.facts.n_users, most, ring, dim)

    def _experts(self) -> list[str]:
        """Those that have something to read."""
        has = {"preference": self.wishes, "descriptions": self.texts, "embeddings": self.embedded}
        return [name for name in self.params["retriever_experts"] if has[name] is not None]

    # -- items ------------------------------------------------------------------------------

    def own(self, embeddings: Tensor) -> Tensor:
        """SASRec's embeddings [n, d] on the scale of the texts."""
        out: Tensor = self.embedded_norm(self.embedded(embeddings))
        return out

    def table(self, embeddings: Tensor, items: Tensor | None = None) -> Tensor:
        """What items are matched by [n, d], of length 1: the mean of text and embedding."""
        own = self.own(embeddings)
        mean = own if self.texts is None else (own + self.texts.rows(items)) / 2
        return F.normalize(mean.float(), dim=1)

    # -- positions --------------------------------------------------------------------------

    def contexts(
        self, asked: Asked, items: Tensor, there: Tensor, embed: Embed
    ) -> dict[str, Context]:
        """What each expert reads; ``items`` [R, K] are read of, ``embed`` gives embeddings."""
        known, at = torch.unique(items, return_inverse=True)
        found = {}
        for name in self.mixture.names:
            if name == "preference":
                found[name] = self._preference(asked)
            elif name == "descriptions":
                assert self.texts is not None
                found[name] = Context(self.texts.rows(known), at, there)
            else:
                found[name] = Context(self.own(embed(known)), at, there)
        return found

    def _preference(self, asked: Asked) -> Context:
        """One key for each position: its user's text, nothing where nobody knows who it is."""
        assert self.wishes is not None and asked.batch.users is not None
        users = asked.batch.users
        known = (users >= 0) & (users < len(self.wishes))
        texts = self.wishes.rows(torch.where(known, users, 0))
        rows = asked.rows[:, None]
        return Context(texts, rows, known[rows])

    def forward(self, asked: Asked, embed: Embed, move: bool) -> tuple[Tensor, Tensor]:
        """Vectors [Q, d] of length 1 and the experts' weights [Q, experts]; in training (``move``)
        the memory moves."""
        contexts = self.contexts(asked, asked.items, asked.there, embed)
        r, weights = self._mixed(asked.query[:, None], contexts)
        if self.memory is not None:
            r = self._remembering(asked, r, r[:, 0], move, explicit=False)
        return F.normalize(r[:, 0].float(), dim=1), weights[:, 0]

    def of_candidates(
        self, asked: Asked, candidates: Tensor, embed: Embed, move: bool
    ) -> tuple[Tensor, Tensor]:
        """The same for ``candidates`` [Q, C]: vectors [Q, C, d], weights [Q, C, experts].

        What a memory is moved by is the vector that asks with the position's own item.
        """
        if self.memory is not None and move:
            candidates = torch.cat((candidates, asked.items[:, -1:]), 1)
        query = embed(candidates)
        if self.params["contexts"] == "candidate":
            r, weights = self._by_themselves(asked, query, candidates, embed)
        else:
            contexts = self.contexts(asked, asked.items, asked.there, embed)
            r, weights = self._mixed(self.own(query), contexts)
        if self.memory is not None:
            r = self._remembering(asked, r, r[:, -1], move, explicit=False)
            if move:
                r, weights = r[:, :-1], weights[:, :-1]
        return F.normalize(r.float(), dim=2), weights

    def _by_themselves(
        self, asked: Asked, query: Tensor, candidates: Tensor, embed: Embed
    ) -> tuple[Tensor, Tensor]:
        """Each candidate reads its own text and embedding, as the seed's."""
        each = candidates.reshape(-1, 1)
        many = replace(asked, tokens=asked.tokens.repeat_interleave(candidates.shape[1]))
        contexts = self.contexts(many, each, torch.ones_like(each, dtype=torch.bool), embed)
        r, weights = self._mixed(self.own(query).reshape(len(each), 1, -1), contexts)
        return r.view(*candidates.shape, -1), weights.view(*candidates.shape, -1)

    def _mixed(self, q: Tensor, contexts: dict[str, Context]) -> tuple[Tensor, Tensor]:
        m, weights = self.mixture(q, contexts)
        return (self.norm(m) if self.proxies is None else self.proxies(m)), weights

    # -- memory -----------------------------------------------------------------------------

    def _remembering(
        self, asked: Asked, r: Tensor, z: Tensor, move: bool, explicit: bool
    ) -> Tensor:
        """``r`` [Q, C, d] after a look into the memory, which ``z`` [Q, d] moves if it may."""
        memory, store, users = self.memory, self.store, asked.batch.users
        assert memory is not None and store is not None and users is not None
        store.to(users.device)
        start = store.get(users, anew=move)
        if move:
            # what is remembered of later than the window would tell it what it is to predict
            start = start.only(start.seen <= asked.batch.times[:, 0])
        grid = asked.grid(torch.full_like(users, LONG_AGO), start.interactions)
        if not move:
            there = _right_aligned(start.states.shape[1], start.filled)
            there = there[:, None].expand(-1, grid.of.shape[1], -1)
            return memory.read(r, grid, start.states.to(r.dtype), there)
        moved = memory.move(z, grid, start, explicit)
        store.put(users, moved.after, anew=True)
        return memory.read(r, grid, moved.states, memory.visible(moved, start.filled))

    @torch.no_grad()
    def update(self, asked: Asked, embed: Embed, timed: bool) -> int:
        """Move the memories of the batch's users by all of its positions; of events with times
        (``timed``) those later than what is remembered. How many users there were."""
        memory, store, users = self.memory, self.store, asked.batch.users
        if memory is None or store is None or users is None:
            return 0
        store.to(users.device)
        start = store.get(users)
        met = start.interactions > 0
        since = torch.where(met & timed, start.seen, LONG_AGO)
        new = (asked.layout.pack(asked.batch.times) > since[asked.layout.row])[asked.tokens]
        asked = replace(
            asked,
            tokens=asked.tokens[new],
            query=asked.query[new],
            items=asked.items[new],
            there=asked.there[new],
        )
        if not len(asked.tokens):
            return 0
        contexts = self.contexts(asked, asked.items, asked.there, embed)
        query = asked.query
        if self.params["query"] == "candidate":
            query = self.own(embed(asked.items[:, -1]))
        r, _ = self._mixed(query[:, None], contexts)
        moved = self.memory_moved(r[:, 0], asked, since, start)
        touched = torch.zeros_like(users, dtype=torch.bool).index_fill_(0, asked.rows, True)
        store.put(torch.where(touched, users, -1), moved.after)
        return int((touched & (users >= 0)).sum())

    def memory_moved(self, z: Tensor, asked: Asked, since: Tensor, start: Remembered) -> Moved:
        """Memories after the positions that were asked for."""
        assert self.memory is not None
        grid = asked.grid(since, start.interactions)
        return self.memory.move(z, grid, start, explicit=True)


def _right_aligned(width: int, filled: Tensor) -> Tensor:
    """[B, width]: the last ``filled`` [B] of each row."""
    return torch.arange(width, device=filled.device) >= width - filled[:, None]
