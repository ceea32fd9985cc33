"""What epochs report, as TensorBoard's event files.

They are written in the process that trains, an epoch at a time, with TensorBoard's own messages
and framing (the extra ``tensorboard``) but none of its threads: what cannot be written is known at
once, said once, and costs no training.
"""

from __future__ import annotations

import os
import shlex
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from paropt.errors import ParoptError
from paropt.files import file_stem
from paropt.training.evaluation.epochs import EpochReport

MISSING = "--tensorboard needs more to be installed: pip install 'paropt[tensorboard]'"
TRAINING = ("loss", "seconds", "train_seconds", "events_per_second", "peak_memory")
MOST = 1024  # entries of a list that each get a curve
FILES = "*tfevents*"


def require(directory: Path) -> None:
    """Refuse at once where nothing can be written.

    Raises:
        ParoptError: TensorBoard is not installed, or ``directory`` cannot be made or written to.
    """
    if find_spec("tensorboard") is None:
        raise ParoptError(MISSING)
    there = next(place for place in (directory, *directory.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ParoptError(f"--tensorboard {directory}: {there} is a file, not a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ParoptError(f"--tensorboard {directory}: {there} cannot be written to")


def where(directory: Path) -> str:
    """What to say of where events will be."""
    typed = shlex.join(["tensorboard", "--logdir", str(directory)])
    return f"TensorBoard shows this with `{typed}`"


def of_trial(directory: Path, study: str, trial: int) -> Path:
    """Where a trial's events lie; those of its further attempts too."""
    return directory / file_stem(study) / f"trial-{trial}"


def of_training(directory: Path) -> Path:
    """Where those of a training without a study will lie: the first train-N that is free."""
    numbers = [
        int(number)
        for place in directory.glob("train-*")
        if (number := place.name.removeprefix("train-")).isdecimal()
    ]
    return directory / f"train-{max(numbers, default=0) + 1}"


class EventFile:
    """Writes a training's epochs into a new event file of ``run``.

    The first epoch written hides later ones that an earlier attempt has left there. ``complain``
    takes one sentence when something cannot be written; nothing more is then tried.
    """

    def __init__(self, run: Path, complain: Callable[[str], None]) -> None:
        self.run, self.complain = run, complain
        self.path: Path | None = None
        self.broken = False

    def resume(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Begin with the epochs of an earlier attempt, unless its events are here as well."""
        with self._complaining():
            if not any(self.run.glob(FILES)):
                for told in history:
                    self._write(EpochReport.from_json(told), None)

    def write(self, report: EpochReport, learning_rate: float | None = None) -> None:
        """An epoch's metrics, loss, times and diagnostics."""
        if not self.broken:
            with self._complaining():
                self._write(report, learning_rate)

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        """Say what goes wrong, whatever it is: the training matters more."""
        try:
            yield
        except Exception as error:
            self.broken = True
            why = error.strerror if isinstance(error, OSError) else None
            if isinstance(error, ImportError):
                why = MISSING
            self.complain(
                f"no TensorBoard events can be written to {self.run}: "
                f"{why or error or type(error).__name__}; training goes on without"
            )

    def _write(self, report: EpochReport, learning_rate: float | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        now, events = time.time(), []
        if self.path is None:
            self.run.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{now:017.6f}.{socket.gethostname()}.{os.getpid()}"
            self.path = self.run / name
            start = SessionLog(status=SessionLog.START)
            events.append(Event(wall_time=now, file_version="brain.Event:2"))
            events.append(Event(wall_time=now, step=report.epoch, session_log=start))
        values = [Summary.Value(tag=tag, simple_value=x) for tag, x in scalars(report)]
        if learning_rate is not None:
            values.append(Summary.Value(tag="training/learning_rate", simple_value=learning_rate))
        for tag, counts in histograms(report):
            values.append(Summary.Value(tag=tag, histo=_histogram(counts)))
        events.append(Event(wall_time=now, step=report.epoch, summary=Summary(value=values)))
        with self.path.open("ab") as file:
            records = RecordWriter(file)
            for event in events:
                records.write(event.SerializeToString())


def scalars(report: EpochReport) -> Iterator[tuple[str, float]]:
    """The epoch's numbers by tag."""
    for name, value in report.metrics.items():
        yield f"metrics/{name}", float(value)
    for name in TRAINING:
        if (known := getattr(report, name)) is not None:
            yield f"training/{name}", float(known)
    for kind, said in report.extra.items():
        yield from _flat(str(kind), said)


def _flat(tag: str, said: Any) -> Iterator[tuple[str, float]]:
    """Numbers of objects by name and of lists by place, from 1."""
    if isinstance(said, int | float) and not isinstance(said, bool):
        yield tag, float(said)
    elif isinstance(said, Mapping):
        for name, value in said.items():
            if not str(name).endswith("_histogram"):
                yield from _flat(f"{tag}/{name}", value)
    elif isinstance(said, list | tuple) and len(said) <= MOST:
        for place, value in enumerate(said, 1):
            yield from _flat(f"{tag}/{place}", value)


def histograms(report: EpochReport) -> Iterator[tuple[str, Sequence[float]]]:
    """How cosines are distributed, by tag: counts in equal bins of [−1, 1]."""
    said = report.extra.get("similarity")
    for name, counts in said.items() if isinstance(said, Mapping) else ():
        if not str(name).endswith("_histogram") or not isinstance(counts, list) or not counts:
            continue
        if all(isinstance(count, int | float) for count in counts):
            yield f"similarity/{name}", counts


def _histogram(counts: Sequence[float]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import HistogramProto

    width = 2 / len(counts)
    middles = [-1 + width * (bin + 0.5) for bin in range(len(counts))]
    return HistogramProto(
        min=-1.0,
        max=1.0,
        num=sum(counts),
        sum=sum(count * x for count, x in zip(counts, middles, strict=True)),
        sum_squares=sum(count * x * x for count, x in zip(counts, middles, strict=True)),
        bucket_limit=[-1 + width * (bin + 1) for bin in range(len(counts))],
        bucket=counts,
    )
