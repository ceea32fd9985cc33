"""Buffers that are allocated once and used again in every step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Workspace:
    """Named buffers on one device; asking again for a name gives the same memory.

    A smaller shape is a view on the front of the buffer, contiguous like a tensor of its own.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self.version = 0  # rises whenever a buffer is new memory
        self._buffers: dict[str, Tensor] = {}
        self._views: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """The buffer ``name`` in this shape; its content is what the last user left."""
        view = self._views.get((name, shape))
        return self._make(name, shape) if view is None else view

    def _make(self, name: str, shape: tuple[int, ...]) -> Tensor:
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = torch.zeros(size, device=self.device, dtype=self.dtype)
            self._buffers[name] = buffer
            self.version += 1
            self._views = {key: view for key, view in self._views.items() if key[0] != name}
        view = buffer[:size].view(shape)
        self._views[name, shape] = view
        return view
