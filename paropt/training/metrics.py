"""What ranking metrics are called, and what they are: each name and each formula once.

There is one right item per target, so with its rank r among the candidates

=============  ========================================  ======================================
``recall@k``   1 if r ≤ k                                also called ``hr@k`` and ``hit@k``
``mrr@k``      1 / r if r ≤ k                            Voorhees, TREC-8, 1999
``ndcg@k``     1 / log₂(r + 1) if r ≤ k                  Järvelin & Kekäläinen, TOIS 2002
``mrr``        1 / r                                     without a cut-off
``avg_rank``   r                                         smaller is better
=============  ========================================  ======================================

and the metric is the mean over all targets. Four say what is recommended, whatever is right
(:mod:`paropt.training.evaluation.ranking.beyond` has their formulas): ``coverage@k``, ``gini@k``,
``novelty@k`` and ``popularity_lift@k``.

:data:`MEASURES` say what a model costs. They can be recorded and limited, not searched by.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from paropt.errors import ParamError, closest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Direction = Literal["maximize", "minimize"]

CUT = ("recall", "mrr", "ndcg")  # reported at every cut-off
ALIASES = {"hr": "recall", "hit": "recall"}
UNCUT = ("mrr", "avg_rank")
# of the first k of all targets together: which direction is better
BEYOND: Mapping[str, Direction] = {
    "coverage": "maximize",
    "gini": "minimize",
    "novelty": "maximize",
    "popularity_lift": "minimize",
}
OF_MODELS = ("parameters", "model_bytes", "latency_ms")  # the same after every epoch
OF_TRAININGS = ("peak_memory", "seconds_per_epoch")
MEASURES = (*OF_MODELS, *OF_TRAININGS)  # less is better
DEFAULT = "mrr@20"
CUTOFF = 20  # always reported, whichever the metric is

_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)(?:@([1-9]\d{0,6}))?")


def canonical(name: str, own: Iterable[str] = ()) -> str:
    """The one spelling of a metric's name: ``HR@10`` is ``recall@10``.

    ``own`` are names that models report of themselves; they are taken as they are.

    Raises:
        ParamError: no metric is called so.
    """
    name = name.strip()
    own = list(own)
    if name in own:
        return name
    found = _NAME.fullmatch(name)
    if found is None:
        raise ParamError(f"a metric is a name like mrr@20 or recall@20, not {name!r}")
    word, cutoff = ALIASES.get(found[1].lower(), found[1].lower()), found[2]
    if cutoff is None and word in UNCUT:
        return word
    if cutoff is not None and word in (*CUT, *BEYOND):
        return f"{word}@{cutoff}"
    if word in MEASURES and cutoff is None:
        raise ParamError(
            f"{word} is a measure, which --also records and --constraint limits; a metric to judge "
            "by is mrr@20, say"
        )
    raise ParamError(f"there is no metric {name!r}; {_hint(word, cutoff, own)}")


def recorded(name: str, own: Iterable[str] = ()) -> str:
    """As :func:`canonical`, of what may be recorded of a trial: a measure, too.

    Raises:
        ParamError: neither a metric nor a measure is called so.
    """
    return name.strip() if is_measure(name.strip()) else canonical(name, own)


def is_measure(name: str) -> bool:
    """Whether it says what a model costs."""
    return name in MEASURES


def written(name: str, value: float) -> str:
    """A value for people: 0.1234, 1,234,567 parameters, 0.62 ms."""
    if name in ("parameters", "model_bytes"):
        return f"{value:,.0f}"
    return f"{value:,.4g}" if is_measure(name) else f"{value:.4f}"


def _hint(word: str, cutoff: str | None, own: Sequence[str]) -> str:
    if own:
        return f"the model reports {', '.join(own)}, and ranking recall@k, mrr@k, ndcg@k and others"
    if cutoff and word in UNCUT:
        return f"{word} has no cut-off"
    close = closest(word, (*CUT, *ALIASES, *BEYOND, *UNCUT, *MEASURES)) or "mrr"
    meant = ALIASES.get(close, close)
    uncut = meant in MEASURES or (meant in UNCUT and not cutoff)
    meant = meant if uncut else f"{meant}@{cutoff or CUTOFF}"
    beyond = ", ".join(f"{name}@k" for name in BEYOND)
    names = f"recall@k (or hr@k, hit@k), mrr@k, ndcg@k, mrr, avg_rank, {beyond}"
    return f"did you mean {meant}? There are {names}"


def split(name: str) -> tuple[str, int | None]:
    """``("mrr", 20)`` of ``mrr@20``; the cut-off is None where there is none."""
    word, _, cutoff = name.partition("@")
    return word, int(cutoff) if cutoff.isdigit() else None


def direction_of(name: str) -> Direction:
    """Whether larger values of a ranking metric, or of a measure, are better."""
    if name == "avg_rank" or is_measure(name):
        return "minimize"
    return BEYOND.get(split(name)[0], "maximize")


def is_beyond(name: str) -> bool:
    """Whether a metric is of what is recommended, whatever is right."""
    word, cutoff = split(name)
    return cutoff is not None and word in BEYOND


def of_ranks(name: str) -> bool:
    """Whether a metric is a mean of :func:`gain` over targets."""
    word, cutoff = split(name)
    return word in CUT if cutoff else name in UNCUT


def is_gain(name: str) -> bool:
    """Whether a target that is missed adds nothing to the metric."""
    return of_ranks(name) and name != "avg_rank"


def needs_all_ranks(names: Iterable[str]) -> bool:
    """Whether one of the metrics looks at ranks of any depth."""
    return any(name in UNCUT for name in names)


def gain(name: str, ranks: Floats) -> Floats:
    """What a target of each of the ``ranks`` [T] adds to the mean that the metric is, [T]."""
    import numpy as np  # here, as every verb imports this module

    formulas: Mapping[str, Callable[[Floats], Floats]] = {
        "recall": np.ones_like,
        "mrr": lambda rank: 1 / rank,
        "ndcg": lambda rank: 1 / np.log2(rank + 1),
        "avg_rank": lambda rank: rank,
    }
    word, cutoff = split(name)
    value = formulas[word](ranks)
    return value if cutoff is None else np.where(ranks <= cutoff, value, 0.0)


def means(ranks: Floats, names: Iterable[str]) -> dict[str, float]:
    """Each metric of targets whose ranks [T] are given."""
    return {name: float(gain(name, ranks).mean()) for name in names}


def names_at(at: Sequence[int], also: Iterable[str] = ()) -> list[str]:
    """What an evaluation reports: recall, mrr and ndcg at every cut-off, and ``also`` others."""
    names = [f"{word}@{k}" for k in at for word in CUT]
    return list(dict.fromkeys([*names, *also]))


def deepest(names: Iterable[str]) -> int:
    """The largest cut-off among the metrics."""
    return max((split(name)[1] or 0 for name in names), default=0)


def with_misses(name: str, value: float, targets: int, unknown: int) -> float | None:
    """The metric if the targets that were left out counted as missed; None if that has no value."""
    if not is_gain(name) or targets + unknown == 0:
        return None
    return value * targets / (targets + unknown)


def picked(values: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """Those of ``names`` that have a value."""
    return {name: values[name] for name in names if name in values}
