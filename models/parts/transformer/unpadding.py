"""Padding dropped: a right-padded batch as a list of its real positions, and back.

Linear layers, norms and losses work on tokens [T, …]; only attention sees rows [B, L, …]. Tokens
are in row-major order. Both directions are copies of rows, forwards and backwards: as every
token has one place, nothing is ever summed.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

GROUPS = 4  # that a batch's rows are cut into, at most
_GROUP_ROWS = 4  # of one group, at least
_WORTH = 0.8  # groups must save a fifth of attention


class Unpadding:
    """Where the tokens of a batch lie: ``lengths`` [B], longest first, ``width`` L.

    ``row`` and ``position`` [T] int64 say where each token came from.
    """

    def __init__(self, lengths: Tensor, width: int) -> None:
        self.lengths, self.rows, self.width = lengths, len(lengths), width
        column = torch.arange(width, device=lengths.device)
        self.where = (column < lengths[:, None]).flatten().nonzero().squeeze(1)
        self.full = len(self.where) == self.rows * width
        self.row = self.where // width
        self.position = self.where % width
        self.plain = False

    @property
    def tokens(self) -> int:
        return len(self.where)

    @cached_property
    def bounds(self) -> Tensor:
        """Where each row's tokens begin, and the end of the last: [B + 1]."""
        return F.pad(self.lengths.cumsum(0), (1, 0))

    @cached_property
    def groups(self) -> list[tuple[slice, slice, Unpadding]]:
        """Rows of like length together: the slice of rows, that of their tokens, their layout.

        Attention grows with the square of a row's padded length, and a random batch has rows of
        all lengths. On a GPU, where reading lengths would wait for the device, there is one group.
        """
        whole = [(slice(0, self.rows), slice(0, self.tokens), self)]
        count = min(GROUPS, self.rows // _GROUP_ROWS)
        if self.lengths.device.type != "cpu" or count < 2:
            return whole
        sizes = self.lengths.tolist()
        cuts = [self.rows * group // count for group in range(count + 1)]
        bounds = list(pairwise(cuts))
        area = sum((end - begin) * max(sizes[begin:end]) ** 2 for begin, end in bounds)
        if area > _WORTH * self.rows * self.width**2:
            return whole
        groups, token = [], 0
        for begin, end in bounds:
            after = token + sum(sizes[begin:end])
            layout = Unpadding(self.lengths[begin:end], max(sizes[begin:end]))
            groups.append((slice(begin, end), slice(token, after), layout))
            token = after
        return groups

    def pack(self, padded: Tensor) -> Tensor:
        """[B, L, …] → [T, …]."""
        flat = padded.flatten(0, 1)
        if self.full:
            return flat
        packed: Tensor = _Pack.apply(flat, self.where)
        return packed

    def unpack(self, tokens: Tensor) -> Tensor:
        """[T, …] → [B, L, …], zero where padded."""
        flat = tokens
        if not self.full:
            size = self.rows * self.width
            flat = _Unpack.apply(tokens, self.where, size)
        return flat.view(self.rows, self.width, *tokens.shape[1:])


class Plain(Unpadding):
    """Nothing dropped: padding has tokens too, which nothing real sees as it comes after.

    All shapes follow from ``rows`` and ``width``, so that a model can be recorded with it.
    """

    def __init__(self, lengths: Tensor, rows: int, width: int) -> None:
        self.lengths, self.rows, self.width = lengths, rows, width
        self.where = torch.arange(rows * width, device=lengths.device)
        self.full = self.plain = True
        self.row, self.position = self.where // width, self.where % width

    @cached_property
    def groups(self) -> list[tuple[slice, slice, Unpadding]]:
        return [(slice(None), slice(None), self)]


def _spread(tokens: Tensor, where: Tensor, size: int) -> Tensor:
    return tokens.new_zeros(size, *tokens.shape[1:]).index_copy_(0, where, tokens)


class _Pack(Function):
    """index_select, whose own backward sums rows one after another."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, where: Tensor) -> Tensor:
        ctx.save_for_backward(where)
        ctx.size = len(flat)
        return flat.index_select(0, where)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (where,) = ctx.saved_tensors
        return _spread(grads[0], where, ctx.size), None


class _Unpack(Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, where: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(where)
        return _spread(tokens, where, size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (where,) = ctx.saved_tensors
        return grads[0].index_select(0, where), None, None
