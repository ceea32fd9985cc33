"""The live views on a real terminal, 80 × 24: no line wraps, nothing scrolls, ^C is clean."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyte
import pytest

from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.storage.engine import open_engine
from paropt.storage.leases import Slots
from paropt.storage.schema import create_tables
from paropt.training.evaluation.epochs import EpochReport

SCRIPT = Path(__file__).parents[1] / "scripted_trainer.py"
COLUMNS, LINES = 80, 24
# becomes the session's leader on the terminal, so that a typed ^C is a SIGINT
LEAD = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
# what launch and worker do while 32 slots are at work
WATCH_32 = """
from paropt.terminal.views import make_live_view
from paropt.machine.signals import caught_signals
status = {
    "study": "gru4rec_bprmax_shared-retailrocket", "metric": "mrr@20", "budget": 1000,
    "counts": {"complete": 10, "pruned": 4, "failed": 1, "running": 32, "waiting": 0},
    "best": {"value": 0.30761, "trial": 12, "epoch": 7},
    "floor": {"popularity": {"mrr@20": 0.01}, "cooccurrence": {"mrr@20": 0.2}},
}
row = {"phase": "training", "trial": 1234, "epoch": 10, "epochs": 10, "step": 500, "steps": 1000,
       "events_per_second": 1_000_000.0, "value": 0.31}
rows = [{**row, "name": f"gpu{i}-0"} for i in range(32)]
rows[3] = {**rows[3], "warning": "no checkpoint can be written: " + "disk full, " * 20}
with caught_signals() as signals, make_live_view("mrr@20") as view:
    view.note("32 slots on gpu0 and others " + "with a long sentence about them " * 4)
    while not signals.count:
        view.update(status, rows, "no answer from PostgreSQL at db:5432; slots go on " * 2)
        signals.news.wait(0.02)
