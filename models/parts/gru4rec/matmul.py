"""The matrix products of a cell, and what it works with else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.kernels.library import Kernels
from models.parts.gru4rec.workspace import Workspace


@dataclass(frozen=True, slots=True)
class CellContext:
    """Buffers, products, and ``learn(weight, d, x)``, which takes the gradient dᵀ·x of a weight.

    ``learn`` may move the weight at once: a cell calls it when it needs the weight no more.
    """

    scratch: Workspace
    learn: Callable[[Tensor, Tensor, Tensor], None]
    kernels: Kernels | None = None

    def dots(self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
        """``x`` [m, k] · ``weight`` [c, k]ᵀ + ``bias`` [c] to ``out`` [m, c]."""
        if self.kernels is not None and self.kernels.multiply(weight):
            return self.kernels.dots(x, weight, bias, out)
        if bias is None:
            return torch.mm(x, weight.t(), out=out)
        return torch.addmm(bias, x, weight.t(), out=out)

    def weighed(self, d: Tensor, weight: Tensor, out: Tensor) -> Tensor:
        """``d`` [m, c] · ``weight`` [c, k] to ``out`` [m, k]."""
        if self.kernels is not None and self.kernels.multiply(weight):
            return self.kernels.weighed(d, weight, out)
        return torch.mm(d, weight, out=out)
