"""What ``launch`` and ``worker`` show while they run: a table on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from paropt.names import baseline, in_stage
from paropt.terminal.frames import cut_to_fit, quiet_keys, summary
from paropt.terminal.standing import remarks

ROOM_FOR_WORDS = 3  # lines for what slots have to say
EVERY = 50.0  # seconds between two lines about a slot in a log: within a minute, however we wait
MOST_SLOTS = 16  # of which a log tells one by one

Status = Mapping[str, Any]
Row = Mapping[str, Any]
Clock = Callable[[], float]


class LiveView(Protocol):
    """Where news of a running study goes."""

    def note(self, line: str) -> None:
        """One sentence, kept on the screen."""

    def ended(self, trial: Row, status: Status) -> None:
        """A trial has ended."""

    def update(self, status: Status | None, rows: Sequence[Row], trouble: str) -> None:
        """What is going on now; called several times a second."""

    def __enter__(self) -> LiveView: ...

    def __exit__(self, *_: object) -> None: ...


# -- in words -------------------------------------------------------------------------------


def trial_line(trial: Row, metric: str, status: Status | None = None) -> str:
    """How a trial ended, in a line; with the study's status, what there is to remark."""
    number = f"trial {trial['trial']}"
    if trial["value"] is not None:
        epochs = f"epoch {trial['epoch']} of {trial['epochs']}{in_stage(trial)}"
        more = "".join(f", {one}" for one in trial.get("beyond", ()))
        more += remarks(trial, status) if status else ""
        return f"{number} {trial['state']}: {metric} {trial['value']:.4f} ({epochs}){more}"
    message = " ".join(str(trial["message"]).split())
    if trial["why"] == "constraint":
        when = f"after epoch {trial['epochs']}" if trial["epochs"] else "before training"
        return f"{number} ended {when}: {message}"
    if trial["why"] == "lost":
        return f"{number} was lost and is taken over: {message}"
    return f"{number} failed ({trial['why']}): {message}"


def progress_line(status: Status) -> str:
    """``12 done of 20, 4 of them pruned, 1 failed, 2 running``."""
    counts, budget = status["counts"], status["budget"]
    done = counts["complete"] + counts["pruned"]
    parts = [f"{done} done" + (f" of {budget}" if budget else "")]
    parts.append(f"{counts['pruned']} of them pruned")
    parts += [f"{counts[key]} {key}" for key in ("failed", "running", "waiting") if counts[key]]
    parts += [f"{beyond} ended beyond a constraint"] if (beyond := counts.get("beyond")) else []
    return ", ".join(parts)


def best_line(status: Status) -> str:
    """The best trial beside what needs no training."""
    metric, best = status["metric"], status["best"]
    words = (
        f"best {metric} {best['value']:.4f}, trial {best['trial']} epoch {best['epoch']}"
        f"{in_stage(best)}"
        if best
        else _none_yet(status)
    )
    floors = [
        f"{baseline(name)} {values[metric]:.4f}"
        for name, values in status["floor"].items()
        if metric in values
    ]
    missed = ": not passed yet" if best and status.get("below_floor") else ""
    return words + (f"; without training: {', '.join(floors)}{missed}" if floors else "")


def _none_yet(status: Status) -> str:
    counts = status["counts"]
    if status.get("constraints") and counts["complete"] + counts["pruned"]:
        return "no trial keeps to the constraints yet"
    return "no trial has ended yet"


def duration(seconds: float) -> str:
    """``1:02:03``, ``2:03``."""
    minutes, second = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


class Pace:
    """How long the rest will take, from how long trials took since we look on."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._first: int | None = None

    def left(self, status: Status) -> float | None:
        """Seconds; None while that is anybody's guess."""
        counts, budget = status["counts"], status["budget"]
        done = int(counts["complete"] + counts["pruned"])
        if self._first is None:
            self._first = done
        since = done - self._first
        if not budget or since <= 0:
            return None
        return self.elapsed / since * max(0, int(budget) - done)

    @property
    def elapsed(self) -> float:
        return self._clock() - self._began


