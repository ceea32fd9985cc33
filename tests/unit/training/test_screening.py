"""Ranks found by rough scores first are those of the exact ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.kernels.library import Kernels, kernels
from paropt.training.evaluation.protocol import TIES
from paropt.training.evaluation.ranking import judging, ranks, screening
from paropt.training.evaluation.ranking.ranks import rank, screened
from paropt.training.evaluation.ranking.screening import RankScreen
from paropt.training.registry import Catalogue, Facts, build


@pytest.fixture(params=[torch.bfloat16, torch.float32], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """Both kinds of rough scores, whatever this CPU is fast at."""
    monkeypatch.setattr(screening, "rough_type", lambda: request.param)
    found: torch.dtype = request.param
    return found


def screen_of(
    table: Tensor, bias: Tensor | None, depth: int, vectors: Tensor, targets: Tensor
) -> RankScreen:
    return RankScreen(made(), table, bias, depth, vectors, targets)


def made() -> Kernels:
    found = kernels()
    assert found is not None, "a C compiler is needed to test what it compiles"
    return found


@pytest.fixture(params=[1, 4, 8], ids=lambda k: f"{k} of 8 directions")
def share(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The sums are split anywhere, whatever pays off."""
    monkeypatch.setattr(
        RankScreen, "_directions", lambda self, *_: max(1, len(self.basis) * request.param // 8)
    )
    found: int = request.param
    return found


def trained(seed: int, items: int = 5000, targets: int = 600, width: int = 24) -> list[Tensor]:
    """Vectors, targets, table and bias such that most targets rank well, as after training."""
    source = torch.Generator().manual_seed(seed)
    table = torch.randn(items, width, generator=source) * torch.rand(items, 1, generator=source)
    wanted = torch.randint(0, items, (targets,), generator=source)
    bias = torch.randn(items, generator=source)
    noise = torch.randn(targets, width, generator=source)
    return [3 * table[wanted] + noise, wanted, table, bias]


def shallow(ranks: Any, depth: int) -> list[float]:
    """What metrics at up to ``depth`` are made of."""
    return [r if r <= depth else np.inf for r in ranks]


@pytest.mark.usefixtures("share")
@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("depth", [1, 20, 200])
def test_ranks_are_the_exact_ones(ties: Any, depth: int) -> None:
    vectors, targets, table, bias = trained(1)
    screen = screen_of(table, bias, depth, vectors, targets)
    exact = rank(vectors, targets, table, bias, ties=ties)
    found = screened(screen, vectors, targets, ties=ties)
    assert shallow(found, depth) == shallow(exact, depth)
    assert 0.05 < (exact <= depth).mean() < 0.95


@pytest.mark.parametrize("ties", TIES)
def test_ties_are_counted(ties: Any) -> None:
    """Few distinct scores, exact in float32; some rows have more in reach than the screen can."""
    source = torch.Generator().manual_seed(2)
    vectors = torch.randint(-3, 4, (600, 8), generator=source).float()
    table = torch.randint(-3, 4, (4000, 8), generator=source).float()
    bias = torch.randint(-1, 2, (4000,), generator=source).float()
    targets = torch.randint(0, 4000, (600,), generator=source)
    for few in (40, 4000):  # one tile of a few items, or many tiles
        wanted = targets % few
        screen = screen_of(table[:few], bias[:few], 20, vectors, wanted)
        exact = rank(vectors, wanted, table[:few], bias[:few], ties=ties)
        found = screened(screen, vectors, wanted, ties=ties)
        assert shallow(found, 20) == shallow(exact, 20)


def test_scores_too_close_for_rough_ones() -> None:
    """All but equal vectors: neighbours differ in the last bits of float32."""
    source = torch.Generator().manual_seed(3)
    targets = torch.arange(300)
    base = torch.randn(1, 32, generator=source)
    table = base + 1e-4 * torch.randn(3000, 32, generator=source)
    vectors = base + 1e-3 * torch.randn(300, 32, generator=source)
    targets = torch.randint(0, 3000, (300,), generator=source)
    screen = screen_of(table, None, 20, vectors, targets)
    # in float64 no two are equal; float32's own rounding may swap neighbours, but few
    scores = vectors.double() @ table.double().T
    own = scores.gather(1, targets[:, None])
    exact = 1 + (scores > own).sum(1).numpy()
    found = np.array(shallow(screened(screen, vectors, targets), 20))
    assert (found != shallow(exact, 20)).mean() < 0.03


@pytest.mark.parametrize("ties", TIES)
def test_a_model_that_says_the_same_of_all(ties: Any) -> None:
    """Twins tie exactly, also where rank() is asked in the end."""
    row = torch.randn(1, 33, generator=torch.Generator().manual_seed(4))
    table, vectors = row.repeat(9000, 1), torch.randn(40, 33)
    targets = torch.arange(40)
    screen = screen_of(table, None, 20, vectors, targets)
    found = screened(screen, vectors, targets, ties=ties)
    assert shallow(found, 20) == shallow(rank(vectors, targets, table, ties=ties), 20)
    few = screen_of(table[:30], None, 20, vectors[:30], targets[:30])
    assert shallow(screened(few, vectors[:30], targets[:30], ties=ties), 20) == shallow(
        rank(vectors[:30], targets[:30], table[:30], ties=ties), 20
    )


@pytest.mark.usefixtures("share")
@pytest.mark.parametrize("ties", TIES)
def test_excluded_items_do_not_count(ties: Any) -> None:
    """Each row's best ten, and twenty of its worst; the target is none of them even if named."""
    vectors, targets, table, bias = trained(5)
    order = (vectors @ table.T + bias).argsort(1, descending=True)
    out = torch.cat([order[:, :10], order[:, -20:], targets[:, None]], 1)
    rows = torch.arange(len(vectors)).repeat_interleave(out.shape[1])
    exclude = (rows, out.flatten())
    screen = screen_of(table, bias, 20, vectors, targets)
    exact = rank(vectors, targets, table, bias, ties=ties, exclude=exclude)
    found = screened(screen, vectors, targets, ties=ties, exclude=exclude)
    assert shallow(found, 20) == shallow(exact, 20)
    assert shallow(exact, 20) != shallow(rank(vectors, targets, table, bias, ties=ties), 20)


def test_no_score_is_above_its_bound(share: int, kind: torch.dtype) -> None:
    """What all rests on, on numbers of very different sizes; and it is of some use."""
    source = torch.Generator().manual_seed(6)
    for scale in (1e-6, 1.0, 1e6):
        table = scale * torch.randn(500, 64, generator=source)
        table *= torch.rand(500, 1, generator=source) ** 8
        bias = 100 * torch.randn(500, generator=source)
        vectors = torch.randn(200, 64, generator=source) ** 5
        screen = screen_of(table, bias, 20, vectors, torch.arange(200))
        ((items, rough, norm, offset),) = screen.blocks
        head, tail = screen._turn(vectors)
        mine = torch.cat([head, torch.ones(200, 2, dtype=kind), tail], 1)
        scores = (vectors.double() @ table.double().T + bias.double())[:, items]
        norms = torch.linalg.vector_norm(vectors, dim=1)[:, None]
        margin = screen._margin(norms, scores.float().amax(1, keepdim=True), norm, offset)
        # the product of the rounded factors, before its own rounding
        above = mine.double() @ rough.double().T + margin - scores
        assert (above >= 0).all()
        if share == 8 and scale > 1e-6:
            # with all directions a bound is off by its roundings alone
            assert (above <= 2.1 * margin).all()
        # twice the tails, the most that a bound can be too high
        assert (above <= 2.1 * (margin + 1.02 * tail.double() * rough[:, -1].double())).all()


@pytest.mark.parametrize("d", [1, 4, 8, 16, 32])
def test_no_rank_is_lost_where_roundings_add_up(d: int) -> None:
    """All factors round the same way, and the bias takes away what they have in common."""
    source = torch.Generator().manual_seed(d)
    vectors, table = (1 + 0.3 * torch.rand(n, d, generator=source) for n in (300, 2000))
    spread = 0.003 * d**0.5 * torch.randn(2000, generator=source)
    bias = spread - 1.15 * table.sum(1)
    targets = (vectors @ table.T + bias).topk(20, 1).indices[:, 9].contiguous()
    screen = screen_of(table, bias, 20, vectors, targets)
    scores = torch.stack(
        [made().pair_scores(vectors, table, bias, torch.full((300,), n)) for n in range(2000)], 1
    )
    above = (scores > scores.gather(1, targets[:, None])).sum(1).numpy()
    assert shallow(screened(screen, vectors, targets), 20) == shallow(1 + above, 20)


@pytest.mark.parametrize(("x", "w"), [(1.0, 1e-25), (1e-20, 1e-20), (1e-30, 1e10), (1e14, 1e-14)])
def test_numbers_of_odd_sizes(x: float, w: float) -> None:
    """What is rounded to zero is not lost; nothing becomes infinite."""
    vectors, targets, table, _ = trained(13)
    vectors, table = vectors * x, table * w
    screen = screen_of(table, None, 20, vectors, targets)
    exact = rank(vectors, targets, table)
    assert shallow(screened(screen, vectors, targets), 20) == shallow(exact, 20)


def test_what_cannot_be_bounded_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Huge numbers, other types, an empty batch, products that are rounded themselves."""
    vectors, targets, table, bias = trained(14)
    screen = screen_of(table, bias, 20, vectors, targets)
    one = table.clone()
    one[7] *= 1e20
    for v, t, b in (
        (vectors * 1e-3, one, bias),
        (vectors * 1e20, table, bias),
        (vectors, table, bias.double()),
        (vectors.double(), table.double(), bias.double()),
        (vectors[:0], table, bias),
        (vectors, table * torch.nan, bias),
    ):
        assert not ranks.screens(v, t, b, 20)
    assert ranks.screens(vectors, table, bias, 20)
    monkeypatch.setattr(RankScreen, "count", None)
    large = vectors * 1e16
    assert screened(screen, large, targets).tolist() == rank(large, targets, table, bias).tolist()
    monkeypatch.setenv("DNNL_DEFAULT_FPMATH_MODE", "BF16")
    assert not ranks.screens(vectors, table, bias, 20)
    monkeypatch.delenv("DNNL_DEFAULT_FPMATH_MODE")
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert not ranks.screens(vectors, table, bias, 20)


def test_the_basis_keeps_lengths_and_begins_with_what_is_longest() -> None:
    source = torch.Generator().manual_seed(10)
    table = torch.randn(400, 32, generator=source) * torch.linspace(0, 1, 32) ** 4
    basis = screening._basis(table, table[:50])
    torch.testing.assert_close(basis.T @ basis, torch.eye(32), rtol=0, atol=1e-6)
    lengths = (table @ basis).square().sum(0)
    assert (lengths[:8].sum() / lengths.sum()) > 0.9
    assert table[:, :8].square().sum() / lengths.sum() < 0.05


def test_few_directions_where_few_matter(kind: torch.dtype) -> None:
    """The number of directions is found, not set."""
    source = torch.Generator().manual_seed(11)
    targets = torch.randint(0, 4000, (100,), generator=source)
    flat = torch.randn(4000, 64, generator=source)
    steep = flat * 0.5 ** torch.arange(64)
    sizes = {
        name: screen_of(table, None, 20, table[targets], targets).size
        for name, table in (("steep", steep), ("flat", flat))
    }
    assert sizes["steep"] == 8 < sizes["flat"]


def test_pairs_score_the_same_alone_and_together() -> None:
    vectors, targets, table, bias = trained(7, width=31)
    together = made().pair_scores(vectors, table, bias, targets)
    wanted = (vectors.double() * table[targets].double()).sum(1) + bias[targets].double()
    torch.testing.assert_close(together.double(), wanted, rtol=1e-5, atol=1e-5)
    for at in range(0, 600, 37):
        one = slice(at, at + 1)
        alone = made().pair_scores(vectors[one], table, bias, targets[one])
        assert alone.item() == together[at].item()


def test_evaluation_uses_it_for_large_catalogues() -> None:
    vectors, _, table, bias = trained(8, items=9000)
    assert ranks.screens(vectors, table, bias, 20)
    assert not ranks.screens(vectors, table[:1000], bias[:1000], 20)
    assert not ranks.screens(vectors, table, bias, 1000)
    assert not ranks.screens(vectors * 1e30, table * 1e30, bias, 20)
    assert not ranks.screens(vectors.double(), table.double(), bias.double(), 20)


def test_without_kernels_all_ranks_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics are the same."""
    source = torch.Generator().manual_seed(12)
    items = torch.randint(0, 2000, (300,), generator=source).numpy()
    split = SimpleNamespace(
        items=items.astype(np.int32),
        times=np.arange(300),
        offsets=np.arange(0, 301, 5),
        targets=np.ones(300, bool),
    )
    catalogue = Catalogue(Facts(2000, 60, 300, 5, False), torch.ones(2000, dtype=torch.int64))
    model = build("gru4rec", {"layers": 24}, catalogue, seed=1)
    looked: list[int] = []
    count = RankScreen.count

    def seen(self: RankScreen, vectors: Tensor, targets: Tensor, excluded: Any) -> Any:
        looked.append(len(targets))
        return count(self, vectors, targets, excluded)

    monkeypatch.setattr(RankScreen, "count", seen)
    found = [judging.evaluate(model, split, 2000, at=(1, 20), filter_seen=True)]
    assert sum(looked) == 240
    monkeypatch.setattr(judging, "kernels", lambda: None)
    found.append(judging.evaluate(model, split, 2000, at=(1, 20), filter_seen=True))
    assert sum(looked) == 240
    assert found[0].metrics == found[1].metrics
