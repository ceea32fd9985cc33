"""SASRec: self-attentive sequential recommendation (Kang & McAuley, arXiv 1808.09781).

The block as published, and in the forms that later work found better: pre- or post-norm, RMSNorm,
GELU or SwiGLU, gated skips (LiGR), a mixture of experts for the feed-forward; trained on every
position, with any of the losses of :mod:`models.parts.transformer.losses`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from models.parts.contract import Facts, Param, SequenceBatch
from models.parts.transformer.attention import causal_attention
from models.parts.transformer.blocks import linear, make_feed_forward, make_norm, make_skip
from models.parts.transformer.dropout import Dropout
from models.parts.transformer.moe import MOE_PARAMS, MoE, check_moe, has_moe
from models.parts.transformer.next_item_loss import loss_params
from models.parts.transformer.sequence_model import (
    EVENT_PARAMS,
    SASREC,
    TRAINING_PARAMS,
    SequenceModel,
    check_sequences,
    size_params,
)
from models.parts.transformer.unpadding import Unpadding


class SASRec(SequenceModel):
    """SASRec: causal self-attention and a feed-forward per block (arXiv 1808.09781)."""

    PARAMS: ClassVar[tuple[Param, ...]] = (
        *size_params(dim=64, blocks=2, heads=1, dropout=0.2, source="arXiv 2309.07602"),
        Param(
            "attention_dropout",
            "float",
            0.0,
            "of attention weights; above 0 attention is several times slower",
            low=0,
            high=1,
            high_open=True,
            source=SASREC,
        ),
        Param(
            "ffn_mult",
            "float",
            1.0,
            "width of the feed-forward over dim",
            low=0.25,
            high=16,
            source=SASREC,
        ),
        Param(
            "activation",
            "str",
            "relu",
            "of the feed-forward",
            choices=("relu", "gelu", "swiglu"),
            source=SASREC,
        ),
        Param(
            "norm", "str", "layer", "LayerNorm or RMSNorm", choices=("layer", "rms"), source=SASREC
        ),
        Param(
            "norm_position",
            "str",
            "pre",
            "before each branch, after its sum, or as published: skips start from what is "
            "normalised, and keys and values from what isn't",
            choices=("pre", "post", "original"),
            source=SASREC,
        ),
        Param(
            "skip",
            "str",
            "plain",
            "x + f, or gated: x + σ(Wx) ⊙ f",
            choices=("plain", "ligr"),
            source="arXiv 2502.03417",
        ),
        Param("tied", "bool", True, "one table for input and output items", source=SASREC),
        *loss_params(similarity="dot", temperature=1.0),
        *EVENT_PARAMS,
        *MOE_PARAMS,
        *TRAINING_PARAMS,
    )

    @classmethod
    def check(cls, params: Mapping[str, Any], facts: Facts | None = None) -> None:
        if params["dim"] % params["heads"]:
            raise ValueError(f"dim {params['dim']} is not divisible by heads {params['heads']}")
        if params["skip"] == "ligr" and params["norm_position"] != "pre":
            raise ValueError(f"skip ligr needs norm_position pre, not {params['norm_position']}")
        check_moe(params)
        check_sequences(params, facts)

    def build(self, dim: int) -> None:
        count = int(self.params["blocks"])
        self.blocks = nn.ModuleList(Block(self.params, number) for number in range(count))
        # post-norm blocks end in a norm of their own
        post = self.params["norm_position"] == "post"
        self.norm = nn.Identity() if post else make_norm(self.params["norm"], dim)

    def layers(self, h: Tensor, batch: SequenceBatch, layout: Unpadding) -> Tensor:
        for block in self.blocks:
            h = block(h, layout)
        out: Tensor = self.norm(h)
        return out


class Block(nn.Module):
    """Attention and feed-forward, each with dropout, skip and norm. Tokens [T, d] in and out."""

    def __init__(self, params: Mapping[str, Any], number: int) -> None:
        super().__init__()
        dim, hidden = int(params["dim"]), round(params["dim"] * params["ffn_mult"])
        self.heads, self.position = int(params["heads"]), params["norm_position"]
        self.attention_dropout = float(params["attention_dropout"])
        self.query, self.key_value = linear(dim, dim), linear(dim, 2 * dim)
        self.merge = linear(dim, dim)
        self.feed: nn.Module = (
            MoE.from_params(params, dim, hidden)
            if has_moe(params, number)
            else make_feed_forward(dim, hidden, params["activation"], params["dropout"])
        )
        self.norm1, self.norm2 = (make_norm(params["norm"], dim) for _ in range(2))
        self.skip1, self.skip2 = (make_skip(params["skip"], dim) for _ in range(2))
        self.drop = Dropout(params["dropout"])

    def forward(self, h: Tensor, layout: Unpadding) -> Tensor:
        if self.position == "pre":
            x = self.norm1(h)
            a = self.skip1(h, self.drop(self._attend(x, x, layout)))
            out = self.skip2(a, self.drop(self.feed(self.norm2(a))))
        elif self.position == "post":
            a = self.norm1(self.skip1(h, self.drop(self._attend(h, h, layout))))
            out = self.norm2(self.skip2(a, self.drop(self.feed(a))))
        else:
            q = self.norm1(h)
            a = self.norm2(self.skip1(q, self.drop(self._attend(q, h, layout))))
            out = self.skip2(a, self.drop(self.feed(a)))
        result: Tensor = out
        return result

    def _attend(self, q: Tensor, kv: Tensor, layout: Unpadding) -> Tensor:
        key, value = self.key_value(kv).chunk(2, -1)
        dropout = self.attention_dropout if self.training else 0.0
        seen = causal_attention(self.query(q), key, value, layout, self.heads, dropout)
        merged: Tensor = self.merge(seen)
        return merged


MODEL = SASRec
