"""No Docker engine here: the files are parsed, and their commands run without it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from sqlalchemy import inspect, make_url

from paropt.cli import main
from paropt.storage.engine import open_engine

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    text = (REPOSITORY / "docker-compose.yml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


def _substituted(word: str, values: dict[str, str] | None = None) -> str:
    """What compose makes of ``${NAME:-default}``."""

    def value(match: re.Match[str]) -> str:
        return (values or {}).get(match["name"], match["default"] or "")

    return re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}", value, word)


def test_services_wait_for_each_other(services: dict[str, Any]) -> None:
    assert services["db"]["image"].startswith("postgres:18")
    assert "pg_isready" in services["db"]["healthcheck"]["test"][1]
    assert services["init"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert services["init"]["restart"] == "no"
    for name in ("dashboard", "worker", "worker-cpu"):
        waits = services[name]["depends_on"]
        assert waits == {"init": {"condition": "service_completed_successfully"}}, name


def test_version_18_keeps_its_data_in_the_volume(services: dict[str, Any]) -> None:
    assert services["db"]["volumes"] == ["database:/var/lib/postgresql"]


def test_passwords_come_from_the_environment_and_are_required(services: dict[str, Any]) -> None:
    for service in services.values():
        for name, value in service["environment"].items():
            if "PASSWORD" in name or name == "REDISCLI_AUTH":
                assert re.fullmatch(r"\$\{POSTGRES_PASSWORD:\?[^}]+\}", value)
        url = make_url(service["environment"].get("PAROPT_STORAGE", "postgresql://db"))
        assert url.password is None
    words = [str(word) for s in services.values() for word in s.get("command", [])]
    assert not [word for word in words if "PASSWORD" in word], "not in a process list"


def test_nothing_is_open_to_the_network(services: dict[str, Any]) -> None:
    ports = {name: s["ports"] for name, s in services.items() if "ports" in s}
    assert list(ports) == ["dashboard", "redis"]
    assert _substituted(ports["dashboard"][0]) == "127.0.0.1:8080:8080"
    assert _substituted(ports["redis"][0]) == "127.0.0.1:6379:6379"


def test_redis_starts_with_its_password_in_no_list_of_processes(services: dict[str, Any]) -> None:
    redis = services["redis"]
    assert redis["profiles"] == ["redis"], "only who embeds needs it"
    shell, option, script = redis["command"]
    # in place of the server: what it would be started with, and its settings
    script = script.replace("$$", "$").replace("exec redis-server", "echo").replace("/tmp/", "./")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [shell, option, script],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "REDISCLI_AUTH": "s3cret"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "./redis.conf --appendonly yes\n"
        settings = Path(folder) / "redis.conf"
        assert settings.read_text() == "requirepass s3cret\n"
        assert settings.stat().st_mode & 0o077 == 0


def test_worker_has_gpus_scales_and_is_given_time(services: dict[str, Any]) -> None:
    worker = services["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    for fixed in ("container_name", "hostname", "ports"):
        assert fixed not in worker, "one name for many"
    assert worker["stop_grace_period"] == "2m"
    assert worker["init"] is True
    assert "deploy" not in services["worker-cpu"]


@pytest.mark.parametrize("name", ["dashboard", "worker", "worker-cpu"])
def test_commands_are_what_paropt_takes(
    name: str, services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    verb, *arguments = (_substituted(word) for word in services[name]["command"])
    group = click.Context(main.cli)
    command = main.cli.get_command(group, verb)
    assert command is not None
    context = command.make_context(verb, list(arguments), parent=group)
    if verb == "launch":
        assert Path(context.params["space"]).exists()
        assert context.params["study"] == "demo"


def test_init_makes_all_tables_and_takes_the_password_apart(database_url: str) -> None:
    url = make_url(database_url)
    command = [sys.executable, "-m", "paropt.storage.initialise"]
    environment = {
        "PAROPT_STORAGE": url._replace(password=None).render_as_string(),
        "PGPASSWORD": str(url.password),
        "PATH": "/usr/bin:/bin",
    }
    for _ in range(2):  # compose runs it at every start
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert str(url.password) not in done.stdout + done.stderr
    engine = open_engine(database_url)
    assert {"studies", "trials", "paropt_lease", "paropt_slot"} <= set(
        inspect(engine).get_table_names()
    )
    engine.dispose()
    environment["PGPASSWORD"] = "wrong"
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr


def test_dockerfile_copies_what_exists() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    assert copied
    sources = [source for line in copied for source in line.split()]
    for source in sources:
        assert (REPOSITORY / source).exists(), source
    kept = (REPOSITORY / ".dockerignore").read_text().split()
    for source in sources:
        assert f"!{source.split('/')[0]}" in kept, f"{source} is not in the build context"
    assert re.search(r"^USER paropt$", text, re.MULTILINE)
