"""Sequences made different in training: hidden, cropped or shuffled, and never in ranking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from models.parts.contract import Catalogue, Facts, SequenceBatch
from models.parts.transformer.augmenting import augmented, cropped, reordered
from models.parts.transformer.sequence_model import SequenceModel
from paropt.errors import ParamError
from paropt.training.registry import build, complete_params

LENGTHS = [20, 13, 7, 3, 2, 1]


def numbered() -> SequenceBatch:
    """Row r has the events 100 r, 100 r + 1, …; the column and the user say the same."""
    sizes = torch.tensor(LENGTHS)
    at = torch.arange(max(LENGTHS))
    real = at < sizes[:, None]
    events = 100 * torch.arange(len(LENGTHS))[:, None] + at
    return SequenceBatch(
        items=events.where(real, 0),
        targets=(events + 1).where(real, -1),
        times=events.where(real, 0),
        query_times=(events + 1).where(real, 0),
        lengths=sizes,
        columns={"kind": events.where(real, -1), "price": events.double().where(real, torch.nan)},
        wanted={"kind": (events + 1).where(real, -1)},
        users=torch.arange(len(LENGTHS)),
    )


def test_a_cropped_row_is_a_stretch_of_at_least_half_with_what_comes_next() -> None:
    torch.manual_seed(1)
    seen = set()
    for _ in range(50):
        batch = cropped(numbered(), 1.0)
        assert batch.users is not None
        assert batch.lengths.tolist() == sorted(batch.lengths.tolist(), reverse=True)
        for row, (user, size) in enumerate(zip(batch.users, batch.lengths.tolist(), strict=True)):
            first = int(batch.items[row, 0]) - 100 * int(user)
            whole = LENGTHS[int(user)]
            assert (whole + 1) // 2 <= size and 0 <= first <= whole - size
            expected = torch.arange(size) + first + 100 * user
            for values in (batch.items, batch.times, batch.columns["kind"]):
                assert torch.equal(values[row, :size], expected)
            for values in (batch.targets, batch.query_times, batch.wanted["kind"]):
                assert torch.equal(values[row, :size], expected + 1)
            assert (batch.targets[row, size:] == -1).all()
            assert batch.columns["price"][row, size:].isnan().all()
            seen.add((int(user), first, size))
    assert {(3, 0, 2), (3, 1, 2), (3, 0, 3)} <= seen  # every stretch of the row of three


def test_a_reordered_row_asks_for_what_comes_next_in_its_new_order() -> None:
    torch.manual_seed(1)
    moved = set()
    for _ in range(30):
        before, batch = numbered(), reordered(numbered(), 1.0)
        assert torch.equal(batch.times, before.times) and torch.equal(batch.lengths, before.lengths)
        for row, size in enumerate(LENGTHS):
            items = batch.items[row, :size]
            assert sorted(items.tolist()) == before.items[row, :size].tolist()
            assert int(items[0]) == 100 * row
            # no target has been seen: each is the next input, and the last is what it was
            assert torch.equal(batch.targets[row, : size - 1], items[1:])
            assert int(batch.targets[row, size - 1]) == 100 * row + size
            assert torch.equal(batch.columns["kind"], batch.items.where(batch.targets >= 0, -1))
            assert torch.equal(batch.wanted["kind"], batch.targets)
            places = (items != before.items[row, :size]).nonzero().flatten().tolist()
            if places:
                moved.add(row)
                assert places[-1] - places[0] < max(2, size // 5)
    assert moved == {0, 1, 2, 3}  # rows of one or two events have nothing to shuffle


def test_only_the_share_of_rows_and_events_that_was_asked_for() -> None:
    torch.manual_seed(1)
    wide = numbered()
    rows = replace(
        wide,
        items=wide.items[:1].repeat(4000, 1),
        targets=wide.targets[:1].repeat(4000, 1),
        times=wide.times[:1].repeat(4000, 1),
        query_times=wide.query_times[:1].repeat(4000, 1),
        lengths=wide.lengths[:1].repeat(4000),
        columns={},
        wanted={},
        users=None,
    )
    params = {"augment_mask": 0.0, "augment_crop": 0.0, "augment_reorder": 0.0}
    state = torch.get_rng_state()
    same, hidden = augmented(rows, params)
    assert same is rows and hidden is None and torch.equal(torch.get_rng_state(), state)
    _, hidden = augmented(rows, params | {"augment_mask": 0.3})
    assert hidden is not None and abs(float(hidden.float().mean()) - 0.3) < 0.01
    # of a row of 20 a stretch of 10…20 is kept: a row stays whole once in eleven times
    whole = float((augmented(rows, params | {"augment_crop": 0.5})[0].lengths == 20).float().mean())
    assert abs(whole - (0.5 + 0.5 / 11)) < 0.03
    # four events have 24 orders
    items = augmented(rows, params | {"augment_reorder": 0.5})[0].items
    moved = float((items != rows.items).any(1).float().mean())
    assert abs(moved - 0.5 * 23 / 24) < 0.03


FACTS = Facts(n_items=700, n_sessions=6, n_events=50, longest=20, has_times=True)


def model(**given: Any) -> SequenceModel:
    params = {"dim": 8, "max_length": 20, "dropout": 0.0, **given}
    made = build("sasrec", params, Catalogue(FACTS, torch.ones(700, dtype=torch.int64)), seed=3)
    assert isinstance(made, SequenceModel)
    return made


def test_training_sees_it_and_ranking_does_not() -> None:
    plain, changed = model(), model(augment_mask=0.5, augment_crop=0.5, augment_reorder=0.5)
    assert changed.hidden is not None and plain.hidden is None
    batch = replace(numbered(), columns={}, wanted={})
    with torch.no_grad():
        assert torch.equal(plain.encode(batch), changed.encode(batch))
    losses = {changed.loss(batch).item() for _ in range(4)}
    assert len(losses) == 4 and len({plain.loss(batch).item() for _ in range(4)}) == 1
    changed.loss(batch).backward()
    grad = changed.hidden.weight.grad
    assert grad is not None and bool(grad.any())


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_smoothed_labels_are_those_of_pytorch(similarity: str) -> None:
    made = model(label_smoothing=0.1, similarity=similarity, temperature=0.5)
    batch = replace(numbered(), columns={}, wanted={})
    with torch.no_grad():
        logits = made.encode(batch) @ made.item_table()[0].T / 0.5
    targets = batch.targets[batch.targets >= 0]
    expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)
    assert torch.allclose(made.loss(batch), expected, rtol=1e-5)


def test_smoothing_is_refused_where_there_is_nothing_to_smooth() -> None:
    with pytest.raises(ParamError, match=r"label_smoothing 0\.1 is one of cross-entropy"):
        complete_params("sasrec", {"label_smoothing": 0.1, "loss": "bce"})
