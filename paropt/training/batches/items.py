"""Batches of items, for models that learn from what is known of items and from no sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor


class ItemBatches(Sequence[Tensor]):
    """An epoch's items [n] int64 in batches; ``n_targets`` are the sizes of these."""

    def __init__(self, items: Tensor, batch_size: int) -> None:
        self.items, self.batch_size = items, batch_size
        begins = range(0, len(items), batch_size)
        self.n_targets = [min(batch_size, len(items) - begin) for begin in begins]

    def __len__(self) -> int:
        return len(self.n_targets)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        begin = index * self.batch_size
        return self.items[begin : begin + self.batch_size]


class TrainingItems:
    """The items to train on [n] int64, in another order every epoch."""

    def __init__(
        self, items: Tensor, batch_size: int, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        self.items, self.batch_size, self.seed = items.to(device), batch_size, seed
        self.n_batches = -(-len(items) // batch_size)

    def epoch(self, epoch: int) -> ItemBatches:
        """The batches of epoch ``epoch``, shuffled by (seed, epoch) alone."""
        # Philox's raw stream is the same in every version of NumPy; shuffles are not
        stream = np.random.Philox(key=[self.seed % (1 << 64), epoch])
        order = np.argsort(stream.random_raw(len(self.items)), kind="stable")
        return ItemBatches(
            self.items[torch.from_numpy(order).to(self.items.device)], self.batch_size
        )
