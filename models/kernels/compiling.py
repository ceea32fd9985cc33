"""C made into a library by this machine's own compiler, when it is first needed.

The library is kept in the user's cache directory under a name that tells the source, the compiler
and the processor, so it is made once per machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

log = logging.getLogger(__name__)
# no errno and no floating point traps to keep; sums may be taken sixteen at a time where the source
# says so, and nothing else is reordered
FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-fPIC")
OWN_PROCESSOR = "-march=native"
COMPILE_SECONDS = 60


class _Uncompiled(Exception):
    """What the compiler said."""


def compiled(sources: Sequence[Path], headers: Sequence[Path]) -> ctypes.CDLL | None:
    """The library of ``sources``; None where it cannot be made, and the log says why."""
    given = os.environ.get("CC") or "cc"
    try:
        compiler = shlex.split(given)
        if not compiler or shutil.which(compiler[0]) is None:
            log.info("no C compiler: training on this CPU is slower without it")
            return None
        return _load(compiler, sources, headers)
    except (OSError, ValueError, subprocess.SubprocessError, _Uncompiled) as error:
        log.warning("training on this CPU is slower: %s cannot compile (%s)", given, error)
        return None


def _load(compiler: list[str], sources: Sequence[Path], headers: Sequence[Path]) -> ctypes.CDLL:
    text = b"\0".join(path.read_bytes() for path in (*sources, *headers))
    version = subprocess.run(
        [*compiler, "--version"], capture_output=True, check=True, timeout=COMPILE_SECONDS
    ).stdout
    team = _openmp()
    made_of = (text, version, _processor(), shlex.join((*compiler, *FLAGS, str(team))).encode())
    digest = hashlib.blake2b(b"\0".join(made_of), digest_size=8).hexdigest()
    name = f"native-{digest}.so"
    cache = _cache()
    if cache is not None and _ours(cache) and _ours(cache / name):
        with contextlib.suppress(OSError):  # cut short; it is made anew
            return ctypes.CDLL(str(cache / name))
    said = "it made nothing"
    with tempfile.TemporaryDirectory(prefix="paropt-native-") as directory:
        for number, steps in enumerate(_ways(compiler, sources, Path(directory), team)):
            made = Path(directory, f"{number}.so")
            try:
                for step in steps:
                    _run([*step, "-o", str(made)] if "-shared" in step else step)
                library = ctypes.CDLL(str(made))  # it stays loaded when its file is gone
            except (OSError, _Uncompiled) as error:
                said = str(error)
                continue
            if cache is not None:
                _keep(made, cache / name)
            return library
    raise _Uncompiled(said)


def _ways(
    compiler: list[str], sources: Sequence[Path], directory: Path, team: Path | None
) -> Iterator[list[list[str]]]:
    """Commands, the best ones first: not every compiler knows this processor, or makes what
    PyTorch's threads run."""
    objects = {path: str(directory / f"{path.stem}.o") for path in sources}
    parallel = [(str(team),), ()] if team else [()]
    for processor, libraries in itertools.product(((OWN_PROCESSOR,), ()), parallel):
        flags = (*FLAGS, *processor, *(["-fopenmp"] if libraries else []))
        yield [
            *([*compiler, *flags, "-c", str(path), "-o", out] for path, out in objects.items()),
            # without -fopenmp, which would bring threads of its own
            [*compiler, "-shared", *objects.values(), *libraries, "-lm"],
        ]


def _run(step: list[str]) -> None:
    done = subprocess.run(step, capture_output=True, timeout=COMPILE_SECONDS, check=False)
    if done.returncode:
        raise _Uncompiled(done.stderr.decode(errors="replace") or f"status {done.returncode}")


def _openmp() -> Path | None:
    """The OpenMP that PyTorch has loaded: a second one's threads would get in the way of its own.

    None, and one thread, where that is not GNU's or cannot be told.
    """
    try:
        maps = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    except OSError:
        return None
    found = {line.split(maxsplit=5)[5] for line in maps if "libgomp" in line}
    return Path(found.pop()) if len(found) == 1 else None


def _cache() -> Path | None:
    """Where libraries are kept; None for a user without a home."""
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "paropt"
    except RuntimeError:
        return None


def _keep(made: Path, kept: Path) -> None:
    """Keep a library for the next process, if nobody else can put another in its place."""
    beside = kept.with_name(f".{kept.name}.{os.getpid()}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _ours(kept.parent):
            log.warning(
                "%s can be written by others, so no code is kept there, and it is compiled each "
                "time; 'chmod go-w' helps", kept.parent,
            )  # fmt: skip
            return
        shutil.copyfile(made, beside)
        beside.chmod(0o600)
        beside.replace(kept)  # others may make the same at the same moment
    except OSError:
        pass  # it is compiled each time


def _ours(path: Path) -> bool:
    """Whether this user wrote it and nobody else can: it is code."""
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


def _processor() -> bytes:
    """What tells processors with other instructions apart: a home may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()
    told = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join(sorted(set(told))).encode()
