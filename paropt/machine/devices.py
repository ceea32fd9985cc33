"""Which devices there are, and how slots and CPU threads are spread over them. No torch here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from paropt.errors import ParoptError, UsageError

# a slot per core pays off only so far: samplers learn less from trials that run side by side
MOST_CPU_SLOTS = 8
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Device:
    """``label`` names it on this machine (``cpu``, ``gpu0``); ``visible`` is what
    ``CUDA_VISIBLE_DEVICES`` must be for a process to see only it."""

    label: str
    visible: str = ""
    name: str = ""

    @property
    def kind(self) -> str:
        """What torch calls it in a process that sees only this one."""
        return "cpu" if self.label == "cpu" else "cuda"


@dataclass(frozen=True)
class DeviceShare:
    """One slot's share of a device."""

    device: Device
    index: int
    threads: int
    environment: Mapping[str, str] = field(default_factory=dict)
    packed: bool = False  # others may come beside it, as many as are of use

    @property
    def name(self) -> str:
        return f"{self.device.label}-{self.index}"


def device_shares(
    devices: str = "auto", per_device: int | Literal["auto"] | None = None
) -> list[DeviceShare]:
    """The slots of this machine.

    ``devices`` is ``auto`` (all GPUs, else the CPU), ``cpu``, or numbers of GPUs (``0,1``).
    ``per_device`` is the number of slots on each: by default one on a GPU; on a CPU one per core,
    at most 8. The CPU's cores are divided among all slots. ``auto`` begins with one on each, to
    which others come (:mod:`paropt.launch.slots.autoscaler`): one thread each.

    Raises:
        ParoptError: no such device, or nothing that could be read as one.
    """
    chosen = choose(devices)
    cores = usable_cores()
    first = _first_slot()
    if per_device == "auto":
        return [
            DeviceShare(device, first, 1, environment(device, 1), packed=True) for device in chosen
        ]
    each = per_device or (min(cores, MOST_CPU_SLOTS) if chosen[0].label == "cpu" else 1)
    threads = max(1, cores // (each * len(chosen)))
    return [
        DeviceShare(device, index, threads, environment(device, threads))
        for device in chosen
        for index in range(first, first + each)
    ]


def _first_slot() -> int:
    """``PAROPT_FIRST_SLOT``: where slots are numbered from, so that several workers of one home
    (array jobs of Slurm, actors of Ray) have slots of their own."""
    return _number("PAROPT_FIRST_SLOT", 0)


def _number(variable: str, otherwise: int) -> int:
    """What an environment variable says.

    Raises:
        ParoptError: that is no number.
    """
    said = os.environ.get(variable)
    if not said:
        return otherwise
    if not said.isdecimal():
        raise ParoptError(f"{variable} is a number such as 3, not {said!r}")
    return int(said)


def environment(device: Device, threads: int) -> dict[str, str]:
    """What a trainer must find before it imports torch."""
    return {
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        "CUDA_VISIBLE_DEVICES": device.visible,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def choose(devices: str) -> list[Device]:
    """See :func:`device_shares`."""
    if devices == "cpu":
        return [Device("cpu", name=_cpu_name())]
    gpus = find_gpus()
    if devices == "auto":
        return gpus or [Device("cpu", name=_cpu_name())]
    numbers = devices.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--devices is auto, cpu, or GPU numbers such as 0,1; not {devices!r}")
    known = {device.label: device for device in gpus}
    labels = list(dict.fromkeys(f"gpu{int(number)}" for number in numbers))
    for label in labels:
        if label not in known:
            there = f"GPUs 0 to {len(gpus) - 1}" if gpus else "no GPU"
            raise ParoptError(
                f"--devices {devices}: there is {there} here; "
                f"{'name those, or ' if gpus else ''}say --devices cpu ('paropt check' tells more)"
            )
    return [known[label] for label in labels]


def find_gpus() -> list[Device]:
    """The NVIDIA GPUs that this process may use, numbered as torch would number them."""
    listed = _ask_driver()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        listed = _only_visible(listed, visible)
    return [Device(f"gpu{i}", uuid, name) for i, (uuid, name) in enumerate(listed)]


def _ask_driver() -> list[tuple[str, str]]:
    """(UUID, name) of every GPU in the order of the bus."""
    query = ["nvidia-smi", "--query-gpu=uuid,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode != 0:
        return []
    rows = (line.split(",", 1) for line in done.stdout.splitlines() if "," in line)
    return [(uuid.strip(), name.strip()) for uuid, name in rows]


def _only_visible(listed: list[tuple[str, str]], visible: str) -> list[tuple[str, str]]:
    """Those that ``CUDA_VISIBLE_DEVICES`` names, by number or UUID, up to the first unknown one."""
    kept = []
    for word in filter(None, map(str.strip, visible.split(","))):
        if word.isdecimal() and int(word) < len(listed):
            kept.append(listed[int(word)])
        elif word.startswith("MIG-"):
            kept.append((word, "MIG slice"))  # nvidia-smi's query lists whole GPUs only
        elif match := next((gpu for gpu in listed if gpu[0].startswith(word)), None):
            kept.append(match)
        else:
            break
    return kept


def usable_cores() -> int:
    """Cores that this process may use: its affinity, the quota of its control group, and
    ``PAROPT_CORES``, what a scheduler that binds nobody to cores has given it."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    return max(1, min(cores, _quota() or cores, _number("PAROPT_CORES", cores)))


def _quota() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else -(-int(quota) // int(period))
    except (OSError, ValueError):
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "CPU"
