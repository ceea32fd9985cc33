"""``paropt recommend`` on logs of one's own: what is remembered, named, popular or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from paropt.cli.main import cli
from paropt.data.dataset import open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import DataError, ModelError
from paropt.training.fitting.fit import Fit
from paropt.training.saved_model.saved import load_model, save_model

Paropt = Callable[..., Result]
TINY = {"n_epochs": 1, "dim": 8, "blocks": 1, "heads": 1, "max_length": 8}
SHELF = [f"p{n}" for n in range(8)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clicks without a header line on a shelf of eight products; purchases don't count."""
    folder = tmp_path_factory.mktemp("own")
    lines = []
    for visit in range(120):
        for step in range(4):
            hour, minute = divmod(visit * 7 % 1440, 60)
            when = f"{1 + visit // 12:02}/04/2014 {hour:02}:{minute:02}:{step:02}"
            lines.append(f"v{visit};{SHELF[(visit + step) % 8]};{when};click")
        lines.append(f"v{visit};p0;{when};buy")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    names = [f"{item};The {item} of\tall" for item in SHELF]
    (folder / "items.csv").write_text("\n".join(["sku;title", *names]) + "\n")
    options = Options(
        session_key="visit",
        item_key="sku",
        time_key="when",
        time_format="%d/%m/%Y %H:%M:%S",
        names=("visit", "sku", "when", "kind"),
        event_column="kind",
        events=("click",),
        item_features=(folder / "items.csv",),
    )
    prepare([folder / "log.csv"], folder / "data", options=options)
    return folder


def saved(data: Path, model: str, name: str) -> Path:
    from paropt.data import open_dataset

    place = data / name
    if not place.exists():
        params = TINY if model != "markov" else {}
        fit = Fit(model, params, open_dataset(data / "data").view("search"), seed=1)
        list(fit.epochs())
        save_model(place, fit)
    return place


