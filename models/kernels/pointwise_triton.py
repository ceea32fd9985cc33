"""HSTU's attention on a GPU, in Triton: forwards and backwards, on sequences as they lie.

Asked for by ``attention_kernel=triton``, never chosen by itself; ``benchmarks/GPU.md`` says what
has been seen of it. Sums of products stay float32 (no TF32), and each sum has one order: two runs
give the same bits. Imported where it is used only: PyTorch for a CPU comes without Triton.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

jit: Callable[[Callable[..., Any]], Any] = triton.jit
BLOCK = 64  # queries, and keys, of a tile
WIDEST = 128  # channels of a head


class Sequences(NamedTuple):
    """Sequences that lie one behind another, with what their pairs are biased by.

    Sequence b's tokens begin at ``bounds`` [B + 1] [b] and are at most ``longest``. ``since`` and
    ``times`` [T] int64 are of queries and keys; ``first`` and ``edge`` [1024] tell their buckets
    (:func:`models.parts.transformer.positions.bucket_cells`). ``normaliser`` 0: what a query sees.
    """

    bounds: Tensor
    longest: int
    normaliser: float
    since: Tensor
    times: Tensor
    first: Tensor
    edge: Tensor


@jit
def _rows(
    at: tl.tensor,
    begin: tl.tensor,
    length: tl.tensor,
    stride: tl.tensor,
    channels: tl.tensor,
    d: tl.tensor,
    index: tl.tensor,
) -> tl.tensor:
    """Rows ``index`` of a head's tokens, zero beyond its sequence and its width."""
    where = (begin + index)[:, None] * stride + channels[None, :]
    return tl.load(at + where, (index < length)[:, None] & (channels < d)[None, :], 0.0)


@jit
def _bucket(
    since: tl.tensor,
    times: tl.tensor,
    first: tl.tensor,
    edge: tl.tensor,
    begin: tl.tensor,
    length: tl.tensor,
    i: tl.tensor,
    j: tl.tensor,
) -> tl.tensor:
    asked = tl.load(since + begin + i, i < length, 0)
    then = tl.load(times + begin + j, j < length, 0)
    apart = tl.abs((asked[:, None] - then[None, :]).to(tl.float32))
    cell = apart.to(tl.int32, bitcast=True) >> 21
    return tl.load(first + cell) + (apart >= tl.load(edge + cell)).to(tl.int32)


@jit
def _weights(
    q: tl.tensor,
    k: tl.tensor,
    position: tl.tensor,
    time: tl.tensor,
    since: tl.tensor,
    times: tl.tensor,
    first: tl.tensor,
    edge: tl.tensor,
    normaliser: tl.tensor,
    begin: tl.tensor,
    length: tl.tensor,
    i: tl.tensor,
    j: tl.tensor,
    PLACED: tl.constexpr,
    TIMED: tl.constexpr,
) -> tl.tensor:
    """Scores, σ of them, and mask over normaliser of a tile."""
    s = tl.dot(q, tl.trans(k), input_precision="ieee")
    seen = (j[None, :] <= i[:, None]) & (i < length)[:, None]
    if PLACED:
        s += tl.load(position + i[:, None] - j[None, :], seen, 0.0)
    if TIMED:
        s += tl.load(time + _bucket(since, times, first, edge, begin, length, i, j), seen, 0.0)
    count = tl.where(normaliser > 0, normaliser, (i + 1).to(tl.float32))
    return s, 1 / (1 + tl.exp(-s)), tl.where(seen, 1 / count[:, None], 0.0)


