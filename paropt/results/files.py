"""The files that ``paropt final --out DIR`` writes, and reading them again."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paropt.errors import ParoptError
from paropt.files import link
from paropt.results.final.report import FORMAT
from paropt.results.pages.final_numbers import MODELS
from paropt.results.pages.html_page import page
from paropt.results.pages.markdown import markdown
from paropt.results.pages.of_report import document
from paropt.search.space.paramfiles import Paramfile, formatted

JSON, MARKDOWN, PAGE = "report.json", "report.md", "report.html"

Report = Mapping[str, Any]


def write(report: Report, out: Path) -> None:
    """All files of a final test's report, in a directory that appears whole or not at all; with
    the chosen one's models, where they are on this machine.

    A directory that a report was written to before is replaced.

    Raises:
        ParoptError: something else is there, or it cannot be written.
    """
    check_out(out)
    shown = document(report)
    files = {
        JSON: json.dumps(report, indent=1, allow_nan=False) + "\n",
        MARKDOWN: markdown(shown),
        PAGE: page(shown),
        **{f"{role}.json": formatted(paramfile(report, role)) for role in roles(report)},
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            beside.chmod(0o755)
            for name, text in files.items():
                (beside / name).write_text(text, encoding="utf-8")
            for seed, place in models(report).items():
                shutil.copytree(place, beside / MODELS / seed, copy_function=link)
            if out.exists():
                out.rename(beside / "old")
            os.replace(beside, out)
            shutil.rmtree(out / "old", ignore_errors=True)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise ParoptError(f"{out} cannot be written: {error.strerror or error}") from None


def models(report: Report) -> dict[str, Path]:
    """The chosen one's models by seed, as its trainers kept them here; nothing if one is away."""
    ensemble = report["test"]["chosen"].get("ensemble") if report["test"] else None
    found = {seed: Path(place) for seed, place in ((ensemble or {}).get("models") or {}).items()}
    return found if all(place.is_dir() for place in found.values()) else {}


def check_out(out: Path) -> None:
    """Raises :class:`ParoptError` if ``out`` is there and not a report's directory."""
    if out.exists() and not (out / JSON).is_file():
        raise ParoptError(f"{out} exists and holds no report; choose another --out")


def read(directory: Path) -> dict[str, Any]:
    """The report of a directory.

    Raises:
        ParoptError: there is none, or a newer paropt wrote it.
    """
    path = directory / JSON
    try:
        report: dict[str, Any] = json.loads(path.read_text("utf-8"))
        version = report["paropt_report"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ParoptError(f"{path} is no report of paropt final: {error}") from None
    if version != FORMAT:
        raise ParoptError(f"{path} is of version {version}; this paropt reads {FORMAT}")
    return report


def roles(report: Report) -> list[str]:
    """Whom the test was of: the chosen one, and the control unless that is the same."""
    return [role for role in ("chosen", "control") if report["test"] and report["test"][role]]


def paramfile(report: Report, role: str) -> Paramfile:
    """The configuration of a role, ready for ``paropt train --params``."""
    tested, begin = report["test"][role], report["search"].get("begin")
    provenance = {
        "study": report["study"],
        "final": report["final"],
        "role": role,
        **{key: tested["found"][key] for key in ("trial", "value") if key in tested["found"]},
        **({"source": tested["source"]} if tested["source"] else {}),
        "metric": report["metric"],
        "split": report["test"].get("view", "full"),
        **({"threads": tested["threads"]} if tested["threads"] else {}),
        "seed": report["seeds"][0],
        "seeds": report["seeds"],
        "epochs": tested["epochs"],
        **({"stages": tested["stages"]} if tested.get("stages") else {}),
        "metrics": {name: value["mean"] for name, value in tested["metrics"].items()},
        "ties": report["ties"],
        **report["test"].get("evaluation", {}),
        "fingerprint": report["fingerprint"],
        "semantics": report["semantics"],
        "versions": report["versions"],
        **({"added": report["added"]} if report.get("added") else {}),
        **({"begun_from": begin} if begin else {}),
    }
    return Paramfile(tested["model"], tested["params"], provenance)
