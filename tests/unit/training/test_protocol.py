"""What is said of a protocol beside a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from paropt.training.evaluation.protocol import EvaluationProtocol


@dataclass
class Sessions:
    """Sessions written as words; the targets are all events, or the last ones."""

    words: tuple[str, ...]
    last: bool = False

    @property
    def items(self) -> np.ndarray:
        return np.array([ord(letter) - 97 for letter in "".join(self.words)], np.int32)

    @property
    def offsets(self) -> np.ndarray:
        return np.cumsum([0, *map(len, self.words)])

    @property
    def targets(self) -> np.ndarray:
        if not self.last:
            return np.ones(len(self.items), bool)
        found = np.zeros(len(self.items), bool)
        found[self.offsets[1:] - 1] = True
        return found


@pytest.mark.parametrize(
    ("words", "last", "told"),
    [
        (("abc", "ab", "a"), False, ""),
        (("aba", "bb", "cab"), False, "2 of 5 targets are in their own history"),
        (("aba", "bab", "cab"), True, "2 of 3 targets are in their own history"),
        (("aab", "abb", "cab"), True, "1 of 3 targets are in their own history"),
    ],
)
def test_targets_in_their_own_history_are_counted(
    words: tuple[str, ...], last: bool, told: str
) -> None:
    said = EvaluationProtocol(filter_seen=True).caution(Sessions(words, last), 9)
    assert said.startswith(told) and bool(said) == bool(told)
    assert EvaluationProtocol(filter_seen=False).caution(Sessions(words, last), 9) == ""


def test_targets_that_are_not_ranked_are_none_of_them() -> None:
    """Items from the third on are unknown, and may be one or several."""
    protocol, asked = EvaluationProtocol(filter_seen=True), Sessions(("acc", "aba", "cac"))
    assert protocol.caution(asked, 2).startswith("1 of 3 targets are")
    assert protocol.caution(asked, 3).startswith("3 of 6 targets are")
