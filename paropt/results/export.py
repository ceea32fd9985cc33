"""A study's best trials as paramfiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paropt.errors import ParoptError, StudyError
from paropt.files import paramfile_name, write_text
from paropt.names import quoted
from paropt.search.space.paramfiles import Format, Paramfile, formatted
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study


def export(
    study: Study,
    out: Path,
    *,
    top: int = 1,
    pareto: bool = False,
    format: Format = "json",
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Writes the ``top`` best trials to ``out``, or those of the Pareto front; returns file, trial,
    epoch and value of each, and what else a front is of.

    Everything is made ready before anything is written.

    Raises:
        StudyError: no trial has a value yet.
        ParoptError: the format cannot express one of them, or a file exists.
    """
    if pareto and not study.definition.beside:
        raise StudyError(
            f"study {study.name!r} records nothing beside {study.definition.metric}, so it has no "
            "front; launch another one with --also"
        )
    best = study.front() if pareto else study.best(top)
    if not best:
        within = " within its constraints" if study.definition.constraints else ""
        raise StudyError(
            f"study {study.name!r} has no trial with a value{within} yet; "
            f"{quoted('launch', '--study', study.name)} goes on with it"
        )
    ending = "json" if format == "json" else "py"
    written = []
    texts = {}
    for rank, trial in enumerate(best, 1):
        path = out / paramfile_name(study.name, rank, trial["trial"], ending)
        texts[path] = formatted(paramfile_of(study.definition, trial), format)
        written.append(
            {"file": str(path)} | {key: trial[key] for key in ("trial", "epoch", "value")}
        )
        if pareto:
            values = {**trial["metrics"], **trial["measures"]}
            written[-1]["also"] = {name: values.get(name) for name in study.definition.beside}
    for path in texts:
        if path.exists() and not overwrite:
            raise ParoptError(f"{path} exists; add --overwrite to replace it")
    for path, text in texts.items():
        write_text(path, text, overwrite=overwrite)
    return written


def paramfile_of(definition: StudyDefinition, trial: Mapping[str, Any]) -> Paramfile:
    """The paramfile of a trial as :func:`paropt.search.study.summary.described` gives it."""
    owner = trial["owner"]
    return Paramfile(
        trial["model"],
        trial["params"],
        {
            "study": definition.name,
            "trial": trial["trial"],
            "epoch": trial["epoch"],
            "epochs": trial["epoch"],
            **({"stages": trial["stages"]} if trial.get("stages") else {}),
            "metric": definition.metric,
            "value": trial["value"],
            "metrics": trial["metrics"],
            "at": list(definition.at),
            "split": definition.view,
            "seed": trial["seed"],
            "threads": owner.get("threads"),
            "device": owner.get("device_kind", owner.get("device")),
            **_costs(definition, trial),
            **definition.protocol.to_json(),
            "fingerprint": definition.fingerprint,
            **({"added": dict(definition.added)} if definition.added else {}),
            "semantics": definition.semantics,
            "versions": dict(definition.versions),
            **({"begun_from": dict(definition.begin)} if definition.begin else {}),
        },
    )


def _costs(definition: StudyDefinition, trial: Mapping[str, Any]) -> dict[str, Any]:
    """Where the study asked for it: what the trial cost, and what it had to keep to."""
    asked = [name for name in definition.recorded if name in trial["measures"]]
    found: dict[str, Any] = {}
    if asked:
        found["measures"] = {name: trial["measures"][name] for name in asked}
    if definition.constraints:
        found["constraints"] = list(definition.constraints)
    return found
