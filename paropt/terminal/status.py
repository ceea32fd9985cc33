"""What ``paropt status`` shows: the studies of a storage, or one of them with its workers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from paropt.errors import StorageUnreachable
from paropt.machine.signals import caught_signals
from paropt.names import baseline, begun_with, epoch_of, memory_words, shown
from paropt.storage.connect import Storage
from paropt.storage.leases import Rhythm, Slots
from paropt.terminal.columns import Column
from paropt.terminal.frames import cut_to_fit, on_a_terminal, quiet_keys, summary
from paropt.terminal.front import front_table
from paropt.terminal.live import duration
from paropt.terminal.standing import budget_lines, constraint_lines, standing, tie_mark
from paropt.terminal.study_list import (
    WIDE,
    described_slots,
    done_of,
    listed_studies,
    print_studies,
    slots_by_study,
    study_lines,
    with_slots,
)
from paropt.terminal.tables import fitting

if TYPE_CHECKING:
    from paropt.search.study.study import Study

SHOWN_BEST = 10
SHOWN_FAILED = 5
OTHERS = {
    "failed": "failed",
    "running": "running",
    "waiting": "waiting to go on",
    "beyond": "beyond a constraint",
}


def study_status(storage: Storage, study: Study) -> dict[str, Any]:
    """One study as a JSON object: its summary, and ``workers``, one object per live slot."""
    slots = workers(storage, study.name, study.definition.heartbeat)
    return with_slots(study.summary(), slots)


def workers(storage: Storage, study: str, heartbeat: float) -> list[dict[str, Any]]:
    """The live slots of a study; ``state`` is what each last said that it does."""
    grace = Rhythm(heartbeat).grace
    return described_slots(Slots(storage.engine()).alive(study, within=grace), heartbeat)


def all_statuses(storage: Storage, *, parts: bool = True) -> tuple[list[dict[str, Any]], list[str]]:
    """Every study of the storage, in the order of their making; why some cannot be shown.

    ``parts``: those of final tests, too.
    """
    from paropt.search.study.study import Study

    slots = slots_by_study(storage)
    found, damaged = [], []
    for name, summed in Study.summaries(storage.engine(), parts=parts):
        if isinstance(summed, dict):
            theirs = described_slots(slots[name], summed["heartbeat"])
            found.append(with_slots(summed, theirs))
        else:
            damaged.append(f"study {name!r} cannot be shown: {summed}")
    return found, damaged


# -- for people -------------------------------------------------------------------------------


def studies_table(
    statuses: Sequence[Mapping[str, Any]], room: int | None = None, width: int = WIDE
) -> RenderableType:
    """One line per study; of more than ``room`` the latest."""
    header, *rest = study_lines(statuses, room, width)
    return Group(Text(header, style="bold" if rest else ""), Text("\n".join(rest)))


def study_report(
    status: Mapping[str, Any],
    study: Study,
    slots: int | None = None,
    failed: int = SHOWN_FAILED,
    best: int = SHOWN_BEST,
    width: int = WIDE,
) -> RenderableType:
    """One study: its counts, floor, best trials, failures and slots; so many of each."""
    working = status["workers"]
    there = working if slots is None else working[:slots]
    parts: list[RenderableType] = [Text(line) for line in _head(status)]
    if status["best"] and best:
        parts += [Text(), _best_table(status["metric"], study, best, width)]
    if (status["pareto"] or {}).get("trials") and best:
        parts += [Text(), *front_table(status, study, best, width)]
    if status["counts"]["failed"] and failed:
        parts += [Text(), _failures(study, failed, width)]
    parts.append(Text())
    if there or not working:
        parts.append(_slots_table(there, width))
    if len(there) < len(working):
        parts.append(summary([slot["state"] for slot in working[len(there) :]], more=bool(there)))
    return Group(*parts)


def headline(status: Mapping[str, Any]) -> str:
    """``shop: running, 4/20 trials (3 complete, 1 pruned), 1 running``."""
    counts = status["counts"]
    done = ", ".join(f"{counts[name]} {name}" for name in ("complete", "pruned") if counts[name])
    others = [f"{counts[name]} {words}" for name, words in OTHERS.items() if counts.get(name)]
    trials = f"{done_of(status)} trials" + (f" ({done})" if done else "")
    return f"{shown(status['study'])}: {status['activity']}, {', '.join([trials, *others])}"


def _head(status: Mapping[str, Any]) -> list[str]:
    lines = [
        headline(status),
        f"{status['model']} by {status['metric']} on data {status['fingerprint'][:12]} "
        f"{shown(status.get('data', ''))}".rstrip(),
    ]
    if begin := status.get("begin"):
        lines.append(f"begins with {begun_with(begin)}")
    if status.get("why"):
        lines.append(shown(status["why"]))
    if told := (status["best"] or {}).get("experts"):
        lines.append(f"the best one's {told}")
    if (memory := (status["best"] or {}).get("memory")) and memory["rows"]:
        lines.append(f"the best one remembers {memory_words(memory)}")
    if left := status["seconds_left"]:
        lines.append(f"{duration(left)} of its time left")
    lines += budget_lines(status)
    if unread := status.get("unread"):
        lines.append(f"{unread} trial{'s' * (unread > 1)} more cannot be read")
    floors = [
        f"{baseline(name)} {_number(m[status['metric']])}"
        for name, m in status["floor"].items()
        if status["metric"] in m
    ]
    if floors:
        lines.append(f"without training: {', '.join(floors)}")
    return lines + constraint_lines(status) + standing(status)


def _best_table(metric: str, study: Study, count: int, width: int) -> RenderableType:
    columns = (
        Column("trial", right=True),
        Column(metric, right=True),
        Column("mean of 3", right=True, leaves=2),  # what they are ranked by
        Column("epoch", right=True),
        Column("state", leaves=1),
        Column("parameters", gives=True, folded=True),
    )
    names = {parameter.name for parameter in study.space.searched}
    rows = []
    for trial in study.best(count):
        searched = {k: v for k, v in trial["params"].items() if k in names}
        if len(study.space.models) > 1:
            searched = {"model": trial["model"], **searched}
        rows.append(
            [
                str(trial["trial"]),
                _number(trial["value"]) + tie_mark(trial),
                _number(trial["steady"]),
                epoch_of(trial),
                trial["state"],
                " ".join(f"{name}={_short(value)}" for name, value in searched.items()),
            ]
        )
    return fitting(columns, rows, width)


def _failures(study: Study, count: int, width: int) -> RenderableType:
    columns = (
        Column("failed", right=True),
        Column("epoch", leaves=1, right=True),
        Column("why"),
        Column("message", gives=True, folded=True),
    )
    ended = [t for t in study.trials() if t["state"] in ("fail", "pruned")]
    failed = [t for t in ended if t["value"] is None and t["why"] not in ("lost", "constraint")]
    rows = [
        [str(trial["trial"]), str(trial["epochs"]), str(trial["why"]), str(trial["message"])]
        for trial in failed[-count:]
    ]
    return fitting(columns, rows, width)


SLOTS = (
    Column("slot"),
    Column("host", leaves=4),
    Column("device", leaves=2),
    Column("doing", gives=True),
    Column("trial", right=True),
    Column("epoch", right=True),
    Column("value", right=True),
    Column("events/s", leaves=1, right=True),
    Column("heard", leaves=3, right=True),
)


def _slots_table(slots: list[dict[str, Any]], width: int) -> RenderableType:
    if not slots:
        return Text("no slot works on it now")
    return fitting(SLOTS, [_slot_row(slot) for slot in slots], width)


def _slot_row(slot: Mapping[str, Any]) -> list[str]:
    state = slot["state"]
    at_work = state.get("trial") is not None
    speed = state.get("events_per_second")
    return [
        slot["id"][:8],
        slot["host"],
        slot["device"],
        _doing(slot),
        str(state["trial"]) if at_work else "-",
        _at_work(state) if at_work else "-",
        _number(state.get("value")) if at_work else "-",
        f"{speed:,.0f}" if at_work and speed and not slot["gone"] else "-",
        f"{slot['quiet']:.0f} s ago",
    ]


def _doing(slot: Mapping[str, Any]) -> str:
    """What it does; nothing any more if its process was killed."""
    if slot["killed"]:
        return "killed"
    if slot["gone"]:
        return "silent"
    return str(slot["command"] or slot["state"].get("phase", ""))


def _at_work(state: Mapping[str, Any]) -> str:
    """The epoch that a slot is in, and its stage."""
    stage = state.get("stage") if state.get("stage") != "main" else ""
    return f"{state.get('epoch', 0)}/{state.get('epochs', '?')}" + (f" {stage}" if stage else "")


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Looking:
    """One person's look at a storage, or at one study of it; used with ``with``.

    Raises:
        StudyError: there is no such study.
    """

    def __init__(self, storage: Storage, name: str | None, *, parts: bool = False) -> None:
        self.storage = storage
        self.study: Study | None = None
        self._parts = parts
        self._said: set[str] = set()
        if name is not None:
            from paropt.search.study.study import Study as Opened

            self.study = Opened.load(storage.url, name)

    def __enter__(self) -> Looking:
        return self

    def __exit__(self, *_: object) -> None:
        if self.study:
            self.study.close()

    def look(self) -> Any:
        """The study as a JSON object, or a list of all of them."""
        if self.study:
            return study_status(self.storage, self.study)
        return self._told(*all_statuses(self.storage, parts=self._parts))

    def _listed(self) -> list[dict[str, Any]]:
        return self._told(*listed_studies(self.storage, parts=self._parts))

    def _told(self, found: list[dict[str, Any]], damaged: Iterable[str]) -> list[dict[str, Any]]:
        for line in damaged:
            if line not in self._said:
                self._said.add(line)
                Console(stderr=True).print(Text(line), soft_wrap=True)
        return found

    def print(self) -> None:
        """To stdout, as wide as it is; where nobody watches, as wide as it needs to be."""
        if self.study is None:
            print_studies(self.storage, parts=self._parts)
            return
        console = Console()
        if not console.is_terminal:
            console = Console(width=WIDE)
        whole = study_report(self.look(), self.study, width=console.width)
        console.print(whole, soft_wrap=not console.is_terminal)

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
            if self.study is None:
                studies = self._listed()
                table = functools.partial(studies_table, studies, width=console.width)
                return cut_to_fit(console, table, (len(studies),), (1,))
            found = self.look()
            report = functools.partial(study_report, found, self.study, width=console.width)
            wanted = (len(found["workers"]), SHOWN_FAILED, SHOWN_BEST)
            return cut_to_fit(console, report, wanted, (4, 1, 3))
        except StorageUnreachable as error:
            return Text(str(error), style="red")
