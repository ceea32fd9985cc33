"""HSTU's attention, time buckets and rotary encoding against their formulas, element by element."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.hstu import HSTU
from models.parts.contract import Catalogue, Facts, SequenceBatch
from models.parts.transformer import pointwise
from models.parts.transformer.pointwise import causal_weight, pointwise_attention
from models.parts.transformer.positions import (
    RelativeBias,
    Rotary,
    rotate,
    time_buckets,
    time_positions,
)
from models.parts.transformer.unpadding import Unpadding
from paropt.training.registry import build

DAY = 86_400_000
FACTS = Facts(n_items=9, n_sessions=3, n_events=12, longest=5, has_times=True)


def batch_of(times: list[int], asked: list[int] | None = None) -> SequenceBatch:
    """One row of items 0, 1, 2 … at ``times``."""
    row = torch.tensor([times])
    return SequenceBatch(
        items=torch.arange(len(times))[None],
        targets=torch.arange(len(times))[None] + 1,
        times=row,
        query_times=torch.tensor([asked]) if asked else row,
        lengths=torch.tensor([len(times)]),
    )


def hstu(**given: object) -> HSTU:
    params = {"dim": 8, "heads": 2, "max_length": 6, "dropout": 0.0, "blocks": 1, **given}
    model = build("hstu", params, Catalogue(FACTS, torch.ones(9, dtype=torch.int64)), seed=2)
    assert isinstance(model, HSTU)
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model.eval()


# -- attention ---------------------------------------------------------------------------------


def test_pointwise_attention_by_hand() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 4, 3) for _ in range(3))
    bias = torch.randn(1, 1, 4, 4)
    weight = causal_weight(4, "max", 10, torch.device("cpu"))
    found = pointwise_attention(q, k, v, bias, weight)
    for i in range(4):
        expected = torch.zeros(3)
        for j in range(i + 1):  # no key after the query, whatever its bias
            score = q[0, 0, i] @ k[0, 0, j] + bias[0, 0, i, j]
            expected += score / (1 + torch.exp(-score)) / 10 * v[0, 0, j]
        torch.testing.assert_close(found[0, 0, i], expected)


def test_normalisers() -> None:
    cpu = torch.device("cpu")
    assert causal_weight(3, "max", 4, cpu).tolist() == [
        [0.25, 0, 0],
        [0.25, 0.25, 0],
        [0.25, 0.25, 0.25],
    ]
    third = pytest.approx(1 / 3)
    assert causal_weight(3, "visible", 4, cpu).tolist() == [
        [1, 0, 0],
        [0.5, 0.5, 0],
        [third, third, third],
    ]


@pytest.mark.parametrize("normaliser", ["max", "visible"])
def test_block_by_hand(normaliser: str) -> None:
    """y = x + W_o·(LN(A·V) ⊙ U) for one block, from the paper's equations, token by token."""
    model = hstu(normaliser=normaliser, rotary="none")
    times = [0, 3_000, 60_000, 60_000]
    batch = batch_of(times)
    with torch.no_grad():
        found = model.states(batch)[0]
    block = model.blocks[0]
    x = model.items.weight[:4] * math.sqrt(8) + model.positions.weight[:4]

    def norm(row: Tensor) -> Tensor:
        return (row - row.mean()) / torch.sqrt(row.var(correction=0) + 1e-6)

    projected = [F.silu(block.project.weight @ norm(row)) for row in x]
    for i in range(4):
        heads = []
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            total = torch.zeros(4)
            for j in range(i + 1):
                query, key = projected[i][16:24][part], projected[j][24:32][part]
                value = projected[j][8:16][part]
                apart = max(1, (times[i] - times[j]) / 1000)
                bucket = min(128, int(math.log(apart) / 0.301))
                score = query @ key + block.bias.position[i - j] + block.bias.time[bucket]
                total += score * torch.sigmoid(score) * value
            heads.append(total / (6 if normaliser == "max" else i + 1))
        gated = norm(torch.cat(heads)) * projected[i][:8]
        y = x[i] + block.merge.weight @ gated + block.merge.bias
        torch.testing.assert_close(found[i], y, rtol=1e-4, atol=1e-5)


