"""``python -P -m paropt.worker.trainer``: the process that owns a device and trains on it.

A slot starts it, writes what to do to its stdin and reads what happens from its stdout (see
docs/architecture.md). Between two fits the dataset stays open and the device warm. It knows no
study and no database: if it dies, a trial is repeated from its last checkpoint and nothing else is
lost. When its stdin closes, its slot is gone and so is any use of going on.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import os
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paropt.errors import (
    CheckpointError,
    Diverged,
    ModelError,
    OutOfMemory,
    OutsideLimits,
    ParamError,
)
from paropt.machine.remote import RemoteError
from paropt.training.evaluation.limits import broken, read_stored
from paropt.training.metrics import OF_MODELS, picked
from paropt.worker.protocol import LineReader, Message, encode

if TYPE_CHECKING:
    from paropt.data import View
    from paropt.training.evaluation.epochs import EpochReport
    from paropt.training.fitting.earlier import Earlier
    from paropt.training.fitting.fit import Fit
    from paropt.training.tensorboard import EventFile
    from paropt.worker.checkpoint_store import CheckpointStore

PROGRESS_SECONDS = 0.5  # at most one progress message in this time


class Parent:
    """The slot, at the other end of the pipes: its stop and yield reach a fit from a thread."""

    def __init__(self, commands: int, events: int) -> None:
        self.fits: queue.Queue[Message | None] = queue.Queue()
        self.asked: str | None = None  # "stop" or "yield" for the fit that runs
        self._trial: int | None = None
        self._fit: Fit | None = None
        self._commands, self._events = commands, events
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, name="commands", daemon=True).start()

    def tell(self, event: str, **facts: Any) -> None:
        line = encode({"event": event, **facts})
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._events, line) :]
            except BrokenPipeError:  # nobody is there to hear it, nor to train for
                os._exit(0)

    def begin(self, trial: int) -> None:
        self.asked, self._trial = None, trial

    def watch(self, fit: Fit) -> None:
        """From now on an order ends ``fit`` at its next range of steps."""
        self._fit = fit
        if self.asked:
            fit.stop()

    def end(self) -> None:
        self._trial = self._fit = None

    def _listen(self) -> None:
        lines = LineReader()
        while chunk := self._read():
            for message in lines.feed(chunk):
                self._take(message)
        os._exit(0)  # not sys.exit: the training thread would go on

    def _read(self) -> bytes:
        try:
            return os.read(self._commands, 1 << 16)
        except OSError:
            return b""

    def _take(self, message: Message) -> None:
        do = message.get("do")
        if do == "fit":
            self.fits.put(message)
        elif do == "quit":
            self.fits.put(None)
        elif do in ("stop", "yield") and message.get("trial") == self._trial:
            self.asked = do
            if self._fit is not None:
                self._fit.stop()


def main() -> int:
    """Take fits until told to quit."""
    commands, events = _take_pipes()
    parent = Parent(commands, events)
    _die_with_parent()
    try:
        parent.tell("ready", **_facts())
        from paropt.training.fitting import fit  # noqa: F401  # its imports before the first fit
    except Exception as error:
        traceback.print_exc()
        parent.tell("unusable", message=_one_line(error))
        return 1
    gc.collect()
    gc.freeze()  # torch's own objects: looking through them costs 0.15 s between two fits
    kept = _Kept()
    while (message := parent.fits.get()) is not None:
        _train(parent, message, kept)
    return 0


def _take_pipes() -> tuple[int, int]:
    """Own descriptors for the protocol; a library that prints reaches the log, not the pipe."""
    commands, events = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return commands, events


def _die_with_parent() -> None:
    """Linux: SIGKILL at the slot's death, should this process be stuck in the driver."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    # a terminal's Ctrl-C is the slot's to answer, and what a scheduler tells all processes
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _facts() -> dict[str, Any]:
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    return {"device": device, "torch": torch.__version__, "pid": os.getpid()}


