"""Paramfiles: one configuration as data, with where it came from.

The JSON form is paropt's own. The other two are the Python modules that GRU4Rec's official
``run.py -pf`` reads: written as literals here, and read here as literals too, never imported.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

from paropt.errors import SpaceError
from paropt.files import write_text
from paropt.search.space import json_with_lines
from paropt.search.space.file import EPOCHS, final_act_of, suggest
from paropt.training.semantics import as_then

Format = Literal["json", "gru4rec-theano", "gru4rec-pytorch"]
FORMATS: tuple[Format, ...] = ("json", "gru4rec-theano", "gru4rec-pytorch")
VERSION = 1

_FIELDS = ("paropt_paramfile", "model", "params", "provenance")
_SPLITS = ("search", "full", "without-valid")
_LARGEST = 1 << 20  # bytes; a paramfile has a few hundred


@dataclass(frozen=True)
class Paramfile:
    """A configuration.

    ``params`` is as the trial had it, ``n_epochs`` included, since schedules follow that number.
    Of ``provenance``, training takes ``split``, ``seed``, ``threads`` and ``epochs``: the best
    epoch, after which it stops. A trial's also has study, trial, epoch, metric, value, metrics, at,
    device, fingerprint, semantics, versions and ties.
    """

    model: str
    params: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def epochs(self) -> int | None:
        """After how many epochs training stops; None: after the parameter ``n_epochs``."""
        epochs: int | None = self.provenance.get("epochs")
        return epochs

    def to_json(self) -> dict[str, Any]:
        return {
            "paropt_paramfile": VERSION,
            "model": self.model,
            "params": dict(self.params),
            "provenance": dict(self.provenance),
        }


# -- reading ------------------------------------------------------------------------------------


def read_paramfile(path: str | Path) -> Paramfile:
    """A paramfile in any of the formats; a Python module is parsed, not run.

    Raises:
        SpaceError: it cannot be read, or isn't one (``file:line: …``).
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError):
            raise SpaceError(f"{path}: cannot be read: {error.strerror}") from None
        raise SpaceError(
            f"{path} is a binary file, and pickles are never loaded; a paramfile is the JSON that "
            "'paropt export' writes, or one of GRU4Rec's"
        ) from None
    if len(content) > _LARGEST:
        raise SpaceError(f"{path}: is larger than {_LARGEST >> 20} MiB, so no paramfile")
    return _read_json(str(path), text) if text.lstrip()[:1] == "{" else _read_module(path, text)


def _read_json(name: str, text: str) -> Paramfile:
    try:
        stored, lines = json_with_lines.load(text)
    except json_with_lines.JsonError as error:
        raise SpaceError(f"{name}:{error.line}: {error}") from None
    origin = json_with_lines.Origin(name, lines)
    for key in stored:
        if key not in _FIELDS:
            origin.fail((key,), f"unknown field {key!r}; {suggest(key, _FIELDS)}")
    model, params = stored.get("model"), stored.get("params")
    version = stored.get("paropt_paramfile", VERSION)
    if type(version) is not int or version > VERSION:
        origin.fail(
            ("paropt_paramfile",), f"is of version {version!r}; this paropt reads up to {VERSION}"
        )
    if not isinstance(model, str) or not model:
        origin.fail(("model",), 'a paramfile names its "model"')
    if not isinstance(params, dict):
        origin.fail(("params",), 'a paramfile has "params", an object')
    for key, value in params.items():
        if not _plain(value):
            origin.fail(("params", key), f'"{key}" should be a number, text, true or false')
    provenance = stored.get("provenance", {})
    if not isinstance(provenance, dict):
        origin.fail(("provenance",), '"provenance" should be an object')
    for key, least in (("seed", 0), ("threads", 1), ("epochs", 1)):
        value = provenance.get(key)
        if value is not None and (type(value) is not int or value < least):
            origin.fail(
                ("provenance", key),
                f'"{key}" should be an integer of at least {least}, not {value!r}',
            )
    if provenance.get("split") not in (None, *_SPLITS):
        origin.fail(("provenance", "split"), f'"split" should be one of {", ".join(_SPLITS)}')
    versions = provenance.get("versions")
    version = versions.get("paropt") if isinstance(versions, dict) else None
    return Paramfile(model, as_then(params, version), provenance)


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(type(size) is int for size in value)
    return isinstance(value, (str, int, float))


def _read_module(path: str | Path, text: str) -> Paramfile:
    def fail(line: int, message: str) -> NoReturn:
        raise SpaceError(f"{path}:{line}: {message}")

    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        fail(error.lineno or 1, "neither a JSON object nor a Python module with gru4rec_params")
    except (ValueError, RecursionError, MemoryError):
        fail(1, "neither a JSON object nor a Python module with gru4rec_params")
    assigned = [
        statement
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and any(getattr(target, "id", None) == "gru4rec_params" for target in statement.targets)
    ]
    if not assigned:
        fail(1, "there is no gru4rec_params in it")
    line, value = assigned[-1].lineno, assigned[-1].value
    try:
        given = dict(ast.literal_eval(_literal(value)))
    except (ValueError, TypeError, RecursionError, MemoryError):
        fail(line, "gru4rec_params is not an OrderedDict of plain values")
    if given.get("adapt_params") in ([], (), {}):  # of Adagrad, which has none
        del given["adapt_params"]
    for key, value in given.items():
        if not isinstance(key, str) or not _plain(value):
            fail(line, f"gru4rec_params has {key!r}, which is no plain value")
    return Paramfile("gru4rec", _from_official(given))


