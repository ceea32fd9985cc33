"""GRU4Rec in float64 NumPy, one plain loop, forward and backward by hand: what models/gru4rec.py
is held against. Nothing is shared with it, and nothing here is fast.

Every formula is that of docs/gru4rec.md. Columns of a step are [targets of the batch, negatives];
the state before a step is a constant; the gradient of a table's row is the sum over all places
that read it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

Array = np.ndarray
Weights = dict[str, Array]
TINY, EPSILON = 1e-24, 1e-6


def schedule(sessions: list[list[int]], batch_size: int, min_rows: int = 1) -> dict[str, Array]:
    """One epoch: inputs, targets, resets [steps, B] (-1 and False where unused), slots by how long
    they live, so that rows in use come first."""
    waiting = [session for session in sessions if len(session) > 1]
    slots: list[list[tuple[int, int, bool]]] = [[] for _ in range(batch_size)]
    for session in waiting:
        slot = min(slots, key=len)  # the first slot that is free
        slot += [(a, b, k == 0) for k, (a, b) in enumerate(pairwise(session))]
    slots.sort(key=len, reverse=True)
    steps = sum(sum(len(slot) > t for slot in slots) >= min_rows for t in range(len(slots[0])))
    plan = {
        "inputs": np.full((steps, batch_size), -1),
        "targets": np.full((steps, batch_size), -1),
        "resets": np.zeros((steps, batch_size), dtype=bool),
    }
    for b, slot in enumerate(slots):
        for t, (item, target, reset) in enumerate(slot[:steps]):
            plan["inputs"][t, b], plan["targets"][t, b] = item, target
            plan["resets"][t, b] = reset
    return plan


# -- activations: value, and derivative from (input, value) --------------------------------------


def activate(name: str, x: Array) -> tuple[Array, Array]:
    """The activation and its derivative at ``x``."""
    head, *numbers = name.split("-")
    a = [float(number) for number in numbers]
    if head == "tanh":
        return np.tanh(x), 1 - np.tanh(x) ** 2
    if head in ("relu", "leaky"):
        slope = a[0] if a else 0.0
        return np.where(x > 0, x, slope * x), np.where(x > 0, 1.0, slope)
    if head in ("elu", "selu"):
        scale, alpha = a if head == "selu" else (1.0, a[0])
        low = alpha * np.expm1(np.minimum(x, 0))
        return scale * np.where(x > 0, x, low), scale * np.where(x > 0, 1.0, low + alpha)
    return x, np.ones_like(x)


def sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(x / 2))


# -- losses: per row, and their gradient by the (activated) scores --------------------------------


def softmax(r: Array) -> Array:
    e = np.exp(r - r.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def cross_entropy(r: Array, params: dict[str, Any]) -> tuple[Array, Array]:
    """Σ_j c_j·(−log(p_j + tiny)), c from the positive and the label smoothing."""
    m, n = r.shape
    tiny = TINY if params["loss"] == "cross-entropy" else 0.0
    e = params["smoothing"]
    c = np.full((m, n), e / (n - 1) if e else 0.0)
    c[np.arange(m), np.arange(m)] += 1 - e * n / (n - 1) if e else 1.0
    p = softmax(r)
    losses = -(c * np.log(p + tiny)).sum(1)
    d = -c / (p + tiny)  # by p
    return losses, p * (d - (p * d).sum(1, keepdims=True))


def negative_softmax(r: Array) -> Array:
    masked = r.copy()
    np.fill_diagonal(masked[:, : len(r)], -np.inf)
    return softmax(masked)


def through_softmax(s: Array, by_s: Array) -> Array:
    """The gradient by r of Σ_j s_j f_j's dependence on s, where ∂L/∂s = ``by_s``."""
    return s * (by_s - (s * by_s).sum(1, keepdims=True))


def bpr_max(r: Array, params: dict[str, Any]) -> tuple[Array, Array]:
    own = np.diagonal(r)[:, None]
    s, above = negative_softmax(r), sigmoid(own - r)
    p = (s * above).sum(1, keepdims=True) + TINY
    bpreg = params["bpreg"]
    losses = (-np.log(p) + bpreg * (s * r**2).sum(1, keepdims=True))[:, 0]
    d = through_softmax(s, -above / p + bpreg * r**2)
    slope = s * above * (1 - above) / p
    d += slope + 2 * bpreg * s * r
    np.einsum("ii->i", d[:, : len(r)])[...] -= slope.sum(1)
    return losses, d


def bpr(r: Array, params: dict[str, Any]) -> tuple[Array, Array]:
    own = np.diagonal(r)[:, None]
    d = sigmoid(r - own)
    losses = np.logaddexp(0, r - own).sum(1)
    total = d.sum(1)
    np.einsum("ii->i", d[:, : len(r)])[...] -= total
    return losses, d


