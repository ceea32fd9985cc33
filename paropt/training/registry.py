"""The one door from paropt to models: finds them, reads their declarations, checks parameters."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from paropt.errors import DataError, ModelError, ParamError, did_you_mean
from paropt.training.metrics import Direction


def _foreign(where: object) -> ModelError:
    """Another package is called ``models``, and Python found that one first; how it came first."""
    found = Path(str(where)).absolute()
    entry = found.parents[1] if found.suffix == ".py" else found.parent
    ours = Path(__file__).parents[2] / "models"
    named = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if entry in [Path(one).absolute() for one in named]:
        remedy = "its folder is in PYTHONPATH, which comes first; give that package another name"
    elif entry == Path.cwd():
        remedy = (
            "'python -m' looks into the working directory first; run 'paropt', or give that "
            "package another name"
        )
    else:
        remedy = "use a virtual environment of paropt's own, or give that package another name"
    return ModelError(f"the package 'models' came from {where}, not from paropt ({ours}): {remedy}")


try:
    from models.kernels.library import Kernels, kernels
    from models.parts.contract import (
        Bags,
        Catalogue,
        Facts,
        Field,
        FieldKind,
        Kinds,
        Model,
        Needs,
        Param,
        Rows,
        SequenceBatch,
        SessionParallelPlan,
        Stage,
        Table,
        TrainingEvents,
        Vectors,
    )
    from models.parts.quantising.preparation import How, chunks, mean_and_spread, varied
    from models.parts.quantising.quality import (
        Quantiser,
        codes_of,
        loss_of,
        sharing_of,
        use_of,
    )
    from models.parts.quantising.residual import fit_residual_kmeans
    from models.parts.quantising.threads import one_thread
except ModuleNotFoundError as error:
    if error.name is None or not error.name.startswith("models"):
        raise
    _spec = importlib.util.find_spec("models")
    _where = _spec and (_spec.origin or next(iter(_spec.submodule_search_locations or ()), None))
    raise _foreign(_where or "nowhere") from error

__all__ = [
    "Bags",
    "Catalogue",
    "Facts",
    "Field",
    "FieldKind",
    "How",
    "Kernels",
    "Kinds",
    "Model",
    "Needs",
    "Param",
    "Quantiser",
    "Rows",
    "SequenceBatch",
    "SessionParallelPlan",
    "Stage",
    "Table",
    "TrainingEvents",
    "Vectors",
    "build",
    "chunks",
    "codes_of",
    "complete_params",
    "counts",
    "declaration",
    "epochs_of",
    "fit_residual_kmeans",
    "has_user_vectors",
    "kernels",
    "loss_of",
    "mean_and_spread",
    "model_class",
    "names",
    "one_thread",
    "own_metrics",
    "scores_itself",
    "sharing_of",
    "stages_of",
    "use_of",
    "varied",
]

STATISTICS = "stats."  # what names of items' statistics begin with (batches/statistics.py)
# of prepare, for what it keeps by what it means
OPTIONS = {
    "part": "--protocol long-short",
    "category": "--category-key COLUMN",
    "behaviour": "--behaviour-key COLUMN",
}
DEFAULT_EPOCHS = 10  # of a model that declares no n_epochs


def _own_models() -> Path:
    """The folder of paropt's own models; another distribution's ``models`` may shadow it.

    Raises:
        ModelError: ``models`` is not ours.
    """
    models = importlib.import_module("models")
    if getattr(models, "PAROPT_MODELS", None) != 1:
        where = getattr(models, "__file__", None) or next(iter(models.__path__))
        raise _foreign(where)
    assert models.__file__ is not None
    return Path(models.__file__).parent


def names() -> list[str]:
    """The models that ship with paropt, by name."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules([str(_own_models())])
        if not module.ispkg and not module.name.startswith("_")
    )


def model_class(name: str) -> type[Model]:
    """The class behind ``name``: a shipped model, or ``package.module:Class`` of the user's.

    Raises:
        ModelError: there is no such model, or it does not keep the contract.
    """
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            where = _where_looked(module_name, error)
            raise ModelError(f"model {name!r} cannot be imported: {error}{where}") from error
        found = getattr(module, attribute, None)
    else:
        known = names()
        if name not in known:
            there = f"there are {', '.join(known)}, or give 'package.module:Class'"
            raise ModelError(f"no model {name!r}; {did_you_mean(name, known, there)}")
        found = getattr(importlib.import_module(f"models.{name}"), "MODEL", None)
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise ModelError(
            f"model {name!r} names {found!r}, which is no subclass of models.parts.contract.Model"
        )
    _check_learns(name, found)
    _check_memory(name, found)
    products = found.encode is not Model.encode and found.item_table is not Model.item_table
    if not (products or found.score is not Model.score or found.evaluate is not Model.evaluate):
        raise ModelError(
            f"model {name!r} has neither encode() and item_table(), nor score(), nor an evaluate() "
            "of its own, so it cannot be judged"
        )
    return found


