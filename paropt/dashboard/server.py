"""optuna-dashboard over a storage: cached, in threads, behind a gatekeeper.

Optuna's own application has no users, takes deletes from anyone who reaches its port, and serves
uploaded files in its own origin; :mod:`paropt.dashboard.access` stands before it. Unless writing
was allowed, its database sessions are read-only as well.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import re
import secrets
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, BinaryIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import optuna
import sqlalchemy
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial

from paropt.dashboard.access import AccessControl, Application, is_loopback, served_hosts
from paropt.dashboard.edits import Edits
from paropt.dashboard.overlay import Exhibits
from paropt.dashboard.page import LOOKED_AT, Page
from paropt.errors import ParoptError
from paropt.machine.address import address_for_others
from paropt.search.study.summary import Importance
from paropt.storage.connect import Storage
from paropt.storage.engine import initialise, open_rdb, transaction

BACKLOG = 64


class Server(ThreadingMixIn, WSGIServer):
    """One thread per request; a slow query doesn't hold up the page."""

    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(self, address: tuple[str, int]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that left early is no event."""
        logging.getLogger(__name__).debug("a request broke", exc_info=True)

    def server_bind(self) -> None:
        """Without the base class's look-up of our own name, which may take seconds."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class Handler(WSGIRequestHandler):
    """Doesn't log: addresses hold the token."""

    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Files:
    """An artifact store: the files that paropt makes of its studies, then those of a folder."""

    def __init__(self, exhibits: Exhibits, folder: Path | None) -> None:
        self._exhibits = exhibits
        self._uploaded = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._uploaded = optuna.artifacts.FileSystemArtifactStore(folder)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        if made := self._exhibits.file(artifact_id):
            return io.BytesIO(made.content)
        return self._folder().open_reader(artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self._folder().write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """What paropt made goes with its study, and without a folder there is nothing else."""
        if self._uploaded is not None and self._exhibits.file(artifact_id) is None:
            self._uploaded.remove(artifact_id)

    def _folder(self) -> optuna.artifacts.FileSystemArtifactStore:
        if self._uploaded is None:
            raise ArtifactNotFound("this dashboard has no --artifacts folder")
        return self._uploaded


class Annotated(optuna.storages._CachedStorage):
    """Optuna's cached storage; studies that paropt made come with notes, plots and files of ours.

    They are added to what is read, and never written. A note that somebody saved goes first.
    """

    def __init__(self, cached: optuna.storages._CachedStorage, exhibits: Exhibits) -> None:
        super().__init__(cached._backend)
        self.exhibits = exhibits

    @property
    def engine(self) -> sqlalchemy.Engine:
        engine: sqlalchemy.Engine = self._backend.engine
        return engine

    def get_all_studies(self) -> list[Any]:
        """Of the one that is looked at, what it shows is added."""
        studies = super().get_all_studies()
        for study in studies:
            if study._study_id == LOOKED_AT.get():
                ours = self.exhibits.of(study._study_id, study.study_name)
                study.system_attrs = {**ours.attributes, **study.system_attrs}
                if ours.facts:  # words instead of paropt's own JSON
                    theirs = study.user_attrs.items()
                    others = {key: value for key, value in theirs if not key.startswith("paropt:")}
                    study.user_attrs = {**ours.facts, **others}
        return studies

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """By paropt's rule, and with a value that is short enough to be read."""
        best = self.exhibits.of(study_id, self.get_study_name_from_id(study_id)).best
        if best is None:
            return super().get_best_trial(study_id)
        trial = copy.copy(self.get_trial(best))
        trial.values = [round(value, 6) for value in trial.values or ()]
        return trial

    def importances(self, study_id: int) -> Sequence[Importance] | None:
        """Of each model of a study; None if paropt didn't make it."""
        try:
            name = self.get_study_name_from_id(study_id)
        except KeyError:
            return None
        return self.exhibits.of(study_id, name).importances

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        stored = super().get_study_system_attrs(study_id)
        ours = self.exhibits.of(study_id, self.get_study_name_from_id(study_id)).attributes
        return {**ours, **stored}

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """As Optuna's, which takes a write back in silence if another one crosses it."""
        self._set(study_id, "system", key, value)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """As :meth:`set_study_system_attr`."""
        self._set(study_id, "user", key, value)

    def _set(self, study_id: int, kind: str, key: str, value: Any) -> None:
        statement = (
            f"INSERT INTO study_{kind}_attributes (study_id, key, value_json)"
            " VALUES (:study, :key, :value)"
            " ON CONFLICT (study_id, key) DO UPDATE SET value_json = EXCLUDED.value_json"
        )
        with transaction(self.engine) as connection:
            connection.execute(
                sqlalchemy.text(statement),
                {"study": study_id, "key": key, "value": json.dumps(value)},
            )

    def forget(self, study_id: int) -> None:
        """The study was deleted or renamed beside Optuna: nothing of it is kept."""
        self.exhibits.forget(study_id)

    def close(self) -> None:
        """Give all connections back."""
        self.exhibits.close()
        self.engine.dispose()


class Dashboard:
    """A dashboard that is bound to its port; :meth:`serve` answers until :meth:`stop`.

    Args:
        storage: whose studies it shows.
        host: where to bind; other than loopback needs a token.
        port: 0 takes any free one.
        token: what lets people in; None makes one, empty lets everybody in.
        allowed: further names that the ``Host`` header may give (behind a proxy, say).
        writable: let people delete, rename and annotate.
        artifacts: the folder of files that trials uploaded.

    Raises:
        ParoptError: the port can't be had, or everybody could reach it without a token.
        StorageUnreachable: no answer from the database.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        token: str | None = None,
        allowed: tuple[str, ...] = (),
        writable: bool = False,
        artifacts: Path | None = None,
    ) -> None:
        if token == "" and not is_loopback(host):
            raise ParoptError(
                f"--no-token on --host {host} would let everybody in; leave out one of them"
            )
        if token and not re.fullmatch(r"[A-Za-z0-9_-]{16,}", token):
            raise ParoptError(
                "the dashboard's token must be 16 or more letters, digits, - and _; "
                "leave it out to have one made"
            )
        self.token = secrets.token_urlsafe(24) if token is None else token or None
        initialise(storage.url, "paropt dashboard")
        self._optuna = Annotated(open_rdb(storage.url, "paropt dashboard"), Exhibits(storage.url))
        if not writable:
            _make_read_only(self._optuna.engine)
        try:
            self._server = Server((host, port))
        except OSError as error:
            self._optuna.close()
            raise ParoptError(
                f"the dashboard cannot listen on {host}:{port} ({error.strerror}); "
                "choose another --port, or 0 for any free one"
            ) from error
        self.host, self.port = host, self._server.server_port
        self._server.set_app(
            AccessControl(
                application(self._optuna, artifacts, writable),
                self.token,
                served_hosts(host, allowed),
                any_address=not is_loopback(host),
                writable=writable,
                cookie=f"paropt_token_{self.port}",
            )
        )

    @property
    def url(self) -> str:
        """What to open in a browser; the token is in it."""
        name = address_for_others(self.host) or self.host
        shown = f"[{name}]" if ":" in name else name
        query = f"?token={self.token}" if self.token else ""
        return f"http://{shown}:{self.port}/dashboard{query}"

    def serve(self) -> None:
        """Answer requests until :meth:`stop`."""
        self._server.serve_forever(poll_interval=0.1)

    def stop(self) -> None:
        """Let :meth:`serve` return; from another thread."""
        self._server.shutdown()

    def close(self) -> None:
        self._server.server_close()
        self._optuna.close()


def application(storage: Annotated, artifacts: Path | None, writable: bool) -> Application:
    """Optuna's web application; the storage is a cached one, or each look would read it all."""
    import optuna_dashboard

    files = Files(storage.exhibits, artifacts)
    app: Application = optuna_dashboard.wsgi(storage, artifact_store=files)
    edits = Edits(app, storage.engine, storage.forget, files.remove)
    return Page(edits, storage.importances, writable)


def serve_until_signal(dashboard: Dashboard) -> None:
    """Serve in a thread until Ctrl-C or SIGTERM."""
    ended = threading.Event()
    with _handlers(lambda *_: ended.set()), _quiet():
        thread = threading.Thread(target=dashboard.serve)
        thread.start()
        try:
            ended.wait()
        finally:
            dashboard.stop()
            thread.join()
            dashboard.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Optuna says to programmers: warnings, and traces of what a page answers with."""
    log = logging.getLogger("optuna_dashboard")
    before = log.level
    if not log.isEnabledFor(logging.DEBUG):  # paropt -v
        log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


@contextlib.contextmanager
def _handlers(handler: Callable[..., None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    old = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, before in zip(numbers, old, strict=True):
            signal.signal(number, before)


def _make_read_only(engine: sqlalchemy.Engine) -> None:
    """From now on PostgreSQL itself refuses what would write."""

    @sqlalchemy.event.listens_for(engine, "connect")
    def set_read_only(connection: Any, record: Any) -> None:
        connection.set_session(readonly=True)

    engine.dispose()  # so that no connection is older than the rule