"""


class Paper(pyte.HistoryScreen):
    """A terminal that counts the lines which were too long for it."""

    wrapped = 0
    _drawing = False

    def draw(self, data: str) -> None:
        self._drawing = True
        super().draw(data)
        self._drawing = False

    def linefeed(self) -> None:
        self.wrapped += self._drawing
        super().linefeed()


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, directory: Path, *words: str | Path, **environment: str) -> None:
        self.screen = Paper(COLUMNS, LINES, history=1000)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", LEAD, sys.executable, *map(str, words)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=directory,
            env={**os.environ, "TERM": "xterm-256color", **environment},
            start_new_session=True,
        )
        os.close(theirs)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def scrolled(self) -> list[str]:
        """What went off the top."""
        return [
            "".join(line[x].data for x in range(COLUMNS)).rstrip()
            for line in self.screen.history.top
        ]

    def until(self, holds: Callable[[], Any], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "\n".join(self.lines)
            assert self._read(0.1) or self.process.poll() is None, "\n".join(self.lines)

    def shows(self, *words: str) -> Callable[[], bool]:
        return lambda: all(word in "\n".join(self.lines) for word in words)

    def frames(self, count: int) -> Callable[[], bool]:
        """Whether it was painted over so often since now."""
        before = self.raw.count(b"\x1b[2K")
        return lambda: self.raw.count(b"\x1b[2K") > before + count * LINES

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def end(self, seconds: float = 60) -> int:
        end = time.monotonic() + seconds
        while self._read(0.1) or self.process.poll() is None:
            assert time.monotonic() < end, "\n".join(self.lines)
        return self.process.wait()

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        try:
            new = os.read(self._ours, 1 << 16)
        except OSError:  # Linux says EIO when the other side has closed
            return False
        self.raw += new
        self._stream.feed(new)
        return bool(new)

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def assert_clean(self) -> None:
        assert not self.screen.wrapped, "\n".join(self.lines)
        assert not self.screen.cursor.hidden, "the cursor is shown again"
        assert self.screen.cursor.x == 0, f"no half line is left, after {self.raw[-200:]!r}"
        assert self.lines[self.screen.cursor.y] == ""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def begin(*words: str | Path, **environment: str) -> Terminal:
        opened.append(Terminal(tmp_path, *words, **environment))
        return opened[-1]

    yield begin
    for one in opened:
        one.close()


@pytest.fixture
def busy(database_url: str) -> Iterator[Callable[[int], str]]:
    """``busy(32)``: a study with results, failures and as many slots at work."""
    engine = open_engine(database_url)
    studies: list[Study] = []

    def begin(slots: int) -> str:
        definition = StudyDefinition(
            name="gru4rec_bprmax_shared-retailrocket",
            space={
                "model": "gru4rec",
                "fixed": {"n_epochs": 2},
                "search": {"learning_rate": {"type": "float", "low": 0.01, "high": 0.3}},
            },
            metric="mrr@20",
            at=[20],
            data_path="/a/rather/long/path/where/data/of/many/shops/is/kept/retailrocket",
            fingerprint="f" * 64,
            pruner={"name": "none"},
            heartbeat=600.0,
        )
        study = Study.create(database_url, definition, budget=100)
        studies.append(study)
        for number in range(14):
            trial = study.next_trial({"host": "rome"})
            assert trial
            if number % 3 == 2:
                trial.out_of_memory("CUDA wanted 80.00 GiB more than there is " * 3)
                continue
            metrics = {"mrr@20": 0.3 - number / 100, "recall@20": 0.5}
            epoch = {"epoch": 1, "metrics": metrics, "loss": 1.0, "seconds": 1.5}
            trial.report(EpochReport.from_json(epoch))
            trial.complete()
        create_tables(engine)
        table = Slots(engine)
        for index in range(slots):
            host = f"gpu-node-{index // 8}.cluster.example.org"
            slot = table.register(study.name, device=f"gpu{index % 8}", slot=0, host=host)
            state = {"phase": "training", "trial": 10 + index, "epoch": 1, "epochs": 2}
            table.beat(slot, {**state, "events_per_second": 100_000.0, "value": 0.25})
        return study.name

    yield begin
    for study in studies:
        study.close()
    engine.dispose()


@pytest.mark.parametrize(("slots", "stopped_by"), [(1, "SIGTERM"), (32, "^C")])
def test_status_watch(
    slots: int, stopped_by: str, terminal: Any, busy: Any, database_url: str
) -> None:
    name = busy(slots)
    watched = terminal(
        "-m", "paropt", "status", name, "--watch", PAROPT_STORAGE=database_url
    )  # fmt: skip
    watched.until(watched.shows(name, "0.3000"))
    watched.type(b"\r" * 30 + b"some words")
    watched.until(watched.frames(2))
    assert watched.screen.cursor.hidden, "while it is painted over"
    if stopped_by == "^C":
        watched.type(b"\x03")
    else:
        watched.process.send_signal(signal.SIGTERM)
    assert watched.end() == 0
    watched.assert_clean()
    assert watched.scrolled == [], "a frame that is too tall leaves its copies behind"
    assert watched.lines[0].startswith(f"{name}: running")
    assert watched.echoes, "the terminal is as it was"
    text = "\n".join(watched.lines)
    assert "CUDA wanted" in text and "0.3000" in text
    assert ("together" in text) == (slots == 32)
    assert text.count("100,000") == 1 or slots == 32
    if slots == 32:
        assert "more slots: " in text and "training; together 2," in text


def test_status_watch_of_all_studies(terminal: Any, busy: Any, database_url: str) -> None:
    name = busy(1)
    watched = terminal("-m", "paropt", "status", "--watch", PAROPT_STORAGE=database_url)
    watched.until(watched.shows(name[:10], "0.3000"))
    watched.type(b"\x03")
    assert watched.end() == 0
    watched.assert_clean()
    assert watched.scrolled == []


def test_32_slots_of_a_launch(terminal: Any) -> None:
    view = terminal("-c", WATCH_32)
    view.until(view.shows("more slots", "best mrr@20"))
    view.until(view.frames(20))
    view.type(b"\x03")
    assert view.end() == 0
    view.assert_clean()
    assert len(view.scrolled) <= 2, "the note, and nothing of the frames"
    text = "\n".join(view.lines)
    for kept in (
        "gpu0-0",
        "no checkpoint",
        "32 running",
        "co-occurrence 0.2000",
        "no answer from PostgreSQL",
    ):
        assert kept in text
    assert "training; together" in text


@pytest.fixture
def study(
    database_url: str, tmp_path: Path, paropt_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A study "shop" of one trial that does not end, by a scripted trainer."""
    from paropt.data.prepare import prepare

    log = tmp_path / "log.tsv"
    rows = [
        f"{session}\t{(session + step) % 6}\t{1_700_000_000 + session * 10_000 + step}"
        for session in range(60)
        for step in range(4)
    ]
    log.write_text("\n".join(["SessionId\tItemId\tTime", *rows]))
    dataset = prepare([log], tmp_path / "data")
    definition = StudyDefinition(
        name="shop",
        space={
            "model": "scripted",
            "fixed": {"n_epochs": 3},
            "search": {"act": {"type": "categorical", "choices": ["hold"]}},
        },
        metric="mrr@20",
        at=[20],
        data_path=str(dataset.path),
        fingerprint=dataset.fingerprint,
        pruner={"name": "none"},
    )
    Study.create(database_url, definition, budget=1).close()
    monkeypatch.setenv("PAROPT_TRAINER", f"{sys.executable} {SCRIPT}")
    monkeypatch.setenv("PAROPT_STORAGE", database_url)
    monkeypatch.setenv("SCRIPT_GO", str(tmp_path / "go"))
    monkeypatch.setenv("SCRIPT_LOG", str(tmp_path / "epochs.log"))
    yield "shop"
    for path in paropt_home.glob("slots/*/*.state"):
        with contextlib.suppress(ValueError, KeyError, ProcessLookupError):
            os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)


def test_a_launch_interrupted(terminal: Any, study: str) -> None:
    launched = terminal(
        "-m", "paropt", "launch", "--study", study, "--devices", "cpu", "--per-device", "1"
    )  # fmt: skip
    launched.until(launched.shows("cpu-0", "no trial has ended yet", "1/3"))
    launched.type(b"\x03")
    assert launched.end() == 0
    launched.assert_clean()
    assert launched.echoes
    text = "\n".join([*launched.scrolled, *launched.lines])
    assert "handing trials back" in text
    told = "best mrr@20 0.1667, trial 0 epoch 1"
    assert text.count(told) == 2, "the last frame is kept, then the report"
    assert launched.lines[launched.screen.cursor.y - 1].endswith("goes on from here")


def test_a_log_file_gets_lines_whatever_the_environment_says(
    run_paropt: Callable[..., Any], study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "go").touch()
    done = run_paropt(
        "launch", "--study", study, "--devices", "cpu", "--per-device", "1",
        env={"FORCE_COLOR": "1", "COLUMNS": "20"},
    )  # fmt: skip
    assert done.rc == 0, done.err
    assert "\x1b" not in done.err
    assert "trial 0 complete: mrr@20" in done.err
    done = run_paropt("status", study, "--watch", env={"FORCE_COLOR": "1"})
    assert done.rc == 0 and "\x1b[?25" not in done.out and "1/1 trials" in done.out
