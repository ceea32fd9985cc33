"""Semantic ids of a dataset's items: learned from those of training, given to all with a vector."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.data.dataset import open_dataset
from paropt.data.encoding import pack_ids
from paropt.data.features.added import Addition, add, check_free
from paropt.errors import ParamError
from paropt.training.registry import codes_of
from paropt.training.semantic_ids.items import item_vectors
from paropt.training.semantic_ids.learn import Method, Told, learn, settled
from paropt.training.semantic_ids.neighbours import examples
from paropt.training.semantic_ids.report import Report, measured
from paropt.training.semantics import DEFAULT_SEED


@dataclass(frozen=True)
class SemanticIdsRequest:
    """What is to be made of which vectors, and what it is called.

    ``params`` are values of the method that are not its defaults: ``levels``, ``codes``,
    ``prepare`` and ``dims``, and all of the RQ-VAE's where that is the method.
    """

    vectors: str
    method: Method = "rq-kmeans"
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = DEFAULT_SEED
    name: str = "sid"
    overwrite: bool = False
    device: str = "cpu"


def make_semantic_ids(
    request: SemanticIdsRequest, data: str | Path, told: Told | None = None
) -> Report:
    """Learn codes, give them to all items with a vector, add them to the dataset, report.

    Raises:
        ParamError: values that there cannot be, or that don't fit the data.
        DataError: the dataset lacks the vectors, or has features of that name.
        TrainingError: an RQ-VAE that cannot be trained.
    """
    began = time.perf_counter()
    if not re.fullmatch(r"[\w.-]{1,100}", request.name):
        raise ParamError(
            f"--name {request.name!r}: features are called by letters, digits, '.', '_' and '-'"
        )
    dataset = open_dataset(data)
    items = item_vectors(dataset, request.vectors)
    values = settled(request.method, request.vectors, request.params)
    features = [f"{request.name}_{level}" for level in range(1, values["levels"] + 1)]
    check_free(dataset.path, dataset.meta, request.name, features, request.overwrite)
    learned = learn(request.method, values, request.seed, items, request.device, told or Told())
    codes = codes_of(learned.quantiser, items.vectors, items.coded)
    categories = {
        feature: prefix_feature(codes[:, :level], items.coded, len(items.vectors))
        for level, feature in enumerate(features, 1)
    }
    sizes = {feature: len(vocabulary) for feature, (_, vocabulary) in categories.items()}
    near = examples(items, learned.quantiser, codes)
    seconds = round(time.perf_counter() - began, 3)
    report = measured(items, learned.quantiser, codes, learned.made, sizes, near, seconds)
    addition = Addition(categories, learned.made, report.to_json())
    add(dataset.path, dataset.fingerprint, request.name, addition, request.overwrite)
    if learned.checkpoint:
        learned.checkpoint.unlink(missing_ok=True)
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
