"""Whose turn it is while both parts are trained one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

LEAST, MOST = 5, 100  # steps of a turn that ends when the loss stands still
STILL = 0.01  # relative change of the loss's moving mean, from one step to the next
FADES = 0.9


class Alternation:
    """SASRec's and the retriever's turns: every other step ("steps"), or as long as the own loss
    moves ("loss"). Losses of batches jump, so it is their moving mean that stands still, and no
    turn is longer than MOST steps: the other part must get its share."""

    def __init__(self, kind: str) -> None:
        self.by_loss = kind == "loss"
        self.sasrec = True
        self.since = 0
        self.mean: float | None = None
        self.change = 1.0
        self.steps = [0, 0]  # of the epoch: SASRec's, the retriever's

    def watch(self, loss: Tensor) -> Tensor:
        """The step's loss, as it is."""
        if self.by_loss:
            value = float(loss.detach())
            mean = value if self.mean is None else FADES * self.mean + (1 - FADES) * value
            self.change = 1.0 if self.mean is None else abs(mean - self.mean) / abs(self.mean)
            self.mean = mean
        return loss

    def after_step(self) -> None:
        """The step was made; the next one may be the other part's."""
        self.steps[0 if self.sasrec else 1] += 1
        self.since += 1
        still = self.since >= LEAST and self.change < STILL
        if not self.by_loss or still or self.since >= MOST:
            self.sasrec, self.since, self.mean, self.change = not self.sasrec, 0, None, 1.0

    def end_epoch(self) -> dict[str, int]:
        """How many steps each part got since the last call."""
        found = dict(zip(("sasrec", "retriever"), self.steps, strict=True))
        self.steps = [0, 0]
        return found

    def state(self) -> dict[str, Any]:
        """What resuming needs."""
        return {
            name: getattr(self, name) for name in ("sasrec", "since", "mean", "change", "steps")
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """The reverse of :meth:`state`."""
        for name, value in state.items():
            setattr(self, name, list(value) if name == "steps" else value)
