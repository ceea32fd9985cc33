"""Item k-NN: items of the same sessions, by a cosine that distrusts rare ones."""

from __future__ import annotations

import torch

from models.parts.contract import Param, TrainingEvents
from models.parts.counting import (
    AGE_DECAY,
    DECAYS,
    MAX_LENGTH,
    ItemTableModel,
    Pairs,
    distinct_items,
    neighbours_at,
    session_weights,
)


class ItemKnn(ItemTableModel):
    """Items are alike that share sessions: w(a, b) = n_ab / (n_a^α · n_b^(1 − α) + shrink).

    n_ab counts the sessions with both (at most ``window`` distinct items apart), n_a those with
    a; α ½ is the cosine. ``shrink`` draws the similarities of rare items to zero (Bell & Koren
    2007). The score of an item is the sum over the items of the prefix, each weighted by how long
    ago it was; ``item_decay none`` looks at the last one only (arXiv 1511.06939, section 4).
    """

    PARAMS = (
        Param("neighbours", "int", 100, "most similar items of an item that are kept", low=1),
        Param("shrink", "float", 20.0, "added to the cosine's denominator", low=0,
              source="Bell & Koren 2007"),
        Param("alpha", "float", 0.5, "power of a's count; 0.5 is the cosine", low=0, high=1),
        Param("window", "int", 50, "how many distinct items apart in a session", low=1, high=1000),
        Param("item_decay", "str", "none", "weight of the items before the last one",
              choices=("none", *DECAYS)),
        Param("item_tau", "float", 1.0, "of item_decay exponential, in events", low=0,
              low_open=True),
        MAX_LENGTH,
        AGE_DECAY,
    )  # fmt: skip

    def count(self, events: TrainingEvents) -> None:
        n_items, device = self.catalogue.n_items, events.items.device
        by_session = session_weights(events, self.params["age_decay"])
        session, items = distinct_items(events, n_items)
        weights = by_session[session]
        pairs = Pairs(n_items, device)
        once = TrainingEvents(items, items, events.offsets)
        window = range(1, int(self.params["window"]) + 1)
        for distance, first in neighbours_at(once, session, window):
            one, other = items[first], items[first + distance]
            pairs.add(one, other, weights[first])
            pairs.add(other, one, weights[first])
        first, second, together = pairs.summed()
        held = torch.zeros(n_items, dtype=torch.float64, device=device)
        held.index_add_(0, items, weights.double())
        alpha = float(self.params["alpha"])
        norm = held[first] ** alpha * held[second] ** (1 - alpha) + self.params["shrink"]
        kept = together > 0
        alike = (together / norm)[kept]
        self.keep(first[kept], second[kept], alike, int(self.params["neighbours"]))


MODEL = ItemKnn
