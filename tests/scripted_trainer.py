"""A trainer without torch whose outcomes are known: the supervisor's tests and load tests use it.

It speaks the protocol of docs/architecture.md. ``PAROPT_TRAINER`` names it. Epoch e of a trial
with the parameter ``x`` ends with mrr@20 = x · e / epochs. The parameter ``act`` says what happens:

    fine      nothing special (as without ``act``)
    crash     SIGKILL of itself in epoch 2 of the first attempt
    doom      the same in every attempt
    hang      says nothing more after epoch 1 of the first attempt
    hold      waits in epoch 2 until the file SCRIPT_GO exists
    endless   waits in epoch 3 until it is stopped
    oom       out of memory in epoch 2, always
    oom-once  the same in this trial's first fit only
    nan       diverges in epoch 2
    bug       fails with an error
    deaf      as hold, and does not answer stop or yield

``SCRIPT_LOG`` names a file that gets a line ``ROOT ATTEMPT EPOCH PID`` per trained epoch.
``SCRIPT_EPOCH`` is the length of an epoch in seconds, ``SCRIPT_SAYS`` the seconds that it is said
to have taken, ``SCRIPT_START`` a message to die with.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

FITS: queue.Queue[dict[str, Any] | None] = queue.Queue()
WISH: dict[str, Any] = {}


def tell(event: str, **facts: Any) -> None:
    os.write(1, json.dumps({"event": event, **facts}).encode() + b"\n")


def listen() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if message["do"] == "fit":
            WISH.clear()
            FITS.put(message)
        elif message["do"] == "quit":
            FITS.put(None)
        else:
            WISH.update(message)
    os._exit(0)


def main() -> None:
    if os.environ.get("SCRIPT_START"):
        tell("unusable", message=os.environ["SCRIPT_START"])
        sys.exit(1)
    threading.Thread(target=listen, daemon=True).start()
    tell("ready", device="scripted", torch="none", pid=os.getpid())
    while (order := FITS.get()) is not None:
        fit(order)


def fit(order: dict[str, Any]) -> None:
    trial, path = order["trial"], Path(order["checkpoint"])
    root, attempt = map(int, path.stem.split("-"))
    act = order["params"].get("act", "fine")
    done, why = resume(order)
    tell("started", trial=trial, resumed_epoch=done or None, why_from_zero=why)
    for epoch in range(1, done + 1):
        tell_epoch(order, epoch)
    for epoch in range(done + 1, order["epochs"] + 1):
        if epoch == 2 and (failed := happening(act, attempt, path)):
            tell("failed", trial=trial, epoch=epoch, **failed)
            return
        if not pause(act, epoch):
            end(order, path, epoch - 1)
            return
        log(f"{root} {attempt} {epoch} {os.getpid()}")
        tell_epoch(order, epoch)
        save(path, epoch)
    tell("done", trial=trial, best_epoch=order["epochs"])


def happening(act: str, attempt: int, path: Path) -> dict[str, str] | None:
    once = path.with_name("oom-happened")
    if act == "doom" or (act == "crash" and attempt == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "hang" and attempt == 1:
        threading.Event().wait()
    if act == "oom" or (act == "oom-once" and not once.exists()):
        once.touch()
        return {"kind": "oom", "message": "no memory for 9 GiB"}
    if act == "nan":
        return {"kind": "diverged", "message": "the loss became nan"}
    if act == "bug":
        return {"kind": "error", "message": "KeyError: 'nothing'"}
    return None


def pause(act: str, epoch: int) -> bool:
    """One epoch's time; False if it was cut short."""
    end = time.monotonic() + float(os.environ.get("SCRIPT_EPOCH", "0"))
    holding = act in ("hold", "deaf") and epoch == 2
    endless = act == "endless" and epoch == 3
    while (
        time.monotonic() < end
        or endless
        or (holding and not Path(os.environ["SCRIPT_GO"]).exists())
    ):
        if WISH and act != "deaf":
            return False
        time.sleep(0.01)
    return not (WISH and act != "deaf")


def end(order: dict[str, Any], path: Path, epoch: int) -> None:
    if WISH["do"] == "yield":
        save(path, epoch)
        tell("yielded", trial=order["trial"])
    else:
        tell("stopped", trial=order["trial"])


def tell_epoch(order: dict[str, Any], epoch: int) -> None:
    value = float(order["params"].get("x", 0.5)) * epoch / order["epochs"]
    tell(
        "epoch",
        trial=order["trial"],
        epoch=epoch,
        metrics={"mrr@20": value, "recall@20": 2 * value},
        loss=1.0 / epoch,
        seconds=float(os.environ.get("SCRIPT_SAYS", "0.1")),
        train_seconds=0.1,
        events_per_second=1000.0,
        peak_memory=1 << 20,
        extra={},
    )


def save(path: Path, epoch: int) -> None:
    if epoch:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(json.dumps({"epoch": epoch}))
        beside.replace(path)


def resume(order: dict[str, Any]) -> tuple[int, str | None]:
    if order["resume"] is None:
        return 0, None
    for path in map(Path, order["resume"]):
        try:
            return int(json.loads(path.read_text())["epoch"]), None
        except (OSError, ValueError):
            continue
    return 0, "no checkpoint of it"


def log(line: str) -> None:
    if name := os.environ.get("SCRIPT_LOG"):
        with open(name, "a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