class _Kept:
    """What stays open between two fits: one of each is what a study needs."""

    def __init__(self) -> None:
        self._views: dict[tuple[str, str], View] = {}
        self._earlier: dict[str, Earlier] = {}

    def view(self, message: Message) -> View:
        """The data."""
        from paropt.data import open_dataset

        key = (message["data"], message["view"])
        if key not in self._views:
            self._views.clear()
            self._views[key] = open_dataset(message["data"]).view(message["view"])
        return self._views[key]

    def earlier(self, message: Message) -> Earlier | None:
        """The saved model to begin with, if there is one."""
        begin = message.get("begin")
        if not begin:
            return None
        from paropt.training.saved_model.earlier import read_earlier
        from paropt.worker.begun_model import OPTIMISER, find

        key = begin["digest"] + begin.get(OPTIMISER, "")
        if key not in self._earlier:
            place = find("of this trial", begin)
            assert place is not None
            self._earlier = {key: read_earlier(place, OPTIMISER in begin)}
        return self._earlier[key]


def _train(parent: Parent, message: Message, kept: _Kept) -> None:
    """One fit from its message to its last event; whatever goes wrong in it is an event too."""
    trial = message["trial"]
    parent.begin(trial)
    epoch = 0
    failed: Message | None = None
    try:
        for epoch in _TrainerFit(parent, message, kept).run():  # noqa: B007  # the last one
            pass
    except OutOfMemory as error:
        failed = {"kind": "oom", "message": _one_line(error)}
    except Diverged as error:
        failed = {"kind": "diverged", "message": str(error)}
    except OutsideLimits as error:
        failed = {"kind": "constraint", "message": str(error), "measures": error.values}
    except (ParamError, ModelError) as error:
        failed = {"kind": "params", "message": str(error)}
    except Exception as error:  # a bug in a user's model, too
        traceback.print_exc()
        failed = {"kind": "error", "message": _one_line(error)}
    parent.end()
    if message.get("store"):
        _store(message["store"]).forget()
    _free_memory()
    if failed is not None:
        parent.tell("failed", trial=trial, epoch=epoch + 1, **failed)


