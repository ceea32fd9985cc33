"""The CPU's own products and attention, for registers of any width that it may have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.kernels.library import Kernels
from models.parts.gru4rec.adagrad import DenseAdagrad, RowAdagrad, Rule
from models.parts.gru4rec.table_update import Gathered, InPlace, RowTable
from models.parts.gru4rec.workspace import Workspace
from models.parts.transformer import attention
from models.parts.transformer.unpadding import Unpadding

N = 300  # rows of a table
SIZES = [(1, 1, 16), (9, 70, 37), (8, 48, 48), (13, 203, 100), (130, 61, 67), (5, 300, 150)]


pytestmark = pytest.mark.usefixtures("two_threads")


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=source(seed))


def within(tensor: Tensor) -> Tensor:
    """The same numbers as columns of a wider tensor."""
    return torch.cat([tensor, tensor.new_full((len(tensor), 3), 7.0)], 1)[:, : tensor.shape[1]]


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(("m", "c", "k"), SIZES)
def test_dots(native: Kernels, m: int, c: int, k: int, listed: bool) -> None:
    table, x, bias = drawn(1, N if listed else c, k), drawn(2, m, k), drawn(3, c)
    rows = torch.randperm(N, generator=source(4))[:c] if listed else None
    used = table if rows is None else table[rows]
    wanted = x.double() @ used.double().T
    close(native.dots(x, table, None, torch.full((m, c), 9.0), rows), wanted)
    out = within(torch.full((m, c), 9.0))
    found = native.dots(within(x), table, bias, out, rows)
    close(found, wanted + bias)
    assert (out.as_strided((m, 3), out.stride(), c) == 7).all()  # what lies beside it stays


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(("m", "c", "k"), SIZES)
def test_weighed(native: Kernels, m: int, c: int, k: int, listed: bool) -> None:
    table, d = drawn(1, N if listed else c, k), drawn(2, m, c)
    rows = torch.randperm(N, generator=source(4))[:c] if listed else None
    used = table if rows is None else table[rows]
    out = within(torch.full((m, k), 9.0))
    close(native.weighed(within(d), table, out, rows), d.double() @ used.double())
    assert (out.as_strided((m, 3), out.stride(), k) == 7).all()


@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize(("m", "c", "k"), SIZES)
def test_learn(native: Kernels, m: int, c: int, k: int, momentum: float) -> None:
    """Adagrad by products, by what was added, and by both; other rows keep their bits."""
    rule = Rule(0.1, momentum, 0.3, kernels=native)
    n = min(N, c + 5)  # the last ones are only added to
    rows = torch.randperm(N, generator=source(4))[:n]
    d, x = drawn(2, m, c), drawn(3, m, k)
    places, values = torch.randint(0, n, (11,), generator=source(5)), drawn(6, 11, k)
    grad = torch.zeros(n, k, dtype=torch.float64)
    grad[:c] = d.double().T @ x.double()
    grad.index_add_(0, places, values.double())
    before = [drawn(7, N, k), drawn(8, N, k).square() + 0.01, drawn(9, N, k)]
    weight, squares, velocity = (t.clone() for t in before)
    native.learn(
        weight, squares, velocity if momentum else None, *rule.numbers,
        product=(within(d), within(x)), rows=rows, added=(places, values),
    )  # fmt: skip
    w, s, v = (t[rows].double() for t in before)
    s = s + grad**2
    v = (momentum * v if momentum else 0.0) - 0.1 * grad / s.sqrt()
    close(weight[rows], w * (1 - 0.1 * 0.3) + v)
    torch.testing.assert_close(squares[rows].double(), s, rtol=1e-4, atol=1e-4)
    if momentum:
        close(velocity[rows], v)
    untouched = torch.ones(N, dtype=torch.bool).index_fill_(0, rows, False)
    for now, then in zip((weight, squares, velocity), before, strict=True):
        assert torch.equal(now[untouched], then[untouched])


def test_bits_do_not_depend_on_threads_or_on_other_rows(native: Kernels) -> None:
    table, x, d, rows = drawn(1, N, 75), drawn(2, 21, 75), drawn(3, 21, 130), torch.arange(130) * 2
    results = []
    for threads, part in ((1, 21), (2, 21), (3, 21), (2, 10)):
        torch.set_num_threads(threads)
        weight, squares = table.clone(), torch.ones_like(table)
        native.learn(weight, squares, None, 0.1, 0.0, 1.0, product=(d, x), rows=rows)
        dots = native.dots(x[:part], table, None, torch.empty(part, 130), rows)
        weighed = native.weighed(d[:part], table, torch.empty(part, 75), rows)
        results.append((dots[:10], weighed[:10], weight, squares))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_not_a_number_stays_none(native: Kernels) -> None:
    table, x, d = drawn(1, 40, 35), drawn(2, 6, 35), drawn(3, 6, 40)
    table[7, 33] = torch.nan
    assert native.dots(x, table, None, torch.empty(6, 40))[:, 7].isnan().all()
    assert native.weighed(d, table, torch.empty(6, 35))[:, 33].isnan().all()


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_tables_are_the_same_gathered_and_in_place(native: Kernels, momentum: float) -> None:
    """A step's reads, products and moves, with every kind of gradient and with none."""
    rows, places = torch.randperm(N, generator=source(4))[:50], torch.tensor([49, 0, 0, 31])
    top, d, values = drawn(2, 9, 20), drawn(3, 9, 44), drawn(6, 4, 20)
    tables: list[tuple[RowTable, RowAdagrad]] = []
    for kernels_given in (None, native):
        parameter = torch.nn.Parameter(drawn(1, N, 20))
        scratch = Workspace(torch.device("cpu"), torch.float32)
        owner = RowAdagrad(parameter, Rule(0.1, momentum, kernels=kernels_given), scratch, "t")
        tables.append((InPlace(owner, native) if kernels_given else Gathered(owner), owner))
    for step in range(4):
        found = []
        for table, _ in tables:
            table.read(rows + 0)
            at = table.at(places, torch.empty(4, 20))
            dots = table.dots(top, drawn(5, 44), torch.empty(9, 44))
            found.append((at, dots, table.weighed(d, torch.empty(9, 20))))
            if step in (0, 2):
                table.add_product(d, top)
            if step in (0, 1):
                table.add(places, values, None)
            table.step()
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        for (name, one), other in zip(
            tables[0][1].state().items(), tables[1][1].state().values(), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_weights_are_moved_at_once_or_together(native: Kernels, momentum: float) -> None:
    shapes = [(24, 20), (12,), (24, 3), (30, 17), (5,)]
    ends = []
    for at_once in (False, True):
        parameters = [torch.nn.Parameter(drawn(k, *shape)) for k, shape in enumerate(shapes)]
        owner = DenseAdagrad(parameters, Rule(0.1, momentum, kernels=native), at_once)
        for step in range(3):
            for k, p in enumerate(parameters):
                if p.dim() == 2:
                    owner.learn(p, drawn(10 * step + k, 7, len(p)), drawn(k, 7, p.shape[1]))
                else:
                    assert p.grad is not None
                    p.grad.copy_(drawn(10 * step + k, len(p)))
            owner.step()
        ends.append([*parameters, *owner.state().values()])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_short_rows_are_left_to_pytorch(native: Kernels, tmp_path: Path) -> None:
    shortest = native.shortest_row
    assert native.multiply(torch.empty(3, shortest))
    assert not native.multiply(torch.empty(3, shortest - 1))
    assert not native.multiply(torch.empty(shortest))


LENGTHS = [[1], [7, 3, 1, 1], [16], [17, 16, 8], [130, 61, 49, 48, 2]]


def attended(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], heads: int) -> Tensor:
    """softmax(QKᵀ/√d)·V of one sequence after another, every sum in float64."""
    outs, begin = [], 0
    for n in lengths:
        query, key, value = (
            x[begin : begin + n].unflatten(1, (heads, -1)).transpose(0, 1).double()
            for x in (q, k, v)
        )
        scores = query @ key.transpose(1, 2) / query.shape[2] ** 0.5
        unseen = torch.ones(n, n).triu(1).bool()
        seen = torch.softmax(scores.masked_fill(unseen, -torch.inf), 2) @ value
        outs.append(seen.transpose(0, 1).flatten(1))
        begin += n
    return torch.cat(outs)


