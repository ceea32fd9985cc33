"""What a final number stands beside: the floors and session k-NN, with confidence intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paropt.training.bootstrap import rank_table
from paropt.training.events import known_events
from paropt.training.floors import floor_ranks
from paropt.training.session_knn import session_knn_ranks

if TYPE_CHECKING:
    from paropt.data.dataset import View


def baseline_tables(view: View, deepest: int) -> dict[str, NDArray[np.int64]]:
    """The rank table (:mod:`paropt.training.bootstrap`) of each baseline on the view's targets.

    They are by the same groups of sessions as a model's, so that differences can be paired.
    """
    ranks = {**floor_ranks(view), "session k-NN": session_knn_ranks(view)}
    events = known_events(view.test, view.n_items)
    positions, _ = events.queries()
    sessions = np.searchsorted(events.offsets, positions, side="right") - 1
    n_sessions = len(events.offsets) - 1
    return {name: rank_table(r, sessions, n_sessions, deepest) for name, r in ranks.items()}
