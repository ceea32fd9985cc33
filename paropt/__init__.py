"""paropt: finds the best sequential recommender for an event log.

What scripts and notebooks call is here (docs/python.md), and loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from paropt.version import __version__

if TYPE_CHECKING:
    from paropt.api.data import prepare
    from paropt.api.models import Recommender, load_model, train
    from paropt.api.studies import Study, join_study, launch_study, open_study, studies
    from paropt.data import Dataset, open_dataset
    from paropt.errors import ParoptError

_PLACES = {
    "Dataset": "paropt.data",
    "ParoptError": "paropt.errors",
    "Recommender": "paropt.api.models",
    "Study": "paropt.api.studies",
    "join_study": "paropt.api.studies",
    "launch_study": "paropt.api.studies",
    "load_model": "paropt.api.models",
    "open_dataset": "paropt.data",
    "open_study": "paropt.api.studies",
    "prepare": "paropt.api.data",
    "studies": "paropt.api.studies",
    "train": "paropt.api.models",
}

__all__ = [
    "Dataset",
    "ParoptError",
    "Recommender",
    "Study",
    "__version__",
    "join_study",
    "launch_study",
    "load_model",
    "open_dataset",
    "open_study",
    "prepare",
    "studies",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'paropt' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
