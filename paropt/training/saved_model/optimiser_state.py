"""What a saved model's optimiser had gathered, for a training that goes on from it.

::

    DIR/optimiser.safetensors    beside the weights, by ``train --save-optimiser`` (checksummed)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from paropt.errors import DataError
from paropt.training.fitting import checksummed_file
from paropt.training.saved_model.header import sha256

FILE = "optimiser.safetensors"
WEIGHTS = "model.safetensors"


def write_optimiser(directory: Path, gathered: Mapping[str, Tensor]) -> None:
    """Write it beside the weights, which are there already.

    Raises:
        OSError: it cannot be written.
    """
    header = {"optimiser_of": sha256(directory / WEIGHTS)}
    checksummed_file.write(directory / FILE, header, gathered)


def digest_of(directory: Path) -> str:
    """The digest of what was written.

    Raises:
        DataError: there is none.
    """
    if not (directory / FILE).is_file():
        raise DataError(_missing(directory))
    return sha256(directory / FILE)


def read_optimiser(directory: Path) -> dict[str, Tensor]:
    """What was written, by "weight/accumulator".

    Raises:
        DataError: there is none, it is damaged, or of another model.
    """
    path = directory / FILE
    try:
        header, gathered = checksummed_file.read(path)
    except FileNotFoundError:
        raise DataError(_missing(directory)) from None
    except (checksummed_file.Unchecked, OSError) as error:
        raise DataError(f"{path} cannot be used as an optimiser's state: {error}") from None
    if header.get("optimiser_of") != sha256(directory / WEIGHTS):
        raise DataError(
            f"{path} is of another model than the one beside it; leave --keep-optimiser out"
        )
    return gathered


def _missing(directory: Path) -> str:
    return (
        f"{directory} keeps no state of its optimiser; leave --keep-optimiser out, or save "
        "the model with 'paropt train --save-optimiser'"
    )
