"""The version of the training semantics; free of torch, so that a study can record it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SEMANTICS = 1
"""Raised when the same parameters, data and seed no longer give the same numbers."""


def as_then(written: Mapping[str, Any], version: object) -> dict[str, Any]:
    """A configuration that paropt ``version`` wrote, where a default has changed since.

    0.1 moved the balancing bias of experts by 0.001 a step unless told otherwise, and by nothing if
    told 0; that is automatic now.
    """
    old = str(version).startswith("0.1.") and written.get("experts")
    if not old or written.get("balance", "bias") != "bias":
        return dict(written)
    if written.get("balance_rate", 0.001) == 0:
        return {**written, "balance": "none"}
    return {"balance_rate": 0.001, **written}


DEFAULT_SEED = 42  # of a study and of a training, where nobody names one