class _TrainerFit:
    """One fit, told epoch by epoch, with its checkpoint."""

    def __init__(self, parent: Parent, message: Message, kept: _Kept) -> None:
        self.parent, self.message = parent, message
        self.trial: int = message["trial"]
        self.checkpoint = _path(message.get("checkpoint"))
        self.limits = read_stored(message.get("constraints") or ())
        self.history: list[Message] = []
        self.complained = False
        self.store = _store(message["store"]) if message.get("store") else None
        self.fit = self._build(kept.view(message), kept.earlier(message))
        self.events = self._events()

    def _build(self, view: View, earlier: Earlier | None) -> Fit:
        import torch

        from paropt.training.evaluation.objective import Objective
        from paropt.training.evaluation.protocol import EvaluationProtocol
        from paropt.training.fitting.fit import Fit
        from paropt.training.metrics import DEFAULT

        protocol = EvaluationProtocol.from_json(self.message.get("evaluation") or {})
        metric = self.message.get("metric") or DEFAULT
        torch.set_num_threads(int(self.message.get("threads") or 1))
        return Fit(
            self.message["model"],
            {**(earlier.params if earlier else {}), **self.message["params"]},
            view,
            seed=self.message["seed"],
            device=self.message["device"],
            epochs=self._epochs(),
            at=self.message["at"],
            also=self.message.get("also") or (),
            objective=Objective(metric, self.message.get("direction") or "maximize"),
            ties=protocol.ties,
            filter_seen=protocol.filter_seen,
            evaluate="last" if self.message.get("once") else True,
            earlier=earlier,
        )

    def _events(self) -> EventFile | None:
        from paropt.training.tensorboard import EventFile

        run = _path(self.message.get("tensorboard"))
        return EventFile(run, lambda why: self._tell("warning", message=why)) if run else None

    def _epochs(self) -> int | dict[str, int] | None:
        """Where training ends; a model's stages know better than a study's number."""
        from paropt.training.registry import stages_of

        if stages_of(self.message["model"], self.message["params"]):
            return self.message.get("stages") or None
        return self.message.get("epochs")

    def run(self) -> Iterator[int]:
        """Train to the end, a stop or a yield; yields the number of each epoch that is complete."""
        if not self.fit.counts:
            self._check(self.fit.sizes)  # what counts has no size before
        done, why = self._resume()
        epochs = self.fit.n_epochs
        self._tell("started", resumed_epoch=done, why_from_zero=why, epochs=epochs)
        for facts in self.history:
            self._tell("epoch", **facts, again=True)
            yield facts["epoch"]
        if self.events is not None:
            self.events.resume(self.history)
        self.parent.watch(self.fit)
        self.fit.on_progress = self._progress()
        if not self.parent.asked:
            for epoch in self.fit.epochs():
                self._report(epoch)
                yield epoch.epoch
                self._check(picked(epoch.metrics, OF_MODELS))
                if self.parent.asked:
                    break
        self._finish()

    def _check(self, measures: dict[str, float]) -> None:
        """Refuse a model that no training would bring within its limits."""
        if beyond := broken(self.limits, measures):
            raise OutsideLimits(", ".join(beyond), measures)

    def _finish(self) -> None:
        asked = self.parent.asked
        if asked == "yield":
            self._save(last=True)
        if self.store is not None:
            self.store.forget()
        if asked == "yield":
            self._tell("yielded")
        elif asked == "stop":
            self._tell("stopped")
        else:
            self._keep()
            self._tell("done", best_epoch=self.fit.best_epoch)

    def _report(self, epoch: EpochReport) -> None:
        if epoch.metrics:  # else it was not judged, and there is nothing to tell
            extra = {**epoch.extra, **self._sample(), **self._cold()}
            facts = replace(epoch, extra=extra).to_json()
            self.history.append(facts)
            # told first: the decision to prune is made while the checkpoint is written
            self._tell("epoch", **facts)
        if self.events is not None:
            self.events.write(epoch, self.fit.learning_rate)
        if epoch.epoch < self.fit.n_epochs:
            self._save()

    def _sample(self) -> Message:
        """What confidence intervals are made of, if somebody wants them."""
        judged = self.fit.judged
        if not self.message.get("once") or judged is None:
            return {}
        from paropt.training.evaluation.bootstrap import pack, rank_table
        from paropt.training.metrics import names_at

        sessions = self.fit.view.test.n_sessions
        told_by_ranks = set(judged.metrics) <= set(names_at(self.fit.at))
        if not len(judged.ranks) or not told_by_ranks or self.fit.protocol.ties == "median":
            sample = judged.sample(sessions, self.fit.objective)
            return {} if sample is None else {"values": sample.to_json()}
        ranks = rank_table(judged.ranks, judged.sessions, sessions, max(self.fit.at))
        return {"ranks": pack(ranks)}

    def _cold(self) -> Message:
        """What became of targets that training never saw, in a test, if the model can rank them."""
        if not self.message.get("once") or self.fit.judged is None:
            return {}
        from paropt.training.batches.catalogue import catalogue
        from paropt.training.evaluation.cold import cold_items_of

        fit = self.fit
        about, split = catalogue(fit.view), fit.view.test
        found = cold_items_of(fit.model, split, about, fit.protocol, fit.at)
        return {} if found is None else {"cold": found.to_json()}

    def _keep(self) -> None:
        """The model as it is now, which a test's seeds are put together from."""
        if not self.message.get("keep"):
            return
        from paropt.errors import DataError
        from paropt.training.saved_model.saved import judged_as, save_model

        place, fit = Path(self.message["keep"]), self.fit
        shutil.rmtree(place, ignore_errors=True)  # of a try that ran out of memory
        metrics = self.history[-1]["metrics"] if self.history else {}
        told = judged_as(fit.epoch, metrics, fit.objective, fit.protocol, fit.view)
        try:
            save_model(place, fit, {**told, "final_test": True})
        except DataError as error:
            self._tell("warning", message=f"its model is not kept: {error}")

    # -- checkpoints ------------------------------------------------------------------------

    def _resume(self) -> tuple[int | None, str | None]:
        """Go on from the first usable checkpoint offered; else say why from zero."""
        why = None
        try:
            for path in self._candidates():
                try:
                    history = _read_history(path)
                    done = self.fit.resume(path)
                except CheckpointError as error:
                    why = why or str(error)
                    continue
                if done is None:
                    continue
                self.history = [facts for facts in history if facts["epoch"] <= done]
                return done, None
        except RemoteError as error:  # which may hold a newer one, but an older one is of no use
            why = why or str(error)
        if why is None and self.message.get("resume") is not None:
            places = [str(self.checkpoint.parent)] if self.checkpoint else []
            places += [self.store.url] if self.store else []
            why = f"no checkpoint of it in {' or '.join(places) or 'reach'}"
        return None, why

    def _candidates(self) -> Iterator[Path]:
        """Checkpoints that may be gone on from, newest attempt first."""
        resume = self.message.get("resume")
        here = [Path(name) for name in resume or []]
        if self.store is None or self.checkpoint is None or resume is None:
            return iter(here)
        return self.store.candidates(self.checkpoint, here)

    def _save(self, *, last: bool = False) -> None:
        """The history first: it then covers whatever epoch the checkpoint is of."""
        if self.checkpoint is None:
            return
        try:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            _write_history(self.checkpoint, self.history)
            self.fit.save(self.checkpoint)
            if self.store is not None:
                self.store.offer(self.checkpoint, last=last)
                if warning := self.store.warning():
                    self._tell("warning", message=warning)
        except OSError as error:
            if not self.complained:
                self.complained = True
                self._tell(
                    "warning",
                    message=f"no checkpoint can be written to {self.checkpoint.parent}: "
                    f"{error.strerror or error}; training goes on without",
                )

    # -- telling ----------------------------------------------------------------------------

    def _tell(self, event: str, **facts: Any) -> None:
        self.parent.tell(event, trial=self.trial, **facts)

    def _progress(self) -> Any:
        last = 0.0
        earlier = [0.0, 0.0]  # events and seconds of the epochs before
        latest = (0, 0.0, 0.0)  # epoch, its events and its seconds

        def told(epoch: int, step: int, steps: int, events_per_second: float) -> None:
            nonlocal last, latest
            if epoch != latest[0]:
                earlier[0] += latest[1]
                earlier[1] += latest[2]
            seconds = self.fit.train_seconds
            latest = (epoch, events_per_second * seconds, seconds)
            if self.parent.asked:
                self.fit.stop()  # the order may have come before epochs() began
            now = time.monotonic()
            if now - last >= PROGRESS_SECONDS:
                last = now
                self._tell(
                    "progress",
                    epoch=epoch,
                    stage=self.fit.stage,
                    step=step,
                    steps=steps,
                    events_per_second=events_per_second,
                    events=round(earlier[0] + latest[1]),
                    busy=round(earlier[1] + latest[2], 3),
                )

        return told


