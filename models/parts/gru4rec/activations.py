"""Activations by the names that GRU4Rec's parameters give them.

``linear``, ``relu``, ``tanh``, ``leaky-X`` (slope X below zero), ``elu-X`` (α = X) and
``selu-λ-α`` (λ · elu with that α). Each knows its derivative from its *output*, so that a
hand-written backward pass needs no copy of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"
PATTERN = rf"linear|relu|tanh|leaky-{NUMBER}|elu-{NUMBER}|selu-{NUMBER}-{NUMBER}"

_aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Activation:
    """One elementwise function. ``slope`` is leaky's; ``scale`` and ``alpha`` are (s)elu's."""

    kind: Literal["linear", "tanh", "leaky", "elu"]
    slope: float = 0.0
    scale: float = 1.0
    alpha: float = 1.0

    @classmethod
    def named(cls, name: str) -> Activation:
        """The activation that ``name`` spells.

        Raises:
            ValueError: it spells none.
        """
        head, *numbers = name.replace("e-", "e_").split("-")
        values = [float(number.replace("e_", "e-")) for number in numbers]
        match head, values:
            case ("linear", []):
                return cls("linear")
            case ("tanh", []):
                return cls("tanh")
            case ("relu", []):
                return cls("leaky")
            case ("leaky", [slope]):
                return cls("leaky", slope=slope)
            case ("elu", [alpha]):
                return cls("elu", alpha=alpha)
            case ("selu", [scale, alpha]):
                return cls("elu", scale=scale, alpha=alpha)
        raise ValueError(f"{name!r} is no activation")

    def __call__(self, x: Tensor) -> Tensor:
        """The activated copy of ``x``, differentiable."""
        if self.kind == "tanh":
            return torch.tanh(x)
        if self.kind == "leaky":
            return F.leaky_relu(x, self.slope)
        if self.kind == "elu":
            return F.elu(x, self.alpha) * self.scale
        return x

    def apply_(self, x: Tensor) -> Tensor:
        """Activate ``x`` in place."""
        if self.kind == "tanh":
            return x.tanh_()
        if self.kind == "leaky":
            return F.leaky_relu_(x, self.slope)
        if self.kind == "elu":
            _aten.elu_(x, self.alpha, self.scale, 1.0)
        return x

    def backward_(self, grad: Tensor, y: Tensor) -> Tensor:
        """Multiply ``grad`` in place with the derivative where the output was ``y``."""
        if self.kind == "tanh":
            _aten.tanh_backward.grad_input(grad, y, grad_input=grad)
        elif self.kind == "leaky":
            _aten.leaky_relu_backward.grad_input(grad, y, self.slope, True, grad_input=grad)
        elif self.kind == "elu":
            _aten.elu_backward.grad_input(
                grad, self.alpha, self.scale, 1.0, True, y, grad_input=grad
            )
        return grad
