"""``python -P -m paropt.worker.slot``: one slot's process; ``launch`` and ``worker`` start it.

It runs in a session of its own, so neither their death nor a terminal's Ctrl-C ends it; SIGTERM
does, handing its trial back. The storage comes in the environment, because a password must not be
seen in the list of processes.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from pathlib import Path

from paropt.errors import EXIT_OK, ParoptError, StorageUnreachable
from paropt.machine.devices import Device, DeviceShare, environment
from paropt.machine.slot_files import SlotFiles
from paropt.search.study.study import Study
from paropt.storage.connect import Storage, open_storage
from paropt.storage.embedded.server import paropt_home
from paropt.storage.leases import Leases, Slots
from paropt.storage.schema import create_tables
from paropt.worker.checkpoints import Checkpoints
from paropt.worker.limits import Limits
from paropt.worker.trial_loop import TrialLoop

OPEN_TRIES = 5


def main(argv: list[str] | None = None) -> int:
    """Be the slot, unless another process is, and work until the study ends."""
    options = _parser().parse_args(argv)
    files = SlotFiles(Path(options.files), options.slot)
    lock = files.take()
    if lock is None:
        return EXIT_OK
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S", level=logging.INFO
    )
    files.show({"phase": "starting"})
    try:
        return _work(options, files)
    except ParoptError as error:
        logging.error("%s", error)
        files.show(
            {
                "phase": "ended",
                "reason": "failed",
                "message": str(error),
                "exit_code": error.exit_code,
            }
        )
        return error.exit_code


def _work(options: argparse.Namespace, files: SlotFiles) -> int:
    limits = Limits.of_environment()
    with open_storage(wait=limits.outage) as storage:
        study = _study(storage, options, limits)
        try:
            return TrialLoop(
                study,
                Slots(storage.engine()),
                Leases(storage.engine()),
                share=_share(options),
                files=files,
                data=options.data,
                checkpoints=_checkpoints(options),
                tensorboard=options.tensorboard,
                devices=paropt_home() / "devices",
                limits=limits,
                revive=storage.revive,
            ).run()
        finally:
            study.close()


def _study(storage: Storage, options: argparse.Namespace, limits: Limits) -> Study:
    """The study, though the database may go away again just after it was there.

    Raises:
        StorageUnreachable: it stays away, or refuses what it answers.
        StudyError: there is no such study.
    """
    for _ in range(OPEN_TRIES - 1):
        with contextlib.suppress(StorageUnreachable):
            return _load(storage, options)
        open_storage(wait=limits.outage).close()  # until it answers
    return _load(storage, options)


def _load(storage: Storage, options: argparse.Namespace) -> Study:
    create_tables(storage.engine())
    return Study.load(storage.url, options.study, f"paropt {options.slot}")


def _checkpoints(options: argparse.Namespace) -> Checkpoints:
    here, earlier = Path(options.checkpoints), options.earlier_checkpoints
    if not options.store:
        return Checkpoints(here, earlier)
    from paropt.worker.checkpoint_store import StoreCleaner

    return Checkpoints(here, earlier, options.store, StoreCleaner(options.store))


def _share(options: argparse.Namespace) -> DeviceShare:
    label, _, index = options.slot.rpartition("-")
    device = Device(label, options.visible, options.device_name)
    threads = options.threads
    return DeviceShare(device, int(index), threads, environment(device, threads))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="paropt-slot")
    parser.add_argument("--study", required=True)
    parser.add_argument("--data", required=True, help="the dataset directory")
    parser.add_argument("--files", required=True, help="the directory of the slots' files")
    parser.add_argument("--slot", required=True, help="cpu-0, gpu1-0, …")
    parser.add_argument("--visible", default="", help="CUDA_VISIBLE_DEVICES of the trainer")
    parser.add_argument("--device-name", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", required=True, help="the directory of checkpoints")
    parser.add_argument("--earlier-checkpoints", type=Path, help="where paropt 0.1 had them")
    parser.add_argument("--store", default="", help="the URL to which checkpoints are copied")
    parser.add_argument("--tensorboard", type=Path, help="the directory of TensorBoard's events")
    return parser


if __name__ == "__main__":
    sys.exit(main())
