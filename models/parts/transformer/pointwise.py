"""HSTU's attention within rows: pointwise, without a softmax (arXiv 2402.17152, eq. 2)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.kernels.library import Biases, Kernels, Triangles, kernels
from models.parts.contract import SequenceBatch
from models.parts.transformer.attention import LONGEST, to_rows, to_tokens
from models.parts.transformer.positions import RelativeBias, bucket_cells, time_buckets
from models.parts.transformer.unpadding import Unpadding


class Pointwise:
    """(SiLU(QKᵀ + rab) / N)·V over a batch's tokens, each seeing its row up to itself.

    What all blocks need of the batch is worked out once. On a CPU with kernels of its own, and by
    ``attention_kernel=triton`` on a GPU, nothing is padded.
    """

    def __init__(self, params: Mapping[str, Any], batch: SequenceBatch, layout: Unpadding) -> None:
        """``params``: HSTU's."""
        self.params, self.batch, self.layout = params, batch, layout
        self.timed = params["relative_bias"] in ("time", "both")
        asked = batch.query_times if params["time_mode"] == "query" else batch.times
        self.since = asked[:, : layout.width]
        self.times = batch.times[:, : layout.width]
        longest = params["max_length"] if params["normaliser"] == "max" else 0
        self.normaliser = float(longest)  # 0: what a query sees
        self._packed_buckets: Tensor | None = None

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, heads: int, bias: RelativeBias | None
    ) -> Tensor:
        """Queries and keys [T, H·d], values [T, H·d_v] → [T, H·d_v]."""
        position = None if bias is None else bias.position
        time = None if bias is None else bias.time
        found: Tensor
        if self.params["attention_kernel"] == "triton" and q.is_cuda and not self.layout.plain:
            module = triton_kernels()
            if max(q.shape[1], v.shape[1]) // heads <= module.WIDEST:
                found = _ByTriton.apply(q, k, v, position, time, self._sequences, heads, module)
                return found
        native = self._native(q, k, v, heads)
        if native is None:
            return self._padded(q, k, v, heads, bias)
        how = _How(native, self._triangles, heads, self._buckets(native), self.normaliser)
        found = _Packed.apply(q, k, v, position, time, how)
        return found

    # -- as the tokens lie ------------------------------------------------------------------

    def _native(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Kernels | None:
        if self.params["attention_kernel"] == "torch" or self.layout.plain:
            return None
        if self.layout.width > LONGEST or not Kernels.take(*(x[:, :0] for x in (q, k, v))):
            return None
        native = kernels()
        shortest = min(q.shape[1], v.shape[1]) // heads
        return native if native is not None and shortest >= native.shortest_row else None

    @cached_property
    def _triangles(self) -> Triangles:
        lengths = self.layout.lengths
        starts = F.pad((lengths * (lengths + 1) // 2).cumsum(0), (1, 0))
        return Triangles(self.layout.bounds, starts, self.layout.width)

    def _buckets(self, native: Kernels) -> Tensor | None:
        if not self.timed:
            return None
        if self._packed_buckets is None:
            since, times = (self.layout.pack(x).contiguous() for x in (self.since, self.times))
            cells = bucket_cells(self.params["time_buckets"])
            self._packed_buckets = native.time_buckets(since, times, self._triangles, *cells)
        return self._packed_buckets

    # -- on a GPU, as the tokens lie --------------------------------------------------------

    @cached_property
    def _sequences(self) -> Any:
        layout, device = self.layout, self.times.device
        since, times = (layout.pack(x).contiguous() for x in (self.since, self.times))
        cells = (x.to(device) for x in bucket_cells(self.params["time_buckets"]))
        return triton_kernels().Sequences(
            layout.bounds, layout.width, self.normaliser, since, times, *cells
        )

    # -- padded -----------------------------------------------------------------------------

    def _padded(
        self, q: Tensor, k: Tensor, v: Tensor, heads: int, bias: RelativeBias | None
    ) -> Tensor:
        seen = []
        for tokens, layout, weight, buckets in self._groups:
            added = None if bias is None else bias(layout.width, buckets)
            query, key, value = (to_rows(x[tokens], layout, heads) for x in (q, k, v))
            seen.append(to_tokens(pointwise_attention(query, key, value, added, weight), layout))
        return seen[0] if len(seen) == 1 else torch.cat(seen)

    @cached_property
    def _groups(self) -> list[tuple[slice, Unpadding, Tensor, Tensor | None]]:
        """Of each group of rows its tokens, its layout, mask over normaliser [L, L] and buckets
        of time [B, L, L]."""
        found = []
        for rows, tokens, layout in self.layout.groups:
            width, buckets = layout.width, None
            if self.timed:
                since, times = self.since[rows, :width], self.times[rows, :width]
                buckets = time_buckets(since, times, self.params["time_buckets"])
            kind, longest = self.params["normaliser"], self.params["max_length"]
            weight = causal_weight(width, kind, longest, self.times.device)
            found.append((tokens, layout, weight, buckets))
        return found


@dataclass(frozen=True)
class _How:
    """What has no gradient: the rows, ``normaliser`` (0: what a query sees), packed ``buckets``."""

    native: Kernels
    rows: Triangles
    heads: int
    buckets: Tensor | None
    normaliser: float

    def biases(self, position: Tensor | None, time: Tensor | None) -> Biases:
        back = None if position is None else position[: self.rows.longest].flip(0)
        return Biases(back, time, self.buckets)


class _Packed(Function):
    """The same, forwards and backwards by :mod:`models.kernels.library`."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, position: Tensor | None, time: Tensor | None,
        how: _How,
    ) -> Tensor:  # fmt: skip
        ctx.how = how
        q, k, v = (x if x.stride(1) == 1 else x.contiguous() for x in (q, k, v))
        ctx.save_for_backward(q, k, v, position, time)
        biases = how.biases(position, time)
        return how.native.pointwise(q, k, v, how.rows, how.heads, biases, how.normaliser)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        how: _How = ctx.how
        q, k, v, position, time = ctx.saved_tensors
        dq, dk, dv, back, dtime = how.native.pointwise_backward(
            grads[0].contiguous(), q, k, v, how.rows, how.heads, how.biases(position, time),
            how.normaliser,
        )  # fmt: skip
        if back is not None and position is not None:
            back = F.pad(back.flip(0), (0, len(position) - len(back)))
        return dq, dk, dv, back, dtime, None


def triton_kernels() -> ModuleType:
    """:mod:`models.kernels.pointwise_triton`, imported when wanted: PyTorch for a CPU comes
    without Triton.

    Raises:
        ValueError: Triton is not there.
    """
    try:
        return importlib.import_module("models.kernels.pointwise_triton")
    except ImportError as error:
        raise ValueError(
            f"attention_kernel triton needs the package triton, and it cannot be imported "
            f"({error}); set attention_kernel to auto"
        ) from error


class _ByTriton(Function):
    """The same on a GPU, by :mod:`models.kernels.pointwise_triton`."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, position: Tensor | None, time: Tensor | None,
        rows: Any, heads: int, module: ModuleType,
    ) -> Tensor:  # fmt: skip
        ctx.rows, ctx.heads, ctx.module = rows, heads, module
        q, k, v = (x if x.stride(1) == 1 else x.contiguous() for x in (q, k, v))
        ctx.save_for_backward(q, k, v, position, time)
        out: Tensor = module.forward(q, k, v, position, time, rows, heads)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0].contiguous()
        found = ctx.module.backward(grad, *ctx.saved_tensors, ctx.rows, ctx.heads)
        return (*found, None, None, None)


def pointwise_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, weight: Tensor
) -> Tensor:
    """(SiLU(QKᵀ + bias) ⊙ weight)·V for rows [B, H, L, d] (HSTU, arXiv 2402.17152, eq. 2).

    ``weight`` [L, L] is the causal mask over the normaliser. It comes after the SiLU: a masked
    key must count for exactly zero, and SiLU has no value that −inf would reach.
    """
    scores = q @ k.transpose(2, 3)
    if bias is not None:
        scores = scores + bias
    return (F.silu(scores) * weight) @ v


def causal_weight(width: int, normaliser: str, max_length: int, device: torch.device) -> Tensor:
    """[L, L]: 1/N on and below the diagonal. N is ``max_length`` ("max"; not the row's own
    length, which would tell a token how many follow it), or what the query sees ("visible")."""
    ones = torch.ones(width, width, device=device).tril()
    if normaliser == "visible":
        return ones / torch.arange(1, width + 1, device=device)[:, None]
    return ones / max_length
