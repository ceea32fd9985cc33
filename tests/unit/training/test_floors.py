"""Floors by hand, against plain counting, and on real sessions."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from paropt.training.evaluation.baselines.floors import floors
from paropt.training.evaluation.protocol import TIES
from paropt.training.evaluation.ranking.judging import metrics_of


def view_of(train: list[list[int]], test: list[list[int]], n_items: int) -> Any:
    def split(sessions: list[list[int]]) -> Any:
        items = np.array([item for session in sessions for item in session], dtype=np.int32)
        offsets = np.concatenate(([0], np.cumsum([len(s) for s in sessions])))
        return SimpleNamespace(
            items=items,
            times=np.arange(len(items)),
            offsets=offsets,
            targets=np.ones(len(items), bool),
        )

    return SimpleNamespace(train=split(train), test=split(test), n_items=n_items)


def test_by_hand() -> None:
    # support: a 4, b 3, c 2, d 1; after a came b twice and c once, after b c once
    a, b, c, d = range(4)
    train = [[a, b], [a, b, c], [a, c], [b], [d], [a]]
    view = view_of(train, [[a, c], [b, d], [d, b]], 4)
    found = floors(view, at=(1, 4))
    # popularity: c is third, d fourth, b second
    assert found["popularity"] == pytest.approx(
        metrics_of(np.array([3.0, 4.0, 2.0]), (1, 4)), abs=1e-15
    )
    # co-occurrence: c is second after a; after b came c, then by support a, b, d: d is fourth;
    # nothing came after d: by support b is second
    assert found["cooccurrence"] == pytest.approx(
        metrics_of(np.array([2.0, 4.0, 2.0]), (1, 4)), abs=1e-15
    )


def plain(
    train: list[list[int]], test: list[list[int]], n_items: int, ties: str, filter_seen: bool
) -> dict[str, np.ndarray[Any, Any]]:
    support = Counter(item for session in train for item in session)
    after = Counter(pair for s in train for pair in itertools.pairwise(s))
    ranks: dict[str, list[float]] = {"popularity": [], "cooccurrence": []}
    for session in test:
        known = [item for item in session if item < n_items]
        for i in range(1, len(known)):
            gone = set(known[:i]) - {known[i]} if filter_seen else set()
            candidates = [item for item in range(n_items) if item not in gone]
            for name in ranks:

                def score(item: int, name: str = name, last: int = known[i - 1]) -> tuple[int, int]:
                    first = after[last, item] if name == "cooccurrence" else 0
                    return first, support[item]

                own = score(known[i])
                above = sum(score(item) > own for item in candidates)
                equal = sum(score(item) == own for item in candidates)
                ranks[name].append(
                    {
                        "standard": 1 + above,
                        "conservative": above + equal,
                        "median": 1 + above + (equal - 1) / 2,
                    }[ties]
                )
    return {name: np.array(values) for name, values in ranks.items()}


@pytest.mark.parametrize("filter_seen", [False, True])
@pytest.mark.parametrize("ties", TIES)
def test_against_plain_counting(ties: Any, filter_seen: bool) -> None:
    source = np.random.default_rng(3)

    def sessions(n: int, n_items: int) -> list[list[int]]:
        return [source.integers(0, n_items, source.integers(1, 8)).tolist() for _ in range(n)]

    train, test = [*sessions(40, 12), list(range(12))], sessions(60, 15)
    at = (1, 3, 5, 20)
    expected = plain(train, test, 12, ties, filter_seen)
    found = floors(view_of(train, test, 12), at, ties, filter_seen)
    for name, ranks in expected.items():
        assert found[name] == pytest.approx(metrics_of(ranks, at), abs=1e-12), name


def test_targets_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of([[0, 1, 2], [1, 0]], [[0, 1, 2, 0, 2]] * 5, 3)
    whole = floors(view, filter_seen=True)
    monkeypatch.setattr("paropt.training.evaluation.baselines.floors.CHUNK", 3)
    assert floors(view, filter_seen=True) == whole


def test_nothing_to_predict_gives_no_metrics() -> None:
    assert floors(view_of([[0, 1]], [[5, 6]], 2)) == {"popularity": {}, "cooccurrence": {}}


def test_sessions_of_one_event_have_no_successors() -> None:
    found = floors(view_of([[0], [0], [1]], [[1, 0]], 2), at=(1,))
    assert found["cooccurrence"] == found["popularity"]


@pytest.mark.realdata
def test_the_recorded_floors_of_real_sessions(data_dir: Path) -> None:
    """Popularity to the digits given; co-occurrence near, as its ties were broken otherwise."""
    index: dict[str, int] = {}
    train = read_sessions(data_dir / "yoochoose_100k" / "train_full.tsv.gz", index)
    n_items = len(index)
    test = read_sessions(data_dir / "yoochoose_100k" / "test.tsv.gz", index)
    found = floors(view_of(train, test, n_items))
    assert round(found["popularity"]["recall@20"], 4) == 0.0894
    assert round(found["popularity"]["mrr@20"], 4) == 0.0264
    assert found["cooccurrence"]["recall@20"] == pytest.approx(0.5856, rel=0.015)
    assert found["cooccurrence"]["mrr@20"] == pytest.approx(0.3483, rel=0.015)


def read_sessions(path: Path, index: dict[str, int]) -> list[list[int]]:
    sessions: dict[str, list[tuple[float, int]]] = {}
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            item = index.setdefault(row["ItemId"], len(index))
            sessions.setdefault(row["SessionId"], []).append((float(row["Time"]), item))
    return [[item for _, item in sorted(s, key=lambda event: event[0])] for s in sessions.values()]
