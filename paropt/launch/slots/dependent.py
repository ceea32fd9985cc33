"""``python -P -m paropt.launch.slots.dependent …``: paropt, which leaves when its parent dies.

A worker that an actor of Ray started must not outlive it unseen: its slots hand their trials back.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become ``python -m paropt`` with the same arguments."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return  # it died just now
    os.execv(sys.executable, [sys.executable, "-P", "-m", "paropt", *sys.argv[1:]])


if __name__ == "__main__":
    main()
