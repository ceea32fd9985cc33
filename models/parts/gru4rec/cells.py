"""Gated recurrent cells, one time step, with the backward pass written by hand.

Two cells, as in GRU4Rec's reference: :class:`GruCell` has PyTorch's (and cuDNN's) layout and
applies the reset gate after the recurrent product; :class:`RowGruCell` reads its input product as
a row of a table (an item's one-hot vector times a matrix) and applies it before, as in Cho et al.
2014 (arXiv 1406.1078). There is no backpropagation through time: the state before the step is a
constant (arXiv 1511.06939, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.gru4rec.activations import Activation
from models.parts.gru4rec.matmul import CellContext

_aten = torch.ops.aten
Initialiser = Callable[[Tensor], None]  # fills a matrix [rows, columns] in place


class GruCell(nn.Module):
    """r, z = σ(W x + b + U h + c), n = act(W x + b + r∘(U h + c)), h' = (1−z)∘n + z∘h.

    ``weight_ih`` [3H, in], ``weight_hh`` [3H, H], ``bias_ih`` and ``bias_hh`` [3H], gates in the
    order r, z, n: the layout of ``torch.nn.GRUCell``.
    """

    def __init__(self, n_in: int, size: int, act: Activation, fill: Initialiser) -> None:
        super().__init__()
        self.size = size
        self.act = act
        self.weight_ih = nn.Parameter(torch.empty(3 * size, n_in))
        self.weight_hh = nn.Parameter(torch.empty(3 * size, size))
        self.bias_ih = nn.Parameter(torch.zeros(3 * size))
        self.bias_hh = nn.Parameter(torch.zeros(3 * size))
        for weight in (self.weight_ih, self.weight_hh):
            for block in weight.detach().chunk(3):
                fill(block)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """The next state [M, H] from inputs [M, in] and state [M, H]; differentiable."""
        return self.advance(self.project(x), h)

    def project(self, x: Tensor) -> Tensor:
        """The input's share of the gates, for any number of time steps at once: […, 3H]."""
        return F.linear(x, self.weight_ih, self.bias_ih)

    def advance(self, gates: Tensor, h: Tensor) -> Tensor:
        """The next state from the input's share of the gates [M, 3H] and the state [M, H]."""
        r_x, z_x, n_x = gates.chunk(3, -1)
        r_h, z_h, n_h = F.linear(h, self.weight_hh, self.bias_hh).chunk(3, -1)
        z = torch.sigmoid(z_x + z_h)
        n = self.act(n_x + torch.sigmoid(r_x + r_h) * n_h)
        return torch.lerp(n, h, z)

    def step(self, x: Tensor, h: Tensor, tools: CellContext, name: str) -> Tensor:
        """As :meth:`forward` without a graph; keeps what :meth:`backward` needs in buffers."""
        m, size, scratch = len(x), self.size, tools.scratch
        gates = scratch(f"{name}.gates", m, 3 * size)
        recurrent = scratch(f"{name}.recurrent", m, 3 * size)
        tools.dots(x, self.weight_ih, self.bias_ih, out=gates)
        tools.dots(h, self.weight_hh, self.bias_hh, out=recurrent)
        rz = scratch(f"{name}.rz", m, 2 * size)
        torch.add(gates[:, : 2 * size], recurrent[:, : 2 * size], out=rz).sigmoid_()
        n = scratch(f"{name}.n", m, size)
        torch.addcmul(gates[:, 2 * size :], rz[:, :size], recurrent[:, 2 * size :], out=n)
        self.act.apply_(n)
        return torch.lerp(n, h, rz[:, size:], out=scratch(f"{name}.out", m, size))

    def backward(self, grad: Tensor, x: Tensor, h: Tensor, tools: CellContext, name: str) -> Tensor:
        """Tell the gradients of weights, write those of biases; return the inputs' [M, in].

        ``grad`` [M, H] is the gradient of what :meth:`step` returned for ``x`` and ``h``.
        """
        m, size, scratch = len(x), self.size, tools.scratch
        recurrent = scratch(f"{name}.recurrent", m, 3 * size)[:, 2 * size :]
        rz = scratch(f"{name}.rz", m, 2 * size)
        r, z = rz[:, :size], rz[:, size:]
        n = scratch(f"{name}.n", m, size)
        spare = scratch(f"{name}.spare", m, size)
        d = scratch(f"{name}.dgates", m, 3 * size)
        d_r, d_z, d_n = d[:, :size], d[:, size : 2 * size], d[:, 2 * size :]
        torch.mul(grad, z, out=spare)
        torch.sub(grad, spare, out=d_n)
        self.act.backward_(d_n, n)
        torch.sub(h, n, out=spare).mul_(grad)
        _aten.sigmoid_backward.grad_input(spare, z, grad_input=d_z)
        torch.mul(d_n, recurrent, out=spare)
        _aten.sigmoid_backward.grad_input(spare, r, grad_input=d_r)
        dx = tools.weighed(d, self.weight_ih, out=scratch(f"{name}.dx", m, x.shape[1]))
        tools.learn(self.weight_ih, d, x)
        torch.sum(d, 0, out=_grad(self.bias_ih))
        d_n.mul_(r)  # d is now the gradient of the recurrent product
        tools.learn(self.weight_hh, d, h)
        torch.sum(d, 0, out=_grad(self.bias_hh))
        return dx


