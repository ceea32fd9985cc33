"""Session k-NN: what sessions like this one went on with (V-SkNN and STAN among its points)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.parts.contract import Catalogue, Param, SequenceBatch, TrainingEvents
from models.parts.counting import (
    AGE_DECAY,
    AT_ONCE,
    DECAYS,
    MAX_LENGTH,
    CountingModel,
    Prefixes,
    decay,
    distinct,
    prefixes,
    ranges,
    session_of,
    session_weights,
)

RECENT = 10  # events over which votes fall linearly
_VSKNN, _STAN = "Ludewig & Jannach 2018, section 2.2", "Garg et al. 2019, section 3"


class SessionKnn(CountingModel):
    """Of the sessions that share an item, the latest ``sample`` are compared, and the
    ``neighbours`` most similar vote for their items.

    similarity(s, n) = Σ over shared items of w(ago), times e^(−age_decay · age of n); ``cosine``
    divides by √(|s| · |n|), in distinct items. w is ``item_decay``: the latest event has weight 1,
    earlier ones less. Each neighbour votes with its similarity; ``votes`` weights that further:
    "distance" by e^(−|p(i) − p(i*)| / vote_tau), where p are places in the neighbour and i* is the
    shared item that s saw last; a decay by how long ago i* was, "linear" over ten events. ``idf``
    adds idf · log(sessions / sessions with the item) times the vote.

    V-SkNN is linear decay with dot products; STAN is exponential decay (λ₁ = item_tau), cosine,
    age_decay (span of the log / λ₂) and votes by distance (λ₃ = vote_tau).
    """

    PARAMS = (
        Param("neighbours", "int", 100, "sessions that vote", low=1, high=10_000, source=_VSKNN),
        Param("sample", "int", 500, "latest sessions with a shared item that are compared", low=1,
              high=100_000, source=_VSKNN),
        Param("item_decay", "str", "linear", "weight of earlier items of the session",
              choices=DECAYS, source=_VSKNN),
        Param("item_tau", "float", 1.0, "of item_decay exponential, in events", low=0,
              low_open=True, source=_STAN),
        Param("similarity", "str", "dot", "of a session and a neighbour",
              choices=("dot", "cosine"), source=_VSKNN),
        Param("votes", "str", "same", "what a neighbour's items are weighted by",
              choices=("same", "distance", "linear", "harmonic", "quadratic", "logarithmic"),
              source=f"{_VSKNN}; {_STAN}"),
        Param("vote_tau", "float", 2.0, "of votes distance, in events", low=0, low_open=True,
              source=_STAN),
        Param("idf", "float", 0.0, "weight of rarity in a vote", low=0, high=100),
        MAX_LENGTH,
        AGE_DECAY,
    )  # fmt: skip

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        # distinct items of the training sessions, by session, and where each was last
        self.register_buffer("edges", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("items", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("places", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("ages", torch.zeros(0))  # e^(−age_decay · age)
        self.edges: Tensor
        self.items: Tensor
        self.places: Tensor
        self.ages: Tensor
        self._index: _Index | None = None

    def count(self, events: TrainingEvents) -> None:
        n_items = self.catalogue.n_items
        session = session_of(events)
        places = ranges(events.offsets.diff())
        keys = session * n_items + events.items
        order = torch.sort(keys, stable=True).indices
        ordered = keys[order]
        last = torch.ones_like(ordered, dtype=torch.bool)
        last[:-1] = ordered[1:] != ordered[:-1]
        kept = order[last]
        sessions = torch.arange(len(events.offsets), device=session.device)
        self.edges = torch.searchsorted(session[kept].contiguous(), sessions)
        self.items, self.places = events.items[kept].int(), places[kept].int()
        self.ages = session_weights(events, self.params["age_decay"])
        self._index = None

    # -- scoring ----------------------------------------------------------------------------

    def score(self, batch: SequenceBatch) -> Tensor:
        if self._index is None:
            self._index = _Index.of(self.edges, self.items, self.places, self.catalogue.n_items)
        found = prefixes(batch, int(self.params["max_length"]))
        own = distinct(found, self.catalogue.n_items)
        targets = len(found.lengths)
        looked_at = self._index.edges.diff()[own.items].clamp(max=int(self.params["sample"]))
        if targets > 1 and int(looked_at.sum()) > AT_ONCE:
            return torch.cat([self.score(part) for part in batch.parts(-(-targets // 2))])
        near = self._nearest(self._shared(own, found.lengths, self._index), own.lengths)
        return self.ordered(self._votes(near, targets, self._index))

    def _shared(self, own: Prefixes, steps: Tensor, index: _Index) -> _Shared:
        """All that each prefix shares with the latest sessions of each of its items."""
        tau = float(self.params["item_tau"])
        weights = decay(str(self.params["item_decay"]), own.ago, steps[own.rows], tau)
        end = index.edges[own.items + 1]
        taken = (end - index.edges[own.items]).clamp(max=int(self.params["sample"]))
        at = (end - taken).repeat_interleave(taken) + ranges(taken)
        rows, ago = own.rows.repeat_interleave(taken), own.ago.repeat_interleave(taken)
        n_sessions = len(self.edges) - 1
        keys, place = torch.unique(rows * n_sessions + index.sessions[at], return_inverse=True)
        similar = weights.new_zeros(len(keys)).index_add_(
            0, place, weights.repeat_interleave(taken)
        )
        # of the shared items the one seen last, and where the neighbour had it, in one number
        most = int(steps.max()) + 1
        code = torch.full_like(keys, most << 32)
        code.scatter_reduce_(0, place, (ago << 32) + index.places[at], "amin")
        row = torch.div(keys, n_sessions, rounding_mode="floor")
        return _Shared(row, keys - row * n_sessions, similar, code >> 32, code & 0xFFFFFFFF)

    def _nearest(self, shared: _Shared, lengths: Tensor) -> _Shared:
        """The neighbours of each prefix; of equally similar ones the later."""
        ends = torch.searchsorted(
            shared.rows, torch.arange(len(lengths), device=lengths.device), right=True
        )
        after = ends[shared.rows] - 1 - torch.arange(len(shared.rows), device=lengths.device)
        shared = shared.of(after < int(self.params["sample"]))  # sessions are in order of time
        similar = shared.similar * self.ages[shared.sessions]
        if self.params["similarity"] == "cosine":
            sizes = self.edges.diff()[shared.sessions] * lengths[shared.rows]
            similar = similar / sizes.sqrt()
        later = torch.arange(len(similar) - 1, -1, -1, device=similar.device)
        order = later[torch.sort(similar[later], descending=True, stable=True).indices]
        order = order[torch.sort(shared.rows[order], stable=True).indices]
        begins = torch.searchsorted(shared.rows, shared.rows)
        ahead = torch.arange(len(order), device=order.device) - begins
        kept = order[ahead < int(self.params["neighbours"])]
        return shared._replace(similar=similar).of(kept)

    def _votes(self, near: _Shared, n_targets: int, index: _Index) -> Tensor:
        """[targets, n_items]."""
        n_items = self.catalogue.n_items
        kind = str(self.params["votes"])
        weight = near.similar
        if kind != "distance":
            weight = weight * decay(kind, near.ago, RECENT).clamp(min=0)
        begins = self.edges[near.sessions]
        sizes = self.edges[near.sessions + 1] - begins
        at = begins.repeat_interleave(sizes) + ranges(sizes)
        items, weights = self.items[at], weight.repeat_interleave(sizes)
        if kind == "distance":
            apart = (self.places[at] - near.places.repeat_interleave(sizes)).abs()
            weights = weights * torch.exp(-apart / float(self.params["vote_tau"]))
        if self.params["idf"] > 0:
            weights = weights * (1 + float(self.params["idf"]) * index.rarity[items])
        votes = weights.new_zeros(n_targets * n_items)
        votes.index_add_(0, near.rows.repeat_interleave(sizes) * n_items + items, weights)
        return votes.view(n_targets, n_items)


class _Shared(NamedTuple):
    """Pairs of a prefix and a training session, rows ascending: their similarity, how long ago the
    shared item was that the prefix saw last, and where the session had it last."""

    rows: Tensor
    sessions: Tensor
    similar: Tensor
    ago: Tensor
    places: Tensor

    def of(self, kept: Tensor) -> _Shared:
        return _Shared(*(part[kept] for part in self))


class _Index(NamedTuple):
    """Sessions by item: those of item i are sessions[edges[i]]…, the latest last, which had it at
    ``places``; ``rarity`` [n_items] is log(sessions / sessions with it)."""

    edges: Tensor
    sessions: Tensor
    places: Tensor
    rarity: Tensor

    @classmethod
    def of(cls, edges: Tensor, items: Tensor, places: Tensor, n_items: int) -> _Index:
        sizes = edges.diff()
        sessions = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
        by_item = torch.sort(items.long(), stable=True)
        numbers = torch.arange(n_items + 1, device=items.device)
        own = torch.searchsorted(by_item.values, numbers)
        rarity = torch.log(len(sizes) / own.diff().clamp(min=1))
        return cls(own, sessions[by_item.indices], places[by_item.indices].long(), rarity)


MODEL = SessionKnn
