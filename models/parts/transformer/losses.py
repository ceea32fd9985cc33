"""Losses of next-item models over tokens: h [T, d] against an item table [N, d].

All take vectors and a table whose product is the logit (temperature and normalisation are in
them) and return a scalar mean over tokens, weighted where ``weights`` [T] are given. Logits,
log-sum-exp and sums are float32 whatever the autocast.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

_CPU_LOGITS = 1 << 19  # logits of one chunk: they stay in a CPU's cache (measured)
_GPU_LOGITS = 1 << 27
_MIN_ROWS, _MAX_ROWS = 64, 512  # a thinner product is slow, a thicker one leaves the cache
_TINY = 1e-12  # least sum of weights that is divided by


def mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of values [T] by their weights [T]; 0 where all of these are 0."""
    if weights is None:
        return values.mean()
    return (weights * values).sum() / weights.sum().clamp(min=_TINY)


def full_cross_entropy(
    h: Tensor, table: Tensor, targets: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy over the whole catalogue; tokens × items is never held at once.

    ``targets`` [T] int64. Gradients are made in the forward pass, chunk by chunk, so there is no
    second derivative.
    """
    with torch.autocast(h.device.type, enabled=False):
        loss: Tensor = _LinearCrossEntropy.apply(h.float(), table.float(), targets, weights)
    return loss


def above_average(
    h: Tensor, table: Tensor, targets: Tensor, weights: Tensor | None = None
) -> Tensor:
    """How much the target's logit is above the catalogue's mean, on average.

    Its ε-fold beside cross-entropy is cross-entropy with labels smoothed by ε (arXiv 1512.00567,
    section 7): −(1 − ε) s⁺ − ε mean(s) + lse.
    """
    average = h.float() @ table.float().mean(0)
    return mean(positive_logits(h, table, targets).flatten() - average, weights)


def chunk_rows(n_items: int, device: torch.device) -> int:
    """Tokens whose logits are computed at once."""
    if device.type != "cpu":
        return max(_MIN_ROWS, _GPU_LOGITS // n_items)
    return min(max(_CPU_LOGITS // n_items, _MIN_ROWS), _MAX_ROWS)


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(
        ctx: Any, h: Tensor, table: Tensor, targets: Tensor, weights: Tensor | None
    ) -> Tensor:
        tokens, rows = len(h), chunk_rows(len(table), h.device)
        wanted = any(ctx.needs_input_grad)
        grad_h, grad_table = torch.empty_like(h), torch.zeros_like(table)
        held = h.new_empty(min(rows, tokens), len(table))
        total = h.new_zeros((), dtype=torch.float64)
        for begin in range(0, tokens, rows):
            part, own = h[begin : begin + rows], targets[begin : begin + rows, None]
            logits = torch.mm(part, table.T, out=held[: len(part)])
            right = logits.gather(1, own)
            top = logits.amax(1, keepdim=True)
            sums = logits.sub_(top).exp_().sum(1, keepdim=True)
            lost = sums.log() + top - right
            by = None if weights is None else weights[begin : begin + rows, None]
            total += (lost if by is None else lost * by).sum()
            if wanted:
                # softmax minus one-hot is the gradient of the logits
                probabilities = logits.div_(sums)
                probabilities.scatter_(1, own, probabilities.gather(1, own) - 1)
                if by is not None:
                    probabilities.mul_(by)
                torch.mm(probabilities, table, out=grad_h[begin : begin + rows])
                grad_table.addmm_(probabilities.T, part)
        count = tokens if weights is None else weights.sum().clamp(min=_TINY)
        if wanted:
            ctx.save_for_backward(grad_h.div_(count), grad_table.div_(count))
        return (total / count).to(h.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_h, grad_table = ctx.saved_tensors
        return grad_h * grads[0], grad_table * grads[0], None, None


# -- sampled ---------------------------------------------------------------------------------


def draw_negatives(
    log_q: Tensor | None, n_items: int, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """Item ids of ``shape``, with replacement: uniform, or by ``log_q`` [N] (log probabilities)."""
    if log_q is None:
        return torch.randint(n_items, shape, device=device)
    cdf = log_q.double().exp().cumsum(0)
    uniform = torch.rand(shape, dtype=torch.float64, device=device) * cdf[-1]
    return torch.searchsorted(cdf, uniform, right=True).clamp_(max=n_items - 1)


def negative_logits(h: Tensor, table: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """Logits [T, R] of negatives, −inf where one is the token's own target.

    ``negatives`` is [R], shared by all tokens (one matrix product), or [T, R].
    """
    with torch.autocast(h.device.type, enabled=False):
        chosen = F.embedding(negatives, table).float()
        if negatives.dim() == 1:
            logits = h.float() @ chosen.T
        else:
            logits = torch.bmm(chosen, h.float()[:, :, None]).squeeze(2)
    return logits.masked_fill(negatives == targets[:, None], -math.inf)


def positive_logits(h: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Logits [T] of the targets."""
    return (h.float() * F.embedding(targets, table).float()).sum(1)


def sampled_softmax(
    positive: Tensor,
    negative: Tensor,
    correction: Tensor | float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """−log e^{s⁺} / (e^{s⁺} + Σ e^{s_j − c_j}) (InfoNCE, arXiv 1807.03748).

    ``correction`` c broadcasts over [T, R]: log(R·q_j) makes the sum an unbiased estimate of the
    whole catalogue's (logQ; Bengio & Senécal 2008).
    """
    others = torch.logsumexp(negative - correction, 1)
    return mean(torch.logaddexp(positive, others) - positive, weights)


def gbce_beta(n_negatives: int, n_items: int, t: float) -> float:
    """The power of σ(s⁺) in gBCE: α(t(1 − 1/α) + 1/α), α = k / (N − 1), at most 1."""
    alpha = min(1.0, n_negatives / max(1, n_items - 1))
    return alpha * (t * (1 - 1 / alpha) + 1 / alpha)


def gbce(positive: Tensor, negative: Tensor, beta: float, weights: Tensor | None = None) -> Tensor:
    """−(β log σ(s⁺) + Σ log(1 − σ(s_j))) / (k + 1) (gSASRec, arXiv 2308.07192); β = 1 is BCE."""
    rejected = F.logsigmoid(-negative).sum(1)  # a masked −inf adds log σ(inf) = 0
    return -mean(beta * F.logsigmoid(positive) + rejected, weights) / (negative.shape[1] + 1)


# -- triplets --------------------------------------------------------------------------------


def cosines(
    h: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, forbidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cosines of h with its targets [T] and with negatives [T, R], −inf where one is none."""
    with torch.autocast(h.device.type, enabled=False):
        h = F.normalize(h.float(), dim=1)
        positive = (h * F.normalize(F.embedding(targets, table).float(), dim=1)).sum(1)
        chosen = F.normalize(F.embedding(negatives, table).float(), dim=-1)
        wrong = h @ chosen.T if negatives.dim() == 1 else torch.einsum("trd,td->tr", chosen, h)
    masked = negatives == targets[:, None]
    if forbidden is not None:
        masked = masked | forbidden
    return positive, wrong.masked_fill(masked, -math.inf)


def triplet(
    positive: Tensor, negative: Tensor, margin: float, weights: Tensor | None = None
) -> Tensor:
    """mean_j max(0, margin − s⁺ + s_j) over a target's negatives (arXiv 1503.03832, section 3.1);
    0 for a target whose negatives are all −inf."""
    there = negative > -math.inf
    short = F.relu(margin - positive[:, None] + negative)
    return mean(short.sum(1) / there.sum(1).clamp(min=1), weights)
