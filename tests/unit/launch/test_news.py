"""What is told of a study from afar, and that an address is told to nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paropt.errors import ParoptError
from paropt.launch import news
from paropt.launch.news import BEST_EVERY, ENVIRONMENT, STUCK, Headlines, addresses, kind

SECRET = "tgram://123:SECRET/456"


class Hand:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def status(**more: Any) -> dict[str, Any]:
    slot = {"id": "a", "gone": False, "state": {"trial": 1, "epoch": 1, "step": 5}}
    return {
        "metric": "mrr@20", "state": "run", "why": "", "best": None, "budget": 9,
        "counts": {"complete": 1, "pruned": 0}, "workers": [slot], **more,
    }  # fmt: skip


def test_a_study_that_does_not_move_is_told_once() -> None:
    hand = Hand()
    headlines = Headlines(hand)
    assert headlines.of(status()) == []
    hand.now = STUCK - 1
    assert headlines.of(status()) == []
    hand.now = STUCK
    assert headlines.of(status()) == ["nothing has moved for 15 minutes; 1 slot alive"]
    assert headlines.of(status()) == []
    moved = status(workers=[])  # the slot is gone: that moved, and nothing does any more
    assert headlines.of(moved) == []
    hand.now += STUCK
    assert headlines.of(moved) == ["nothing has moved for 15 minutes; no slot is alive"]
    paused = status(state="pause")
    hand.now += 2 * STUCK
    assert headlines.of(paused) == []  # somebody wants it so


def test_trials_that_fail_alike_are_told_once() -> None:
    headlines = Headlines(Hand())
    paused = status(state="pause", why="paused because the last 5 trials failed alike")
    assert headlines.of(paused) == ["paused because the last 5 trials failed alike"]
    assert headlines.of(paused) == []


def test_a_better_trial_is_told_after_a_while() -> None:
    hand = Hand()
    headlines = Headlines(hand)
    assert headlines.of(status(best={"trial": 1, "value": 0.1})) == []
    hand.now = 1.0
    assert headlines.of(status(best={"trial": 2, "value": 0.2})) == []  # so soon
    hand.now = BEST_EVERY
    told = headlines.of(status(best={"trial": 2, "value": 0.2}, workers=[]))
    assert told == ["a better trial: mrr@20 0.2000, trial 2; 1 of 9 trials done"]
    hand.now += BEST_EVERY - 1
    assert headlines.of(status(best={"trial": 3, "value": 0.3})) == []


def test_addresses_leave_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ENVIRONMENT, SECRET)
    (tmp_path / "urls").write_text(f"# ours\n\n{SECRET}\njson://h\n")
    assert addresses([SECRET], tmp_path / "urls") == [SECRET, "json://h"]
    assert ENVIRONMENT not in news.os.environ
    with pytest.raises(ParoptError, match="cannot be read: No such file"):
        addresses([], tmp_path / "none")


def test_nothing_of_an_address_is_told_but_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kind(SECRET) == "tgram://…"
    assert kind("SECRET") == "without a kind"

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(news.importlib, "import_module", absent)
    with pytest.raises(ParoptError, match=r"pip install 'paropt\[notify\]'") as told:
        news.sender([SECRET])
    assert "SECRET" not in str(told.value)


def test_a_message_that_cannot_be_sent_disturbs_nobody() -> None:
    class Failing:
        def notify(self, *, title: str, body: str) -> bool:
            raise OSError(f"no route to {SECRET}")

    class Study:
        name = "shop"

    class Opened:
        study = Study()

    said: list[str] = []
    opened: Any = Opened()
    with news.News(opened, Failing(), said.append) as told:
        told.ended(status(interrupted=False, activity="done"))
        told.ended(status(interrupted=True, activity="done"))
    assert said == ["a notification could not be sent; the search goes on"]
