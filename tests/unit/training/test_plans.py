"""Plans against the loops that they vectorise, and against the recorded schedules."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from paropt.training.batches import plans

Step = list[tuple[int, int, bool]]


def make_split(sessions: Sequence[Sequence[int]], targets: Any = None, name: str = "train") -> Any:
    """A split as plans see it; times count events in tens."""
    items = np.array([item for session in sessions for item in session], dtype=np.int32)
    offsets = np.concatenate(([0], np.cumsum([len(s) for s in sessions]))).astype(np.int64)
    flags = np.ones(len(items), bool) if targets is None else np.array(targets, bool)
    return SimpleNamespace(
        items=items,
        times=10 * np.arange(len(items)),
        offsets=offsets,
        targets=flags,
        name=name,
        dataset=SimpleNamespace(fingerprint=str(hash((items.tobytes(), offsets.tobytes())))),
    )


def random_sessions(seed: int, n: int, longest: int, n_items: int) -> list[list[int]]:
    source = np.random.default_rng(seed)
    return [source.integers(0, n_items, source.integers(1, longest + 1)).tolist() for _ in range(n)]


def loop(sessions: list[list[int]], batch_size: int, min_rows: int) -> list[Step]:
    """The published loop, one step at a time: rows as (input, target, begins a session)."""
    waiting = iter([session for session in sessions if len(session) >= 2])
    slots: list[Any] = [None] * batch_size
    steps = []
    while True:
        for i, slot in enumerate(slots):
            if slot is None or slot[1] + 1 == len(slot[0]):
                following = next(waiting, None)
                slots[i] = (following, 0) if following else None
        slots = [slot for slot in slots if slot is not None]
        if len(slots) < min_rows or not slots:
            return steps
        steps.append([(s[at], s[at + 1], at == 0) for s, at in slots])
        slots = [(s, at + 1) for s, at in slots]


def rows(plan: Any, step: int) -> Step:
    n = plan.n_valid[step]
    columns = (plan.inputs, plan.targets, plan.resets)
    return list(zip(*(column[step, :n].tolist() for column in columns), strict=True))


@pytest.mark.parametrize("min_rows", [1, 2])
@pytest.mark.parametrize(("n", "batch_size"), [(40, 7), (5, 8), (30, 1), (9, 9), (300, 50)])
def test_session_parallel_is_the_published_loop(n: int, batch_size: int, min_rows: int) -> None:
    sessions = random_sessions(n, n, 9, 50)
    plan = plans.session_parallel(make_split(sessions), 50, batch_size, min_rows)
    expected = loop(sessions, batch_size, min_rows)
    assert plan.steps == len(expected)
    for step, rows_expected in enumerate(expected):
        assert sorted(rows(plan, step)) == sorted(rows_expected)
    assert plan.batch_size == batch_size
    assert plan.inputs.shape == (plan.steps, batch_size)
    assert plan.n_full == sum(n == batch_size for n in plan.n_valid)
    if min_rows == 1:
        assert plan.events == sum(len(session) - 1 for session in sessions)


def test_a_slot_keeps_its_session_and_only_ever_dies() -> None:
    """A row that doesn't reset goes on with the item that it has just predicted."""
    plan = plans.session_parallel(make_split(random_sessions(3, 60, 8, 1000)), 1000, 11)
    assert plan.n_valid == sorted(plan.n_valid, reverse=True)
    for step in range(1, plan.steps):
        n = plan.n_valid[step]
        goes_on = ~plan.resets[step, :n]
        assert torch.equal(plan.inputs[step, :n][goes_on], plan.targets[step - 1, :n][goes_on])
        assert not plan.inputs[step, n:].any()
        assert not plan.targets[step, n:].any()
        assert not plan.resets[step, n:].any()


def test_a_plan_is_kept_for_the_next_training_and_split_by_split() -> None:
    sessions = random_sessions(4, 20, 5, 30)
    plan = plans.session_parallel(make_split(sessions), 30, 4)
    assert plans.session_parallel(make_split(sessions), 30, 4) is plan
    assert plans.session_parallel(make_split(sessions, name="train_full"), 30, 4) is not plan
    assert plans.session_parallel(make_split(sessions), 30, 5) is not plan


