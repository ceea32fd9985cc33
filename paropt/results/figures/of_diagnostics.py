"""The figures of what models say of themselves, epoch by epoch: cosines, experts.

A model of the user's may say something else under the same names; what isn't a number is a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paropt.results.figures.description import Cells, Dash, Figure, Lines, Point, Series

KINDS: dict[str, Dash] = {"positive": "", "negative": "dash"}
APART: dict[str, Dash] = {"gap": "", "auc": "dash"}
CALLED = {"gap": "gap", "auc": "AUC"}
BALANCE = {
    "max_violation": ("Busiest expert: load / mean − 1", "max violation"),
    "entropy": ("Evenness of the experts' load", "entropy / log(experts)"),
    "dead": ("Dead experts: load under a tenth of the mean", "experts"),
}

Epochs = Sequence[Any]  # what a model said after each epoch, of one kind


def similarity(said: Mapping[str, Epochs]) -> list[Figure]:
    """Cosines of a position with its next item and with others, epoch by epoch: their means, how
    far these are apart, and how they are distributed."""
    means, apart = [], []
    for index, (name, epochs) in enumerate(said.items()):
        model = name.partition(",")[0]
        for kind, dash in KINDS.items():
            means.append(_series(name, model, epochs, kind, f"{kind}s", dash, index))
        for kind, dash in APART.items():
            apart.append(_series(name, model, epochs, kind, CALLED[kind], dash, index))
    title = "Similarity of positives and negatives"
    found: list[Figure] = [Lines("similarity", title, "epoch", "mean cosine", means, whole=True)]
    title, y = "How far positives stand apart from negatives", "gap of mean cosines, AUC"
    found.append(Lines("separation", title, "epoch", y, apart, whole=True))
    for name, epochs in said.items():
        found += [one for kind in KINDS if (one := _cosines(name, epochs, kind)).rows]
    return found


def _series(
    name: str, model: str, epochs: Epochs, kind: str, called: str, dash: Dash, colour: int
) -> Series:
    points = _points(_number(one, kind) for one in epochs)
    return Series(f"{name}: {called}", points, dash=dash, label=f"{model}: {called}", colour=colour)


def _cosines(name: str, epochs: Epochs, kind: str) -> Cells:
    """How the cosines of one kind are distributed: rows are bins of [−1, 1], the highest on top."""
    counts = [_at(epoch, f"{kind}_histogram") for epoch in epochs]
    bins = max((len(one) for one in counts if isinstance(one, list)), default=0)
    sums = [sum(_number(one, bin) or 0.0 for bin in range(bins)) for one in counts]
    rows = []
    for bin in reversed(range(bins)):
        values = [
            None if (count := _number(one, bin)) is None or not total else count / total
            for one, total in zip(counts, sums, strict=True)
        ]
        rows.append((f"{-1 + 2 * bin / bins:.1f}", values))
    model = name.partition(",")[0]
    title = f"Cosines of {kind}s ({name})"
    return Cells(f"cosines-{model}-{kind}s", title, "epoch", "cosine, from", rows, "share")


def experts(said: Mapping[str, Epochs]) -> list[Figure]:
    """Of each model's best trial: the load of every expert, and how even it is."""
    found: list[Figure] = []
    for name, epochs in said.items():
        slug = f"experts-{name.partition(',')[0]}"
        found += [_loads(f"{slug}-load", f"Load of the experts ({name})", epochs)]
        for measure, (title, y) in BALANCE.items():
            series = [
                Series(f"layer {layer + 1}", _points(_number(e, layer, measure) for e in epochs))
                for layer in range(_layers(epochs))
            ]
            file = f"{slug}-{measure.replace('_', '-')}"
            full = f"{title} ({name})"
            found.append(Lines(file, full, "epoch", y, series, whole=True, zero=True))
    return found


def _loads(file: str, title: str, epochs: Epochs) -> Cells:
    """Rows are experts, layer by layer; 1 is an expert's even part."""
    rows = []
    for layer in range(_layers(epochs)):
        loads = [_at(epoch, layer, "load") for epoch in epochs]
        counts = [len(load) for load in loads if isinstance(load, list)]
        for expert in range(max(counts, default=0)):
            shares = [_number(load, expert) for load in loads]
            values = [None if share is None else share * max(counts) for share in shares]
            rows.append((f"{layer + 1}.{expert + 1}", values))
    return Cells(file, title, "epoch", "layer.expert", rows, "load / mean")


def _layers(epochs: Epochs) -> int:
    return max((len(epoch) for epoch in epochs if isinstance(epoch, list)), default=0)


def _points(values: Iterable[float | None]) -> list[Point]:
    return list(enumerate(values, 1))


def _number(said: Any, *path: str | int) -> float | None:
    found = _at(said, *path)
    return float(found) if isinstance(found, int | float) else None


def _at(said: Any, *path: str | int) -> Any:
    for key in path:
        try:
            said = said[key]
        except (KeyError, IndexError, TypeError):
            return None
    return said
