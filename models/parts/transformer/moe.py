"""Mixture of SwiGLU experts over tokens: routing, balancing, grouped products, utilisation.

Dropless: every token reaches each of its top-k experts. Routing follows DeepSeek-V3
(arXiv 2412.19437, section 2.1.2): y = Σ shared(x) + Σ_{i ∈ S} g_i · expert_i(x).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import Facts, Param
from models.parts.transformer.blocks import SwiGLU

_FLOOR = 0.05  # least divisor of a score under epoch_div: an idle expert gains at most 20×
_MEMORY = 0.5  # of older epochs in epoch_div's activation share
# of the balancing bias, where nobody says it: it may cross the range of the scores in an epoch, and
# is that of arXiv 2408.15664 where that has a thousand steps
_SLOWEST, _FASTEST = 0.001, 0.02
_DEAD = 0.1  # of the mean load: an expert below is dead

MOE_PARAMS: tuple[Param, ...] = (
    Param("experts", "int", 0, "routed experts; 0: no mixture", low=0, high=1024),
    Param(
        "top_k", "int", 2, "experts that each token is sent to", low=1, source="arXiv 2401.06066"
    ),
    Param(
        "shared_experts",
        "int",
        0,
        "experts that every token passes",
        low=0,
        high=16,
        source="arXiv 2401.06066",
    ),
    Param(
        "expert_mult",
        "float",
        0.5,
        "width of an expert, as a part of the feed-forward's (HSTU: of dim); "
        "1/(top_k + shared_experts) keeps the active parameters of a dense one",
        low=0,
        low_open=True,
        high=8,
    ),
    Param(
        "gate",
        "str",
        "sigmoid",
        "what turns router logits into scores",
        choices=("sigmoid", "softmax"),
        source="arXiv 2412.19437",
    ),
    Param(
        "balance",
        "str",
        "bias",
        "how experts are kept equally busy: a bias that only selects, a term of the loss, "
        "division by the share of activations of past epochs, or not",
        choices=("bias", "aux", "epoch_div", "none"),
        source="arXiv 2408.15664 (bias)",
    ),
    Param(
        "balance_rate",
        "float",
        0.0,
        "step of the balancing bias; 0: 1 over the steps of an epoch, from 0.001 to 0.02",
        low=0,
        high=1,
        source="arXiv 2408.15664",
    ),
    Param(
        "aux_weight",
        "float",
        0.01,
        "weight of the balancing loss",
        low=0,
        high=10,
        source="arXiv 2101.03961",
    ),
    Param("moe_every", "int", 1, "a mixture in every n-th block", low=1, high=64),
)


def check_moe(params: Mapping[str, Any]) -> None:
    """Refuse a mixture that cannot be.

    Raises:
        ValueError: top_k above the experts, or no block that would get one.
    """
    experts, top_k = params["experts"], params["top_k"]
    if experts and top_k > experts:
        raise ValueError(f"top_k {top_k} is above experts {experts}; lower top_k")
    if experts and params["moe_every"] > params["blocks"]:
        raise ValueError(
            f"moe_every {params['moe_every']} is above blocks {params['blocks']}, "
            "so that no block has experts; lower moe_every"
        )


def has_moe(params: Mapping[str, Any], block: int) -> bool:
    """Whether block ``block`` (from 0) has a mixture: the last of every ``moe_every``."""
    return bool(params["experts"]) and (block + 1) % int(params["moe_every"]) == 0


class MoE(nn.Module):
    """``n_experts`` routed and ``n_shared`` shared SwiGLU experts of width ``hidden``.

    ``aux_loss`` is the balancing loss of the latest forward pass in training (0 unless ``balance``
    is "aux"). Loads are counted from :meth:`begin_epoch` to :meth:`end_epoch`, in training only.
    """

    load: Tensor
    gate_sum: Tensor
    margin_sum: Tensor
    select_bias: Tensor
    share: Tensor

    def __init__(
        self,
        dim: int,
        hidden: int,
        n_experts: int,
        top_k: int,
        n_shared: int = 0,
        gate: str = "sigmoid",
        balance: str = "bias",
        balance_rate: float = 0.0,
        aux_weight: float = 0.01,
    ) -> None:
        super().__init__()
        self.n_experts, self.top_k = n_experts, top_k
        self.gate, self.balance = gate, balance
        self.balance_rate, self.aux_weight = balance_rate, aux_weight
        self.router = nn.Parameter(torch.randn(n_experts, dim) * 0.02)
        self.gate_and_value = nn.Parameter(torch.randn(n_experts, dim, 2 * hidden) * 0.02)
        self.out = nn.Parameter(torch.randn(n_experts, hidden, dim) * 0.02)
        self.shared = SwiGLU(dim, n_shared * hidden) if n_shared else None
        self.register_buffer("select_bias", torch.zeros(n_experts))
        self.register_buffer("share", torch.full((n_experts,), 1 / n_experts))
        self.register_buffer("load", torch.zeros(n_experts, dtype=torch.int64))
        self.register_buffer("gate_sum", torch.zeros((), dtype=torch.float64))
        self.register_buffer("margin_sum", torch.zeros((), dtype=torch.float64))
        self.aux_loss: Tensor | float = 0.0
        self.step_load: Tensor | None = None
        self.steps_per_epoch = 1000  # that 0, the automatic rate, goes by
        self.grouped = True  # False: the plain loop, which tests compare with

    @classmethod
    def from_params(cls, params: Mapping[str, Any], dim: int, hidden: int) -> MoE:
        """As :data:`MOE_PARAMS` say, for a feed-forward of width ``hidden``."""
        return cls(
            dim,
            expert_width(hidden, params["expert_mult"]),
            params["experts"],
            params["top_k"],
            params["shared_experts"],
            params["gate"],
            params["balance"],
            params["balance_rate"],
            params["aux_weight"],
        )

    def forward(self, x: Tensor) -> Tensor:
        """[T, d] → [T, d]."""
        chosen, gates = self.route(x)
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=self.n_experts)
        token = order // self.top_k
        y = self._experts(x.index_select(0, token), counts)
        weighted = y.float() * gates.flatten().index_select(0, order)[:, None]
        mixed = torch.zeros_like(x, dtype=torch.float32).index_add(0, token, weighted).to(x.dtype)
        if self.training:
            self._count(counts)
        return mixed if self.shared is None else mixed + self.shared(x)

    # -- routing ----------------------------------------------------------------------------

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Experts [T, K] int64 of each token and their gates [T, K] float32.

        Gates are the chosen scores over their sum. A single one would always be 1 and teach the
        router nothing, so top-1 keeps its score (arXiv 2101.03961), unless there is no choice.
        """
        with torch.autocast(x.device.type, enabled=False):
            logits = x.float() @ self.router.float().T
        scores = logits.sigmoid() if self.gate == "sigmoid" else logits.softmax(1)
        with torch.no_grad():
            chosen = self._preference(scores).topk(self.top_k, 1).indices
        gates = scores.gather(1, chosen)
        if self.top_k > 1 or self.n_experts == 1:
            gates = gates / gates.sum(1, keepdim=True)
        if self.training:
            self._watch(scores, chosen, gates)
        return chosen, gates

    def _preference(self, scores: Tensor) -> Tensor:
        """What top-k goes by; gates come from the scores themselves."""
        if self.balance == "bias":
            return scores + self.select_bias
        if self.balance == "epoch_div":
            return scores / (self.n_experts * self.share).clamp(min=_FLOOR)
        return scores

    def _watch(self, scores: Tensor, chosen: Tensor, gates: Tensor) -> None:
        if self.balance == "aux":
            load = torch.bincount(chosen.flatten(), minlength=self.n_experts)
            mean = (scores / scores.sum(1, keepdim=True)).mean(0)
            self.aux_loss = self.aux_weight * self.n_experts * (mean * load).sum() / chosen.numel()
        with torch.no_grad():
            top = gates.topk(min(2, self.top_k), 1).values.double()
            self.gate_sum += top[:, 0].sum()
            self.margin_sum += (top[:, 0] - top[:, -1]).sum()

    def _count(self, counts: Tensor) -> None:
        self.step_load = counts
        self.load += counts

    # -- experts ----------------------------------------------------------------------------

    def _experts(self, x: Tensor, counts: Tensor) -> Tensor:
        """Each expert on its stretch of x [T·K, d], which is sorted by expert."""
        product = grouped_product if self.grouped else looped_product
        if torch.is_autocast_enabled(x.device.type):
            # grouped products are no operation that autocast knows
            x = x.to(torch.get_autocast_dtype(x.device.type))
        gate, value = product(x, self.gate_and_value, counts).chunk(2, 1)
        return product(F.silu(gate) * value, self.out, counts)

    # -- balance ----------------------------------------------------------------------------

    def after_step(self) -> None:
        """Move the bias towards idle experts: b += γ · sign(mean load − load).

        The published γ = 0.001 is for hundreds of thousands of steps. In a few hundred it moves the
        bias less than the scores of experts differ, and one expert keeps every token.
        """
        if self.balance == "bias" and self.step_load is not None:
            load = self.step_load.float()
            self.select_bias += self.rate * torch.sign(load.mean() - load)
        self.step_load = None

    @property
    def rate(self) -> float:
        """The step of the bias."""
        if self.balance_rate:
            return self.balance_rate
        return min(max(1 / self.steps_per_epoch, _SLOWEST), _FASTEST)

    def begin_epoch(self) -> None:
        for counter in (self.load, self.gate_sum, self.margin_sum):
            counter.zero_()

    def end_epoch(self) -> dict[str, Any]:
        """Utilisation over the epoch; also what epoch_div divides by from now on."""
        total = max(1, int(self.load.sum()))
        share = self.load.double() / total
        if self.balance == "epoch_div" and int(self.load.sum()):
            self.share.mul_(_MEMORY).add_(share.to(self.share.dtype), alpha=1 - _MEMORY)
        tokens = total / self.top_k
        entropy = -(share * share.clamp(min=1e-30).log()).sum()
        spread = torch.tensor(float(max(2, self.n_experts))).log()
        return {
            "load": [round(value, 6) for value in share.tolist()],
            "max_violation": float(share.max() * self.n_experts - 1),
            "variation": float(share.std(correction=0) * self.n_experts),
            "entropy": float(entropy / spread),
            "dead": int((share < _DEAD / self.n_experts).sum()),
            "top_gate": float(self.gate_sum / tokens),
            "margin": float(self.margin_sum / tokens),
        }


