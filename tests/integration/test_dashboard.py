"""The dashboard over HTTP: who gets in, and what they may do."""

from __future__ import annotations

import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest

from paropt.dashboard.access import AccessControl, host_of, is_loopback, served_hosts
from paropt.dashboard.server import Dashboard
from paropt.errors import ParoptError, StorageUnreachable
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.storage.connect import Storage, open_storage
from paropt.storage.engine import initialise, open_rdb
from paropt.training.evaluation.epochs import EpochReport


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int,
    path: str = "/api/studies",
    *,
    method: str = "GET",
    token: str | None = None,
    body: str | None = None,
    **headers: str,
) -> Answer:
    """One request; headers are given with underscores."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    sent.setdefault("Accept-Encoding", "identity")
    if token:
        sent["Authorization"] = f"Bearer {token}"
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body=body, headers=sent)
        answer = connection.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, named, answer.read())


@contextmanager
def served(storage: Storage, **options: Any) -> Iterator[Dashboard]:
    dashboard = Dashboard(storage, port=0, **options)
    thread = threading.Thread(target=dashboard.serve)
    thread.start()
    try:
        yield dashboard
    finally:
        dashboard.stop()
        thread.join()
        dashboard.close()


@pytest.fixture(scope="module")
def storage(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A storage with a study of one trial that uploaded a page with a script."""
    with open_storage(module_database_url) as storage:
        initialise(storage.url)
        rdb = open_rdb(storage.url)
        study = optuna.create_study(study_name="shop", storage=rdb, direction="maximize")
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        folder = tmp_path_factory.mktemp("artifacts")
        store = optuna.artifacts.FileSystemArtifactStore(folder)
        page = folder.parent / "page.html"
        page.write_text("<script>alert(document.cookie)</script>")
        artifact = optuna.artifacts.upload_artifact(
            artifact_store=store, file_path=str(page), study_or_trial=trial
        )
        study.tell(trial, 0.25)
        rdb._backend.engine.dispose()
        yield storage, folder, artifact


@pytest.fixture(scope="module")
def reading(storage: Any) -> Iterator[Dashboard]:
    opened, folder, _ = storage
    with served(opened, artifacts=folder) as dashboard:
        yield dashboard


def test_token_lets_in(reading: Dashboard) -> None:
    port, token = reading.port, reading.token
    assert reading.url == f"http://127.0.0.1:{port}/dashboard?token={token}"
    assert ask(port).status == 401
    assert ask(port, token="not-the-token").status == 401
    assert ask(port, "/api/studies?token=not-the-token").status == 401
    assert ask(port, "/api/studies?token=").status == 401
    assert ask(port, token="").status == 401
    answer = ask(port, token=token)
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert "no-store" not in ask(port, "/static/bundle.js", token=token).headers.values()
    assert [study["study_name"] for study in answer.json["study_summaries"]] == ["shop"]


def test_token_in_the_address_becomes_a_cookie(reading: Dashboard) -> None:
    answer = ask(reading.port, f"/dashboard?a=1&token={reading.token}&b=%26")
    assert answer.status == 303
    assert answer.headers["location"] == "/dashboard?a=1&b=%26"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    kept = cookie.partition(";")[0]
    page = ask(reading.port, "/dashboard", Cookie=f"other=1; {kept}")
    assert page.status == 200
    assert b"<html" in page.body
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"  # a browser shows it without asking, else
    assert ask(reading.port, "/dashboard", Cookie=kept[:-1]).status == 401
    assert ask(reading.port, "/dashboard", Cookie="[]=;;;").status == 401


def test_redirect_stays_here(reading: Dashboard) -> None:
    for path in ("//evil.example/x", "/\\evil.example/x", "/%5cevil.example/x"):
        answer = ask(reading.port, f"{path}?token={reading.token}")
        location = answer.headers["location"]
        assert location.startswith("/")
        assert not location.startswith(("//", "/\\"))


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "10.0.0.7", "localhost.evil:80", "", "[", "a b"],
)
def test_foreign_host_is_refused(reading: Dashboard, host: str) -> None:
    assert ask(reading.port, token=reading.token, Host=host).status == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:9", "localhost."]
)
def test_own_host_is_served(reading: Dashboard, host: str) -> None:
    assert ask(reading.port, token=reading.token, Host=host).status == 200


@pytest.mark.parametrize("method", ["DELETE", "POST", "PUT", "PATCH", "OPTIONS", "BREW"])
def test_reading_is_all_one_may_do(reading: Dashboard, method: str) -> None:
    for token in (None, reading.token):
        answer = ask(reading.port, "/api/studies/1", method=method, token=token)
        assert answer.status == 405
        assert answer.headers["allow"] == "GET, HEAD"
    assert len(ask(reading.port, token=reading.token).json["study_summaries"]) == 1


