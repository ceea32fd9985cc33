"""Every error that paropt raises on purpose, and the exit code that each ends in.

A message is one sentence: what is wrong, which value, what to do. The command line prints it after
``Error:`` without a traceback (``-v`` shows that too).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

PART = 3  # letters of a name that say which is meant
NAMED = 6  # names at most in a hint
EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_STORAGE = 3
EXIT_INTERRUPTED = 130  # as shells have it: 128 and the number of SIGINT


class ParoptError(Exception):
    """An expected failure, told in one sentence."""

    exit_code = EXIT_FAILURE


class UsageError(ParoptError):
    """A word that means nothing where it stands, wherever it is said: on no data, no device."""

    exit_code = EXIT_USAGE


class DataError(ParoptError):
    """Events, a dataset directory or a saved model that cannot be used."""


class SpaceError(ParoptError):
    """A parameter space or paramfile that says something impossible (``file:line: …``)."""


class ParamError(UsageError):
    """Parameters that a model does not have, or that do not fit each other."""


class ModelError(ParoptError):
    """A model that cannot be found, or that breaks the models' contract."""


class StudyError(ParoptError):
    """A study that does not exist, or that does not match what a worker has."""


class TrainingError(ParoptError):
    """A training that cannot go on."""


class Diverged(TrainingError):
    """The loss or a score stopped being finite."""


class OutsideLimits(TrainingError):
    """The model is beyond a limit of its study; ``values`` are what it was measured to be."""

    def __init__(self, message: str, values: Mapping[str, float]) -> None:
        super().__init__(message)
        self.values = dict(values)


class OutOfMemory(TrainingError):
    """The device has not enough memory for this configuration."""


class CheckpointError(TrainingError):
    """A checkpoint that is cut short, tampered with, or of another training."""


class VectorsError(ParoptError):
    """Vectors that cannot be written where they are to go."""


class StorageUnreachable(ParoptError):
    """No answer from PostgreSQL, or from Redis."""

    exit_code = EXIT_STORAGE


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that somebody may have meant; None if none is like it."""
    known = list(known)
    found = _beginning(word, known) or difflib.get_close_matches(word, known, 1)
    return found[0] if found else None


def _beginning(word: str, known: Sequence[str]) -> list[str]:
    """Those of which somebody has written the first part; none where they are many."""
    found = [name for name in known if name.startswith(word)] if len(word) >= PART else []
    return found if len(found) <= NAMED else []


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """The end of a sentence about an unknown word; ``otherwise`` where none is like it."""
    known = list(known)
    found = closest(word, known)
    if found is None:
        return otherwise
    *some, last = _beginning(word, known) or [found]
    meant = f"{', '.join(map(repr, some))} or {last!r}" if some else repr(last)
    return f"did you mean {meant}?"
