"""What is remembered of users: states that a GRU moves, and attention over the latest of them.

    r ← r + g · MHA(r, [m_u; H_u]),  m_new = GRU(z, λ^Δ · m_u)

z is a position's vector before it reads the memory, so that all positions of a batch are worked
out together; Δ is the time since the last update in units of the trigger. Within a window of
training a position reads what was remembered up to itself and nothing later; across windows, what
was stored (:class:`models.parts.ur4rec.store.Store`) if that is older than the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.ur4rec.attention import FewKeys
from models.parts.ur4rec.store import Remembered

LATELY = 0.9  # of the moving mean of z, that drift is told by
DAY = 86_400_000.0  # milliseconds


@dataclass(frozen=True)
class Grid:
    """Positions as rows [B, P] in their order: ``of`` says which of Q each is, ``real`` whether
    there is one; ``interactions`` are events of the user by then, ``times`` int64 of them."""

    of: Tensor
    real: Tensor
    interactions: Tensor
    times: Tensor


@dataclass(frozen=True)
class Moved:
    """Memories of B rows after a batch, as :class:`Remembered` before it, and for every position
    [B, P] how many updates had happened by then."""

    states: Tensor  # [B, S + K, d]: those from before, right-aligned in S, then K new ones
    before: int  # S
    updates: Tensor  # [B, P]
    after: Remembered


class Memory(nn.Module):
    """The GRU, its triggers, and the attention over what is remembered."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__()
        dim = int(params["dim"])
        self.trigger, self.ring = str(params["memory_trigger"]), int(params["max_memory_size"])
        self.threshold, self.drift = params["memory_threshold"], params["drift_threshold"]
        self.interval, self.decay = params["memory_days"] * DAY, float(params["memory_decay"])
        self.cell = nn.GRUCell(dim, dim)
        _remember_lately(self.cell, dim)
        self.attention = FewKeys(dim, int(params["retriever_heads"]))
        self.gate = nn.Parameter(torch.zeros(()))

    # -- reading ----------------------------------------------------------------------------

    def read(self, r: Tensor, grid: Grid, states: Tensor, there: Tensor) -> Tensor:
        """``r`` [Q, C, d] with what of its row's ``states`` [B, S, d] is ``there`` [B, P, S]."""
        if states.shape[1] == 0:
            return r
        rows, columns = grid.of.shape
        each = r.shape[1]
        asking = r[grid.of].view(rows, columns * each, -1)
        mask = there.repeat_interleave(each, 1)
        seen: Tensor = self.attention(asking, self.attention.key_value(states), mask)
        return r + self.gate * seen.view(rows, columns, each, -1)[grid.real]

    def visible(self, moved: Moved, filled: Tensor) -> Tensor:
        """Which states each position may read [B, P, S + K]: the latest ones by then."""
        column = torch.arange(moved.states.shape[1], device=filled.device)
        end = moved.before + moved.updates[..., None]
        oldest = (moved.before - filled)[:, None, None]
        return (column < end) & (column >= oldest) & (column >= end - 1 - self.ring)

    # -- moving -----------------------------------------------------------------------------

    def move(self, z: Tensor, grid: Grid, start: Remembered, explicit: bool) -> Moved:
        """Memories of a batch's rows, moved by the positions' ``z`` [Q, d].

        ``explicit``: by request, which moves those of trigger EXPLICIT once, by the last position.
        """
        fired = self.fires(z.detach(), grid, start, explicit)
        updates = fired.cumsum(1)
        most = int(updates.max()) if updates.numel() else 0
        order = torch.argsort((~fired).int(), dim=1, stable=True)[:, :most]  # the fired ones first
        new = self._scan(z, grid, start, order, updates[:, -1:] if most else updates)
        states = torch.cat((start.states.to(z.dtype), new), 1)
        after = self._after(z.detach(), grid, start, states.detach(), fired, updates)
        return Moved(states, start.states.shape[1], updates, after)

    def fires(self, z: Tensor, grid: Grid, start: Remembered, explicit: bool) -> Tensor:
        """Which positions [B, P] move the memory."""
        if self.trigger == "EXPLICIT":
            last = grid.real & (grid.real.sum(1, keepdim=True) == grid.real.cumsum(1))
            return last if explicit else torch.zeros_like(grid.real)
        if self.trigger == "INTERACTION_COUNT":
            return _spaced(grid.interactions, start.updated_at, self.threshold, grid.real)
        if self.trigger == "TIME_BASED":
            first = torch.where(start.filled > 0, start.updated_time, grid.times[:, 0])
            return _spaced(grid.times, first, self.interval, grid.real)
        return self._drifts(z, grid, start)

    @torch.no_grad()
    def _drifts(self, z: Tensor, grid: Grid, start: Remembered) -> Tensor:
        mean, state, there = start.lately.float(), start.latest().float(), start.filled > 0
        met = start.interactions > 0
        at, fired = start.updated_at.clone(), []
        for column, now, real in zip(
            grid.of.unbind(1), grid.interactions.unbind(1), grid.real.unbind(1), strict=True
        ):
            own = z[column].float()
            mean = torch.where(
                real[:, None],
                torch.where(met[:, None], LATELY * mean + (1 - LATELY) * own, own),
                mean,
            )
            met = met | real
            drift = 1 - F.cosine_similarity(mean, state, dim=1)
            fire = real & ((drift > self.drift) | ~there)
            faded = state * (self.decay ** ((now - at) / self.threshold))[:, None]
            state = torch.where(fire[:, None], self.cell(own, faded), state)
            at, there = torch.where(fire, now, at), there | fire
            fired.append(fire)
        return torch.stack(fired, 1)

    def _scan(
        self, z: Tensor, grid: Grid, start: Remembered, order: Tensor, count: Tensor
    ) -> Tensor:
        """The states [B, K, d] that the positions ``order`` [B, K] leave, one after the other;
        those beyond a row's ``count`` [B, 1] mean nothing."""
        states, state = [], start.latest().to(z.dtype)
        time_based = self.trigger == "TIME_BASED"
        clock = grid.times if time_based else grid.interactions
        last = start.updated_time if time_based else start.updated_at
        last = torch.where(start.filled > 0, last, clock[:, 0])
        unit = self.interval if time_based else self.threshold
        for column in order.unbind(1):
            now = clock.gather(1, column[:, None]).squeeze(1)
            faded = state * (self.decay ** ((now - last).clamp(min=0) / unit))[:, None].to(z.dtype)
            state = self.cell(z[grid.of.gather(1, column[:, None]).squeeze(1)], faded)
            states.append(state)
            last = now
        return torch.stack(states, 1) if states else z.new_zeros(len(grid.of), 0, z.shape[1])

    @torch.no_grad()
    def _after(
        self,
        z: Tensor,
        grid: Grid,
        start: Remembered,
        states: Tensor,
        fired: Tensor,
        updates: Tensor,
    ) -> Remembered:
        """What is remembered at the end."""
        kept = self.ring + 1
        count = updates[:, -1]
        end = start.states.shape[1] + count
        column = end[:, None] - kept + torch.arange(kept, device=z.device)
        filled = (start.filled + count).clamp(max=kept)
        index = column.clamp(min=0)[..., None].expand(-1, -1, states.shape[2])
        # right-aligned, and zeros where there is nothing
        padded = states if states.shape[1] else states.new_zeros(len(states), 1, states.shape[2])
        there = torch.arange(kept, device=z.device) >= kept - filled[:, None]
        latest = padded.gather(1, index) * there[..., None]
        any_new = count > 0
        last = _last(fired)
        final = _last(grid.real)

        def of(values: Tensor, at: Tensor) -> Tensor:
            return values.gather(1, at[:, None]).squeeze(1)

        lately = _moving_mean(z, grid, start)
        return Remembered(
            states=latest,
            filled=filled,
            lately=lately,
            interactions=of(grid.interactions, final),
            updated_at=torch.where(any_new, of(grid.interactions, last), start.updated_at),
            updated_time=torch.where(any_new, of(grid.times, last), start.updated_time),
            seen=of(grid.times, final),
        )


