"""Which rows of the item tables a step touches, worked out for many steps at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Distinct:
    """The distinct ids of each step.

    ``ids`` [steps, K]: those among the leading places, ascending, then those only among the rest,
    ascending; unused places hold the padding. ``position`` [steps, K]: where in its row of ``ids``
    each given id stands. ``leading`` and ``used``, on the host: how many of each row to look at,
    for the leading ids and for all.
    """

    ids: Tensor
    position: Tensor
    leading: list[int]
    used: list[int]


def distinct(ids: Tensor, leading: int, padding: int, static: bool) -> Distinct:
    """Find the distinct ids in each row of ``ids`` [steps, K] (int64, 0 ≤ id < ``padding``).

    With ``static`` the leading ids take ``leading`` places and the rest K − ``leading`` whatever
    their number, so that all steps have the same shapes and nothing waits for the device;
    otherwise the rest follow close, and the numbers are read from the device once per call.
    """
    steps, k = ids.shape
    ordered, order = _sorted(ids, static)
    first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[:, 1:], ordered[:, :-1], out=first[:, 1:])
    # of equal ids the earliest place comes first, so it tells whether the id is a leading one
    leads = first & (order < leading)
    n_leading = leads.sum(1, keepdim=True)
    place = leads.cumsum(1).sub_(1)
    if leading < k:
        run = first.cumsum(1).sub_(1)
        of_leading = torch.zeros_like(run).scatter_add_(1, run, leads.long()).gather(1, run)
        start = leading if static else n_leading
        place = torch.where(of_leading > 0, place, (first & ~leads).cumsum(1).sub_(1) + start)
    position = torch.empty_like(ids).scatter_(1, order, place)
    # equal ids share a place: whichever is written, it is the same
    unique = torch.full_like(ids, padding).scatter_(1, place, ordered)
    if static:
        return Distinct(unique, position, [leading] * steps, [k] * steps)
    used = first.sum(1).tolist()
    return Distinct(unique, position, n_leading.squeeze(1).tolist(), used)


def _sorted(ids: Tensor, static: bool) -> tuple[Tensor, Tensor]:
    """Each row's ids, ascending, and the places they come from; equal ids in their order."""
    if static:
        ordered, order = torch.sort(ids, dim=1, stable=True)
        return ordered, order
    # id and place in one number: NumPy sorts numbers, in place, several times faster than torch
    # sorts with places
    k = ids.shape[1]
    packed = ids * k + torch.arange(k)
    packed.numpy().sort(axis=1)
    ordered = torch.div(packed, k, rounding_mode="floor")
    return ordered, packed.sub_(ordered, alpha=k)


def occurrences(position: Tensor, k: int) -> Tensor:
    """How often each of k places is named in each row of ``position`` [steps, n]: [steps, k]."""
    counts = torch.zeros(len(position), k, device=position.device)
    return counts.scatter_add_(1, position, torch.ones_like(position, dtype=counts.dtype))


@dataclass(frozen=True, slots=True)
class Groups:
    """What is to be summed where, for values that name places of which several may be equal.

    ``order`` [steps, n]: the values, sorted by place. ``places`` [steps, n]: the distinct places,
    ascending; behind them, for no values, place 0. ``bounds`` [steps, n + 1]: where in ``order``
    each place's values begin, and the end.
    """

    order: Tensor
    places: Tensor
    bounds: Tensor


def groups(position: Tensor) -> Groups:
    """Group the values at ``position`` [steps, n] (int64) by place; shapes depend on n alone."""
    steps, n = position.shape
    ordered, order = torch.sort(position, dim=1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[:, 1:], ordered[:, :-1], out=first[:, 1:])
    run = first.cumsum(1).sub_(1)
    # all values of a run write the same place, and all that do not begin one write the last bound
    places = torch.zeros_like(ordered).scatter_(1, run, ordered)
    bounds = ordered.new_full((steps, n + 1), n)
    begins = torch.arange(n, device=position.device).expand_as(run)
    target = torch.where(first, run, n)
    bounds.scatter_(1, target, torch.where(first, begins, n))
    return Groups(order, places, bounds)


def add_groups_(
    table: Tensor, values: Tensor, order: Tensor, places: Tensor, bounds: Tensor
) -> Tensor:
    """Add ``values`` [n, …] to rows of ``table``, equal places summed in the order of the values.

    The rest are one step's :class:`Groups`. No place is added to twice (but for zeros, to place
    0), so the sum does not depend on which is written first.
    """
    ordered = values.index_select(0, order)
    sums = torch.segment_reduce(ordered, "sum", offsets=bounds, unsafe=True, initial=0)
    return table.index_add_(0, places, sums)
