"""``paropt serve`` as a process: answers, many at once, and its end."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paropt.data.dataset import open_dataset
from paropt.training.fitting.fit import Fit
from paropt.training.made_up import made_up_data
from paropt.training.recommending.answering import Answerer, Ask
from paropt.training.saved_model.saved import load_model, save_model

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

Reply = tuple[int, dict[str, Any]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of one model."""
    folder = tmp_path_factory.mktemp("serve")
    view = open_dataset(made_up_data(folder / "log", sessions=48)).view("search")
    places = []
    for seed in (1, 2):
        fit = Fit("gru4rec", {"layers": 8, "n_sample": 4}, view, seed=seed, epochs=1)
        list(fit.epochs())
        places.append(folder / f"m{seed}")
        save_model(places[-1], fit)
    return places


class Server:
    """A server's process on a port of its own."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "paropt", "serve", *words, "--port", "0", "--threads", "1"],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stderr
        self.said = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.said)
        assert found, self.said + self.process.stderr.read()
        self.port = int(found[1])

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        text = body if body is None or isinstance(body, str) else json.dumps(body)
        connection.request(method, path, text)
        reply = connection.getresponse()
        found = reply.status, reply.read().decode()
        connection.close()
        return found

    def recommend(self, body: Any) -> Reply:
        status, text = self.ask("POST", "/recommend", body)
        return status, json.loads(text)

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, rest = self.process.communicate(timeout=30)
        return self.process.returncode, rest


@pytest.fixture(scope="module")
def server(models: list[Path]) -> Iterator[Server]:
    started = Server(str(models[0]), "--max-body", "2000", "--batch", "8")
    yield started
    if started.process.poll() is None:
        started.end()


def test_many_at_once_get_what_each_asked_for(server: Server, models: list[Path]) -> None:
    answerer = Answerer(load_model(models[0]))
    ids = [str(item) for item in answerer.saved.item_ids]
    asked = [[ids[n % len(ids)], ids[n * 7 % len(ids)]] for n in range(60)]
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda items: server.recommend({"items": items, "top": 3}), asked))
    for items, (status, told) in zip(asked, replies, strict=True):
        (answer,) = answerer.answer([answerer.prepare(Ask(items, top=3))])
        assert status == 200
        assert [one["item"] for one in told["sessions"][0]["items"]] == answer.items
        scores = [one["score"] for one in told["sessions"][0]["items"]]
        assert scores == pytest.approx(answer.scores, rel=1e-4)
    metrics = server.ask("GET", "/metrics")[1]
    assert 'paropt_requests_total{status="200"} 60' in metrics
    assert "paropt_batch_sessions_sum 60" in metrics


def test_what_is_wrong_is_said_with_its_status(server: Server) -> None:
    assert server.recommend("[")[0] == 400
    status, told = server.recommend({"items": ["1"], "candidates": ["nothing"]})
    assert status == 422 and "none of the 1 candidates is known" in told["error"]
    status, told = server.recommend({"items": ["1" * 3000]})
    assert status == 413 and "at most 2,000 bytes" in told["error"]
    assert server.ask("GET", "/recommend")[0] == 405
    status, text = server.ask("GET", "/nowhere")
    assert status == 404 and "POST /recommend" in json.loads(text)["error"]
    health = json.loads(server.ask("GET", "/health")[1])
    assert (health["status"], health["model"]) == ("ok", "gru4rec")


def test_it_ends_in_peace(server: Server) -> None:
    status, rest = server.end()
    assert status == 0 and "ended" in rest and "Traceback" not in rest


def test_several_models_are_one(models: list[Path]) -> None:
    both = Server(str(models[0]), "--with", str(models[1]))
    try:
        assert both.recommend({"items": ["1", "2"], "top": 2})[0] == 200
        taken = subprocess.run(
            [sys.executable, "-m", "paropt", "serve", str(models[0]), "--port", str(both.port)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert taken.returncode == 1 and "choose another --host or --port" in taken.stderr
    finally:
        assert both.end()[0] == 0
