"""Semantic ids of a dataset's items: learned from those of training, given to all with a vector."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.data.dataset import open_dataset
from paropt.data.encoding import pack_ids
from paropt.data.features.added import Addition, add, check_free
from paropt.errors import DataError, ParamError
from paropt.training.registry import HOWS, How, Quantiser, codes_of, fit_residual_kmeans
from paropt.training.semantic_ids.items import ItemVectors, item_vectors
from paropt.training.semantic_ids.neighbours import examples
from paropt.training.semantic_ids.report import Report, measured
from paropt.training.semantics import DEFAULT_SEED

Method = Literal["rq-kmeans", "rq-vae"]
Note = Callable[[str], None]


@dataclass(frozen=True)
class SemanticIdsRequest:
    """What is to be made of which vectors, and what it is called."""

    vectors: str
    method: Method = "rq-kmeans"
    levels: int = 3
    codes: int = 256
    prepare: How = "pca"
    dims: int = 64
    seed: int = DEFAULT_SEED
    name: str = "sid"
    overwrite: bool = False

    def check(self) -> None:
        """Raises :class:`ParamError` for values that nothing can be made with."""
        for name, least in (("levels", 1), ("codes", 2), ("dims", 0)):
            if getattr(self, name) < least:
                raise ParamError(f"{name} {getattr(self, name)} is below {least}")
        if self.prepare not in HOWS:
            raise ParamError(f"prepare {self.prepare!r} is none of {', '.join(HOWS)}")
        if not self.name:
            raise ParamError("the features need a name")

    @property
    def features(self) -> list[str]:
        """The names of the features, level by level."""
        return [f"{self.name}_{level}" for level in range(1, self.levels + 1)]


@dataclass(frozen=True)
class Learned:
    """A quantiser, and all that is to be remembered of how it was made."""

    quantiser: Quantiser
    made: dict[str, Any]


def make_semantic_ids(
    request: SemanticIdsRequest, data: str | Path, note: Note = lambda message: None
) -> Report:
    """Learn codes, give them to all items with a vector, add them to the dataset, report.

    Raises:
        ParamError: values that don't fit the data.
        DataError: the dataset lacks the vectors, or has features of that name.
    """
    began = time.perf_counter()
    request.check()
    dataset = open_dataset(data)
    check_free(dataset.path, dataset.meta, request.name, request.features, request.overwrite)
    items = item_vectors(dataset, request.vectors)
    learned = _learn(request, items, note)
    codes = codes_of(learned.quantiser, items.vectors, items.coded)
    categories = {
        feature: prefix_feature(codes[:, :level], items.coded, len(items.vectors))
        for level, feature in enumerate(request.features, 1)
    }
    sizes = {feature: len(vocabulary) for feature, (_, vocabulary) in categories.items()}
    near = examples(items, learned.quantiser, codes)
    seconds = round(time.perf_counter() - began, 3)
    report = measured(items, learned.quantiser, codes, learned.made, sizes, near, seconds)
    addition = Addition(categories, learned.made, report.to_json())
    add(dataset.path, dataset.fingerprint, request.name, addition, request.overwrite)
    return report


def prefix_feature(
    codes: Tensor, rows: Tensor, n_items: int
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """A category per item [n_items] int32: the codes [m, levels] of the items ``rows`` [m] as one,
    −1 for all others; and the texts of its values, ``17-4`` say, packed."""
    values, number = torch.unique(codes, dim=0, return_inverse=True)
    found = np.full(n_items, -1, np.int32)
    found[rows.numpy()] = number.numpy()
    texts = ["-".join(map(str, value)) for value in values.tolist()]
    return found, pack_ids(pa.array(texts, pa.string()))


def _learn(request: SemanticIdsRequest, items: ItemVectors, note: Note) -> Learned:
    made = {
        "method": request.method,
        "vectors": request.vectors,
        "levels": request.levels,
        "codes": request.codes,
        "prepare": request.prepare,
        "dims": request.dims,
        "seed": request.seed,
    }
    if request.codes > len(items.trained):
        raise ParamError(
            f"codes {request.codes:,} is more than the {len(items.trained):,} training items that"
            f" have a vector {request.vectors!r}; take fewer --codes"
        )
    try:
        quantiser = fit_residual_kmeans(
            items.vectors,
            items.trained,
            request.levels,
            request.codes,
            request.seed,
            request.prepare,
            request.dims,
            lambda level: note(f"level {level} of {request.levels}"),
        )
    except ValueError as error:
        raise DataError(f"{request.vectors}: {error}; nothing can be told apart by them") from None
    return Learned(quantiser, made)
