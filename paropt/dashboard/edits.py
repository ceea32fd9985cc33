"""What people may change from the dashboard: paropt does it, or lets Optuna, or says why not.

Optuna's own answers are not to be relied on where a study is searched: a deletion or a note that
crosses a trial's report is taken back and answered as done, a rename copies what slots write to,
and a trial can be ended under the hands of its slot.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from io import BytesIO
from typing import Any

from sqlalchemy import Engine, text

from paropt.dashboard.access import READING, Application, Environ, StartResponse
from paropt.errors import ParoptError, StorageUnreachable
from paropt.names import check_name
from paropt.storage import study_rows, trial_rows
from paropt.storage.engine import transaction
from paropt.storage.leases import Slots

LARGEST = 16 << 20  # bytes of a request
STUDY = re.compile(r"/api/studies/(-?\d+)")
RENAME = re.compile(r"/api/studies/(-?\d+)/rename")
# what Optuna may do to a study of paropt's: notes, and files that people add or take away
LEFT_TO_OPTUNA = (
    ("PUT", re.compile(r"/api/studies/(-?\d+)(?:/-?\d+)?/note")),
    ("POST", re.compile(r"/api/artifacts/(-?\d+)(?:/-?\d+)?")),
    ("DELETE", re.compile(r"/api/artifacts/(-?\d+)/.*")),
)
OF_A_STUDY = re.compile(r"/api/(?:studies|artifacts)/(-?\d+)(?:/.*)?")
OF_A_TRIAL = re.compile(r"/api/trials/(-?\d+)/.*")


class Refused(ParoptError):
    """A request that is answered with a reason instead of being done."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Edits:
    """A WSGI layer over Optuna's application; it lets through what only reads.

    ``forget`` is told of a study that was changed here; ``remove_file`` takes away an uploaded file
    by its id.
    """

    def __init__(
        self,
        app: Application,
        engine: Engine,
        forget: Callable[[int], None],
        remove_file: Callable[[str], None],
    ) -> None:
        self._app, self._engine = app, engine
        self._forget, self._remove_file = forget, remove_file
        self._one_at_a_time = threading.Lock()  # a note is several statements of Optuna's

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in READING:
            return self._app(environ, start_response)
        with self._one_at_a_time:
            try:
                return self._edit(environ, start_response)
            except Refused as error:
                return _answer(start_response, error.status, {"reason": str(error)})
            except StorageUnreachable as error:
                return _answer(
                    start_response, HTTPStatus.SERVICE_UNAVAILABLE, {"reason": str(error)}
                )
            except ParoptError as error:
                return _answer(start_response, HTTPStatus.CONFLICT, {"reason": str(error)})

    def _edit(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        path = "/" + environ.get("PATH_INFO", "").lstrip("/")
        if method == "DELETE" and (found := STUDY.fullmatch(path)):
            self._delete(int(found[1]), _sent(environ))
            return _answer(start_response, HTTPStatus.NO_CONTENT)
        if method == "POST" and (found := RENAME.fullmatch(path)):
            renamed = self._rename(int(found[1]), _sent(environ), environ)
            return _answer(start_response, HTTPStatus.CREATED, renamed)
        if method == "POST" and path == "/api/studies":
            _checked(_sent(environ).get("study_name"))
        self._check(method, path)
        return self._app(environ, start_response)

    def _check(self, method: str, path: str) -> None:
        """Raises :class:`Refused` for what Optuna must not do."""
        ours = None
        if found := OF_A_STUDY.fullmatch(path):
            ours = self._ours("study_id = :id", int(found[1]), "study")
        elif found := OF_A_TRIAL.fullmatch(path):
            study = "study_id = (SELECT study_id FROM trials WHERE trial_id = :id)"
            ours = self._ours(study, int(found[1]), "trial")
        if ours and not any(
            method == its and route.fullmatch(path) for its, route in LEFT_TO_OPTUNA
        ):
            raise Refused(
                HTTPStatus.CONFLICT,
                f"study {ours!r} is searched by paropt: here it takes notes, files, another name "
                "or its deletion, nothing else",
            )

    def _ours(self, where: str, identity: int, what: str) -> str | None:
        """The name of the study if paropt made it.

        Raises:
            Refused: there is no such study.
        """
        with transaction(self._engine) as connection:
            row = connection.execute(
                text(
                    "SELECT study_name, EXISTS (SELECT FROM study_user_attributes a"
                    " WHERE a.study_id = s.study_id AND key = :key) AS ours"
                    f" FROM studies s WHERE {where}"
                ),
                {"id": identity, "key": trial_rows.DEFINITION},
            ).one_or_none()
        if row is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"there is no {what} {identity}; it was deleted")
        return str(row.study_name) if row.ours else None

    def _delete(self, study: int, sent: Mapping[str, Any]) -> None:
        self._ours("study_id = :id", study, "study")

        def act(connection: Any) -> list[str]:
            files = _uploaded(connection, study)
            study_rows.delete(connection, study)
            return files

        files = study_rows.alone(self._engine, act)
        self._forget(study)
        if sent.get("remove_associated_artifacts", True):
            for file in files:
                with contextlib.suppress(Exception):  # it was removed before, or lies elsewhere
                    self._remove_file(file)

    def _rename(self, study: int, sent: Mapping[str, Any], environ: Environ) -> dict[str, Any]:
        """The study as Optuna's page wants it."""
        new = _checked(sent.get("study_name"))
        self._ours("study_id = :id", study, "study")
        slots = Slots(self._engine).at_work
        study_rows.alone(self._engine, lambda c: study_rows.rename(c, study, new, slots))
        self._forget(study)
        return self._summary(study, environ)

    def _summary(self, study: int, environ: Environ) -> dict[str, Any]:
        asked = {
            **environ,
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/api/studies",
            "QUERY_STRING": "",
            "CONTENT_LENGTH": "0",
            "wsgi.input": BytesIO(),
        }
        for key in [key for key in asked if key.startswith("bottle.")]:
            del asked[key]
        found = json.loads(b"".join(self._app(asked, lambda *_: None)))
        summaries: list[dict[str, Any]] = found["study_summaries"]
        return next(one for one in summaries if one["study_id"] == study)


