"""What ``meta.json`` says of a dataset, however its events were read and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paropt.data.encoding import Index, SplitArrays
from paropt.data.log.filtering.funnel import Funnel
from paropt.data.log.options import Recipe, as_written
from paropt.version import __version__

_BLOCK = 1 << 22  # events whose pairs are counted at once


def described(
    recipe: Recipe,
    index: Index,
    summaries: Mapping[str, Mapping[str, Any]],
    funnel: Funnel,
    equal: float | None,
    warnings: Sequence[str],
    columns: Mapping[str, str],
) -> dict[str, Any]:
    """The head of ``meta.json``; ``columns`` are the kinds of those of events by name."""
    known = {"train": index.n_train, "train_full": index.n_train_full}
    return {
        "paropt": __version__,
        "protocol": recipe.rules.protocol,
        "has_times": recipe.has_times,
        "format_name": recipe.format.name,
        "sources": [layout.path.name for layout in recipe.layouts],
        "log": as_written(recipe),
        "rules": recipe.rules.as_json() | {"split_elsewhere": recipe.is_split},
        "items": {"all": len(index.code_of), **known},
        "splits": summaries,
        "funnel": funnel.as_json(),
        "equal_times": equal,
        "warnings": list(warnings),
        "columns": columns,
    }


def summary(name: str, split: SplitArrays, index: Index, has_times: bool) -> dict[str, Any]:
    """A split in numbers."""
    n_known = index.n_train if name in ("train", "valid") else index.n_train_full
    timed = has_times and len(split.times)
    n_items, pairs = _items_and_pairs(split, len(index.code_of))
    return {
        "events": len(split.items),
        "sessions": len(split.offsets) - 1,
        "items": n_items,
        "targets": int(split.targets.sum()),
        "known_targets": int(np.count_nonzero(split.items[split.targets] < n_known)),
        "pairs": pairs,
        "longest": int(np.diff(split.offsets).max(initial=0)),
        "first": int(split.times.min()) if timed else None,
        "last": int(split.times.max()) if timed else None,
    }


def _items_and_pairs(split: SplitArrays, n_items: int) -> tuple[int, int]:
    """How many different items there are, and different pairs of a session and an item."""
    seen, pairs = np.zeros(n_items, bool), 0
    begin, n_sessions = 0, len(split.offsets) - 1
    while begin < n_sessions:
        end = int(np.searchsorted(split.offsets, split.offsets[begin] + _BLOCK, "right")) - 1
        end = min(max(end, begin + 1), n_sessions)
        offsets = split.offsets[begin : end + 1]
        items = split.items[offsets[0] : offsets[-1]]
        session = np.repeat(np.arange(end - begin), np.diff(offsets))
        different = np.sort(session * n_items + items)
        pairs += len(items) and 1 + int(np.count_nonzero(np.diff(different)))
        seen[items] = True
        begin = end
    return int(np.count_nonzero(seen)), pairs