def test_database_itself_refuses_writes(reading: Dashboard) -> None:
    with pytest.raises(StorageUnreachable, match="read-only transaction"):
        reading._optuna.set_study_user_attr(1, "key", "value")
    with pytest.raises(optuna.exceptions.StorageInternalError):
        reading._optuna.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "another")


def test_every_view_works_read_only(reading: Dashboard) -> None:
    for path in ("/api/meta", "/api/studies/1", "/api/studies/1?after=1", "/csv/1", "/dashboard"):
        assert ask(reading.port, path, token=reading.token).status == 200, path
    assert ask(reading.port, "/", token=reading.token).headers["location"].endswith("/dashboard")
    head = ask(reading.port, "/dashboard", method="HEAD", token=reading.token)
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("slashes", ["/", "//", "///"])
def test_uploaded_page_cannot_run(reading: Dashboard, storage: Any, slashes: str) -> None:
    path = f"{slashes}artifacts/1/1/{storage[2]}"
    assert ask(reading.port, path).status == 401
    answer = ask(reading.port, path, token=reading.token)
    assert answer.status == 200
    assert b"<script>" in answer.body
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers


def test_writable_takes_deletes_from_who_may(database_url: str) -> None:
    with open_storage(database_url) as opened:
        initialise(opened.url)
        rdb = open_rdb(opened.url)
        optuna.create_study(study_name="shop", storage=rdb)
        with served(opened, writable=True) as dashboard:

            def delete(**options: Any) -> int:
                path = "/api/studies/1"
                body = json.dumps({"remove_associated_artifacts": False})
                return ask(dashboard.port, path, method="DELETE", body=body, **options).status

            assert delete() == 401
            assert delete(Cookie=f"paropt_token_{dashboard.port}=wrong") == 401
            assert delete(token=dashboard.token, Host="evil.example") == 403
            assert delete(token=dashboard.token, Origin="http://evil.example") == 403
            assert delete(token=dashboard.token, Origin="null") == 403
            assert rdb.get_all_studies()
            here = f"http://127.0.0.1:{dashboard.port}"
            assert (
                delete(token=dashboard.token, Origin=here, Content_Type="application/json") == 204
            )
            assert not rdb.get_all_studies()
        rdb._backend.engine.dispose()


def test_no_token_only_on_loopback(storage: Any) -> None:
    opened = storage[0]
    for host in ("0.0.0.0", "::", "192.0.2.1", "db.example"):
        with pytest.raises(ParoptError, match="--no-token"):
            Dashboard(opened, host=host, port=0, token="")
    with served(opened, token="") as dashboard:
        assert dashboard.url.endswith("/dashboard")
        assert ask(dashboard.port).status == 200
        assert ask(dashboard.port, Host="evil.example").status == 403


def test_open_to_the_network(storage: Any) -> None:
    with served(storage[0], host="0.0.0.0", allowed=("tune.example",)) as dashboard:
        for host in ("192.0.2.7:80", "tune.example", socket.gethostname()):
            assert ask(dashboard.port, Host=host).status == 401
            assert ask(dashboard.port, Host=host, token=dashboard.token).status == 200
        assert ask(dashboard.port, Host="evil.example", token=dashboard.token).status == 403


def test_taken_port_and_weak_token(storage: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ParoptError, match=f"127.0.0.1:{port}.*--port"):
            Dashboard(storage[0], port=port)
    for weak in ("short", "sixteen letters; and a space"):
        with pytest.raises(ParoptError, match="token"):
            Dashboard(storage[0], port=0, token=weak)


