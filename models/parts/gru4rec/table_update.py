"""A step's work with rows of a table: multiplying with them, and moving them by their gradient.

:class:`Gathered` copies the rows together, for PyTorch's matrix products; :class:`InPlace` leaves
them where they are, for those of :mod:`models.kernels.library`. Both hold the gradient of a step
until :meth:`step`: of the products, and of rows that were read for themselves.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from models.kernels.library import Kernels
from models.parts.gru4rec.adagrad import RowAdagrad
from models.parts.gru4rec.unique_rows import add_groups_

Sums = tuple[Tensor, Tensor, Tensor]  # one step's models.parts.gru4rec.unique_rows.Groups


class RowTable(Protocol):
    """Rows [k, d] of a table, and their gradient."""

    def read(self, rows: Tensor) -> None:
        """Begin a step with these distinct rows [k]; places, below, are numbers among them."""

    def at(self, places: Tensor, out: Tensor) -> Tensor:
        """The rows at ``places`` [m], copied to ``out`` [m, d]."""

    def dots(self, x: Tensor, bias: Tensor, out: Tensor) -> Tensor:
        """``x`` [m, d] times the first c rows, plus ``bias`` [c]: ``out`` [m, c]."""

    def weighed(self, d: Tensor, out: Tensor) -> Tensor:
        """The sums of the first c rows with the weights ``d`` [m, c]: ``out`` [m, d]."""

    def add_product(self, d: Tensor, x: Tensor) -> None:
        """The gradient of the first c rows is dᵀ·x, for ``d`` [m, c] and ``x`` [m, d].

        Once in a step, before :meth:`add`; neither may change before :meth:`step`."""

    def add(self, places: Tensor, values: Tensor, sums: Sums | None) -> None:
        """Add ``values`` [n, d] to the gradient of the rows at ``places`` [n], equal ones too.

        With ``sums`` in that order. ``values`` may not change before :meth:`step`."""

    def step(self) -> None:
        """Move the rows that were read by their gradient."""


class Gathered:
    """A table whose rows are copied together."""

    def __init__(self, owner: RowAdagrad) -> None:
        self.owner = owner

    def read(self, rows: Tensor) -> None:
        self.rows = rows
        self.copies = self.owner.gather(rows)
        self._begun = False

    @property
    def grad(self) -> Tensor:
        """The gradient [k, d] of the rows that were read."""
        return self.owner.grad(len(self.rows))

    def at(self, places: Tensor, out: Tensor) -> Tensor:
        return torch.index_select(self.copies, 0, places, out=out)

    def dots(self, x: Tensor, bias: Tensor, out: Tensor) -> Tensor:
        return torch.addmm(bias, x, self.copies[: len(bias)].t(), out=out)

    def weighed(self, d: Tensor, out: Tensor) -> Tensor:
        return torch.mm(d, self.copies[: d.shape[1]], out=out)

    def add_product(self, d: Tensor, x: Tensor) -> None:
        c, grad = d.shape[1], self.grad
        grad[c:].zero_()
        torch.mm(d.t(), x, out=grad[:c])
        self._begun = True

    def add(self, places: Tensor, values: Tensor, sums: Sums | None) -> None:
        grad = self.grad if self._begun else self.grad.zero_()
        self._begun = True
        add_rows_(grad, values, places, sums)

    def step(self) -> None:
        if not self._begun:  # the buffer still holds another step's
            self.grad.zero_()
        self.owner.step(self.rows)


class InPlace:
    """A table of which each row is read where it lies, and moved while its gradient is at hand."""

    def __init__(self, owner: RowAdagrad, kernels: Kernels) -> None:
        self.owner = owner
        self.kernels = kernels

    def read(self, rows: Tensor) -> None:
        self.rows = rows
        self._product: tuple[Tensor, Tensor] | None = None
        self._added: tuple[Tensor, Tensor] | None = None

    def at(self, places: Tensor, out: Tensor) -> Tensor:
        return self.kernels.gather(self.owner.weight, self.rows[places], out)

    def dots(self, x: Tensor, bias: Tensor, out: Tensor) -> Tensor:
        return self.kernels.dots(x, self.owner.weight, bias, out, self.rows)

    def weighed(self, d: Tensor, out: Tensor) -> Tensor:
        return self.kernels.weighed(d, self.owner.weight, out, self.rows)

    def add_product(self, d: Tensor, x: Tensor) -> None:
        self._product = d, x

    def add(self, places: Tensor, values: Tensor, sums: Sums | None) -> None:
        self._added = places, values

    def step(self) -> None:
        owner = self.owner
        self.kernels.learn(
            owner.weight, owner.squares, owner.velocity, *owner.rule.numbers,
            product=self._product, rows=self.rows, added=self._added,
        )  # fmt: skip


def add_rows_(table: Tensor, values: Tensor, places: Tensor, sums: Sums | None) -> None:
    """Add ``values`` [n, …] to the rows ``places`` [n] of ``table``, some of which may be equal."""
    if sums is None:
        table.index_add_(0, places, values)
    else:
        add_groups_(table, values, *sums)