def _top1_terms(r: Array) -> tuple[Array, Array, Array]:
    above, size = sigmoid(r - np.diagonal(r)[:, None]), sigmoid(r**2)
    return above + size, above * (1 - above), 2 * r * size * (1 - size)


def top1(r: Array, params: dict[str, Any]) -> tuple[Array, Array]:
    n = r.shape[1]
    terms, by_difference, by_size = _top1_terms(r)
    own = np.diagonal(r)
    d = (by_difference + by_size) / n
    own_size = sigmoid(own**2)
    np.einsum("ii->i", d[:, : len(r)])[...] -= (
        by_difference.sum(1) + 2 * own * own_size * (1 - own_size)
    ) / n
    return terms.mean(1) - own_size / n, d


def top1_max(r: Array, params: dict[str, Any]) -> tuple[Array, Array]:
    terms, by_difference, by_size = _top1_terms(r)
    s = negative_softmax(r)
    d = through_softmax(s, terms) + s * (by_difference + by_size)
    np.einsum("ii->i", d[:, : len(r)])[...] -= (s * by_difference).sum(1)
    return (s * terms).sum(1), d


LOSSES = {
    "cross-entropy": cross_entropy,
    "xe_logit": cross_entropy,
    "bpr-max": bpr_max,
    "bpr": bpr,
    "top1": top1,
    "top1-max": top1_max,
}

# -- cells: state after, and what the backward pass needs -----------------------------------------


def gru(w: Weights, k: int, act: str, x: Array, h: Array) -> tuple[Array, Any]:
    """torch.nn.GRUCell's layout; the input is the layer below's output [M, in]."""
    size = h.shape[1]
    gi = x @ w[f"cells.{k}.weight_ih"].T + w[f"cells.{k}.bias_ih"]
    gh = h @ w[f"cells.{k}.weight_hh"].T + w[f"cells.{k}.bias_hh"]
    r, z = (sigmoid((gi + gh)[:, i * size : (i + 1) * size]) for i in (0, 1))
    n, slope = activate(act, gi[:, 2 * size :] + r * gh[:, 2 * size :])
    return (1 - z) * n + z * h, (x, h, r, z, n, slope, gh[:, 2 * size :])


def gru_backward(w: Weights, k: int, saved: Any, d: Array) -> tuple[Weights, Array]:
    x, h, r, z, n, slope, gh_n = saved
    dn = d * (1 - z) * slope
    dz, dr = d * (h - n) * z * (1 - z), dn * gh_n * r * (1 - r)
    di, dh = np.hstack([dr, dz, dn]), np.hstack([dr, dz, dn * r])
    grads = {
        f"cells.{k}.weight_ih": di.T @ x,
        f"cells.{k}.weight_hh": dh.T @ h,
        f"cells.{k}.bias_ih": di.sum(0),
        f"cells.{k}.bias_hh": dh.sum(0),
    }
    return grads, di @ w[f"cells.{k}.weight_ih"]


def row_gru(w: Weights, k: int, act: str, x: Array, h: Array) -> tuple[Array, Any]:
    """The cell whose input is a row [M, 3H] (c, r, z), with the reset gate before the product."""
    size = h.shape[1]
    g = x + w[f"cells.{k}.bias"]
    rz = sigmoid(g[:, size:] + h @ w[f"cells.{k}.weight_rz"])
    r, z = rz[:, :size], rz[:, size:]
    c, slope = activate(act, g[:, :size] + (r * h) @ w[f"cells.{k}.weight_c"])
    return (1 - z) * h + z * c, (h, r, z, c, slope)


def row_gru_backward(w: Weights, k: int, saved: Any, d: Array) -> tuple[Weights, Array]:
    h, r, z, c, slope = saved
    dc, dz = d * z * slope, d * (c - h) * z * (1 - z)
    dr = (dc @ w[f"cells.{k}.weight_c"].T) * h * r * (1 - r)
    dx = np.hstack([dc, dr, dz])
    grads = {
        f"cells.{k}.weight_c": (r * h).T @ dc,
        f"cells.{k}.weight_rz": h.T @ dx[:, h.shape[1] :],
        f"cells.{k}.bias": dx.sum(0),
    }
    return grads, dx


# -- training ------------------------------------------------------------------------------------


