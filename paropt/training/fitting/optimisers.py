"""The optimiser of models that return a loss, driven by parameters of conventional names.

A model that declares them gets ``learning_rate`` (1e-3), ``weight_decay`` (0), ``beta2`` (0.999),
``warmup`` (0), ``schedule`` (constant) and ``grad_clip`` (0, off); in brackets what the others get.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from paropt.errors import TrainingError

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def multiplier(step: int, steps: int, warmup: float, schedule: str) -> float:
    """What the learning rate is multiplied with at ``step`` (from 0) of ``steps``.

    It rises linearly over the first ``warmup`` steps (below 1: that share of all steps), then
    stays ("constant"), or falls to zero at the end in a line ("linear") or half a cosine wave
    ("cosine").

    Raises:
        ValueError: a schedule of another name.
    """
    if schedule not in ("constant", "linear", "cosine"):
        raise ValueError(f"no learning-rate schedule {schedule!r}")
    rising = warmup if warmup >= 1 else round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    done = min(1.0, (step - rising) / max(1, steps - rising))
    return 1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2


def is_matrix(parameter: nn.Parameter, embeddings: set[int]) -> bool:
    """Whether weight decay applies: to matrices, not to embeddings, norms, biases or scalars.

    A model exempts a matrix of its own by an attribute on the parameter, ``no_decay = True``.
    """
    exempt = id(parameter) in embeddings or getattr(parameter, "no_decay", False)
    return parameter.dim() >= 2 and not exempt


def _scale(parameter: nn.Parameter) -> float:
    return float(getattr(parameter, "rate_scale", 1.0))


class AdamW:
    """torch.optim.AdamW's kernel and numbers without its class, whose making imports torch._dynamo:
    two seconds of every process that trains.

    ``param_groups`` are dicts of "params", "lr" and "weight_decay"; ``state`` has a parameter's
    "step", "exp_avg" and "exp_avg_sq" once it has moved.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> None:
        self.param_groups, self.betas = groups, betas
        self.state: dict[nn.Parameter, dict[str, Tensor]] = defaultdict(dict)
        self.fused = all(p.is_floating_point() for group in groups for p in group["params"])

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have gradients.

        Raises:
            TrainingError: a gradient is sparse.
        """
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in moved if p.grad is not None]
            if any(grad.is_sparse for grad in grads):
                raise TrainingError("AdamW has no sparse gradients; make the embedding a dense one")
            states = [self.state[p] or self._begin(p) for p in moved]
            adamw(
                list(moved), grads, [s["exp_avg"] for s in states],
                [s["exp_avg_sq"] for s in states], [], [s["step"] for s in states],
                fused=self.fused, has_complex=any(p.is_complex() for p in moved), amsgrad=False,
                beta1=self.betas[0], beta2=self.betas[1], lr=group["lr"],
                weight_decay=group["weight_decay"], eps=1e-8, maximize=False,
            )  # fmt: skip

    def _begin(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        device = parameter.device if self.fused else torch.device("cpu")
        begun = self.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        return begun


class Optimiser:
    """AdamW over the parameters that require gradients now, with clipping and a schedule.

    (Decoupled weight decay: arXiv 1711.05101.) ``steps`` is the length of the whole training, from
    which the schedule follows.
    """

    def __init__(self, model: nn.Module, params: Mapping[str, Any], steps: int) -> None:
        self.rate = float(params.get("learning_rate", 1e-3))
        self.warmup = float(params.get("warmup", 0))
        self.schedule = str(params.get("schedule", "constant"))
        self.clip = float(params.get("grad_clip", 0))
        self.steps = steps
        embeddings = {
            id(p)
            for module in model.modules()
            if isinstance(module, EMBEDDINGS)
            for p in module.parameters()
        }
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.parameters = list(trained.values())
        decay = float(params.get("weight_decay", 0))
        groups = [
            {"params": of_group, "weight_decay": decay if decayed else 0.0, "scale": scale}
            for (scale, decayed), of_group in self._groups(embeddings).items()
        ]
        self.names = {id(p): n for n, p in trained.items()}
        self.adamw = AdamW(
            [{"lr": self.rate, **group} for group in groups if group["params"]],
            betas=(0.9, float(params.get("beta2", 0.999))),
        )

    def _groups(self, embeddings: set[int]) -> dict[tuple[float, bool], list[nn.Parameter]]:
        """Parameters by what their rate is multiplied with and whether they decay.

        A model gives a parameter a rate of its own by an attribute on it, ``rate_scale``.
        """
        scales = sorted({_scale(p) for p in self.parameters})
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {
            (scale, decayed): [] for scale in scales for decayed in (True, False)
        }
        for p in self.parameters:
            groups[_scale(p), is_matrix(p, embeddings)].append(p)
        return groups

    def step(self, step: int, loss: Tensor) -> None:
        """Differentiate ``loss`` and move the parameters; ``step`` counts from the very first."""
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        if self.clip > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for group in self.adamw.param_groups:
            rate = self.rate * multiplier(step, self.steps, self.warmup, self.schedule)
            group["lr"] = rate * group["scale"]
        self.adamw.step()

    def state(self) -> dict[str, Tensor]:
        """Its moments and counts by "parameter/moment"."""
        return {
            f"{self.names[id(parameter)]}/{moment}": value
            for parameter, moments in self.adamw.state.items()
            for moment, value in moments.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """The reverse of :meth:`state`, for the same parameters."""
        by_name = {self.names[id(p)]: p for p in self.parameters}
        for key, value in state.items():
            name, _, moment = key.rpartition("/")
            parameter = by_name[name]
            self.adamw.state[parameter][moment] = value.to(parameter.device)
