"""Everything that a final test judged, compared two by two, corrected for how many pairs there are.

Of two samples of the same sessions the difference is drawn with both at once (a paired bootstrap).
Its p-value is the share of draws on the other side of zero, twice; with m pairs the smallest is
multiplied by m, the next by m − 1, …, and none is below one before it (Holm, Scandinavian Journal
of Statistics 1979), so that the chance of any false difference stays below the level.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from paropt.training.evaluation.bootstrap import Sample

LEVEL = 0.05


def pairwise(samples: Mapping[str, Sample], metric: str) -> list[dict[str, Any]]:
    """Each pair's ``one`` and ``other``, by how much ``one`` is above, its interval, ``p`` and
    ``holm``, the p-value corrected for the number of pairs; none where the metric's values are not
    known of at least two."""
    from paropt.training.evaluation.bootstrap import interval

    known = {name: one for name, one in samples.items() if metric in one.names}
    drawn = {name: one.resampled()[metric] for name, one in known.items()}
    values = {name: one.values[metric] for name, one in known.items()}
    pairs: list[dict[str, Any]] = []
    for one, other in itertools.combinations(known, 2):
        if len(known[one].counts) != len(known[other].counts):
            continue
        apart = drawn[one] - drawn[other]
        pairs.append(
            {
                "one": one,
                "other": other,
                "difference": values[one] - values[other],
                "interval": list(interval(apart)),
                "p": p_value(apart),
            }
        )
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["holm"] = corrected
    return pairs


def p_value(apart: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Of drawn differences [draws], two-sided; never 0, as there are only so many draws."""
    known = apart[~np.isnan(apart)]
    side = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (side + 1) / (len(known) + 1))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in their order."""
    found = [0.0] * len(values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        found[place] = least
    return found
