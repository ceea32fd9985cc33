"""Writes tests/vectors/gru4rec_*.npz from the float64 reference: two small epochs of each case.

    python tests/reference/make_vectors.py

Each file holds ``params`` (JSON), ``sessions`` and ``offsets``, ``samples`` [steps, n_sample],
``masks.k`` [steps, B, width] where a case has dropout, ``init.*`` and ``final.*`` weights under the
names of the model's state, ``loss`` [steps], and the ``scores`` of the last session's items.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gru4rec_numpy import Array, Reference, Weights, schedule

FOLDER = Path(__file__).resolve().parent.parent / "vectors"
N_ITEMS, EPOCHS = 15, 2
BASE: dict[str, Any] = {
    "loss": "cross-entropy", "final_act": "auto", "hidden_act": "tanh", "layers": [5],
    "n_epochs": EPOCHS, "batch_size": 4, "learning_rate": 0.1, "momentum": 0.0,
    "dropout_p_embed": 0.0, "dropout_p_hidden": 0.0, "n_sample": 6, "sample_alpha": 0.5,
    "bpreg": 1.0, "logq": 0.0, "smoothing": 0.0, "constrained_embedding": True, "embedding": "0",
    "lmbd": 0.0, "grad_cap": 0.0,
}  # fmt: skip
SEPARATE = {"constrained_embedding": False, "embedding": "4"}
NONE = {"constrained_embedding": False}

CASES: dict[str, dict[str, Any]] = {
    "xe_shared_logq_momentum": {"logq": 1.0, "momentum": 0.3},
    "xe_batch_only": {"n_sample": 0, **SEPARATE, "embedding": "layersize"},
    "xe_separate_2layers_logq": {**SEPARATE, "layers": [5, 3], "logq": 0.5, "momentum": 0.2},
    "xe_none_2layers": {**NONE, "layers": [4, 3]},
    "xe_smoothing_logq": {"smoothing": 0.1, "logq": 1.0},
    "xe_dropout": {"dropout_p_embed": 0.5, "dropout_p_hidden": 0.25, "layers": [4, 5]},
    "xe_none_dropout": {**NONE, "dropout_p_hidden": 0.25},
    "xe_logit_separate": {"loss": "xe_logit", **SEPARATE, "logq": 1.0},
    "xe_logit_smoothing": {"loss": "xe_logit", "smoothing": 0.2, **NONE},
    "bprmax_elu_momentum": {
        "loss": "bpr-max", "final_act": "elu-0.5", "momentum": 0.4, "bpreg": 1.95,
    },
    "bprmax_linear_batch_only": {"loss": "bpr-max", "final_act": "linear", "n_sample": 0},
    "bprmax_leaky_none": {"loss": "bpr-max", "final_act": "leaky-0.3", **NONE},
    "bprmax_tanh_separate": {"loss": "bpr-max", "final_act": "tanh", **SEPARATE},
    "bprmax_relu": {"loss": "bpr-max", "final_act": "relu", "bpreg": 0.0},
    "bprmax_selu_logq": {"loss": "bpr-max", "final_act": "selu-1.05-1.6", "logq": 0.5},
    "bpr_linear": {"loss": "bpr", "final_act": "linear", "momentum": 0.1, "learning_rate": 0.05},
    "top1_elu_2layers": {"loss": "top1", "final_act": "elu-1", "layers": [4, 5]},
    "top1max_tanh_none": {"loss": "top1-max", "final_act": "tanh", **NONE, "logq": 1.0},
    "hidden_act_cap_decay": {
        "hidden_act": "leaky-0.2", "grad_cap": 0.3, "lmbd": 0.02, "momentum": 0.5,
    },
    "hidden_act_none_cap": {"hidden_act": "elu-0.7", "grad_cap": 0.3, "lmbd": 0.02, **NONE},
}  # fmt: skip


def params_of(case: str) -> dict[str, Any]:
    return {**BASE, **CASES[case]}


def sessions_of(source: np.random.Generator) -> list[list[int]]:
    """Short ones, also of one event, in which items repeat; every item occurs."""
    sessions = [[item, item + 1] for item in range(0, N_ITEMS - 1, 2)] + [[N_ITEMS - 1, 0, 0]]
    for _ in range(9):
        length = int(source.integers(1, 7))
        sessions.append([int(item) for item in source.integers(0, N_ITEMS // 2, length)])
    order = source.permutation(len(sessions))
    return [sessions[i] for i in order]


def weights_of(params: dict[str, Any], source: np.random.Generator) -> Weights:
    """Larger than at a real start, biases too, so that nothing is near zero by chance."""
    layers, w = params["layers"], {}

    def draw(*shape: int) -> Array:
        return source.uniform(-0.6, 0.6, shape).round(3)

    n_in, rows_first = layers[-1], False
    if not params["constrained_embedding"]:
        size = params["embedding"]
        rows_first = size == "0"
        n_in = 3 * layers[0] if rows_first else layers[0] if size == "layersize" else int(size)
        w["embedding"] = draw(N_ITEMS, n_in)
    for k, size in enumerate(layers):
        if rows_first and k == 0:
            w["cells.0.weight_rz"], w["cells.0.weight_c"] = draw(size, 2 * size), draw(size, size)
            w["cells.0.bias"] = draw(3 * size)
        else:
            w[f"cells.{k}.weight_ih"] = draw(3 * size, n_in)
            w[f"cells.{k}.weight_hh"] = draw(3 * size, size)
            w[f"cells.{k}.bias_ih"], w[f"cells.{k}.bias_hh"] = draw(3 * size), draw(3 * size)
        n_in = size
    return w | {"output": draw(N_ITEMS, layers[-1]), "bias": draw(N_ITEMS)}


def masks_of(
    params: dict[str, Any], weights: Weights, steps: int, source: np.random.Generator
) -> list[Array | None]:
    """Of the input and of each layer, or None."""
    width = (weights.get("embedding", weights["output"])).shape[1]
    embeds = "cells.0.weight_rz" not in weights
    drops = [(width, params["dropout_p_embed"] if embeds else 0.0)]
    drops += [(size, params["dropout_p_hidden"]) for size in params["layers"]]
    return [
        (source.random((steps, params["batch_size"], size)) >= p) / (1 - p) if p else None
        for size, p in drops
    ]


def make(case: str) -> dict[str, Array]:
    """Everything that the case's file holds."""
    params = params_of(case)
    source = np.random.Generator(np.random.Philox(sorted(CASES).index(case)))
    sessions = sessions_of(source)
    support = np.bincount(np.concatenate(sessions), minlength=N_ITEMS)
    plan = schedule(sessions, params["batch_size"], 1 if params["n_sample"] else 2)
    per_epoch = len(plan["inputs"])
    steps = EPOCHS * per_epoch
    weights = weights_of(params, source)
    samples = source.integers(0, N_ITEMS, (steps, params["n_sample"]))
    masks = masks_of(params, weights, steps, source)
    reference = Reference(params, weights, support)
    losses = []
    for e in range(EPOCHS):
        part = slice(e * per_epoch, (e + 1) * per_epoch)
        per_step = [
            [1.0 if mask is None else mask[t] for mask in masks]
            for t in range(part.start, part.stop)
        ]
        losses.append(reference.epoch(plan, samples[part], per_step))
    return {
        "params": np.array(json.dumps(params)),
        "sessions": np.concatenate(sessions),
        "offsets": np.cumsum([0] + [len(session) for session in sessions]),
        "samples": samples,
        **{f"masks.{k}": mask for k, mask in enumerate(masks) if mask is not None},
        **{f"init.{name}": value for name, value in weights.items()},
        **{f"final.{name}": value for name, value in reference.w.items()},
        "loss": np.concatenate(losses),
        "scores": reference.scores([3, 1, 4]),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in CASES:
        np.savez_compressed(FOLDER / f"gru4rec_{name}.npz", **make(name))
