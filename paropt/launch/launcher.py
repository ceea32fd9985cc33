"""``launch`` and ``worker``: put slots to work on this machine, look on, say how it ended.

Nothing here is needed for the trials: the slots own them, and go on if this process dies.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from paropt.errors import EXIT_STORAGE, ModelError, StorageUnreachable, StudyError
from paropt.launch.opening.checkpoint_place import folder_in_store, folders_on_disk
from paropt.launch.opening.open_study import OpenedStudy
from paropt.launch.slots.autoscaler import Autoscaler
from paropt.launch.slots.local_slots import LocalSlots, SlotProcess, SlotSpec
from paropt.machine.address import address_for_others
from paropt.machine.devices import DeviceShare
from paropt.machine.home import paropt_home
from paropt.machine.signals import caught_signals
from paropt.machine.slot_files import slots_directory
from paropt.names import command, quoted
from paropt.terminal.launch_summary import print_ending
from paropt.terminal.live import LiveView
from paropt.terminal.status import study_status
from paropt.terminal.study_list import WIDE
from paropt.terminal.views import make_live_view

LOOK_SECONDS = 0.25  # between two looks at this machine's slots
OVER = ("stopped", "timeout", "spent", "stale", "space", "budget")  # why a study may end
ASK_SECONDS = 1.0  # between two looks at the study


def work(
    opened: OpenedStudy,
    shares: Sequence[DeviceShare],
    *,
    checkpoints: Path | str | None = None,
    tensorboard: Path | None = None,
    floor: bool = False,
    report: bool = True,
) -> dict[str, Any]:
    """Run slots on ``shares`` until the study ends or somebody stops us; the study's last status.

    ``floor`` computes what needs no training if the study lacks it; ``report`` prints the result
    for people on stdout. Where shares are packed, slots come and go on their devices meanwhile.
    ``checkpoints`` is a directory, or the URL of a folder in an object store.

    Raises:
        StudyError: the study paused itself, because its trials fail alike.
        ParoptError: no slot could work.
        StorageUnreachable: the database stayed away.
    """
    local = LocalSlots(shares, _spec(opened, checkpoints, tensorboard))
    autoscaler = Autoscaler(local) if shares[0].packed else None
    return look_on(opened, local, _introduction(opened, shares), autoscaler, floor, report)


class Crew(Protocol):
    """Slots at work on a study: this machine's, or those that a scheduler placed elsewhere.

    Attributes:
        slots: those of this machine.
        endings: how slots ended that will not come back: reason, message and exit code.
        over: none is left that does something or will.
    """

    @property
    def slots(self) -> Sequence[SlotProcess]: ...
    @property
    def endings(self) -> Sequence[dict[str, Any]]: ...
    @property
    def over(self) -> bool: ...
    def start(self) -> None: ...
    def look(self) -> None: ...
    def dismiss(self, *, hurry: bool = False) -> None: ...
    def close(self) -> None: ...


def look_on(
    opened: OpenedStudy,
    crew: Crew,
    introduction: str,
    autoscaler: Autoscaler | None,
    floor: bool,
    report: bool,
) -> dict[str, Any]:
    """Start slots, look on until they are over, and say how it ended; see :func:`work`."""
    try:
        with make_live_view(opened.study.definition.metric) as view:
            view.note(introduction)
            if floor:
                compute_floor(opened)
            signals = _run(opened, crew, view, autoscaler)
        return _finish(opened, crew, signals, report)
    finally:
        crew.close()


def announce(opened: OpenedStudy) -> None:
    """Say what to type on other machines, if the embedded server is open to them."""
    storage = opened.storage
    if not storage.listen:
        return
    err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
    host, _, port = storage.listen.rpartition(":")
    if address_for_others(host.strip("[]")) is None:
        err.print(
            f"the database listens on {storage.listen}, which only this machine reaches; "
            f"--listen 0.0.0.0:{port} opens it to others",
            markup=False,
        )
        return
    typed = command("worker", "--study", opened.study.name, "--storage", storage.worker_url())
    err.print(
        f"on other machines, with the password of {storage.password_file()} in PGPASSWORD:\n"
        f"  {typed} --data DIR\n"
        "the database is there as long as a paropt process runs on this machine",
        markup=False,
    )


def _warn_of_others(opened: OpenedStudy, workers: Sequence[Mapping[str, Any]], host: str) -> str:
    """That slots elsewhere are about to lose the embedded server; empty if none are."""
    others = [slot for slot in workers if slot["host"] != host and not slot["gone"]]
    if not others or not opened.storage.listen:
        return ""
    slots = f"{len(others)} slot{'s' * (len(others) > 1)}"
    return (
        f"{slots} on other machines still at work, and the database stops with the last paropt "
        f"process on this machine; {quoted('status', opened.study.name, '--watch')} keeps it there"
    )


def _spec(
    opened: OpenedStudy, checkpoints: Path | str | None, tensorboard: Path | None
) -> SlotSpec:
    storage, study = opened.storage, opened.study
    files = slots_directory(paropt_home(), storage.describe(), study.name)
    directory = checkpoints if isinstance(checkpoints, Path) else paropt_home() / "checkpoints"
    here, earlier = folders_on_disk(opened, directory.resolve())
    return SlotSpec(
        study=study.name,
        data=opened.data.resolve(),
        files=files,
        checkpoints=here,
        earlier=earlier,
        store=folder_in_store(opened, checkpoints) if isinstance(checkpoints, str) else None,
        tensorboard=tensorboard.resolve() if tensorboard else None,
        environment=storage.environment(),
    )


def _introduction(opened: OpenedStudy, shares: Sequence[DeviceShare]) -> str:
    devices = {share.device.label: share.device.name for share in shares}
    named = ", ".join(f"{label} ({name})" if name else label for label, name in devices.items())
    threads = shares[0].threads
    count = f"{len(shares)} slots" if len(shares) > 1 else "1 slot"
    return (
        f"{count} on {named}, {threads} thread{'s' * (threads > 1)} each; "
        f"studies are in {opened.storage.describe()}"
    )


# -- looking on -----------------------------------------------------------------------------


def _run(opened: OpenedStudy, local: Crew, view: LiveView, autoscaler: Autoscaler | None) -> int:
    """Start the slots and look on until they are over; how often a signal asked us to stop."""
    watch = StudyWatch(opened)
    answered = 0
    with caught_signals() as signals:
        local.start()
        while not local.over:
            signals.news.wait(LOOK_SECONDS)
            signals.news.clear()
            local.look()
            if signals.count > answered:
                answered = signals.count
                view.note(_farewell(answered))
                local.dismiss(hurry=answered > 1)
            elif autoscaler is not None and not answered:
                for line in autoscaler.look():
                    view.note(line)
            _show(watch, local, view)
        watch.stop()
        _show(watch, local, view)
    return signals.count


def _farewell(count: int) -> str:
    if count == 1:
        return "handing trials back; once more to stop without waiting for checkpoints"
    return "stopping now"


def _show(watch: StudyWatch, local: Crew, view: LiveView) -> None:
    for trial in watch.news():
        assert watch.status is not None
        view.ended(trial, watch.status)
    rows = [{**slot.state, "name": slot.share.name} for slot in local.slots]
    view.update(watch.status, [*rows, *watch.elsewhere(rows)], watch.trouble)


class StudyWatch:
    """Reads the study once a second in a thread; a database that is away costs the view only."""

    def __init__(self, opened: OpenedStudy) -> None:
        self.status: dict[str, Any] | None = None
        self.trouble = ""
        self._opened = opened
        self._seen = {t["trial"] for t in opened.study.trials() if _over(t)}
        self._ended: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._counts: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def news(self) -> Iterator[dict[str, Any]]:
        """The trials that ended since the last call."""
        while True:
            try:
                yield self._ended.get_nowait()
            except queue.Empty:
                return

    def elsewhere(self, ours: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of the slots of other machines, and of other launches on this one."""
        mine = {row.get("slot") for row in ours}
        return [
            {**slot["state"], "name": f"{slot['host']}/{slot['device']}-{slot['slot']}"}
            for slot in (self.status or {}).get("workers", [])
            if slot["id"] not in mine and not slot["gone"]
        ]

    def stop(self) -> None:
        """One last look, so that nothing that happened is missing."""
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while True:
            last = self._stop.is_set()
            try:
                self._look()
                self.trouble = ""
            except StorageUnreachable as error:
                self.trouble = f"{error}; slots go on and keep their reports"
            except StudyError as error:
                self.trouble = str(error)
            if last:
                return
            self._stop.wait(ASK_SECONDS)

    def _look(self) -> None:
        status = study_status(self._opened.storage, self._opened.study)
        self.status = status
        if status["counts"] == self._counts:
            return
        for trial in self._opened.study.trials():
            if trial["trial"] not in self._seen and _over(trial):
                self._seen.add(trial["trial"])
                self._ended.put(trial)
        self._counts = status["counts"]