def paropt(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_a_log_is_remembered_with_its_names(data: Path, tmp_path: Path) -> None:
    """No header line, its own times, and an event that is no click."""
    live = tmp_path / "live.csv"
    live.write_text("a;p2;01/05/2014 10:00:00;click\na;p0;01/05/2014 10:00:09;buy\n")
    done = paropt("recommend", saved(data, "markov", "m"), "--sessions", live, "--top", 1)
    assert done.exit_code == 0, done.output
    header, row = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["session", "rank", "item", "score", "by", "name"]
    assert (row[0], row[2], *row[4:]) == ("a", "p3", "model", "The p3 of all")
    assert "1 of 2 rows are 'click' in column 'kind'" in done.stderr


def test_who_is_unknown_gets_what_is_popular(data: Path, tmp_path: Path) -> None:
    live = tmp_path / "live.csv"
    live.write_text("a;p2;01/05/2014 10:00:00;click\nb;new;01/05/2014 10:00:09;click\n")
    model = saved(data, "markov", "m")
    done = paropt("recommend", model, "--sessions", live, "--top", 2, "--json")
    known, unknown = [json.loads(line) for line in done.stdout.splitlines()]
    assert (known["popular"], unknown["popular"]) == (False, True)
    loaded = load_model(model)
    support = dict(zip(loaded.item_ids, loaded.model.catalogue.support.tolist(), strict=True))
    most = sorted(support.values(), reverse=True)[:2]
    assert [entry["score"] for entry in unknown["items"]] == most
    assert [support[entry["item"]] for entry in unknown["items"]] == most
    assert all(entry["name"] == f"The {entry['item']} of\tall" for entry in unknown["items"])
    assert "session b has no item that the model knows" in done.stderr


def test_items_that_are_unknown_are_counted_and_other_spellings_named(
    data: Path, tmp_path: Path
) -> None:
    """An item of the session is left out; the numbers would be of the others, without a word."""
    log, live = tmp_path / "log.csv", tmp_path / "live.csv"
    rows = [f"s{s},{100 + (s + k) % 7},{1_700_000_000 + 50_000 * s + k}" for s in range(60)
            for k in range(3)]  # fmt: skip
    log.write_text("\n".join(["SessionId,ItemId,Time", *rows]) + "\n")
    prepare([log], tmp_path / "data", options=Options(min_support=1))
    fit = Fit("markov", {}, open_dataset(tmp_path / "data").view("search"), seed=1)
    list(fit.epochs())
    save_model(tmp_path / "m", fit)

    def told(*items: str) -> str:
        lines = [f"a,{item},{1_700_000_000 + k}" for k, item in enumerate(items)]
        live.write_text("\n".join(["SessionId,ItemId,Time", *lines]) + "\n")
        done = paropt("recommend", tmp_path / "m", "--sessions", live, "--top", 1)
        assert done.exit_code == 0, done.output
        return done.stderr

    assert "doesn't know" not in told("101", "102")
    assert "1 of 2 events are of items that the model doesn't know, as 'new'\n" in told(
        "101", "new"
    )
    said = told("101", "102", "0103", "104.0")
    assert "warning: 2 of 4 events are of items that the model doesn't know, as '0103'" in said
    assert "'0103' may be the model's '103', written otherwise" in said


def test_names_may_come_from_another_table(data: Path, tmp_path: Path) -> None:
    live, table = tmp_path / "live.csv", tmp_path / "shop.csv"
    live.write_text("a;p2;01/05/2014 10:00:00;click\n")
    table.write_text("sku,colour\np3,red\n")
    words = ["recommend", saved(data, "markov", "m"), "--sessions", live, "--top", 1]
    named = paropt(*words, "--items", table, "--names", "colour")
    assert named.stdout.splitlines()[1].endswith("\tmodel\tred")
    refused = paropt(*words, "--names", "colour")
    assert isinstance(refused.exception, DataError)
    assert "keeps no column 'colour' of its items, only title; give a table" in str(
        refused.exception
    )


def test_times_are_asked_for_where_the_model_needs_them(data: Path, tmp_path: Path) -> None:
    live = tmp_path / "live.csv"
    live.write_text("visit,sku\na,p1\na,p2\n")
    done = paropt("recommend", saved(data, "sasrec", "s"), "--sessions", live, "--top", 1)
    assert done.exit_code == 0 and "its rows are taken to be in order" in done.stderr
    refused = paropt("recommend", saved(data, "hstu", "h"), "--sessions", live)
    assert isinstance(refused.exception, ModelError)
    assert "has no times, and model 'hstu' needs them" in str(refused.exception)
    assert "--time-key" in str(refused.exception)


def test_strangers_are_refused_with_both_spellings(data: Path, tmp_path: Path) -> None:
    live = tmp_path / "live.csv"
    live.write_text("a;2;01/05/2014 10:00:00;click\n")
    done = paropt("recommend", saved(data, "markov", "m"), "--sessions", live)
    assert isinstance(done.exception, DataError)
    assert "they are written as '2' there, and as 'p0' in the model" in str(done.exception)
    assert done.stdout == ""


def test_a_model_of_paropt_0_1_is_read_by_options(data: Path, tmp_path: Path) -> None:
    """It remembers nothing of its log."""
    from paropt.training.fitting import checksummed_file

    model = saved(data, "markov", "m")
    old = tmp_path / "old"
    old.mkdir()
    (old / "items.parquet").write_bytes((model / "items.parquet").read_bytes())
    meta, tensors = checksummed_file.read(model / "model.safetensors")
    del meta["log"]
    checksummed_file.write(old / "model.safetensors", meta, tensors)
    (old / "model.json").write_text(json.dumps(meta))
    live = tmp_path / "live.csv"
    live.write_text("SessionId,ItemId,Time\na,p2,1400000000\n")
    done = paropt("recommend", old, "--sessions", live, "--top", 1)
    assert done.exit_code == 0 and done.stdout.splitlines()[1].split("\t")[2] == "p3"
    live.write_text("a;p2;01/05/2014 10:00:00\n")
    said = ["--header", "x,y,z", "--session-key", "x", "--item-key", "y", "--time-key", "z"]
    done = paropt("recommend", old, "--sessions", live, "--top", 1, *said)
    assert "--time-format" in str(done.exception)
    format = ["--time-format", "%d/%m/%Y %H:%M:%S"]
    done = paropt("recommend", old, "--sessions", live, "--top", 1, *said, *format)
    assert done.stdout.splitlines()[1].split("\t")[2] == "p3"


@pytest.mark.parametrize("model", ["sasrec", "markov"])
def test_the_best_of_candidates_and_none_of_those_left_out(
    data: Path, tmp_path: Path, model: str
) -> None:
    live = tmp_path / "live.csv"
    clicks = [("a", "p2"), ("a", "p5"), ("b", "new")]
    live.write_text(
        "".join(f"{v};{p};01/05/2014 10:00:0{i};click\n" for i, (v, p) in enumerate(clicks))
    )
    (tmp_path / "in.txt").write_text("sku\np6\np5\nq1\np3\n\np3\np0\n")
    (tmp_path / "out.csv").write_text("sku,why\np0,adult\n")
    words = ["recommend", saved(data, model, model[0]), "--sessions", live, "--json"]

    def items(*more: object) -> tuple[dict[str, list[tuple[str, float]]], Result]:
        done = paropt(*words, *more)
        assert done.exit_code == 0, done.output
        found = [json.loads(line) for line in done.stdout.splitlines()]
        pairs = {f["session"]: [(e["item"], e["score"]) for e in f["items"]] for f in found}
        return pairs, done

    every, _ = items("--top", 8, "--filter-seen")
    some, done = items(
        "--top", 8, "--filter-seen", "--candidates", tmp_path / "in.txt",
        "--exclude", tmp_path / "out.csv",
    )  # fmt: skip
    for session, wanted in (("a", {"p6", "p3"}), ("b", {"p6", "p5", "p3"})):
        kept = [pair for pair in every[session] if pair[0] in wanted]
        assert [item for item, _ in some[session]] == [item for item, _ in kept]
        assert [s for _, s in some[session]] == pytest.approx([s for _, s in kept], rel=1e-5)
    assert "1 of 5 candidates are unknown to the model: q1" in done.stderr
    assert "--top 8 asks for more than the 3 items that there are to recommend" in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.txt", "", "has no item ids; give one per line"),
        ("list.txt", "q1\n", "knows none of the 1 candidates, the first of which is 'q1'"),
        ("list.csv", "a,b\n1,2\n", "has no column 'sku' of items for --candidates (it has a, b)"),
        ("list.csv", "p0\np1\n", ""),
    ],
)
def test_lists_that_cannot_be_used_say_why(
    data: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    live, given = tmp_path / "live.csv", tmp_path / name
    live.write_text("a;p2;01/05/2014 10:00:00;click\n")
    given.write_text(text)
    model = saved(data, "markov", "m")
    done = paropt("recommend", model, "--sessions", live, "--candidates", given)
    if not message:
        assert {row.split("\t")[2] for row in done.stdout.splitlines()[1:]} <= {"p0", "p1"}
        return
    assert isinstance(done.exception, DataError) and message in str(done.exception)
    assert done.stdout == ""


@pytest.mark.parametrize("model", ["gru4rec", "hstu", "markov"])
def test_a_server_answers_what_the_verb_says(data: Path, tmp_path: Path, model: str) -> None:
    """Session by session or together, each with lists of its own."""
    from paropt.training.recommending.answering import Answerer, Ask
    from paropt.training.recommending.new_sessions import read_sessions, recommend
    from paropt.training.recommending.offer import make_offer

    place = data / model[0]
    if not place.exists():
        params = {"gru4rec": {"layers": 4, "n_epochs": 1}, "hstu": TINY}.get(model, {})
        fit = Fit(model, params, open_dataset(data / "data").view("search"), seed=1)
        list(fit.epochs())
        save_model(place, fit)
    loaded = load_model(place)
    sessions = {"a": ["p2", "q", "p5"], "b": ["p1"], "c": ["q"], "d": ["p7", "p6", "p0", "p2"]}
    live = tmp_path / "live.csv"
    rows = [
        f"{name};{item};01/05/2014 10:00:0{step};click"
        for name, items in sessions.items()
        for step, item in enumerate(items)
    ]
    live.write_text("\n".join(rows) + "\n")
    lists: list[dict[str, Any]] = [
        {},
        {"candidates": ["p6", "p1", "p3", "q"], "exclude": ["p3"]},
        {"exclude": ["p4"]},
        {"candidates": ["p0", "p3"]},
    ]
    began = 1_398_938_400_000  # 2014-05-01 10:00
    answerer = Answerer(loaded)
    asks, wanted = [], []
    for seen in (False, True):
        for listed, (name, items) in zip(lists, sessions.items(), strict=True):
            times = [began + 1000 * step for step in range(len(items))][::-1]
            ask = Ask(items[::-1], times, top=3, filter_seen=seen, **listed)
            asks.append(answerer.prepare(ask))
            known = recommend(
                loaded, read_sessions(live, loaded), 3, seen, make_offer(loaded, **listed)
            )
            wanted.append(next(found for found in known if found.session == name))
    together = answerer.answer(asks)
    alone = [answerer.answer([ask])[0] for ask in asks]
    for one, other, verb in zip(together, alone, wanted, strict=True):
        assert one.items == other.items == verb.items
        assert one.scores == pytest.approx(verb.scores, rel=1e-5)
        assert (one.popular, other.popular) == (verb.popular, verb.popular)
    assert [one.unknown for one in together[:4]] == [1, 0, 1, 0]
    assert [one.unlisted for one in together[:4]] == [0, 1, 0, 0]
    if model == "hstu":
        with pytest.raises(ModelError, match="needs times as it was trained; give each item one"):
            answerer.prepare(Ask(["p1"]))
    with pytest.raises(DataError, match="none of the 1 candidates is known"):
        answerer.prepare(Ask(["p1"], [began], candidates=["q"]))


def test_columns_are_read_by_their_names_in_the_log(tmp_path: Path) -> None:
    """``--behaviour-key act`` makes a column ``behaviour``; files have ``act`` as the log had."""
    from paropt.training.recommending.answering import Answerer, Ask

    acts = ("view", "buy")
    rows = [f"s{s},{100 + (s + k) % 7},{1_700_000_000 + 50_000 * s + k},{acts[(s + k) % 2]}"
            for s in range(60) for k in range(3)]  # fmt: skip
    head = "SessionId,ItemId,Time,act"
    (tmp_path / "log.csv").write_text("\n".join([head, *rows]) + "\n")
    options = Options(min_support=1, behaviour_key="act")
    prepare([tmp_path / "log.csv"], tmp_path / "data", options=options)
    params = TINY | {"action_column": "behaviour", "action_input": "add"}
    fit = Fit("sasrec", params, open_dataset(tmp_path / "data").view("search"), seed=1)
    list(fit.epochs())
    save_model(tmp_path / "m", fit)

    def said(act: str) -> tuple[str, str]:
        live = tmp_path / "live.csv"
        live.write_text(f"{head}\na,101,1700000000,{act}\na,102,1700000001,{act}\n")
        done = paropt("recommend", tmp_path / "m", "--sessions", live, "--top", 2)
        assert done.exit_code == 0, done.output
        return done.stdout, done.stderr

    assert said("view")[0] != said("buy")[0]
    assert "unknown throughout" not in said("view")[1]
    assert "knows no value of column 'act' (as 'sell')" in said("sell")[1]
    live = tmp_path / "live.csv"
    live.write_text(f"{head}\na,101,1700000000,view\na,102,1700000001,sell\na,103,1700000002,\n")
    done = paropt("recommend", tmp_path / "m", "--sessions", live, "--top", 2)
    told = "of 2 events with a 'act' 1 have one that the model doesn't know, as 'sell'"
    assert told in done.stderr
    answerer = Answerer(load_model(tmp_path / "m"))
    answerer.prepare(Ask(["101"], [0], {"act": ["view"]}))
    with pytest.raises(DataError, match="had no column 'behaviour'; it had act"):
        answerer.prepare(Ask(["101"], [0], {"behaviour": ["view"]}))


def test_who_has_no_memory_is_told_before_anything_is_printed(data: Path, tmp_path: Path) -> None:
    live = tmp_path / "live.csv"
    live.write_text("a;p2;01/05/2014 10:00:00;click\n")
    model = saved(data, "markov", "m")
    done = paropt("recommend", model, "--sessions", live, "--update-memory")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "without a memory" in str(done.exception)
