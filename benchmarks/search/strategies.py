"""The ways to search that simulate.py compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna

from paropt.training.evaluation import objective


@dataclass(frozen=True)
class Strategy:
    """A way to search.

    ``start``: "space" begins with the space's own points, which have seen the tables of all logs,
    "none" with none; "best" also with those of a search on the other table, as ``--warm-start``
    does, "worst" with that search's worst; "portfolio" with those that portfolio.py chooses on the
    tables of other sites; "published" with the space's that say whose they are, but
    for the log's own; "both" with these after the portfolio.
    ``steady``: of so many best epochs paropt takes the mean when it compares trials.
    ``sampler`` is TPE that asks for no cost, unless the strategy is paropt's own today.
    ``clock``: rungs are in seconds, those of an average trial's epochs.
    ``promote``: before anything new, a trial that was cut goes on if it would not be cut today, as
    asynchronous Hyperband promotes (Li et al., MLSys 2020).
    ``twice``: whoever asks for the best has the two best trained with one more seed first, and
    pays for that.
    """

    sampler: Mapping[str, Any] | str = field(default_factory=lambda: tpe(0))
    pruner: Mapping[str, Any] | str = "none"
    start: str = "none"
    steady: int = objective.STEADY
    clock: bool = False
    promote: bool = False
    twice: bool = False
    optuna: Callable[[int], tuple[Any, Any]] | None = None


def _asha(seed: int) -> tuple[Any, Any]:
    sampler = optuna.samplers.TPESampler(seed=seed)
    return sampler, optuna.pruners.SuccessiveHalvingPruner(reduction_factor=3)


def _hyperband(seed: int) -> tuple[Any, Any]:
    sampler = optuna.samplers.TPESampler(seed=seed)
    return sampler, optuna.pruners.HyperbandPruner(max_resource=10)


def _median(seed: int) -> tuple[Any, Any]:
    return optuna.samplers.TPESampler(seed=seed), optuna.pruners.MedianPruner()


def _official(seed: int) -> tuple[Any, Any]:
    return optuna.samplers.TPESampler(seed=seed), optuna.pruners.NopPruner()


def tpe(cost: int) -> dict[str, Any]:
    return {"name": "tpe", "cost": cost}


def _rungs(first: int, factor: int) -> dict[str, Any]:
    return {"name": "asha", "min_epochs": first, "factor": factor}


OPTUNAS_TPE = {"name": "TPESampler", "multivariate": True, "constant_liar": True}

STRATEGIES = {
    "official": Strategy(optuna=_official),
    "random": Strategy("random"),
    "Optuna's TPE + asha": Strategy(OPTUNAS_TPE, pruner="asha"),
    "Optuna's median": Strategy(optuna=_median),
    "Optuna's ASHA": Strategy(optuna=_asha),
    "Optuna's Hyperband": Strategy(optuna=_hyperband),
    "tpe": Strategy(),
    "tpe + median": Strategy(pruner="median"),
    "tpe + asha": Strategy(pruner="asha"),
    "tpe + start": Strategy(start="space"),
    "tpe + start + median": Strategy(pruner="median", start="space"),
    **{
        f"tpe + start + asha {first}/{factor}": Strategy(
            pruner=_rungs(first, factor), start="space"
        )
        for first, factor in ((1, 2), (1, 3), (2, 2), (2, 3), (2, 4), (3, 2))
    },
    **{
        f"paropt, still {still}": Strategy(
            "tpe", pruner={"name": "asha", "still": still}, start="space"
        )
        for still in (0, 20, 40)
    },
    **{
        f"{name}, {kind}": Strategy(pruner="asha", start=start, **more)
        for name, start in (
            ("paropt", "space"),
            ("tpe + asha", "none"),
            ("portfolio", "portfolio"),
        )
        for kind, more in (
            ("cost aside", {}),
            ("per second", {"sampler": tpe(1)}),
            ("per second, rungs in seconds", {"clock": True, "sampler": tpe(1)}),
        )
    },
    "warm": Strategy(pruner="asha", start="best"),
    "warmed badly": Strategy(pruner="asha", start="worst"),
    "paropt": Strategy("tpe", pruner="asha", start="space"),
    "portfolio": Strategy("tpe", pruner="asha", start="portfolio"),
    "published": Strategy("tpe", pruner="asha", start="published"),
    "portfolio, then published": Strategy("tpe", pruner="asha", start="both"),
    # a hypercube fills up to the startup: four points and more after these start points
    "portfolio, then published, then a hypercube": Strategy(
        {"name": "tpe", "startup": 17}, pruner="asha", start="both"
    ),
    "portfolio, promotion": Strategy("tpe", pruner="asha", start="portfolio", promote=True),
    "portfolio, the last two twice": Strategy("tpe", pruner="asha", start="portfolio", twice=True),
    "paropt, promotion": Strategy("tpe", pruner="asha", start="space", promote=True),
    "paropt, the last two twice": Strategy("tpe", pruner="asha", start="space", twice=True),
    "paropt by the best epoch": Strategy(pruner="asha", start="space", steady=1),
}
