"""``paropt embed`` into a real Redis and into files: what is there, refused, and gone on with."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import redis
from click.testing import CliRunner, Result
from redis_server import RedisServer
from rings import write_ring

from paropt.cli.main import cli
from paropt.data.dataset import open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import ModelError, ParoptError, StorageUnreachable, VectorsError
from paropt.training.fitting.fit import Fit
from paropt.training.recommending.new_sessions import read_sessions, recommend
from paropt.training.saved_model.saved import load_model, save_model
from paropt.vectors.embed import Embedded, Request, embed
from paropt.vectors.places import Settings, open_place

PASSWORD = "pass/word?1"
QUOTED = "pass%2Fword%3F1"
TINY: dict[str, dict[str, Any]] = {
    "gru4rec": {"n_epochs": 1, "layers": 6, "n_sample": 8},
    "sasrec": {"n_epochs": 1, "dim": 8, "blocks": 1, "heads": 1, "max_length": 6},
    "markov": {},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """The server's database 0, empty."""
    with redis.Redis(port=server.port) as client:
        client.flushall()
        client.config_set("maxmemory", 0)
        yield client


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 300 sessions in ``data``, its log, and models of it by name."""
    folder = tmp_path_factory.mktemp("shop")
    log = write_ring(folder / "log.tsv", 300, random.Random(3))
    prepare([log], folder / "data")
    for name, params in TINY.items():
        fit = Fit(name, params, open_dataset(folder / "data").view("search"), seed=1)
        list(fit.epochs())
        save_model(folder / name, fit)
    return folder


def run(
    shop: Path, to: str | Path, model: str = "sasrec", stop_at: int | None = None, **settings: Any
) -> Embedded:
    """All users of the dataset; ``stop_at`` ends it as Ctrl-C does, after so many vectors."""

    def progress(done: int, total: int) -> None:
        if stop_at is not None and done >= stop_at:
            raise KeyboardInterrupt

    notes: list[str] = []
    store = open_place(str(to), Settings(**settings))
    return embed(Request(shop / model, shop / "data"), store, notes.append, progress)


def paropt(*words: object, **env: str) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], env=env)


def vectors_in(client: redis.Redis, pattern: str = "user:*") -> dict[str, np.ndarray]:
    keys = sorted(client.keys(pattern))
    values = client.mget(keys)
    return {k.decode(): np.frombuffer(v, "<f4") for k, v in zip(keys, values, strict=True)}


# -- what is there ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gru4rec", "sasrec"])
def test_users_times_items_are_what_recommend_scores(
    shop: Path, server: RedisServer, client: redis.Redis, tmp_path: Path, model: str
) -> None:
    """Also where items have a bias, and whether the events come from a dataset or a log."""
    users = paropt("embed", shop / model, "--data", shop / "data", "--to", server.url())
    assert users.exit_code == 0, users.output
    items = paropt("embed", shop / model, "--what", "items", "--to", server.url())
    assert items.exit_code == 0, items.output
    live = paropt("embed", shop / model, "--data", shop / "log.tsv", "--to", tmp_path / "log.npy")
    assert live.exit_code == 0, live.output
    saved = load_model(shop / model)
    table = np.stack([np.frombuffer(client.get(f"item:{i}"), "<f4") for i in saved.item_ids])
    mine = vectors_in(client)
    ids = (tmp_path / "log.ids.txt").read_text().splitlines()
    of_log = dict(zip(ids, np.load(tmp_path / "log.npy"), strict=True))
    assert len(mine) == len(ids) == 300
    for found in list(recommend(saved, read_sessions(shop / "log.tsv", saved), top=5))[::20]:
        scores = dict(zip(saved.item_ids, table @ mine[f"user:{found.session}"], strict=True))
        best = [scores[item] for item in found.items]
        np.testing.assert_allclose(best, found.scores, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(of_log[found.session], mine[f"user:{found.session}"], atol=1e-5)


def test_what_they_are_stands_beside_them(
    shop: Path, server: RedisServer, client: redis.Redis
) -> None:
    client.set("other", "stays")
    done = run(shop, server.url(), "gru4rec", ttl=1000)
    about = {k.decode(): v.decode() for k, v in client.hgetall("paropt:embed:user:{id}").items()}
    told = {"model": "gru4rec", "dimension": "7", "bias": "True", "encoding": "float32"}
    assert about.items() >= (told | {"state": "complete", "done": "300"}).items()
    assert about["version"] == done.version and len(done.version) == 64
    lives = [client.ttl(key) for key in client.scan_iter() if key != b"other"]
    assert len(lives) == 301 and all(990 < life <= 1000 for life in lives)
    assert client.get("other") == b"stays" and client.ttl("other") == -1


def test_json_under_the_plain_id_is_the_same_numbers(
    shop: Path, server: RedisServer, client: redis.Redis, tmp_path: Path
) -> None:
    words = ("--encoding", "json", "--key", "{id}", "--json")
    place = {"PAROPT_REDIS_URL": server.url()}
    done = paropt("embed", shop / "sasrec", "--data", shop / "data", *words, **place)
    told = json.loads(done.stdout)
    assert (told["vectors"], told["dimension"], told["compared"]) == (300, 8, 20)
    run(shop, tmp_path / "users.npy")
    ids = (tmp_path / "users.ids.txt").read_text().splitlines()
    texts = [json.loads(text) for text in client.mget(ids)]
    np.testing.assert_array_equal(np.array(texts, np.float32), np.load(tmp_path / "users.npy"))


def test_parquet_holds_the_same_as_npy(shop: Path, tmp_path: Path) -> None:
    run(shop, tmp_path / "u.npy")
    run(shop, tmp_path / "u.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "u.parquet")
    assert table.column("id").to_pylist() == (tmp_path / "u.ids.txt").read_text().splitlines()
    np.testing.assert_array_equal(table.column("vector").to_pylist(), np.load(tmp_path / "u.npy"))
    about = json.loads((tmp_path / "u.json").read_text())
    assert json.loads(table.schema.metadata[b"paropt"]) == about
    assert (about["dimension"], about["count"]) == (8, 300)
    names = ["u.ids.txt", "u.json", "u.npy", "u.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_who_comes_back_has_the_latest_visit(shop: Path, tmp_path: Path) -> None:
    """Told by a column of users, by a gap, and in a log as it is."""
    rows = ["s1\tann\t1\t100", "s1\tann\t2\t200", "s2\tann\t3\t45100", "s2\tann\t4\t45200"]
    rows += [f"b{n}\tbob{n}\t{(n + t) % 7 + 1}\t{1000 * n + t}" for n in range(40) for t in (0, 1)]
    rows += ["s9\tnew\t99\t20000", "s9\tnew\t98\t20001"]
    log = tmp_path / "log.tsv"
    log.write_text("\n".join(["SessionId\tUser\tItemId\tTime", *rows]) + "\n")
    usual = {"min_support": 1, "test_days": 0.2}
    prepare([log], tmp_path / "told", options=Options(user_key="User", **usual))
    gap = Options(session_key="User", session_gap_ms=3_600_000, **usual)
    prepare([log], tmp_path / "gap", options=gap)
    places = {"told": "told", "gap": "gap", "log": "log.tsv"}
    found = {}
    for name, data in places.items():
        words = ["--user-key", "User"] if name == "log" else []
        to = tmp_path / f"{name}.npy"
        done = paropt("embed", shop / "sasrec", "--data", tmp_path / data, "--to", to, *words)
        assert done.exit_code == 0, done.output
        assert "without a vector, since the model knows none of their items: 1" in done.stderr
        ids = to.with_suffix(".ids.txt").read_text().splitlines()
        assert len(ids) == 41 and "new" not in ids
        found[name] = np.load(to)[ids.index("ann")]
    last = tmp_path / "last.tsv"
    last.write_text("SessionId\tItemId\tTime\nann\t3\t45100\nann\t4\t45200\n")
    paropt("embed", shop / "sasrec", "--data", last, "--to", tmp_path / "last.npy")
    for vector in found.values():
        np.testing.assert_allclose(vector, np.load(tmp_path / "last.npy")[0], atol=1e-6)


@pytest.mark.parametrize("nobody", ["", "unknown"])
def test_who_logs_in_meanwhile_is_one_user(shop: Path, tmp_path: Path, nobody: str) -> None:
    """The visit's first event names nobody; a word for that is nobody, too, as it is in prepare."""
    rows = ["s1\tann\t1\t100", "s1\tann\t2\t200", f"s2\t{nobody}\t3\t900", "s2\tann\t4\t950"]
    rows += [f"b{n}\tbob{n}\t{(n + t) % 7 + 1}\t{24 * n + t}" for n in range(40) for t in (0, 1)]
    rows += [f"c{n}\t{nobody}\t{n % 7 + 1}\t{990 + n + t}" for n in range(8) for t in (0, 1)]
    log = tmp_path / "log.tsv"
    log.write_text("\n".join(["SessionId\tUser\tItemId\tTime", *rows]) + "\n")
    options = Options(user_key="User", min_support=1, test_days=0.001)
    prepare([log], tmp_path / "told", options=options)
    found = []
    for name, words in {"told": [], "log.tsv": ["--user-key", "User"]}.items():
        to = tmp_path / f"{name}.npy"
        done = paropt("embed", shop / "sasrec", "--data", tmp_path / name, "--to", to, *words)
        assert done.exit_code == 0, done.output
        ids = to.with_suffix(".ids.txt").read_text().splitlines()
        assert len(ids) == 41 and nobody not in ids
        found.append(np.load(to)[ids.index("ann")])
    last = tmp_path / "last.tsv"
    last.write_text("SessionId\tItemId\tTime\nann\t3\t900\nann\t4\t950\n")
    paropt("embed", shop / "sasrec", "--data", last, "--to", tmp_path / "last.npy")
    for vector in found:
        np.testing.assert_allclose(vector, np.load(tmp_path / "last.npy")[0], atol=1e-6)


