"""Adagrad with heavy-ball momentum, dense and on touched rows, by hand and in place.

Duchi et al. 2011: A ← A + g², step = lr · g / √(A + ε); the momentum of Polyak 1964:
v ← μ·v − step, p ← p + v. Rows that a step doesn't touch keep p, A and v as they are. ε is the
accumulators' first value, which saves adding it in every step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.kernels.library import Kernels
from models.parts.gru4rec.workspace import Workspace

EPSILON = 1e-6
_ONE = torch.ones(())  # the kernel's step count, which only a decaying rate looks at


@dataclass(frozen=True, slots=True)
class Rule:
    """How far a gradient moves its parameters. ``decay`` shrinks them first, by lr·decay.

    Without ``host``, also on a CPU, it is done by what every device has, in the order in which
    a graph replays it. ``kernels`` do it in one pass where there are any.
    """

    learning_rate: float
    momentum: float
    decay: float = 0.0
    host: bool = True
    kernels: Kernels | None = None

    @property
    def numbers(self) -> tuple[float, float, float]:
        """Learning rate, momentum, and what a step leaves of a weight."""
        return self.learning_rate, self.momentum, 1 - self.learning_rate * self.decay

    def apply(
        self, weight: Tensor, grad: Tensor, squares: Tensor, velocity: Tensor | None, spare: Tensor
    ) -> None:
        """One step in place; ``spare`` has the same shape, its content is lost."""
        if self.decay:
            weight.mul_(1 - self.learning_rate * self.decay)
        if velocity is None:
            self._descend(weight, grad, squares, spare)
        else:
            self._descend(velocity.mul_(self.momentum), grad, squares, spare)
            weight.add_(velocity)

    def _descend(self, moved: Tensor, grad: Tensor, squares: Tensor, spare: Tensor) -> None:
        """A ← A + g², moved ← moved − lr·g/√A."""
        if self.host and moved.device.type == "cpu":
            # the kernel of torch.optim.Adagrad(fused=True): one pass over memory instead of three
            torch.ops.aten._fused_adagrad_(
                [moved], [grad], [squares], [_ONE], lr=self.learning_rate,
                lr_decay=0.0, weight_decay=0.0, eps=0.0, maximize=False,
            )  # fmt: skip
            return
        squares.addcmul_(grad, grad)
        torch.sqrt(squares, out=spare)
        moved.addcdiv_(grad, spare, value=-self.learning_rate)


class DenseAdagrad:
    """Parameters that every step moves, laid out in one vector: one step is a handful of calls.

    The parameters become views on that vector and their ``grad`` views on another. With ``at_once``
    matrices are moved by the rule's kernels as soon as their gradient is told, without a ``grad``.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], rule: Rule, at_once: bool = False
    ) -> None:
        self.parameters = list(parameters)
        self.rule = rule
        self.weight = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        self.grad = torch.zeros_like(self.weight)
        self.squares = torch.full_like(self.weight, EPSILON)
        self.velocity = torch.zeros_like(self.weight) if rule.momentum else None
        self.spare = torch.empty_like(self.weight)
        self._own: dict[int, tuple[Tensor, Tensor | None]] = {}  # what is moved at once
        self._rest: list[slice] = []
        begin = 0
        for p in self.parameters:
            part = slice(begin, begin + p.numel())
            begin = part.stop
            p.data, p.grad = (t[part].view(p.shape) for t in (self.weight, self.grad))
            if at_once and rule.kernels is not None and rule.kernels.multiply(p):
                velocity = None if self.velocity is None else self.velocity[part].view(p.shape)
                self._own[p.data_ptr()] = self.squares[part].view(p.shape), velocity
            elif self._rest and self._rest[-1].stop == part.start:
                self._rest[-1] = slice(self._rest[-1].start, part.stop)
            else:
                self._rest.append(part)

    @property
    def attached(self) -> bool:
        """Whether the parameters still are what this optimiser moves (``.to()`` replaces them)."""
        return self.parameters[0].data_ptr() == self.weight.data_ptr()

    def learn(self, parameter: Tensor, d: Tensor, x: Tensor) -> None:
        """Its gradient is dᵀ·x, for ``d`` [m, rows] and ``x`` [m, columns]."""
        own = self._own.get(parameter.data_ptr())
        if own is None:
            assert parameter.grad is not None, "laid out above"
            torch.mm(d.t(), x, out=parameter.grad)
        else:
            assert self.rule.kernels is not None, "multiply() was asked"
            self.rule.kernels.learn(parameter, *own, *self.rule.numbers, product=(d, x))

    def step(self) -> None:
        """Move what has not been moved at once."""
        for part in self._rest:
            weight, grad, squares = (t[part] for t in (self.weight, self.grad, self.squares))
            velocity = None if self.velocity is None else self.velocity[part]
            if self.rule.kernels is not None:
                self.rule.kernels.adagrad(weight, squares, velocity, grad, *self.rule.numbers)
            else:
                self.rule.apply(weight, grad, squares, velocity, self.spare[part])

    def state(self) -> dict[str, Tensor]:
        """The accumulators: views on what the next step changes."""
        return _named(self.squares, self.velocity)


