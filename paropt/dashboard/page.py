"""optuna-dashboard's page as paropt serves it: what cannot be done is not offered, and importances
are those of each model.

The application is left as it is; its answers are changed on their way out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from paropt.dashboard.access import Application, Environ, Headers, StartResponse
from paropt.search.study.summary import Importance

STUDY = re.compile(r"/(?:api/studies|csv|artifacts)/(-?\d+)(?:/.*)?")
# the study that a request is of: lists of studies need not know what each of them found
LOOKED_AT: ContextVar[int | None] = ContextVar("looked_at", default=None)
IMPORTANCES = re.compile(r"/api/studies/(-?\d+)/param_importances/?")
LEAST = 0.01  # of importance that is shown: of dozens of parameters most have next to none

# its icons are named in the page: what edits, deletes, renames, makes or uploads something
_ICONS = ("Edit", "Delete", "DriveFileRenameOutline", "AddBox")
_UPLOAD = '[data-testid="UploadFileIcon"]'
READ_ONLY = ", ".join(
    [
        *(f'button:has([data-testid="{icon}Icon"])' for icon in _ICONS),
        # "Fail Trial" and the like
        "button.MuiButton-outlinedError",
        # the card of a study's files, if nothing but the place for a new one is in it
        f".MuiGrid-item:has(.MuiBox-root > .MuiCard-root:only-child > button {_UPLOAD})",
        f".MuiCard-root:has(> button {_UPLOAD})",
    ]
)
# Optuna's importances are of all parameters of all models at once; paropt's figures replace them
REPLACED = (
    'body:has([id^="user-defined-plot:importance-"]) '
    ".MuiGrid-item:has(#graph-hyperparameter-importances)"
)


@dataclass(frozen=True)
class Page:
    """A WSGI layer over Optuna's application.

    ``importances`` gives those of a study by its id, None if it isn't paropt's.
    """

    app: Application
    importances: Callable[[int], Sequence[Importance] | None]
    writable: bool

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = "/" + environ.get("PATH_INFO", "").lstrip("/")
        of = STUDY.fullmatch(path)
        LOOKED_AT.set(int(of[1]) if of else None)
        if asked := IMPORTANCES.fullmatch(path):
            found = self.importances(int(asked[1]))
            if found is not None:
                return _answer(start_response, {"param_importances": [as_optuna(found)]})
        if path == "/dashboard" or path.startswith("/dashboard/"):
            hidden = REPLACED if self.writable else f"{READ_ONLY}, {REPLACED}"
            style = f"<style>{hidden} {{ display: none !important; }}</style>"
            return _with_style(self.app, environ, start_response, style.encode())
        return self.app(environ, start_response)


def as_optuna(importances: Sequence[Importance]) -> list[dict[str, Any]]:
    """As its page reads them; where there are several models, each has its own."""
    several = len(importances) > 1
    return [
        {
            "name": f"{one.model}: {name}" if several else name,
            "importance": share,
            "distribution": "FloatDistribution",
        }
        for one in importances
        for name, share in one.shares.items()
        if share >= LEAST
    ]


def _answer(start_response: StartResponse, value: Any) -> Iterable[bytes]:
    body = json.dumps(value).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    status = HTTPStatus.OK
    start_response(f"{status.value} {status.phrase}", headers)
    return [body]


def _with_style(
    app: Application, environ: Environ, start_response: StartResponse, style: bytes
) -> Iterable[bytes]:
    """The page with a style at the end of its head; it is a file of some kilobytes."""
    said: list[tuple[str, Headers]] = []

    def keep(status: str, headers: Headers, *_: Any) -> None:
        said.append((status, headers))

    whole = {key: value for key, value in environ.items() if not key.startswith("HTTP_IF_")}
    answer = app(whole, keep)
    try:
        body = b"".join(answer)
    finally:
        close = getattr(answer, "close", None)
        if close:
            close()
    status, headers = said[-1]
    styled = body.replace(b"</head>", style + b"</head>", 1)
    of_the_file = ("content-length", "last-modified", "etag", "accept-ranges")
    kept = [(name, value) for name, value in headers if name.lower() not in of_the_file]
    if body:
        kept.append(("Content-Length", str(len(styled))))
    start_response(status, kept)
    return [styled]