def _checked(name: Any) -> str:
    if not isinstance(name, str):
        raise Refused(HTTPStatus.BAD_REQUEST, "a study has a name")
    try:
        check_name(name)
    except ParoptError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, f"the name: {error}") from None
    return name


def _sent(environ: Environ) -> dict[str, Any]:
    """The JSON object of a request, which stays to be read."""
    length = environ.get("CONTENT_LENGTH") or "0"
    size = int(length) if length.isdecimal() else 0
    if size > LARGEST:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "that is too long")
    body = environ["wsgi.input"].read(size)
    environ["wsgi.input"] = BytesIO(body)
    try:
        sent = json.loads(body or b"{}")
    except ValueError:
        sent = None
    if not isinstance(sent, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "what was sent is no JSON object")
    return sent


def _uploaded(connection: Any, study: int) -> list[str]:
    """The ids of the files that people and programs added to a study and its trials."""
    rows = connection.execute(
        text(
            "SELECT value_json FROM study_system_attributes"
            " WHERE study_id = :study AND starts_with(key, 'artifacts:') UNION ALL"
            " SELECT value_json FROM trial_system_attributes JOIN trials USING (trial_id)"
            " WHERE study_id = :study AND starts_with(key, 'artifacts:')"
        ),
        {"study": study},
    )
    found = []
    for (value,) in rows:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found.append(str(_twice(value)["artifact_id"]))
    return found


def _twice(value: str) -> Any:
    """Optuna keeps a JSON text inside of JSON."""
    once = json.loads(value)
    return json.loads(once) if isinstance(once, str) else once


def _answer(start_response: StartResponse, status: HTTPStatus, body: Any = None) -> Iterable[bytes]:
    content = b"" if body is None else json.dumps(body).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    start_response(f"{status.value} {status.phrase}", headers)
    return [content]