class TrialPace:
    """How long the trials that slots have in hand will take, if they are trained to their ends."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        # slot -> (its trial, when it was seen first, how much of it was done then)
        self._seen: dict[str, tuple[int, float, float]] = {}

    def left(self, row: Row) -> float | None:
        """Seconds; None while that is anybody's guess."""
        done, now = done_of_trial(row), self._clock()
        if done is None:
            return None
        trial, since, at = self._seen.get(str(row.get("name")), (-1, now, done))
        if trial != row["trial"] or done < at:
            self._seen[str(row.get("name"))] = (row["trial"], now, done)
            return None
        return (now - since) / (done - at) * (1 - done) if done > at else None


def done_of_trial(row: Row) -> float | None:
    """How much of its trial a slot has done, from 0 to 1; None without a trial."""
    epochs = int(row.get("epochs") or 0)
    if row.get("trial") is None or not epochs:
        return None
    steps = int(row.get("steps") or 0)
    of_the_next = row.get("step", 0) / steps if steps else 0.0
    return min(1.0, float(_current_epoch(row) + of_the_next) / epochs)


# -- off a terminal -------------------------------------------------------------------------


class LiveLines:
    """One line per event, and one per slot at least every minute, for log files."""

    def __init__(self, console: Console, metric: str, clock: Clock = time.monotonic) -> None:
        self.console, self.metric = console, metric
        self.pace, self.trial_pace = Pace(clock), TrialPace(clock)
        self._clock = clock
        self._told = clock()  # when all slots were
        self._trouble = ""
        self._warned: set[tuple[str, str]] = set()

    def __enter__(self) -> LiveLines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, line: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        self.console.print(f"{stamp} {line}", markup=False, soft_wrap=True)

    def ended(self, trial: Row, status: Status) -> None:
        self.note(f"{trial_line(trial, self.metric, status)}; {progress_line(status)}")

    def update(self, status: Status | None, rows: Sequence[Row], trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self.note(trouble or "the database answers again")
        for row in rows:
            said = (str(row.get("name")), str(row.get("warning") or ""))
            if said[1] and said not in self._warned:
                self._warned.add(said)
                self.note(f"{said[0]}: {said[1]}")
        left = {str(row.get("name")): self.trial_pace.left(row) for row in rows}
        ends = self.pace.left(status) if status else None
        if self._clock() - self._told >= EVERY:
            self._told = self._clock()
            self._tell(status, rows, left, ends)

    def _tell(
        self,
        status: Status | None,
        rows: Sequence[Row],
        left: Mapping[str, float | None],
        ends: float | None,
    ) -> None:
        for row in rows[:MOST_SLOTS]:
            self.note(slot_line(row, self.metric, left[str(row.get("name"))]))
        if len(rows) > MOST_SLOTS:
            self.note(summary(rows[MOST_SLOTS:], more=True).plain)
        if status is not None:
            about = f", about {duration(ends)} left" if ends is not None else ""
            self.note(f"{progress_line(status)}; {duration(self.pace.elapsed)}{about}")


def slot_line(row: Row, metric: str, left: float | None) -> str:
    """``cpu-0: trial 3, epoch 2/10, 45 % of the next, mrr@20 0.1234, 12,345 events/s``."""
    name = row.get("name", "?")
    if row.get("trial") is None or row.get("phase") in ("ended", "starting"):
        return f"{name}: {_phase(row) or 'no trial yet'}"
    trial, epoch, step, speed, value, phase = _cells(row)
    parts = [f"trial {trial}", f"epoch {epoch}"]
    parts += [f"{step} of the next"] if step else []
    parts += [f"{metric} {value}"] if value else []
    parts += [f"{speed} events/s"] if speed else []
    parts += [f"at most {duration(left)} left"] if left is not None else []
    return f"{name}: {', '.join(parts + [phase] * bool(phase))}"


# -- on a terminal --------------------------------------------------------------------------


class LiveScreen:
    """A table that is painted over: slots, best so far, progress."""

    def __init__(self, console: Console, metric: str) -> None:
        self.console, self.metric = console, metric
        self.pace = Pace()
        self._live = Live(console=console, auto_refresh=False)
        self._open = ExitStack()

    def __enter__(self) -> LiveScreen:
        self._open.enter_context(quiet_keys(self.console))
        self._open.enter_context(self._live)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def note(self, line: str) -> None:
        self.console.print(line, markup=False)

    def ended(self, trial: Row, status: Status) -> None:
        if trial["value"] is None and trial["why"] != "lost":
            self.note(trial_line(trial, self.metric))

    def update(self, status: Status | None, rows: Sequence[Row], trouble: str) -> None:
        self._live.update(self.render(status, rows, trouble), refresh=True)

    def render(self, status: Status | None, rows: Sequence[Row], trouble: str) -> RenderableType:
        """A frame no taller than the terminal: slots beyond its room are summed up in a line."""

        def frame(shown: int, said: int) -> RenderableType:
            return self._frame(status, rows, trouble, shown, said)

        return cut_to_fit(self.console, frame, (len(rows), ROOM_FOR_WORDS), (1, 1))

    def _frame(
        self, status: Status | None, rows: Sequence[Row], trouble: str, shown: int, said: int
    ) -> RenderableType:
        parts: list[RenderableType] = []
        if shown:
            parts.append(slots_table(rows[:shown], self.metric))
        if len(rows) > shown:
            parts.append(summary(rows[shown:], more=shown > 0))
        words = [
            Text(line, no_wrap=True, overflow="ellipsis") for line in map(_words, rows) if line
        ]
        parts += words[:said]
        if status is not None:
            parts += [Text(), self._progress(status)]
            parts += [Text(line) for line in best_line(status).split("; ")]
        if trouble:
            parts.append(Text(trouble, style="yellow"))
        return Group(*parts)

    def _progress(self, status: Status) -> Text:
        left = self.pace.left(status)
        ends = f", about {duration(left)} left" if left is not None else ""
        text = Text(f"{status['study']}", style="bold")
        text.append(f"  {progress_line(status)}; {duration(self.pace.elapsed)}{ends}", "not bold")
        return text


def slots_table(rows: Sequence[Row], metric: str) -> Table:
    """A line per slot. Wide enough for what matters at 80 columns; parameters only beyond."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("slot", overflow="ellipsis", max_width=24)  # gives way to the numbers
    for column in ("trial", "epoch", "step", "events/s", metric):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, max_width=20)
    for row in rows:
        table.add_row(str(row.get("name", "?")), *_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    if row.get("trial") is None or row.get("phase") in ("ended", "starting"):
        return ["", "", "", "", "", _phase(row)]
    steps, speed, value = row.get("steps"), row.get("events_per_second"), row.get("value")
    return [
        str(row["trial"]),
        f"{_current_epoch(row)}/{row.get('epochs', '?')}{_stage(row)}",
        f"{100 * row.get('step', 0) / steps:.0f} %" if steps else "",
        f"{speed:,.0f}" if speed else "",
        f"{value:.4f}" if value is not None else "",
        "" if row.get("phase") == "training" and not row.get("away") else _phase(row),
    ]


def _stage(row: Row) -> str:
    """Of a model with stages, the one that is trained."""
    return f" {row['stage']}" if row.get("stage") not in (None, "", "main") else ""


def _current_epoch(row: Row) -> int:
    return int(row.get("epoch") or 0)


def _phase(row: Row) -> str:
    return "database away" if row.get("away") else str(row.get("phase") or "")


def _words(row: Row) -> str:
    """What a slot has to say beside its numbers."""
    name = row.get("name", "?")
    if row.get("away"):
        return f"{name} has had no answer from the database for {row['away']:.0f} s"
    if row.get("phase") == "ended":
        return f"{name} ended: {row.get('message') or row.get('reason') or ''}"
    return f"{name}: {row['warning']}" if row.get("warning") else ""