def test_the_cache_is_bounded_by_bytes() -> None:
    cache = plans._Cache(100)
    for key in range(3):
        cache.put(key, str(key), 40)
    assert [cache.get(key) for key in range(3)] == [None, "1", "2"]
    cache.put("large", "large", 1000)
    assert cache.get("large") == "large"
    assert cache.get(2) is None


def test_sessions_of_one_event_make_no_plan() -> None:
    assert plans.session_parallel(make_split([[1], [2]]), 5, 3).steps == 0
    assert len(plans.sequences(make_split([[1], [2]]), 5, None, 3, seed=1, epoch=1)) == 0


@pytest.mark.vectors
def test_the_recorded_schedules_are_reproduced(vectors_dir: Path) -> None:
    index = json.loads((vectors_dir / "index.json").read_text())
    lines = (vectors_dir / "train.tsv").read_text().splitlines()[1:]
    sessions: dict[str, list[tuple[float, int]]] = {}
    for line in lines:
        session, item, time = line.split("\t")
        sessions.setdefault(session, []).append((float(time), index["item_index"][item]))
    ordered = sorted(sorted(events, key=lambda e: e[0]) for events in sessions.values())
    split = make_split([[item for _, item in events] for events in ordered])
    cases = index.get("cases", {k: v for k, v in index.items() if k != "item_index"})
    assert cases
    for name, case in cases.items():
        recorded = np.load(vectors_dir / f"{name}.npz")
        params = case["params"]
        min_rows = 1 if params["n_sample"] else 2
        plan = plans.session_parallel(
            split, len(index["item_index"]), params["batch_size"], min_rows
        )
        assert params["n_epochs"] * plan.steps == len(recorded["in_idx"])
        both = zip(recorded["in_idx"], recorded["out_idx"], strict=True)
        for step, (inputs, targets) in enumerate(both):
            expected = sorted((i, o) for i, o in zip(inputs, targets, strict=True) if i >= 0)
            assert sorted(row[:2] for row in rows(plan, step % plan.steps)) == expected


# -- sequences -------------------------------------------------------------------------------


def pairs(batch: Any) -> list[tuple[list[int], list[int]]]:
    """Every row's inputs and targets; what is padded is checked on the way."""
    found = []
    for items, targets, length in zip(batch.items, batch.targets, batch.lengths, strict=True):
        assert not items[length:].any()
        assert (targets[length:] == -1).all()
        found.append((items[:length].tolist(), targets[:length].tolist()))
    assert batch.lengths.tolist() == sorted(batch.lengths.tolist(), reverse=True)
    assert batch.items.shape[1] == int(batch.lengths.max())
    return found


@pytest.mark.parametrize("max_length", [None, 1, 3, 100])
def test_sequences_are_the_latest_events_shifted_by_one(max_length: int | None) -> None:
    sessions = random_sessions(5, 50, 9, 40)
    batches = plans.sequences(make_split(sessions), 40, max_length, 8, seed=1, epoch=1)
    found = sorted(pair for batch in batches for pair in pairs(batch))
    keep = 0 if max_length is None else max_length + 1
    latest = [session[-keep:] for session in sessions if len(session) >= 2]
    assert found == sorted((session[:-1], session[1:]) for session in latest)
    assert batches.n_targets == [batch.n_targets for batch in batches]


def test_times_belong_to_inputs_and_targets() -> None:
    (batch,) = plans.sequences(make_split([[3, 4, 5], [6, 7]]), 9, None, 2, seed=1, epoch=1)
    assert batch.times.tolist() == [[0, 10], [30, 0]]
    assert batch.query_times.tolist() == [[10, 20], [40, 0]]


def test_order_follows_from_seed_and_epoch_alone() -> None:
    split = make_split([list(range(i, i + 2 + i % 4)) for i in range(40)])

    def order(seed: int, epoch: int) -> list[Any]:
        return [batch.items.tolist() for batch in plans.sequences(split, 99, None, 4, seed, epoch)]

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)
    # these very numbers on every machine and in every version
    assert [batch[0][0] for batch in order(1, 2)] == FIRST_OF_BATCHES


