"""The scripted trainer of the fault suite: what a trial does follows from its ``x`` alone.

So the checker, which computes the same from what the database says, knows how every trial must
end. Unlike the plain one it goes on training when its checkpoint cannot be written, as the real
trainer does, and its log says when an epoch was trained.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import scripted_trainer

from paropt.machine.remote import RemoteError
from paropt.worker.checkpoint_store import CheckpointStore

# one in thirty each; the checker has the same table
ACTS = {0: "oom", 1: "nan", 2: "crash", 3: "oom-once", 4: "hang"}
plain_fit, plain_save, plain_log = scripted_trainer.fit, scripted_trainer.save, scripted_trainer.log
plain_resume = scripted_trainer.resume
STORES: dict[str, CheckpointStore] = {}


def store_of(order: dict[str, Any]) -> CheckpointStore:
    url = order["store"]
    return STORES.get(url) or STORES.setdefault(url, CheckpointStore(url))


def fit(order: dict[str, Any]) -> None:
    order["params"]["act"] = ACTS.get(int(order["params"]["x"] * 1e6) % 30, "fine")
    if order.get("store"):
        store_of(order)
    plain_fit(order)
    for store in STORES.values():
        store.forget()


def save(path: Path, epoch: int) -> None:
    try:
        plain_save(path, epoch)
        if epoch and STORES:
            store = next(iter(STORES.values()))
            store.offer(path, last=bool(scripted_trainer.WISH))
            if warning := store.warning():
                scripted_trainer.tell(
                    "warning", trial=int(path.stem.split("-")[0]), message=warning
                )
    except OSError as error:
        path.with_name(f".{path.name}.{scripted_trainer.os.getpid()}").unlink(missing_ok=True)
        trial = int(path.stem.split("-")[0])
        scripted_trainer.tell("warning", trial=trial, message=f"no checkpoint: {error.strerror}")


def log(line: str) -> None:
    plain_log(f"{line} {time.time():.3f}")


def resume(order: dict[str, Any]) -> tuple[int, str | None]:
    """Also from the store, if there is one: what paropt's own trainer does."""
    if not order.get("store") or order["resume"] is None:
        return plain_resume(order)
    why = "no checkpoint of it"
    try:
        here = [Path(path) for path in order["resume"]]
        for path in store_of(order).candidates(Path(order["checkpoint"]), here):
            with contextlib.suppress(OSError, ValueError):
                return int(json.loads(path.read_text())["epoch"]), None
    except RemoteError as error:
        why = str(error)
    return 0, why


scripted_trainer.fit, scripted_trainer.save, scripted_trainer.log = fit, save, log
scripted_trainer.resume = resume
if __name__ == "__main__":
    try:
        scripted_trainer.main()
    except BrokenPipeError:
        sys.exit(0)  # its slot was killed
