"""The linear model against least squares over every session, written out."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from models.linear import Linear
from models.parts.contract import Catalogue, Facts, SequenceBatch, TrainingEvents

N = 7
RANDOM = random.Random(1)
SESSIONS = [[RANDOM.randrange(N) for _ in range(RANDOM.randrange(1, 8))] for _ in range(25)]


def solved(sessions: list[list[int]] = SESSIONS, **given: Any) -> Linear:
    params = {param.name: param.default for param in Linear.PARAMS} | given
    items = torch.tensor([item for session in sessions for item in session])
    sizes = torch.tensor([len(session) for session in sessions])
    facts = Facts(N, len(sessions), len(items), 8, has_times=True)
    model = Linear(params, Catalogue(facts, torch.bincount(items, minlength=N)), seed=1)
    times = torch.arange(len(sessions)).repeat_interleave(sizes)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    model.count(TrainingEvents(items, times, offsets))
    return model


def table(model: Linear) -> Tensor:
    found = torch.zeros(N, N)
    for row in range(N):
        for entry in range(int(model.edges[row]), int(model.edges[row + 1])):
            found[row, int(model.columns[entry])] = model.weights[entry]
    return found


def least_squares(
    alpha: float, reg: float, own: float, pair_tau: float, age_decay: float, longest: int = 50
) -> Tensor:
    """B from its normal equations, a row for every x and every p."""
    given, wanted = [], []
    for number, session in enumerate(SESSIONS):
        weight = math.exp(-age_decay * (1 - number / (len(SESSIONS) - 1)))
        x = torch.zeros(N, dtype=torch.float64)
        x[session] = 1
        given.append(math.sqrt(alpha * weight) * x)
        wanted.append(math.sqrt(alpha * weight) * x)
        for t in range(len(session) - 1):
            p, f = torch.zeros(2, N, dtype=torch.float64)
            for i in range(max(0, t + 1 - longest), t + 1):
                p[session[i]] += math.exp(-(t - i) / pair_tau)
            for j in range(t + 1, len(session)):
                f[session[j]] += math.exp(-(j - t - 1) / pair_tau)
            given.append(math.sqrt((1 - alpha) * weight) * p)
            wanted.append(math.sqrt((1 - alpha) * weight) * f)
    a, y = torch.stack(given), torch.stack(wanted)
    system = a.T @ a + reg * torch.eye(N, dtype=torch.float64)
    found = torch.linalg.solve(system, a.T @ y)
    inverse = torch.linalg.inv(system)
    for j in range(N):  # the multiplier of a column's bound moves it along the inverse's column
        if own < 1 and found[j, j] > own:
            found[:, j] -= inverse[:, j] * (found[j, j] - own) / inverse[j, j]
    return found.float()


@pytest.mark.parametrize(
    ("alpha", "reg", "own", "pair_tau", "age_decay"),
    [(1, 1, 0, 1, 0), (0, 2, 1, 0.7, 0), (0.4, 10, 0.1, 2, 3), (0.5, 0.5, 0, 100, 1)],
)
def test_it_solves_least_squares(
    alpha: float, reg: float, own: float, pair_tau: float, age_decay: float
) -> None:
    given = {"reg": reg, "own": own, "pair_tau": pair_tau, "age_decay": age_decay}
    model = solved(alpha=alpha, **given)
    torch.testing.assert_close(
        table(model), least_squares(alpha, reg, own, pair_tau, age_decay), atol=1e-6, rtol=1e-5
    )
    if own == 0:
        assert float(table(model).diagonal().max()) < 1e-6


def test_events_far_apart_do_not_meet_in_a_prefix() -> None:
    """f is cut as well, which the normal equations above don't: so τ is short."""
    near = table(solved(alpha=0, pair_tau=0.1, max_length=3))
    expected = least_squares(0, 10, 1, 0.1, 0, longest=3)
    torch.testing.assert_close(near, expected, atol=1e-6, rtol=1e-5)


def test_rare_items_are_left_to_popularity() -> None:
    sessions = [[0, 1, 2], [0, 1, 3], [0, 1, 2, 1]]
    model = solved(sessions, items=3)
    found = table(model)
    assert bool(found[:3, :3].any()) and not bool(found[3:].any()) and not bool(found[:, 3:].any())
    # what two items say, solved without the third: rows and columns of its own only
    asked = torch.tensor([[0, 1]])
    batch = SequenceBatch(
        asked, torch.tensor([[-1, 2]]), torch.zeros(1, 2).long(), torch.zeros(1, 2).long(),
        torch.tensor([2]),
    )  # fmt: skip
    scores = model.eval().score(batch)[0]
    votes = found[1] + found[0] * math.exp(-1)
    assert int(scores[:3].argmax()) == int(votes[:3].argmax())
    assert bool((scores[3:] < scores[:3][votes[:3] > 0].min()).all())


def test_the_largest_weights_of_an_item_are_kept() -> None:
    whole, few = table(solved()), table(solved(neighbours=2))
    for row in range(N):
        kept = few[row] != 0
        assert int(kept.sum()) == 2
        assert torch.equal(few[row][kept], whole[row][kept])
        assert float(whole[row][~kept].abs().max()) <= float(few[row][kept].abs().min())
