"""Files that paropt writes for people: how they are called, and that each is there whole or not."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import unicodedata
from pathlib import Path

from paropt.errors import ParoptError

LONGEST = 80  # bytes of a stem: its ending, and a number or two, must fit into a name of 255


def is_there(text: str) -> bool:
    """Whether a word is the name of a file or directory; one too long for a name is none."""
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def readable(name: str, longest: int = LONGEST, otherwise: str = "study") -> str:
    """A name as a part of a file's name: letters, digits and marks of any script stay.

    All else becomes ``-``. Different names may become the same; :func:`file_stem` tells them apart.
    """
    kept = "".join(c if _stays(c) else " " for c in unicodedata.normalize("NFC", name))
    short = "-".join(kept.split()).encode()[:longest].decode(errors="ignore")
    return short.strip(".-") or otherwise


def _stays(character: str) -> bool:
    return character in "._-" or unicodedata.category(character)[0] in "LMN"


def file_stem(name: str, otherwise: str = "study") -> str:
    """The beginning of the names of a study's files, another one for every name.

    It is the name itself where that can be a file's name, else :func:`readable` with six digits of
    the name's hash: ``shop``, ``团购``, ``my-shop-5fd1d4``.
    """
    found = readable(name, otherwise=otherwise)
    if found == name:
        return found
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{found}-{digest[:6]}"


def paramfile_name(study: str, rank: int, trial: int, ending: str = "json") -> str:
    """What the paramfile of a study's best, or second best, trial is called."""
    return f"{file_stem(study)}_{rank}_trial{trial}.{ending}"


def write_text(path: str | Path, text: str, *, overwrite: bool = False) -> None:
    """Makes a file whole or not at all.

    Raises:
        ParoptError: it exists and ``overwrite`` is False, or it cannot be written.
    """
    write_bytes(path, text.encode(), overwrite=overwrite)


def write_bytes(path: str | Path, content: bytes, *, overwrite: bool = False) -> None:
    """As :func:`write_text`."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, 0o666 & ~_umask())
            if overwrite:
                os.replace(beside, path)
            else:
                os.link(beside, path)  # fails where something is, without a race
        finally:
            if os.path.exists(beside):
                os.unlink(beside)
    except FileExistsError:
        raise ParoptError(f"{path} exists; add --overwrite to replace it") from None
    except OSError as error:
        raise ParoptError(f"{path}: cannot be written: {error.strerror}") from None


def link(source: str | Path, target: str | Path) -> None:
    """A second name of a file that nobody changes, or a copy where that can't be."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
