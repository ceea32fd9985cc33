"""What a quantiser that is trained must beat: residual k-means, and the mean of all vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from models.parts.fields import Vectors
from models.parts.quantising.held_out import split_items
from models.parts.quantising.preparation import How
from models.parts.quantising.prepared import judged, prepared_items
from models.parts.quantising.residual import fit_residual_kmeans, residual_codes, summed
from models.parts.quantising.threads import one_thread

SEED = 42


def quantising_floors(
    params: Mapping[str, Any], vectors: Vectors
) -> Mapping[str, Mapping[str, float | Tensor]]:
    """Metrics as :func:`.prepared.judged` gives them, by the same items held out.

    ``params`` are the RQ-VAE's; nothing where there is nothing to tell apart.
    """
    trained, held_out = split_items(vectors.missing, float(params["held_out"]))
    levels, codes = int(params["levels"]), int(params["codes"])
    how, dims = cast(How, params["prepare"]), int(params["dims"])
    try:
        kmeans = fit_residual_kmeans(vectors, trained, levels, codes, SEED, how, dims)
    except ValueError:  # all the same, or fewer than codes
        return {}
    asked = held_out if len(held_out) else trained
    with one_thread():
        items = prepared_items(kmeans.preparation, vectors)
        found = residual_codes(items.prepared, kmeans.books)
        rebuilt = summed(found, kmeans.books)
    limit, scale = float(params["collision_limit"]), kmeans.preparation.scale
    same = torch.zeros(len(rebuilt), 1, dtype=torch.int64)
    nothing = torch.zeros_like(rebuilt)
    return {
        f"rq-kmeans {levels} × {codes}": judged(items, scale, rebuilt, found, asked, codes, limit),
        "one mean": judged(items, scale, nothing, same, asked, 1, limit),
    }
