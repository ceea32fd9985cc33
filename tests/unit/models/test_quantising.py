"""Residual k-means: the arithmetic, the seed, and any number of threads."""

import math

import pytest
import torch
from torch import Tensor

from models.parts.fields import Vectors
from models.parts.quantising.kmeans import kmeans
from models.parts.quantising.preparation import fit_preparation
from models.parts.quantising.quality import codes_of, loss_of, sharing_of, use_of
from models.parts.quantising.residual import (
    ResidualKMeans,
    fit_books,
    fit_residual_kmeans,
    residual_codes,
    summed,
)

ALL = torch.arange(600)


def of(rows: Tensor) -> Vectors:
    missing = torch.zeros(len(rows), dtype=torch.bool)
    return Vectors(rows.shape[1], missing, lambda index: rows[index].half())


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    """Clumps in 12 dimensions, far from zero, one direction much longer than the others."""
    draw = torch.Generator().manual_seed(3)
    centres = 4 * torch.randn(20, 12, generator=draw)
    rows = centres[ALL % 20] + torch.randn(600, 12, generator=draw)
    return of(rows * torch.tensor([9.0] + [1.0] * 11) + 30)


def test_centres_are_the_means_of_clumps_far_apart() -> None:
    draw = torch.Generator().manual_seed(1)
    clumps = [100 * k + torch.randn(50, 3, generator=draw) for k in range(4)]

    centres = kmeans(torch.cat(clumps), 4, torch.Generator().manual_seed(5))

    wanted = torch.stack([clump.double().mean(0) for clump in clumps])
    assert torch.allclose(centres[centres[:, 0].argsort()], wanted, atol=1e-12)


def test_every_level_codes_what_the_levels_before_left() -> None:
    draw = torch.Generator().manual_seed(2)
    vectors, books = torch.randn(40, 3, generator=draw), torch.randn(2, 5, 3, generator=draw)

    codes = residual_codes(vectors, books)

    for vector, (first, second) in zip(vectors, codes.tolist(), strict=True):
        away = [float((vector - centre).square().sum()) for centre in books[0]]
        assert away[first] == min(away)
        left = vector - books[0][first]
        away = [float((left - centre).square().sum()) for centre in books[1]]
        assert away[second] == min(away)
    assert torch.equal(summed(codes, books), books[0][codes[:, 0]] + books[1][codes[:, 1]])


def test_another_level_loses_less() -> None:
    draw = torch.Generator().manual_seed(4)
    vectors = torch.randn(300, 4, generator=draw)
    books = fit_books(vectors, 3, 8, seed=1)

    lost = [
        float((vectors - summed(residual_codes(vectors, part), part)).square().mean())
        for part in (books[:1], books[:2], books)
    ]

    assert lost[0] > 1.5 * lost[1] > 2 * lost[2]


def test_codes_follow_the_seed_on_any_number_of_threads(vectors: Vectors) -> None:
    inside: list[int] = []

    def made(threads: int, seed: int) -> ResidualKMeans:
        torch.set_num_threads(threads)
        try:
            found = fit_residual_kmeans(
                vectors, ALL, 2, 16, seed, "whiten", 8, lambda _: inside.append(_threads())
            )
            assert _threads() == threads
            return found
        finally:
            torch.set_num_threads(before)

    before = _threads()
    one, two, other = made(1, 7), made(2, 7), made(1, 8)

    assert set(inside) == {1}
    assert torch.equal(one.books, two.books)
    assert torch.equal(codes_of(one, vectors, ALL), codes_of(two, vectors, ALL))
    assert not torch.equal(one.books, other.books)


def _threads() -> int:
    return torch.get_num_threads()


def test_vectors_are_prepared_by_those_that_are_learned_from(vectors: Vectors) -> None:
    some = ALL[:400]
    rows = vectors.rows(some).double()

    centred = fit_preparation(vectors, some, "centre")
    whitened = fit_preparation(vectors, some, "whiten", 5)
    projected = fit_preparation(vectors, some, "pca", 5)

    assert torch.allclose(centred.apply(rows), rows - rows.mean(0))
    assert torch.allclose(whitened.apply(rows).T.cov(correction=0), torch.eye(5).double())
    variances = torch.linalg.eigvalsh(rows.T.cov(correction=0)).flip(0)[:5]
    assert torch.allclose(projected.apply(rows).T.cov(correction=0), variances.diag())
    for one in (whitened, projected):  # and back, but for the directions that were left out
        assert torch.allclose(one.apply(one.back(one.apply(rows))), one.apply(rows))
        assert torch.allclose(one.back(one.apply(rows)).mean(0), rows.mean(0))


def test_what_cannot_be_told_apart_is_refused(vectors: Vectors) -> None:
    with pytest.raises(ValueError, match="the vectors of all 600 items are the same"):
        fit_residual_kmeans(of(torch.ones(600, 4)), ALL, 2, 16, 1)
    with pytest.raises(ValueError, match=r"codes 601 is more than the 600 vectors to learn from"):
        fit_residual_kmeans(vectors, ALL, 2, 601, 1)


def test_vectors_of_one_number_have_codes() -> None:
    rows = torch.arange(600.0)[:, None] % 7

    made = fit_residual_kmeans(of(rows), ALL, 1, 7, 1)

    codes = codes_of(made, of(rows), ALL)[:, 0]
    assert sharing_of(codes[:, None]).tuples == 7
    assert torch.equal(codes[:7].repeat(86)[:600], codes)
    assert torch.allclose(made.rebuilt(codes[:, None]), rows.double(), atol=1e-6)


def test_quality_is_what_arithmetic_says(vectors: Vectors) -> None:
    use = use_of(torch.tensor([0, 0, 1, 3]), 5)
    assert use.perplexity == pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(4)))
    assert (use.dead, use.largest) == (2, 0.5)

    sharing = sharing_of(torch.tensor([[0, 1], [0, 1], [1, 0], [0, 1], [1, 1]]))
    assert (sharing.items, sharing.tuples, sharing.most, sharing.beyond) == (5, 3, 3, 2)
    assert sharing.collisions == 0.4

    made = fit_residual_kmeans(vectors, ALL, 2, 8, 1, "centre")
    rows = vectors.rows(ALL).double()
    mean, rebuilt = rows.mean(0), made.rebuilt(made.codes(rows))
    loss = loss_of(made, vectors, ALL, mean)
    assert torch.allclose(loss.squared, (rows - rebuilt).square().sum(1))
    away, back = rows - mean, rebuilt - mean
    assert torch.allclose(loss.cosine, (away * back).sum(1) / (away.norm(dim=1) * back.norm(dim=1)))
    assert torch.allclose(
        loss.plain_cosine, (rows * rebuilt).sum(1) / (rows.norm(dim=1) * rebuilt.norm(dim=1))
    )
