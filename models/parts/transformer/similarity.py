"""How well vectors tell right items from others: cosines, AUC, alignment and uniformity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SAMPLE = 256  # tokens looked at per batch
_BINS = 200  # of the histograms that the AUC comes from
_SHOWN = 20  # bins of the histograms that are stored


class Similarity(nn.Module):
    """Gathers cos(h, i⁺) and cos(h, i⁻) over an epoch, i⁻ uniform; the counters are buffers, so a
    resumed epoch reports what an uninterrupted one does.

    Alignment is E‖h − i⁺‖² and uniformity log E e^{−2‖x − y‖²} of pairs of h, all on the unit
    sphere (Wang & Isola, arXiv 2005.10242).
    """

    positive: Tensor
    negative: Tensor
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positive", torch.zeros(_BINS, dtype=torch.int64))
        self.register_buffer("negative", torch.zeros(_BINS, dtype=torch.int64))
        # cos⁺, cos⁻, tokens, Σ e^{−2‖x − y‖²}, pairs
        self.register_buffer("sums", torch.zeros(5, dtype=torch.float64))

    def begin_epoch(self) -> None:
        for counter in (self.positive, self.negative, self.sums):
            counter.zero_()

    def draw(self, targets: Tensor, n_items: int) -> Tensor:
        """Items, uniform, to hold against a sample of the ``targets`` [T]: one for each of it."""
        every = -(-len(targets) // SAMPLE)
        return torch.randint(n_items, targets[::every].shape, device=targets.device)

    @torch.no_grad()
    def watch(self, h: Tensor, table: Tensor, targets: Tensor, others: Tensor) -> None:
        """Look at a sample of h [T, d] evenly spread over the batch; ``others`` are those of
        :meth:`draw`. They and the ``targets`` are places in the table."""
        # as few operations as can be: in a step of few tokens each costs as much as its sum
        every = -(-len(h) // SAMPLE)
        h = F.normalize(h[::every].float(), dim=1)
        items = torch.stack([targets[::every], others])
        cosines = (F.normalize(F.embedding(items, table).float(), dim=2) * h).sum(2)
        right, wrong = _histograms(cosines)
        self.positive += right
        self.negative += wrong
        # ‖x − y‖² = 2 − 2 cos on the sphere; each with its neighbour in the sample
        close = torch.exp(4 * (h[1:] * h[:-1]).sum(1) - 4)
        counts = torch.tensor([len(h), max(0, len(h) - 1)], dtype=torch.float64, device=h.device)
        sums = [
            cosines.double().sum(1),
            counts[:1],
            close.double().sum(0, keepdim=True),
            counts[1:],
        ]
        self.sums += torch.cat(sums)

    def end_epoch(self) -> dict[str, Any]:
        """The epoch's figures; empty where nothing was seen."""
        right, wrong, tokens, close, pairs = self.sums.tolist()
        if not tokens:
            return {}
        below = self.negative.cumsum(0) - self.negative
        wins = self.positive.double() @ (below.double() + 0.5 * self.negative.double())
        uniformity = torch.tensor(close / max(1.0, pairs)).clamp(min=1e-30).log()
        return {
            "positive": right / tokens,
            "negative": wrong / tokens,
            "gap": (right - wrong) / tokens,
            "auc": float(wins / (tokens * tokens)),
            "alignment": 2 - 2 * right / tokens,
            "uniformity": float(uniformity),
            "positive_histogram": self.positive.view(_SHOWN, -1).sum(1).tolist(),
            "negative_histogram": self.negative.view(_SHOWN, -1).sum(1).tolist(),
        }


def _histograms(cosines: Tensor) -> Tensor:
    """Of each row [k, n] its counts over _BINS equal bins of [−1, 1]: [k, _BINS]."""
    bins = ((cosines + 1) * (_BINS / 2)).long().clamp_(0, _BINS - 1)
    for row in range(1, len(bins)):
        bins[row] += row * _BINS
    return torch.bincount(bins.flatten(), minlength=len(bins) * _BINS).view(-1, _BINS)
