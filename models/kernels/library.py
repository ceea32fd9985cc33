"""The CPU's own kernels: C that is compiled when first used.

PyTorch reads and writes every row of an item table several times over in a step of GRU4Rec; here it
is as often as the sums need it. A machine without a compiler does without: :func:`kernels` is None
then, and the same sums are PyTorch's (:mod:`models.kernels.compiling`).
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_float, c_int, c_int64, c_void_p
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from models.kernels.compiling import compiled

SOURCES = tuple(
    Path(__file__).with_name(f"{name}.c")
    for name in ("gru4rec_step", "products", "attention", "pointwise", "rank_screen")
)
HEADERS = tuple(Path(__file__).with_name(f"{name}.h") for name in ("adagrad", "tiles", "triangles"))
_MARGIN = 64  # more than a tile of any processor's has rows or columns
_SHARES, _COPIES = 64, 8  # as in pointwise.c
FEW = 1 << 14  # numbers that are not worth a second thread

SIGNATURES: dict[str, list[type]] = {
    "gather": [c_void_p] * 3 + [c_int64] * 2 + [c_int],
    "adagrad_rows": [c_void_p] * 5 + [c_int64] * 2 + [c_float] * 3 + [c_int],
    "adagrad": [c_void_p] * 4 + [c_int64] + [c_float] * 3 + [c_int],
    "bpr_max": [c_void_p] * 6 + [c_int64] * 2 + [c_float, c_int, c_float, c_float, c_int],
    "dots": [*[c_void_p, c_int64] * 2, *[c_void_p] * 3, *[c_int64] * 3, c_int],
    "weighed": [*[c_void_p, c_int64] * 2, *[c_void_p] * 2, *[c_int64] * 3, c_int],
    "learn": [
        *[c_void_p] * 4, c_int64, *[c_void_p, c_int64] * 2, *[c_int64] * 2, *[c_void_p] * 2,
        c_int64, c_void_p, c_int64, *[c_float] * 3, c_int,
    ],
    "attention": [
        *[c_void_p] * 2, *[c_void_p, c_int64] * 3, c_void_p, *[c_int64] * 4, c_float, c_void_p,
        c_int,
    ],
    "attention_backward": [
        *[c_void_p] * 5, *[c_void_p, c_int64] * 3, c_void_p, *[c_int64] * 4, c_float, c_void_p,
        c_int,
    ],
    "time_buckets": [c_void_p] * 5 + [c_int64] + [c_void_p] * 2 + [c_int],
    "pointwise": [
        c_void_p, *[c_void_p, c_int64] * 3, *[c_void_p] * 2, *[c_int64] * 5, *[c_void_p] * 3,
        c_float, c_void_p, c_int,
    ],
    "pointwise_backward": [
        *[c_void_p] * 6, *[c_void_p, c_int64] * 3, *[c_void_p] * 2, *[c_int64] * 5,
        *[c_void_p] * 3, c_int64, c_float, *[c_void_p] * 2, c_int,
    ],
    "pair_scores": [*[c_void_p] * 5, *[c_int64] * 2, c_int],
    "contend": [
        c_void_p, c_int, *[c_void_p] * 2, c_int64, c_void_p, c_int64, *[c_void_p] * 3, c_int64,
        *[c_void_p] * 4, c_int64, *[c_void_p] * 2, c_int,
    ],
}  # fmt: skip


class Triangles(NamedTuple):
    """Sequences that lie one behind another, and their triangles of pairs (query, key ≤ query).

    Sequence b's tokens begin at ``bounds`` [B + 1] [b] and are at most ``longest``; its n·(n + 1)/2
    pairs, row behind row, begin at ``starts`` [B + 1] [b].
    """

    bounds: Tensor
    starts: Tensor
    longest: int


class Biases(NamedTuple):
    """What is added to a pair's score: ``back`` [longest] by distance, the longest first, and
    ``time`` [n] by the pair's one of ``buckets`` (uint8); any may be missing."""

    back: Tensor | None
    time: Tensor | None
    buckets: Tensor | None


