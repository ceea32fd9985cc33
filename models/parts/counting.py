"""What counting models share: prefixes as pairs, sparse tables between items, order among equals.

Everything is a few passes over flat tensors. A sparse table [n, m] is three of them: ``edges``
[n + 1], and ``columns`` and ``weights`` of the entries edges[i]…edges[i + 1]−1 of row i.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.parts.contract import Catalogue, Model, Param, SequenceBatch, TrainingEvents

AT_ONCE = 4_000_000  # pairs that are sorted together
EQUALS = 1e-4  # by which share of its score popularity may move an item

DECAYS = ("same", "linear", "harmonic", "quadratic", "logarithmic", "exponential")
MAX_LENGTH = Param("max_length", "int", 50, "latest events looked at", low=1, high=8192)
AGE_DECAY = Param(
    "age_decay",
    "float",
    0.0,
    "sessions count e^(−age_decay · age), the age from 0 (the latest) to 1 (the first)",
    low=0,
    high=1000,
    source="Garg et al. 2019, section 3.2",
)


def decay(kind: str, ago: Tensor, length: Tensor | int, tau: float = 1.0) -> Tensor:
    """The weight of what lies ``ago`` (from 0) steps back, of ``length`` steps in all, in (0, 1].

    "same" 1, "linear" 1 − ago/length, "harmonic" 1/(ago + 1), "quadratic" 1/(ago + 1)²,
    "logarithmic" 1/log₂(ago + 2), "exponential" e^(−ago/tau).

    Raises:
        ValueError: a decay of another name.
    """
    ago = ago.float()
    if kind == "same":
        return torch.ones_like(ago)
    if kind == "linear":
        return 1 - ago / length
    if kind in ("harmonic", "quadratic"):
        return (ago + 1) ** (-1.0 if kind == "harmonic" else -2.0)
    if kind == "logarithmic":
        return 1 / torch.log2(ago + 2)
    if kind == "exponential":
        return torch.exp(-ago / tau)
    raise ValueError(f"no decay {kind!r}")


def ranges(lengths: Tensor) -> Tensor:
    """0…l−1 for each length l, one after another."""
    ends = lengths.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    return torch.arange(total, device=lengths.device) - (ends - lengths).repeat_interleave(lengths)


class Prefixes(NamedTuple):
    """What came before each target: pairs [P] of a target's number ``rows`` and one of the
    ``items`` before it, ``ago`` events before the latest; ``lengths`` [targets]."""

    rows: Tensor
    items: Tensor
    ago: Tensor
    lengths: Tensor


def prefixes(batch: SequenceBatch, longest: int) -> Prefixes:
    """The latest ``longest`` events before every target, in row-major order of the targets."""
    row, column = (batch.targets >= 0).nonzero(as_tuple=True)
    lengths = (column + 1).clamp(max=longest)
    rows = torch.arange(len(row), device=row.device).repeat_interleave(lengths)
    ago = ranges(lengths)
    return Prefixes(rows, batch.items[row[rows], column[rows] - ago], ago, lengths)


def distinct(found: Prefixes, n_items: int) -> Prefixes:
    """Every item of a prefix once, where it was last; ``lengths`` count the distinct ones."""
    keys = found.rows * n_items + found.items
    order = torch.sort(keys, stable=True).indices  # of equal keys the latest event comes first
    keys = keys[order]
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    kept = order[first]
    rows = found.rows[kept]
    lengths = torch.bincount(rows, minlength=len(found.lengths))
    return Prefixes(rows, found.items[kept], found.ago[kept], lengths)


def session_weights(events: TrainingEvents, age_decay: float) -> Tensor:
    """e^(−age_decay · age) of every session [sessions], by the time of its first event."""
    begins = events.offsets[:-1].clamp(max=max(len(events.times) - 1, 0))
    times = events.times[begins].double()
    if not len(times):
        return times.float()
    span = float(times.max() - times.min())
    ages = (times.max() - times) / span if span > 0 else torch.zeros_like(times)
    return torch.exp(-age_decay * ages).float()


class Pairs:
    """Weights of pairs of items, summed as they come; what was summed is kept sorted."""

    def __init__(self, n_items: int, device: torch.device) -> None:
        self.n_items = n_items
        self.keys = torch.zeros(0, dtype=torch.int64, device=device)
        self.weights = torch.zeros(0, dtype=torch.float64, device=device)
        self._new: list[tuple[Tensor, Tensor]] = []
        self._waiting = 0

    def add(self, first: Tensor, second: Tensor, weights: Tensor) -> None:
        """Add ``weights`` [P] to the pairs of ``first`` and ``second`` [P]."""
        self._new.append((first * self.n_items + second, weights.double()))
        self._waiting += len(first)
        if self._waiting >= AT_ONCE:
            self._sum()

    def _sum(self) -> None:
        keys = torch.cat([self.keys, *(new[0] for new in self._new)])
        weights = torch.cat([self.weights, *(new[1] for new in self._new)])
        self.keys, place = torch.unique(keys, return_inverse=True)
        self.weights = torch.zeros_like(self.keys, dtype=torch.float64).index_add_(
            0, place, weights
        )
        self._new, self._waiting = [], 0

    def summed(self) -> tuple[Tensor, Tensor, Tensor]:
        """(first, second, weight) of every pair, once, ascending."""
        self._sum()
        first = torch.div(self.keys, self.n_items, rounding_mode="floor")
        return first, self.keys - first * self.n_items, self.weights


def strongest(rows: Tensor, weights: Tensor, most: int) -> Tensor:
    """Which entries are among the ``most`` heaviest of their row, ascending; ``rows`` ascend."""
    order = torch.sort(weights, descending=True, stable=True).indices
    order = order[torch.sort(rows[order], stable=True).indices]
    begins = torch.searchsorted(rows, rows)  # where the row of each begins
    kept = order[torch.arange(len(rows), device=rows.device) - begins < most]
    return torch.sort(kept).values


class CountingModel(Model):
    """A model that counts, and is saved with what it counted."""

    PLAN = "counting"

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        grades = torch.unique(catalogue.support, return_inverse=True)[1].float()
        popularity = grades / (grades.max() + 1) if len(grades) else grades
        self.register_buffer("popularity", popularity, persistent=False)  # in [0, 1)
        self.popularity: Tensor

    @property
    def max_length(self) -> int | None:
        return int(self.params["max_length"])

    def ordered(self, votes: Tensor) -> Tensor:
        """Scores of votes [targets, n_items] ≥ 0: items without a vote come last, by popularity,
        which also tells those apart that have (nearly) equally many."""
        return torch.where(votes > 0, votes * (1 + EQUALS * self.popularity), self.popularity - 1)


class ItemTableModel(CountingModel):
    """A counting model that goes from each item of a prefix to others by a sparse table."""

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        for name, kind in (("edges", torch.int64), ("columns", torch.int32)):
            self.register_buffer(name, torch.zeros(0, dtype=kind))
        self.register_buffer("weights", torch.zeros(0))
        self.edges: Tensor
        self.columns: Tensor
        self.weights: Tensor

    def keep(self, first: Tensor, second: Tensor, weights: Tensor, most: int) -> None:
        """Make the ``most`` heaviest of every row the table; ``first`` ascends, weights > 0."""
        kept = strongest(first, weights, most)
        self.store(first[kept], second[kept], weights[kept])

    def store(self, first: Tensor, second: Tensor, weights: Tensor) -> None:
        """Make these entries the table; ``first``, their rows, ascend."""
        rows = torch.arange(self.catalogue.n_items + 1, device=first.device)
        self.edges = torch.searchsorted(first.contiguous(), rows)
        self.columns, self.weights = second.int(), weights.float()

    def weigh(self, found: Prefixes) -> Tensor:
        """The weight of each event of a prefix [P], by how long ago it was."""
        kind, tau = str(self.params["item_decay"]), float(self.params["item_tau"])
        if kind == "none":
            return (found.ago == 0).float()
        return decay(kind, found.ago, found.lengths[found.rows], tau)

    def score(self, batch: SequenceBatch) -> Tensor:
        found = prefixes(batch, int(self.params["max_length"]))
        own = self.weigh(found)
        used = own > 0
        rows, items, own = found.rows[used], found.items[used], own[used]
        sizes = self.edges[items + 1] - self.edges[items]
        entries = self.edges[items].repeat_interleave(sizes) + ranges(sizes)
        cells = rows.repeat_interleave(sizes) * self.catalogue.n_items + self.columns[entries]
        votes = own.new_zeros(len(found.lengths) * self.catalogue.n_items)
        votes.index_add_(0, cells, own.repeat_interleave(sizes) * self.weights[entries])
        return self.ordered(votes.view(-1, self.catalogue.n_items))


def session_of(events: TrainingEvents) -> Tensor:
    """The session of every event [events]."""
    sizes = events.offsets.diff()
    return torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)


def neighbours_at(
    events: TrainingEvents, session: Tensor, distances: Iterable[int]
) -> Iterable[tuple[int, Tensor]]:
    """For each distance the events [P] that have another one so far behind in their session."""
    for distance in distances:
        if distance >= len(session):
            return
        alike = session[distance:] == session[:-distance]
        if not bool(alike.any()):
            return
        yield distance, alike.nonzero()[:, 0]


def distinct_items(events: TrainingEvents, n_items: int) -> tuple[Tensor, Tensor]:
    """(session, item) of every item of a session, once, in the order of its first event."""
    session = session_of(events)
    keys = session * n_items + events.items
    order = torch.sort(keys, stable=True).indices
    ordered = keys[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    kept = torch.sort(order[first]).values
    return session[kept], events.items[kept]