def test_triton_is_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU it is as auto; where it is wanted and missing, that is said."""
    batch = batch_of([0, 3_000, 60_000])
    with torch.no_grad():
        found = [hstu(attention_kernel=kind).encode(batch) for kind in ("auto", "triton")]
    assert torch.equal(*found)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ValueError, match=r"needs the package triton.*set attention_kernel to auto"):
        pointwise.triton_kernels()


# -- time --------------------------------------------------------------------------------------


def test_time_buckets_by_hand() -> None:
    month = 30 * DAY
    batch = batch_of([0, 900, 10_000, month], asked=[900, 10_000, month, 2 * month])
    event = time_buckets(batch.times, batch.times, 128)[0]
    assert event[1, 0] == 0  # under a second is a second
    assert event[2, 0] == int(math.log(10) / 0.301) == 7
    assert event[2, 1] == int(math.log(9.1) / 0.301) == 7
    assert event[3, 0] == int(math.log(month / 1000) / 0.301) == 49
    assert event.diagonal().tolist() == [0, 0, 0, 0]
    query = time_buckets(batch.query_times, batch.times, 128)[0]
    assert query[1, 0] == 7 and query[2, 2] == int(math.log(month / 1000 - 10) / 0.301)
    assert time_buckets(batch.times, batch.times, 5).max() == 5


def test_unix_times_keep_their_seconds() -> None:
    """float32 holds Unix milliseconds to within minutes."""
    late = batch_of([1_700_000_000_000, 1_700_000_010_000])
    assert time_buckets(late.times, late.times, 128)[0, 1, 0] == 7
    assert time_positions(late, "linear", 1.0).tolist() == [[0, 10]]


def test_relative_bias_by_hand() -> None:
    torch.manual_seed(0)
    bias = RelativeBias("both", max_length=5, n_buckets=3)
    assert bias.position is not None and bias.time is not None
    buckets = torch.randint(4, (2, 3, 3), dtype=torch.int32)
    found = bias(3, buckets)
    for row in range(2):
        for i in range(3):
            for j in range(i + 1):
                expected = bias.position[i - j] + bias.time[int(buckets[row, i, j])]
                torch.testing.assert_close(found[row, 0, i, j], expected)


def test_query_time_reaches_the_bias() -> None:
    query, event = hstu(time_mode="query"), hstu(time_mode="event")
    batch = batch_of([0, 1_000, 2_000], asked=[1_000, 2_000, 3_000])
    later = replace(batch, query_times=torch.tensor([[1_000, 2_000, 40 * DAY]]))
    with torch.no_grad():
        assert torch.equal(event.encode(batch), event.encode(later))
        changed = (query.encode(batch) != query.encode(later)).any(1)
    assert changed.tolist() == [False, False, True]


# -- rotary ------------------------------------------------------------------------------------


def turned(kind: str, times: list[int], scale: float = 86_400.0) -> Tensor:
    batch = batch_of(times)
    layout = Unpadding(batch.lengths, len(times))
    torch.manual_seed(0)
    x = torch.randn(1, 2, 8).expand(len(times), 2, 8)
    return rotate(x, Rotary(kind, 8, scale).angles(batch, layout))


TIMES = [5 * DAY, 5 * DAY, 6 * DAY, 9 * DAY]


@pytest.mark.parametrize("kind", ["index", "linear", "cumlog"])
def test_rotation_keeps_norms(kind: str) -> None:
    norms = turned(kind, TIMES).norm(dim=-1)
    torch.testing.assert_close(norms, norms[:1].expand_as(norms))


@pytest.mark.parametrize("kind", ["linear", "cumlog"])
def test_equal_times_leave_the_index_only(kind: str) -> None:
    equal = [7 * DAY] * 4
    assert torch.equal(turned(kind, equal), turned("index", equal))
    assert not torch.allclose(turned(kind, TIMES), turned("index", TIMES))
    # and within a model, with the same weights
    by_time, by_index = (
        hstu(rotary=rotary, relative_bias="position") for rotary in (kind, "index")
    )
    batch = batch_of(equal)
    with torch.no_grad():
        assert torch.equal(by_time.encode(batch), by_index.encode(batch))


def test_time_positions_by_hand() -> None:
    batch = batch_of(TIMES)
    assert time_positions(batch, "linear", 86_400.0).tolist() == [[0, 0, 1, 4]]
    logs = [0, 0, math.log(2), math.log(2) + math.log(4)]
    assert time_positions(batch, "cumlog", 86_400.0)[0].tolist() == pytest.approx(logs)
    backwards = batch_of([DAY, 0])  # times that run back (they are estimates) count as none
    assert time_positions(backwards, "cumlog", 86_400.0).tolist() == [[0, 0]]


def test_rotary_scores_depend_on_differences_only() -> None:
    """q_i·k_j after rotation is the same wherever in time the two stand."""
    early, late = turned("linear", [0, DAY, 3 * DAY]), turned("linear", [0, 5 * DAY, 7 * DAY])
    # channels: pair p is (p, p + 4); pairs 2 and 3 turn by time
    timed = [2, 3, 6, 7]
    torch.testing.assert_close(
        (early[1] * early[2])[:, timed].sum(-1), (late[1] * late[2])[:, timed].sum(-1)
    )


def test_rotation_by_hand() -> None:
    found = turned("linear", [0, 2 * DAY], scale=86_400.0)
    x = found[0, 0]  # position 0 at time 0 is not turned
    # of 4 pairs two turn by the index (1) and two by time (2 days), each at speeds 1 and 1/100
    for pair, angle in enumerate([1.0, 0.01, 2.0, 0.02]):
        a, b = x[pair], x[pair + 4]
        expected = (
            a * math.cos(angle) - b * math.sin(angle),
            a * math.sin(angle) + b * math.cos(angle),
        )
        torch.testing.assert_close(found[1, 0, pair], expected[0])
        torch.testing.assert_close(found[1, 0, pair + 4], expected[1])
