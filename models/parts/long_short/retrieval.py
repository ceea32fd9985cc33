"""How users are told apart: ranks of a user's own short part, hits of next items, and floors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.parts.contract import Catalogue, SequenceBatch
from models.parts.long_short.bags import counted, idf
from models.parts.long_short.stretches import Histories, Tokens, tokens_of

TOP = 20  # of next items and categories
_CHUNK = 256  # users whose scores are held at once
Metrics = dict[str, float | Tensor]


def own_ranks(scores: Callable[[slice], Tensor], users: int) -> Tensor:
    """The rank [users] float64 of each user's own short part among all of them, from 1.

    ``scores`` gives, of some users' long parts, those of all short parts. Of parts with one score
    a rank is the middle, as nothing tells them apart.
    """
    ranks = []
    for begin in range(0, users, _CHUNK):
        some = slice(begin, min(users, begin + _CHUNK))
        of = scores(some)
        own = of.gather(1, torch.arange(begin, some.stop, device=of.device)[:, None])
        ties = (of == own).sum(1) - 1
        ranks.append((of > own).sum(1).double() + ties.double() / 2 + 1)
    return torch.cat(ranks)


def rank_metrics(ranks: Tensor) -> Metrics:
    """What is reported of ranks [users], user by user."""
    return {
        "mrr": 1 / ranks,
        "hr@1": (ranks <= 1).double(),
        "hr@10": (ranks <= 10).double(),
    }


# -- next items and categories ---------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """What short parts have: the ``users`` [n] of their events and the ``codes`` [n] of these."""

    users: Tensor
    codes: Tensor

    def known(self, size: int) -> Wanted:
        """Those whose code is below ``size``, and none of what is unknown."""
        which = (self.codes >= 0) & (self.codes < size)
        return Wanted(self.users[which], self.codes[which])

    def hits(self, best: Tensor) -> float | None:
        """The share of events that are among the ``best`` [users, k] codes; None of none."""
        if not len(self.codes):
            return None
        return float((best[self.users] == self.codes[:, None]).any(1).double().mean())


def nearest(vectors: Tensor, table: Callable[[slice], Tensor], size: int, chunk: int) -> Tensor:
    """The :data:`TOP` codes [users, k] whose vectors have the largest products with ``vectors``
    [users, d]; ``table`` gives those of some codes."""
    values = vectors.new_zeros(len(vectors), 0)
    codes = torch.zeros(len(vectors), 0, dtype=torch.int64, device=vectors.device)
    for begin in range(0, size, chunk):
        some = slice(begin, min(size, begin + chunk))
        scores = torch.cat([values, vectors @ table(some).T], 1)
        here = torch.arange(begin, some.stop, device=vectors.device).expand(len(vectors), -1)
        all_codes = torch.cat([codes, here], 1)
        values, at = scores.topk(min(TOP, scores.shape[1]), 1)
        codes = all_codes.gather(1, at)
    return codes


def next_metrics(**found: float | None) -> Metrics:
    """Hits by what was wanted; what nobody wanted is left out."""
    return {f"next_{name}_hr@{TOP}": hits for name, hits in found.items() if hits is not None}


# -- floors ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """The users of an evaluation that have both parts, batch by batch."""

    long: list[Tokens]
    short: list[Tokens]

    @classmethod
    def of(cls, batches: Iterable[SequenceBatch]) -> Judged:
        long, short = [], []
        for batch in batches:
            histories = Histories.whole(batch)
            parts = histories.parts()
            both = (parts[0].lengths > 0) & (parts[1].lengths > 0)
            if bool(both.any()):
                long.append(tokens_of(histories, parts[0].of(both)))
                short.append(tokens_of(histories, parts[1].of(both)))
        return cls(long, short)

    @property
    def users(self) -> int:
        return sum(tokens.rows for tokens in self.long)

    def wanted(self, column: str | None) -> Wanted:
        """What the short parts have: items, or the codes of a column."""
        users, codes = _numbered(self.short, column)
        return Wanted(users, codes)


def floors(catalogue: Catalogue, judged: Judged) -> dict[str, Metrics]:
    """TF-IDF of items, of categories, of both summed, and popularity for what comes next."""
    holders, n_sessions = catalogue.holders, catalogue.facts.n_sessions
    sizes: dict[str, tuple[str | None, int, Tensor | None]] = {
        "items": (None, catalogue.n_items, holders.get("item"))
    }
    category = catalogue.facts.columns.get("category")
    if category is not None and "category" in judged.short[0].columns:
        sizes["categories"] = ("category", category.size, holders.get("category"))
    bags = {
        name: _Bags(judged, column, idf(held, size, n_sessions))
        for name, (column, size, held) in sizes.items()
    }
    found = {
        f"TF-IDF of {name}": rank_metrics(own_ranks(bag.scores, judged.users))
        for name, bag in bags.items()
    }
    if len(bags) > 1:

        def both(some: slice) -> Tensor:
            return sum((bag.scores(some) for bag in bags.values()), torch.zeros(()))

        found["TF-IDF of both"] = rank_metrics(own_ranks(both, judged.users))
    popular: dict[str, float | None] = {}
    for word, (column, size, held) in zip(("item", "category"), sizes.values(), strict=False):
        count = catalogue.support if column is None else held
        assert count is not None
        best = count.topk(min(TOP, size)).indices.expand(judged.users, -1)
        popular[word] = judged.wanted(column).known(size).hits(best)
    found["popularity"] = next_metrics(**popular)
    return found


class _Bags:
    """The bags of all users' parts over the codes that both kinds of part have; others match
    nothing, and count in the lengths only."""

    def __init__(self, judged: Judged, column: str | None, weights: Tensor) -> None:
        sides = [_weighed(side, column, weights) for side in (judged.long, judged.short)]
        shared = sides[0][1][torch.isin(sides[0][1], sides[1][1])].unique()
        users = judged.users
        self.long, self.short = (
            _matrix(user, code, value, shared, users) for user, code, value in sides
        )

    def scores(self, some: slice) -> Tensor:
        """Cosines of some long parts with all short ones [some, users]."""
        rows = torch.arange(some.start, some.stop)
        picked = self.long.index_select(0, rows).to_dense()
        found: Tensor = torch.sparse.mm(self.short, picked.T).T
        return found


def _weighed(
    side: list[Tokens], column: str | None, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """User, code and weight of each code of a part, divided by the bag's length."""
    user, code = _numbered(side, column)
    user, code = user[code >= 0].cpu(), code[code >= 0].cpu()
    value = counted(code, user) * weights[code.clamp(max=len(weights) - 1)]
    size = int(code.max()) + 1 if len(code) else 1
    key, inverse = torch.unique(user * size + code, return_inverse=True)
    value = torch.zeros(len(key)).index_add(0, inverse, value)
    user, code = key // size, key % size
    squares = torch.zeros(int(user.max()) + 1 if len(user) else 1).index_add(0, user, value**2)
    return user, code, value / squares.sqrt()[user]


def _matrix(user: Tensor, code: Tensor, value: Tensor, shared: Tensor, users: int) -> Tensor:
    there = torch.isin(code, shared)
    at = torch.searchsorted(shared, code[there])
    places = torch.stack([user[there], at])
    size = (users, len(shared))
    return torch.sparse_coo_tensor(places, value[there], size, check_invariants=True).coalesce()


def _numbered(side: list[Tokens], column: str | None) -> tuple[Tensor, Tensor]:
    """The user of each event, numbered over all batches in the order asked for, and its code."""
    users, codes, before = [], [], 0
    for tokens in side:
        place = tokens.back.argsort()  # of each row of tokens in the order asked for
        users.append(place[tokens.row] + before)
        codes.append(tokens.items if column is None else tokens.columns[column])
        before += tokens.rows
    return torch.cat(users), torch.cat(codes)
