"""Attention of few queries over few keys: an expert's, the proxies', the memory's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.parts.transformer.blocks import linear
from models.parts.transformer.dropout import Dropout


class FewKeys(nn.Module):
    """softmax(QKᵀ/√d)·V with heads; each of R rows has C queries and K keys of its own."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(dim / heads)
        self.query, self.key_value = linear(dim, dim), linear(dim, 2 * dim)
        self.merge = linear(dim, dim)

    def forward(self, q: Tensor, kv: Tensor, there: Tensor) -> Tensor:
        """``q`` [R, C, d]; ``kv`` [R, K, 2d], what :attr:`key_value` made of the keys; ``there``
        [R, K], or [R, C, K], bool. A query without any key gets zeros. [R, C, d]."""
        key, value = kv.chunk(2, -1)
        query = self.query(q) * self.scale
        there = there[:, None] if there.dim() == 2 else there
        if q.shape[1] == 1:
            seen = self._of_one_query(query, key, value, there[:, 0])
        else:
            query, key, value = (self._split(x) for x in (query, key, value))
            weights = _softmax(query @ key.transpose(2, 3), there[:, None], -1)
            seen = (weights @ value).transpose(1, 2).flatten(2)
        out: Tensor = self.merge(seen)
        return out * there.any(-1)[..., None].to(out.dtype)

    def _of_one_query(self, q: Tensor, key: Tensor, value: Tensor, there: Tensor) -> Tensor:
        """Element by element: a product of matrices for each row costs a CPU several times that."""
        heads = (*key.shape[:2], self.heads, -1)
        scores = (q * key).view(heads).sum(-1)
        weights = _softmax(scores, there[..., None], 1)
        return (weights[..., None] * value.view(heads)).sum(1).flatten(1)[:, None]

    def of_one_key(self, kv: Tensor) -> Tensor:
        """The same where every row has one key [R, 1, 2d], which gets all of the attention."""
        out: Tensor = self.merge(kv.chunk(2, -1)[1])
        return out

    def of_own_and_shared(self, x: Tensor, shared: Tensor) -> Tensor:
        """Rows [n, d] that attend to themselves and to ``shared`` [M, d]: [n, d]."""
        query = (self.query(x) * self.scale).view(len(x), self.heads, -1)
        own_key, own_value = (
            part.view(len(x), self.heads, -1) for part in self.key_value(x).chunk(2, 1)
        )
        keys, values = (
            part.view(len(shared), self.heads, -1).transpose(0, 1)
            for part in self.key_value(shared).chunk(2, 1)
        )
        of_shared = (query.transpose(0, 1) @ keys.transpose(1, 2)).transpose(0, 1)
        scores = torch.cat(((query * own_key).sum(2, keepdim=True), of_shared), 2)
        weights = torch.softmax(scores.float(), 2).to(x.dtype)
        mixed = (weights[..., 1:].transpose(0, 1) @ values).transpose(0, 1)
        out: Tensor = self.merge((weights[..., :1] * own_value + mixed).flatten(1))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


def _softmax(scores: Tensor, there: Tensor, dim: int) -> Tensor:
    """In float32, over what is there; where nothing is, the outcome is not looked at."""
    masked = scores.float().masked_fill(~there, -1e9)
    return torch.softmax(masked, dim).to(scores.dtype)


class Proxies(nn.Module):
    """r = LN(m + Drop(MHA(m, [m; P], [m; P]))) with learned vectors P [M, d]."""

    def __init__(self, dim: int, heads: int, count: int, dropout: float) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(count, dim) / math.sqrt(dim))
        self.attention = FewKeys(dim, heads)
        self.drop, self.norm = Dropout(dropout), nn.LayerNorm(dim)

    def forward(self, m: Tensor) -> Tensor:
        """[R, C, d] → [R, C, d]; each attends to itself and to the proxies."""
        rows = m.flatten(0, 1)
        seen = self.attention.of_own_and_shared(rows, self.vectors)
        out: Tensor = self.norm(rows + self.drop(seen))
        return out.view_as(m)
