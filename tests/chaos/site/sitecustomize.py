"""Every Python process of the fault suite's hosts begins with this (it is on their PYTHONPATH).

The hosts are processes of one machine that must look like several: ``CHAOS_HOST`` is the name of
the host, and of its process table; ``CHAOS_CLOCK`` is by how many seconds its clock is wrong.
``CHAOS_MUTATION`` breaks a promise on purpose: the checker must see that.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import socket
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

HOST = os.environ.get("CHAOS_HOST", "")
MUTATION = os.environ.get("CHAOS_MUTATION", "")


def another_machine(leases: Any) -> None:
    leases._machine = lambda: HOST


def no_fencing(trial: Any) -> None:
    """Whoever reports is believed to own the trial."""
    trial.Trial._check = lambda self, held: None


def forgetful(ledger: Any) -> None:
    """The third epoch is acknowledged and not written."""
    real = ledger.set_curve

    def set_curve(connection: Any, trial: int, curve: Any, values: Any) -> None:
        kept = [value if epoch != 3 else None for epoch, value in enumerate(values, 1)]
        real(connection, trial, {**curve, "mrr@20": kept}, kept)

    ledger.set_curve = set_curve


CHANGES: dict[str, Callable[[Any], None]] = {"paropt.storage.leases": another_machine}
if MUTATION == "no fencing":
    CHANGES["paropt.search.study.trial"] = no_fencing
elif MUTATION == "forgetful":
    CHANGES["paropt.storage.trial_rows"] = forgetful


class Finder:
    """Changes modules of paropt right after their import, and imports nothing by itself."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        change = CHANGES.get(name)
        spec = change and importlib.machinery.PathFinder.find_spec(name, path, target)
        if not spec or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec


if HOST:
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]
    socket.gethostname = lambda: HOST
    wrong_by = float(os.environ.get("CHAOS_CLOCK", "0"))
    right_time = time.time
    time.time = lambda: right_time() + wrong_by
