"""Which trials are not worth their remaining epochs: pure functions of learning curves.

A curve is what a trial is worth after each epoch. What counts here is the best so far, not the mean
of the three best that ended trials are ranked by: after a few epochs of a rising curve that mean
would tell where it began. Nothing is kept between calls, so a second attempt on another machine is
judged like the first.

A trial is compared with trials of its own model only.

The default is asynchronous successive halving (``asha``; Li et al., MLSys 2020) that looks first
after a fifth of the epochs and keeps half: replayed on real curves, a first look after a tenth cuts
too many that would have won, and the median rule (Golovin et al., *Google Vizier*, KDD 2017,
section 3.2.2) spends more (benchmarks/search/README.md). In ``median``, pruned trials stay in the
comparison with what they had reached; where only complete trials are peers, each survivor
raises the bar for the next until all but the luckiest are cut.

A trial may also have nothing more to gain: none of its last epochs is among its three best, whose
mean is its worth. It ends then, complete, whatever the others do (:func:`stands_still`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from paropt.errors import StudyError
from paropt.training.evaluation.objective import STEADY, Curve, Objective
from paropt.training.metrics import DEFAULT as DEFAULT_METRIC

MAXIMIZED = Objective(DEFAULT_METRIC)

# per cent of a trial's epochs, which had better not be fewer than LEAST_STILL: some trainings learn
# nothing for a fifth of their time and everything after (benchmarks/search/README.md)
STILL, LEAST_STILL = 20, 4

PRUNERS: dict[str, dict[str, int]] = {
    # startup: trials that must have ended before any is pruned; warmup: epochs that all may run;
    # still: a trial ends when so many per cent of its epochs brought its worth nothing; 0: never
    "median": {"startup": 5, "warmup": 2, "still": STILL},
    # min_epochs: where the first rung is; 0: at a fifth of the epochs
    "asha": {"startup": 0, "min_epochs": 0, "factor": 2, "still": STILL},
    "none": {"still": 0},
}
DEFAULT = "asha"


def complete_pruner(given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """A pruner with everything filled in.

    Raises:
        StudyError: no such pruner or option, or a value that makes no sense.
    """
    return complete_choice("pruner", PRUNERS, DEFAULT, given)


def complete_choice(
    what: str,
    known: Mapping[str, Mapping[str, int]],
    default: str,
    given: Mapping[str, Any] | str | None,
) -> dict[str, Any]:
    """``"name"``, ``{"name": …, option: …}`` or nothing, with the defaults filled in."""
    asked = {"name": given} if isinstance(given, str) else dict(given or {})
    name = asked.pop("name", default)
    if not isinstance(name, str) or name not in known:
        raise StudyError(f"no {what} {name!r}; there are {', '.join(known)}")
    options = dict(known[name])
    for key, value in asked.items():
        if key not in options:
            has = ", ".join(options) or "no options"
            raise StudyError(f"the {what} {name!r} has no option {key!r}; it has {has}")
        least = 2 if key == "factor" else 0
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise StudyError(f"{what} {name!r}: {key} must be an integer of at least {least}")
        options[key] = value
    return {"name": name, **options}


def reason_to_prune(
    pruner: Mapping[str, Any],
    curve: Curve,
    ended: Sequence[Curve],
    running: Sequence[Curve] = (),
    epochs: int = 0,
    objective: Objective = MAXIMIZED,
) -> str | None:
    """Why the trial with this curve should stop now, or None.

    ``ended`` holds the curves of complete and pruned trials of the same model, ``running`` those of
    the others that run. ``epochs`` is how many the trial will have at most.
    """
    if len(ended) < pruner.get("startup", 0) or not curve:
        return None
    if pruner["name"] == "median":
        return _worse_than_median(pruner, curve, [*ended, *running], objective)
    if pruner["name"] == "asha":
        return _outside_rung(pruner, curve, [*ended, *running], epochs, objective)
    return None


def stands_still(
    pruner: Mapping[str, Any], curve: Curve, epochs: int, objective: Objective = MAXIMIZED
) -> str | None:
    """Why a trial of at most ``epochs`` epochs with this curve has nothing more to gain, or None.

    Studies of earlier versions have no such option: none of their trials stands still.
    """
    percent = pruner.get("still", 0)
    still = max(LEAST_STILL, math.ceil(percent / 100 * epochs))
    if percent == 0 or len(curve) < STEADY + still:
        return None
    worth, before = objective.steady(curve), objective.steady(curve[:-still])
    if worth is None or before is None or objective.better(worth, before):
        return None
    return f"none of the last {still} epochs is among the best {STEADY}"


def _worse_than_median(
    pruner: Mapping[str, Any], curve: Curve, peers: Sequence[Curve], objective: Objective
) -> str | None:
    epoch = len(curve)
    own = objective.best(curve)
    # pruned trials count with what they had; those that only began say nothing yet
    theirs = [
        best
        for peer in peers
        if len(peer) >= min(epoch, pruner["warmup"])
        and (best := objective.best(peer[:epoch])) is not None
    ]
    if epoch < pruner["warmup"] or not theirs or own is None:
        return None
    median = statistics.median(theirs)
    if not objective.better(median, own):
        return None
    side = "below" if objective.larger else "above"
    return (
        f"{own:.4f} after epoch {epoch} is {side} the median {median:.4f} of {len(theirs)} trials"
    )


def _outside_rung(
    pruner: Mapping[str, Any],
    curve: Curve,
    peers: Sequence[Curve],
    epochs: int,
    objective: Objective,
) -> str | None:
    """Asynchronous successive halving (Li et al., MLSys 2020, algorithm 2, its stopping form)."""
    epoch, factor = len(curve), pruner["factor"]
    rung = pruner["min_epochs"] or max(1, round(epochs / 5))
    while rung < epoch:
        rung *= factor
    own = objective.best(curve)
    if rung != epoch or own is None:
        return None
    reached = [objective.best(peer[:epoch]) for peer in peers if len(peer) >= epoch]
    seen = [own, *(value for value in reached if value is not None)]
    values = sorted(seen, key=objective.key, reverse=True)
    kept = max(1, len(values) // factor)
    if not objective.better(values[kept - 1], own):
        return None
    return f"{own:.4f} after epoch {epoch} is not among the best {kept} of {len(values)} trials"