def _last(flags: Tensor) -> Tensor:
    """The last column [B] where a flag [B, P] is set; 0 if there is none."""
    column = torch.arange(flags.shape[1], device=flags.device)
    return torch.where(flags, column, 0).amax(1)


def _spaced(clock: Tensor, last: Tensor, gap: float, real: Tensor) -> Tensor:
    """The positions [B, P] at which ``clock`` is ``gap`` or more beyond where it last was taken."""
    fired = []
    for now, there in zip(clock.unbind(1), real.unbind(1), strict=True):
        fire = there & (now - last >= gap)
        last = torch.where(fire, now, last)
        fired.append(fire)
    return torch.stack(fired, 1)


def _moving_mean(z: Tensor, grid: Grid, start: Remembered) -> Tensor:
    """Σ (1 − β) β^age z, with what it was before [B, d]; of a user's first, z itself."""
    count = grid.real.sum(1, keepdim=True)
    age = (count - grid.real.cumsum(1)).clamp(min=0)
    weights = (1 - LATELY) * LATELY ** age.float()
    first = (start.interactions == 0)[:, None] & (grid.real.cumsum(1) == 1) & grid.real
    weights = torch.where(first, LATELY ** age.float(), weights) * grid.real
    old = start.lately.float() * (LATELY ** count.float()) * (start.interactions > 0)[:, None]
    return old + (weights[..., None] * z[grid.of].float()).sum(1)


def _remember_lately(cell: nn.GRUCell, dim: int) -> None:
    """Let the GRU begin as a moving mean: half of tanh(z) and half of what was there.

    A state then lies where the vectors do, and drift means something before anything is learned.
    """
    with torch.no_grad():
        for name in ("weight_hh", "bias_hh", "bias_ih"):
            getattr(cell, name).zero_()
        cell.weight_ih.mul_(0.1)
        cell.weight_ih[2 * dim :] += torch.eye(dim)
