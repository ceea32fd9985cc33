"""What ``paropt status`` shows: the studies of a storage, or one of them with its workers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from paropt.errors import ParoptError, StorageUnreachable
from paropt.machine.signals import caught_signals
from paropt.search.study.study import Study
from paropt.storage.connect import Storage
from paropt.storage.leases import Rhythm, Slots
from paropt.terminal.frames import fitted, on_a_terminal, quiet_keys, summary

SHOWN_BEST = 10
SHOWN_FAILED = 5
COUNTED = ("complete", "pruned", "failed", "running", "waiting")


def study_status(storage: Storage, study: Study) -> dict[str, Any]:
    """One study as a JSON object: its summary, and ``workers``, one object per live slot."""
    return {**study.summary(), "workers": workers(storage, study.name, study.definition.heartbeat)}


def workers(storage: Storage, study: str, heartbeat: float) -> list[dict[str, Any]]:
    """The live slots of a study; ``state`` is what each last said that it does."""
    grace = Rhythm(heartbeat).grace
    return [asdict(slot) for slot in Slots(storage.engine()).alive(study, within=grace)]


def all_statuses(storage: Storage) -> tuple[list[dict[str, Any]], list[str]]:
    """Every study of the storage, in the order of their making; why some cannot be shown."""
    found, damaged = [], []
    for name in Study.names(storage.url):
        try:
            study = Study.load(storage.url, name)
            try:
                found.append(study_status(storage, study))
            finally:
                study.close()
        except StorageUnreachable:
            raise
        except ParoptError as error:
            damaged.append(f"study {name!r} cannot be shown: {error}")
    return found, damaged


# -- for people -------------------------------------------------------------------------------


def studies_table(statuses: list[dict[str, Any]], room: int | None = None) -> RenderableType:
    """One line per study; of more than ``room`` the latest."""
    if not statuses:
        return Text("no studies yet; start one with paropt launch --space SPACE --data DIR")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("study", "model", "metric", "best", "trial"):
        table.add_column(column, no_wrap=column != "model")
    for column in ("done", *COUNTED[2:], "slots"):
        table.add_column(column, justify="right")
    table.add_column("state")
    shown = statuses if room is None else statuses[max(0, len(statuses) - room) :]
    for status in shown:
        best, counts = status["best"] or {}, status["counts"]
        table.add_row(
            status["study"],
            status["model"],
            status["metric"],
            _number(best.get("value")),
            str(best.get("trial", "-")),
            _done(status),
            *(str(counts[state]) for state in COUNTED[2:]),
            str(len(status["workers"])),
            status["state"],
        )
    if len(shown) == len(statuses):
        return table
    return Group(Text(f"… {len(statuses) - len(shown)} earlier studies", style="dim"), table)


def study_report(
    status: Mapping[str, Any],
    study: Study,
    slots: int | None = None,
    failed: int = SHOWN_FAILED,
    best: int = SHOWN_BEST,
) -> RenderableType:
    """One study: its counts, floor, best trials, failures and slots; so many of each."""
    working = status["workers"]
    shown = working if slots is None else working[:slots]
    parts: list[RenderableType] = [Text(line) for line in _headline(status)]
    if status["best"] and best:
        parts += [Text(), _best_table(status["metric"], study, best)]
    if status["counts"]["failed"] and failed:
        parts += [Text(), _failures(study, failed)]
    parts.append(Text())
    if shown or not working:
        parts.append(_slots_table(shown))
    if len(shown) < len(working):
        parts.append(summary([slot["state"] for slot in working[len(shown) :]], more=bool(shown)))
    return Group(*parts)


def _headline(status: Mapping[str, Any]) -> list[str]:
    counts = status["counts"]
    listed = ", ".join(f"{counts[state]} {state}" for state in COUNTED)
    lines = [
        f"{status['study']}: {status['model']}, {status['metric']}, {_done(status)} trials "
        f"({listed})",
        f"data {status['fingerprint'][:12]} {status.get('data', '')}".rstrip(),
    ]
    if status["state"] != "run" or status.get("why"):
        lines.append(f"state {status['state']} {status.get('why') or ''}".rstrip())
    if unread := status.get("unread"):
        lines.append(f"{unread} trial{'s' * (unread > 1)} more cannot be read")
    floors = [f"{name} {_number(m.get(status['metric']))}" for name, m in status["floor"].items()]
    if floors:
        lines.append(f"floor {', '.join(floors)}")
    return lines


def _best_table(metric: str, study: Study, count: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", justify="right")
    table.add_column(metric, justify="right")
    table.add_column("epoch", justify="right")
    table.add_column("state")
    table.add_column("parameters")
    names = {parameter.name for parameter in study.space.searched}
    for trial in study.best(count):
        searched = {k: v for k, v in trial["params"].items() if k in names}
        table.add_row(
            str(trial["trial"]),
            _number(trial["value"]),
            f"{trial['epoch']}/{trial['epochs']}",
            trial["state"],
            " ".join(f"{name}={_short(value)}" for name, value in searched.items()),
        )
    return table


def _failures(study: Study, count: int) -> Table:
    ended = [t for t in study.trials() if t["state"] in ("fail", "pruned")]
    failed = [t for t in ended if t["value"] is None and t["why"] != "lost"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("failed", justify="right")
    table.add_column("epoch", justify="right")
    table.add_column("why", no_wrap=True)
    table.add_column("message")
    for trial in failed[-count:]:
        message = " ".join(str(trial["message"]).split())
        table.add_row(str(trial["trial"]), str(trial["epochs"]), str(trial["why"]), message)
    return table


def _slots_table(slots: list[dict[str, Any]]) -> RenderableType:
    if not slots:
        return Text("no slot works on it now")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("slot", no_wrap=True)
    table.add_column("host", overflow="ellipsis")  # the one that gives way to the numbers
    table.add_column("device", no_wrap=True)
    table.add_column("doing", no_wrap=True)
    for column in ("trial", "epoch", "value", "events/s", "seen"):
        table.add_column(column, justify="right", no_wrap=True)
    for slot in slots:
        state = slot["state"]
        at_work = state.get("trial") is not None
        speed = state.get("events_per_second")
        table.add_row(
            slot["id"][:8],
            slot["host"],
            slot["device"],
            str(slot["command"] or state.get("phase", "")),
            str(state["trial"]) if at_work else "-",
            f"{state.get('epoch', 0)}/{state.get('epochs', '?')}" if at_work else "-",
            _number(state.get("value")) if at_work else "-",
            f"{speed:,.0f}" if at_work and speed else "-",
            f"{slot['quiet']:.0f} s ago",
        )
    return table


def _done(status: Mapping[str, Any]) -> str:
    done = status["counts"]["complete"] + status["counts"]["pruned"]
    return f"{done}/{status['budget']}" if status["budget"] else str(done)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Looking:
    """One person's look at a storage, or at one study of it; used with ``with``.

    Raises:
        StudyError: there is no such study.
    """

    def __init__(self, storage: Storage, name: str | None) -> None:
        self.storage = storage
        self._said: set[str] = set()
        self.study = Study.load(storage.url, name) if name else None

    def __enter__(self) -> Looking:
        return self

    def __exit__(self, *_: object) -> None:
        if self.study:
            self.study.close()

    def look(self) -> Any:
        """The study as a JSON object, or a list of all of them."""
        if self.study:
            return study_status(self.storage, self.study)
        found, damaged = all_statuses(self.storage)
        for line in damaged:
            if line not in self._said:
                self._said.add(line)
                Console(stderr=True).print(Text(line), soft_wrap=True)
        return found

    def print(self) -> None:
        """To stdout, as wide as it is; where nobody watches, as wide as it needs to be."""
        console = Console()
        if not console.is_terminal:
            console = Console(width=200)
        found = self.look()
        shown = study_report(found, self.study) if self.study else studies_table(found)
        console.print(shown, soft_wrap=not console.is_terminal)

    def watch(self, seconds: float = 1.0) -> None:
        """Stay until Ctrl-C, which leaves the last frame; off a terminal as :meth:`print`."""
        console = Console()
        if not on_a_terminal(console):
            self.print()
            return
        # a second Ctrl-C does not wait for a database that is silent
        with (
            contextlib.suppress(KeyboardInterrupt),
            caught_signals(only=1) as signals,
            quiet_keys(console),
            Live(console=console, auto_refresh=False) as live,
        ):
            while not signals.count:
                live.update(self._frame(console), refresh=True)
                signals.news.wait(seconds)

    def _frame(self, console: Console) -> RenderableType:
        """What fits the terminal, or why there is nothing to show."""
        try:
            found = self.look()
            if self.study is None:

                def listed(room: int) -> RenderableType:
                    return studies_table(found, room)

                return fitted(console, listed, (len(found),), (1,))
            report = functools.partial(study_report, found, self.study)
            wanted = (len(found["workers"]), SHOWN_FAILED, SHOWN_BEST)
            return fitted(console, report, wanted, (4, 1, 3))
        except StorageUnreachable as error:
            return Text(str(error), style="red")
