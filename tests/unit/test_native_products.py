"""The CPU's own matrix products, for vectors of any width that its registers may have."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.parts import native
from models.parts.adagrad import DenseAdagrad, RowAdagrad, Rule
from models.parts.native import Kernels, kernels
from models.parts.scratch import Scratch
from models.parts.tables import Gathered, InPlace, Table

N = 300  # rows of a table
WIDTHS = {"": None, "-mno-avx512f": 8, "-mno-avx": 4}
SIZES = [(1, 1, 16), (9, 70, 37), (8, 48, 48), (13, 203, 100), (130, 61, 67), (5, 300, 150)]


@pytest.fixture(scope="module", params=WIDTHS, ids=lambda flag: flag or "this processor")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """What the compiler makes for this processor, and for lesser ones."""
    lanes = WIDTHS[request.param]
    if lanes and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("registers of other widths are tested on x86-64")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("CC", f"cc {request.param}")
        kernels.cache_clear()
        found = kernels()
    kernels.cache_clear()
    assert found is not None, "a C compiler is needed to test what it compiles"
    assert lanes is None or found.shortest_row == lanes
    return found


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(native, "FEW", 1)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


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
def test_dots(made: Kernels, m: int, c: int, k: int, listed: bool) -> None:
    table, x, bias = drawn(1, N if listed else c, k), drawn(2, m, k), drawn(3, c)
    rows = torch.randperm(N, generator=source(4))[:c] if listed else None
    used = table if rows is None else table[rows]
    wanted = x.double() @ used.double().T
    close(made.dots(x, table, None, torch.full((m, c), 9.0), rows), wanted)
    out = within(torch.full((m, c), 9.0))
    found = made.dots(within(x), table, bias, out, rows)
    close(found, wanted + bias)
    assert (out.as_strided((m, 3), out.stride(), c) == 7).all()  # what lies beside it stays


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(("m", "c", "k"), SIZES)
def test_weighed(made: Kernels, m: int, c: int, k: int, listed: bool) -> None:
    table, d = drawn(1, N if listed else c, k), drawn(2, m, c)
    rows = torch.randperm(N, generator=source(4))[:c] if listed else None
    used = table if rows is None else table[rows]
    out = within(torch.full((m, k), 9.0))
    close(made.weighed(within(d), table, out, rows), d.double() @ used.double())
    assert (out.as_strided((m, 3), out.stride(), k) == 7).all()


@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize(("m", "c", "k"), SIZES)
def test_learn(made: Kernels, m: int, c: int, k: int, momentum: float) -> None:
    """Adagrad by products, by what was added, and by both; other rows keep their bits."""
    rule = Rule(0.1, momentum, 0.3, kernels=made)
    n = min(N, c + 5)  # the last ones are only added to
    rows = torch.randperm(N, generator=source(4))[:n]
    d, x = drawn(2, m, c), drawn(3, m, k)
    places, values = torch.randint(0, n, (11,), generator=source(5)), drawn(6, 11, k)
    grad = torch.zeros(n, k, dtype=torch.float64)
    grad[:c] = d.double().T @ x.double()
    grad.index_add_(0, places, values.double())
    before = [drawn(7, N, k), drawn(8, N, k).square() + 0.01, drawn(9, N, k)]
    weight, squares, velocity = (t.clone() for t in before)
    made.learn(
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


def test_bits_do_not_depend_on_threads_or_on_other_rows(made: Kernels) -> None:
    table, x, d, rows = drawn(1, N, 75), drawn(2, 21, 75), drawn(3, 21, 130), torch.arange(130) * 2
    results = []
    for threads, part in ((1, 21), (2, 21), (3, 21), (2, 10)):
        torch.set_num_threads(threads)
        weight, squares = table.clone(), torch.ones_like(table)
        made.learn(weight, squares, None, 0.1, 0.0, 1.0, product=(d, x), rows=rows)
        dots = made.dots(x[:part], table, None, torch.empty(part, 130), rows)
        weighed = made.weighed(d[:part], table, torch.empty(part, 75), rows)
        results.append((dots[:10], weighed[:10], weight, squares))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_not_a_number_stays_none(made: Kernels) -> None:
    table, x, d = drawn(1, 40, 35), drawn(2, 6, 35), drawn(3, 6, 40)
    table[7, 33] = torch.nan
    assert made.dots(x, table, None, torch.empty(6, 40))[:, 7].isnan().all()
    assert made.weighed(d, table, torch.empty(6, 35))[:, 33].isnan().all()


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_tables_are_the_same_gathered_and_in_place(made: Kernels, momentum: float) -> None:
    """A step's reads, products and moves, with every kind of gradient."""
    rows, places = torch.randperm(N, generator=source(4))[:50], torch.tensor([49, 0, 0, 31])
    top, d, values = drawn(2, 9, 20), drawn(3, 9, 44), drawn(6, 4, 20)
    tables: list[tuple[Table, RowAdagrad]] = []
    for kernels_given in (None, made):
        parameter = torch.nn.Parameter(drawn(1, N, 20))
        scratch = Scratch(torch.device("cpu"), torch.float32)
        owner = RowAdagrad(parameter, Rule(0.1, momentum, kernels=kernels_given), scratch, "t")
        tables.append((InPlace(owner, made) if kernels_given else Gathered(owner), owner))
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
            if step < 3:
                table.step()
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        for (name, one), other in zip(
            tables[0][1].state().items(), tables[1][1].state().values(), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_weights_are_moved_at_once_or_together(made: Kernels, momentum: float) -> None:
    shapes = [(24, 20), (12,), (24, 3), (30, 17), (5,)]
    ends = []
    for at_once in (False, True):
        parameters = [torch.nn.Parameter(drawn(k, *shape)) for k, shape in enumerate(shapes)]
        owner = DenseAdagrad(parameters, Rule(0.1, momentum, kernels=made), at_once)
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


def test_short_rows_are_left_to_pytorch(made: Kernels, tmp_path: Path) -> None:
    shortest = made.shortest_row
    assert made.multiply(torch.empty(3, shortest))
    assert not made.multiply(torch.empty(3, shortest - 1))
    assert not made.multiply(torch.empty(shortest))
