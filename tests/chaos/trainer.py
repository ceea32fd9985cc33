"""The scripted trainer of the fault suite: what a trial does follows from its ``x`` alone.

So the checker, which computes the same from what the database says, knows how every trial must
end. Unlike the plain one it goes on training when its checkpoint cannot be written, as the real
trainer does, and its log says when an epoch was trained.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import scripted_trainer

# one in thirty each; the checker has the same table
ACTS = {0: "oom", 1: "nan", 2: "crash", 3: "oom-once", 4: "hang"}
plain_fit, plain_save, plain_log = scripted_trainer.fit, scripted_trainer.save, scripted_trainer.log


def fit(order: dict[str, Any]) -> None:
    order["params"]["act"] = ACTS.get(int(order["params"]["x"] * 1e6) % 30, "fine")
    plain_fit(order)


def save(path: Path, epoch: int) -> None:
    try:
        plain_save(path, epoch)
    except OSError as error:
        path.with_name(f".{path.name}.{scripted_trainer.os.getpid()}").unlink(missing_ok=True)
        trial = int(path.stem.split("-")[0])
        scripted_trainer.tell("warning", trial=trial, message=f"no checkpoint: {error.strerror}")


def log(line: str) -> None:
    plain_log(f"{line} {time.time():.3f}")


scripted_trainer.fit, scripted_trainer.save, scripted_trainer.log = fit, save, log
if __name__ == "__main__":
    try:
        scripted_trainer.main()
    except BrokenPipeError:
        sys.exit(0)  # its slot was killed
