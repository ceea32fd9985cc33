"""What new users get wrong: each mistake ends in one sentence that says what, which and what to do.

And it changes nothing: neither a file nor a row of the database.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import random
import shlex
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from paropt.storage.engine import open_engine

SPACE: dict[str, Any] = {
    "model": "gru4rec",
    "fixed": {"loss": "cross-entropy", "n_epochs": 3, "batch_size": 16},
    "search": {"layers": {"type": "int", "low": 8, "high": 32, "step": 8}},
}
LAUNCH = "launch --space ring.json --data data/a"
TRAIN = "train --params layers=8 --data data/a"
DB = "postgresql://paropt@127.0.0.1"

# what is typed, the exit code, and what the one sentence must have in it
MISTAKES: list[tuple[str, int, list[str]]] = [
    # words
    ("lunch", 2, ["no verb 'lunch'", "did you mean 'launch'?"]),
    ("tune", 2, ["no verb 'tune'", "paropt --help"]),
    ("launch --spce ring.json", 2, ["'--spce'", "--space"]),
    ("launch", 2, ["launch needs --data", "--space FILE, or --study NAME"]),
    ("worker", 2, ["Missing option '--study'"]),
    ("prepare a.tsv", 2, ["Missing option '--out'"]),
    ("train --data data/a", 2, ["--params says what to train, or --from what to go on from"]),
    ("launch --data a.tsv b.tsv", 2, ["(b.tsv)", "--data FILE --data FILE"]),
    ("status shop --json --watch", 2, ["--json prints once", "leave one"]),
    ("completion powershell", 2, ["'powershell'", "bash", "zsh", "fish"]),
    # spaces
    ("launch --space nix.json --data data/a", 2, ["no file nix.json", "it has all, demo"]),
    ("launch --space sasrek --data data/a", 2, ["sasrek", "did you mean 'sasrec'?"]),
    ("launch --space . --data data/a", 2, [". is a directory, not a space"]),
    ("launch --space broken.json --data data/a", 1, ["broken.json:2: a value should be at"]),
    ("launch --space layrs.json --data data/a", 1, ["layrs.json:1", "did you mean 'layers'?"]),
    ("launch --space step.json --data data/a", 1, ["step 8 doesn't divide 8 … 31", "24"]),
    ("launch --space upside.json --data data/a", 1, ["low 32 is above high 8"]),
    ("launch --space model.json --data data/a", 1, ["no model 'gru5rec'", "'gru4rec'"]),
    ("launch --space params.pickle --data data/a", 1, ["not UTF-8 text", "is JSON"]),
    ("launch --space ring.json", 1, ["no data: give --data DIR or event files"]),
    ("space layrs.json", 1, ["layrs.json:1", "did you mean 'layers'?"]),
    ("models gru5rec", 1, ["no model 'gru5rec'; did you mean 'gru4rec'"]),
    # data
    ("launch --data data/c", 1, ["--data data/c does not exist", "event files, or a directory"]),
    ("launch --data a.tvs", 1, ["--data a.tvs does not exist", "did you mean a.tsv?"]),
    ("launch --data data", 1, ["has no meta.json", "paropt prepare"]),
    ("launch --data ''", 1, ["--data is empty; give event files, or a directory"]),
    ("launch --data ring.json", 1, ["ring.json names no column"]),
    ("launch --data empty.csv", 1, ["empty.csv is empty"]),
    ("launch --data header.csv", 1, ["header.csv has a header but no events"]),
    (
        "launch --data binary.csv",
        1,
        ["binary.csv is a binary file, not TSV, CSV, JSON lines or Parquet"],
    ),
    ("launch --data cut.csv.gz", 1, ["cut.csv.gz is cut short or damaged"]),
    ("launch --data log.zip", 1, ["a zip archive", "unpack it"]),
    ("launch --data params.pickle", 1, ["is a pickle, which paropt never loads", "to_parquet"]),
    ("launch --data columns.csv", 1, ["sessions, items and times", "a, b, c", "--session-key"]),
    ("launch --data columns.csv --session-key c", 1, ["clearly its items and times", "--item-key"]),
    ("launch --data data/a --session-key c", 1, ["prepared already", "give its event files"]),
    ("launch --space demo --session-key c", 2, ["add --data FILE"]),
    ("launch --data fields.csv", 1, ["fields.csv:3: 2 fields where 3 are expected"]),
    ("launch --data noon.csv", 1, ["noon.csv:2: column 'Time': 'noon'", "--time-format"]),
    ("launch --data short.csv", 1, ["events go from", "--test-days"]),
    ("prepare nix.csv --out out", 1, ["nix.csv: No such file"]),
    ("prepare columns.csv --out out", 1, ["sessions, items and times", "--time-key"]),
    ("prepare a.tsv --out out --time-key When", 1, ["no column 'When'", "SessionId, ItemId, Time"]),
    ("prepare a.tsv --out out --item-key Item", 1, ["no column 'Item'; did you mean 'ItemId'?"]),
    ("prepare a.tsv --out data/a", 1, ["data/a exists", "another --out", "--overwrite"]),
    ("prepare a.tsv --out file --overwrite", 1, ["file is a file", "another --out"]),
    ("prepare a.tsv --out file/x", 1, ["file/x cannot be written", "file is a file"]),
    ("prepare a.tsv --out out --session-gap week", 2, ["'week' is no duration", "30m, 1h or 1d"]),
    ("prepare a.tsv --out out --format retailroket", 2, ["'retailroket'", "'retailrocket'"]),
    ("prepare a.tsv --out out --test-days 400", 1, ["events go from", "other --test-days"]),
    ("prepare a.tsv --demo --out out", 2, ["--demo makes its own events"]),
    # numbers and names
    (f"{LAUNCH} --trials 0", 2, ["'--trials': 0 is not in the range x>=1"]),
    (f"{LAUNCH} --per-device 0", 2, ["'--per-device': 0 is not in the range x>=1"]),
    (f"{LAUNCH} --timeout=-5m", 2, ["'-5m' is no duration", "30m, 1h or 1d"]),
    (f"{LAUNCH} --timeout 0", 2, ["'0' is no duration"]),
    (f"{LAUNCH} --heartbeat 10", 2, ["'10' is no duration without a unit", "10s, 10m or 10h"]),
    (f"{LAUNCH} --metric mmr@20", 2, ["no metric 'mmr@20'", "did you mean mrr@20?"]),
    (f"{LAUNCH} --metric auc", 2, ["no metric 'auc'", "There are recall@k", "ndcg@k"]),
    (f"{LAUNCH} --metric recall", 2, ["no metric 'recall'", "did you mean recall@20?"]),
    (f"{LAUNCH} --metric mrr@20-ndcg", 2, ["no metric 'ndcg'", "did you mean ndcg@20?"]),
    (f"{LAUNCH} --fixed momentum", 1, ["--fixed takes k=v,…", "'momentum'"]),
    (f"{LAUNCH} --fixed momentun=0.1", 1, ["did you mean 'momentum'?"]),
    (f"{LAUNCH} --sampler tpee", 2, ["no sampler 'tpee'; did you mean 'tpe'?"]),
    (f"{LAUNCH} --pruner halving", 1, ["no pruner 'halving'; there are median, asha, none"]),
    ("launch --space demo --data data/a --sampler grid", 1, ["'grid' needs a step"]),
    (f"{LAUNCH} --devices 0", 1, ["there is no GPU here", "--devices cpu", "paropt check"]),
    (f"{LAUNCH} --devices cuda", 2, ["auto, cpu, or GPU numbers such as 0,1; not 'cuda'"]),
    (f"{TRAIN} --device cuda", 1, ["torch sees no CUDA devices", "--device cpu"]),
    (f"{TRAIN} --epochs 0", 2, ["'--epochs': 0 is not in the range x>=1"]),
    (f"{TRAIN} --at 0", 2, ["0 is no cut-off; they start at 1"]),
    (f"{TRAIN} --save file", 1, ["file exists", "another directory"]),
    (f"{TRAIN} --save file/x", 1, ["file/x cannot be made", "file is a file"]),
    ("train --params layres=8 --data data/a", 2, ["no parameter 'layres'", "mean 'layers'?"]),
    ("train --params layers=eight --data data/a", 2, ["layers must be an integer, not 'eight'"]),
    (
        "train --params params.pickle --data data/a",
        1,
        ["pickles are never loaded", "paropt export"],
    ),
    (
        "train --params nix.json --data data/a",
        2,
        ["no file nix.json", "no paramfile of that name"],
    ),
    ("evaluate data --data data/a", 1, ["data is no saved model", "paropt train --save"]),
    ("recommend nix --sessions a.tsv", 1, ["nix is no saved model (it is not there)"]),
    # studies
    ("launch --study shpo", 1, ["there is no study 'shpo'; did you mean 'shop'?"]),
    ("worker --study nothing", 1, ["there is no study 'nothing'; 'paropt status' lists them"]),
    ("export nothing", 1, ["there is no study 'nothing'; 'paropt status' lists them"]),
    ("launch --study ''", 2, ["--study: empty; give a name"]),
    (f"launch --study {'x' * 600}", 2, ["--study: at most 512 characters, and this has 600"]),
    (
        "launch --study shop --data data/b",
        1,
        ["fingerprint {a}, and", "{b}; give the study's data"],
    ),
    (
        "launch --space ring.json --study shop --data data/b",
        1,
        ["'{a}', not '{b}'", "another name"],
    ),
    (
        "worker --study shop --data data/b",
        1,
        ["fingerprint {a}, and", "{b}; give the study's data"],
    ),
    ("launch --study shop --seed 7", 1, ["has the seed 42, not 7; leave --seed out"]),
    (f"{LAUNCH} --study shop --metric recall@20", 1, ["metric 'mrr@20', not 'recall@20'"]),
    ("launch --study old", 1, ["semantics 0, and this paropt has 1", "the version that made it"]),
    ("worker --study old", 1, ["semantics 0, and this paropt has 1", "the version that made it"]),
    ("launch --study gone", 1, ["/gone/data, which is not on this machine", "--data DIR"]),
    ("export shop", 1, ["'shop' has no trial with a value yet; 'paropt launch --study shop'"]),
    ("compare shop gone", 1, ["has no trial with a value yet", "goes on with it"]),
    ("stop shop --slot nix", 1, ["study 'shop' has no slot 'nix'"]),
    # databases and ports
    (f"{LAUNCH} --storage {DB}:1/x", 3, ["no PostgreSQL answers at 127.0.0.1:1; start it"]),
    (f"status --storage {DB}:1/x", 3, ["no PostgreSQL answers at 127.0.0.1:1; start it"]),
    ("status --storage {wrong}", 3, ["does not accept the password for paropt; set PGPASSWORD"]),
    ("status --storage {missing}", 3, ["does not exist on 127.0.0.1", "createdb"]),
    ("status --storage sqlite:///x.db", 1, ["is a sqlite URL", "postgresql://USER@HOST"]),
    ("PAROPT_STORAGE= launch --space demo --listen here", 1, ["0.0.0.0:5433", "not 'here'"]),
    (
        "PAROPT_STORAGE= launch --space demo --listen 127.0.0.1:{port}",
        1,
        ["--listen 127.0.0.1:{port} cannot be had (Address already in use)", "another port"],
    ),
    (f"{LAUNCH} --listen 127.0.0.1:5555", 1, ["--storage names another one; leave one of them"]),
    ("dashboard --port {port}", 1, ["127.0.0.1:{port} (Address already in use)", "another --port"]),
    ("dashboard --host 0.0.0.0 --no-token", 1, ["would let everybody in; leave out one of them"]),
]


@dataclass(frozen=True)
class Shop:
    """A directory of things to get wrong, and a database with studies."""

    directory: Path
    url: str
    names: dict[str, Any]

    def state(self) -> tuple[dict[str, str], dict[str, str]]:
        """Every file with a hash of it, and every table with a hash of its rows."""
        files = {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            for path in self.directory.rglob("*")
        }
        engine = open_engine(self.url)
        with engine.connect() as connection:
            tables = sqlalchemy.inspect(engine).get_table_names()
            query = 'SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM "{}" t'
            rows = {
                table: str(connection.execute(sqlalchemy.text(query.format(table))).scalar())
                for table in tables
            }
        engine.dispose()
        return files, rows


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, module_database_url: str) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("shop")
    datasets = _write_files(directory)
    _make_studies(module_database_url, datasets["a"].path, datasets["a"].fingerprint)
    parsed = sqlalchemy.make_url(module_database_url)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        yield Shop(
            directory,
            module_database_url,
            {
                "a": datasets["a"].fingerprint[:12],
                "b": datasets["b"].fingerprint[:12],
                "port": busy.getsockname()[1],
                "wrong": parsed.set(password="wrong-secret").render_as_string(False),
                "missing": parsed.set(database="missing").render_as_string(False),
            },
        )


def _write_files(directory: Path) -> dict[str, Any]:
    from paropt.data.prepare import prepare

    datasets = {}
    for step, name in enumerate("ab", 1):
        rng = random.Random(step)
        rows = ["SessionId\tItemId\tTime"]
        for session in range(150):
            item = rng.randrange(30)
            begin = 1_700_000_000 + 3_000 * session
            rows += [f"{session}\t{(item + k * step) % 30}\t{begin + 30 * k}" for k in range(4)]
        log = directory / f"{name}.tsv"
        log.write_text("\n".join(rows))
        datasets[name] = prepare([log], directory / "data" / name)
    texts = {
        "header.csv": "SessionId,ItemId,Time\n",
        "columns.csv": "a,b,c\n1,2,3\n",
        "fields.csv": "SessionId,ItemId,Time\n1,2,3\n1,2\n",
        "noon.csv": "SessionId,ItemId,Time\n1,2,noon\n",
        "short.csv": "SessionId,ItemId,Time\n"
        + "".join(f"{i // 4},{i % 3},{1_700_000_000 + i}\n" for i in range(40)),
        "broken.json": '{"model": "gru4rec",\n "search": {"layers": }\n}',
        "ring.json": json.dumps(SPACE),
        "model.json": json.dumps(SPACE | {"model": "gru5rec"}),
    }
    layers = SPACE["search"]["layers"]
    for name, search in {
        "layrs": {"layrs": layers},
        "step": {"layers": layers | {"high": 31}},
        "upside": {"layers": layers | {"low": 32, "high": 8}},
    }.items():
        texts[f"{name}.json"] = json.dumps(SPACE | {"search": search})
    for name, text in texts.items():
        (directory / name).write_text(text)
    (directory / "empty.csv").touch()
    (directory / "file").touch()
    (directory / "binary.csv").write_bytes(b"\x7fELF\x02\x01\0\0" + bytes(range(256)))
    (directory / "log.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    (directory / "params.pickle").write_bytes(pickle.dumps({"layers": 8}))
    cut = gzip.compress((directory / "a.tsv").read_bytes())[:-50]
    (directory / "cut.csv.gz").write_bytes(cut)
    return datasets


def _make_studies(url: str, data: Path, fingerprint: str) -> None:
    from paropt.search.setup.check_space import checked
    from paropt.search.space.file import from_json
    from paropt.search.study.definition import StudyDefinition
    from paropt.search.study.study import Study
    from paropt.storage.schema import create_tables
    from paropt.training.semantics import SEMANTICS

    def create(name: str, semantics: int = SEMANTICS, path: str = str(data)) -> None:
        definition = StudyDefinition(
            name=name,
            space=checked(from_json(SPACE)).to_json(),
            metric="mrr@20",
            at=[20],
            data_path=path,
            fingerprint=fingerprint,
            semantics=semantics,
        )
        Study.create(url, definition, budget=3).close()

    create("shop")
    create("gone", path="/gone/data")
    create("old", semantics=SEMANTICS - 1)
    engine = open_engine(url)
    create_tables(engine)
    engine.dispose()


@pytest.mark.parametrize(("typed", "code", "words"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_told_in_one_sentence_and_changes_nothing(
    typed: str, code: int, words: list[str], shop: Shop, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from paropt.cli.main import run

    monkeypatch.chdir(shop.directory)
    monkeypatch.setenv("PAROPT_HOME", str(shop.directory / "home"))
    monkeypatch.setenv("PAROPT_STORAGE", shop.url)
    monkeypatch.setenv("PAROPT_OUTAGE", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    before = shop.state()
    argv = [word.format(**shop.names) for word in shlex.split(typed)]
    if argv[0] == "PAROPT_STORAGE=":
        monkeypatch.delenv(argv.pop(0).rstrip("="))
    with pytest.raises(SystemExit) as end:
        run(argv)
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (code, ""), said.err
    *others, sentence = said.err.strip().splitlines()
    assert sentence.startswith("Error: "), said.err
    assert not any(line.startswith(("Error", "Traceback")) for line in others), said.err
    for word in words:
        assert word.format(**shop.names) in sentence
    assert "secret" not in said.err and str(sqlalchemy.make_url(shop.url).password) not in said.err
    assert shop.state() == before


@pytest.mark.parametrize(
    "wrong", ["--sampler tpee", "--pruner halving", "--metric auc", "--data data/b --study ''"]
)
def test_an_empty_database_stays_empty(
    wrong: str, shop: Shop, database_url: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from paropt.cli.main import run

    monkeypatch.chdir(shop.directory)
    with pytest.raises(SystemExit):
        run([*shlex.split(f"{LAUNCH} {wrong}"), "--storage", database_url])
    assert "Error: " in capsys.readouterr().err
    engine = open_engine(database_url)
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()


def test_a_gpu_that_is_busy(
    run_paropt: Any, shop: Shop, paropt_home: Path, tmp_path: Path, postgres_server: Any
) -> None:
    """The driver lists it, and it lets nobody in: the trainer's message comes with what to do."""
    driver = tmp_path / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text("#!/bin/sh\necho 'GPU-1, NVIDIA A100'\n")
    driver.chmod(0o755)
    trainer = Path(__file__).parents[1] / "scripted_trainer.py"
    busy = "CUDA error: all CUDA-capable devices are busy or unavailable"
    done = run_paropt(
        "launch", "--space", shop.directory / "ring.json", "--data", shop.directory / "data" / "a",
        "--study", "busy", "--storage", postgres_server.create_database(), "--devices", "0",
        env={
            "PATH": f"{driver.parent}:{os.environ['PATH']}",
            "PAROPT_TRAINER": f"{sys.executable} {trainer}",
            "SCRIPT_START": busy,
        },
    )  # fmt: skip
    assert done.rc == 1
    sentence = done.err.strip().splitlines()[-1]
    assert sentence.startswith(f"Error: the trainer on gpu0 cannot start: {busy}")
    assert "free the GPU" in sentence and "--devices cpu" in sentence
