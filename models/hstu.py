"""HSTU: hierarchical sequential transduction units (Zhai et al., arXiv 2402.17152, section 3).

Attention without a softmax, so that how much has been seen counts as well as what; gated
element-wise; biased by relative position and time. Beside the paper: rotary encoding driven by
time stamps, RMSNorm, and a mixture of experts after each block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import Facts, Param, SequenceBatch
from models.parts.transformer.blocks import RMSNorm, linear, make_norm
from models.parts.transformer.dropout import Dropout
from models.parts.transformer.moe import MOE_PARAMS, MoE, check_moe, has_moe
from models.parts.transformer.next_item_loss import loss_params
from models.parts.transformer.pointwise import Pointwise
from models.parts.transformer.positions import RelativeBias, Rotary, rotate
from models.parts.transformer.sequence_model import (
    EVENT_PARAMS,
    TRAINING_PARAMS,
    SequenceModel,
    check_sequences,
    size_params,
)
from models.parts.transformer.unpadding import Unpadding

PAPER = "arXiv 2402.17152"


class HSTU(SequenceModel):
    """HSTU: pointwise attention biased by position and time, gated (arXiv 2402.17152)."""

    PARAMS: ClassVar[tuple[Param, ...]] = (
        *size_params(dim=64, blocks=2, heads=1, dropout=0.2, source=PAPER),
        Param(
            "qk_mult",
            "float",
            1.0,
            "width of a head's queries and keys over dim/heads",
            low=0.125,
            high=4,
            source=PAPER,
        ),
        Param(
            "v_mult",
            "float",
            1.0,
            "width of a head's values over dim/heads",
            low=0.125,
            high=4,
            source=PAPER,
        ),
        Param(
            "norm", "str", "layer", "LayerNorm or RMSNorm", choices=("layer", "rms"), source=PAPER
        ),
        Param(
            "relative_bias",
            "str",
            "both",
            "what is added to attention scores",
            choices=("none", "position", "time", "both"),
            source=PAPER,
        ),
        Param(
            "time_buckets", "int", 128, "buckets of the time bias", low=1, high=4096, source=PAPER
        ),
        Param(
            "time_mode",
            "str",
            "event",
            "what the time bias measures from: the event's own time, or that of the next item, "
            "asked for (query): known when a request is served, an advantage offline",
            choices=("event", "query"),
            source="the code of " + PAPER,
        ),
        Param(
            "rotary",
            "str",
            "none",
            "rotary encoding of half the channels by index, of the others by time stamps",
            choices=("none", "index", "linear", "cumlog"),
            source="arXiv 2104.09864; 2510.20455",
        ),
        Param(
            "rotary_scale",
            "float",
            86400.0,
            "seconds that turn the fastest time channel by one radian",
            low=0,
            low_open=True,
            source="arXiv 2510.20455",
        ),
        Param(
            "normaliser",
            "str",
            "max",
            "attention sums are divided by max_length, or by how many positions are visible",
            choices=("max", "visible"),
            source=PAPER,
        ),
        Param(
            "attention_kernel",
            "str",
            "auto",
            "auto: on a CPU, kernels that this machine's C compiler makes, if it has one, "
            "elsewhere PyTorch; torch: PyTorch alone; triton: on a GPU, kernels in Triton for "
            "heads of at most 128 channels, elsewhere as auto",
            choices=("auto", "torch", "triton"),
        ),
        *loss_params(similarity="cosine", temperature=0.05),
        *EVENT_PARAMS,
        *MOE_PARAMS,
        *TRAINING_PARAMS,
    )

    @classmethod
    def check(cls, params: Mapping[str, Any], facts: Facts | None = None) -> None:
        if params["dim"] % params["heads"]:
            raise ValueError(f"dim {params['dim']} is not divisible by heads {params['heads']}")
        if params["rotary"] != "none" and (width := _head_width(params, "qk_mult")) % 4:
            raise ValueError(
                f"rotary turns two kinds of channel pairs, so heads of dim/heads · qk_mult = "
                f"{width} channels don't do; make it a multiple of 4, or rotary none"
            )
        if facts is not None and not facts.has_times:
            _refuse_times(params)
        check_moe(params)
        check_sequences(params, facts)

    def build(self, dim: int) -> None:
        count = int(self.params["blocks"])
        self.blocks = nn.ModuleList(Block(self.params, number) for number in range(count))
        self.rotary: Rotary | None = None
        if self.params["rotary"] != "none":
            width = _head_width(self.params, "qk_mult")
            self.rotary = Rotary(self.params["rotary"], width, self.params["rotary_scale"])

    def layers(self, h: Tensor, batch: SequenceBatch, layout: Unpadding) -> Tensor:
        angles = self.rotary.angles(batch, layout) if self.rotary else None
        attend = Pointwise(self.params, batch, layout)
        for block in self.blocks:
            h = block(h, attend, angles)
        return h


def _head_width(params: Mapping[str, Any], mult: str) -> int:
    width: float = params["dim"] / params["heads"] * params[mult]
    return max(1, round(width))


def _refuse_times(params: Mapping[str, Any]) -> None:
    if params["relative_bias"] in ("time", "both"):
        raise ValueError(
            f"relative_bias {params['relative_bias']} needs time stamps and the data has only an "
            "order; set relative_bias to position or none"
        )
    if params["rotary"] in ("linear", "cumlog"):
        raise ValueError(
            f"rotary {params['rotary']} needs time stamps and the data has only an order; "
            "set rotary to index or none"
        )


class Block(nn.Module):
    """y = x + W_o · Drop(LN(A·V) ⊙ U), A = SiLU(QKᵀ + rab)/N; norms have no parameters.

    Tokens [T, d] in and out.
    """

    def __init__(self, params: Mapping[str, Any], number: int) -> None:
        super().__init__()
        dim, heads = int(params["dim"]), int(params["heads"])
        qk, v = _head_width(params, "qk_mult"), _head_width(params, "v_mult")
        self.heads, self.sizes = heads, [heads * v, heads * v, heads * qk, heads * qk]
        self.project = linear(dim, sum(self.sizes), bias=False)
        self.merge = linear(heads * v, dim)
        kind = params["relative_bias"]
        self.bias = (
            RelativeBias(kind, params["max_length"], params["time_buckets"])
            if kind != "none"
            else None
        )
        self.norm_in = make_norm(params["norm"], dim, affine=False)
        self.norm_out = make_norm(params["norm"], heads * v, affine=False)
        self.drop = Dropout(params["dropout"])
        self.mixture = MoE.from_params(params, dim, dim) if has_moe(params, number) else None
        self.norm_mixture = RMSNorm(dim) if self.mixture else None

    def forward(self, x: Tensor, attend: Pointwise, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        projected = F.silu(self.project(self.norm_in(x)))
        u, v, q, k = torch.split(projected, self.sizes, 1)
        if angles is not None:
            q, k = (rotate(y.view(y.shape[0], self.heads, -1), angles).flatten(1) for y in (q, k))
        seen = attend(q, k, v, self.heads, self.bias)
        y: Tensor = x + self.merge(self.drop(self.norm_out(seen) * u))
        if self.mixture is None or self.norm_mixture is None:
            return y
        mixed: Tensor = self.drop(self.mixture(self.norm_mixture(y)))
        return y + mixed


MODEL = HSTU
