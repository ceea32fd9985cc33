"""Which items may be recommended: some that are named, and without others that are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paropt.errors import DataError
from paropt.training.saved_model.saved import SavedModel

SHOWN = 3  # unknown ids that are named


@dataclass(frozen=True)
class Offer:
    """The items that may be recommended: ``rows`` [m] int64 of the table; None: all of them.

    ``notes`` say what of the lists the model doesn't know.
    """

    rows: Tensor | None = None
    notes: Sequence[str] = ()

    def left(self, n_items: int) -> int:
        """How many there are."""
        return n_items if self.rows is None else len(self.rows)

    def items(self, table: Tensor) -> Tensor:
        """The rows of a table of all items [n, …] that are offered."""
        return table if self.rows is None else table[self.rows.to(table.device)]

    def places(self, exclude: tuple[Tensor, Tensor], n_items: int) -> tuple[Tensor, Tensor]:
        """Pairs of a row of scores and an item, with the item's place among those offered."""
        if self.rows is None:
            return exclude
        row, item = exclude
        place = torch.full((n_items,), -1, device=item.device)
        place[self.rows.to(item.device)] = torch.arange(len(self.rows), device=item.device)
        at = place[item]
        return row[at >= 0], at[at >= 0]


def make_offer(
    saved: SavedModel,
    candidates: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
) -> Offer:
    """What is left of the model's items.

    Raises:
        DataError: the model knows none of the candidates, or nothing is left of them.
    """
    barred = list(exclude)
    if candidates is None and not barred:
        return Offer()
    index = {str(item): row for row, item in enumerate(saved.item_ids.tolist())}
    notes: list[str] = []
    allowed = np.ones(saved.n_items, bool)
    if candidates is not None:
        wanted = list(candidates)
        rows = _rows(index, wanted, "candidates", notes)
        if not rows:
            raise DataError(
                f"the model knows none of the {len(wanted):,} candidates, the first of which is "
                f"{wanted[0] if wanted else 'missing'!r}; its own items are written as "
                f"{str(saved.item_ids[0])!r}"
            )
        allowed[:] = False
        allowed[rows] = True
    allowed[_rows(index, barred, "items to leave out", notes)] = False
    if not allowed.any():
        raise DataError("no item is left to recommend: all candidates are to be left out")
    return Offer(torch.from_numpy(np.flatnonzero(allowed)), notes)


def _rows(index: dict[str, int], ids: Sequence[str], what: str, notes: list[str]) -> list[int]:
    unknown = [item for item in ids if item not in index]
    if unknown:
        shown = ", ".join(unknown[:SHOWN]) + (", …" if len(unknown) > SHOWN else "")
        notes.append(f"{len(unknown):,} of {len(ids):,} {what} are unknown to the model: {shown}")
    return [index[item] for item in ids if item in index]
