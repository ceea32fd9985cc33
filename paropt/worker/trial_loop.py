"""The loop of a slot: ask for a trial, have it trained and settled, ask again."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paropt.errors import EXIT_FAILURE, EXIT_OK, EXIT_STORAGE, StorageUnreachable
from paropt.machine.devices import DeviceShare
from paropt.machine.slot_files import SlotFiles
from paropt.search.study.state import StudyEnded
from paropt.search.study.study import Study
from paropt.search.study.trial import Trial
from paropt.storage.leases import Leases, Slots
from paropt.worker.attempt import Attempt, SlotParts
from paropt.worker.checkpoints import Checkpoints
from paropt.worker.device_lock import DeviceLock
from paropt.worker.event_loop import EventLoop
from paropt.worker.heartbeat import Heartbeat
from paropt.worker.limits import Limits
from paropt.worker.orders import Leaving, Orders
from paropt.worker.slot_status import SlotStatus
from paropt.worker.slot_trainer import SlotTrainer, TrainerUnusable

log = logging.getLogger(__name__)


class TrialLoop:
    """One slot of one study. :meth:`run` returns the process's exit code."""

    def __init__(
        self,
        study: Study,
        slots: Slots,
        leases: Leases,
        *,
        share: DeviceShare,
        files: SlotFiles,
        data: str,
        checkpoints: Checkpoints,
        tensorboard: Path | None = None,
        devices: Path,
        limits: Limits,
        revive: Callable[[], None] = lambda: None,
    ) -> None:
        self.study, self.share, self.checkpoints = study, share, checkpoints
        self.orders = Orders()
        self.loop = EventLoop(self.orders, limits.outage, revive)
        self.status = SlotStatus(files, self.loop, share.device.label)
        self.heartbeat = Heartbeat(study, slots, leases, self.loop, self.status)
        log_file = files.file("log")
        self.trainer = SlotTrainer(share, log_file, self.loop, self.status, limits.silence)
        self.device_lock = DeviceLock(devices, share.device.visible or share.device.label)
        self.parts = SlotParts(
            study=study,
            share=share,
            data=data,
            checkpoints=checkpoints,
            tensorboard=tensorboard,
            limits=limits,
            loop=self.loop,
            status=self.status,
            heartbeat=self.heartbeat,
            trainer=self.trainer,
            device_lock=self.device_lock,
        )

    def run(self) -> int:
        """Run trials until the study ends, somebody sends us away, or the database is lost."""
        self.loop.catch_signals()
        code, reason, message = EXIT_FAILURE, "failed", ""
        try:
            self._register()
            self._sweep()
            self.trainer.start()
            while True:
                Attempt(self.parts, self._next_trial()).run()
        except StudyEnded as end:
            code, reason, message = EXIT_OK, end.reason, str(end)
            self._clear(deleted=end.reason == "deleted")
        except Leaving as leave:
            code, reason, message = leave.exit_code, "left", str(leave)
        except StorageUnreachable as error:
            code, reason, message = EXIT_STORAGE, "storage", str(error)
        except TrainerUnusable as error:
            code, reason, message = EXIT_FAILURE, "trainer", str(error)
        finally:
            self._close()
            self.status.show(
                phase="ended", reason=reason, message=message, exit_code=code, trial=None
            )
            self.status.record("ended", reason=reason, message=message)
            log.info("this slot ends: %s", message or reason)
        return code

    def _register(self) -> None:
        self.heartbeat.register(self.share)
        identity = self.heartbeat.identity
        self.status.show(phase="starting", slot=identity, threads=self.share.threads)

    def _sweep(self) -> None:
        """Remove the checkpoints of lineages that ended while nobody could."""

        def open_roots() -> tuple[set[int], int]:
            self.study.refresh()
            history = self.study.history
            roots = {r.root for state in ("RUNNING", "WAITING") for r in history.in_state(state)}
            return roots, max((record.number for record in history.all()), default=-1)

        self.checkpoints.sweep(*self.loop.call(open_roots))

    def _clear(self, *, deleted: bool) -> None:
        """Our trainer, then what it wrote for trials that were given to others meanwhile."""
        self.trainer.close()
        if deleted:
            self.checkpoints.sweep(())
            return
        with contextlib.suppress(StorageUnreachable):
            self._sweep()

    def _close(self) -> None:
        self.trainer.close()
        self.device_lock.close()
        if self.heartbeat.identity and self.orders.database_lost is None:
            self.loop.database.hurry(3.0)
            with contextlib.suppress(Exception):
                self.heartbeat.leave()
        self.checkpoints.close()

    def _next_trial(self) -> Trial:
        """Ask until there is a trial for us.

        Raises:
            StudyEnded, Leaving, StorageUnreachable: there won't be.
        """
        pause = 0.1
        while True:
            self.orders.check_leaving()
            trial = self.loop.call(
                lambda: self.study.next_trial(self._owner(), self.heartbeat.claim)
            )
            if trial is not None:
                break
            phase = "paused" if self.orders.study == "pause" else "waiting"
            self.status.show(phase=phase, trial=None)
            self.loop.wait(pause)
            pause = min(1.5 * pause, self.heartbeat.rhythm.look)
        # given out after the last look at the study's state, so that look is out of date
        self.orders.study = "run"
        self.heartbeat.keep(trial.id)
        self.status.record("asked", trial=trial.number, id=trial.id, root=trial.root)
        return trial

    def _owner(self) -> dict[str, Any]:
        trainer = self.trainer.facts
        return {
            "slot": f"{socket.gethostname()}/{self.share.name}",
            "id": self.heartbeat.identity,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": trainer.get("device") or self.share.device.name,
            "device_kind": self.share.device.kind,
            "threads": self.share.threads,
            "torch": trainer.get("torch"),
        }
