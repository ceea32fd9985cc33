"""Actions and times as inputs, conditions and weights of sequence models."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.contract import Catalogue, Facts, Field, SequenceBatch
from models.parts.transformer.sequence_model import SequenceModel
from models.parts.transformer.time_features import gap_buckets
from models.parts.transformer.unpadding import Unpadding
from paropt.errors import DataError, ParamError
from paropt.training.registry import build, complete_params, model_class

ACTION = Field("act", "category", 3, ("exposure", "click", "buy"))
FACTS = Facts(
    n_items=9, n_sessions=2, n_events=9, longest=5, has_times=True, columns={"act": ACTION}
)
SMALL = {"dim": 8, "blocks": 1, "max_length": 6, "dropout": 0.0, "action_column": "act"}
ALL = {"action_input": "add", "action_condition": "film", "time_features": "both"}
MODELS = ("sasrec", "hstu")
RANDOM = torch.Generator()


def model_with(name: str = "sasrec", **given: Any) -> SequenceModel:
    model = build(name, SMALL | given, Catalogue(FACTS, torch.ones(9, dtype=torch.int64)), seed=1)
    assert isinstance(model, SequenceModel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=RANDOM.manual_seed(3)))
    return model.eval()


def one_batch() -> SequenceBatch:
    """Rows of five and three events; the second row's last target isn't asked for."""
    items = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    targets = torch.tensor([[2, 3, 4, 5], [6, -1, -1, -1]])
    times = torch.tensor([[0, 4, 4, 100], [7, 9, 0, 0]]) * 3_600_000
    acts = torch.tensor([[0, 1, 0, -1], [2, 0, -1, -1]])
    wanted = torch.tensor([[1, 0, -1, 2], [0, -1, -1, -1]])
    lengths = torch.tensor([4, 2])
    return SequenceBatch(
        items, targets, times, times + 1, lengths, columns={"act": acts}, wanted={"act": wanted}
    )


def encoded(model: SequenceModel, batch: SequenceBatch) -> Tensor:
    with torch.no_grad():
        return model.encode(batch)


# -- what is read ------------------------------------------------------------------------------


def test_what_nobody_asks_for_is_not_read_and_holds_nothing() -> None:
    declared = model_class("sasrec")
    assert not declared.needs(complete_params("sasrec", SMALL)).columns
    names = set(model_with().state_dict())
    assert not any(name.startswith(("actions", "clock", "next_item")) for name in names)
    assert names == set(build("sasrec", {"dim": 8, "blocks": 1}, Catalogue(FACTS, torch.ones(9)), 1)
                        .state_dict())  # fmt: skip


@pytest.mark.parametrize(
    ("given", "wanted", "loss_only"),
    [
        ({"action_input": "add"}, (), ()),
        ({"action_condition": "film"}, ("act",), ()),
        ({"action_weights": "click=1"}, ("act",), ("act",)),
        ({"action_weights": "click=1", "action_condition": "film"}, ("act",), ()),
    ],
)
def test_needs_say_which_side_is_read(
    given: dict[str, Any], wanted: tuple[str, ...], loss_only: tuple[str, ...]
) -> None:
    needs = model_class("hstu").needs(complete_params("hstu", SMALL | given))
    assert dict(needs.columns) == {"act": ("category",)}
    assert (needs.wanted, needs.loss_only) == (wanted, loss_only)


@pytest.mark.parametrize("name", MODELS)
def test_an_action_changes_its_own_position_and_later_ones(name: str) -> None:
    model, batch = model_with(name, action_input="add"), one_batch()
    before = encoded(model, batch)
    acts = batch.columns["act"].clone()
    acts[0, 2] = 2
    after = encoded(model, replace(batch, columns={"act": acts}))
    assert torch.equal(after[:2], before[:2]) and torch.equal(after[4], before[4])
    assert not torch.isclose(after[2:4], before[2:4]).all(1).any()


@pytest.mark.parametrize("name", MODELS)
def test_the_wanted_action_scales_and_shifts_its_own_state_alone(name: str) -> None:
    model, batch = model_with(name, action_condition="film", similarity="dot"), one_batch()
    bare = model_with(name, similarity="dot")
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if "actions" not in k})
    scale, shift = model.actions.scale, model.actions.shift
    assert scale is not None and shift is not None
    states, found = encoded(bare, batch), encoded(model, batch)
    for row, action in enumerate([1, 0, 3, 2, 0]):  # the third is unknown
        expected = states[row] * (1 + scale.weight[action]) + shift.weight[action]
        torch.testing.assert_close(found[row], expected.detach(), rtol=1e-5, atol=1e-6)


def test_a_condition_begins_as_none() -> None:
    catalogue = Catalogue(FACTS, torch.ones(9, dtype=torch.int64))
    one, other = (
        build("sasrec", SMALL | {"action_condition": kind}, catalogue, 1).eval()
        for kind in ("film", "none")
    )
    with torch.no_grad():
        assert torch.equal(one.encode(one_batch()), other.encode(one_batch()))


def test_actions_weigh_their_targets() -> None:
    model, batch = model_with(action_weights="exposure=0.25+click=2"), one_batch()
    targets = batch.targets[batch.targets >= 0]
    each = F.cross_entropy(encoded(model, batch) @ model.item_table()[0].T, targets,
                           reduction="none")  # fmt: skip
    weights = torch.tensor([2, 0.25, 1, 1, 0.25])  # click, exposure, unknown, buy, exposure
    expected = (each * weights).sum() / weights.sum()
    torch.testing.assert_close(model.loss(batch), expected, rtol=1e-5, atol=1e-6)
    both = model_with(action_weights="exposure=0.25+click=2", position_decay=0.5)
    weights *= torch.tensor([0.125, 0.25, 0.5, 1, 0.5])
    expected = (each * weights).sum() / weights.sum()
    torch.testing.assert_close(both.loss(batch), expected, rtol=1e-5, atol=1e-6)


# -- times -------------------------------------------------------------------------------------


def test_gaps_are_in_buckets_of_doubling_seconds() -> None:
    seconds = torch.tensor([[50, 50, 51, 54, 54 + 86_400, 1 << 40]])
    gaps = [0, 1, 3, 86_400, (1 << 40) - 86_454]
    expected = [32, *(min(31, math.floor(math.log2(1 + gap))) for gap in gaps)]
    assert gap_buckets(seconds * 1000).tolist() == [expected]


@pytest.mark.parametrize(
    ("kind", "parts"), [("gap", 1), ("calendar", 2), ("both", 3)], ids=["gap", "calendar", "both"]
)
def test_times_are_added_to_their_positions(kind: str, parts: int) -> None:
    model, batch = model_with(time_features=kind), one_batch()
    clock = model.clock
    added = torch.zeros(6, 8)
    rows = [(0, i) for i in range(4)] + [(1, 0), (1, 1)]
    for token, (row, column) in enumerate(rows):
        at = int(batch.times[row, column]) // 1000
        if clock.gap is not None:
            gap = at - int(batch.times[row, column - 1]) // 1000 if column else None
            bucket = 32 if gap is None else math.floor(math.log2(1 + gap))
            added[token] += clock.gap.weight[bucket].detach()
        if clock.hour is not None and clock.weekday is not None:
            when = datetime.fromtimestamp(at, UTC)
            added[token] += clock.hour.weight[when.hour].detach()
            added[token] += clock.weekday.weight[when.weekday()].detach()
    assert sum(part is not None for part in (clock.gap, clock.hour, clock.weekday)) == parts
    found = clock.add(torch.zeros(6, 8), batch, Unpadding(batch.lengths, 4))
    torch.testing.assert_close(found.detach(), added)


@pytest.mark.parametrize("name", MODELS)
def test_later_actions_and_times_change_nothing_earlier(name: str) -> None:
    model, batch = model_with(name, **ALL), one_batch()
    before = encoded(model, batch)
    acts, wanted, times = (
        x.clone() for x in (batch.columns["act"], batch.wanted["act"], batch.times)
    )
    acts[0, 2:], wanted[0, 2:], times[0, 2:] = 2, 0, times[0, 2:] * 9 + 7_777_777
    later = replace(batch, columns={"act": acts}, wanted={"act": wanted}, times=times)
    after = encoded(model, later)
    assert torch.equal(after[:2], before[:2]) and torch.equal(after[4], before[4])
    assert not torch.isclose(after[2:4], before[2:4]).all(1).any()


@pytest.mark.parametrize("name", MODELS)
def test_what_is_in_the_padding_does_not_matter(name: str) -> None:
    model, batch = model_with(name, **ALL, action_weights="click=3"), one_batch()
    real = torch.arange(4) < batch.lengths[:, None]
    dirty = replace(
        batch,
        columns={"act": batch.columns["act"].where(real, 1)},
        wanted={"act": batch.wanted["act"].where(batch.targets >= 0, 1)},
        times=batch.times.where(real, 999),
    )
    assert torch.equal(encoded(model, dirty), encoded(model, batch))
    assert torch.equal(model.loss(dirty), model.loss(batch))


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"action_column": "none", "action_condition": "film"}, "film needs action_column, the"),
        ({"action_column": "none", "action_weights": "a=1"}, "action_weights a=1 needs action_col"),
        ({"action_weights": "click"}, "'click' is not of the form name=weight"),
        ({"action_weights": "click=-1"}, "'click=-1' is not of the form"),
        ({"action_weights": "click=nan"}, "is not of the form"),
        ({"action_weights": "click=1+click=2"}, "two weights for 'click'"),
        ({"action_weights": "clik=1"}, "a weight for 'clik', which is no act; there are exposure,"),
        ({"action_weights": "click=0+buy=0+exposure=0"}, "weighs every act 0"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamError, match=message.replace("+", r"\+")) as caught:
        complete_params("sasrec", SMALL | given, FACTS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_data_without_times_or_the_column_are_refused(name: str) -> None:
    order = replace(FACTS, has_times=False)
    given = {"time_features": "gap"} | ({"relative_bias": "none"} if name == "hstu" else {})
    with pytest.raises(ParamError, match="time_features gap needs time stamps and the data has on"):
        complete_params(name, given, order)
    read = {"action_column": "act", "action_input": "add"}
    with pytest.raises(DataError, match=r"column 'act', which the data lack.*--keep-column act"):
        complete_params(name, read, replace(FACTS, columns={}))
    number = {"act": Field("act", "number")}
    with pytest.raises(DataError, match=r"as category, but it is a number.*--categorical act"):
        complete_params(name, read | {"action_weights": "1=2"}, replace(FACTS, columns=number))
