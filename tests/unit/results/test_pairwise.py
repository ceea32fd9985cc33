"""Two by two: p-values of drawn differences, and Holm's correction, by arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from paropt.results.pairwise import holm, p_value, pairwise
from paropt.training.evaluation.bootstrap import Sample


def test_holm_multiplies_by_how_many_are_left() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_p_value_is_twice_the_share_on_the_other_side() -> None:
    assert p_value(np.array([1.0, 2.0, -1.0, 3.0] * 25)) == pytest.approx(2 * 26 / 101)
    assert p_value(np.array([1.0] * 99 + [np.nan])) == pytest.approx(2 / 100)
    assert p_value(np.zeros(9)) == 1.0


def test_pairs_are_of_the_same_sessions() -> None:
    source = np.random.default_rng(1)
    sessions = np.arange(300)
    noise = source.random(300)  # what is hard for one is hard for all

    def sample(above: float) -> Sample:
        return Sample.of_values({"mrr@20": noise + above}, sessions, 300)

    lucky = Sample.of_values({"mrr@20": source.permutation(noise)}, sessions, 300)
    samples = {"chosen": sample(0.01), "control": sample(0.0), "popularity": lucky}
    first, *others = pairwise({**samples, "other": sample(0.0)}, "mrr@20")[:2]
    assert (first["one"], first["other"]) == ("chosen", "control")
    assert first["difference"] == pytest.approx(0.01)
    assert first["interval"] == pytest.approx([0.01, 0.01])
    assert first["p"] == pytest.approx(2 / 10_001)
    assert first["holm"] == pytest.approx(6 * 2 / 10_001)  # the least of six
    assert others[0]["holm"] > 0.05  # as much noise, drawn apart
    assert pairwise(samples, "recall@5") == []
