"""Vectors of texts, made ahead by a frozen encoder and projected here: LN(W e + b).

Raw sentence vectors lie in a narrow cone. So W begins with their leading principal directions,
whitened, where the vectors are at hand; it is trained from there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.parts.contract import Table
from models.parts.transformer.blocks import LayerNorm, linear

SAMPLE = 20_000  # vectors that the principal directions are made of


class Texts(nn.Module):
    """Rows of texts in ``dim`` channels; what has no text is a learned vector.

    A saved model holds no raw vectors, but what :meth:`all` gave (:meth:`keep`).
    """

    def __init__(self, table: Table, names: Sequence[str], dim: int) -> None:
        super().__init__()
        self.fields = [table.vectors(name) for name in names]
        self.projections = nn.ModuleList(linear(field.dim, dim) for field in self.fields)
        self.null = nn.ParameterList(nn.Parameter(0.02 * torch.randn(dim)) for _ in self.fields)
        self.norm = LayerNorm(dim)
        self.kept: Tensor | None
        self.register_buffer("kept", None, persistent=False)
        for number, field in enumerate(self.fields):
            if field.present:
                vectors = field.rows(torch.arange(len(field)))
                _whiten(self.projections[number], vectors[~field.missing])
                self._hold(f"raw{number}", vectors.half())
                self._hold(f"missing{number}", field.missing)

    def _hold(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor, persistent=False)

    def __len__(self) -> int:
        return len(self.fields[0])

    def rows(self, index: Tensor | None = None) -> Tensor:
        """[…, dim] of rows […]; of all of them, in order, where nothing is said."""
        if self.kept is not None:
            return self.kept if index is None else self.kept[index]
        parts = []
        for number, (project, null) in enumerate(zip(self.projections, self.null, strict=True)):
            raw, missing = (self.get_buffer(f"{what}{number}") for what in ("raw", "missing"))
            if index is not None:
                raw, missing = raw[index], missing[index]
            parts.append(torch.where(missing[..., None], null, project(raw.float())))
        out: Tensor = self.norm(sum(parts[1:], parts[0]))
        return out

    def keep(self, projected: Tensor) -> None:
        """Take this for :meth:`rows` from now on."""
        self.kept = projected


def _whiten(projection: nn.Module, vectors: Tensor) -> None:
    """Let a projection give leading principal components of unit variance."""
    assert isinstance(projection, nn.Linear)
    some = vectors[:: max(1, len(vectors) // SAMPLE)].double()
    if len(some) < 2:
        return
    mean = some.mean(0)
    values, directions = torch.linalg.eigh((some - mean).T @ (some - mean) / len(some))
    count = min(projection.out_features, int((values > 1e-6 * values[-1]).sum()))
    if not count:
        return
    leading = directions[:, -count:].flip(1) / values[-count:].flip(0).sqrt()
    # spread over all channels by a random rotation: attention heads are slices of channels
    turn = torch.linalg.qr(torch.randn(projection.out_features, count, dtype=torch.float64)).Q
    with torch.no_grad():
        weight = turn @ leading.T
        projection.weight.copy_(weight)
        projection.bias.copy_(-weight @ mean)
