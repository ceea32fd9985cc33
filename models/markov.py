"""Decayed Markov chains: which items came how soon after which (Ludewig & Jannach 2018, SR)."""

from __future__ import annotations

import torch

from models.parts.contract import Param, TrainingEvents
from models.parts.counting import (
    AGE_DECAY,
    DECAYS,
    MAX_LENGTH,
    ItemTableModel,
    Pairs,
    decay,
    neighbours_at,
    session_of,
    session_weights,
)

_RULES = "Ludewig & Jannach 2018, section 2.1"


class Markov(ItemTableModel):
    """Sequential rules: b after a counts by how closely it followed.

    Of every training session, each pair of an item a and an item b that came d ≤ ``steps`` events
    after it adds ``decay(d)`` to the rule a → b. ``normalise`` divides by a's number of events to
    that power: 0 leaves counts, 1 makes them frequencies. The score of an item is the sum of the
    rules from the items of the prefix, each weighted by how long ago it was; ``item_decay none``
    looks at the last one only, as published. With ``steps`` 1 it is a first-order Markov chain.
    """

    PARAMS = (
        Param("steps", "int", 10, "how far apart two events of a rule may be", low=1, high=1000,
              source=_RULES),
        Param("decay", "str", "harmonic", "weight of a rule's distance", choices=DECAYS,
              source=_RULES),
        Param("tau", "float", 2.0, "of decay exponential, in events", low=0, low_open=True),
        Param("rules", "int", 200, "heaviest rules of an item that are kept", low=1),
        Param("normalise", "float", 0.0, "a rule counts per event^normalise of its first item",
              low=0, high=1),
        Param("item_decay", "str", "none", "weight of the items before the last one",
              choices=("none", *DECAYS), source=_RULES),
        Param("item_tau", "float", 1.0, "of item_decay exponential, in events", low=0,
              low_open=True),
        MAX_LENGTH,
        AGE_DECAY,
    )  # fmt: skip

    def count(self, events: TrainingEvents) -> None:
        pairs = Pairs(self.catalogue.n_items, events.items.device)
        session = session_of(events)
        weights = session_weights(events, self.params["age_decay"])[session]
        steps = int(self.params["steps"])
        for distance, first in neighbours_at(events, session, range(1, steps + 1)):
            ago = torch.full_like(first, distance - 1)
            near = decay(self.params["decay"], ago, steps, self.params["tau"])
            pairs.add(events.items[first], events.items[first + distance], near * weights[first])
        first, second, summed = pairs.summed()
        often = self.catalogue.support.to(first.device).clamp(min=1).double()
        summed = summed / often[first] ** self.params["normalise"]
        kept = summed > 0
        self.keep(first[kept], second[kept], summed[kept], int(self.params["rules"]))


MODEL = Markov
