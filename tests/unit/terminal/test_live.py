"""The live view: lines for logs, a table that fits 80 columns; the words in both."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from paropt.terminal import live
from paropt.terminal.views import make_live_view
from paropt.worker.protocol import LineReader as ProtocolLines
from paropt.worker.protocol import encode

STATUS: dict[str, Any] = {
    "study": "gru4rec_bprmax_shared-retailrocket",
    "metric": "mrr@20",
    "counts": {"complete": 10, "pruned": 4, "failed": 1, "running": 2, "waiting": 0},
    "budget": 100,
    "best": {"value": 0.30761, "trial": 12, "epoch": 7},
    "floor": {"popularity": {"mrr@20": 0.01}, "cooccurrence": {"mrr@20": 0.2}},
}
ROW: dict[str, Any] = {
    "name": "gpu0-0",
    "phase": "training",
    "trial": 1234,
    "epoch": 10,
    "epochs": 10,
    "step": 500,
    "steps": 1000,
    "events_per_second": 1_234_567.8,
    "value": 0.31,
}


def trial(**facts: Any) -> dict[str, Any]:
    return {"trial": 3, "state": "complete", "value": 0.25, "epoch": 4, "epochs": 5} | facts


def test_lines_off_a_terminal() -> None:
    out = io.StringIO()
    lines = live.LiveLines(Console(file=out, width=40, highlight=False), "mrr@20")
    lines.ended(trial(), STATUS)
    lines.update(
        STATUS, [ROW | {"warning": "no checkpoint can be written"}], "no answer from there"
    )
    lines.update(
        STATUS, [ROW | {"warning": "no checkpoint can be written"}], "no answer from there"
    )
    lines.update(STATUS, [ROW], "")
    said = [line[9:] for line in out.getvalue().splitlines()]
    assert said == [
        "trial 3 complete: mrr@20 0.2500 (epoch 4 of 5); 14 done of 100, 4 of them pruned, "
        "1 failed, 2 running",
        "no answer from there",
        "gpu0-0: no checkpoint can be written",
        "the database answers again",
    ]


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_hears_of_every_slot_within_a_minute() -> None:
    """A trial may take half an hour, and nothing ends meanwhile."""
    out, clock = io.StringIO(), Clock()
    lines = live.LiveLines(Console(file=out, width=40, highlight=False), "mrr@20", clock)

    def said(*rows: dict[str, Any], **counts: int) -> list[str]:
        status = STATUS | {"counts": STATUS["counts"] | counts}
        lines.update(status, rows, "")
        told = [line[9:] for line in out.getvalue().splitlines()]
        out.seek(0)
        out.truncate()
        return told

    slow = {"name": "cpu-0", "phase": "training", "trial": 3, "epoch": 0, "epochs": 4}
    speed = {"step": 100, "steps": 1000, "events_per_second": 12_345.6}
    waiting = {"name": "cpu-1", "phase": "waiting", "trial": None}
    assert said(slow, waiting) == []
    clock.now = 49.0
    assert said(slow | speed, waiting) == []
    clock.now = 50.0
    progress = "14 done of 100, 4 of them pruned, 1 failed, 2 running; 0:50"
    assert said(slow | speed, waiting) == [
        # a fortieth of the trial in 50 s
        "cpu-0: trial 3, epoch 0/4, 10 % of the next, 12,346 events/s, at most 32:30 left",
        "cpu-1: waiting",
        progress,
    ]
    clock.now = 60.0
    assert said(slow, waiting) == []
    clock.now = 100.0
    done = {"epoch": 2, "step": 0, "steps": 0, "value": 0.25, "events_per_second": 5.0}
    assert said(slow | done, waiting | {"away": 9.0}, complete=12) == [
        "cpu-0: trial 3, epoch 2/4, mrr@20 0.2500, 5 events/s, at most 1:40 left",
        "cpu-1: database away",
        "16 done of 100, 4 of them pruned, 1 failed, 2 running; 1:40, about 1:10:00 left",
    ]
    clock.now = 200.0
    many = [{**waiting, "name": f"cpu-{number}"} for number in range(40)]
    told = said(*many)
    assert len(told) == live.MOST_SLOTS + 2
    assert told[-2] == "… and 24 more slots: 24 waiting"


def test_the_time_that_a_trial_takes_is_measured_from_where_it_went_on() -> None:
    clock = Clock()
    pace = live.TrialPace(clock)
    row = {"name": "cpu-0", "trial": 3, "epoch": 5, "epochs": 10}
    assert pace.left(row) is None
    clock.now = 10.0
    assert pace.left(row) is None
    assert pace.left(row | {"epoch": 6}) == pytest.approx(40.0)
    assert pace.left(row | {"trial": 4, "epoch": 0}) is None
    assert pace.left({"name": "cpu-0", "trial": None}) is None


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        (
            {"value": None, "why": "oom", "message": "no\nmemory"},
            "trial 3 failed (oom): no memory",
        ),
        (
            {"value": None, "why": "lost", "message": "no heartbeat"},
            "trial 3 was lost and is taken over: no heartbeat",
        ),
        ({"state": "pruned"}, "trial 3 pruned: mrr@20 0.2500 (epoch 4 of 5)"),
    ],
)
def test_how_trials_end_in_words(facts: dict[str, Any], line: str) -> None:
    assert live.trial_line(trial(**facts), "mrr@20") == line


def test_best_beside_the_floor() -> None:
    assert live.best_line(STATUS) == (
        "best mrr@20 0.3076, trial 12 epoch 7; "
        "without training: popularity 0.0100, co-occurrence 0.2000"
    )
    assert live.best_line(STATUS | {"best": None, "floor": {}}) == "no trial has ended yet"


@pytest.mark.parametrize("slots", [1, 32])
def test_the_screen_fits_80_columns_and_24_lines(slots: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=True, color_system=None)
    rows = [ROW | {"name": f"gpu{i}-0"} for i in range(slots)]
    rows[0] = rows[0] | {"away": 12.3, "phase": "training"}
    rows.append(ROW | {"name": "x" * 60 + "/gpu0-0", "phase": "ended", "message": "gone " * 30})
    console.print(live.LiveScreen(console, "mrr@20").render(STATUS, rows, ""))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    text = "\n".join(lines)
    assert "1234" in text and "10/10" in text and "50 %" in text and "1,234,568" in text
    assert ("more slots" in text) == (slots == 32)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3725, "1:02:05")]
)
def test_durations(seconds: float, words: str) -> None:
    assert live.duration(seconds) == words


def test_the_protocol_survives_chunks_noise_and_what_json_lacks() -> None:
    sent = encode({"event": "epoch", "loss": float("nan"), "extra": {"a": [float("inf"), 1.5]}})
    lines = ProtocolLines()
    heard = [m for byte in sent for m in lines.feed(bytes([byte]))]
    assert heard == [{"event": "epoch", "loss": None, "extra": {"a": [None, 1.5]}}]
    assert list(lines.feed(b'a stray print\n[1]\n{"event":"ready"}\n')) == [{"event": "ready"}]


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """rich reads "[red]" as a colour, and turns ":fire:" into a picture even without markup."""
    odd = "[red]a:fire:b[/c]"
    view = make_live_view("mrr@20")
    assert isinstance(view, live.LiveLines)
    view.note(f"study {odd} goes on")
    assert capsys.readouterr().err[9:] == f"study {odd} goes on\n"
