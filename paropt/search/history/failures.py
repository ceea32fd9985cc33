"""When failing trials say that something is wrong with the study itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from paropt.names import quoted
from paropt.search.history.history import Record

ALIKE = 5  # errors of one kind in a row that pause a study
ALIKE_BY_PARAMS = 10  # the same for what depends on parameters, where the sampler can learn
ALIKE_BEYOND = 50  # configurations in a row beyond a limit, which cost next to nothing
MOST = 20  # failures in all before the share counts
SHARE = 0.5  # of all trials that may fail

_BY_PARAMS = ("oom", "diverged", "params")
_WORDS = {
    "oom": "ran out of memory",
    "diverged": "diverged",
    "params": "were refused by the model",
    "crash": "lost their trainer",
    "error": "failed alike",
}


def alike(lineages: Sequence[Record], since: float, study: str) -> str | None:
    """A sentence why the study should pause, or None.

    ``since`` is when somebody last let it run (seconds since 1970): older failures are forgiven.
    """
    ended = [record for record in lineages if not record.open and record.ended_at > since]
    if not ended:
        return None
    last = max(reversed(ended), key=lambda record: record.ended_at)
    ended.sort(key=lambda record: record.ended_at)
    if last.outcome == "beyond" and len(ended) >= ALIKE_BEYOND:
        return _none_keeps(ended[-ALIKE_BEYOND:], last, study)
    if not last.failed:
        return None
    needed = ALIKE_BY_PARAMS if last.end.get("why") in _BY_PARAMS else ALIKE
    row = ended[-needed:]
    if len(row) == needed and all(r.failed and _cause(r) == _cause(last) for r in row):
        what = _WORDS.get(str(last.end.get("why")), "failed alike")
        return _sentence(f"the last {needed} trials {what}", last, study)
    failed = sum(record.failed for record in ended)
    if failed >= MOST and failed > SHARE * len(ended):
        return _sentence(f"{failed} of {len(ended)} trials failed", last, study)
    return None


def _none_keeps(row: Sequence[Record], last: Record, study: str) -> str | None:
    if any(record.outcome != "beyond" for record in row):
        return None
    return (
        f"study {study!r} paused because its last {len(row)} configurations were all beyond a "
        f"constraint, trial {last.number} with: {last.end.get('message')}; launch another study "
        f"with a space that keeps to it, or {quoted('resume', study)} to try on"
    )


def _cause(record: Record) -> tuple[str, str]:
    """What makes two failures alike: the kind, and for errors the message without its numbers."""
    why = str(record.end.get("why", "unknown"))
    return why, "" if why in _BY_PARAMS else re.sub(r"[\d.]+", "", str(record.end.get("message")))


def _sentence(what: str, last: Record, study: str) -> str:
    message = " ".join(str(last.end.get("message", "")).split())
    return (
        f"study {study!r} paused because {what}, trial {last.number} with: {message[:300]}; "
        f"mend the cause, then {quoted('resume', study)}"
    )