def test_many_at_once(reading: Dashboard) -> None:
    """A connection that says nothing holds up nobody."""
    with socket.create_connection(("127.0.0.1", reading.port)):
        answers: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: answers.append(ask(reading.port, token=reading.token).status)
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [200] * 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_verb_serves_until_a_signal(number: int, database_url: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "paropt", "dashboard", "--port", "0"],
        env={"PATH": "/usr/bin:/bin", "PAROPT_STORAGE": database_url, "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    port = int(url.partition("//")[2].partition("/")[0].rpartition(":")[2])
    assert ask(port, url.partition(str(port))[2]).status == 303
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
    assert url.rpartition("=")[2] not in err


def test_verb_refuses_the_world_without_a_token(
    database_url: str, run_paropt: Callable[..., Any]
) -> None:
    done = run_paropt(
        "dashboard", "--host", "0.0.0.0", "--no-token", env={"PAROPT_STORAGE": database_url}
    )
    assert done.rc == 1
    assert "--no-token" in done.err
    assert "Traceback" not in done.err


SPACE = {
    "model": "gru4rec",
    "fixed": {"n_epochs": 2},
    "search": {"learning_rate": {"type": "float", "low": 0.01, "high": 0.3}},
}


def test_note_and_plots_of_a_study(database_url: str) -> None:
    definition = StudyDefinition(
        name="shop `<script>`",
        space=SPACE,
        metric="mrr@20",
        at=[20],
        data_path="data/shop",
        fingerprint="f" * 64,
        pruner={"name": "none"},
    )
    study = Study.create(database_url, definition, budget=2)
    study.set_floor({"popularity": {"mrr@20": 0.0625}})
    for value in (0.25, 0.125):
        trial = study.next_trial({"host": "rome"})
        assert trial
        for epoch in (1, 2):
            metrics = {"mrr@20": value / epoch, "recall@20": value}
            trial.report(
                EpochReport.from_json(
                    {"epoch": epoch, "metrics": metrics, "loss": 1.0, "seconds": 1800.0}
                )
            )
        trial.complete()
    with open_storage(database_url) as opened, served(opened) as dashboard:
        told = ask(dashboard.port, "/api/studies/1", token=dashboard.token).json
        stored = open_rdb(opened.url)
        assert not [key for key in stored.get_study_system_attrs(1) if "dashboard" in key]
        stored._backend.engine.dispose()
        note = told["note"]["body"]
        for shown in ("0.0625", "0.2500", "ffffffffffff", "learning_rate", "paropt export"):
            assert shown in note, shown
        assert told["best_trials"][0]["number"] == 0
        facts = {one["key"]: one["value"] for one in told["user_attrs"]}
        assert facts["models"] == "gru4rec" and not any("{" in one for one in facts.values())
        path = "/api/studies/1/param_importances"
        assert ask(dashboard.port, path, token=dashboard.token).json == {"param_importances": [[]]}
        plots = {
            plot["id"]: json.loads(plot["graph_object"]) for plot in told["plotly_graph_objects"]
        }
        assert set(plots) == {"over-time", "learning-curves"}
        best, trials, floor = plots["over-time"]["data"]
        assert (best["x"], best["y"]) == ([1.0, 2.0], [0.1875, 0.1875])  # device-hours
        assert (trials["mode"], trials["y"]) == ("markers", [0.1875, 0.09375])
        assert floor["x"] == [0.0, 2.0]
        assert floor["y"] == [0.0625, 0.0625]
        curves = plots["learning-curves"]["data"]
        assert [curve["y"] for curve in curves[:2]] == [[0.125, 0.0625], [0.25, 0.125]]
        assert curves[1]["line"]["width"] > curves[0]["line"]["width"]
        assert (curves[2]["name"], curves[2]["y"]) == ("popularity", [0.0625, 0.0625])
        check_files(dashboard, told["trials"][0])
    study.close()


def check_files(dashboard: Dashboard, trial: dict[str, Any]) -> None:
    """The files of a trial are what its epochs were, and only for who shows the token."""
    files = {file["filename"]: file for file in trial["artifacts"]}
    assert set(files) == {"trial0.json", "trial0-curve.svg", "trial0-epochs.csv"}
    found = {}
    for name, file in files.items():
        path = f"/artifacts/1/{trial['trial_id']}/{file['artifact_id']}"
        assert ask(dashboard.port, path).status == 401
        found[name] = ask(dashboard.port, path, token=dashboard.token)
        assert found[name].headers["content-type"].partition(";")[0] == file["mimetype"]
        assert found[name].headers["content-disposition"] == "attachment"
        assert found[name].headers["content-security-policy"].startswith("sandbox;")
    paramfile = found["trial0.json"].json
    assert (paramfile["model"], paramfile["provenance"]["value"]) == ("gru4rec", 0.25)
    assert found["trial0-epochs.csv"].body.decode().splitlines() == [
        "epoch,mrr@20,recall@20,loss,seconds",
        "1,0.25,0.25,1.0,1800.0",
        "2,0.125,0.25,1.0,1800.0",
    ]
    svg = found["trial0-curve.svg"].body
    assert svg.startswith(b"<svg ") and b'xmlns="http://www.w3.org/2000/svg"' in svg
    other = f"/artifacts/1/{trial['trial_id']}/00000000-0000-0000-0000-000000000000"
    assert ask(dashboard.port, other, token=dashboard.token).status == 404


def test_own_notes_stay_and_made_files_go_with_their_study(database_url: str) -> None:
    definition = StudyDefinition(
        "shop", SPACE, "mrr@20", [20], "data/shop", "f" * 64, pruner={"name": "none"}
    )
    study = Study.create(database_url, definition, budget=1)
    trial = study.next_trial({"host": "rome", "device": "cpu"})
    assert trial
    trial.report(EpochReport.from_json({"epoch": 1, "metrics": {"mrr@20": 0.5}}))
    trial.complete()
    study.close()
    with open_storage(database_url) as opened, served(opened, writable=True) as dashboard:
        told = ask(dashboard.port, "/api/studies/1", token=dashboard.token).json
        assert len(told["trials"][0]["artifacts"]) == 3
        assert "| mrr@20 | 0.5000 |" in told["trials"][0]["note"]["body"]
        assert "| device | cpu on rome |" in told["trials"][0]["note"]["body"]
        mine = {"body": "look at this one", "version": 1}
        kept = ask(
            dashboard.port,
            "/api/studies/1/1/note",
            method="PUT",
            token=dashboard.token,
            body=json.dumps(mine),
            Content_Type="application/json",
        )
        assert kept.status == 204
        told = ask(dashboard.port, "/api/studies/1", token=dashboard.token).json
        assert told["trials"][0]["note"] == mine
        assert "paropt export" in told["note"]["body"]  # the study's is still ours
        body = json.dumps({"remove_associated_artifacts": True})
        gone = ask(
            dashboard.port,
            "/api/studies/1",
            method="DELETE",
            token=dashboard.token,
            body=body,
            Content_Type="application/json",
        )
        assert gone.status == 204
        assert not Study.names(database_url)


def test_saved_note_goes_before_ours(database_url: str) -> None:
    definition = StudyDefinition(
        "shop", SPACE, "mrr@20", [20], "data/shop", "f" * 64, pruner={"name": "none"}
    )
    Study.create(database_url, definition).close()
    with open_storage(database_url) as opened, served(opened, writable=True) as dashboard:
        token = dashboard.token
        body = json.dumps({"body": "read this", "version": 1})
        saved = ask(
            dashboard.port,
            "/api/studies/1/note",
            method="PUT",
            token=token,
            body=body,
            Content_Type="application/json",
        )
        assert saved.status == 204
        told = ask(dashboard.port, "/api/studies/1", token=token).json
        assert told["note"] == {"body": "read this", "version": 1}


def test_hosts() -> None:
    assert host_of("Tune.Example:80") == "tune.example"
    assert host_of("[::1]:80") == "::1"
    assert host_of("user@evil") == "evil"
    assert is_loopback("127.8.9.1")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert "0.0.0.0" not in served_hosts("0.0.0.0")
    assert served_hosts("127.0.0.1") == {"localhost", "127.0.0.1", "::1"}


def _pass(gate: AccessControl, path: str, query: str = "") -> tuple[str, dict[str, str]]:
    """What the gate answers to a path that another server than ours might hand it as it came."""
    seen: list[tuple[str, dict[str, str]]] = []
    environ = {"HTTP_HOST": "localhost", "REQUEST_METHOD": "GET", "PATH_INFO": path}
    list(
        gate(
            {**environ, "QUERY_STRING": query},
            lambda status, headers: seen.append((status, dict(headers))),
        )
    )
    return seen[0]


@pytest.mark.parametrize("path", ["/artifacts/1/a", "//artifacts/1/a", "artifacts/1/a"])
def test_gate_knows_artifacts_by_any_path(path: str) -> None:
    def app(environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/html"), ("Access-Control-Allow-Origin", "*")])
        return [b"<script>"]

    _, headers = _pass(AccessControl(app, None, frozenset({"localhost"})), path)
    assert headers["Content-Disposition"] == "attachment"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "path", ["//evil.example/x", "///evil.example", "/\\evil.example", "\\\\evil"]
)
def test_gate_redirects_to_itself_only(path: str) -> None:
    gate = AccessControl(lambda *_: [b""], "secret", frozenset({"localhost"}))
    status, headers = _pass(gate, path, "token=secret")
    assert status == "303 See Other"
    assert headers["Location"][0] == "/"
    assert headers["Location"][1:2] not in ("/", "\\")


def test_gate_without_a_token_is_never_passed_by_an_empty_one() -> None:
    gate = AccessControl(lambda *_: [b""], "", frozenset({"localhost"}))
    seen: list[str] = []
    environ = {"HTTP_HOST": "localhost", "REQUEST_METHOD": "GET", "QUERY_STRING": "token="}
    list(gate(environ, lambda status, headers: seen.append(status)))
    assert seen == ["401 Unauthorized"]


def test_gate_reads_what_it_refuses() -> None:
    """A server that closes with something unread resets the connection, and the refusal is lost."""
    gate = AccessControl(lambda *_: [b""], "secret", frozenset({"localhost"}))
    for host, length, rest in (
        ("localhost", "5", 0),
        ("evil.example", "3", 2),
        ("localhost", "", 5),
    ):
        sent = io.BytesIO(b"12345")
        environ = {"HTTP_HOST": host, "REQUEST_METHOD": "DELETE", "PATH_INFO": "/api/studies/1"}
        list(gate({**environ, "CONTENT_LENGTH": length, "wsgi.input": sent}, lambda *_: None))
        assert len(sent.read()) == rest
