"""A saved model for other runtimes, checked to recommend the same items.

ONNX and torch.export's programs come from torch's current exporter. TorchScript is marked as
deprecated by torch, which names torch.export in its place; it is still written for whoever loads it
by ``torch.jit.load`` or libtorch.

::

    OUT/model.onnx, model.pt2 or model.pt    sessions in, the best items' rows and scores out, or
                                             vectors (model.onnx.data: weights above 1 GiB)
    OUT/items.parquet             row i holds the id of item i
    OUT/items.npy                 with vectors: what they are multiplied with [n_items, d]
    OUT/export.json               what goes in and out, of which model, and how it was checked
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paropt.errors import DataError, ModelError, ParoptError
from paropt.training.recommending.answering import Answerer, Ask
from paropt.training.recommending.vectors import ItemVectors, version_of
from paropt.training.saved_model.saved import SavedModel, check_place, load_model

Format = Literal["onnx", "torch-export", "torchscript"]
Gives = Literal["top", "vector"]
Arrays = list[NDArray[Any]]
INPUTS = ("items", "times", "lengths")
FILES: dict[Format, str] = {
    "onnx": "model.onnx",
    "torch-export": "model.pt2",
    "torchscript": "model.pt",
}
NEEDED = ("onnx", "onnxruntime", "onnxscript")
LENGTH = 50  # events of a session where the model itself has no limit
CHECKED = 64  # sessions
CLOSE = 1e-4  # of the scores' spread: items that are nearer to each other may change places
OPSET = 18
ONE_FILE = 1 << 30  # bytes of weights: an ONNX file can hold less than two of these
MINUTE = 60_000


class ExportError(ParoptError):
    """A model that comes out otherwise than it is, or what exporting lacks."""


@dataclass(frozen=True)
class ExportRequest:
    """What is exported: the ``top`` best items, or the session's ``vector``."""

    directory: Path
    out: Path
    format: Format = "onnx"
    gives: Gives = "top"
    top: int = 20
    length: int | None = None


@dataclass(frozen=True)
class Exported:
    """What ``export.json`` says beside the request."""

    file: str
    model: str
    version: str
    gives: Gives
    length: int
    inputs: list[str]
    outputs: list[str]
    checked: int
    farthest: float  # of a score from ours