@pytest.mark.parametrize(("heads", "d"), [(1, 64), (2, 25), (3, 16)])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_attention(
    native: Kernels, monkeypatch: pytest.MonkeyPatch, lengths: list[int], heads: int, d: int
) -> None:
    """Output and gradients, with keys and values that are halves of one tensor."""
    monkeypatch.setattr(attention, "kernels", lambda: native)
    tokens, size = sum(lengths), heads * d
    given = [drawn(1, tokens, size), drawn(2, tokens, 2 * size)]
    results = []
    for exact in (False, True):
        q, kv = (t.clone().requires_grad_() for t in given)
        k, v = kv.chunk(2, 1)
        if exact:
            out = attended(q, k, v, lengths, heads)
        else:
            layout = Unpadding(torch.tensor(lengths), max(lengths))
            out = attention.causal_attention(q, k, v, layout, heads)
        out.backward(drawn(3, tokens, size).to(out.dtype))
        assert q.grad is not None and kv.grad is not None
        results.append((out, q.grad, kv.grad))
    for found, wanted in zip(*results, strict=True):
        close(found, wanted.double())


def test_attention_is_the_same_on_any_number_of_threads(native: Kernels) -> None:
    q, k, v, grad = (drawn(n, 181, 40) for n in range(4))
    bounds = torch.tensor([0, 100, 150, 181])
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        out, log_sums = native.attention(q, k, v, bounds, 100, 2, 0.3)
        back = native.attention_backward(grad, log_sums, q, k, v, bounds, 100, 2, 0.3)
        results.append((out, log_sums, *back))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_attention_of_large_scores_and_of_what_is_no_number(native: Kernels) -> None:
    q, k, v = drawn(1, 9, 16), drawn(2, 9, 16), drawn(3, 9, 16)
    bounds = torch.tensor([0, 5, 9])
    # one key takes all: its value comes out
    q[4], k[2] = 100.0, 100.0
    out, log_sums = native.attention(q, k, v, bounds, 5, 1, 1.0)
    assert torch.equal(out[4], v[2]) and log_sums.isfinite().all()
    k[1] = torch.nan
    out, _ = native.attention(q, k, v, bounds, 5, 1, 1.0)
    assert out[1:5].isnan().all() and out[[0, 5, 6, 7, 8]].isfinite().all()


