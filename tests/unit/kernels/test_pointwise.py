"""HSTU's attention in C against the plain form in float64, for registers of any width."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models.kernels.library import Biases, Kernels, Triangles
from models.parts.contract import SequenceBatch
from models.parts.transformer import pointwise
from models.parts.transformer.pointwise import Pointwise
from models.parts.transformer.positions import RelativeBias, bucket_cells, time_buckets
from models.parts.transformer.unpadding import Unpadding

pytestmark = pytest.mark.usefixtures("two_threads")

LENGTHS = [[1], [16, 3, 1, 1], [17, 16, 8], [70, 49, 48, 2], [3] * 90]
SIZES = [(1, 64, 64), (2, 25, 17), (3, 16, 40)]  # heads, channels of queries, of values
WAYS = [
    ("none", "max", "event"),
    ("position", "visible", "event"),
    ("time", "visible", "query"),
    ("both", "max", "event"),
    ("both", "visible", "query"),
]
MOST = 75  # max_length
DAY = 86_400_000


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch_of(lengths: list[int]) -> SequenceBatch:
    """Rows with gaps from nothing to weeks, some of which run back in time."""
    shape = len(lengths), max(lengths)
    gaps = (10 ** (2 + 2 * drawn(5, *shape).abs()) * (drawn(6, *shape) > -1)).long()
    times = 1_700_000_000_000 + gaps.cumsum(1) - 3 * gaps
    items = torch.zeros(shape, dtype=torch.int64)
    return SequenceBatch(items, items, times, times.roll(-1, 1), torch.tensor(lengths))


def attend(params: dict[str, Any], lengths: list[int]) -> Pointwise:
    layout = Unpadding(torch.tensor(lengths), max(lengths))
    full = {
        "max_length": MOST,
        "time_buckets": 30,
        "time_mode": "event",
        "attention_kernel": "auto",
    }
    return Pointwise(full | params, batch_of(lengths), layout)


def gradients(
    lengths: list[int], heads: int, d: int, d_v: int, way: tuple[str, str, str], kind: torch.dtype
) -> list[Tensor]:
    """Output and gradients, with queries, keys and values that are columns of one tensor."""
    bias_kind, normaliser, mode = way
    params = {"relative_bias": bias_kind, "normaliser": normaliser, "time_mode": mode}
    torch.manual_seed(3)
    bias = None if bias_kind == "none" else RelativeBias(bias_kind, MOST, 30)
    parameters = [] if bias is None else list(bias.to(kind).parameters())
    for parameter in parameters:
        parameter.data.mul_(30)
    given = (drawn(1, sum(lengths), heads * (2 * d + d_v)) / 2).to(kind).requires_grad_()
    q, k, v = given.split([heads * d, heads * d, heads * d_v], 1)
    out = attend(params, lengths)(q, k, v, heads, bias)
    out.backward(drawn(2, *out.shape).to(kind))
    found = [given, *parameters]
    return [out, *(x.grad for x in found if x.grad is not None)]


@pytest.mark.parametrize("way", range(len(WAYS)), ids=lambda way: "-".join(WAYS[way]))
@pytest.mark.parametrize("rows", range(len(LENGTHS)))
def test_pointwise(native: Kernels, monkeypatch: pytest.MonkeyPatch, rows: int, way: int) -> None:
    """Each kind of rows in each way, the sizes in turn."""
    monkeypatch.setattr(pointwise, "kernels", lambda: native)
    case = LENGTHS[rows], *SIZES[(rows + way) % len(SIZES)], WAYS[way]
    wanted = gradients(*case, torch.float64)  # PyTorch's, on padded rows
    monkeypatch.setattr(pointwise, "pointwise_attention", None)
    found = gradients(*case, torch.float32)
    assert len(found) == len(wanted) == 2 + {"none": 0, "both": 2}.get(WAYS[way][0], 1)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("count", [1, 5, 128, 4096])
def test_buckets_are_the_formulas(native: Kernels, count: int) -> None:
    """At the edge of every bucket and a float before it, between any times, and back in time."""
    _, edge = bucket_cells(count)
    edges = edge[edge.isfinite()].unique()
    assert len(edges) == min(count, 122)
    below = (edges.view(torch.int32) - 1).view(torch.float32)
    far = [0, 1, -1, 2**62, -(2**61), DAY, 1000, 1350, 1351]
    since = torch.cat([edges.long(), below.long(), torch.tensor(far)])
    times = torch.where(torch.arange(len(since)) % 2 == 0, 0, since.roll(3))
    n = len(since)
    rows = Triangles(torch.tensor([0, n]), torch.tensor([0, n * (n + 1) // 2]), n)
    found = native.time_buckets(since, times, rows, *bucket_cells(count))
    wanted = time_buckets(since[None], times[None], count)[0]
    i, j = torch.tril_indices(n, n)
    assert torch.equal(found.int(), wanted[i, j])
    assert len(found.unique()) == min(count, 122) + 1


def test_bits_do_not_depend_on_threads(native: Kernels) -> None:
    lengths = torch.tensor([40, 31, 31, *[5] * 40])  # more tasks than shares
    q, k, v = drawn(0, int(lengths.sum()), 3 * 40).chunk(3, 1)
    starts = torch.nn.functional.pad((lengths * (lengths + 1) // 2).cumsum(0), (1, 0))
    rows = Triangles(torch.nn.functional.pad(lengths.cumsum(0), (1, 0)), starts, 40)
    buckets = (drawn(1, int(starts[-1])).abs() * 3).clamp(max=8).byte()
    biases = Biases(drawn(2, 40), drawn(3, 9), buckets)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        out = native.pointwise(q, k, v, rows, 2, biases, 40.0)
        back = native.pointwise_backward(drawn(4, *v.shape), q, k, v, rows, 2, biases, 40.0)
        results.append((out, *(x for x in back if x is not None)))
    assert len(results[0]) == 6
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_large_scores_and_what_is_no_number(native: Kernels) -> None:
    q, k, v = drawn(1, 9, 16), drawn(2, 9, 16), drawn(3, 9, 16)
    rows = Triangles(torch.tensor([0, 5, 9]), torch.tensor([0, 15, 25]), 5)
    plain = Biases(None, None, None)
    q[0] = k[0] = 100.0  # SiLU is the score itself,
    q[5], k[5] = 100.0, -100.0  # and here nothing
    out = native.pointwise(q, k, v, rows, 1, plain, 1.0)
    torch.testing.assert_close(out[0], 16e4 * v[0])
    assert out[5].tolist() == [0] * 16
    k[1] = torch.nan
    out = native.pointwise(q, k, v, rows, 1, plain, 1.0)
    assert out[1:5].isnan().all() and out[[0, 5, 6, 7, 8]].isfinite().all()
    back = native.pointwise_backward(torch.ones(9, 16), q, k, v, rows, 1, plain, 1.0)
    assert back[0][5:].isfinite().all() and back[0][1:5].isnan().all() and back[3:] == (None, None)


def test_what_is_left_to_pytorch(native: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other precisions, heads narrower than a register, long rows, and what is asked for."""
    monkeypatch.setattr(pointwise, "kernels", lambda: native)
    monkeypatch.setattr(native, "pointwise", None)
    params = {"relative_bias": "none", "normaliser": "max"}
    short = native.shortest_row - 1
    for d, d_v, kind, longest in (
        (16, 16, torch.float64, 4), (16, 16, torch.bfloat16, 4), (short, 16, torch.float32, 4),
        (16, short, torch.float32, 4), (16, 16, torch.float32, 3),
    ):  # fmt: skip
        monkeypatch.setattr(pointwise, "LONGEST", longest)
        q, v = drawn(1, 7, d).to(kind), drawn(1, 7, d_v).to(kind)
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            assert attend(params, [4, 3])(q, q, v, 1, None).shape == (7, d_v)
    x = drawn(1, 6, 16)
    assert attend(params | {"attention_kernel": "torch"}, [3, 3])(x, x, x, 1, None).shape == x.shape
    with pytest.raises(TypeError):
        attend(params, [3, 3])(x, x, x, 1, None)
