"""A model's parameters and buffers, put back where they were."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from paropt.training.registry import Model


def load_weights(model: Model, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict; a buffer that was registered empty gets the shape that it was saved with.

    Raises:
        RuntimeError: names or other shapes differ.
    """
    for name, buffer in list(model.named_buffers()):
        found = weights.get(name)
        if found is not None and buffer.numel() == 0:
            owner, _, leaf = name.rpartition(".")
            shaped = buffer.new_empty(found.shape, dtype=found.dtype)
            setattr(model.get_submodule(owner), leaf, shaped)
    model.load_state_dict(weights)


def everything(model: Model) -> dict[str, Tensor]:
    """Weights and memory, which belong together, as they are now."""
    found = {f"weights/{name}": value for name, value in model.state_dict().items()}
    return found | {f"memory/{name}": value for name, value in model.memory().items()}


def load_everything(model: Model, found: Mapping[str, Tensor]) -> None:
    """The reverse of :func:`everything`.

    Raises:
        RuntimeError: names or other shapes differ.
    """
    weights, memory = (
        {name.removeprefix(kind): value for name, value in found.items() if name.startswith(kind)}
        for kind in ("weights/", "memory/")
    )
    load_weights(model, weights)
    if model.MEMORY:
        model.load_memory({name: value.to(model.device) for name, value in memory.items()})
