"""The trainer of ray_scale.py: it takes time and no CPU, and writes down when it trained.

A line ``ROOT ATTEMPT EPOCH PID TIME`` when a fit begins (epoch 0) and when an epoch ends. The file
SCRIPT_SECONDS holds the seconds of a trial, for the fits that begin then.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import scripted_trainer

plain_fit, plain_log = scripted_trainer.fit, scripted_trainer.log
seconds = 0.0  # of an epoch of this fit


def fit(order: dict[str, Any]) -> None:
    global seconds
    seconds = float(Path(os.environ["SCRIPT_SECONDS"]).read_text()) / order["epochs"]
    log(" ".join([*Path(order["checkpoint"]).stem.split("-"), "0", str(os.getpid())]))
    plain_fit(order)


def pause(act: str, epoch: int) -> bool:
    end = time.monotonic() + seconds
    while not scripted_trainer.WISH and (rest := end - time.monotonic()) > 0:
        time.sleep(min(rest, 0.1))
    return not scripted_trainer.WISH


def log(line: str) -> None:
    plain_log(f"{line} {time.time():.3f}")


scripted_trainer.fit, scripted_trainer.pause, scripted_trainer.log = fit, pause, log
if __name__ == "__main__":
    try:
        scripted_trainer.main()
    except BrokenPipeError:
        sys.exit(0)  # its slot was killed