def export_model(request: ExportRequest) -> Exported:
    """Export a saved model into a new directory.

    Raises:
        DataError: there is no such model, or the place is taken.
        ModelError: it has no form for other runtimes.
        ExportError: the extra is missing, or the exported model recommends otherwise.
    """
    check_place(request.out)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if request.format == "onnx" and missing:
        raise ExportError(
            f"--format onnx needs {_listed(missing)}; install the extra: pip install 'paropt[onnx]'"
        )
    saved = load_model(request.directory)
    length = _length(saved, request.length)
    module = _module(saved, request)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{request.out.name}.", dir=request.out.parent))
    try:
        run, inputs = _written(module, beside, request.format, length, saved.n_items)
        if request.gives == "vector":
            np.save(beside / "items.npy", np.concatenate(list(ItemVectors(saved).blocks(0))))
        farthest = _check(saved, request, run, length)
        shutil.copyfile(request.directory / "items.parquet", beside / "items.parquet")
        about = Exported(
            file=FILES[request.format],
            model=str(saved.meta["model"]),
            version=version_of(request.directory),
            gives=request.gives,
            length=length,
            inputs=inputs,
            outputs=["rows", "scores"] if request.gives == "top" else ["vectors"],
            checked=CHECKED,
            farthest=farthest,
        )
        (beside / "export.json").write_text(json.dumps(asdict(about), indent=1) + "\n")
        beside.chmod(0o755)
        beside.rename(request.out)
    except OSError as error:
        raise DataError(f"{request.out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return about


def _listed(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _length(saved: SavedModel, asked: int | None) -> int:
    most = saved.model.max_length
    if asked is None:
        return most or LENGTH
    if most is not None and asked > most:
        raise ExportError(f"--length {asked} is more than the model looks at, which is {most}")
    return asked


# -- what is recorded -----------------------------------------------------------------------


class _Top(nn.Module):
    """The best items' rows [B, k] and scores [B, k]."""

    table: Tensor
    bias: Tensor | None

    def __init__(self, body: nn.Module, table: Tensor, bias: Tensor | None, top: int) -> None:
        super().__init__()
        self.body, self.top = body, top
        self.register_buffer("table", table)
        self.register_buffer("bias", bias)

    def forward(self, items: Tensor, times: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.body(items, times, lengths).float() @ self.table.T
        if self.bias is not None:
            scores = scores + self.bias
        best = torch.topk(scores, self.top)
        return best.indices, best.values


class _Vector(nn.Module):
    """Vectors [B, d], with a 1 at the end where items have a bias."""

    def __init__(self, body: nn.Module, bias: bool) -> None:
        super().__init__()
        self.body, self.bias = body, bias

    def forward(self, items: Tensor, times: Tensor, lengths: Tensor) -> Tensor:
        found: Tensor = self.body(items, times, lengths).float()
        return torch.cat([found, torch.ones_like(found[:, :1])], 1) if self.bias else found


@torch.no_grad()
def _module(saved: SavedModel, request: ExportRequest) -> nn.Module:
    name = str(saved.meta["model"])
    try:
        body = saved.model.portable()
        table, bias = saved.model.item_table()
    except NotImplementedError as error:
        raise ModelError(f"model {name!r} can't be exported: {error}") from None
    if request.gives == "vector":
        return _Vector(body, bias is not None).eval()
    bias = None if bias is None else bias.float()
    return _Top(body, table.float(), bias, min(request.top, saved.n_items)).eval()


Run = Callable[[Mapping[str, NDArray[Any]]], Arrays]


def _written(
    module: nn.Module, folder: Path, format: Format, length: int, n_items: int
) -> tuple[Run, list[str]]:
    """Write the module to a file; how that is run, and with which inputs."""
    lengths = torch.tensor([length, 1, (length + 1) // 2])
    rows = len(lengths)  # not 1, which exporters would take for a constant
    items = torch.arange(rows * length).view(rows, length) % n_items
    times = torch.arange(length).expand(rows, length).contiguous() * MINUTE
    example = (items, times, lengths)
    path = folder / FILES[format]
    with torch.no_grad(), _silence():
        if format == "torchscript":
            torch.jit.trace(module, example, check_trace=False).save(str(path))
            loaded: Callable[..., Any] = torch.jit.load(str(path))
        elif format == "torch-export":
            torch.export.save(_exported(module, example), str(path))
            loaded = torch.export.load(str(path)).module()
        else:
            return _onnx_written(module, example, path)
    return lambda given: _run_torch(loaded, given), list(INPUTS)


@contextmanager
def _silence() -> Iterator[None]:
    """Exporters warn of their own insides, and say which libraries they could do with."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _exported(module: nn.Module, example: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    sessions = torch.export.Dim("sessions", min=1)
    return torch.export.export(module, example, dynamic_shapes=({0: sessions},) * len(example))


def _onnx_written(
    module: nn.Module, example: tuple[Tensor, ...], path: Path
) -> tuple[Run, list[str]]:
    program = torch.onnx.export(
        _exported(module, example),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(INPUTS),
        output_names=["rows", "scores"] if isinstance(module, _Top) else ["vectors"],
        verbose=False,
    )
    assert program is not None
    given = program.model.graph.inputs
    for value in [value for value in given if not value.uses()]:
        given.remove(value)  # nothing depends on it
    size = sum(tensor.nbytes for tensor in module.state_dict().values())
    program.save(str(path), external_data=size > ONE_FILE)
    return _onnx(path)


def _run_torch(loaded: Callable[..., Any], given: Mapping[str, NDArray[Any]]) -> Arrays:
    with torch.no_grad(), _silence():
        found = loaded(*(torch.from_numpy(given[name]) for name in INPUTS))
    return [part.numpy() for part in (found if isinstance(found, tuple) else (found,))]


def _onnx(path: Path) -> tuple[Run, list[str]]:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = [one.name for one in session.get_inputs()]
    return lambda given: session.run(None, {name: given[name] for name in inputs}), inputs


# -- whether it is the same -----------------------------------------------------------------


@torch.no_grad()
def _check(saved: SavedModel, request: ExportRequest, run: Run, length: int) -> float:
    """The farthest of its scores from ours; items that score alike may change places.

    Raises:
        ExportError: it recommends other items.
    """
    sessions = _sessions(saved, length)
    given = {
        "items": np.zeros((CHECKED, length), np.int64),
        "times": np.zeros((CHECKED, length), np.int64),
        "lengths": np.array([len(rows) for rows, _ in sessions], np.int64),
    }
    for number, (items, times) in enumerate(sessions):
        given["items"][number, : len(items)] = items
        given["times"][number, : len(items)] = times
    top = min(request.top, saved.n_items)
    answerer = Answerer(saved)
    ids = saved.item_ids
    asks = [Ask([str(ids[row]) for row in items], times, top=top) for items, times in sessions]
    ours = answerer.answer([answerer.prepare(ask) for ask in asks])
    rows, scores = _best(saved, run(given), top)
    farthest = 0.0
    for number, answer in enumerate(ours):
        wanted = np.array(answer.scores)
        spread = max(float(np.abs(wanted).max()), 1e-12)
        apart = float(np.abs(scores[number] - wanted).max())
        farthest = max(farthest, apart)
        named = [str(ids[row]) for row in rows[number]]
        alike = all(
            one == other or abs(wanted[at] - scores[number][at]) <= CLOSE * spread
            for at, (one, other) in enumerate(zip(named, answer.items, strict=True))
        )
        if apart > CLOSE * spread or not alike:
            raise ExportError(
                f"the exported model recommends otherwise: for a session of "
                f"{len(sessions[number][0])} events its scores are up to {apart:.3g} from ours; "
                "nothing was written"
            )
    return farthest


def _sessions(saved: SavedModel, length: int) -> list[tuple[list[int], list[int]]]:
    """Made-up sessions of all lengths, of rows and times."""
    source = np.random.default_rng(0)
    found = []
    for number in range(CHECKED):
        size = 1 + number * (length - 1) // (CHECKED - 1)
        steps = source.integers(1, 200, size).cumsum()
        times = [1_700_000_000_000 + int(step) * MINUTE // 10 for step in steps]
        found.append((source.integers(0, saved.n_items, size).tolist(), times))
    return found


def _best(saved: SavedModel, found: Arrays, top: int) -> tuple[NDArray[Any], NDArray[Any]]:
    if len(found) == 2:
        return found[0], found[1]
    table = np.concatenate(list(ItemVectors(saved).blocks(0)))
    best = torch.topk(torch.from_numpy(found[0] @ table.T), top)
    return best.indices.numpy(), best.values.numpy()