def tell_steps(mixtures: Iterable[MoE], params: Mapping[str, Any], facts: Facts) -> None:
    """Tell mixtures how many steps an epoch has: what an automatic balancing rate goes by."""
    for mixture in mixtures:
        mixture.steps_per_epoch = max(1, -(-facts.n_sessions // int(params["batch_size"])))


def expert_width(hidden: int, mult: float) -> int:
    """``mult`` of ``hidden``, rounded up to a multiple of 4, which grouped products need."""
    return max(4, -(-round(hidden * mult) // 4) * 4)


def can_group(x: Tensor, weights: Tensor) -> bool:
    """Whether torch's grouped product takes these: 16-byte rows; on a GPU bfloat16 only."""
    if x.device.type != "cpu" and x.dtype != torch.bfloat16:
        return False
    aligned = all(size * x.element_size() % 16 == 0 for size in weights.shape[1:])
    return aligned and hasattr(F, "grouped_mm")


def grouped_product(x: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """x [S, d] @ weights [E, d, h], the first counts[0] rows by weights[0] and so on: [S, h]."""
    if not can_group(x, weights):
        return looped_product(x, weights, counts)
    offsets = counts.cumsum(0).to(torch.int32)
    return _grouped(x, weights, offsets)


def _grouped(x: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    product: Tensor = F.grouped_mm(x.contiguous(), weights.to(x.dtype), offs=offsets)
    return product


def looped_product(x: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """The same, expert by expert. unbind, as indexing gives every expert a full-size gradient."""
    parts = torch.split(x, counts.tolist())
    return torch.cat([part @ w for part, w in zip(parts, weights.unbind(0), strict=True)])