def _over(trial: dict[str, Any]) -> bool:
    return trial["state"] not in ("running", "waiting")


def compute_floor(opened: OpenedStudy) -> threading.Thread | None:
    """What needs no training, stored with the study; beside the first trials, not before them.

    The thread that does it, or None if the study has it.
    """
    if opened.study.summary()["floor"]:
        return None

    def compute() -> None:
        from paropt.data import open_dataset
        from paropt.training.evaluation.baselines.beside import floors_of

        definition = opened.study.definition
        protocol = definition.protocol
        view = open_dataset(opened.data).view(definition.view)
        # then the next launch does it; what is wrong with a model is said by the slots
        with contextlib.suppress(StorageUnreachable, StudyError, ModelError):
            opened.study.set_floor(
                floors_of(
                    opened.study.space.models,
                    view,
                    definition.at,
                    protocol.ties,
                    protocol.filter_seen,
                    definition.also,
                    definition.objective,
                    opened.study.space.constants,
                )
            )

    thread = threading.Thread(target=compute, name="floor", daemon=True)
    thread.start()
    return thread


# -- the end --------------------------------------------------------------------------------


def _finish(opened: OpenedStudy, local: Crew, signals: int, report: bool) -> dict[str, Any]:
    name, endings = opened.study.name, local.endings
    err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
    _raise_if_lost(endings)
    status = study_status(opened.storage, opened.study)
    host = socket.gethostname()
    others = _warn_of_others(opened, status["workers"], host)
    if local.slots:
        status["workers"] = [slot.describe(host) for slot in local.slots]
    status["interrupted"] = signals > 0
    if report:
        console = Console(markup=False, emoji=False)
        # a log takes lines of any length
        print_ending(
            console if console.is_terminal else Console(width=WIDE, markup=False, emoji=False),
            status,
            opened.study,
            opened.storage.options(),
            opened.data_options(),
        )
    for message in dict.fromkeys(_messages(endings, "failures", "trainer", "failed", "died")):
        if all(ending["reason"] in ("failures", "trainer", "failed", "died") for ending in endings):
            raise StudyError(message)
        err.print(f"Warning: {message}", markup=False)
    if report and (signals or any(ending["reason"] == "left" for ending in endings)):
        err.print(f"stopped; {quoted('launch', '--study', name)} goes on from here", markup=False)
    for message in dict.fromkeys(_messages(endings, *OVER)):
        err.print(message, markup=False)
    if report and not (opened.storage.is_embedded or os.environ.get("PAROPT_STORAGE")):
        err.print(
            "these commands want --storage as this one had it, or PAROPT_STORAGE set", markup=False
        )
    if others:
        err.print(others, markup=False)
    return status


def _raise_if_lost(endings: Sequence[dict[str, Any]]) -> None:
    lost = [ending for ending in endings if ending["exit_code"] == EXIT_STORAGE]
    if lost:
        raise StorageUnreachable(str(lost[0].get("message") or "the database stayed away"))


def _messages(endings: Sequence[dict[str, Any]], *reasons: str) -> Iterator[str]:
    for ending in endings:
        if ending["reason"] in reasons and ending.get("message"):
            yield str(ending["message"])