def _where_looked(module: str, error: ImportError) -> str:
    """The places where Python looked for a module that it did not find, and what to do."""
    top = module.partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or error.name != top:
        return ""
    looked = ", ".join(entry or "." for entry in sys.path if os.path.isdir(entry or "."))
    here = [place for place in (Path(top), Path(f"{top}.py")) if place.exists()]
    folder = "." if here else "DIR"
    return f" (looked in {looked}); PYTHONPATH={folder} in front of the command adds a folder"


def _check_memory(name: str, found: type[Model]) -> None:
    if found.MEMORY and found.MEMORY not in {param.name for param in found.PARAMS}:
        raise ModelError(
            f"model {name!r} bounds its memory by {found.MEMORY!r}, which is no parameter of it"
        )
    if found.memory is not Model.memory and not found.MEMORY:
        raise ModelError(
            f"model {name!r} has a memory() that nothing bounds; let MEMORY name the parameter "
            "that does"
        )


def _check_learns(name: str, found: type[Model]) -> None:
    if found.PLAN == "counting":
        if found.count is Model.count:
            raise ModelError(f"model {name!r} has no count(), so it cannot learn")
    elif found.PLAN == "items":
        if found.item_loss is Model.item_loss:
            raise ModelError(f"model {name!r} has no item_loss(), so it cannot learn")
    elif found.loss is Model.loss and not hasattr(found, "run_steps"):
        raise ModelError(f"model {name!r} has neither loss() nor run_steps(), so it cannot learn")


def declaration(name: str) -> dict[str, Param]:
    """The parameters that a model declares, by name, in their order."""
    return {param.name: param for param in model_class(name).PARAMS}


def complete_params(
    name: str, given: Mapping[str, Any], facts: Facts | None = None
) -> dict[str, Any]:
    """Every declared parameter: the given ones parsed, the defaults for the rest, checked together.

    Raises:
        ParamError: a name that the model does not have, a value of the wrong kind, or values that
            do not fit each other (or, with ``facts``, the data).
        DataError: with ``facts``: the data lack something that the model reads.
    """
    declared = declaration(name)
    params = {param.name: param.default for param in declared.values()}
    for key, value in given.items():
        if key not in declared:
            hint = did_you_mean(key, declared, f"it has {', '.join(declared)}")
            raise ParamError(f"{name} has no parameter {key!r}; {hint}")
        try:
            params[key] = declared[key].parse(value)
        except ValueError as error:
            raise ParamError(f"{name}: {key} {error}") from None
    try:
        model_class(name).check(params, facts)
    except ValueError as error:
        raise ParamError(f"{name}: {error}") from None
    stages = stages_of(name, params)
    if stages and not any(stage.epochs for stage in stages):
        listed = ", ".join(stage.name for stage in stages)
        raise ParamError(f"{name}: none of the stages {listed} has an epoch")
    if facts is not None and (lacking := lacks(model_class(name).needs(params), facts)):
        raise DataError(f"{name} {lacking}")
    return params


def lacks(needs: Needs, facts: Facts) -> str:
    """What data lack that a model needs, and which option of ``prepare`` gives it; or ""."""
    asked = (
        (needs.columns, facts.columns, "the events' column", "--keep-column {}"),
        (needs.items, facts.items, "the items' feature", "--item-features FILE"),
        (needs.users, facts.users, "the users' feature", "--user-features FILE"),
    )
    for kinds_by_name, known, what, option in asked:
        for name, kinds in kinds_by_name.items():
            way = OPTIONS.get(name, option.format(name))
            if reason := _unfit(name, kinds, known, what, way):
                return reason
    if needs.who and not facts.n_users:
        return "reads whose session it is, which the data don't say; prepare them with --user-key"
    return ""


def _unfit(name: str, kinds: Kinds, known: Mapping[str, Field], what: str, option: str) -> str:
    if name not in known and name.startswith(STATISTICS):
        there = [one for one in known if one.startswith(STATISTICS)]
        hint = did_you_mean(name, there, f"there are {', '.join(there) or 'none'}")
        return f"reads {what} {name!r}, which is no statistic of the training events; {hint}"
    if name not in known:
        there = [one for one in known if not one.startswith(STATISTICS)]
        if kinds == ("vector",):
            option = f"--item-vectors {name}=FILE"
        has = f"which the data lack (they have {', '.join(there) or 'none'})"
        alike = [one for one in there if known[one].kind in kinds]
        other = f", or name {' or '.join(alike)} in the parameter that asks for it" if alike else ""
        return f"reads {what} {name!r}, {has}; prepare them with {option}{other}"
    kind = known[name].kind
    if not kinds or kind in kinds:
        return ""
    told = f"reads {what} {name!r} as {' or '.join(kinds)}, but it is a {kind} in the data"
    if "category" in kinds and kind == "number":
        told += f"; prepare them with --categorical {name}"
    return told


