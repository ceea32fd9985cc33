"""What a model may know beside ids and times: columns of events, tables of items and of users.

What is unknown stays recognisable: a category's code is −1, a number is NaN, and what has neither
says so in a mask called ``missing``. Categories, items and users that training never saw are
unknown as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

FieldKind = Literal["number", "category", "categories", "text", "vector"]
Kinds = tuple[FieldKind, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """A column of events, or of the table of items or of users.

    Attributes:
        kind: "number" (float32), "category" (a code), "categories" (any number of codes), "text",
            or "vector".
        size: how many codes there are, or a vector's dimensions; else 0.
        vocabulary: the text that each code stands for [size].
    """

    name: str
    kind: FieldKind
    size: int = 0
    vocabulary: Sequence[str] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Needs:
    """What a model reads beside items and times.

    Attributes:
        columns: columns of events by name, each with the kinds that will do (empty: any of them);
            batches carry them as ``columns[name]``.
        wanted: those of ``columns`` that batches carry for the targets too, as ``wanted[name]``.
        loss_only: those of ``wanted`` that only the loss, or the model's own evaluation, reads: a
            request needn't say them.
        items: fields of the items' table, likewise; all that ``catalogue.items`` will have.
        users: fields of the users' table, likewise.
        user_index: whose session it is; batches carry ``users``. ``users`` implies it.
        unknown_items: events of items that training never saw, which are left out otherwise. They
            are numbered from ``n_items`` on, by a hash of their id: the same item has the same
            number in any data.
    """

    columns: Mapping[str, Kinds] = field(default_factory=dict)
    wanted: tuple[str, ...] = ()
    loss_only: tuple[str, ...] = ()
    items: Mapping[str, Kinds] = field(default_factory=dict)
    users: Mapping[str, Kinds] = field(default_factory=dict)
    user_index: bool = False
    unknown_items: bool = False

    @property
    def who(self) -> bool:
        """Whether batches are to say whose session it is."""
        return self.user_index or bool(self.users)

    @property
    def given(self) -> list[str]:
        """The columns of targets that ranking reads, so that a request has to say them."""
        return [name for name in self.wanted if name not in self.loss_only]


@dataclass(frozen=True)
class Bags:
    """Several categories per row: row i has ``codes[offsets[i]:offsets[i + 1]]``.

    Shapes: codes [V] and offsets [n + 1] int64, as ``nn.EmbeddingBag`` with
    ``include_last_offset`` takes them; missing [n] bool tells an unknown row from an empty one.
    """

    codes: Tensor
    offsets: Tensor
    missing: Tensor

    def __len__(self) -> int:
        return len(self.missing)

    def take(self, rows: Tensor) -> Bags:
        """The rows [m] of an index, in its order."""
        begins, sizes = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        offsets = torch.cat((sizes.new_zeros(1), torch.cumsum(sizes, 0)))
        within = torch.arange(int(offsets[-1]), device=rows.device)
        at = within + torch.repeat_interleave(begins - offsets[:-1], sizes)
        return Bags(self.codes[at], offsets, self.missing[rows])

    def to(self, device: torch.device | str) -> Bags:
        return Bags(self.codes.to(device), self.offsets.to(device), self.missing.to(device))


class Vectors:
    """A vector per row, in a file that is never held in memory as a whole.

    ``missing`` [n] bool says which rows have none. In a saved model nothing is behind it
    (``present`` is False): there :meth:`models.parts.contract.Model.worked_out` gives what
    ranking needs. ``memo`` is for what was worked out of all rows and costs much: it is there
    again when another model is built on the same data, for as long as these are open.
    """

    def __init__(
        self,
        dim: int,
        missing: Tensor,
        read: Callable[[Tensor], Tensor] | None,
        memo: dict[Any, Any] | None = None,
    ) -> None:
        """``read`` takes row numbers [m] int64 on the CPU and gives [m, dim] float16."""
        self.dim, self.missing, self._read = dim, missing, read
        self.memo: dict[Any, Any] = {} if memo is None else memo

    def __len__(self) -> int:
        return len(self.missing)

    @property
    def present(self) -> bool:
        """Whether there is anything to read."""
        return self._read is not None

    def rows(self, index: Tensor) -> Tensor:
        """Vectors [..., dim] float32 of rows [...], on the index's device; zeros where missing.

        Raises:
            RuntimeError: this is a saved model, which holds no vectors.
        """
        if self._read is None:
            raise RuntimeError("a saved model holds no vectors, only what it worked out of them")
        found = self._read(index.reshape(-1).cpu()).to(index.device)
        return found.float().reshape(*index.shape, self.dim)


class Table:
    """The fields of items or of users, row by index; each is read when first asked for."""

    def __init__(
        self,
        fields: Mapping[str, Field] | None = None,
        read: Callable[[Field], Any] | None = None,
    ) -> None:
        self.fields: Mapping[str, Field] = fields or {}
        self._read = read
        self._known: dict[str, Any] = {}

    def only(self, names: Iterable[str]) -> Table:
        """The same table with some of its fields, those that it has."""
        return Table({n: f for n, f in self.fields.items() if n in set(names)}, self._read)

    def codes(self, name: str) -> Tensor:
        """A category's codes [n] int64, −1 where unknown."""
        codes: Tensor = self._get(name, "category")
        return codes

    def numbers(self, name: str) -> Tensor:
        """Numbers [n] float32, NaN where unknown."""
        numbers: Tensor = self._get(name, "number")
        return numbers

    def bags(self, name: str) -> Bags:
        """Several categories per row."""
        bags: Bags = self._get(name, "categories")
        return bags

    def texts(self, name: str) -> Sequence[str | None]:
        """Texts, None where unknown; a saved model holds none."""
        texts: Sequence[str | None] = self._get(name, "text")
        return texts

    def vectors(self, name: str) -> Vectors:
        """A vector per row."""
        vectors: Vectors = self._get(name, "vector")
        return vectors

    def _get(self, name: str, kind: FieldKind) -> Any:
        found = self.fields.get(name)
        if found is None or found.kind != kind or self._read is None:
            has = f"is a {found.kind}" if found else "is none of " + (", ".join(self.fields) or "0")
            raise ValueError(f"there is no {kind} {name!r}: it {has}")
        if name not in self._known:
            self._known[name] = self._read(found)
        return self._known[name]