# -- what goes on ----------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from paropt.vectors.embed import Request, embed
from paropt.vectors.places import Settings, open_place
shop, to = Path(sys.argv[1]), sys.argv[2]
end = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done == 120 else None
embed(Request(shop / "sasrec", shop / "data"), open_place(to, Settings(batch=20)), print, end)
"""


def test_a_killed_run_goes_on(shop: Path, server: RedisServer, client: redis.Redis) -> None:
    words = [sys.executable, "-c", KILLED, str(shop), server.url()]
    done = subprocess.run(words, capture_output=True, timeout=120, check=False)
    assert done.returncode == -9, done.stderr
    whole = run_elsewhere(shop, server)
    # 120 were sent; the last 20 say how many are answered, and may not have arrived
    assert client.hget("paropt:embed:user:{id}", "done") in (b"80", b"100")
    client.set("user:17x", "stays")
    again = run(shop, server.url(), batch=20)
    assert again.there in (80, 100) and again.vectors == 300
    assert client.get("user:17x") == b"stays"
    client.delete("user:17x")
    for key, vector in vectors_in(client).items():
        np.testing.assert_allclose(vector, whole[key], atol=1e-6)
    assert run(shop, server.url()).there == 0  # a whole one is written anew


def run_elsewhere(shop: Path, server: RedisServer) -> dict[str, np.ndarray]:
    """All vectors, from another database."""
    run(shop, server.url(3))
    with redis.Redis(port=server.port, db=3) as client:
        return vectors_in(client)


def test_a_log_and_items_go_on_too(shop: Path, server: RedisServer, client: redis.Redis) -> None:
    """Which have no split, that the one of a dataset could be told from."""

    def end(done: int, total: int) -> None:
        if done >= 25:
            raise KeyboardInterrupt

    log = Request(shop / "sasrec", shop / "log.tsv", Options())
    items = Request(shop / "sasrec", what="items")
    for request in (log, items):
        settings = Settings(request.what, batch=5)
        with pytest.raises(KeyboardInterrupt):
            embed(request, open_place(server.url(), settings), print, end)
        again = embed(request, open_place(server.url(), settings), print, lambda *_: None)
        assert again.there == 20


def test_what_is_gone_meanwhile_is_written_again(
    shop: Path, server: RedisServer, client: redis.Redis
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(shop, server.url(), stop_at=200, batch=20, ttl=1000)
    keys = client.keys("user:*")
    ids = open_dataset(shop / "data").split("train_full").session_ids()
    order = [f"user:{one}".encode() for one in ids]
    client.delete(order[50])
    assert run(shop, server.url(), batch=20, ttl=1000).there == 50
    with pytest.raises(KeyboardInterrupt):
        run(shop, server.url(), stop_at=200, batch=20, ttl=1000)
    client.expire(order[0], 400)  # less than half of its time
    assert run(shop, server.url(), batch=20, ttl=1000).there == 0
    assert len(keys) < len(vectors_in(client)) == 300


@pytest.mark.parametrize("name", ["u.npy", "u.parquet"])
def test_files_go_on_too(
    shop: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import paropt.training.recommending.vectors as vectors
    import paropt.vectors.parquet_store as parquet_store

    run(shop, tmp_path / f"whole-{name}")
    monkeypatch.setattr(vectors, "BLOCK", 50)
    monkeypatch.setattr(parquet_store, "PART", 100)
    with pytest.raises(KeyboardInterrupt):
        run(shop, tmp_path / name, stop_at=250)
    assert not (tmp_path / name).exists()
    if name == "u.npy":  # a kill came after these were written, and before that was noted
        with (tmp_path / f".{name}.partial" / "vectors.npy").open("ab") as file:
            file.write(np.full((40, 8), 7, np.float32).tobytes())
    assert run(shop, tmp_path / name).there == (250 if name == "u.npy" else 200)
    whole, again = (rows_of(tmp_path / path) for path in (f"whole-{name}", name))
    np.testing.assert_allclose(again, whole, atol=1e-6)
    with pytest.raises(KeyboardInterrupt):
        run(shop, tmp_path / name, stop_at=250, overwrite=True)
    assert run(shop, tmp_path / name, "gru4rec", overwrite=True).there == 0
    assert rows_of(tmp_path / name).shape == (300, 7)
    assert not list(tmp_path.glob(".*"))


def rows_of(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    table = pyarrow.parquet.read_table(path)
    assert len(set(table.column("id").to_pylist())) == 300
    return np.array(table.column("vector").to_pylist(), np.float32)


@pytest.mark.parametrize("ttl", [None, 1000])
def test_a_full_memory_is_said_and_gone_on_with(
    shop: Path, server: RedisServer, client: redis.Redis, ttl: int | None
) -> None:
    def fill(done: int, total: int) -> None:
        client.config_set("maxmemory", 1 if done >= 150 else 0)

    store = open_place(server.url(), Settings(batch=50, ttl=ttl))
    request = Request(shop / "sasrec", shop / "data")
    full = f"127.0.0.1:{server.port}/0 has no memory left"
    with pytest.raises(VectorsError, match=full) as caught:
        embed(request, store, print, fill)
    assert caught.value.exit_code == 1
    client.config_set("maxmemory", 0)
    # 150 were sent; the last 50 say that 100 are there, and may have come too late
    assert run(shop, server.url(), batch=50, ttl=ttl).there in (50, 100)
    assert len(vectors_in(client)) == 300


def test_a_lost_connection_is_said_and_gone_on_with(
    shop: Path, server: RedisServer, client: redis.Redis
) -> None:
    def cut(done: int, total: int) -> None:
        if done == 150:
            client.client_kill_filter(_type="normal", skipme=True)

    store = open_place(server.url(), Settings(batch=50))
    with pytest.raises(StorageUnreachable, match="was lost; run the same command again") as caught:
        embed(Request(shop / "sasrec", shop / "data"), store, print, cut)
    assert caught.value.exit_code == 3
    assert run(shop, server.url(), batch=50).there in (50, 100)
    assert len(vectors_in(client)) == 300


# -- what is refused -------------------------------------------------------------------------------


def test_other_vectors_are_replaced_only_when_that_is_said(
    shop: Path, server: RedisServer, client: redis.Redis, tmp_path: Path
) -> None:
    run(shop, server.url())
    before = {key: client.dump(key) for key in client.scan_iter()}
    with pytest.raises(VectorsError, match=r"holds vectors of 8 dimensions .* these are of 7"):
        run(shop, server.url(), "gru4rec")
    with pytest.raises(VectorsError, match=r"holds vectors as float32 .* these are as json"):
        run(shop, server.url(), encoding="json")
    fit = Fit("sasrec", TINY["sasrec"], open_dataset(shop / "data").view("search"), seed=2)
    list(fit.epochs())
    save_model(tmp_path / "sasrec", fit)
    store = open_place(server.url(), Settings())
    with pytest.raises(VectorsError, match=r"another model \(sasrec \w{12}\) .* --overwrite"):
        embed(Request(tmp_path / "sasrec", shop / "data"), store, print, lambda *_: None)
    assert {key: client.dump(key) for key in client.scan_iter()} == before
    assert run(shop, server.url(), "gru4rec", overwrite=True).there == 0
    assert {len(vector) for vector in vectors_in(client).values()} == {7}


def test_the_hash_stays_with_vectors_that_stay(
    shop: Path, server: RedisServer, client: redis.Redis
) -> None:
    """Then another model's vectors are refused, also when those of a short life are gone."""
    about = "paropt:embed:user:{id}"
    run(shop, server.url(), ttl=1000)
    assert client.hget(about, "lasting") == b"no" and client.ttl(about) > 900
    run(shop, server.url())
    assert client.hget(about, "lasting") == b"yes" and client.ttl(about) == -1
    run(shop, server.url(), ttl=1000)
    assert client.hget(about, "lasting") == b"yes" and client.ttl(about) == -1
    # as paropt before it wrote such a hash
    client.hdel(about, "lasting")
    client.hset(about, "ttl", 0)
    run(shop, server.url(), "gru4rec", ttl=1000, overwrite=True)
    assert client.ttl(about) == -1 and client.ttl("user:17") > 900