def build(name: str, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> Model:
    """A model on the CPU with checked, complete parameters; it sees what it said it needs.

    Raises:
        ModelError, ParamError: see :func:`model_class` and :func:`complete_params`.
    """
    complete = complete_params(name, params, catalogue.facts)
    needs = model_class(name).needs(complete)
    catalogue = replace(
        catalogue,
        items=catalogue.items.only(needs.items),
        users=catalogue.users.only(needs.users),
        unseen=catalogue.unseen.only(needs.items),
    )
    return model_class(name)(complete, catalogue, seed)


def counts(name: str) -> bool:
    """Whether a model learns in one pass of counting, without gradients, losses or seeds."""
    return model_class(name).PLAN == "counting"


def epochs_of(name: str, params: Mapping[str, Any] | None = None) -> int:
    """How many epochs a model trains with (some of) its parameters given.

    A counting model has one, one with stages has theirs at most; others say it by ``n_epochs``,
    and train ten if they don't.
    """
    if counts(name):
        return 1
    if stages := stages_of(name, params or {}):
        return sum(stage.epochs for stage in stages)
    declared = declaration(name).get("n_epochs")
    default = declared.default if declared else DEFAULT_EPOCHS
    return int((params or {}).get("n_epochs", default))


def stages_of(name: str, params: Mapping[str, Any]) -> tuple[Stage, ...]:
    """The stages of a training with (some of) a model's parameters given; () if it has none.

    Raises:
        ModelError: two stages of one name.
    """
    found = model_class(name)
    stages = tuple(found.stages({p.name: p.default for p in found.PARAMS} | dict(params)))
    names = [stage.name for stage in stages]
    if double := [stage for stage in names if names.count(stage) > 1]:
        raise ModelError(f"model {name!r} has two stages of the name {double[0]!r}")
    return stages


def scores_itself(model: Model) -> bool:
    """Whether a model's scores are no product of vectors and a table."""
    return model.scores_itself


def has_user_vectors(kind: type[Model]) -> bool:
    """Whether a kind of model gives a vector per user (:meth:`Model.user_vectors`)."""
    return kind.user_vectors is not Model.user_vectors or kind.encode is not Model.encode


def reads_more(name: str) -> bool:
    """Whether a model may read more of the data than items and times.

    Raises:
        ModelError: see :func:`model_class`.
    """
    return getattr(model_class(name).needs, "__func__", None) is not getattr(
        Model.needs, "__func__", None
    )


def judges_itself(name: str) -> bool:
    """Whether a model reports metrics of its own.

    Raises:
        ModelError: see :func:`model_class`.
    """
    return model_class(name).evaluate is not Model.evaluate


def own_metrics(name: str) -> dict[str, Direction]:
    """What a model that judges itself declares to report, and what is better of each.

    Raises:
        ModelError: see :func:`model_class`.
    """
    return {metric.name: metric.direction for metric in model_class(name).METRICS}


def summary(name: str) -> str:
    """The first sentence of a model's documentation."""
    text = inspect.getdoc(model_class(name)) or ""
    return " ".join(text.split("\n\n")[0].split())


def default_of(param: Param) -> str:
    """A parameter's default, as one writes it."""
    if param.type == "names":
        return "+".join(param.default) or "none"
    return "/".join(map(str, param.default)) if param.type == "sizes" else str(param.default)


_NUMBER_PATTERN = re.compile(r"\\d\+(\(\?:[^)]*\)\?)*")


def range_of(param: Param) -> str:
    """What a parameter may be, in words: "above 0", "0…1", "one of a, b"."""
    if param.choices:
        return ", ".join(map(str, param.choices))
    if param.pattern == ".+":
        return "a name"
    if param.pattern:
        return _NUMBER_PATTERN.sub("X", param.pattern).replace("|", ", ")
    if param.low is not None and param.high is not None and not (param.low_open or param.high_open):
        return f"{param.low:g}…{param.high:g}"
    low = "" if param.low is None else f"{'above' if param.low_open else 'from'} {param.low:g}"
    high = "" if param.high is None else f"{'below' if param.high_open else 'to'} {param.high:g}"
    return " ".join(part for part in (low, high) if part)
