"""Ranks found by rough scores first are those of the exact ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paropt.training import ranking, screening
from paropt.training.ranking import Screen, rank, screened


@pytest.fixture(params=[torch.bfloat16, torch.float32], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """Both kinds of rough scores, whatever this CPU is fast at."""
    monkeypatch.setattr(screening, "rough_type", lambda: request.param)
    found: torch.dtype = request.param
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


@pytest.mark.parametrize("ties", ranking.TIES)
@pytest.mark.parametrize("depth", [1, 20, 200])
def test_ranks_are_the_exact_ones(ties: Any, depth: int) -> None:
    vectors, targets, table, bias = trained(1)
    screen = Screen(table, bias, depth, vectors.mean(0))
    exact = rank(vectors, targets, table, bias, ties=ties)
    found = screened(screen, vectors, targets, ties=ties)
    assert shallow(found, depth) == shallow(exact, depth)
    assert 0.05 < (exact <= depth).mean() < 0.95


@pytest.mark.parametrize("ties", ranking.TIES)
def test_ties_are_counted(ties: Any) -> None:
    """Few distinct scores, exact in float32; some rows have more in reach than the screen can."""
    source = torch.Generator().manual_seed(2)
    vectors = torch.randint(-3, 4, (600, 8), generator=source).float()
    table = torch.randint(-3, 4, (4000, 8), generator=source).float()
    bias = torch.randint(-1, 2, (4000,), generator=source).float()
    targets = torch.randint(0, 4000, (600,), generator=source)
    for few in (40, 4000):  # one tile of a few items, or many tiles
        screen = Screen(table[:few], bias[:few], 20, vectors.mean(0))
        wanted = targets % few
        exact = rank(vectors, wanted, table[:few], bias[:few], ties=ties)
        found = screened(screen, vectors, wanted, ties=ties)
        assert shallow(found, 20) == shallow(exact, 20)


def test_scores_too_close_for_rough_ones() -> None:
    """All but equal vectors: neighbours differ in the last bits of float32."""
    source = torch.Generator().manual_seed(3)
    base = torch.randn(1, 32, generator=source)
    table = base + 1e-4 * torch.randn(3000, 32, generator=source)
    vectors = base + 1e-3 * torch.randn(300, 32, generator=source)
    targets = torch.randint(0, 3000, (300,), generator=source)
    screen = Screen(table, None, 20, vectors.mean(0))
    # in float64 no two are equal; float32's own rounding may swap neighbours, but few
    scores = vectors.double() @ table.double().T
    own = scores.gather(1, targets[:, None])
    exact = 1 + (scores > own).sum(1).numpy()
    found = np.array(shallow(screened(screen, vectors, targets), 20))
    assert (found != shallow(exact, 20)).mean() < 0.03


@pytest.mark.parametrize("ties", ranking.TIES)
def test_a_model_that_says_the_same_of_all(ties: Any) -> None:
    """Twins tie exactly, also where rank() is asked in the end."""
    row = torch.randn(1, 33, generator=torch.Generator().manual_seed(4))
    table, vectors = row.repeat(9000, 1), torch.randn(40, 33)
    targets = torch.arange(40)
    screen = Screen(table, None, 20, vectors.mean(0))
    found = screened(screen, vectors, targets, ties=ties)
    assert shallow(found, 20) == shallow(rank(vectors, targets, table, ties=ties), 20)
    few = Screen(table[:30], None, 20, vectors.mean(0))
    assert shallow(screened(few, vectors[:30], targets[:30], ties=ties), 20) == shallow(
        rank(vectors[:30], targets[:30], table[:30], ties=ties), 20
    )


@pytest.mark.parametrize("ties", ranking.TIES)
def test_excluded_items_do_not_count(ties: Any) -> None:
    """Each row's best ten, and twenty of its worst; the target is none of them even if named."""
    vectors, targets, table, bias = trained(5)
    order = (vectors @ table.T + bias).argsort(1, descending=True)
    out = torch.cat([order[:, :10], order[:, -20:], targets[:, None]], 1)
    rows = torch.arange(len(vectors)).repeat_interleave(out.shape[1])
    exclude = (rows, out.flatten())
    screen = Screen(table, bias, 20, vectors.mean(0))
    exact = rank(vectors, targets, table, bias, ties=ties, exclude=exclude)
    found = screened(screen, vectors, targets, ties=ties, exclude=exclude)
    assert shallow(found, 20) == shallow(exact, 20)
    assert shallow(exact, 20) != shallow(rank(vectors, targets, table, bias, ties=ties), 20)


def test_rough_scores_are_within_the_margin(kind: torch.dtype) -> None:
    """The bound that all rests on, on numbers of very different sizes."""
    source = torch.Generator().manual_seed(6)
    for scale in (1e-6, 1.0, 1e6):
        table = scale * torch.randn(500, 64, generator=source)
        table *= torch.rand(500, 1, generator=source) ** 8
        bias = 100 * torch.randn(500, generator=source)
        vectors = torch.randn(200, 64, generator=source) ** 5
        block = screening._Block.of(table, bias, torch.arange(500), kind)
        rough = torch.cat([vectors, torch.ones(200, 2)], 1).to(kind)
        scores = vectors.double() @ table.double().T + bias.double()
        norms = torch.linalg.vector_norm(vectors, dim=1)[:, None]
        margin = screening._margin(norms, scores.float().amax(1, keepdim=True), block, rough)
        # the product of the rounded factors, before its own rounding
        off = (rough.double() @ block.rough.double().T - scores).abs()
        assert (off <= margin).all()
        if kind == torch.bfloat16 and scale > 1e-6:
            assert (off.amax(1, keepdim=True) > margin / 200).any()  # the bound is of some use


def test_pairs_score_the_same_alone_and_together() -> None:
    vectors, targets, table, bias = trained(7, width=31)
    together = screening.exact_scores(vectors, table, bias, targets)
    for at in range(0, 600, 37):
        one = slice(at, at + 1)
        alone = screening.exact_scores(vectors[one], table, bias, targets[one])
        assert alone.item() == together[at].item()


def test_evaluation_uses_it_for_large_catalogues(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _, table, bias = trained(8, items=9000)
    assert ranking.screens(vectors, table, bias, 20)
    assert not ranking.screens(vectors, table[:8000], bias[:8000], 20)
    assert not ranking.screens(vectors, table, bias, 1000)
    assert not ranking.screens(vectors * 1e30, table * 1e30, bias, 20)
    assert not ranking.screens(vectors.double(), table.double(), bias.double(), 20)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 6), (7, 2048)])
def test_flags_are_found_in_their_order(shape: tuple[int, int], kind: torch.dtype) -> None:
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(9)) < 0.2
    row, column = screening._where(drawn.to(kind))
    wanted = drawn.nonzero()
    assert row.tolist() == wanted[:, 0].tolist() and column.tolist() == wanted[:, 1].tolist()
