"""SASRec's block in each of its forms against the papers' equations, token by token."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.contract import Catalogue, Facts, SequenceBatch
from models.parts.transformer.dropout import Dropout
from models.parts.transformer.unpadding import Unpadding
from models.sasrec import Block, SASRec
from paropt.training.registry import build

FACTS = Facts(n_items=9, n_sessions=3, n_events=12, longest=5, has_times=False)
ITEMS = [4, 1, 1, 7]


def sasrec(**given: Any) -> SASRec:
    params = {"dim": 6, "heads": 2, "max_length": 5, "dropout": 0.0, "blocks": 1, **given}
    model = build("sasrec", params, Catalogue(FACTS, torch.ones(9, dtype=torch.int64)), seed=2)
    assert isinstance(model, SASRec)
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model.eval()


def one_row() -> SequenceBatch:
    items = torch.tensor([ITEMS])
    zeros = torch.zeros_like(items)
    return SequenceBatch(items, zeros, zeros, zeros, torch.tensor([len(ITEMS)]))


def layer_norm(row: Tensor, norm: torch.nn.Module) -> Tensor:
    scaled = (row - row.mean()) / torch.sqrt(row.var(correction=0) + 1e-6)
    return scaled * norm.weight + norm.bias


def attend(block: Block, q: list[Tensor], kv: list[Tensor], i: int) -> Tensor:
    """Multi-head softmax attention of position i over positions up to i."""
    width = 3
    heads = []
    for head in range(2):
        part = slice(width * head, width * (head + 1))
        query = block.query(q[i])[part]
        keys = [block.key_value(kv[j])[:6][part] for j in range(i + 1)]
        values = [block.key_value(kv[j])[6:][part] for j in range(i + 1)]
        scores = torch.stack([query @ key / math.sqrt(width) for key in keys]).softmax(0)
        heads.append(sum(s * v for s, v in zip(scores, values, strict=True)))
    merged: Tensor = block.merge(torch.cat(heads))
    return merged


def feed(block: Block, row: Tensor) -> Tensor:
    inner = block.feed.inner
    hidden = (inner.weight @ row + inner.bias).clamp(min=0)
    fed: Tensor = block.feed.out.weight @ hidden + block.feed.out.bias
    return fed


@pytest.mark.parametrize("form", ["pre", "post", "original", "ligr"])
def test_block_by_hand(form: str) -> None:
    given = {"skip": "ligr"} if form == "ligr" else {"norm_position": form}
    model = sasrec(**given)
    block = model.blocks[0]
    assert isinstance(block, Block)
    with torch.no_grad():
        found = model.states(one_row())[0]
        x = [
            model.items.weight[item] * math.sqrt(6) + model.positions.weight[position]
            for position, item in enumerate(ITEMS)
        ]
        n = [layer_norm(row, block.norm1) for row in x]
        for i in range(4):
            if form in ("pre", "ligr"):
                gates = [1.0, 1.0]
                seen = attend(block, n, n, i)
                if form == "ligr":
                    gates[0] = torch.sigmoid(block.skip1.gate(x[i]))
                a = x[i] + gates[0] * seen
                if form == "ligr":
                    gates[1] = torch.sigmoid(block.skip2.gate(a))
                y = a + gates[1] * feed(block, layer_norm(a, block.norm2))
                y = layer_norm(y, model.norm)
            elif form == "post":
                a = layer_norm(x[i] + attend(block, x, x, i), block.norm1)
                y = layer_norm(a + feed(block, a), block.norm2)
            else:
                f = layer_norm(n[i] + attend(block, n, x, i), block.norm2)
                y = layer_norm(f + feed(block, f), model.norm)
            torch.testing.assert_close(found[i], y, rtol=1e-4, atol=1e-5)


def test_rms_norm_and_swiglu_by_hand() -> None:
    model = sasrec(norm="rms", activation="swiglu", ffn_mult=2)
    block = model.blocks[0]
    row = torch.randn(6)
    normed = row / torch.sqrt(row.square().mean() + 1e-6) * block.norm1.gain
    torch.testing.assert_close(block.norm1(row[None])[0], normed)
    gate, value = (block.feed.gate_and_value.weight @ row).chunk(2)
    assert len(gate) == 12
    torch.testing.assert_close(block.feed(row), block.feed.out.weight @ (F.silu(gate) * value))


def test_the_item_table_is_shared_unless_told() -> None:
    assert sasrec().item_table()[0] is sasrec().items.weight or sasrec().outputs is None
    separate = sasrec(tied=False)
    assert separate.outputs is not None
    assert separate.item_table()[0] is separate.outputs.weight


# -- dropout -----------------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    torch.manual_seed(0)
    drop, x = Dropout(0.3), torch.ones(401, 999, requires_grad=True)
    y = drop(x)
    kept = y != 0
    # a share of 0.3 over 400,599 draws has a standard deviation of 0.0007
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.004)
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 1 / 0.7), rtol=1e-4, atol=0)
    for lane in range(4):  # four elements share a 64-bit draw
        assert float(kept.flatten()[lane::4].float().mean()) == pytest.approx(0.7, abs=0.008)
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y.detach())
    again = drop(x)
    assert float(((again != 0) == kept).float().mean()) == pytest.approx(0.58, abs=0.004)


def test_dropout_rests_in_evaluation() -> None:
    drop, x = Dropout(0.3), torch.randn(5)
    assert drop.eval()(x) is x and Dropout(0.0)(x) is x


def test_dropout_reaches_every_branch() -> None:
    model = sasrec(dropout=0.5).train()
    torch.manual_seed(0)
    first, second = model.states(one_row())[0], model.states(one_row())[0]
    assert not torch.allclose(first, second)


# -- packing -----------------------------------------------------------------------------------


def test_packing_by_hand() -> None:
    layout = Unpadding(torch.tensor([3, 1]), 3)
    padded = torch.arange(6.0).view(2, 3).requires_grad_()
    tokens = layout.pack(padded)
    assert tokens.tolist() == [0, 1, 2, 3]
    assert layout.row.tolist() == [0, 0, 0, 1] and layout.position.tolist() == [0, 1, 2, 0]
    (tokens * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert padded.grad is not None and padded.grad.tolist() == [[1, 2, 3], [4, 0, 0]]
    tokens = torch.arange(1.0, 5).requires_grad_()
    back = layout.unpack(tokens)
    assert back.tolist() == [[1, 2, 3], [4, 0, 0]]
    (back * padded.detach()).sum().backward()
    assert tokens.grad is not None and tokens.grad.tolist() == [0, 1, 2, 3]


def test_rows_of_like_length_are_grouped() -> None:
    lengths = [12, 9, 9, 8, 4, 4, 4, 3, 2]
    groups = Unpadding(torch.tensor(lengths), 12).groups
    assert [(g.start, g.stop, t.start, t.stop, part.width) for g, t, part in groups] == [
        (0, 4, 0, 38, 12),
        (4, 9, 38, 55, 4),
    ]
    assert len(Unpadding(torch.tensor([9] * 9), 9).groups) == 1  # nothing to win
    assert len(Unpadding(torch.tensor([9, 1]), 9).groups) == 1
