"""``--per-device auto``: slots are added to devices and sent home while the study runs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paropt.launch.slots.local_slots import LocalSlots, SlotProcess
from paropt.launch.slots.slot_count import WINDOW, Decision, Reading, SlotCount, room
from paropt.machine.devices import Device, usable_cores

MOST_ON_GPU = 16
MEMORY_SECONDS = 5.0  # between two looks at a device's memory


class Autoscaler:
    """Finds the number of slots for each device that ``local`` works on."""

    def __init__(self, local: LocalSlots) -> None:
        self.local = local
        # the suites of tests make it shorter than trials are
        window = float(os.environ.get("PAROPT_PACKING_WINDOW") or WINDOW)
        devices = {slot.share.device.label: slot.share.device for slot in local.slots}
        self._told: dict[str, int] = {}
        self.memories = {label: DeviceMemory(device) for label, device in devices.items()}
        self.counts = {
            label: SlotCount(most_slots(device), len(local.on(label)), window)
            for label, device in devices.items()
        }

    def look(self) -> Iterator[str]:
        """Add slots or send some home; yields a sentence about each such change."""
        for label, count in self.counts.items():
            slots = self.local.on(label)
            if any(slot.ended is not None for slot in slots):
                continue  # the study ends
            before = count.slots
            decision = count.look(
                {slot.share.name: _reading(slot.state) for slot in slots},
                self.memories[label].room(len(slots)),
                sum(self._out_of_memory(slot) for slot in slots),
            )
            if decision is not None:
                self.local.resize(label, decision.slots)
                yield _sentence(label, before, count, decision)

    def _out_of_memory(self, slot: SlotProcess) -> int:
        """How often its fits have run out of memory since the last look."""
        count = int(slot.state.get("out_of_memory") or 0)
        before = self._told.get(slot.share.name, 0)
        self._told[slot.share.name] = count
        return max(0, count - before)


def most_slots(device: Device) -> int:
    """How many are tried at most; on a CPU a slot has one thread, and waits now and then."""
    return 2 * usable_cores() if device.label == "cpu" else MOST_ON_GPU


def _reading(state: dict[str, Any]) -> Reading | None:
    trial, busy = state.get("trial"), state.get("busy")
    if state.get("phase") != "training" or trial is None or not busy:
        return None
    return Reading(int(trial), float(state["events"]), float(busy))


def _sentence(label: str, before: int, count: SlotCount, decision: Decision) -> str:
    slots = f"{before} slot{'s' * (before > 1)}"
    found = f"{label}: {slots} together {count.together:,.0f} events/s" if count.together else label
    if decision.settled:
        return f"{found}; {decision.slots} from now on: {decision.why}"
    return f"{found}; trying {decision.slots}: {decision.why}"


class DeviceMemory:
    """A device's memory as slots come and go."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._at_first: float | None = None
        self._now: tuple[float, float] | None = None
        self._asked = -MEMORY_SECONDS

    def room(self, slots: int) -> int:
        """For how many slots there is memory; any number where nobody says."""
        now = time.monotonic()
        if now - self._asked >= MEMORY_SECONDS:
            self._asked = now
            self._now = free_memory(self.device)
        if self._now is None:
            return 1 << 16
        free, total = self._now
        self._at_first = max(free, self._at_first or 0.0)
        return room(slots, free, total, self._at_first)


def free_memory(device: Device) -> tuple[float, float] | None:
    """Bytes free and in all, of a GPU or of this machine; None where that cannot be known."""
    return _of_host() if device.label == "cpu" else _of_gpu(device)


def _of_gpu(device: Device) -> tuple[float, float] | None:
    query = ["nvidia-smi", "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            [*query, f"--id={device.visible}"], capture_output=True, text=True, timeout=10
        )
        free, total = (float(word) * 2**20 for word in done.stdout.splitlines()[0].split(","))
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return None  # a slice of a GPU, say
    return free, total


def _of_host() -> tuple[float, float] | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {name: float(rest.split()[0]) * 1024 for name, _, rest in
                 (line.partition(":") for line in lines)}  # fmt: skip
        return sizes["MemAvailable"], sizes["MemTotal"]
    except (OSError, KeyError, ValueError, IndexError):
        return None
