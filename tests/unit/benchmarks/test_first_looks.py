"""First looks at a part of the data, and how they are judged."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from first_looks import latest, lost
from rings import write_ring
from surrogate import spearman

from paropt.data.prepare import prepare
from paropt.training.batches.plans import session_parallel


def test_the_latest_part_has_the_last_sessions_whole(tmp_path: Path) -> None:
    log = write_ring(tmp_path / "log.tsv", 40, random.Random(1))
    view = prepare([log], tmp_path / "set").view("search")
    part, whole = latest(view, 4).train, view.train
    assert part.n_sessions == whole.n_sessions // 4
    assert part.n_events == len(part.items) == len(part.times) == len(part.targets)
    for back in range(1, part.n_sessions + 1):
        ours = part.items[part.offsets[-back - 1] : part.offsets[-back]]
        assert np.array_equal(ours, whole.items[whole.offsets[-back - 1] : whole.offsets[-back]])
    assert part.offsets[0] == 0 and latest(view, 1).train.n_events == whole.n_events
    assert np.array_equal(latest(view, 4).test.items, view.test.items)
    steps = [session_parallel(v.train, v.n_items, 2).steps for v in (view, latest(view, 4))]
    assert steps[1] < steps[0] / 3, "and trains less"
    assert latest(view, 4).n_items == view.n_items, "the catalogue stays the whole one's"


def test_looks_are_judged_by_what_becomes_of_the_rows() -> None:
    worth = [0.1, 0.4, 0.2, 0.3, 0.5, 0.25]
    assert spearman(np.array(worth), np.array(worth)) == pytest.approx(1)
    assert spearman(-np.array(worth), np.array(worth)) == pytest.approx(-1)
    # the two that look best are the third and the fourth: the better of them is .3, of all .5
    assert lost([0, 0.1, 0.9, 0.8, 0.2, 0.3], worth) == pytest.approx(40)
    assert lost(worth, worth) == 0
