"""Checkpoints in an object store (``--checkpoint-dir s3://…``), beside those on this disk.

A trainer writes its checkpoint to the disk as always; a thread then copies it to the store, the
newest one if several wait. Training waits for the copy a little, so that what was reported can be
gone on from elsewhere, and not at all while the store is slow or away. Objects are asked for by
name, newest attempt first, so a listing that lags hides nothing. Half of one is found out by its
checksum.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from paropt.machine.remote import NotThere, Remote, RemoteError

NAME = re.compile(r"\.?(\d+)-(\d+)\.(?:ckpt|json)(?:\.\d+)?")  # a leading dot: being written
log = logging.getLogger(__name__)

EPOCH_SECONDS = 10.0  # that training waits for a copy, while copies arrive
LAST_SECONDS = 8.0  # the same where a trial is handed back: its slot waits little longer
ENDINGS = ("json", "ckpt")  # in this order: the history covers whatever epoch the checkpoint is of


class CheckpointStore:
    """The trainer's side of a study's folder in a store; for one fit after the other.

    Attributes:
        trouble: why the last copy did not arrive; empty if it did.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.trouble = ""
        self._waiting: Path | None = None
        self._busy = self._said = False
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="checkpoints", daemon=True).start()

    # -- writing ----------------------------------------------------------------------------

    def offer(self, checkpoint: Path, *, last: bool = False) -> None:
        """Copy a checkpoint, and the history beside it, to the store.

        Waits for that a little, see above; ``last`` waits even if the copy before did not arrive.
        """
        for ending in ENDINGS:
            _link(checkpoint.with_suffix(f".{ending}"))
        with self._changed:
            healthy = not self.trouble and self._waiting is None
            self._waiting = checkpoint
            self._changed.notify_all()
            seconds = LAST_SECONDS if last else EPOCH_SECONDS if healthy else 0.0
            if not self._changed.wait_for(self._idle, seconds) and not self.trouble:
                self.trouble = f"it takes longer than {seconds:g} s"

    def warning(self) -> str | None:
        """What to say of copies that don't arrive: once, until one does."""
        if not self.trouble:
            self._said = False
        elif not self._said:
            self._said = True
            return (
                f"no checkpoint arrives in {self.url}: {self.trouble}; training goes on, and "
                "another machine would begin at an earlier epoch"
            )
        return None

    def forget(self) -> None:
        """The fit is over: what still waits is not copied, and what is on its way ends."""
        with self._changed:
            if self._waiting is not None and not self._busy:
                _unlink(self._waiting)
            self._waiting = None
            self._changed.wait_for(self._idle, LAST_SECONDS)
            self.trouble = ""

    def _idle(self) -> bool:
        return self._waiting is None and not self._busy

    def _work(self) -> None:
        remote = Remote(self.url)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None)
                assert self._waiting is not None
                checkpoint, self._waiting, self._busy = self._waiting, None, True
            trouble = _copy(remote, checkpoint)
            with self._changed:
                self.trouble, self._busy = trouble, False
                self._changed.notify_all()

    # -- reading ----------------------------------------------------------------------------

    def candidates(self, checkpoint: Path, here: Collection[Path]) -> Iterator[Path]:
        """What an attempt that writes ``checkpoint`` may go on from, newest attempt first.

        Those of ``here`` lie on this disk; others are fetched when they are asked for.

        Raises:
            RemoteError: the store cannot be read; what is here was given before.
        """
        lineage, attempt = lineage_of(checkpoint)
        remote, known = Remote(self.url), {path.name: path for path in here}
        broken: RemoteError | None = None
        for earlier in range(attempt, 0, -1):
            path = checkpoint.with_name(f"{lineage}-{earlier}.ckpt")
            if path.name in known:
                yield known[path.name]
            if broken is None:
                try:
                    _fetch(remote, path)
                except NotThere:
                    continue
                except RemoteError as error:
                    broken = error
                    continue
                yield path
        if broken is not None:
            raise broken


def _link(path: Path) -> None:
    """Keep the file as it is now under a second name: the next epoch replaces the first."""
    _beside(path).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        try:
            os.link(path, _beside(path))
        except PermissionError:  # a file system without such names
            shutil.copyfile(path, _beside(path))


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}0")


def _unlink(checkpoint: Path) -> None:
    for ending in ENDINGS:
        _beside(checkpoint.with_suffix(f".{ending}")).unlink(missing_ok=True)


def _copy(remote: Remote, checkpoint: Path) -> str:
    """Why it did not arrive; empty if it did."""
    taken = []
    try:
        for ending in ENDINGS:
            path = checkpoint.with_suffix(f".{ending}")
            source = _beside(path).with_suffix(".1")  # a new offer may replace the other name
            with contextlib.suppress(FileNotFoundError):
                _beside(path).replace(source)
                taken.append(source)
                remote.store(source, path.name)
    except (RemoteError, OSError) as error:
        return str(error)
    finally:
        for source in taken:
            source.unlink(missing_ok=True)
    return ""


def _fetch(remote: Remote, path: Path) -> None:
    """Bring an attempt's checkpoint and history here; each is there whole or not at all."""
    for ending in reversed(ENDINGS):
        wanted = path.with_suffix(f".{ending}")
        new = wanted.with_name(f".{wanted.name}.{os.getpid()}")
        try:
            remote.fetch(wanted.name, new)
            new.replace(wanted)
        except NotThere:
            if ending == "ckpt":
                raise  # without a history it is for the trainer to say so
        except OSError as error:
            raise RemoteError(f"{wanted} cannot be written: {error.strerror or error}") from None
        finally:
            new.unlink(missing_ok=True)


class StoreCleaner:
    """The slot's side: removes from the store what nobody needs, in a thread of its own.

    What cannot be removed now is removed by the next slot that starts or ends.
    """

    def __init__(self, url: str) -> None:
        self._remote = Remote(url)
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="cleaner", daemon=True)
        self._thread.start()
        self._complained = False

    def remove(self, root: int, attempts: int) -> None:
        """The lineage has ended, and had so many attempts; no listing is needed."""
        names = [f"{root}-{n}.{e}" for n in range(1, attempts + 1) for e in ENDINGS]
        self._tasks.put(lambda: self._remove(names))

    def sweep(self, open_roots: Collection[int], newest: int | None) -> None:
        """Remove what belongs to no open lineage; lineages above ``newest`` began later."""
        kept = set(open_roots)

        def sweep() -> None:
            for name in self._remote.names():
                with contextlib.suppress(ValueError):
                    root, _ = lineage_of(Path(name))
                    if root not in kept and (newest is None or root <= newest):
                        self._remove([name])

        self._tasks.put(sweep)

    def close(self, seconds: float) -> None:
        """Wait so long for what is to be removed yet."""
        self._tasks.put(None)
        self._thread.join(seconds)

    def _remove(self, names: Collection[str]) -> None:
        for name in names:
            self._remote.remove(name)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except RemoteError as error:
                if not self._complained:
                    log.warning("%s; the next slot tries again", error)
                self._complained = True


def lineage_of(path: Path) -> tuple[int, int]:
    """The lineage and the attempt that a file's name says.

    Raises:
        ValueError: it is no checkpoint's.
    """
    found = NAME.fullmatch(path.name)
    if found is None:
        raise ValueError(f"{path.name} is no checkpoint's name")
    return int(found[1]), int(found[2])
