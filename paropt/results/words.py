"""Words that several pages use, and what they mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

# what is explained where it is first met, in a sentence
MEANINGS = {
    "floor": (
        "what needs no training: counts, such as how often each item occurred or what followed the "
        "last one most often, or what a model names that judges itself; below it, a model has "
        "learned less than that"
    ),
    "pruned": "stopped early, because others were better after as many epochs",
    "device seconds": (
        "seconds of training and ranking on a device, those of failed and pruned trials included"
    ),
    "equal spend": (
        "when each had used as many device seconds as the one that used least; those that used "
        "under a tenth of the most, as counting does, with all that they used"
    ),
    "flattered": (
        "by how much the value in the search is above the mean of fresh seeds: the best of many "
        "trials was lucky, too"
    ),
    "look": (
        "a final test, or a training, that was judged on this test set; a test set looked at twice "
        "is a validation set"
    ),
    "control": (
        "a configuration that nobody searched, trained with the seeds of the chosen one: a file's, "
        "else the space's first start point that says whose it is, else its first, else the "
        "model's defaults"
    ),
    "start point": (
        "a configuration that the space names, tried before the sampler's; in paropt's own spaces "
        "a published one, or one that did well on other logs"
    ),
    "interval": (
        "what other sessions of the same days would change, at 95%: of a search's trial 1.96"
        " standard errors of sessions, of a final test by bootstrap"
    ),
    "left out": (
        "targets whose item training never saw, so that no model can rank it, or before which "
        "there is no item that it saw"
    ),
    "ensemble": (
        "several seeds as one model: for each target every seed's scores are standardised (less "
        "their mean over all items, divided by their standard deviation), and averaged"
    ),
    "importance": "how much of the difference between good trials and others a parameter explains",
}


def number(value: float | None, sign: str = "") -> str:
    """A metric's value; large ones (a mean rank) with fewer decimals."""
    if value is None:
        return "-"
    return f"{value:{sign},.1f}" if abs(value) >= 1000 else f"{value:{sign}.4f}"


def between(bounds: Sequence[float] | None, sign: str = "") -> str:
    """``0.1201, 0.1268``; nothing where there is no interval."""
    return ", ".join(number(bound, sign) for bound in bounds) if bounds else ""


def bracketed(bounds: Sequence[float] | None, sign: str = "") -> str:
    """``[0.1201, 0.1268]``; nothing where there is no interval."""
    return f"[{between(bounds, sign)}]" if bounds else ""


def duration(seconds: float) -> str:
    """``48 s``, ``12 min``, ``3.4 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def value_text(value: Any) -> str:
    """A parameter's value."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def counted(count: int, what: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