class Reference:
    """Trains ``weights`` (float64, by the names of models/gru4rec.py's state) in place.

    ``nominal_split`` repeats a defect of the recorded runs, which take the columns up to the
    *nominal* batch size for targets also where the batch has shrunk.
    """

    def __init__(
        self,
        params: dict[str, Any],
        weights: Weights,
        support: Array,
        nominal_split: bool = False,
    ) -> None:
        self.p = params
        self.w = {name: np.array(value, dtype=np.float64) for name, value in weights.items()}
        self.squares = {name: np.zeros_like(value) for name, value in self.w.items()}
        self.velocity = {name: np.zeros_like(value) for name, value in self.w.items()}
        self.support = support
        self.nominal_split = nominal_split
        self.act = params["final_act"]
        if self.act == "auto" or params["loss"] in ("cross-entropy", "xe_logit"):
            self.act = "linear"  # the softmax is part of the loss

    def epoch(self, plan: dict[str, Array], samples: Array, masks: list[Any] | None = None) -> Any:
        """Losses [steps]; ``masks[t]``: step t's dropout masks, of the input and of each layer."""
        state = [np.zeros((plan["inputs"].shape[1], size)) for size in self.p["layers"]]
        losses = []
        for t in range(len(plan["inputs"])):
            m = int((plan["inputs"][t] >= 0).sum())
            h = [s[:m] * ~plan["resets"][t, :m, None] for s in state]
            loss, grads, touched, h = self.step(
                plan["inputs"][t, :m], plan["targets"][t, :m], samples[t], h, masks and masks[t]
            )
            state = h
            self.update(grads, touched)
            losses.append(loss)
        return np.array(losses)

    def step(
        self, inputs: Array, targets: Array, samples: Array, h: list[Array], masks: Any = None
    ) -> tuple[float, Weights, dict[str, Array], list[Array]]:
        """The loss, the gradients, the rows touched by table, and the states after."""
        p, w, m = self.p, self.w, len(inputs)
        masks = [mask if np.isscalar(mask) else mask[:m] for mask in masks or [1.0] * (1 + len(h))]
        table = "embedding" if "embedding" in w else "output"
        by_row = "cells.0.weight_rz" in w
        x = w[table][inputs] * masks[0]
        saved, after = [], []
        for k, before in enumerate(h):
            cell = row_gru if by_row and k == 0 else gru
            x, kept = cell(w, k, p["hidden_act"], x, before)
            x = x * masks[k + 1]
            saved.append(kept)
            after.append(x)
        columns = np.concatenate([targets, samples])
        q = self.support[columns].astype(np.float64)
        first_sample = p["batch_size"] if self.nominal_split else m
        q[first_sample:] **= p["sample_alpha"]
        scores = x @ w["output"][columns].T + w["bias"][columns] - p["logq"] * np.log(q)
        r, slope = activate(self.act, scores)
        losses, d = LOSSES[p["loss"]](r, p)
        d = d * slope / p["batch_size"]

        grads = {name: np.zeros_like(value) for name, value in w.items()}
        np.add.at(grads["output"], columns, d.T @ x)
        np.add.at(grads["bias"], columns, d.sum(0))
        dx = d @ w["output"][columns]
        for k in reversed(range(len(h))):
            back = row_gru_backward if by_row and k == 0 else gru_backward
            of_cell, dx = back(w, k, saved[k], dx * masks[k + 1])
            grads |= of_cell
        np.add.at(grads[table], inputs, dx * masks[0])
        touched = {"output": columns, "bias": columns}
        if table == "output":
            # one gather: the bias is only touched where a column is
            touched["output"] = np.concatenate([columns, inputs])
        else:
            touched["embedding"] = inputs
        return float(losses.sum() / p["batch_size"]), grads, touched, after

    def update(self, grads: Weights, touched: dict[str, Array]) -> None:
        """Adagrad with heavy-ball momentum on the touched rows."""
        p = self.p
        if p["grad_cap"]:
            norm = np.sqrt(sum(float((grad**2).sum()) for grad in grads.values()))
            if norm > p["grad_cap"]:
                grads = {name: grad * (p["grad_cap"] / norm) for name, grad in grads.items()}
        for name, grad in grads.items():
            rows = np.unique(touched[name]) if name in touched else slice(None)
            g = grad[rows]
            self.squares[name][rows] += g**2
            step = p["learning_rate"] * g / np.sqrt(self.squares[name][rows] + EPSILON)
            self.velocity[name][rows] = p["momentum"] * self.velocity[name][rows] - step
            self.w[name][rows] *= 1 - p["learning_rate"] * p["lmbd"]
            self.w[name][rows] += self.velocity[name][rows]

    def scores(self, session: list[int]) -> Array:
        """Scores of all items after each event of a session: [events, n_items]."""
        w, out = self.w, []
        table = w["embedding"] if "embedding" in w else w["output"]
        h = [np.zeros((1, size)) for size in self.p["layers"]]
        for item in session:
            x = table[[item]]
            for k, before in enumerate(h):
                cell = row_gru if k == 0 and "cells.0.weight_rz" in w else gru
                x = h[k] = cell(w, k, self.p["hidden_act"], x, before)[0]
            out.append((x @ w["output"].T + w["bias"])[0])
        return np.array(out)
