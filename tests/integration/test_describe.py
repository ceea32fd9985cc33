"""Texts about users and items: from training events only, asked once, nothing lost to faults."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from paropt.data.dataset import open_dataset
from paropt.data.describing.answers import Answers
from paropt.data.describing.ask import Limits, ask_all, cost
from paropt.data.describing.endpoint import LARGEST, Endpoint
from paropt.data.features.encoders import HashingEncoder
from paropt.errors import DataError

KEY = "sk-very-secret-123456"
Cli = Callable[..., tuple[int, str, str]]


class Reply(NamedTuple):
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def said(text: object, **more: object) -> Reply:
    choice = {"message": {"role": "assistant", "content": text}, **more}
    return Reply(200, json.dumps({"choices": [choice]}).encode())


def refused(status: int, message: str, **headers: str) -> Reply:
    return Reply(
        status, json.dumps({"error": {"message": message}}).encode(), tuple(headers.items())
    )


class Server(ThreadingHTTPServer):
    """Answers as ``reply`` says, and remembers what it was asked and with which key."""

    daemon_threads = True
    reply: Callable[[str, int], Reply]

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.keys: set[str | None] = set()
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        with server.lock:
            server.asked.append(prompt)
            server.keys.add(self.headers["Authorization"])
            number = server.asked.count(prompt)
        status, content, headers = server.reply(prompt, number)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(reply: Callable[[str, int], Reply]) -> Iterator[Server]:
    with Server() as server:
        server.reply = reply
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five users with six events of ten items; item 9 has no title."""
    folder = tmp_path_factory.mktemp("shop")
    rows = ["user_id,item_id,timestamp"]
    for user in range(5):
        rows += [f"u{user},{(user + at) % 10},{1000 * user + at}" for at in range(6)]
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    titles = [f"{i},{f'The title of {i}' if i < 9 else ''},{'ab'[i % 2]}" for i in range(10)]
    (folder / "items.csv").write_text("item_id,title,kind\n" + "\n".join(titles) + "\n")
    return folder


OPTIONS = ("--protocol", "leave-one-out", "--min-support", 1, "--item-features")


