"""``paropt check``: does everything that paropt needs work here, and what if not."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import text

from paropt.errors import DataError, ParoptError
from paropt.launch.data.data_source import Given, Note, named_data, silent
from paropt.machine.devices import find_gpus, usable_cores
from paropt.storage.connect import open_storage

OLDEST_PYTHON = (3, 11)
OLDEST_TORCH = (2, 8)
# in a process of its own: a broken driver may take the process with it
TORCH_PROBE = """
import json, torch
from models.kernels.library import kernels
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": [], "trouble": ""}
found["kernels"] = kernels() is not None
try:
    for index in range(torch.cuda.device_count()):
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        assert float((ones @ ones).sum()) == 64.0 ** 3
        found["gpus"].append(torch.cuda.get_device_name(index))
except Exception as error:
    found["trouble"] = f"{type(error).__name__}: {error}".splitlines()[0]
ones = torch.ones(64, 64)
assert float((ones @ ones).sum()) == 64.0 ** 3
print(json.dumps(found))
"""

State = Literal["ok", "failed", "skipped"]


class Broken(Exception):
    """Something doesn't work; the message says what, ``remedy`` what to do."""

    def __init__(self, found: str, remedy: str = "") -> None:
        super().__init__(found)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the answer."""

    name: str
    state: State
    found: str
    remedy: str = ""

    def line(self) -> str:
        """Name, state and finding in columns; the remedy after them."""
        mark = {"ok": "ok", "failed": "FAILED", "skipped": "-"}[self.state]
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{mark:<7} {self.name:<9} {self.found}{remedy}"


def checks(
    storage: str | None, data: Given | None, space: str | Path | None, note: Note = silent
) -> Iterator[Check]:
    """Try one thing after the other."""
    yield _try("python", check_python)
    yield _try("torch", check_torch)
    yield _try("database", lambda: check_database(storage))
    if not data:
        yield Check("data", "skipped", "not checked", "give --data DIR or FILE")
    else:
        yield _try("data", lambda: check_data(named_data(data, note)))
    if space is None:
        yield Check("space", "skipped", "not checked", "give --space FILE or NAME")
    else:
        yield _try("space", lambda: check_space(space, data))


def _try(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", check())
    except Broken as broken:
        return Check(name, "failed", str(broken), broken.remedy)
    except ParoptError as error:  # says itself what to do
        return Check(name, "failed", str(error))
    except Exception as error:
        what = str(error).strip().splitlines()
        return Check(name, "failed", f"{type(error).__name__}: {what[0] if what else '?'}")


def check_python() -> str:
    """The interpreter's version."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        raise Broken(version, "paropt needs Python 3.11 or newer")
    return f"{version} ({sys.executable})"


def check_torch() -> str:
    """Torch's version and the devices that it computes on."""
    done = subprocess.run(
        [sys.executable, "-c", TORCH_PROBE], capture_output=True, text=True, timeout=300
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise Broken(
            said[-1] if said else f"the probe ended with {done.returncode}",
            "install it anew: pip install --force-reinstall torch",
        )
    found = json.loads(done.stdout.splitlines()[-1])
    release = tuple(int(part) for part in found["torch"].split("+")[0].split(".")[:2])
    if release < OLDEST_TORCH:
        raise Broken(found["torch"], "paropt needs torch 2.8 or newer: pip install -U torch")
    there = [gpu.name for gpu in find_gpus()]
    if found["trouble"]:
        raise Broken(
            f"{found['torch']}, GPU: {found['trouble']}",
            "free the GPU or mend its driver, or use --devices cpu",
        )
    if there and not found["gpus"]:
        raise Broken(
            f"{found['torch']} does not see {', '.join(there)}",
            "install torch built for the driver's CUDA version, or use --devices cpu",
        )
    cores = usable_cores()
    if found["gpus"]:
        return f"{found['torch']} on {', '.join(found['gpus'])}"
    told = f"{found['torch']} on CPU with {cores} core{'s' * (cores != 1)}"
    if not found["kernels"]:
        told += "; without a C compiler (cc, or $CC) GRU4Rec trains slower"
    return told


def check_database(storage: str | None) -> str:
    """The database's version and place, and that tables can be made there."""
    with open_storage(storage) as opened, opened.engine().connect() as connection:
        version = connection.execute(text("SHOW server_version")).scalar_one()
        may = (
            "SELECT has_schema_privilege(current_schema(), 'CREATE')"
            " OR to_regclass('paropt_slot') IS NOT NULL"
        )
        if not connection.execute(text(may)).scalar():
            raise Broken(
                f"{opened.describe()}: this user may not make tables there",
                "let it own the database, or GRANT CREATE ON SCHEMA public",
            )
        return f"PostgreSQL {version.split()[0]}, {opened.describe()}"


def check_data(data: Path) -> str:
    """A dataset's fingerprint and size, and that its files are what was written."""
    from paropt.data import open_dataset

    dataset = open_dataset(data)
    dataset.verify()
    events = dataset.split("train_full").n_events
    free = os.statvfs(data)
    gigabytes = free.f_bavail * free.f_frsize / 1e9
    return (
        f"{data}: {events:,} events to train on, {dataset.n_items('train_full'):,} items, "
        f"fingerprint {dataset.fingerprint[:12]}, {gigabytes:,.0f} GB free there"
    )


def check_space(space: str | Path, data: Given | None = None) -> str:
    """A space's models and size, that the models declare all of it, and that the data, where they
    can be opened, have all that its configurations read."""
    from paropt.data import open_dataset
    from paropt.search.setup.check_needs import check_needs
    from paropt.search.setup.check_space import read_checked_space
    from paropt.search.space import shipped
    from paropt.search.space.table import as_object

    found = shipped.find_space(space)
    if found is None:
        raise Broken(shipped.missing(space))
    checked = read_checked_space(found)
    dataset = None
    if data:
        with contextlib.suppress(DataError):  # which the data's own line says
            dataset = open_dataset(named_data(data, silent))
    if dataset is not None:
        check_needs(checked, dataset)
    described = as_object(checked)
    count = described["configurations"]
    size = "infinitely many" if count is None else f"{count:,}"
    return f"{space}: {'/'.join(described['models'])}, {size} configurations"
