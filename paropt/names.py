"""Names that people read and type: of studies, of commands with them, of baselines."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Mapping
from typing import Any

from paropt.errors import ParoptError

# of what needs no training, by the keys of the objects that hold their numbers
BASELINES = {"cooccurrence": "co-occurrence"}
LONGEST = 512  # characters that Optuna's table has room for
# line breaks and other controls; what no file can hold; what turns the direction of a line
_FORBIDDEN = ("Cc", "Cs", "Zl", "Zp")
_OF_FINAL_TEST = re.compile(r"\.final-\d+\.(valid|test)$")
_TURNING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check_name(name: str) -> None:
    """Whether a study may be called so.

    Raises:
        ParoptError: it may not; a clause that begins with what is wrong.
    """
    if not name.strip():
        raise ParoptError("empty; give a name")
    if len(name) > LONGEST:
        raise ParoptError(f"at most {LONGEST} characters, and this has {len(name)}")
    if any(unicodedata.category(c) in _FORBIDDEN or c in _TURNING for c in name):
        raise ParoptError(f"{name!r} holds a character that cannot be shown; take it out")
    if name != name.strip():
        raise ParoptError(f"{name!r} begins or ends with a blank; take it away")
    if name.startswith("-"):
        raise ParoptError(f"{name!r} would be taken for an option; begin it with something else")


def of_final_test(study: str) -> bool:
    """Whether a study's name is one that a final test gave its trainings."""
    return _OF_FINAL_TEST.search(study) is not None


def allowed(name: str) -> bool:
    """Whether a study may be called so."""
    try:
        check_name(name)
    except ParoptError:
        return False
    return True


def baseline(key: str) -> str:
    """How a baseline is called in a sentence."""
    return BASELINES.get(key, key)


def epoch_of(trial: Mapping[str, Any]) -> str:
    """The best epoch of a trial, of those that it ran, and the stage that it is in."""
    return f"{trial['epoch']}/{trial['epochs']}" + in_stage(trial).removeprefix(" in")


def in_stage(trial: Mapping[str, Any]) -> str:
    """Which stage the best epoch of a trial is in, if its model has stages: `` in mix``."""
    return f" in {trial['stage']}" if trial.get("stages") and trial.get("stage") else ""


def memory_words(memory: Mapping[str, Any]) -> str:
    """What a model remembered in an epoch, as its report has it, on one line."""
    says = memory.get("says") or {}
    told = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in says.items()]
    size = f"{memory['bytes'] / (1 << 20):,.1f} MiB"
    return ", ".join([f"{memory['rows']:,} of at most {memory['most']:,} rows", size, *told])


def begun(begin: Mapping[str, Any]) -> str:
    """By what a study knows the saved model that its trials begin with, and what they take."""
    told = f"a {begin['model']} whose weights have the digest {begin['digest'][:12]}"
    return f"{told}, with its optimiser's state" if "optimiser" in begin else told


def begun_with(begin: Mapping[str, Any]) -> str:
    """:func:`begun`, after where the model was."""
    return f"{shown(begin['path'])}, {begun(begin)}"


def command(*words: object) -> str:
    """A paropt command as one types it in a shell: what needs quotes has them."""
    return shlex.join(["paropt", *map(str, words)])


def quoted(*words: object) -> str:
    """:func:`command` inside a sentence: ``'paropt stop shop'``."""
    line = command(*words)
    return f"`{line}`" if "'" in line else f"'{line}'"


def shown(text: object) -> str:
    """Text of others on one line of a terminal, without what would move its cursor."""
    line = str(text)
    if line.isprintable():  # most are
        return line
    line = " ".join(line.split())
    return "".join(c if unicodedata.category(c) not in _FORBIDDEN else "�" for c in line)
