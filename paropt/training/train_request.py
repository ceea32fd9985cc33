"""What a training is asked: the configuration, the data's view, and how it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paropt.errors import ParamError
from paropt.training.evaluation.protocol import Ties
from paropt.training.semantics import DEFAULT_SEED

UNSAID = ("adapt_params", "[]")  # in GRU4Rec's own lines of parameters: Adagrad has none


@dataclass(frozen=True)
class TrainRequest:
    """What is to be trained, and how it is judged. None: as :func:`.train.train` finds it best.

    ``stages`` are the epochs of each stage, of a model that has some, where nothing may be chosen
    by what the training is tested on. ``begin`` is a saved model of the same kind whose weights it
    begins with, with ``keep_optimiser`` also its optimiser's state; ``params`` then are those that
    differ from its own.
    """

    model: str
    params: Mapping[str, Any]
    split: str = "search"
    seed: int = DEFAULT_SEED
    epochs: int | None = None
    stages: Mapping[str, int] | None = None
    threads: int | None = None
    device: str = "cpu"
    at: tuple[int, ...] = (20,)
    also: tuple[str, ...] = ()
    metric: str | None = None
    ties: Ties | None = None
    filter_seen: bool | None = None
    cold_items: bool = False
    begin: Path | None = None
    keep_optimiser: bool = False


def parse_params(text: str) -> dict[str, str]:
    """``k=v,k=v`` as text by name; the model's declaration gives the types.

    Raises:
        ParamError: a part without a name or a value, or a name given twice.
    """
    params: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise ParamError(f"parameters are written k=v,k=v; {part!r} is not")
        if name in params:
            raise ParamError(f"parameter {name!r} is given twice")
        params[name] = value
    return {name: value for name, value in params.items() if (name, value) != UNSAID}
