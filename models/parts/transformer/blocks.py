"""Pieces of a transformer block over tokens [T, d]: norms, feed-forwards, skips."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.transformer.dropout import Dropout

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class RMSNorm(nn.Module):
    """x · g / √(mean x² + 1e-6), statistics in float32 (arXiv 1910.07467)."""

    def __init__(self, dim: int, affine: bool = True) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim)) if affine else None
        self.shape = (dim,)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.shape, self.gain, eps=1e-6).to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """LayerNorm (arXiv 1607.06450), statistics in float32 whatever the autocast."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


def make_norm(kind: str, dim: int, affine: bool = True) -> nn.Module:
    """``kind`` is "layer" or "rms"."""
    if kind == "rms":
        return RMSNorm(dim, affine)
    return LayerNorm(dim, eps=1e-6, elementwise_affine=affine)


def linear(n_in: int, n_out: int, bias: bool = True) -> nn.Linear:
    """Weights from N(0, 0.02), no bias to begin with."""
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.normal_(layer.weight, std=0.02)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class SwiGLU(nn.Module):
    """W₂(SiLU(W₁x) ⊙ W₃x), no biases (arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.gate_and_value = linear(dim, 2 * hidden, bias=False)
        self.out = linear(hidden, dim, bias=False)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gate_and_value(x).chunk(2, -1)
        out: Tensor = self.out(self.drop(F.silu(gate) * value))
        return out


class FeedForward(nn.Module):
    """W₂ · Drop(act(W₁x)) (arXiv 1808.09781, eq. 4); ``activation`` "relu" or "gelu"."""

    def __init__(self, dim: int, hidden: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.inner, self.out = linear(dim, hidden), linear(hidden, dim)
        self.activation = ACTIVATIONS[activation]
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.drop(self.activation(self.inner(x))))
        return out


def make_feed_forward(dim: int, hidden: int, activation: str, dropout: float) -> nn.Module:
    """``activation`` is "relu", "gelu" or "swiglu"."""
    if activation == "swiglu":
        return SwiGLU(dim, hidden, dropout)
    return FeedForward(dim, hidden, activation, dropout)


class GatedSkip(nn.Module):
    """x + σ(W_g x) ⊙ f: a skip whose branch each channel lets through by degrees (LiGR,
    arXiv 2502.03417)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = linear(dim, dim)

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + torch.sigmoid(self.gate(x)) * branch


class PlainSkip(nn.Module):
    """x + f."""

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + branch


def make_skip(kind: str, dim: int) -> nn.Module:
    """``kind`` is "plain" or "ligr"."""
    return GatedSkip(dim) if kind == "ligr" else PlainSkip()
