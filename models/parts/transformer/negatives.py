"""Where the negatives of sampled losses come from, and how often each item is expected among them.

From the catalogue, by support^sample_alpha (0: uniformly); from the batch, whose targets are
drawn by their popularity; from both; or from buckets of items that were exposed alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.parts.contract import SequenceBatch
from models.parts.transformer.losses import draw_negatives

BUCKETS = 6  # of negatives by exposure


@dataclass(frozen=True)
class Targets:
    """What a batch predicts: ``items`` [T], and the ``row`` [T] of the batch that each is in.

    ``sessions`` holds row · n_items + item, ascending, for the items of every row; ``weights`` [T]
    are those of the mean. Both are None where nobody asks.
    """

    items: Tensor
    row: Tensor | None = None
    sessions: Tensor | None = None
    weights: Tensor | None = None


@dataclass(frozen=True)
class Drawn:
    """Negatives: ``items`` [R] for all targets, or [T, R].

    ``parts`` says how many of the R came from where, in order; ``forbidden`` [T, R] or None: items
    of the target's own session, which are no negatives for it.
    """

    items: Tensor
    parts: tuple[tuple[str, int], ...]
    forbidden: Tensor | None = None


class Negatives(nn.Module):
    """Draws negatives for the targets of a batch; it holds no weights and nothing that is saved."""

    log_q: Tensor | None
    log_share: Tensor | None
    order: Tensor | None
    edges: Tensor | None

    def __init__(self, params: Mapping[str, Any], support: Tensor) -> None:
        """``support`` [n_items] counts each item's events in training."""
        super().__init__()
        self.kind, self.n_items = str(params["negatives"]), len(support)
        self.n_sample, self.part = int(params["n_sample"]), float(params["logq"])
        self.own = params["negative_sharing"] == "position"
        log_q = log_share = order = edges = None
        if params["sample_alpha"] and self.kind in ("sampled", "mixed"):
            log_q = _log_softmax(params["sample_alpha"], support)
        if self.of_batch:
            log_share = _log_softmax(1.0, support)
        if self.kind == "exposure":
            order, edges = exposure_buckets(support)
        for name, held in (
            ("log_q", log_q), ("log_share", log_share), ("order", order), ("edges", edges)
        ):  # fmt: skip
            self.register_buffer(name, held, persistent=False)

    @property
    def of_batch(self) -> bool:
        """Whether some come from the batch, so that targets say which row they are in."""
        return self.kind in ("in-batch", "mixed")

    def draw(self, targets: Targets) -> Drawn:
        """``n_sample`` negatives, shared by the batch or of each position."""
        device = targets.items.device
        lead = (len(targets.items),) if self.own else ()
        if not self.of_batch:
            return Drawn(self._draw(self.kind, (*lead, self.n_sample), device), (self._said(),))
        from_batch = self.n_sample // 2 if self.kind == "mixed" else self.n_sample
        found = self._of_batch(targets.items, lead, from_batch)
        parts: tuple[tuple[str, int], ...] = (("in-batch", found.shape[-1]),)
        if self.kind == "mixed":
            rest = self.n_sample - from_batch
            drawn = self._draw("sampled", (*lead, rest), device)
            found, parts = torch.cat([found, drawn], -1), (*parts, ("sampled", rest))
        return Drawn(found, parts, _in_session(targets, found, self.n_items))

    def _said(self) -> tuple[str, int]:
        return self.kind, self.n_sample

    def _draw(self, kind: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
        if kind == "sampled":
            return draw_negatives(self.log_q, self.n_items, shape, device)
        assert self.order is not None and self.edges is not None
        bucket = torch.arange(shape[-1], device=device) % (len(self.edges) - 1)
        begin, size = self.edges[bucket], self.edges[bucket + 1] - self.edges[bucket]
        within = (torch.rand(shape, dtype=torch.float64, device=device) * size).long()
        return self.order[begin + torch.minimum(within, size - 1)]

    @staticmethod
    def _of_batch(items: Tensor, lead: tuple[int, ...], count: int) -> Tensor:
        """Targets of the batch: each once where there are no more than ``count``."""
        if not lead and len(items) <= count:
            return items
        return items[torch.randint(len(items), (*lead, count), device=items.device)]

    # -- logQ -------------------------------------------------------------------------------

    def correction(self, drawn: Drawn) -> Tensor | float:
        """What each negative's logit loses: ``logq`` · log of how often the item is expected among
        the R, R · q_j of its source and the sum over sources (arXiv 2004.06390 of mixed ones)."""
        if self.part == 0:
            return 0.0
        counts = [self._log_count(drawn.items, *part) for part in drawn.parts]
        total = counts[0]
        for more in counts[1:]:
            total = torch.logaddexp(total, more)
        return total.mul_(self.part)

    def _log_count(self, items: Tensor, source: str, count: int) -> Tensor:
        """log(count · q_j) for items [...]."""
        if source == "exposure":
            return self._log_exposure(items, count)
        log_q = self.log_share if source == "in-batch" else self.log_q
        if log_q is None:
            q = torch.full(items.shape, 1 / self.n_items, device=items.device)
            return q.mul_(count).log_()
        found: Tensor = log_q[items]
        return found + math.log(count)

    def _log_exposure(self, items: Tensor, count: int) -> Tensor:
        """log of the draws from an item's bucket over the items in it."""
        assert self.order is not None and self.edges is not None
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(self.n_items, device=items.device)
        bucket = torch.searchsorted(self.edges, place[items], right=True) - 1
        buckets = len(self.edges) - 1
        draws = torch.bincount(
            torch.arange(count, device=items.device) % buckets, minlength=buckets
        )
        return (draws.double() / self.edges.diff()).log().float()[bucket]


def _log_softmax(alpha: float, support: Tensor) -> Tensor:
    """log of support^alpha over its sum."""
    return torch.log_softmax(alpha * support.clamp(min=1).double().log(), 0).float()


def exposure_buckets(support: Tensor, buckets: int = BUCKETS) -> tuple[Tensor, Tensor]:
    """Items from the least to the most events [N], and where each bucket begins [≤ buckets + 1].

    Each bucket holds about the same number of *events*, so few items are in the last one. An item
    is where the middle of its events lies; buckets without items are left out.
    """
    order = torch.argsort(support, stable=True)
    events = support[order].clamp(min=1).double()
    middle = events.cumsum(0) - events / 2
    bucket = (middle / events.sum() * buckets).long().clamp_(max=buckets - 1)
    sizes = torch.bincount(bucket, minlength=buckets)
    ends = sizes[sizes > 0].cumsum(0)
    return order, torch.cat([ends.new_zeros(1), ends])


# -- sessions ----------------------------------------------------------------------------------


def session_items(batch: SequenceBatch, n_items: int) -> Tensor:
    """row · n_items + item of what each row of a batch has or predicts, ascending, each once."""
    row = torch.arange(len(batch.lengths), device=batch.items.device)[:, None]
    real = torch.arange(batch.items.shape[1], device=row.device) < batch.lengths[:, None]
    keys = [(row * n_items + batch.items)[real]]
    keys.append((row * n_items + batch.targets)[batch.targets >= 0])
    found: Tensor = torch.cat(keys).unique()
    return found


def _in_session(targets: Targets, drawn: Tensor, n_items: int) -> Tensor:
    """Whether each negative is an item of the target's own session: [T, R]."""
    assert targets.row is not None and targets.sessions is not None
    sessions = targets.sessions
    rows = targets.row
    if drawn.dim() == 1:  # once per row, not once per target
        rows = torch.arange(int(sessions[-1]) // n_items + 1, device=drawn.device)
    keys = rows[:, None] * n_items + drawn
    at = torch.searchsorted(sessions, keys).clamp_(max=len(sessions) - 1)
    found = sessions[at] == keys
    return found[targets.row] if drawn.dim() == 1 else found
