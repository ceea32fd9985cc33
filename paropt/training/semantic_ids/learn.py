"""A quantiser of items' vectors: residual k-means, or a trained RQ-VAE that can be gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from paropt.errors import CheckpointError, DataError, ParamError
from paropt.machine.home import paropt_home
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.fitting.fit import Fit
from paropt.training.registry import (
    How,
    Quantiser,
    complete_params,
    fit_residual_kmeans,
    one_thread,
)
from paropt.training.semantic_ids.items import ItemVectors

Method = Literal["rq-kmeans", "rq-vae"]
Note = Callable[[str], None]
RQ_VAE = "rqvae"
# of residual k-means; those of an RQ-VAE that mean the same are its own defaults
DEFAULTS: Mapping[str, Any] = {"levels": 3, "codes": 256, "prepare": "pca", "dims": 64}
# an RQ-VAE that is kept learns from all training items, and ends where it is told to
_FINAL = {"held_out": 0.0, "patience": 0}


@dataclass(frozen=True)
class Told:
    """Whom the progress is told: remarks, and epochs with how many there will be."""

    note: Note = lambda message: None
    on_epoch: Callable[[EpochReport, int], None] = lambda epoch, epochs: None
    on_progress: Callable[[int, int, int, float], None] | None = None


@dataclass(frozen=True)
class Learned:
    """A quantiser, what is to be remembered of how it was made, and what is to be removed when its
    codes are written."""

    quantiser: Quantiser
    made: Mapping[str, Any]
    checkpoint: Path | None = None


def settled(method: Method, vectors: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All values of a method, where some are given.

    Raises:
        ParamError: a value that there cannot be, or one of the other method.
    """
    if method == "rq-vae":
        return complete_params(RQ_VAE, {**given, **_FINAL, "vectors": vectors})
    if unknown := [name for name in given if name not in DEFAULTS]:
        raise ParamError(f"rq-kmeans has no parameter {unknown[0]!r}; --method rq-vae may have it")
    shared = complete_params(RQ_VAE, {**DEFAULTS, **given, "vectors": vectors})
    return {name: shared[name] for name in DEFAULTS}


def learn(
    method: Method,
    values: Mapping[str, Any],
    seed: int,
    items: ItemVectors,
    device: str,
    told: Told,
) -> Learned:
    """A quantiser by ``values``, as :func:`settled` gave them.

    Raises:
        ParamError: more codes than there are items to learn from.
        DataError: vectors that are all the same.
        TrainingError: see :class:`Fit`.
    """
    if values["codes"] > len(items.trained):
        raise ParamError(
            f"codes {values['codes']:,} is more than the {len(items.trained):,} training items that"
            f" have a vector {items.name!r}; take fewer --codes"
        )
    made = {"method": method, "vectors": items.name, **values, "seed": seed}
    if items.same:
        raise DataError(
            f"the vectors {items.name!r} of all {len(items.trained):,} training items are the same;"
            " nothing can be told apart by them"
        )
    if method == "rq-vae":
        return _trained(values, seed, items, device, told, made)
    quantiser = fit_residual_kmeans(
        items.vectors,
        items.trained,
        int(values["levels"]),
        int(values["codes"]),
        seed,
        cast(How, values["prepare"]),
        int(values["dims"]),
        lambda level: told.note(f"level {level} of {values['levels']}"),
    )
    return Learned(quantiser, made)


def _trained(
    values: Mapping[str, Any],
    seed: int,
    items: ItemVectors,
    device: str,
    told: Told,
    made: Mapping[str, Any],
) -> Learned:
    view = items.dataset.view("search")

    def fresh() -> Fit:
        return Fit(RQ_VAE, values, view, seed=seed, device=device, evaluate=False)

    with one_thread():  # so that codes are the same on any number of threads
        path = _checkpoint(fit := fresh())
        fit = _going_on(fit, fresh, path, told.note)
        fit.on_progress = told.on_progress
        for epoch in fit.epochs():
            fit.save(path)
            told.on_epoch(epoch, fit.n_epochs)
    return Learned(cast(Quantiser, fit.model.eval()), made, path)


def _checkpoint(fit: Fit) -> Path:
    """Where a training that is cut off is gone on from: another place for every training."""
    identity = json.dumps([fit.identity(), str(fit.device)], sort_keys=True)
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    folder = paropt_home() / "semantic-ids"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.ckpt"


def _going_on(fit: Fit, fresh: Callable[[], Fit], path: Path, note: Note) -> Fit:
    """A training that goes on where it was cut off, if it was."""
    try:
        done = fit.resume(path)
    except CheckpointError as error:
        note(f"{error}; it begins anew")
        return fresh()
    if done:
        note(f"goes on after epoch {done} of {fit.n_epochs}, where it was cut off")
    return fit