class RowAdagrad:
    """A table of rows [n, d] (or of numbers [n]) of which a step reads and moves a few.

    The storage has one row more than the parameter: index n is where the padding of a step with
    a fixed number of rows reads and writes.
    """

    def __init__(self, parameter: nn.Parameter, rule: Rule, scratch: Workspace, name: str) -> None:
        self.parameter = parameter
        self.rule = rule
        self.scratch = scratch
        self.name = name
        n, *rest = parameter.shape
        self.rest = tuple(rest)
        self.weight = parameter.new_zeros((n + 1, *rest))
        self.weight[:n].copy_(parameter.detach())
        self.squares = torch.full_like(self.weight, EPSILON)
        self.velocity = torch.zeros_like(self.weight) if rule.momentum else None
        parameter.data = self.weight[:n]

    @property
    def attached(self) -> bool:
        """Whether the parameter still is what this optimiser moves (``.to()`` replaces it)."""
        return self.parameter.data_ptr() == self.weight.data_ptr()

    def gather(self, rows: Tensor) -> Tensor:
        """The rows [k, …], a copy that is :meth:`step`'s to change."""
        return self._read(self.weight, rows, "rows")

    def grad(self, k: int) -> Tensor:
        """Where the gradient of the k gathered rows is to be written."""
        return self.scratch(f"{self.name}.grad", k, *self.rest)

    def step(self, rows: Tensor) -> None:
        """Move the rows that :meth:`gather` read last, each once; no id may occur twice."""
        k = len(rows)
        if self.rule.kernels is not None:
            self.rule.kernels.adagrad_rows(
                self.weight, self.squares, self.velocity, self.grad(k), rows, *self.rule.numbers
            )
            return
        weight = self.scratch(f"{self.name}.rows", k, *self.rest)
        squares = self._read(self.squares, rows, "squares")
        velocity = None if self.velocity is None else self._read(self.velocity, rows, "velocity")
        spare = self.scratch(f"{self.name}.spare", k, *self.rest)
        self.rule.apply(weight, self.grad(k), squares, velocity, spare)
        self._write(self.weight, rows, weight)
        self._write(self.squares, rows, squares)
        if self.velocity is not None and velocity is not None:
            self._write(self.velocity, rows, velocity)

    def state(self) -> dict[str, Tensor]:
        """The accumulators of the parameter's rows: views on what the next step changes."""
        velocity = None if self.velocity is None else self.velocity[:-1]
        return _named(self.squares[:-1], velocity)

    def _read(self, table: Tensor, rows: Tensor, what: str) -> Tensor:
        out = self.scratch(f"{self.name}.{what}", len(rows), *self.rest)
        if self.rule.kernels is not None:
            return self.rule.kernels.gather(table, rows, out)
        return torch.index_select(table, 0, rows, out=out)

    def _write(self, table: Tensor, rows: Tensor, values: Tensor) -> None:
        """table[rows] = values; the rows are distinct."""
        if self.rule.host and table.device.type == "cpu":
            # NumPy copies whole rows, index_copy_ number by number
            table.numpy()[rows.numpy()] = values.numpy()
        else:
            table.index_copy_(0, rows, values)


def _named(squares: Tensor, velocity: Tensor | None) -> dict[str, Tensor]:
    return {"squares": squares} if velocity is None else {"squares": squares, "velocity": velocity}