@functools.cache
def _store(url: str) -> CheckpointStore:
    """The study's, for all fits of this process."""
    from paropt.worker.checkpoint_store import CheckpointStore

    return CheckpointStore(url)


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None


def history_path(checkpoint: Path) -> Path:
    """Beside a checkpoint: what its epochs reported, for a successor who must tell it again."""
    return checkpoint.with_suffix(".json")


def _write_history(checkpoint: Path, history: list[Message]) -> None:
    beside = checkpoint.with_name(f".{checkpoint.stem}.json.{os.getpid()}")
    try:
        beside.write_bytes(encode({"epochs": history}))
        beside.replace(history_path(checkpoint))
    finally:
        beside.unlink(missing_ok=True)


def _read_history(checkpoint: Path) -> list[Message]:
    path = history_path(checkpoint)
    try:
        epochs: list[Message] = json.loads(path.read_bytes())["epochs"]
        if not all(isinstance(facts["epoch"], int) for facts in epochs):
            raise ValueError("epochs without numbers")
        return epochs
    except FileNotFoundError:
        if checkpoint.exists():
            raise CheckpointError(f"checkpoint {checkpoint} lacks its {path.name}") from None
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from None


def _one_line(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    if type(error).__module__.startswith("paropt."):
        return first
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _free_memory() -> None:
    """What the fit held goes back to the device, for those who share it."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
