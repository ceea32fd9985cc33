"""Linear models of items by items, solved at once (SLIST, SLIS, SLIT and EASE among its points)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from models.parts.contract import Param, TrainingEvents
from models.parts.counting import (
    AGE_DECAY,
    DECAYS,
    MAX_LENGTH,
    ItemTableModel,
    distinct_items,
    neighbours_at,
    ranges,
    session_of,
    session_weights,
)

FEW = 8_192  # items up to which the system is solved in double precision
Entries = tuple[Tensor, Tensor, Tensor]  # rows, columns, weights to add there
_SLIST = "Choi et al. 2021"


class Linear(ItemTableModel):
    """What a session consists of, and what comes next in it, as linear functions of its items.

    B [items, items] minimises

        α · Σ_n w_n ‖x_n − x_n B‖² + (1 − α) · Σ_n w_n Σ_t ‖f_nt − p_nt B‖² + λ ‖B‖²,  B_ii ≤ ξ.

    x_n has the distinct items of session n; p_nt has those of its events up to t, each weighted by
    e^(−ago/τ), and f_nt those after t by e^(−(ahead − 1)/τ), with τ = ``pair_tau``; w_n is the
    session's weight by its age. That is SLIST (Choi et al. 2021, section 4), ``alpha`` 1 is SLIS
    and 0 is SLIT; 1 with ``own`` 0 is EASE (Steck 2019), but that B_ii may be below 0. The sums
    over t are closed: with c = e^(−1/τ), two events d apart, with r behind the later one, add
    c^d (1 − c^(2r)) / (1 − c²) to pᵀp, and d · c^(d − 1) to pᵀf. Events more than ``max_length``
    apart don't meet there.

    Time grows with the cube of ``items``, memory with its square: the most frequent ones are
    solved for, others come last. Of each row of B the ``neighbours`` largest in size are kept.
    """

    PARAMS = (
        Param("alpha", "float", 0.5, "share of whole sessions; the rest is what comes next",
              low=0, high=1, source=_SLIST),
        Param("reg", "float", 10.0, "λ, ridge", low=0, low_open=True, source=_SLIST),
        Param("own", "float", 1.0, "ξ, how much an item may speak for itself; 1 sets no bound",
              low=0, high=1, source=_SLIST),
        Param("pair_tau", "float", 1.0, "τ of pairs in training, in events", low=0, low_open=True,
              source=_SLIST),
        Param("item_decay", "str", "exponential", "weight of the items before the last one",
              choices=("none", *DECAYS), source=_SLIST),
        Param("item_tau", "float", 1.0, "of item_decay exponential, in events", low=0,
              low_open=True, source=_SLIST),
        Param("items", "int", 10_000, "most frequent items that are solved for", low=1),
        Param("neighbours", "int", 500, "largest weights of an item that are kept", low=1),
        MAX_LENGTH,
        AGE_DECAY,
    )  # fmt: skip

    def count(self, events: TrainingEvents) -> None:
        chosen, place = self._frequent(events)
        alpha, size = float(self.params["alpha"]), len(chosen)
        weights = session_weights(events, self.params["age_decay"]).double()
        system = torch.zeros(size, size, dtype=torch.float64, device=place.device)
        if size > FEW:
            system = system.float()
        if alpha > 0:
            for entries in self._whole(events, alpha * weights):
                _add(system, place, entries)
        wanted = system.clone()
        if alpha < 1:
            for together, after in self._partial(events, (1 - alpha) * weights):
                _add(system, place, together)
                _add(wanted, place, after)
        solved = self._solve(system, wanted)
        most = min(int(self.params["neighbours"]), size)
        columns = torch.sort(solved.abs().topk(most, 1).indices, 1).values
        rows = chosen.repeat_interleave(most)
        self.store(rows, chosen[columns.flatten()], solved.gather(1, columns).flatten())

    def _frequent(self, events: TrainingEvents) -> tuple[Tensor, Tensor]:
        """The items that are solved for, ascending, and the place of each item among them, or −1.

        Of equally frequent ones the first.
        """
        often = torch.bincount(events.items, minlength=self.catalogue.n_items)
        order = torch.sort(often, descending=True, stable=True).indices[: int(self.params["items"])]
        chosen = torch.sort(order[often[order] > 0]).values
        place = torch.full_like(often, -1)
        place[chosen] = torch.arange(len(chosen), device=place.device)
        return chosen, place

    def _whole(self, events: TrainingEvents, weights: Tensor) -> Iterator[Entries]:
        """What sessions add to xᵀx."""
        session, items = distinct_items(events, self.catalogue.n_items)
        yield items, items, weights[session]
        once = TrainingEvents(items, items, events.offsets)
        for distance, first in neighbours_at(once, session, range(1, len(session))):
            one, other, weight = items[first], items[first + distance], weights[session[first]]
            yield torch.cat((one, other)), torch.cat((other, one)), weight.repeat(2)

    def _partial(
        self, events: TrainingEvents, weights: Tensor
    ) -> Iterator[tuple[Entries, Entries]]:
        """What sessions add to pᵀp and to pᵀf, by how far apart two events are."""
        tau, longest = float(self.params["pair_tau"]), int(self.params["max_length"])
        session, sizes = session_of(events), events.offsets.diff()
        behind = sizes[session] - 1 - ranges(sizes)
        items, weights = events.items, weights[session]
        itself = torch.arange(len(session), device=session.device)
        apart = neighbours_at(events, session, range(1, longest + 1))
        for distance, first in chain([(0, itself)], apart):
            one, other, weight = items[first], items[first + distance], weights[first]
            # how many p have both, and each by e^(−2/τ) less than the one before
            steps = behind[first + distance].clamp(max=longest - distance)
            summed = torch.special.expm1(-2 * steps / tau) / math.expm1(-2 / tau)
            near = weight * summed * math.exp(-distance / tau)
            if distance == 0:
                yield (one, one, near), (one[:0], one[:0], weight[:0])
                continue
            together = torch.cat((one, other)), torch.cat((other, one)), near.repeat(2)
            yield together, (one, other, weight * distance * math.exp(-(distance - 1) / tau))

    def _solve(self, system: Tensor, wanted: Tensor) -> Tensor:
        """B, with at most ``own`` on its diagonal (the multipliers of its columns are separate)."""
        system.diagonal().add_(float(self.params["reg"]))
        root = torch.linalg.cholesky(system)
        solved = torch.cholesky_solve(wanted, root)
        bound = float(self.params["own"])
        if bound < 1:
            inverse = torch.cholesky_inverse(root)
            over = (solved.diagonal() - bound).clamp(min=0) / inverse.diagonal()
            solved -= inverse * over
        return solved


def _add(table: Tensor, place: Tensor, entries: Entries) -> None:
    """Add to the cells of pairs of items that both have a place in the table."""
    rows, columns, weights = place[entries[0]], place[entries[1]], entries[2]
    kept = (rows >= 0) & (columns >= 0)
    cells = rows[kept] * len(table) + columns[kept]
    table.view(-1).index_add_(0, cells, weights[kept].to(table.dtype))


MODEL = Linear
