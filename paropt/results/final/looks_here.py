"""Looks at a test set that no database saw: ``train --split full`` and ``evaluate`` here.

Each is a line of a file under ``PAROPT_HOME``; the next final test counts them in its database. The
same training again is the same look, and so is its model evaluated.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paropt.machine.home import paropt_home
from paropt.results.final.looks_at_test import Look
from paropt.training.run_result import RunResult


def note_look(outcome: RunResult, beside: Sequence[str] = ()) -> str:
    """Note that a training, or a saved model, was judged on the test set; what to say of it.

    ``beside`` are the models that were judged with it as one.
    """
    what: dict[str, Any] = {
        "params": outcome.params,
        "seed": outcome.seed,
        "epochs": outcome.epochs,
    }
    if (trained := outcome.trained_on or outcome.split) != "full":
        what["split"] = trained
    if beside:
        what["with"] = sorted(beside)
    # a training that was judged on test and its model evaluated are one look
    verb = "evaluate" if outcome.trained_on not in (None, "full") or beside else "train"
    found = look_here(outcome.fingerprint, f"paropt {verb}, {outcome.model}", what)
    return (
        f"this was look {found} at the test set by 'train' and 'evaluate' on this machine, which"
        " 'paropt final' counts beside its own; what is chosen by such numbers needs another test"
        " set"
    )


def look_here(fingerprint: str, who: str, what: Mapping[str, Any]) -> int:
    """Note that ``who``, in words, is judged on the test set; how many have been on this machine.

    ``what`` tells the training from others.
    """
    found = looks_here(fingerprint)
    text = json.dumps(what, sort_keys=True, default=str)
    number = int(hashlib.blake2b(text.encode(), digest_size=3).hexdigest(), 16)
    known = [(look.study, look.number) for look in found]
    if (who, number) not in known:
        line = json.dumps({"study": who, "number": number, "at": datetime.now(UTC).isoformat()})
        path = _path(fingerprint)
        # a read-only home is no reason not to train
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        return len(found) + 1
    return known.index((who, number)) + 1


def known_to_a_final_test(
    provenance: Mapping[str, Any], fingerprint: str, split: str, seed: int, epochs: int | None
) -> bool:
    """Whether a number is one that the report of a final test has: of its paramfile
    (``provenance``), on its data and split, with one of its seeds and its epochs. Else it is a
    look."""
    if "final" not in provenance:
        return False
    seeds = provenance.get("seeds") or [provenance.get("seed")]
    same_epochs = epochs is None or epochs == provenance.get("epochs")
    same_data = (fingerprint, split) == (
        provenance.get("fingerprint"),
        provenance.get("split", "full"),
    )
    return same_data and seed in seeds and same_epochs


def model_of_a_final_test(meta: Mapping[str, Any], fingerprint: str) -> bool:
    """Whether what a saved model reaches on the test of these data is known already: a final test
    kept it, or it was trained by its paramfile."""
    if meta.get("final_test"):
        return bool(meta.get("fingerprint") == fingerprint)
    provenance = meta.get("paramfile") or {}
    epochs = None if provenance.get("stages") else int(meta.get("epoch", 0))
    return meta.get("fingerprint") == fingerprint and known_to_a_final_test(
        provenance, fingerprint, str(meta.get("split")), int(meta.get("seed", 0)), epochs
    )


def looks_here(fingerprint: str) -> list[Look]:
    """Those that were noted on this machine, in order; a line that cannot be read is none."""
    return list(_read(_path(fingerprint)))


def _path(fingerprint: str) -> Path:
    return paropt_home() / "looks" / f"{fingerprint}.jsonl"


def _read(path: Path) -> Iterator[Look]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            kept = json.loads(line)
            at = datetime.fromisoformat(kept["at"])
            yield Look(str(kept["study"]), int(kept["number"]), at)
