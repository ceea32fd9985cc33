"""The CPU's own kernels: native.c, compiled by this machine's C compiler when first used.

PyTorch reads and writes every row of an item table several times over in a step of GRU4Rec; here it
is once. A machine without a compiler does without: :func:`kernels` is None then, and the same sums
are PyTorch's. The compiled file is kept in the user's cache directory under a name that tells the
source, the compiler and the processor, so it is made once per machine.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from ctypes import c_float, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("native.c")
# no errno and no floating point traps to keep; sums may be taken sixteen at a time where the source
# says so, and nothing else is reordered
FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-shared", "-fPIC")
OWN_PROCESSOR = "-march=native"
COMPILE_SECONDS = 60
FEW = 1 << 16  # numbers that are not worth a second thread

_SIGNATURES: dict[str, list[type]] = {
    "gather": [c_void_p] * 3 + [c_int64] * 3,
    "adagrad_rows": [c_void_p] * 5 + [c_int64] * 3 + [c_float] * 3,
    "adagrad": [c_void_p] * 4 + [c_int64] * 2 + [c_float] * 3,
    "bpr_max": [c_void_p] * 6 + [c_int64] * 3 + [c_float, c_int, c_float, c_float],
}


class Kernels:
    """Calls into the compiled file, on contiguous float32 tensors and int64 indices of a CPU.

    Work is shared out among as many threads as PyTorch has; the result does not depend on them.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._calls = {}
        for name, arguments in _SIGNATURES.items():
            call = getattr(library, name)
            call.argtypes, call.restype = arguments, None
            self._calls[name] = call

    @staticmethod
    def take(*tensors: Tensor | None) -> bool:
        """Whether these tensors can be worked on here."""
        return all(
            t is None or (t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous())
            for t in tensors
        )

    def gather(self, table: Tensor, rows: Tensor, out: Tensor) -> Tensor:
        """out[i] = table[rows[i]] for ``table`` [n, d], ``rows`` [k], ``out`` [k, d]."""
        call, width = self._calls["gather"], _width(table)
        a, b, c = out.data_ptr(), table.data_ptr(), rows.data_ptr()
        _share_out(lambda i, j: call(a, b, c, i, j, width), len(rows), width)
        return out

    def adagrad_rows(
        self, weight: Tensor, squares: Tensor, velocity: Tensor | None, grad: Tensor, rows: Tensor,
        learning_rate: float, momentum: float, keep: float,
    ) -> None:  # fmt: skip
        """One step of Adagrad on the distinct ``rows`` [k] of tables [n, d], by ``grad`` [k, d].

        ``keep`` is what is left of a weight that decays. See :mod:`models.parts.adagrad`.
        """
        call, width = self._calls["adagrad_rows"], _width(weight)
        tables = (weight.data_ptr(), squares.data_ptr(), _address(velocity))
        g, r, rule = grad.data_ptr(), rows.data_ptr(), (learning_rate, momentum, keep)
        _share_out(lambda i, j: call(*tables, g, r, i, j, width, *rule), len(rows), width)

    def adagrad(
        self, weight: Tensor, squares: Tensor, velocity: Tensor | None, grad: Tensor,
        learning_rate: float, momentum: float, keep: float,
    ) -> None:  # fmt: skip
        """The same on all of ``weight``."""
        call, rule = self._calls["adagrad"], (learning_rate, momentum, keep)
        all_of = (weight.data_ptr(), squares.data_ptr(), _address(velocity), grad.data_ptr())
        _share_out(lambda i, j: call(*all_of, i, j, *rule), weight.numel(), 1)

    def bpr_max(
        self, scores: Tensor, own: Tensor, log_counts: Tensor, others: Tensor, spare: Tensor,
        bpreg: float, elu: tuple[float, float] | None,
    ) -> Tensor:  # fmt: skip
        """:func:`models.parts.losses.bpr_max_gradient_`, the gradient written over ``scores``.

        ``elu`` is (scale, α) of the activation, None where ``scores`` [M, U] are to be taken as
        they are. ``spare`` has 2·U numbers for each thread. Returns the losses [M].
        """
        m, u = scores.shape
        call, losses = self._calls["bpr_max"], scores.new_empty(m)
        read = (scores.data_ptr(), own.data_ptr(), log_counts.data_ptr(), others.data_ptr())
        written, room = losses.data_ptr(), spare.data_ptr()
        scale, alpha = elu or (1.0, 1.0)
        kind = int(elu is not None)

        def part(i: int, j: int) -> None:
            own_room = room + spare.element_size() * 2 * u * (i * torch.get_num_threads() // m)
            call(*read, written, own_room, i, j, u, bpreg, kind, scale, alpha)

        _share_out(part, m, u)
        return losses


def _width(table: Tensor) -> int:
    return table.numel() // len(table)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@functools.cache
def _helpers(count: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "kernels")


def _share_out(part: Callable[[int, int], None], count: int, width: int) -> None:
    """``part(begin, end)`` for all of 0…count, in as many parts as PyTorch has threads."""
    threads = torch.get_num_threads()
    if threads == 1 or count < threads or count * width < FEW:
        part(0, count)
        return
    bounds = [count * k // threads for k in range(threads + 1)]
    helpers = _helpers(threads - 1, os.getpid())
    others = [helpers.submit(part, bounds[k], bounds[k + 1]) for k in range(1, threads)]
    part(bounds[0], bounds[1])
    wait(others)


# -- making it ----------------------------------------------------------------------------------


@functools.cache
def kernels() -> Kernels | None:
    """The kernels of this machine; None where none can be made, and the log says why."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if not compiler or shutil.which(compiler[0]) is None:
        log.info("no C compiler: training on this CPU is slower without it")
        return None
    try:
        return Kernels(_load(compiler))
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        said = getattr(error, "stderr", None) or error
        log.warning("training on this CPU is slower: %s cannot compile (%s)", compiler[0], said)
        return None


def _load(compiler: list[str]) -> ctypes.CDLL:
    source = SOURCE.read_bytes()
    version = subprocess.run(
        [*compiler, "--version"], capture_output=True, check=True, timeout=COMPILE_SECONDS
    ).stdout
    made_of = (source, version, " ".join((*compiler, *FLAGS)).encode(), _processor())
    digest = hashlib.blake2b(b"\0".join(made_of), digest_size=8).hexdigest()
    kept = _cache() / f"native-{digest}.so"
    if _ours(kept):
        return ctypes.CDLL(str(kept))
    with tempfile.TemporaryDirectory(prefix="paropt-native-") as directory:
        made = Path(directory) / kept.name
        _compile(compiler, made)
        try:
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside = kept.with_name(f".{kept.name}.{os.getpid()}")
            shutil.copyfile(made, beside)
            beside.chmod(0o600)
            beside.replace(kept)  # others may make the same at the same moment
        except OSError:
            return ctypes.CDLL(str(made))  # it stays loaded when its file is gone
    return ctypes.CDLL(str(kept))


def _compile(compiler: list[str], out: Path) -> None:
    for flags in ((*FLAGS, OWN_PROCESSOR), FLAGS):  # not every compiler knows this processor
        done = subprocess.run(
            [*compiler, *flags, "-o", str(out), str(SOURCE), "-lm"],
            capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return
    done.check_returncode()


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "paropt"


def _ours(path: Path) -> bool:
    """Whether this user wrote it and nobody else can: it is code."""
    try:
        file, directory = path.stat(), path.parent.stat()
    except OSError:
        return False
    me = os.getuid()
    return all(found.st_uid == me and not found.st_mode & 0o022 for found in (file, directory))


def _processor() -> bytes:
    """What tells processors with other instructions apart: a home may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()
    told = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join(sorted(set(told))).encode()