def test_vectors_that_are_not_written_again_are_told_of(
    shop: Path, server: RedisServer, client: redis.Redis, tmp_path: Path
) -> None:
    run(shop, server.url())
    few = tmp_path / "few.tsv"
    few.write_text("SessionId\tItemId\tTime\n17\t3\t45100\n17\t4\t45200\n")
    said: list[str] = []
    store = open_place(server.url(), Settings())
    embed(Request(shop / "sasrec", few, Options()), store, said.append, lambda *_: None)
    assert [line for line in said if "written before" in line] == [
        "300 vectors were written before, and these are 1: the others stay as they are under"
        " user:{id}; --ttl lets go of what isn't written again"
    ]
    assert len(vectors_in(client)) == 300


def test_keys_of_others_are_left_alone(
    shop: Path, server: RedisServer, client: redis.Redis
) -> None:
    client.hset("user:17", "name", "Ann")
    with pytest.raises(VectorsError, match=r"has 1 of these keys already, .*user:17 is a hash"):
        run(shop, server.url())
    assert client.keys() == [b"user:17"]
    client.set("paropt:embed:u:{id}", "mine")
    with pytest.raises(VectorsError, match="is no hash but a string: another program's"):
        run(shop, server.url(), key="u:{id}")
    assert len(client.keys()) == 2


