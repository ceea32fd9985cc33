"""Where memories of users are kept between batches: rows of tensors, bounded, in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Remembered:
    """Memories of B rows. ``states`` [B, S, d] are right-aligned, the newest last, ``filled`` [B]
    of them; ``lately`` [B, d] is the moving mean of z. [B] int64: ``interactions`` met so far,
    ``updated_at`` of them and ``updated_time`` when it was last moved, ``seen`` the last event."""

    states: Tensor
    filled: Tensor
    lately: Tensor
    interactions: Tensor
    updated_at: Tensor
    updated_time: Tensor
    seen: Tensor

    @classmethod
    def nothing(cls, rows: int, dim: int, device: torch.device) -> Remembered:
        """Of rows that are met for the first time."""
        none = torch.zeros(rows, dtype=torch.int64, device=device)
        states = torch.zeros(rows, 0, dim, device=device)
        return cls(states, none, torch.zeros(rows, dim, device=device), none, none, none, none)

    def latest(self) -> Tensor:
        """The newest state [B, d]; zeros where there is none."""
        if self.states.shape[1] == 0:
            return torch.zeros_like(self.lately)
        return self.states[:, -1]

    def only(self, rows: Tensor) -> Remembered:
        """The same where ``rows`` [B] is set; nothing elsewhere."""
        counts = {name: getattr(self, name) * rows for name in COUNTS}
        states, lately = self.states * rows[:, None, None], self.lately * rows[:, None]
        return Remembered(states=states, lately=lately, **counts)


COUNTS = ("filled", "interactions", "updated_at", "updated_time", "seen")


class Store:
    """Memories by user: at most ``most`` rows; the user who was not met for longest makes room."""

    def __init__(self, n_users: int, most: int, ring: int, dim: int) -> None:
        self.n_users, self.most, self.kept, self.dim = n_users, min(most, n_users), ring + 1, dim
        self.device = torch.device("cpu")
        self.rows: dict[str, Tensor] = {}
        self.load({})

    def begin_epoch(self) -> None:
        """The log is read anew: who is met begins anew, the others stay as they are."""
        self.since = self.clock

    def get(self, users: Tensor, anew: bool = False) -> Remembered:
        """Those of ``users`` [B] (−1: nobody), with no more states than any of them has; ``anew``:
        only what was remembered since :meth:`begin_epoch`."""
        slot = self._slot(users)
        at = slot.clamp(min=0)
        known = slot >= 0
        if anew and self.used:
            known &= self.rows["touched"][at] > self.since
        if not bool(known.any()):
            return Remembered.nothing(len(users), self.dim, users.device)
        counts = {name: self.rows[name][at] * known for name in COUNTS}
        longest = int(counts["filled"].max())
        states = self.rows["states"][at, self.kept - longest :].float() * known[:, None, None]
        lately = self.rows["lately"][at].float() * known[:, None]
        return Remembered(states=states, lately=lately, **counts)

    def put(self, users: Tensor, found: Remembered, anew: bool = False) -> None:
        """Keep what is later than what is there; of a user's several rows, the latest."""
        old = self.get(users, anew)
        known = (users >= 0) & (users < self.n_users)
        rows = (known & (found.seen >= old.seen)).nonzero().squeeze(1)
        rows = rows[_last_of_each(users[rows], found.seen[rows])]
        if self.most == 0 or not len(rows):
            return
        rows = rows[: self.most]
        slot = self._make_room(users[rows])
        self.clock += 1
        self.rows["touched"][slot] = self.clock
        for name in (*COUNTS, "states", "lately"):
            kept = self.rows[name]
            kept[slot] = getattr(found, name)[rows].to(kept.dtype)

    def _slot(self, users: Tensor) -> Tensor:
        """Where each user's row is [B]; −1: nowhere."""
        known = (users >= 0) & (users < self.n_users)
        return torch.where(known, self.where[users.clamp(0, self.n_users - 1)], -1)

    def _make_room(self, users: Tensor) -> Tensor:
        """A slot for each of these (different) users."""
        slot = self._slot(users)
        new = (slot < 0).nonzero().squeeze(1)
        free = min(len(new), self.most - self.used)
        slot[new[:free]] = torch.arange(self.used, self.used + free, device=users.device)
        self._grow(self.used + free)
        self.used += free
        rest = new[free:]
        if len(rest):
            touched = self.rows["touched"][: self.used].clone()
            touched[slot[slot >= 0]] = self.clock + 1  # not those of this batch
            oldest = torch.argsort(touched, stable=True)[: len(rest)]
            self.where[self.rows["user"][oldest]] = -1
            slot[rest] = oldest
        self.rows["user"][slot] = users
        self.where[users] = slot
        return slot

    def _grow(self, rows: int) -> None:
        held = len(self.rows["user"])
        if rows <= held:
            return
        more = min(self.most, max(rows, 2 * held)) - held
        self.rows = {
            name: F.pad(kept, (0, 0) * (kept.dim() - 1) + (0, more))
            for name, kept in self.rows.items()
        }

    # -- as a whole -------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, a row per user."""
        return {name: kept[: self.used] for name, kept in self.rows.items()}

    def load(self, rows: Mapping[str, Tensor]) -> None:
        """The reverse of :meth:`tensors`; of nothing: forget everything."""
        device = rows["user"].device if rows else self.device
        empty: dict[str, Tensor] = {
            "user": torch.zeros(0, dtype=torch.int64),
            "touched": torch.zeros(0, dtype=torch.int64),
            **{name: torch.zeros(0, dtype=torch.int64) for name in COUNTS},
            "states": torch.zeros(0, self.kept, self.dim, dtype=torch.float16),
            "lately": torch.zeros(0, self.dim, dtype=torch.float16),
        }
        self.rows = {}
        for name, none in empty.items():
            kept = rows[name] if rows else none
            if kept.shape[1:] != none.shape[1:] or kept.dtype != none.dtype:
                raise ValueError(f"{name} is {tuple(kept.shape)} {kept.dtype}")
            self.rows[name] = kept.to(device).clone()
        self.used = len(self.rows["user"])
        self.clock = int(self.rows["touched"].max()) if self.used else 0
        self.since = 0
        self.where = torch.full((max(1, self.n_users),), -1, dtype=torch.int64, device=device)
        self.where[self.rows["user"]] = torch.arange(self.used, device=device)

    def to(self, device: torch.device) -> None:
        """Move it."""
        if device != self.device:
            self.device = device
            self.rows = {name: kept.to(device) for name, kept in self.rows.items()}
            self.where = self.where.to(device)

    def facts(self) -> dict[str, float]:
        """Users with a memory, and of these: states, events met, and 1 − cosine of lately and
        remembered, on average."""
        rows = self.tensors()
        with_one = (rows["filled"] > 0).nonzero().squeeze(1)
        if not len(with_one):
            return {"users": 0.0}
        latest, lately = rows["states"][with_one, -1].float(), rows["lately"][with_one].float()
        return {
            "users": float(len(with_one)),
            "mean_size": float(rows["filled"][with_one].double().mean()),
            "mean_interactions": float(rows["interactions"][with_one].double().mean()),
            "mean_drift": float((1 - F.cosine_similarity(latest, lately, dim=1)).mean()),
        }


def bytes_of(rows: int, ring: int, dim: int) -> int:
    """What so many users take."""
    return rows * (2 * dim * (ring + 2) + 8 * (len(COUNTS) + 2))


def _last_of_each(users: Tensor, seen: Tensor) -> Tensor:
    """Of each user's rows the one that was seen last [users], ascending."""
    order = torch.argsort(seen, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    _, whose = torch.unique(users, return_inverse=True)
    best = torch.full((len(users),), -1, dtype=torch.int64, device=users.device)
    best = best.scatter_reduce(0, whose, rank, "amax")
    return order[best[best >= 0]].sort().values