def test_batches_mix_lengths_and_sort_their_rows() -> None:
    """A batch of one length would learn from a biased sample of sessions."""
    source = np.random.default_rng(7)
    sessions = [[1] * int(n) for n in source.integers(2, 60, 4000)]
    batches = plans.sequences(make_split(sessions), 2, None, 32, seed=1, epoch=1)
    means = [float(batch.lengths.float().mean()) for batch in batches]
    # lengths 1…58 have a standard deviation of 16.7, means of 32 of them one of 3
    assert 2 < np.std(means) < 4
    for batch in batches:
        assert batch.lengths.tolist() == sorted(batch.lengths.tolist(), reverse=True)
        assert batch.items.shape[1] == int(batch.lengths[0])


# -- evaluation ------------------------------------------------------------------------------


def asked(
    sessions: list[list[int]], flags: list[bool], n_items: int, max_length: int | None
) -> list[tuple[list[int], int, list[int]]]:
    """For every target by the definition: what is seen, what is predicted, all of its history."""
    found = []
    at = 0
    for session in sessions:
        events = [(i, flags[at + j]) for j, i in enumerate(session) if i < n_items]
        at += len(session)
        known = [item for item, _ in events]
        for j, (item, flagged) in enumerate(events):
            if flagged and j:
                begin = 0 if max_length is None else max(0, j - max_length)
                found.append((known[begin:j], item, known[:j]))
    return found


@pytest.mark.parametrize("protocol", ["every position", "last", "some"])
@pytest.mark.parametrize("max_length", [None, 1, 4])
def test_every_target_sees_its_last_events(max_length: int | None, protocol: str) -> None:
    n_items = 30
    sessions = random_sessions(8, 60, 12, 40)  # a quarter of the events is unknown
    source = np.random.default_rng(1)
    flags = [
        {"every position": j > 0, "last": j == len(s) - 1, "some": bool(source.random() < 0.5)}[
            protocol
        ]
        for s in sessions
        for j in range(len(s))
    ]
    batches = plans.evaluation(make_split(sessions, flags), n_items, max_length, 16)
    found = []
    for batch in batches:
        assert isinstance(batch, plans.Queries)
        histories = iter(batch.histories.tolist())
        for items, targets in pairs(batch):
            for position, target in enumerate(targets):
                if target >= 0:
                    begin, end = next(histories)
                    history = batches.store.items[begin:end].tolist()
                    found.append((items[: position + 1], target, history))
        assert next(histories, None) is None
        assert len(batch.items) <= 16
    if max_length is not None:  # a shared window is longer than what its targets may see
        assert all(len(seen) <= max_length for seen, _, _ in found)
    assert sorted(found) == sorted(asked(sessions, flags, n_items, max_length))
    assert batches.total == len(found)
    # left out are also those whose whole history is unknown
    every = asked(sessions, flags, max(map(max, sessions)) + 1, max_length)
    assert batches.unknown == len(every) - len(found)


def test_batches_of_an_evaluation_are_bounded_by_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MAX_TOKENS", 20)
    sessions = [[1] * 30, [2] * 10, [3] * 5, [4] * 5, [5] * 5, [6] * 5, [7] * 5]
    shapes = [tuple(b.items.shape) for b in plans.evaluation(make_split(sessions), 9, None, 100)]
    assert shapes == [(1, 29), (1, 9), (5, 4)]


def test_an_evaluation_pads_no_more_than_it_reads() -> None:
    sessions = [[1] * n for n in (65, 40, 34, 33, 20, 17, 3, 3, 3, 2)]
    batches = plans.evaluation(make_split(sessions), 9, None, 100)
    assert [batch.lengths.tolist() for batch in batches] == [
        [64, 39, 33],
        [32, 19],
        [16],
        [2] * 3,
        [1],
    ]


def test_an_evaluation_without_targets() -> None:
    batches = plans.evaluation(make_split([[1], [8, 9]]), 5, None, 4)
    assert (batches.total, batches.unknown, len(batches)) == (0, 1, 0)  # 8 has nothing before it


FIRST_OF_BATCHES = [19, 3, 18, 31, 15, 39, 11, 6, 23, 35]
