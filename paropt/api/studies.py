"""Studies as a script or a notebook sees them: launched, joined, and read as data frames."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from paropt.api.data import say
from paropt.errors import ParoptError

if TYPE_CHECKING:
    import optuna
    import pandas as pd

    from paropt.data import Dataset
    from paropt.launch.opening.open_study import OpenedStudy
    from paropt.search.study import study as search
    from paropt.storage.connect import Storage


class Study:
    """A study, open as long as this object is: the embedded server stays up meanwhile.

    Use it with ``with``, or call :meth:`close`. Everything is read anew with each call.
    """

    def __init__(self, storage: Storage, study: search.Study) -> None:
        self._storage, self._study = storage, study

    def __repr__(self) -> str:
        return f"<paropt study {self.name!r} in {self._storage.describe()}>"

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._study.close()
        self._storage.close()

    @property
    def name(self) -> str:
        return self._study.name

    def status(self) -> dict[str, Any]:
        """What ``paropt status STUDY --json`` prints; docs/json.md has its keys."""
        from paropt.terminal.status import study_status

        return study_status(self._storage, self._study)

    def trials(self) -> pd.DataFrame:
        """A row per trial, in order: how it ended, its value and metrics, ``params.NAME`` each.

        ``epoch`` is the best, ``epochs`` how many were run; docs/json.md explains the others.
        """
        import pandas as pd

        return pd.DataFrame([_flat(trial) for trial in self._study.trials()])

    def curves(self) -> pd.DataFrame:
        """The value after every epoch: columns ``trial``, ``epoch`` from 1, ``value``."""
        import pandas as pd

        rows = [
            {"trial": trial["trial"], "epoch": epoch, "value": value}
            for trial in self._study.trials()
            for epoch, value in enumerate(trial["curve"], 1)
        ]
        return pd.DataFrame(rows, columns=["trial", "epoch", "value"])

    def best(self, top: int = 1) -> list[dict[str, Any]]:
        """The ``top`` best trials, best first; ``params`` is what :func:`paropt.train` takes."""
        return self._study.best(top)

    def importances(self) -> pd.DataFrame:
        """How much each searched parameter matters, by model; empty while there is too little."""
        import pandas as pd

        rows = [
            {"model": found.model, "parameter": name, "importance": value}
            for found in self._study.importances()
            for name, value in found.shares.items()
        ]
        return pd.DataFrame(rows, columns=["model", "parameter", "importance"])

    def export(self, out: str | Path, top: int = 1, overwrite: bool = False) -> list[Path]:
        """Write the best paramfiles; see :func:`paropt.results.export.export`."""
        from paropt.results.export import export

        files = export(self._study, Path(out), top=top, overwrite=overwrite)
        return [Path(file["file"]) for file in files]

    def optuna(self) -> optuna.Study:
        """The same study as Optuna's, for its own plots and analyses, until :meth:`close`."""
        from paropt.search.study.optuna_study import optuna_study

        return optuna_study(self._storage.url, self.name)

    def url(self) -> str:
        """The database's URL, without a password, as Optuna's own tools take it."""
        from paropt.storage.connect import show

        return show(self._storage.url)


def _flat(trial: Mapping[str, Any]) -> dict[str, Any]:
    """A trial as a row of a table."""
    whole = {
        key: value
        for key, value in trial.items()
        if key not in ("params", "metrics", "curve", "owner", "stages")
    }
    whole |= {name: value for name, value in trial["metrics"].items() if name not in whole}
    return whole | {f"params.{name}": value for name, value in trial["params"].items()}


def open_study(name: str, storage: str | None = None) -> Study:
    """A study that exists.

    Args:
        name: the study's.
        storage: ``postgresql://USER@HOST/DATABASE``; None is PAROPT_STORAGE, else the embedded
            server.

    Raises:
        StudyError: there is none of that name.
        StorageUnreachable: no database.
    """
    from paropt.search.study import study as search
    from paropt.storage.connect import open_storage

    opened = open_storage(_storage(storage))
    try:
        return Study(opened, search.Study.load(opened.url, name))
    except BaseException:
        opened.close()
        raise


