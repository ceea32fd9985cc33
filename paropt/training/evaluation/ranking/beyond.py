"""What is recommended, whatever is right: how many items, how evenly, how popular ones.

All follow from c_i, how often item i is among the first k of a target, over all targets together,
and from its popularity p_i, the share of the training split's events that are of it:

======================  ==========================================  ==============================
``coverage@k``          share of the n items with c_i > 0           Herlocker et al., TOIS 2004
``gini@k``              Σ_j (2j − n − 1) c_(j) / (n Σ c), c_(j)     Fleder & Hosanagar,
                        ascending; 0: all alike, 1: one has all     Management Science 2009
``novelty@k``           Σ c_i · −log₂ p_i / Σ c                     Zhou et al., PNAS 2010
``popularity_lift@k``   mean of p over what is recommended, over    Abdollahpouri et al.,
                        that over the histories, less 1             RecSys 2020
======================  ==========================================  ==============================
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from paropt.training.evaluation.ranking.ranks import exclude_items
from paropt.training.metrics import split


class Recommended:
    """What the targets of an evaluation are recommended, for some metrics of the above.

    ``support`` [n_items] counts the training events of each item.
    """

    def __init__(self, support: Tensor, device: torch.device, names: Iterable[str]) -> None:
        self.names = list(names)
        self.cutoffs = sorted({min(k, len(support)) for k in map(_cutoff, self.names)})
        self.support = support.to(device).double()
        zeros = torch.zeros(len(support), dtype=torch.int64, device=device)
        self.times = {k: zeros.clone() for k in self.cutoffs}
        self._before: Tensor | None = None  # the sum of the support of all events before each
        self._histories, self._targets = 0.0, 0

    def remember(self, histories: Tensor, items: Tensor) -> None:
        """How popular the events before each target are: of ``items`` [events] those from
        ``histories`` [T, 2], its session's begin, to before its own place."""
        if not any(name.startswith("popularity_lift") for name in self.names):
            return
        if self._before is None:
            known = self.support.new_zeros(len(self.support) + 1)  # and what training never saw
            known[:-1] = self.support
            of_events = known[items.long().clamp(max=len(self.support))]
            self._before = torch.cat([known.new_zeros(1), torch.cumsum(of_events, 0)])
        before = self._before
        sizes = (histories[:, 1] - histories[:, 0]).double()
        means = (before[histories[:, 1]] - before[histories[:, 0]]) / sizes
        self._histories += float(means.sum())
        self._targets += len(histories)

    def add(self, chunks: Iterable[Tensor], exclude: tuple[Tensor, Tensor] | None) -> None:
        """Take note of what scores [T, n_items], in chunks of rows, recommend."""
        if not self.cutoffs:
            return
        begin = 0
        for scores in chunks:
            if exclude is not None:
                exclude_items(scores, begin, *exclude)
            begin += len(scores)
            found = scores.topk(self.cutoffs[-1], dim=1)
            there = found.values > -torch.inf
            for k in self.cutoffs:
                shown = found.indices[:, :k][there[:, :k]]
                self.times[k] += torch.bincount(shown, minlength=len(self.support))

    def metrics(self) -> dict[str, float]:
        """Each metric by its name."""
        return {name: self._metric(name) for name in self.names}

    def _metric(self, name: str) -> float:
        times = self.times[min(_cutoff(name), len(self.support))].double()
        word, _ = split(name)
        if word == "coverage":
            return float((times > 0).double().mean())
        if word == "gini":
            return gini(times)
        share = times / times.sum()
        popularity = self.support / self.support.sum()
        if word == "novelty":
            rarest = 1 / float(self.support.sum())  # an item that training never saw
            return float(-(share * popularity.clamp(min=rarest).log2()).sum())
        histories = self._histories / self._targets / float(self.support.sum())
        return float((share * popularity).sum()) / histories - 1


def gini(times: Tensor) -> float:
    """The Gini coefficient of counts [n] float64."""
    ordered, n = times.sort().values, len(times)
    ranks = 2 * torch.arange(1, n + 1, dtype=torch.float64, device=times.device) - n - 1
    return float((ranks * ordered).sum() / (n * ordered.sum()))


def _cutoff(name: str) -> int:
    return split(name)[1] or 0
