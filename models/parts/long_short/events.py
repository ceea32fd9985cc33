"""An event as a vector: what it was of, what was done, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import Catalogue
from models.parts.long_short.stretches import Tokens
from models.parts.transformer.blocks import linear

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MONDAY = 3  # days from a Monday to Thursday, 1 January 1970
NUMBERS = 4


class EventEncoder(nn.Module):
    """The projection of embeddings of item, category, behaviour, weekday, hour and weekend, and of
    four numbers of time. Tokens [T] in, [T, dim] out.

    An item with fewer than ``item_support`` training events is unknown, as is one that training
    never saw; then its category speaks for it. In training a share ``item_dropout`` of the others
    is unknown too, for the unknown to be learnt.
    """

    item_row: Tensor

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue) -> None:
        super().__init__()
        dim, item_dim = int(params["dim"]), int(params["item_dim"])
        frequent = catalogue.support >= params["item_support"]
        # one row more: what is unknown, and 0 is what it becomes
        rows = torch.where(frequent, frequent.cumsum(0), 0)
        self.register_buffer("item_row", F.pad(rows, (0, 1)), persistent=False)
        self.item_dropout = float(params["item_dropout"])
        self.names = columns_of(params)
        sizes = {name: catalogue.facts.columns[name].size for name in self.names}
        self.items = _embedding(int(frequent.sum()) + 1, item_dim)
        self.columns = nn.ModuleDict(
            {
                name: _embedding(size + 1, item_dim if name == "category" else 8)
                for name, size in sizes.items()
            }
        )
        self.hour, self.weekday, self.weekend = (_embedding(n, 8) for n in (24, 7, 2))
        wide = item_dim + 24 + NUMBERS
        wide += sum(item_dim if name == "category" else 8 for name in self.names)
        self.project = linear(wide, dim)
        nn.init.xavier_uniform_(self.project.weight)

    def forward(self, tokens: Tokens) -> Tensor:
        hours, days = tokens.times // HOUR_MS, tokens.times // DAY_MS
        weekday = (days + MONDAY) % 7
        parts = [self.items(self._rows(tokens.items))]
        for name, embedding in self._columns().items():
            parts.append(embedding(tokens.columns[name] + 1))
        parts += [self.hour(hours % 24), self.weekday(weekday), self.weekend((weekday > 4).long())]
        out: Tensor = self.project(torch.cat([*parts, time_numbers(tokens)], 1))
        return out

    def _columns(self) -> dict[str, nn.Module]:
        return {name: self.columns[name] for name in self.names}

    def _rows(self, items: Tensor) -> Tensor:
        rows = self.item_row[items.clamp(max=len(self.item_row) - 1)]
        if self.training and self.item_dropout:
            rows = rows * (torch.rand(rows.shape, device=rows.device) >= self.item_dropout)
        return rows


def columns_of(params: Mapping[str, Any]) -> list[str]:
    """The columns of events that are read, beside the one that says which part they are in."""
    return [name for name in ("category", "behaviour") if params[name]]


def time_numbers(tokens: Tokens) -> Tensor:
    """[T, 4] of about one: logarithms of the seconds since the previous event and until the part's
    end, and where between the part's begin and end the event lies, from either side.

    All are of the event's own part, so that nothing tells what comes after it.
    """
    times = tokens.times
    previous = torch.where(tokens.position > 0, times.roll(1), times)
    span = (tokens.last - tokens.first).clamp(min=1).float()
    done = (times - tokens.first).float() / span
    seconds = torch.stack([times - previous, tokens.last - times], 1).clamp(min=0).float() / 1000
    return torch.cat([torch.log1p(seconds) / 10, done[:, None], 1 - done[:, None]], 1)


def _embedding(count: int, dim: int) -> nn.Embedding:
    embedding = nn.Embedding(count, dim)
    nn.init.normal_(embedding.weight, std=0.1)
    return embedding
