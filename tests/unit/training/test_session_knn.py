"""Session k-NN by hand, and against the same thing written plainly."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from paropt.training.batches.events import Events
from paropt.training.evaluation.baselines import session_knn
from paropt.training.evaluation.baselines.session_knn import SessionKnn


def events_of(sessions: list[list[int]]) -> Events:
    items = np.array([item for session in sessions for item in session], dtype=np.int32)
    offsets = np.concatenate(([0], np.cumsum([len(s) for s in sessions]))).astype(np.int64)
    return Events(items, np.arange(len(items)), np.ones(len(items), bool), offsets, 0)


def test_by_hand() -> None:
    a, b, c, d, e = range(5)
    train = events_of([[a, b, c], [a, b], [b, d], [e, e]])
    knn = SessionKnn(train, 5)
    # after a: the sessions [a, b, c] (1/√3) and [a, b] (1/√2) vote for a and b (1.28) and c (0.58);
    # b is more popular than a; d and e have no vote, and e has two events
    wanted = {a: 2, b: 1, c: 3, d: 5, e: 4}
    for target, rank in wanted.items():
        assert knn.ranks(events_of([[a, target]])).tolist() == [rank]


def plainly(
    train: list[list[int]],
    prefix: list[int],
    target: int,
    n_items: int,
    k: int,
    sample: int,
    filter_seen: bool,
) -> dict[str, float]:
    support = Counter(item for session in train for item in session)
    asked = set(prefix)
    sharing = [i for i, session in enumerate(train) if asked & set(session)][-sample:]
    near = []
    for i in sharing:
        session = set(train[i])
        near.append((len(asked & session) / math.sqrt(len(asked) * len(session)), i))
    votes: Counter[int] = Counter()
    for similarity, i in sorted(near, reverse=True)[:k]:
        for item in set(train[i]):
            votes[item] += round(similarity * 2**40)
    gone = asked - {target} if filter_seen else set()
    keys = [(votes[item], support[item]) for item in range(n_items) if item not in gone]
    own = (votes[target], support[target])
    above = sum(key > own for key in keys)
    at_least = sum(key >= own for key in keys)
    return {
        "standard": 1 + above,
        "conservative": at_least,
        "median": (1 + above + at_least) / 2,
    }


@pytest.mark.parametrize("ties", ["standard", "conservative", "median"])
@pytest.mark.parametrize("entries", [1, 200, 2_000_000])
@pytest.mark.parametrize("filter_seen", [False, True])
def test_against_plain_counting(
    ties: Any, entries: int, filter_seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever chunks: a bound of one pair puts every target into a chunk of its own."""
    monkeypatch.setattr(session_knn, "ENTRIES", entries)
    random = np.random.default_rng(3)
    n_items = 15

    def sessions(count: int) -> list[list[int]]:
        # few popular items, so that equal votes and equal support happen
        sizes = random.integers(1, 7, count)
        return [(random.zipf(1.4, size) % n_items).tolist() for size in sizes]

    train, test = sessions(60), sessions(25)
    knn = SessionKnn(events_of(train), n_items, neighbours=5, sample=12)
    found = knn.ranks(events_of(test), ties, filter_seen)
    wanted = [
        plainly(train, s[:i], s[i], n_items, 5, 12, filter_seen)[ties]
        for s in test
        for i in range(1, len(s))
    ]
    assert found.tolist() == wanted


def test_no_target_and_no_neighbour() -> None:
    knn = SessionKnn(events_of([[0, 1], [1]]), 3)
    assert knn.ranks(events_of([[2]])).tolist() == []
    # nobody had item 2: popularity alone
    assert knn.ranks(events_of([[2, 1], [2, 0]])).tolist() == [1, 2]


def test_of_a_view() -> None:
    train, test = events_of([[0, 1], [0, 1, 3], [2]]), events_of([[0, 3, 1]])
    view: Any = SimpleNamespace(train=train, test=test, n_items=3)
    # item 3 is unknown there: it is left out of both, and 1 follows 0
    assert session_knn.session_knn_ranks(view).tolist() == [1]