@pytest.fixture
def made(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> Path:
    monkeypatch.setenv("PAROPT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert cli("prepare", shop / "log.csv", *OPTIONS, shop / "items.csv", "--out", "data")[0] == 0
    return tmp_path


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_history_is_that_of_training_and_prepare_takes_it_back(
    made: Path, shop: Path, cli: Cli
) -> None:
    command = ("describe", "data", "--users", "--from-history", "--kinds", "kind", "--last", 3)
    code, out, _ = cli(*command, "--out", "taste.jsonl")
    assert code == 0 and "texts of 5 users, 0 have none" in out
    texts = {row["user_id"]: row["taste"] for row in lines(made / "taste.jsonl")}
    # user 2 had 2…7; 6 and 7 are what valid and test ask for
    assert texts["u2"] == (
        "Liked, latest first: The title of 5; The title of 4; The title of 3. Mostly a (2), b (2)."
    )
    again = (made / "taste.jsonl").read_bytes()
    assert cli(*command, "--out", "taste.jsonl")[0] == 0  # ours to replace
    assert (made / "taste.jsonl").read_bytes() == again
    more = ("--user-features", "taste.jsonl", "--user-text-vectors", "taste", "--text-encoder")
    head = ("prepare", shop / "log.csv", *OPTIONS, shop / "items.csv", "--kind", "taste=text")
    code, _, err = cli(*head, *more, "hashing", "--out", "rich")
    assert code == 0 and "warning: taste" not in err
    fields = open_dataset("rich").fields("users")
    assert {name: field.kind for name, field in fields.items()} == {
        "taste": "text",
        "taste_vector": "vector",
    }
    assert open_dataset("rich").fingerprint != open_dataset("data").fingerprint
    # a log that ends one event earlier: what was training's is valid's now
    log = [line for line in (shop / "log.csv").read_text().splitlines() if ",5,4005" not in line]
    kept = [line for line in log if not line.endswith(("005", ",5"))]
    (made / "short.csv").write_text("\n".join(kept) + "\n")
    code, _, err = cli("prepare", "short.csv", *head[2:], *more, "hashing", "--out", "leak")
    assert code == 1 and "were written from other events" in err and not (made / "leak").exists()


def test_a_text_that_does_not_say_its_source_is_warned_of(made: Path, shop: Path, cli: Cli) -> None:
    (made / "likes.json").write_text(json.dumps({"u1": "red hats", "u2": "blue hats"}))
    head = ("prepare", shop / "log.csv", *OPTIONS, shop / "items.csv", "--out", "x")
    code, _, err = cli(*head, "--user-features", "likes.json")
    assert code == 0 and "does not say which events likes was written from" in err


def test_every_fault_costs_one_text_and_the_same_command_asks_again(
    made: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    well = False
    faults = [
        lambda: refused(400, f"not this one, {KEY}"),
        lambda: said(None, finish_reason="content_filter"),
        lambda: said({"no": "text"}),
        lambda: Reply(200, b"data: {garbage\n\n" * 100),
        lambda: Reply(200, b"x" * (LARGEST + 1)),
        lambda: said("   "),
    ]

    def reply(prompt: str, number: int) -> Reply:
        item = int(prompt.partition("The title of ")[2][:1] or 9)
        if well or item >= len(faults):
            return said(f"It is\n  item {item}.")
        return faults[item]()

    with served(reply) as server:
        ask = ("describe", "data", "--items", "--base-url", server.url, "--model", "m", "--yes")
        code, out, err = cli(*ask, "--out", "items.jsonl", "--json")
        found = json.loads(out)
        assert code == 0 and found["texts"] == 4 and sum(found["without"].values()) == 6
        assert set(found["without"]) == {
            "refused (400: not this one, …)",
            "refused by the model",
            "the answer has no text",
            "the answer is no chat completion",
            f"the answer has more than {LARGEST:,} bytes",
        }
        assert "the same command asks for these again" in err and KEY not in out + err
        assert server.keys == {f"Bearer {KEY}"} and len(server.asked) == 10
        well, before = True, len(server.asked)
        code, out, err = cli(*ask, "--out", "items.jsonl")
        assert code == 0 and "texts of 10 items, 0 have none" in out
        assert len(server.asked) - before == 6 and "(4 more were answered before)" in err
        code, _, err = cli(*ask, "--out", "items.jsonl")
        assert code == 0 and "nothing is asked" in err and len(server.asked) - before == 6
    rows = {row["item_id"]: row["description"] for row in lines(made / "items.jsonl")}
    assert rows["7"] == "It is item 7." and len(rows) == 10


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (refused(401, f"Incorrect API key provided: {KEY}"), "does not take the key (401"),
        (refused(404, "no such model"), "has no chat completions for the model 'm'"),
        (Reply(302, b"", (("Location", "http://127.0.0.1:9/"),)), "has no chat completions"),
    ],
)
def test_what_nobody_can_answer_is_one_sentence_and_no_key_is_shown(
    reply: Reply, sentence: str, made: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with served(lambda prompt, number: reply) as server:
        ask = ("describe", "data", "--users", "--base-url", server.url, "--model", "m", "--yes")
        code, out, err = cli(*ask, "--parallel", 1, "--out", "taste.jsonl")
    assert (code, out) == (1, "") and sentence in err.splitlines()[-1] and KEY not in err
    assert len(server.asked) <= 2 and not (made / "taste.jsonl").exists()


def asked(server: Server, folder: Path, prompts: dict[str, str], **limits: Any) -> Any:
    answers = Answers(folder, "m", 10)
    try:
        endpoint = Endpoint(server.url, "m", KEY, 10, timeout=5)
        notes: list[str] = []
        return ask_all(prompts, endpoint, answers, Limits(wait=0.001, **limits), notes.append)
    finally:
        answers.close()


def test_a_busy_server_is_asked_again_and_equal_questions_once(tmp_path: Path) -> None:
    def reply(prompt: str, number: int) -> Reply:
        if prompt == "never":
            return refused(503, "down")
        return said(prompt.upper()) if number == 3 else refused(429, "slow", Retry_After="0")

    with served(reply) as server:
        prompts = {"1": "a", "2": "b", "3": "a", "4": "never"}
        outcome = asked(server, tmp_path, prompts, tries=3, parallel=2)
        assert outcome.texts == {"1": "A", "2": "B", "3": "A"}
        assert outcome.without == {"the server is busy (503: down)": 1}
        assert sorted(server.asked) == ["a"] * 3 + ["b"] * 3 + ["never"] * 3
    answers = Answers(tmp_path, "m", 10)
    found = cost(prompts, answers, 10)
    assert (found.questions, found.kept, found.tokens_out) == (1, 2, 10)
    assert Answers(tmp_path, "another", 10).get("a") is None
    answers.close()


def test_bad_words_are_refused_before_anything_is_asked(made: Path, cli: Cli) -> None:
    base = ("describe", "data", "--users", "--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    (made / "prompt.txt").write_text("Say what {histroy} means")
    (made / "other.txt").write_text("mine")
    for more, code, sentence in (
        (("--out", "t", "--prompt", "prompt.txt", "--yes"), 1, "did you mean 'history'?"),
        (("--out", "other.txt", "--yes"), 1, "other.txt exists; choose another --out"),
        (("--out", "t", "--titles", "titel", "--yes"), 1, "did you mean 'title'?"),
        (("--out", "t"), 2, "nobody is there to ask whether that may be spent; say --yes"),
        ((), 2, "name the file to write"),
    ):
        found, _, err = cli(*base, *more)
        assert found == code and sentence in err, err
    assert not (made / "t").exists() and (made / "other.txt").read_text() == "mine"
    with pytest.raises(DataError, match="holds a user or password"):
        Endpoint("http://me:secret@host/v1", "m")


def test_hashed_words_know_what_two_texts_share() -> None:
    vectors = HashingEncoder().encode(["a red hat", "the red hat", "tax law", "…"])
    near = vectors @ vectors.T
    assert near[0, 1] > 0.4 > 0.2 > abs(near[0, 2])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