def test_attention_that_drops_or_is_not_float32_is_pytorchs(
    native: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "kernels", lambda: native)
    monkeypatch.setattr(native, "attention", None)
    layout = Unpadding(torch.tensor([4, 3]), 4)
    short = native.shortest_row - 1
    for size, kind, dropout in ((16, torch.float64, 0.0), (16, torch.float32, 0.5),
                                (short, torch.float32, 0.0)):  # fmt: skip
        x = drawn(1, 7, size).to(kind)
        assert attention.causal_attention(x, x, x, layout, 1, dropout).shape == (7, size)


def test_nothing_to_multiply(native: Kernels) -> None:
    table = drawn(1, 20, 16)
    assert native.dots(drawn(2, 0, 16), table, None, torch.empty(0, 20)).shape == (0, 20)
    out = native.weighed(drawn(2, 3, 0), table, torch.full((3, 16), 9.0))
    assert torch.equal(out, torch.zeros(3, 16))


def test_long_sequences_are_left_to_pytorch(
    native: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "kernels", lambda: native)
    monkeypatch.setattr(attention, "LONGEST", 4)
    x, layout = drawn(1, 9, 16), Unpadding(torch.tensor([5, 4]), 5)
    found = attention.causal_attention(x, x, x, layout, 1)
    monkeypatch.setattr(attention, "LONGEST", 5)
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", None)
    torch.testing.assert_close(attention.causal_attention(x, x, x, layout, 1), found)
