"""Items' vectors as they are quantised, held in memory, and what codes of them are worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from models.parts.fields import Vectors
from models.parts.quantising.preparation import Preparation, chunks
from models.parts.quantising.quality import sharing_of, use_of


@dataclass(frozen=True)
class PreparedItems:
    """The items that have a vector.

    Attributes:
        place: the row of each item [n_items] int64; 0 where it has none.
        prepared: prepared vectors [n, k] float32.
        spread: the squared distance of the vector to the mean [n] float64.
    """

    place: Tensor
    prepared: Tensor
    spread: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name."""
        return asdict(self)

    def to(self, device: torch.device) -> PreparedItems:
        return PreparedItems(**{name: value.to(device) for name, value in self.tensors().items()})


def prepared_items(preparation: Preparation, vectors: Vectors) -> PreparedItems:
    """All items that have a vector, prepared."""
    there = (~vectors.missing).nonzero()[:, 0]
    place = torch.zeros(len(vectors), dtype=torch.int64)
    place[there] = torch.arange(len(there))
    prepared, spread = [], []
    for part in chunks(vectors, there):
        prepared.append(preparation.apply(part).float())
        spread.append((part - preparation.mean).square().sum(1))
    return PreparedItems(place, torch.cat(prepared), torch.cat(spread))


def judged(
    items: PreparedItems,
    scale: Tensor,
    rebuilt: Tensor,
    codes: Tensor,
    asked: Tensor,
    n_codes: int,
    limit: float,
) -> Mapping[str, float | Tensor]:
    """The metrics of ``codes`` [n, levels] of all prepared items.

    Args:
        scale: of the preparation [k]: what the directions are multiplied by.
        rebuilt: what the codes stand for [n, k], as prepared vectors.
        asked: the items by which the reconstruction is judged.
        n_codes: how many codes a level has.
        limit: the share of items that may have the codes of one before; with more of them the
            reconstruction counts as 1, or as what is lost where that is more, and the share on
            top: worse than any within the limit, and the worse the more there are (Deb 2000).
    """
    rows = items.place[asked.to(items.place.device)]
    own, other = items.prepared[rows].double() / scale, rebuilt[rows].double() / scale
    spread = items.spread[rows]
    beyond = (spread - own.square().sum(1)).clamp(min=0)  # in directions that are not kept
    lost = (beyond + (own - other).square().sum(1)) / items.spread.mean()
    lengths = (spread.sqrt() * other.norm(dim=1)).clamp(min=1e-30)
    uses = [use_of(level, n_codes) for level in codes.T]
    collisions = sharing_of(codes).collisions
    beyond_limit = max(1.0, float(lost.mean())) + collisions
    return {
        "reconstruction": lost if collisions <= limit else beyond_limit,
        "lost": lost,
        "cosine": (own * other).sum(1) / lengths,
        "collisions": collisions,
        "perplexity": min(use.perplexity for use in uses),
        "dead_codes": sum(use.dead for use in uses) / (n_codes * len(uses)),
    }