class Kernels:
    """Calls into the compiled file, on contiguous float32 tensors and int64 indices of a CPU.

    Work is shared out among as many threads as PyTorch has; the result does not depend on them.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._calls = {}
        for name, arguments in SIGNATURES.items():
            call = getattr(library, name)
            call.argtypes, call.restype = arguments, None
            self._calls[name] = call
        self.shortest_row: int = library.shortest_row()

    @staticmethod
    def take(*tensors: Tensor | None) -> bool:
        """Whether these tensors can be worked on here."""
        return all(
            t is None or (t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous())
            for t in tensors
        )

    def multiply(self, table: Tensor) -> bool:
        """Whether rows of ``table`` are long enough for the products."""
        return table.dim() == 2 and table.shape[1] >= self.shortest_row

    def gather(self, table: Tensor, rows: Tensor, out: Tensor) -> Tensor:
        """out[i] = table[rows[i]] for ``table`` [n, d], ``rows`` [k], ``out`` [k, d]."""
        k, d = len(rows), _width(table)
        self._calls["gather"](
            out.data_ptr(), table.data_ptr(), rows.data_ptr(), k, d, _threads(k * d)
        )
        return out

    def adagrad_rows(
        self, weight: Tensor, squares: Tensor, velocity: Tensor | None, grad: Tensor, rows: Tensor,
        learning_rate: float, momentum: float, keep: float,
    ) -> None:  # fmt: skip
        """One step of Adagrad on the distinct ``rows`` [k] of tables [n, d], by ``grad`` [k, d].

        ``keep`` is what is left of a weight that decays. See :mod:`models.parts.gru4rec.adagrad`.
        """
        k, d = len(rows), _width(weight)
        self._calls["adagrad_rows"](
            weight.data_ptr(), squares.data_ptr(), _address(velocity), grad.data_ptr(),
            rows.data_ptr(), k, d, learning_rate, momentum, keep, _threads(k * d),
        )  # fmt: skip

    def adagrad(
        self, weight: Tensor, squares: Tensor, velocity: Tensor | None, grad: Tensor,
        learning_rate: float, momentum: float, keep: float,
    ) -> None:  # fmt: skip
        """The same on all of ``weight``."""
        n = weight.numel()
        self._calls["adagrad"](
            weight.data_ptr(), squares.data_ptr(), _address(velocity), grad.data_ptr(), n,
            learning_rate, momentum, keep, _threads(n),
        )  # fmt: skip

    def bpr_max(
        self, scores: Tensor, own: Tensor, log_counts: Tensor, others: Tensor, spare: Tensor,
        bpreg: float, elu: tuple[float, float] | None,
    ) -> Tensor:  # fmt: skip
        """As :func:`models.parts.gru4rec.losses.bpr_max_gradient_`, written over ``scores``.

        ``elu`` is (scale, α) of the activation, None where ``scores`` [M, U] are to be taken as
        they are. ``spare`` has 2·U numbers for each thread. Returns the losses [M].
        """
        m, u = scores.shape
        losses, (scale, alpha) = scores.new_empty(m), elu or (1.0, 1.0)
        self._calls["bpr_max"](
            scores.data_ptr(), own.data_ptr(), log_counts.data_ptr(), others.data_ptr(),
            losses.data_ptr(), spare.data_ptr(), m, u, bpreg, int(elu is not None), scale, alpha,
            _threads(m * u),
        )  # fmt: skip
        return losses

    def dots(
        self,
        x: Tensor,
        table: Tensor,
        bias: Tensor | None,
        out: Tensor,
        rows: Tensor | None = None,
    ) -> Tensor:
        """out[j, i] = x[j] · table[rows[i]] + bias[i], for as many rows as ``out`` [m, c] has.

        ``x`` [m, k] and ``out`` may be columns of wider tensors. Without ``rows`` they are those of
        ``table`` [n, k], in order.
        """
        (m, k), c = x.shape, out.shape[1]
        self._calls["dots"](
            out.data_ptr(), out.stride(0), x.data_ptr(), x.stride(0), table.data_ptr(),
            _address(rows), _address(bias), m, c, k, _threads(c * k),
        )  # fmt: skip
        return out

    def weighed(self, d: Tensor, table: Tensor, out: Tensor, rows: Tensor | None = None) -> Tensor:
        """out[j] = Σ_i d[j, i] · table[rows[i]], for ``d`` [m, c] and ``out`` [m, k]."""
        (m, c), k = d.shape, table.shape[1]
        self._calls["weighed"](
            out.data_ptr(), out.stride(0), d.data_ptr(), d.stride(0), table.data_ptr(),
            _address(rows), m, c, k, _threads(c * k),
        )  # fmt: skip
        return out

    def learn(
        self, weight: Tensor, squares: Tensor, velocity: Tensor | None, learning_rate: float,
        momentum: float, keep: float, *, product: tuple[Tensor, Tensor] | None,
        rows: Tensor | None = None, added: tuple[Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        """One step of Adagrad on the distinct ``rows`` [n] of tables [N, k], or on all.

        The gradient of the first c of them is dᵀ·x, ``product`` = (d [m, c], x [m, k]), and to
        that of each comes the sum of the values that ``added`` = (places [p], values [p, k]) has
        for its place among them. See :mod:`models.parts.gru4rec.adagrad`.
        """
        k = weight.shape[1]
        n = len(weight if rows is None else rows)
        d, x = product or (weight[:0, :0], weight[:0])
        places, values = added or (None, None)
        p = 0 if places is None else len(places)
        links = torch.empty(n + p, dtype=torch.int64)
        self._calls["learn"](
            weight.data_ptr(), squares.data_ptr(), _address(velocity), _address(rows), n,
            d.data_ptr(), d.stride(0), x.data_ptr(), x.stride(0), len(x), d.shape[1],
            _address(places), _address(values), p, links.data_ptr(), k,
            learning_rate, momentum, keep, _threads(n * k),
        )  # fmt: skip

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, heads: int,
        scale: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """softmax(scale·QKᵀ)·V of sequences, whose tokens see those before them and themselves.

        ``q``, ``k`` and ``v`` [T, H·d] may be columns of wider tensors; sequence b's tokens are
        those from ``bounds`` [B + 1] [b] to [b + 1], at most ``longest``. Returns the output
        [T, H·d] and log Σ exp of each token's scores [T, H].
        """
        (tokens, size), n, threads = q.shape, len(bounds) - 1, _threads(q.numel())
        out, log_sums = q.new_empty(tokens, size), q.new_empty(tokens, heads)
        d = size // heads
        spare = q.new_empty(threads * (d + _MARGIN) * (longest + _MARGIN))
        self._calls["attention"](
            out.data_ptr(), log_sums.data_ptr(), *_rows(q), *_rows(k), *_rows(v),
            bounds.data_ptr(), n, longest, heads, d, scale, spare.data_ptr(), threads,
        )  # fmt: skip
        return out, log_sums

    def attention_backward(
        self, grad: Tensor, log_sums: Tensor, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor,
        longest: int, heads: int, scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """The gradients of ``q``, ``k`` and ``v`` from ``grad`` [T, H·d], that of the output."""
        (tokens, size), n, threads = q.shape, len(bounds) - 1, _threads(q.numel())
        found = tuple(q.new_empty(tokens, size) for _ in range(3))
        d = size // heads
        spare = q.new_empty(2 * threads * (d + longest + _MARGIN) * (longest + _MARGIN))
        self._calls["attention_backward"](
            *(t.data_ptr() for t in found), grad.data_ptr(), log_sums.data_ptr(), *_rows(q),
            *_rows(k), *_rows(v), bounds.data_ptr(), n, longest, heads, d, scale,
            spare.data_ptr(), threads,
        )  # fmt: skip
        return found[0], found[1], found[2]

    def time_buckets(
        self, since: Tensor, times: Tensor, rows: Triangles, first: Tensor, edge: Tensor
    ) -> Tensor:
        """The bucket (uint8) of each pair's |``since`` of the query − ``times`` of the key|, both
        [T] int64, by cells of floats: see :func:`models.parts.transformer.positions.bucket_cells`.
        """
        n, pairs = len(rows.bounds) - 1, int(rows.starts[-1])
        out = torch.empty(pairs, dtype=torch.uint8)
        self._calls["time_buckets"](
            out.data_ptr(), since.data_ptr(), times.data_ptr(), rows.bounds.data_ptr(),
            rows.starts.data_ptr(), n, first.data_ptr(), edge.data_ptr(), _threads(pairs),
        )  # fmt: skip
        return out

    def pointwise(
        self, q: Tensor, k: Tensor, v: Tensor, rows: Triangles, heads: int, biases: Biases,
        normaliser: float,
    ) -> Tensor:  # fmt: skip
        """Σ_{j ≤ i} SiLU(q_i·k_j + biases) · v_j / N of each token i, [T, H·d_v].

        ``q`` and ``k`` [T, H·d] and ``v`` [T, H·d_v] may be columns of wider tensors. N is
        ``normaliser``, or where that is 0 how many tokens a query sees.
        """
        out = q.new_empty(v.shape)
        n, longest, threads = len(rows.bounds) - 1, rows.longest, _threads(q.numel())
        d, d_v = q.shape[1] // heads, v.shape[1] // heads
        spare = q.new_empty(threads * (d + _MARGIN) * (longest + _MARGIN))
        self._calls["pointwise"](
            out.data_ptr(), *_rows(q), *_rows(k), *_rows(v), rows.bounds.data_ptr(),
            rows.starts.data_ptr(), n, longest, heads, d, d_v, *map(_address, biases),
            normaliser, spare.data_ptr(), threads,
        )  # fmt: skip
        return out

    def pointwise_backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, rows: Triangles, heads: int,
        biases: Biases, normaliser: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        """The gradients of ``q``, ``k``, ``v`` and of both biases from ``grad`` [T, H·d_v], that of
        the output."""
        dq, dk, dv = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
        dback, dtime = (None if x is None else torch.empty_like(x) for x in biases[:2])
        n, longest, threads = len(rows.bounds) - 1, rows.longest, _threads(q.numel())
        d, d_v = q.shape[1] // heads, v.shape[1] // heads
        kinds = 0 if biases.time is None else len(biases.time)
        spare = q.new_empty(threads * (d + d_v + 2 * (longest + _MARGIN)) * (longest + _MARGIN))
        sums = q.new_empty(_SHARES * (longest + _COPIES * kinds))
        self._calls["pointwise_backward"](
            *(t.data_ptr() for t in (dq, dk, dv)), _address(dback), _address(dtime),
            grad.data_ptr(), *_rows(q), *_rows(k), *_rows(v), rows.bounds.data_ptr(),
            rows.starts.data_ptr(), n, longest, heads, d, d_v, *map(_address, biases), kinds,
            normaliser, spare.data_ptr(), sums.data_ptr(), threads,
        )  # fmt: skip
        return dq, dk, dv, dback, dtime

    def pair_scores(self, vectors: Tensor, table: Tensor, bias: Tensor, items: Tensor) -> Tensor:
        """``vectors`` [P, d] · rows ``items`` [P] of ``table`` + ``bias``: [P].

        Equal factors give equal scores, here and in :meth:`contend`.
        """
        p, d = vectors.shape
        out = vectors.new_empty(p)
        self._calls["pair_scores"](
            out.data_ptr(), vectors.data_ptr(), table.data_ptr(), bias.data_ptr(),
            items.data_ptr(), p, d, _threads(p * d),
        )  # fmt: skip
        return out

    def contend(
        self, rough: Tensor, least: Tensor, open_rows: Tensor, items: Tensor, vectors: Tensor,
        table: Tensor, bias: Tensor, own: Tensor, targets: Tensor,
        seen: tuple[Tensor, Tensor] | None, depth: int, above: Tensor, at_least: Tensor,
    ) -> None:  # fmt: skip
        """Count the items that beat the target of each open row, and those that score as high.

        Looked at are the ``items`` [n] whose ``rough`` score [m, n] (float32 or bfloat16) reaches
        ``least`` [m], for ``open_rows`` [m] of ``vectors`` [T, d], ``own`` [T] (by
        :meth:`pair_scores`), ``targets`` [T] and of the counts ``above`` and ``at_least`` [T]
        int64, which are added to until ``depth`` items are above. ``seen`` = (items, ends [T + 1])
        are those that don't count for a row, ascending, the target excepted.
        """
        (m, n), d = rough.shape, vectors.shape[1]
        listed, ends = seen or (None, None)
        self._calls["contend"](
            rough.data_ptr(), int(rough.dtype == torch.bfloat16), least.data_ptr(),
            open_rows.data_ptr(), m, items.data_ptr(), n, vectors.data_ptr(), table.data_ptr(),
            bias.data_ptr(), d, own.data_ptr(), targets.data_ptr(), _address(listed),
            _address(ends), depth, above.data_ptr(), at_least.data_ptr(), _threads(m * n),
        )  # fmt: skip


def _width(table: Tensor) -> int:
    return table.numel() // len(table)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _rows(tensor: Tensor) -> tuple[int, int]:
    """Where its rows begin, and how far from one another."""
    return tensor.data_ptr(), tensor.stride(0)


def _threads(numbers: int) -> int:
    return 1 if numbers < FEW else torch.get_num_threads()


@functools.cache
def kernels() -> Kernels | None:
    """The kernels of this machine; None where none can be made, and the log says why."""
    library = compiled(SOURCES, HEADERS)
    return None if library is None else Kernels(library)
