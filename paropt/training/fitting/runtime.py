"""What a training runs on: its device, its random stream, deterministic arithmetic, memory."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paropt.errors import OutOfMemory, TrainingError


def usable_device(name: str) -> torch.device:
    """The device called "cpu", "cuda" or "cuda:1".

    Raises:
        TrainingError: there is none of that name here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise TrainingError(f"no device {name!r}; give cpu, cuda or cuda:0") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise TrainingError(
                f"no device {name!r}: torch sees {count or 'no'} CUDA device{'s' * (count != 1)} "
                "here; use --device cpu ('paropt check' says what is wrong)"
            )
        # cuBLAS is deterministic only with a workspace of its own; read when CUDA starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        return torch.device("cuda", device.index or 0)
    if device.type != "cpu":
        raise TrainingError(f"device {name!r} is not supported; give cpu, cuda or cuda:0")
    return device


def half_precision(precision: str, device: torch.device) -> bool:
    """Whether matrix products are bfloat16's: ``precision`` is "fp32" or "bf16".

    Raises:
        TrainingError: the device has no bfloat16.
    """
    if precision != "bf16":
        return False
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        raise TrainingError(f"{name} has no bfloat16, so precision bf16 can't be; set it to fp32")
    return True


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Deterministic algorithms within; the process's own setting again after.

    An operation that has none fails on a CPU, and warns on a GPU, where such operations are many
    and a user's model should still train.
    """
    before = torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    # the same as use_deterministic_algorithms, which imports torch._inductor: two seconds of every
    # process that trains. That compiles what a user's model may compile, and reads this
    os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")
    torch.set_deterministic_debug_mode("warn" if device.type == "cuda" else "error")
    # filling every new tensor guards against reading it unwritten; it costs a pass over memory
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        memory.fill_uninitialized_memory = fill


class RandomStream:
    """torch's random state as it is for one training, whatever else draws in the process."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self._drawing = False
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            self._state = self._read()

    @property
    def state(self) -> dict[str, Tensor]:
        """Where the stream is now."""
        return self._read() if self._drawing else self._state

    @state.setter
    def state(self, state: dict[str, Tensor]) -> None:
        self._state = state
        if self._drawing:
            self._write(state)

    def _read(self) -> dict[str, Tensor]:
        state = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def _write(self, state: dict[str, Tensor]) -> None:
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Within, torch draws from this stream; after, from where it was."""
        others = self._read()
        self._write(self._state)
        self._drawing = True
        try:
            yield
        finally:
            self._state = self._read()
            self._drawing = False
            self._write(others)


@contextmanager
def memory_errors(device: torch.device) -> Iterator[None]:
    """Say what torch and Python say in several ways when memory is used up.

    Raises:
        OutOfMemory: in place of theirs.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"out of memory on {device}: {_first_line(error)}") from error
    except MemoryError as error:
        raise OutOfMemory(f"out of memory on {device}") from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise OutOfMemory(f"out of memory on {device}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def forget_peak(device: torch.device) -> None:
    """Let :func:`peak_memory` begin anew; on a CPU where the system can, which is Linux."""
    if device.type == "cuda":
        torch.cuda.init()  # before a process has used its GPU there is nothing to reset
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes at most in use since :func:`forget_peak`, of the device; of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