def test_a_sample_that_reads_back_differently_is_said(
    shop: Path, server: RedisServer, client: redis.Redis
) -> None:
    store = open_place(server.url(), Settings())
    with pytest.raises(VectorsError, match="20 of 20 vectors that were read back"):
        embed(Request(shop / "sasrec", shop / "data"), store, print, lambda *_: spoil(client))
    assert client.hget("paropt:embed:user:{id}", "state") == b"writing"
    assert run(shop, server.url()).there == 0


def spoil(client: redis.Redis) -> None:
    # the pipeline is on its way when this is called: it is answered first
    while client.dbsize() < 300:
        pass
    client.mset(dict.fromkeys(client.keys("user:*"), b"spoilt"))


def test_a_replica_is_refused(shop: Path, server: RedisServer, client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(VectorsError, match="is a read-only replica; name its primary"):
            run(shop, server.url())
    finally:
        client.replicaof("NO", "ONE")


def test_the_password_is_nowhere(shop: Path, tmp_path: Path) -> None:
    server = RedisServer(tmp_path, password=PASSWORD)
    try:
        right = f"redis://:{QUOTED}@127.0.0.1:{server.port}/0"
        place = tmp_path / "place"
        place.write_text(right + "\n")
        good = paropt("embed", shop / "sasrec", "--data", shop / "data", "--to-file", place)
        assert good.exit_code == 0 and f"in redis://127.0.0.1:{server.port}/0" in good.stdout
        typed = paropt("embed", shop / "sasrec", "--data", shop / "data", "--to", right)
        assert "everybody on this machine can read the password" in typed.stderr
        for url in (right.replace(QUOTED, "wrong"), right.replace(f":{QUOTED}@", "")):
            bad = paropt("embed", shop / "sasrec", "--data", shop / "data", PAROPT_REDIS_URL=url)
            assert isinstance(bad.exception, StorageUnreachable) and bad.stdout == ""
            assert "wrong" not in str(bad.exception)
        strange = paropt("embed", shop / "sasrec", right.replace("127", f":{PASSWORD}@127"))
        assert strange.exit_code == 2
        for told in (good, typed, bad, strange):
            text = told.output + str(told.exception)
            assert PASSWORD not in text and QUOTED not in text
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("to", "error", "says"),
    [
        ("redis://nohost.invalid:1", StorageUnreachable, "host 'nohost.invalid' of .* not known"),
        (
            "redis://:secret@127.0.0.1:1/4",
            StorageUnreachable,
            "no Redis answers at redis://127.0.0.1:1/4;",
        ),
        ("unix:///no/such.sock", StorageUnreachable, "no Redis answers at unix:///no/such.sock"),
        ("redis://a:sec#ret@h", ParoptError, "it has a #|port is no number"),
        ("redis://h/x", ParoptError, "its database is no number"),
        ("redis://h?ssl_ca_certs=x", ParoptError, "is for TLS; write rediss://"),
        ("rediss://h?ssl_ca_certs=nowhere", ParoptError, "is no file: nowhere"),
        ("redis://h?secret=1", ParoptError, "where paropt knows db"),
        ("http://u:secret@h", VectorsError, "vectors don't go to http://…; they go to redis"),
        ("users.csv", VectorsError, "vectors don't go to 'users.csv'"),
        ("redis//a:secret@h:1/1", VectorsError, r"vectors don't go to '…@h:1/1'; they go to"),
        ("redis:/a:secret@h", VectorsError, r"vectors don't go to '…@h'; they go to"),
    ],
)
def test_a_wrong_place_is_a_sentence(
    shop: Path, to: str, error: type[ParoptError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        open_place(to, Settings())
    assert "secret@" not in str(caught.value) and "ret@" not in str(caught.value)


@pytest.mark.parametrize("name", ["u.npy", "u.parquet"])
def test_files_of_others_stay(shop: Path, tmp_path: Path, name: str) -> None:
    run(shop, tmp_path / name)
    with pytest.raises(VectorsError, match=f"{name} exists; add --overwrite"):
        run(shop, tmp_path / name)
    with pytest.raises(VectorsError, match="--ttl is for Redis"):
        run(shop, tmp_path / name, ttl=60, overwrite=True)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(VectorsError, match="is a directory"):
        run(shop, tmp_path / "folder.npy", overwrite=True)
    (tmp_path / "log.parquet").mkdir()
    with pytest.raises(VectorsError, match="is not of paropt embed, so it is not overwritten"):
        run(shop, tmp_path / "log.parquet", overwrite=True)


def test_who_has_no_vectors_says_so(shop: Path, tmp_path: Path) -> None:
    for what in ("users", "items"):
        request = replace(Request(shop / "markov", shop / "data"), what=what)
        store = open_place(str(tmp_path / "u.npy"), Settings())
        with pytest.raises(ModelError, match=f"'markov' has no vectors of {what}"):
            embed(request, store, print, lambda *_: None)
    assert list(tmp_path.iterdir()) == []


def test_without_redis_py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(VectorsError, match=r"needs redis-py, .* pip install 'paropt\[redis\]'"):
        open_place("redis://h", Settings())
    monkeypatch.setitem(sys.modules, "orjson", None)
    with pytest.raises(VectorsError, match=r"need orjson, .* pip install 'paropt\[redis\]'"):
        open_place("redis://h", Settings(encoding="json"))