def studies(storage: str | None = None) -> pd.DataFrame:
    """A row per study: ``paropt status`` as a table."""
    import pandas as pd

    from paropt.search.study import study as search
    from paropt.storage.connect import open_storage

    rows = []
    with open_storage(_storage(storage)) as opened:
        for name, found in search.Study.summaries(opened.engine(), parts=False):
            if isinstance(found, dict):
                best = found["best"] or {}
                rows.append(
                    {"study": name, "model": found["model"], "metric": found["metric"]}
                    | {"best": best.get("value"), "trial": best.get("trial")}
                    | {"state": found["state"], **found["counts"]}
                )
    return pd.DataFrame(rows)


def launch_study(
    data: Dataset | str | Path | Sequence[str | Path] | None = None,
    *,
    space: str | Path | Mapping[str, Any] | None = None,
    study: str | None = None,
    storage: str | None = None,
    devices: str = "auto",
    per_device: int | Literal["auto"] | None = None,
    checkpoint_dir: str | Path | None = None,
    **options: Any,
) -> Study:
    """Create or resume a study and run its trials, as ``paropt launch`` does; blocks until the end.

    Progress is shown while it runs, in a notebook below the cell. Interrupting the kernel hands
    the trials back, and the same call goes on with them.

    Args:
        data: a dataset, its directory, or event files.
        space: a file, the name of one of paropt's, or the space itself as a dict (``study`` is
            needed then); None makes one for the data.
        study: its name; None makes one of space and data.
        storage: a database's URL; see :func:`open_study`.
        devices: ``"auto"``, ``"cpu"`` or ``"0,1"``.
        per_device: slots on each device.
        checkpoint_dir: where checkpoints lie.
        options: ``trials``, ``timeout`` (seconds, or a text such as ``"2h"``), ``metric``,
            ``seed``, ``sampler``, ``pruner`` and whatever else
            :class:`paropt.launch.opening.launch_request.LaunchRequest` has.

    Returns:
        The study as it is then; close it.

    Raises:
        ParoptError: as the command's: one sentence on what cannot be done.
    """
    from paropt.api.options import checked
    from paropt.launch.opening.launch_request import LaunchRequest
    from paropt.launch.opening.open_study import create_or_resume
    from paropt.machine.devices import device_shares

    options = checked({**options, "study": study})
    shares = device_shares(devices, per_device)
    with _space_file(space, study) as file:
        asked = LaunchRequest(space=file, data=_data(data), storage=_storage(storage), **options)
        opened = create_or_resume(asked, note=say)
    return _work(opened, shares, checkpoint_dir, floor=True)


def join_study(
    study: str,
    *,
    data: Dataset | str | Path | None = None,
    storage: str | None = None,
    devices: str = "auto",
    per_device: int | Literal["auto"] | None = None,
    checkpoint_dir: str | Path | None = None,
) -> Study:
    """Work on a study that exists, as ``paropt worker`` does; see :func:`launch_study`."""
    from paropt.launch.opening import open_study
    from paropt.machine.devices import device_shares

    shares = device_shares(devices, per_device)
    opened = open_study.join(study, _storage(storage), _data(data), note=say)
    return _work(opened, shares, checkpoint_dir, floor=False)


def _work(
    opened: OpenedStudy, shares: Any, checkpoint_dir: str | Path | None, *, floor: bool
) -> Study:
    from paropt.launch.launcher import work
    from paropt.launch.opening.checkpoint_place import checkpoint_place

    checkpoints = checkpoint_place(checkpoint_dir)
    try:
        work(opened, shares, checkpoints=checkpoints, floor=floor, report=False)
    except BaseException:
        opened.close()
        raise
    return Study(opened.storage, opened.study)


def _data(given: Any) -> Any:
    from paropt.data import Dataset

    return given.path if isinstance(given, Dataset) else given


def _storage(given: str | None) -> str | None:
    import os

    return given or os.environ.get("PAROPT_STORAGE") or None


@contextmanager
def _space_file(space: str | Path | Mapping[str, Any] | None, study: str | None) -> Iterator[Any]:
    """The space's file; of a dict one for the time being."""
    if isinstance(space, Mapping):
        if study is None:
            raise ParoptError("a space without a file gives a study no name; say study=NAME")
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"{study}.json"
            path.write_text(json.dumps(space))
            yield path
        return
    yield _shipped(space)


def _shipped(space: str | Path | None) -> Path | None:
    from paropt.search.space import shipped

    if space is None:
        return None
    found = shipped.find_space(str(space))
    if found is None:
        raise ParoptError(shipped.missing(str(space), "space"))
    return found
