"""``paropt status`` without a study: all of them in a table, made in a fraction of a second.

Nothing is imported here that only one study needs: a second of imports would be most of the time.
"""

from __future__ import annotations

import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from paropt.names import baseline
from paropt.search.study.overview import overview
from paropt.storage.connect import Storage
from paropt.storage.engine import transaction
from paropt.storage.leases import Rhythm, Slot, Slots
from paropt.terminal.columns import Column, fit, lines

WIDE = 200  # where nobody watches, lines may be as long as they need to be
LONGEST_SILENCE = 7 * 86_400.0  # seconds; then a slot's row goes
NONE_YET = "no studies yet; start one with paropt launch --data FILE"
STUDIES = (
    Column("study", gives=True),
    Column("state"),
    Column("trials", right=True),
    Column("best", right=True),
    Column("no better than", leaves=3),  # what needs no training
    Column("by", leaves=1),
    Column("model", leaves=2),
    Column("slots", leaves=3, right=True),
    Column("running", leaves=4, right=True),
    Column("failed", leaves=5, right=True),
    Column("trial", leaves=6, right=True),
    Column("waiting", leaves=7, right=True),
)

Listed = tuple[list[dict[str, Any]], list[str]]


def print_studies(storage: Storage, *, parts: bool) -> None:
    """The list on stdout; on stderr why some studies cannot be shown."""
    found, damaged = listed_studies(storage, parts=parts)
    for line in damaged:
        click.echo(line, err=True)
    watched = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if watched else WIDE
    header, *rest = study_lines(found, width=width)
    click.echo("\n".join([click.style(header, bold=True) if rest else header, *rest]))


def listed_studies(storage: Storage, *, parts: bool = False) -> Listed:
    """Every study with what a list shows, in the order of their making; why some are not shown.

    ``parts``: those of final tests, too.
    """
    slots = slots_by_study(storage)
    with transaction(storage.engine()) as connection:
        found = overview(connection, parts=parts)
    studies = [
        with_slots(one, described_slots(slots[one["study"]], one["heartbeat"]))
        for one in found.studies
    ]
    return studies, found.damaged


def study_lines(
    statuses: Sequence[Mapping[str, Any]], room: int | None = None, width: int = WIDE
) -> list[str]:
    """A header and a line per study; of more than ``room`` the latest."""
    if not statuses:
        return [NONE_YET]
    latest = statuses if room is None else statuses[max(0, len(statuses) - room) :]
    header, *rest = lines(fit(STUDIES, list(map(_row, latest)), width))
    if len(latest) < len(statuses):
        rest = [f"… {len(statuses) - len(latest)} earlier studies", *rest]
    return [header, *rest]


def _row(status: Mapping[str, Any]) -> list[str]:
    best, counts = status["best"] or {}, status["counts"]
    return [
        status["study"],
        status["activity"],
        done_of(status),
        f"{best['value']:.4f}" if best else "-",
        ", ".join(map(baseline, status["below_floor"])),
        status["metric"],
        status["model"],
        str(sum(not slot["gone"] for slot in status["workers"])),
        str(counts["running"]),
        str(counts["failed"]),
        str(best.get("trial", "-")),
        str(counts["waiting"]),
    ]


def done_of(status: Mapping[str, Any]) -> str:
    """``12/20``."""
    done = status["counts"]["complete"] + status["counts"]["pruned"]
    return f"{done}/{status['budget']}" if status["budget"] else str(done)


# -- slots --------------------------------------------------------------------------------------


def slots_by_study(storage: Storage) -> Mapping[str, list[Slot]]:
    """All slots that have been heard lately."""
    found: dict[str, list[Slot]] = defaultdict(list)
    for slot in Slots(storage.engine()).alive(within=LONGEST_SILENCE):
        found[slot.study].append(slot)
    return found


def described_slots(slots: Iterable[Slot], heartbeat: float) -> list[dict[str, Any]]:
    """Those within the grace of their study's heartbeat, as JSON objects.

    ``killed``: it ran on this machine, and its process has ended. ``gone``: that, or it has missed
    a heartbeat.
    """
    rhythm = Rhythm(heartbeat)
    return [
        {**asdict(slot), "killed": slot.gone, "gone": slot.gone or slot.quiet > rhythm.gap}
        for slot in slots
        if slot.quiet <= rhythm.grace
    ]


def with_slots(found: dict[str, Any], slots: list[dict[str, Any]]) -> dict[str, Any]:
    """A study's object with its slots, and in a word what goes on."""
    return {**found, "workers": slots, "activity": activity(found, slots)}


def activity(status: Mapping[str, Any], slots: Sequence[Mapping[str, Any]]) -> str:
    """What goes on in a study: done, paused, stopped, running, time is up, or idle."""
    counts, budget = status["counts"], status["budget"]
    done = counts["complete"] + counts["pruned"]
    if budget and done >= budget and not counts["running"]:  # what waits wants a larger budget
        return "done"
    if status["state"] != "run":
        return {"pause": "paused", "stop": "stopped"}[status["state"]]
    if any(not slot["gone"] for slot in slots):
        return "running"
    if status.get("over") in ("stale", "space"):
        return "done"
    used_up = status["seconds_left"] == 0 or status.get("over") == "spent"
    return "time is up" if used_up else "idle"