class RowGruCell(nn.Module):
    """r, z = σ(x + b + h W), c = act(x + b + (r∘h) W), h' = (1−z)∘h + z∘c.

    ``x`` [M, 3H] are rows of the input table, in the order c, r, z; ``weight_rz`` [H, 2H],
    ``weight_c`` [H, H], ``bias`` [3H].
    """

    def __init__(self, size: int, act: Activation, fill: Initialiser) -> None:
        super().__init__()
        self.size = size
        self.act = act
        self.weight_rz = nn.Parameter(torch.empty(size, 2 * size))
        self.weight_c = nn.Parameter(torch.empty(size, size))
        self.bias = nn.Parameter(torch.zeros(3 * size))
        for block in (*self.weight_rz.detach().chunk(2, 1), self.weight_c.detach()):
            fill(block)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """The next state [M, H] from rows [M, 3H] and state [M, H]; differentiable."""
        return self.advance(self.project(x), h)

    def project(self, x: Tensor) -> Tensor:
        return x + self.bias

    def advance(self, gates: Tensor, h: Tensor) -> Tensor:
        c_x, rz_x = gates[..., : self.size], gates[..., self.size :]
        r, z = torch.sigmoid(rz_x + h @ self.weight_rz).chunk(2, -1)
        return torch.lerp(h, self.act(c_x + (r * h) @ self.weight_c), z)

    def step(self, x: Tensor, h: Tensor, tools: CellContext, name: str) -> Tensor:
        """As :meth:`forward` without a graph; keeps what :meth:`backward` needs in buffers."""
        m, size, scratch = len(x), self.size, tools.scratch
        gates = torch.add(x, self.bias, out=scratch(f"{name}.gates", m, 3 * size))
        rz = scratch(f"{name}.rz", m, 2 * size)
        tools.weighed(h, self.weight_rz, out=rz).add_(gates[:, size:]).sigmoid_()
        rh = torch.mul(rz[:, :size], h, out=scratch(f"{name}.rh", m, size))
        c = scratch(f"{name}.c", m, size)
        tools.weighed(rh, self.weight_c, out=c).add_(gates[:, :size])
        self.act.apply_(c)
        return torch.lerp(h, c, rz[:, size:], out=scratch(f"{name}.out", m, size))

    def backward(self, grad: Tensor, x: Tensor, h: Tensor, tools: CellContext, name: str) -> Tensor:
        """Tell the gradients of weights, write the bias's; return the rows' [M, 3H]."""
        m, size, scratch = len(x), self.size, tools.scratch
        rz = scratch(f"{name}.rz", m, 2 * size)
        r, z = rz[:, :size], rz[:, size:]
        rh, c = scratch(f"{name}.rh", m, size), scratch(f"{name}.c", m, size)
        spare = scratch(f"{name}.spare", m, size)
        d = scratch(f"{name}.dx", m, 3 * size)
        d_c, d_r, d_z = d[:, :size], d[:, size : 2 * size], d[:, 2 * size :]
        torch.mul(grad, z, out=d_c)
        self.act.backward_(d_c, c)
        torch.sub(c, h, out=spare).mul_(grad)
        _aten.sigmoid_backward.grad_input(spare, z, grad_input=d_z)
        tools.dots(d_c, self.weight_c, None, out=spare).mul_(h)
        _aten.sigmoid_backward.grad_input(spare, r, grad_input=d_r)
        tools.learn(self.weight_c, rh, d_c)
        tools.learn(self.weight_rz, h, d[:, size:])
        torch.sum(d, 0, out=_grad(self.bias))
        return d


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "the optimiser lays out the gradients before the first step"
    return parameter.grad


def glorot_bound(rows: int, columns: int) -> float:
    """√(6/(rows + columns)), the bound of Glorot and Bengio 2010, equation 16."""
    return math.sqrt(6 / (rows + columns))
