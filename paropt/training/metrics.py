"""What ranking metrics are called, and what they are: each name and each formula once.

There is one right item per target, so with its rank r among the candidates

=============  ========================================  ======================================
``recall@k``   1 if r ≤ k                                also called ``hr@k`` and ``hit@k``
``mrr@k``      1 / r if r ≤ k                            Voorhees, TREC-8, 1999
``ndcg@k``     1 / log₂(r + 1) if r ≤ k                  Järvelin & Kekäläinen, TOIS 2002
``mrr``        1 / r                                     without a cut-off
``avg_rank``   r                                         smaller is better
=============  ========================================  ======================================

and the metric is the mean over all targets. ``coverage@k`` is no mean over targets: the share of
all items that is among the first k of at least one target.
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
COVERAGE = "coverage"
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
    if cutoff is not None and word in (*CUT, COVERAGE):
        return f"{word}@{cutoff}"
    raise ParamError(f"there is no metric {name!r}; {_hint(word, cutoff, own)}")


def _hint(word: str, cutoff: str | None, own: Sequence[str]) -> str:
    if own:
        return f"the model reports {', '.join(own)}, and ranking recall@k, mrr@k, ndcg@k and others"
    if cutoff and word in UNCUT:
        return f"{word} has no cut-off"
    close = closest(word, (*CUT, *ALIASES, COVERAGE, *UNCUT)) or "mrr"
    meant = ALIASES.get(close, close)
    meant = meant if meant in UNCUT and not cutoff else f"{meant}@{cutoff or CUTOFF}"
    names = "recall@k (or hr@k, hit@k), mrr@k, ndcg@k, mrr, avg_rank and coverage@k"
    return f"did you mean {meant}? There are {names}"


def split(name: str) -> tuple[str, int | None]:
    """``("mrr", 20)`` of ``mrr@20``; the cut-off is None where there is none."""
    word, _, cutoff = name.partition("@")
    return word, int(cutoff) if cutoff.isdigit() else None


def direction_of(name: str) -> Direction:
    """Whether larger values of a ranking metric are better."""
    return "minimize" if name == "avg_rank" else "maximize"


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
