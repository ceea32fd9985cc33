"""Training sequences a little different each time: events hidden, rows cropped or reordered.

After CL4SRec (arXiv 2010.14395, section 3.2), but in place of the sequence and not beside it. An
evaluation sees sequences as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.parts.contract import Param, SequenceBatch

PAPER = "arXiv 2010.14395"
SHUFFLED = 5  # a stretch that is shuffled has at most every fifth of a row's events, and two

AUGMENT_PARAMS: tuple[Param, ...] = (
    Param("augment_mask", "float", 0.0, "share of input events whose item is hidden in training",
          low=0, high=1, high_open=True, source=PAPER),
    Param("augment_crop", "float", 0.0,
          "share of rows that training cuts to a random stretch of at least half of them",
          low=0, high=1, source=PAPER),
    Param("augment_reorder", "float", 0.0,
          "share of rows of which training shuffles a random stretch of a fifth",
          low=0, high=1, source=PAPER),
)  # fmt: skip


def augmented(
    batch: SequenceBatch, params: Mapping[str, Any]
) -> tuple[SequenceBatch, Tensor | None]:
    """The batch as a step is to see it, and which inputs [B, L] are hidden (None: none).

    Random by torch's own stream; nothing is drawn where all three parameters are 0.
    """
    if params["augment_crop"]:
        batch = cropped(batch, params["augment_crop"])
    if params["augment_reorder"]:
        batch = reordered(batch, params["augment_reorder"])
    if not params["augment_mask"]:
        return batch, None
    return batch, _draw(batch.items.shape, batch) < params["augment_mask"]


def cropped(batch: SequenceBatch, share: float) -> SequenceBatch:
    """A share of the rows cut to a stretch of at least half of them; longest first again."""
    lengths, width = batch.lengths, batch.items.shape[1]
    least = (lengths + 1) // 2
    sizes = least + (_draw(lengths.shape, batch) * (lengths - least + 1)).long()
    sizes = torch.where(_draw(lengths.shape, batch) < share, sizes.clamp(max=lengths), lengths)
    begin = (_draw(lengths.shape, batch) * (lengths - sizes + 1)).long().clamp(max=lengths - sizes)
    order = sizes.argsort(descending=True, stable=True)
    sizes, begin = sizes[order], begin[order]
    column = torch.arange(width, device=lengths.device)
    kept = column < sizes[:, None]
    at = (begin[:, None] + column).clamp(max=width - 1)

    def taken(values: Tensor, padding: float) -> Tensor:
        return values[order].gather(1, at).masked_fill(~kept, padding)

    return SequenceBatch(
        items=taken(batch.items, 0),
        targets=taken(batch.targets, -1),
        times=taken(batch.times, 0),
        query_times=taken(batch.query_times, 0),
        lengths=sizes,
        columns={name: taken(values, _nothing(values)) for name, values in batch.columns.items()},
        wanted={name: taken(values, _nothing(values)) for name, values in batch.wanted.items()},
        users=None if batch.users is None else batch.users[order],
    )


def reordered(batch: SequenceBatch, share: float) -> SequenceBatch:
    """A share of the rows with a stretch of their inputs shuffled; what comes next follows the new
    order, so that no target has been seen already. A row's first event stays, and so do times."""
    lengths, width = batch.lengths, batch.items.shape[1]
    column = torch.arange(width, device=lengths.device)
    size = (lengths // SHUFFLED).clamp(min=2)
    begin = 1 + (_draw(lengths.shape, batch) * (lengths - size)).long()  # 1 … lengths − size
    begin = begin.minimum(lengths - size)
    chosen = (_draw(lengths.shape, batch) < share) & (begin >= 1)
    inside = (column >= begin[:, None]) & (column < (begin + size)[:, None]) & chosen[:, None]
    # events in the stretch are sorted by random numbers between their neighbours' places
    place = torch.where(inside, begin[:, None] + size[:, None] * _draw(inside.shape, batch), column)
    order = place.argsort(dim=1, stable=True)
    # event t + 1 is what position t asks for
    after = torch.cat([order[:, 1:], order.new_full((len(order), 1), width)], 1) - 1
    after = torch.where(column + 1 < lengths[:, None], after, column)
    targets = torch.where(batch.targets >= 0, batch.targets.gather(1, after), -1)
    return replace(
        batch,
        items=batch.items.gather(1, order),
        targets=targets,
        columns={name: values.gather(1, order) for name, values in batch.columns.items()},
        wanted={name: values.gather(1, after) for name, values in batch.wanted.items()},
    )


def _draw(shape: torch.Size, batch: SequenceBatch) -> Tensor:
    return torch.rand(shape, device=batch.items.device)


def _nothing(values: Tensor) -> float:
    return float("nan") if values.is_floating_point() else -1
