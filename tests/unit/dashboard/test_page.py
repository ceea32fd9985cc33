"""Optuna's page on its way out: what it may not offer, and importances of each model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from paropt.dashboard.page import Page, as_optuna
from paropt.search.study.summary import Importance

HTML = b"<html><head><title>t</title></head><body></body></html>"
FOUND = [
    Importance("gru4rec", {"learning_rate": 0.9, "layers": 0.095, "loss": 0.005}, 12),
    Importance("hstu", {"dropout": 1.0}, 12),
]


def application(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    if "HTTP_IF_MODIFIED_SINCE" in environ:
        start("304 Not Modified", [])
        return []
    body = HTML if "dashboard" in environ["PATH_INFO"].split("/") else b"Optuna's"
    start("200 OK", [("Content-Length", str(len(body))), ("ETag", "x"), ("X-Kept", "y")])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def ask(path: str, writable: bool = False, **more: str) -> tuple[str, dict[str, str], bytes]:
    said: list[tuple[str, dict[str, str]]] = []
    known = {1: FOUND, 2: None}
    page = Page(application, lambda study: known[study], writable)
    environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET", **more}
    body = b"".join(page(environ, lambda status, headers: said.append((status, dict(headers)))))
    return *said[0], body


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/studies/1/note", "//dashboard"])
def test_what_cannot_be_done_is_not_offered(path: str) -> None:
    status, headers, body = ask(path)
    assert status == "200 OK" and headers["Content-Length"] == str(len(body))
    assert "ETag" not in headers and headers["X-Kept"] == "y"
    style = body.partition(b"<style>")[2].partition(b"</style></head>")[0]
    for icon in (b"EditIcon", b"DeleteIcon", b"AddBoxIcon", b"UploadFileIcon"):
        assert icon in style
    _, _, writable = ask(path, writable=True)
    assert b"EditIcon" not in writable and b"graph-hyperparameter-importances" in writable


def test_a_page_that_a_browser_has_kept_is_sent_again() -> None:
    assert ask("/dashboard", HTTP_IF_MODIFIED_SINCE="today")[0] == "200 OK"


def test_all_else_is_optunas() -> None:
    for path in ("/api/studies/1", "/api/studies/2/param_importances", "/dashboards", "/"):
        _, headers, body = ask(path)
        assert headers["ETag"] == "x" and b"<style>" not in body
    assert ask("/dashboard", REQUEST_METHOD="HEAD")[2] == b""


def test_importances_are_those_of_each_model() -> None:
    _, headers, body = ask("/api/studies/1/param_importances")
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"param_importances": [as_optuna(FOUND)]}
    assert [(one["name"], one["importance"]) for one in as_optuna(FOUND)] == [
        ("gru4rec: learning_rate", 0.9),
        ("gru4rec: layers", 0.095),
        ("hstu: dropout", 1.0),
    ]
    assert as_optuna(FOUND[1:])[0]["name"] == "dropout"