@jit
def _forward(
    out: tl.tensor,
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    position: tl.tensor,
    time: tl.tensor,
    since: tl.tensor,
    times: tl.tensor,
    first: tl.tensor,
    edge: tl.tensor,
    bounds: tl.tensor,
    q_row: tl.tensor,
    k_row: tl.tensor,
    v_row: tl.tensor,
    normaliser: tl.tensor,
    heads: tl.tensor,
    d: tl.tensor,
    d_v: tl.tensor,
    BLOCK: tl.constexpr,
    D: tl.constexpr,
    D_V: tl.constexpr,
    PLACED: tl.constexpr,
    TIMED: tl.constexpr,
) -> tl.tensor:
    task = tl.program_id(1)
    head = task % heads
    begin = tl.load(bounds + task // heads)
    length = (tl.load(bounds + task // heads + 1) - begin).to(tl.int32)
    here = tl.program_id(0) * BLOCK
    if here < length:
        i, c, c_v = here + tl.arange(0, BLOCK), tl.arange(0, D), tl.arange(0, D_V)
        asked = _rows(q + head * d, begin, length, q_row, c, d, i)
        sum = tl.zeros((BLOCK, D_V), tl.float32)
        for there in range(0, here + BLOCK, BLOCK):
            j = there + tl.arange(0, BLOCK)
            key = _rows(k + head * d, begin, length, k_row, c, d, j)
            value = _rows(v + head * d_v, begin, length, v_row, c_v, d_v, j)
            s, rise, part = _weights(
                asked, key, position, time, since, times, first, edge, normaliser, begin, length, i,
                j, PLACED, TIMED,
            )  # fmt: skip
            w = (s * rise * part).to(value.dtype)
            sum += tl.dot(w, value, input_precision="ieee")
        where = (begin + i)[:, None] * heads * d_v + head * d_v + c_v[None, :]
        tl.store(out + where, sum, (i < length)[:, None] & (c_v < d_v)[None, :])


@jit
def _backward_queries(
    dq: tl.tensor,
    dposition: tl.tensor,
    dtime: tl.tensor,
    skewed: tl.tensor,
    grad: tl.tensor,
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    position: tl.tensor,
    time: tl.tensor,
    since: tl.tensor,
    times: tl.tensor,
    first: tl.tensor,
    edge: tl.tensor,
    bounds: tl.tensor,
    q_row: tl.tensor,
    k_row: tl.tensor,
    v_row: tl.tensor,
    normaliser: tl.tensor,
    heads: tl.tensor,
    d: tl.tensor,
    d_v: tl.tensor,
    longest: tl.tensor,
    kinds: tl.tensor,
    BLOCK: tl.constexpr,
    D: tl.constexpr,
    D_V: tl.constexpr,
    PLACED: tl.constexpr,
    TIMED: tl.constexpr,
) -> tl.tensor:
    """dq of a block of queries, and its part of the biases' gradients: a row of ``dposition`` and
    of ``dtime`` of its own. A tile's diagonals are columns of it as ``skewed`` lays it down."""
    task = tl.program_id(1)
    program = task.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    head = task % heads
    begin = tl.load(bounds + task // heads)
    length = (tl.load(bounds + task // heads + 1) - begin).to(tl.int32)
    here = tl.program_id(0) * BLOCK
    a = tl.arange(0, BLOCK)
    if here < length:
        i, c, c_v = here + a, tl.arange(0, D), tl.arange(0, D_V)
        asked = _rows(q + head * d, begin, length, q_row, c, d, i)
        given = _rows(grad + head * d_v, begin, length, heads * d_v, c_v, d_v, i)
        sum = tl.zeros((BLOCK, D), tl.float32)
        for there in range(0, here + BLOCK, BLOCK):
            j = there + a
            key = _rows(k + head * d, begin, length, k_row, c, d, j)
            value = _rows(v + head * d_v, begin, length, v_row, c_v, d_v, j)
            s, rise, part = _weights(
                asked, key, position, time, since, times, first, edge, normaliser, begin, length, i,
                j, PLACED, TIMED,
            )  # fmt: skip
            g = tl.dot(given, tl.trans(value), input_precision="ieee")
            g = g * rise * (1 + s * (1 - rise)) * part
            sum += tl.dot(g.to(key.dtype), key, input_precision="ieee")
            if PLACED:
                tile = skewed + program * BLOCK * BLOCK
                tl.debug_barrier()  # the tile before has been read
                tl.store(tile + a[:, None] * BLOCK + a[None, :], g)
                tl.debug_barrier()
                back = tl.arange(0, 2 * BLOCK) - BLOCK  # i − j within the tile
                column = a[:, None] - back[None, :]
                inside = (column >= 0) & (column < BLOCK)
                diagonals = tl.sum(tl.load(tile + a[:, None] * BLOCK + column, inside, 0.0), 0)
                distance = here - there + back
                at = dposition + program * longest + distance
                kept = (distance >= 0) & (distance < longest)
                tl.store(at, tl.load(at, kept, 0.0) + diagonals, kept)
            if TIMED:
                bucket = _bucket(since, times, first, edge, begin, length, i, j)
                bucket = tl.where(part > 0, bucket, -1)
                low = tl.min(tl.where(bucket < 0, kinds, bucket))
                for b in range(low, tl.max(bucket) + 1):
                    sum_of_b = dtime + program * kinds + b
                    tl.store(sum_of_b, tl.load(sum_of_b) + tl.sum(tl.where(bucket == b, g, 0.0)))
        where = (begin + i)[:, None] * heads * d + head * d + c[None, :]
        tl.store(dq + where, sum, (i < length)[:, None] & (c < d)[None, :])


@jit
def _backward_keys(
    dk: tl.tensor,
    dv: tl.tensor,
    grad: tl.tensor,
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    position: tl.tensor,
    time: tl.tensor,
    since: tl.tensor,
    times: tl.tensor,
    first: tl.tensor,
    edge: tl.tensor,
    bounds: tl.tensor,
    q_row: tl.tensor,
    k_row: tl.tensor,
    v_row: tl.tensor,
    normaliser: tl.tensor,
    heads: tl.tensor,
    d: tl.tensor,
    d_v: tl.tensor,
    BLOCK: tl.constexpr,
    D: tl.constexpr,
    D_V: tl.constexpr,
    PLACED: tl.constexpr,
    TIMED: tl.constexpr,
) -> tl.tensor:
    task = tl.program_id(1)
    head = task % heads
    begin = tl.load(bounds + task // heads)
    length = (tl.load(bounds + task // heads + 1) - begin).to(tl.int32)
    there = tl.program_id(0) * BLOCK
    a = tl.arange(0, BLOCK)
    if there < length:
        j, c, c_v = there + a, tl.arange(0, D), tl.arange(0, D_V)
        key = _rows(k + head * d, begin, length, k_row, c, d, j)
        value = _rows(v + head * d_v, begin, length, v_row, c_v, d_v, j)
        keys, values = tl.zeros((BLOCK, D), tl.float32), tl.zeros((BLOCK, D_V), tl.float32)
        for here in range(there, length, BLOCK):
            i = here + a
            asked = _rows(q + head * d, begin, length, q_row, c, d, i)
            given = _rows(grad + head * d_v, begin, length, heads * d_v, c_v, d_v, i)
            s, rise, part = _weights(
                asked, key, position, time, since, times, first, edge, normaliser, begin, length, i,
                j, PLACED, TIMED,
            )  # fmt: skip
            w = (s * rise * part).to(given.dtype)
            values += tl.dot(tl.trans(w), given, input_precision="ieee")
            g = tl.dot(given, tl.trans(value), input_precision="ieee")
            g = g * rise * (1 + s * (1 - rise)) * part
            keys += tl.dot(tl.trans(g.to(asked.dtype)), asked, input_precision="ieee")
        rows = (begin + j)[:, None] * heads
        inside = (j < length)[:, None]
        tl.store(dk + (rows + head) * d + c[None, :], keys, inside & (c < d)[None, :])
        tl.store(dv + (rows + head) * d_v + c_v[None, :], values, inside & (c_v < d_v)[None, :])


def forward(
    q: Tensor, k: Tensor, v: Tensor, position: Tensor | None, time: Tensor | None, rows: Sequences,
    heads: int,
) -> Tensor:  # fmt: skip
    """Σ_{j ≤ i} SiLU(q_i·k_j + biases) · v_j / N of each token i, [T, H·d_v].

    ``q`` and ``k`` [T, H·d], ``v`` [T, H·d_v], of one type, may be columns of wider tensors.
    """
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    grid, given, sizes, constants = _launch(q, k, v, position, time, rows, heads)
    _forward[grid](out, *given, *sizes, **constants)
    return out


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, position: Tensor | None, time: Tensor | None,
    rows: Sequences, heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients of all that goes into :func:`forward` from ``grad`` [T, H·d_v], contiguous."""
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    grid, given, sizes, constants = _launch(q, k, v, position, time, rows, heads)
    programs = grid[0] * grid[1]
    kinds = 0 if time is None else len(time)
    sums = [torch.zeros((programs, n), device=q.device) for n in (rows.longest, kinds)]
    skewed = torch.empty(0 if position is None else programs * BLOCK**2, device=q.device)
    _backward_queries[grid](
        dq, *sums, skewed, grad, *given, *sizes, rows.longest, kinds, **constants
    )
    _backward_keys[grid](dk, dv, grad, *given, *sizes, **constants)
    dposition = dtime = None
    if position is not None:
        dposition = position.new_zeros(len(position))
        dposition[: rows.longest] = sums[0].sum(0)
    if time is not None:
        dtime = sums[1].sum(0)
    return dq, dk, dv, dposition, dtime


def _launch(
    q: Tensor, k: Tensor, v: Tensor, position: Tensor | None, time: Tensor | None, rows: Sequences,
    heads: int,
) -> tuple[tuple[int, int], tuple[Any, ...], tuple[Any, ...], dict[str, Any]]:  # fmt: skip
    d, d_v = q.shape[1] // heads, v.shape[1] // heads
    grid = triton.cdiv(rows.longest, BLOCK), (len(rows.bounds) - 1) * heads
    biases = (q if position is None else position, q if time is None else time)
    given = (q, k, v, *biases, rows.since, rows.times, rows.first, rows.edge, rows.bounds)
    sizes = (q.stride(0), k.stride(0), v.stride(0), rows.normaliser, heads, d, d_v)
    constants = {
        "BLOCK": BLOCK,
        "D": max(16, triton.next_power_of_2(d)),
        "D_V": max(16, triton.next_power_of_2(d_v)),
        "PLACED": position is not None,
        "TIMED": time is not None,
    }
    return grid, given, sizes, constants
