"""What a caller says, what a paramfile says, and the defaults: one training's request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from paropt.errors import ParamError, did_you_mean
from paropt.files import is_there
from paropt.search.space import shipped
from paropt.search.space.paramfiles import read_paramfile
from paropt.training.evaluation.choose_objective import more_metrics
from paropt.training.saved_model.header import read_header
from paropt.training.train_request import TrainRequest, parse_params

STORED = ("split", "seed", "epochs", "threads")  # with which a paramfile repeats its trial
JUDGED = ("metric", "ties", "filter_seen")


def train_request(
    params: Mapping[str, Any] | str | Path | None, model: str | None, said: Mapping[str, Any]
) -> tuple[TrainRequest, dict[str, Any]]:
    """The request, and the provenance that the paramfile has (empty without one).

    ``params`` are values by name, "k=v,k=v", a paramfile or the name of a shipped one. ``said``
    are fields of :class:`TrainRequest`; what is None goes by the paramfile, then by the saved model
    that the training begins with, then by the default.

    Raises:
        ParamError: no such paramfile or field, or one of another model.
        ModelError: no such saved model.
    """
    known = {field.name for field in fields(TrainRequest)} - {"model", "params"}
    for name in said:
        if name not in known:
            hint = did_you_mean(name, known, f"there are {', '.join(sorted(known))}")
            raise ParamError(f"train has no option {name!r}; {hint}")
    given = {key: value for key, value in said.items() if value is not None}
    if "begin" in given:
        given["begin"] = Path(given["begin"])
    earlier = read_header(given["begin"]).meta if "begin" in given else {}
    name, values, provenance = _configuration(params, model, earlier.get("model", "gru4rec"))
    if earlier and name != earlier["model"]:
        raise ParamError(
            f"{given['begin']} is a {earlier['model']}, and a {name} can't go on from it"
        )
    keys = [*STORED, *(() if "epochs" in given else ("stages",)), *JUDGED]
    stored = {key: earlier[key] for key in ("split",) if key in earlier}
    stored |= {key: provenance[key] for key in keys if provenance.get(key) is not None}
    if "study" in provenance:  # paropt 0.1 filtered no study's history, and did not say so
        stored.setdefault("filter_seen", False)
    given["also"] = tuple(more_metrics(given.get("also", ())))
    return TrainRequest(name, values, **(stored | given)), provenance


def _configuration(
    params: Mapping[str, Any] | str | Path | None, model: str | None, usual: str
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A model, its parameters, and the paramfile's provenance; ``usual`` if nobody names it."""
    if params is None:
        return model or usual, {}, {}
    if isinstance(params, Mapping) or ("=" in str(params) and not is_there(str(params))):
        values = dict(params if isinstance(params, Mapping) else parse_params(str(params)))
        return str(model or values.pop("model", usual)), values, {}
    path = shipped.find_paramfile(params)
    if path is None:
        raise ParamError(shipped.missing(str(params), "paramfile"))
    file = read_paramfile(path)
    if model is not None and model != file.model:
        raise ParamError(f"{params} is a paramfile of model {file.model!r}, not {model!r}")
    return file.model, dict(file.params), dict(file.provenance)