def _literal(value: ast.expr) -> ast.expr:
    """The argument of ``OrderedDict(…)``, or the value itself."""
    if isinstance(value, ast.Call) and len(value.args) == 1 and not value.keywords:
        called = value.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
        if name in ("OrderedDict", "dict"):
            return value.args[0]
    return value


def _from_official(given: Mapping[str, Any]) -> dict[str, Any]:
    params = dict(given)
    elu_param = params.pop("elu_param", None)
    # the PyTorch version has no final_act: softmax with cross-entropy, ELU with bpr-max
    if elu_param is not None and params.get("loss", "cross-entropy") == "bpr-max":
        params.setdefault("final_act", final_act_of(elu_param))
    if "embedding" in params:
        params["embedding"] = str(params["embedding"])
    return params


# -- writing ------------------------------------------------------------------------------------


def write_paramfile(
    paramfile: Paramfile, path: str | Path, format: Format = "json", *, overwrite: bool = False
) -> None:
    """Writes beside and renames; an existing file is only replaced if asked.

    Raises:
        SpaceError: the format cannot express it.
        ParoptError: the file exists, or it cannot be written.
    """
    write_text(path, formatted(paramfile, format), overwrite=overwrite)


def formatted(paramfile: Paramfile, format: Format = "json") -> str:
    """The text of a paramfile.

    Raises:
        SpaceError: the format cannot express it; says which parameter and why.
    """
    if format == "json":
        return json.dumps(paramfile.to_json(), indent=2, allow_nan=False) + "\n"
    params = _official(paramfile, format)
    source = json.dumps(dict(paramfile.provenance), allow_nan=False)
    rows = "".join(f"    ({key!r}, {value!r}),\n" for key, value in params.items())
    return (
        f"# For GRU4Rec's run.py -pf; written by paropt.\n# {source}\n"
        f"from collections import OrderedDict\n\ngru4rec_params = OrderedDict([\n{rows}])\n"
    )


# in the order in which the official files have them
_BOTH = (
    "loss", "constrained_embedding", "embedding", "layers", EPOCHS, "batch_size",
    "dropout_p_embed", "dropout_p_hidden", "learning_rate", "momentum", "n_sample",
    "sample_alpha", "bpreg", "logq",
)  # fmt: skip
_THEANO_ONLY = (
    "final_act", "hidden_act", "adapt", "smoothing", "lmbd", "grad_cap", "sigma", "init_as_normal",
    "time_sort", "train_random_order",
)  # fmt: skip
_AUTO_ACT = {"cross-entropy": "softmax", "xe_logit": "softmax_logit", "bpr-max": "elu-0.5"}
# what the PyTorch version always does
_PYTORCH_FIXED = {
    "hidden_act": "tanh", "smoothing": 0.0, "lmbd": 0.0, "grad_cap": 0.0, "sigma": 0.0,
    "init_as_normal": False, "adapt": "adagrad", "time_sort": True, "train_random_order": False,
}  # fmt: skip


def _official(paramfile: Paramfile, format: Format) -> dict[str, Any]:
    """Every parameter of the official program, since its defaults are not ours."""
    from paropt.training import registry

    if paramfile.model != "gru4rec":
        raise SpaceError(f"{format} is for gru4rec, not for {paramfile.model}; use json")
    params = registry.complete_params("gru4rec", paramfile.params)
    if paramfile.epochs is not None:
        params[EPOCHS] = paramfile.epochs
        params["patience"] = 0  # it ends there anyway
    params["layers"] = list(params["layers"])
    if params["embedding"].isdigit():
        params["embedding"] = int(params["embedding"])
    if params["final_act"] == "auto":
        params["final_act"] = _AUTO_ACT.get(params["loss"], "linear")
    known = (*_BOTH, *_THEANO_ONLY)
    if unknown := sorted(set(params) - set(known)):
        default = registry.declaration("gru4rec")[unknown[0]].default
        if params[unknown[0]] != default:
            raise SpaceError(f"{format} has no parameter {unknown[0]}; use json")
    if format == "gru4rec-theano":
        return {key: params[key] for key in known if key in params}
    return _pytorch(params)


def _pytorch(params: Mapping[str, Any]) -> dict[str, Any]:
    def refuse(key: str, why: str) -> NoReturn:
        raise SpaceError(f"gru4rec-pytorch {why}, not {key}={params[key]}; use json")

    if params["loss"] not in ("cross-entropy", "bpr-max"):
        refuse("loss", "has the losses cross-entropy and bpr-max only")
    for key, only in _PYTORCH_FIXED.items():
        if key in params and params[key] != only:
            refuse(key, f"has {key}={only} only")
    if params["loss"] == "bpr-max" and params["logq"]:
        refuse("logq", "applies logq to cross-entropy only")
    elu_param: float = 0
    if params["loss"] == "bpr-max":
        kind, _, number = params["final_act"].partition("-")
        if kind == "elu":
            elu_param = float(number)
        elif kind != "linear":
            refuse("final_act", "has the final activations linear and elu-X only")
    official = {key: params[key] for key in _BOTH if key in params}
    return {"loss": official.pop("loss"), "elu_param": elu_param, **official}
