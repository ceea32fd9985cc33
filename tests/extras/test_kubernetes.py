"""The manifests are what a current Kubernetes takes, and call paropt as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from paropt.cli.launch import launch

pytestmark = pytest.mark.extras
MANIFEST = Path(__file__).parents[2] / "docs" / "kubernetes" / "paropt.yaml"


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFEST.read_text()))


def test_the_schemas_of_a_current_release_take_them() -> None:
    kubernetes = pytest.importorskip("kubernetes_validate")
    for document in documents():
        kubernetes.validate(document, "1.37", strict=True)
    broken = documents()[1]
    broken["spec"]["paralelism"] = 3
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(broken, "1.37", strict=True)


def test_the_slots_are_started_with_options_that_there_are() -> None:
    (slot,) = documents()[1]["spec"]["template"]["spec"]["containers"]
    verb, *words = slot["args"]
    assert verb == "launch"
    with click.Context(launch) as context:
        launch.parse_args(context, [word for word in words if not word.startswith("--space")])
    assert context.params["checkpoint_dir"].startswith("s3://")
    codes = documents()[1]["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]
    given = {one["name"]: one["value"] for one in slot["env"]}
    assert codes == [int(given["PAROPT_LEFT_EXIT"])]


def test_no_password_is_in_them() -> None:
    config, job = documents()
    assert "@postgres" in config["data"]["PAROPT_STORAGE"]
    assert ":" not in config["data"]["PAROPT_STORAGE"].partition("//")[2].partition("@")[0]
    assert {"secretRef": {"name": "paropt"}} in job["spec"]["template"]["spec"]["containers"][0][
        "envFrom"
    ]
