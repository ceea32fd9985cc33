"""GRU4Rec's losses, each in its plain form and two of them also in a fast one.

Plain: ``LOSSES[name](scores, …)`` on a matrix of columns [targets of the batch, extra negatives];
row i's positive is column i, every other column one of its negatives. Formulas: arXiv 1511.06939
(bpr, top1), arXiv 1706.03847 (cross-entropy, bpr-max, top1-max). They return one loss per row.

Fast: one column per *distinct* item, with how often it occurs as its weight, and the gradient
written over the scores. The sums are the same; only equal terms are added once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.library import Kernels
from models.parts.gru4rec.activations import Activation
from models.parts.gru4rec.workspace import Workspace

TINY = 1e-24  # what the reference adds before each logarithm

# -- plain --------------------------------------------------------------------------------------


def _smoothed(log_p: Tensor, positive: Tensor, smoothing: float) -> Tensor:
    """(1 − εn/(n−1))·(−log p_i) + ε/(n−1)·Σ_j −log p_j over n columns (label smoothing)."""
    if not smoothing:
        return -positive
    n = log_p.shape[1]
    spread = smoothing / max(n - 1, 1)
    return -(1 - n * spread) * positive - spread * log_p.sum(1)


def cross_entropy(scores: Tensor, bpreg: float, smoothing: float) -> Tensor:
    """−log(p_i + 1e-24) with p the softmax over the row."""
    log_p = torch.log(torch.softmax(scores, 1) + TINY)
    return _smoothed(log_p, log_p.diagonal(), smoothing)


def xe_logit(scores: Tensor, bpreg: float, smoothing: float) -> Tensor:
    """logsumexp(r) − r_i."""
    log_p = torch.log_softmax(scores, 1)
    return _smoothed(log_p, log_p.diagonal(), smoothing)


def _negative_softmax(scores: Tensor) -> Tensor:
    """The softmax over each row's negatives: its own column has weight 0."""
    own = torch.eye(*scores.shape, device=scores.device, dtype=torch.bool)
    return torch.softmax(scores.masked_fill(own, -torch.inf), 1)


def bpr_max(scores: Tensor, bpreg: float, smoothing: float) -> Tensor:
    """−log(Σ_j s_j σ(r_i − r_j) + 1e-24) + bpreg·Σ_j s_j r_j²; s: softmax over the negatives."""
    weights = _negative_softmax(scores)
    above = torch.sigmoid(scores.diagonal()[:, None] - scores)
    likelihood = (weights * above).sum(1)
    return -torch.log(likelihood + TINY) + bpreg * (weights * scores.square()).sum(1)


def bpr(scores: Tensor, bpreg: float, smoothing: float) -> Tensor:
    """Σ_j −log σ(r_i − r_j), the positive's own column included."""
    return F.softplus(scores - scores.diagonal()[:, None]).sum(1)


def top1(scores: Tensor, bpreg: float, smoothing: float) -> Tensor:
    """mean_j [σ(r_j − r_i) + σ(r_j²)] − σ(r_i²)/n over n columns."""
    own = scores.diagonal()
    terms = torch.sigmoid(scores - own[:, None]) + torch.sigmoid(scores.square())
    return terms.mean(1) - torch.sigmoid(own.square()) / scores.shape[1]


def top1_max(scores: Tensor, bpreg: float, smoothing: float) -> Tensor:
    """Σ_j s_j [σ(r_j − r_i) + σ(r_j²)]; s: softmax over the negatives."""
    terms = torch.sigmoid(scores - scores.diagonal()[:, None]) + torch.sigmoid(scores.square())
    return (_negative_softmax(scores) * terms).sum(1)


LOSSES: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "cross-entropy": cross_entropy,
    "xe_logit": xe_logit,
    "bpr-max": bpr_max,
    "top1": top1,
    "top1-max": top1_max,
    "bpr": bpr,
}

# -- fast ---------------------------------------------------------------------------------------


def softmax_gradient_(
    scores: Tensor, own: Tensor, share: Tensor, logits: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cross-entropy (or, with ``logits``, xe_logit) over distinct items.

    ``scores`` [M, U] already include log w, w the summed weight of the item's columns; ``own``
    [M, 1] is the column of each row's positive and ``share`` [M, 1] the logarithm of how much of
    that column's weight is the row's own. Returns the losses [M], the gradient (in the memory of
    ``scores``) and what each of its rows has still to be multiplied with [M, 1], or None for 1.
    """
    if logits:
        log_p = torch.log_softmax(scores, 1)
        losses = -(log_p.gather(1, own) + share)
        torch.exp(log_p, out=scores)
        factor = None
    else:
        torch.softmax(scores, 1, out=scores)
        p = scores.gather(1, own) * share.exp()
        losses = -torch.log(p + TINY)
        factor = p / (p + TINY)
    scores.scatter_add_(1, own, scores.new_full((), -1.0).expand_as(own))
    return losses.squeeze(1), scores, factor


def bpr_max_gradient_(
    scores: Tensor,
    own: Tensor,
    log_counts: Tensor,
    others: Tensor,
    act: Activation,
    bpreg: float,
    scratch: Workspace,
    kernels: Kernels | None = None,
) -> tuple[Tensor, Tensor]:
    """BPR-max over distinct items, from ``scores`` [M, U] before the activation (overwritten).

    ``log_counts`` [U] is the logarithm of how many columns the item has, ``own`` [M, 1] the column
    of each row's positive and ``others`` [M, 1] the logarithm of the share of that item's columns
    that are negatives of the row (all but its own). Returns the losses [M] and the gradient [M, U].

    With P = Σ s_j σ_j + 1e-24, σ_j = σ(r_i − r_j) and the softmax weights s differentiated too,
    ∂L/∂r_j = s_j·[bpreg·(r_j² + 2r_j) − σ_j²/P − a] for negatives, with a = Σ s_j·(bpreg·r_j² −
    σ_j/P), and the positive gets −Σ s_j σ_j(1 − σ_j)/P beside that.
    """
    if kernels is not None and act.kind in ("linear", "elu"):
        elu = (act.scale, act.alpha) if act.kind == "elu" else None
        spare = scratch("bpr-max.spare", torch.get_num_threads(), 2, scores.shape[1])
        losses = kernels.bpr_max(scores, own, log_counts, others, spare, bpreg, elu)
        return losses, scores
    r = act.apply_(scores)
    s = torch.add(r, log_counts, out=scratch("bpr-max.s", *r.shape))
    s.scatter_add_(1, own, others)
    torch.softmax(s, 1, out=s)
    above = torch.sub(r.gather(1, own), r, out=scratch("bpr-max.above", *r.shape)).sigmoid_()
    grad = torch.mul(s, above, out=scratch("bpr-max.grad", *r.shape))
    p = grad.sum(1, keepdim=True)
    likelihood = p + TINY
    grad.mul_(above)
    p_square = grad.sum(1, keepdim=True)
    grad.div_(-likelihood)
    # Σ s·r and then Σ (s·r + s·r²/2), which is half of what bpreg multiplies
    weighed = torch.mul(s, r, out=above)
    mean = weighed.sum(1, keepdim=True)
    weighed.addcmul_(weighed, r, value=0.5)
    mean_square = 2 * (weighed.sum(1, keepdim=True) - mean)
    grad.add_(weighed, alpha=2 * bpreg)
    grad.addcmul_(s, p / likelihood - bpreg * mean_square)
    grad.scatter_add_(1, own, (p_square - p) / likelihood)
    losses = -torch.log(likelihood) + bpreg * mean_square
    return losses.squeeze(1), act.backward_(grad, r)
