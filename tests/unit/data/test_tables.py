"""Tables of items and users: kinds, several values, what is missing; from every form of file."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from paropt.data import Dataset, open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import DataError
from paropt.training.batches.catalogue import catalogue

DAY = 86_400
ROWS: list[dict[str, Any]] = [
    {"ItemId": "a", "title": "A red hat", "price": 1.5, "tags": ["red", "hat"], "brand": "x"},
    {"ItemId": "b", "title": "One blue hat", "price": None, "tags": [], "brand": "y"},
    {"ItemId": "d", "title": None, "price": 4.0, "tags": ["red"], "brand": "x"},
    {"ItemId": "e", "title": "Not in the log", "price": 9.0, "tags": ["sea"], "brand": "z"},
]


def log(folder: Path) -> Path:
    lines = ["SessionId\tuser\tItemId\tshop\tTime"]
    for session in range(12):
        for at, item in enumerate("abcd"):
            shop = "s2" if (session, item) == (3, "a") else "s1"
            time = 1_700_000_000 + session * DAY // 2 + at
            lines.append(f"{session}\tu{session % 3}\t{item}\t{shop}\t{time}")
    path = folder / "log.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def made(folder: Path, said: list[str] | None = None, **options: Any) -> Dataset:
    said = said if said is not None else []
    chosen = Options(min_support=1, **options)
    return prepare([log(folder)], folder / "out", options=chosen, note=said.append, overwrite=True)


def as_csv(rows: list[dict[str, Any]]) -> str:
    lines = ["ItemId,title,price,tags,brand"]
    for row in rows:
        cells = [row["ItemId"], row["title"], row["price"], "|".join(row["tags"]), row["brand"]]
        lines.append(",".join("" if cell is None else str(cell) for cell in cells))
    return "\n".join(lines) + "\n"


def write(folder: Path, form: str) -> Path:
    path = folder / f"items.{form}"
    if form == "parquet":
        pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif form == "json.gz":
        by_id = {row["ItemId"]: {k: v for k, v in row.items() if k != "ItemId"} for row in ROWS}
        path.write_bytes(gzip.compress(json.dumps(by_id).encode()))
    else:
        path.write_text(as_csv(ROWS))
    return path


@pytest.mark.parametrize("form", ["parquet", "jsonl", "json.gz", "csv"])
def test_every_form_of_table_gives_the_same_fields(form: str, tmp_path: Path) -> None:
    said: list[str] = []
    table = write(tmp_path, form)
    dataset = made(tmp_path, said, item_features=(table,), list_separator="|")
    assert dataset.item_ids().tolist() == ["a", "b", "c", "d"]
    items = catalogue(dataset.view("full")).items
    given = [f for f in items.fields.values() if not f.name.startswith("stats.")]
    assert {f.name: (f.kind, f.size) for f in given} == {
        "title": ("text", 0),
        "price": ("number", 0),
        "tags": ("categories", 2),
        "brand": ("category", 3),
    }
    assert list(items.texts("title")) == ["A red hat", "One blue hat", None, None]
    price = items.numbers("price").tolist()
    assert [price[0], price[3]] == [1.5, 4.0] and np.isnan(price[1:3]).all()
    brand = items.fields["brand"].vocabulary
    codes = items.codes("brand").tolist()
    assert [brand[codes[0]], brand[codes[1]], codes[2], brand[codes[3]]] == ["x", "y", -1, "x"]
    bags = items.bags("tags")
    words = items.fields["tags"].vocabulary
    edges = bags.offsets.tolist()
    found = [[words[c] for c in bags.codes[a:b]] for a, b in itertools.pairwise(edges)]
    assert found == [["red", "hat"], [], [], ["red"]]
    # what a delimited file leaves empty is missing; an empty list is known to be empty
    assert bags.missing.tolist() == [False, form == "csv", True, False]
    assert bags.take(bags.offsets.new_tensor([3, 0])).codes.tolist() == [1, 1, 0]
    told = "1 of 4 items have no row; 1 rows are of items that the log does not have"
    assert any(line.endswith(told) for line in said)
    dataset.verify()


def test_kinds_can_be_told(tmp_path: Path) -> None:
    table = tmp_path / "items.csv"
    table.write_text("ItemId,code,title,words\na,7,Alone,red hat\nb,8,Other,blue hat\nc,7,Alone,\n")
    kinds = ("title=text", "words=categories")
    options = {"item_features": (table,), "categorical": ("code",), "list_separator": " "}
    dataset = made(tmp_path, kinds=kinds, **options)
    found = {name: field.kind for name, field in dataset.fields("items").items()}
    assert found == {"code": "category", "title": "text", "words": "categories"}
    assert dataset.fields("items")["words"].size == 3
    for wrong in ("title=novel", "title", "=text", "title=vector"):
        with pytest.raises(DataError, match="write NAME=KIND"):
            made(tmp_path, kinds=(wrong,), item_features=(table,))


def test_a_table_without_a_header_and_one_with_typed_names(tmp_path: Path) -> None:
    bare, typed = tmp_path / "movies.dat", tmp_path / "more.item"
    bare.write_text("a::Toy (1995)::Fun|Kids\nb::Heat: 2 (1995)::Crime\nc::Odd (1999)::Fun\n")
    typed.write_text("ItemId:token\tyear:token\tstars:float\na\t1995\t3\nb\t1996\t4\nd\t1995\t5\n")
    dataset = made(
        tmp_path,
        item_features=(bare, typed),
        item_features_header=(("ItemId", "title", "genres"),),
        list_separator="|",
    )
    found = {name: field.kind for name, field in dataset.fields("items").items()}
    assert found == {
        "title": "text", "genres": "categories", "year": "category", "stars": "number"
    }  # fmt: skip


def members(dataset: Dataset, name: str) -> list[list[str] | None]:
    """The categories of each item; None where they are missing."""
    bags = catalogue(dataset.view("full")).items.bags(name)
    words, edges = dataset.fields("items")[name].vocabulary, bags.offsets.tolist()
    found = [[words[c] for c in bags.codes[a:b]] for a, b in itertools.pairwise(edges)]
    return [
        None if missing else one for one, missing in zip(found, bags.missing.tolist(), strict=True)
    ]


@pytest.mark.parametrize("separator", [None, ",", "|"])
@pytest.mark.parametrize("kinds", [(), ("tags=categories",)])
@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (["['Action', 'Indie']", "['RPG']", "[]"], [["Action", "Indie"], ["RPG"], []]),
        (['["Action","Indie"]', '[ "It\'s, so" ]', ""], [["Action", "Indie"], ["It's, so"], None]),
        (["['it\\'s', \"a [b]\"]", "['caf\\u00e9',]", "nan"], [["it's", "a [b]"], ["café"], None]),
        (["[1, 22]", "[22]", "[None]"], [["1", "22"], ["22"], []]),
        (['[true, "\\/"]', "[False]", "[null]"], [["true", "/"], ["false"], []]),
    ],
)  # fmt: skip
def test_lists_that_are_written_as_text_are_their_members(
    tmp_path: Path,
    cells: list[str],
    wanted: list[list[str] | None],
    kinds: tuple[str, ...],
    separator: str | None,
) -> None:
    """As pandas writes a column of lists; by ``--list-separator ,`` one would be ``['Action'``."""
    table, said = tmp_path / "items.tsv", list[str]()
    rows = [f"{item}\t{cell}" for item, cell in zip("abc", cells, strict=True)]
    table.write_text("\n".join(["ItemId\ttags", *rows]) + "\n")
    options = {"item_features": (table,), "list_separator": separator, "kinds": kinds}
    dataset = made(tmp_path, said, **options)
    assert members(dataset, "tags") == [*wanted, None]
    assert f"{table}: 'tags' is written as lists: each has several categories, the members" in said


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["['a', 'b']", "c", "['d']"], "category"),
        (["['a' 'b']", "['c']", "['d']"], "category"),
        (["['a', ['b']]", "['c']", "['d']"], "category"),
        (["['a', f('b')]", "['c']", "['d']"], "category"),
        (["['\\N{no such}']", "['c']", "['d']"], "category"),
        (["[]", "[]", "[]"], "category"),
        (["[sic] it is", "[sic] it was", "no [one] here"], "text"),
    ],
)
def test_other_brackets_are_what_they_were(tmp_path: Path, cells: list[str], kind: str) -> None:
    table = tmp_path / "items.tsv"
    rows = [f"{item}\t{cell}" for item, cell in zip("abc", cells, strict=True)]
    table.write_text("\n".join(["ItemId\ttags", *rows]) + "\n")
    field = made(tmp_path, item_features=(table,)).fields("items")["tags"]
    assert field.kind == kind
    assert kind == "text" or set(field.vocabulary) == set(cells)


def test_vectors_that_are_written_as_text_are_no_categories(tmp_path: Path) -> None:
    table = tmp_path / "items.tsv"
    table.write_text("ItemId\tlook\na\t[0.5, 1]\nb\t[-1e-3, 2]\n")
    with pytest.raises(DataError, match=r"'look' holds lists of numbers; give them as --item-vec"):
        made(tmp_path, item_features=(table,))


@pytest.mark.parametrize("word", ["-", "na", "NaT"])
def test_a_dash_among_numbers_is_a_missing_one(tmp_path: Path, word: str) -> None:
    table = tmp_path / "items.csv"
    table.write_text(f"ItemId,price\na,1.5\nb,{word}\nc,-3\n")
    dataset = made(tmp_path, item_features=(table,))
    prices = catalogue(dataset.view("full")).items.numbers("price").tolist()
    assert prices[::2] == [1.5, -3] and np.isnan(prices[1::2]).all()


def test_who_keeps_numbers_from_being_numbers_is_named(tmp_path: Path) -> None:
    """Two of forty prices are none, which is 5 %; of three, it is as many as there are."""
    table, said = tmp_path / "items.csv", list[str]()
    prices = ["1.5", "free", *map(str, range(37)), "+9", ""]
    rows = [f"{'abcd'[n] if n < 4 else f'x{n}'},{price}" for n, price in enumerate(prices)]
    table.write_text("\n".join(["ItemId,price", *rows]) + "\n")
    made(tmp_path, said, item_features=(table,))
    assert (
        f"{table}: 'price' is a category because 2 of 40 values are no numbers, first 'free' in"
        " line 3; leave such values empty, or say --kind price=category"
    ) in said
    told = list[str]()
    made(tmp_path, told, item_features=(table,), kinds=("price=category",))
    assert not any("price" in line for line in told)
    with pytest.raises(DataError, match=r"items\.csv:3: .*said to be numbers, and 'free' is none"):
        made(tmp_path, item_features=(table,), kinds=("price=number",))
    table.write_text("\n".join(["ItemId,price", *rows[:3], "x,no"]) + "\n")
    few = list[str]()
    made(tmp_path, few, item_features=(table,))
    assert not any("price" in line for line in few)


@pytest.mark.parametrize("between", [",", "::"])
def test_a_header_beside_names_for_a_table_is_refused(tmp_path: Path, between: str) -> None:
    """Of the line ``price`` would be a price, so that the prices would be categories."""
    table = tmp_path / "items.csv"
    rows = [["ItemId", "price", "cls"], ["a", "1", "x"], ["b", "2", "y"]]
    table.write_text("\n".join(map(between.join, rows)) + "\n")
    header = (("ItemId", "price", "cls"),)
    with pytest.raises(DataError, match=r"header line of its own, .*leave --item-features-header"):
        made(tmp_path, item_features=(table,), item_features_header=header)
    users = tmp_path / "users.csv"
    users.write_text("age,user\n30,u0\n")
    with pytest.raises(DataError, match=r"header line of its own, .*leave --user-features-header"):
        made(
            tmp_path,
            user_key="user",
            user_features=(users,),
            user_features_header=(("user", "age"),),
        )


def test_rows_without_an_id_go_where_asked(tmp_path: Path) -> None:
    table = tmp_path / "items.csv"
    table.write_text("ItemId,price\na,1\n,7\nb,2\n")
    with pytest.raises(DataError, match=r"items\.csv:3: .*the id is missing; --drop-missing"):
        made(tmp_path, item_features=(table,))
    said: list[str] = []
    dataset = made(tmp_path, said, item_features=(table,), drop_missing=True)
    assert f"{table}: rows without ItemId are left out: 1 of 3" in said
    prices = catalogue(dataset.view("full")).items.numbers("price").tolist()
    assert prices[:2] == [1.0, 2.0]
    table.write_text("ItemId,price\n,7\na,1\na,2\n")
    with pytest.raises(DataError, match=r"items\.csv:4: .*item a is here twice"):
        made(tmp_path, item_features=(table,), drop_missing=True)


def test_a_dataset_is_no_log(tmp_path: Path) -> None:
    made(tmp_path)
    with pytest.raises(DataError, match="out is a dataset that paropt prepare made, not a log"):
        prepare([tmp_path / "out"], tmp_path / "again")


def test_users_have_tables_too(tmp_path: Path) -> None:
    table = tmp_path / "users.csv"
    table.write_text("uid,age,town\nu0,30,Rome\nu2,40,Oslo\n")
    dataset = made(tmp_path, user_key="user", user_features=(table,), user_features_key="uid")
    view = dataset.view("full")
    users = catalogue(view).users
    assert dataset.user_ids().tolist() == ["u0", "u1", "u2"]
    ages = users.numbers("age").tolist()
    assert [ages[0], ages[2]] == [30, 40] and np.isnan(ages[1])
    assert users.codes("town").tolist() == [1, -1, 0]
    with pytest.raises(DataError, match=r"--user-features needs .*--user-key COLUMN"):
        made(tmp_path, user_features=(table,))


def test_a_column_of_events_becomes_a_field_of_items(tmp_path: Path) -> None:
    said: list[str] = []
    dataset = made(tmp_path, said, item_columns=("shop",))
    told = "'shop' is not the same throughout for 1 of 4 items; each has its most frequent value"
    assert told in said
    assert dataset.fields("events") == {}
    field = dataset.fields("items")["shop"]
    assert [field.vocabulary[c] for c in field.array().tolist()] == ["s1"] * 4


def test_values_of_test_do_not_come_into_the_field_of_an_item(tmp_path: Path) -> None:
    lines = ["SessionId\tItemId\tshop\tsize\tTime"]
    for session in range(10):
        for at, item in enumerate("ab"):
            shop, size = ("old", 1) if session < 5 else ("new", 2)
            lines.append(f"{session}\t{item}\t{shop}\t{size}\t{1_700_000_000 + session * DAY + at}")
    (tmp_path / "log.tsv").write_text("\n".join(lines) + "\n")
    options = Options(min_support=1, item_columns=("shop", "size"), test_days=4)
    dataset = prepare([tmp_path / "log.tsv"], tmp_path / "out", options=options)
    field = dataset.fields("items")["shop"]
    assert [field.vocabulary[c] for c in field.array().tolist()] == ["old", "old"]
    assert dataset.fields("items")["size"].array().tolist() == [1.0, 1.0]


BAD: Mapping[str, tuple[str, str]] = {
    "twice.csv": ("ItemId,price\na,1\nb,2\na,3\n", "twice.csv:4: .*item a is here twice"),
    "other.csv": ("article,price\na,1\n", "no column 'ItemId'.*name its ids with --item-feat"),
    "nobody.csv": ("ItemId,price\nx,1\n", "has none of the items of the log"),
    "array.json": ('{"a": 1', "neither JSON lines with 'ItemId' nor one object by id"),
    "lists.jsonl": ('{"ItemId": "a", "look": [0.5, 1.5]}\n', "give them as --item-vectors look="),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_cannot_be_used_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    content, sentence = BAD[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=sentence) as error:
        made(tmp_path, item_features=(tmp_path / name,))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_tables_are_in_the_fingerprint(tmp_path: Path) -> None:
    prints = set()
    for price in ("1", "2"):
        (tmp_path / "items.csv").write_text(f"ItemId,price\na,{price}\n")
        prints.add(made(tmp_path, item_features=(tmp_path / "items.csv",)).fingerprint)
    prints.add(made(tmp_path).fingerprint)
    assert len(prints) == 3
    open_dataset(tmp_path / "out").verify()


def test_texts_by_id_are_texts(tmp_path: Path) -> None:
    (tmp_path / "plots.json").write_text(json.dumps({"a": "one", "b": "two", "x": "no item"}))
    dataset = made(tmp_path, item_features=(tmp_path / "plots.json",))
    assert list(dataset.fields("items")["plots"].texts()) == ["one", "two", None, None]


def test_a_name_that_is_no_file_name_is_kept_also_as_written_by_0_1_0(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("ItemId,größe (cm)/x\na,S\nb,M\n")
    made(tmp_path, item_features=(tmp_path / "items.csv",))
    out, name = tmp_path / "out", "größe (cm)/x"
    assert open_dataset(out).fields("items")[name].size == 2
    (tmp_path / "items.csv").write_text("ItemId,größe\na,S\nb,M\n")
    made(tmp_path, item_features=(tmp_path / "items.csv",))
    meta = json.loads((out / "meta.json").read_text())
    for path in [path for path in meta["files"] if "%" in path]:
        meta["files"][unquote(path)] = meta["files"].pop(path)
        (out / path).rename(out / unquote(path))
    (out / "meta.json").write_text(json.dumps(meta))
    field = open_dataset(out).fields("items")["größe"]
    assert (field.size, field.array().tolist()) == (2, [1, 0, -1, -1])


def test_many_values_are_said(tmp_path: Path) -> None:
    said: list[str] = []
    tags = "|".join(map(str, range(1500)))
    (tmp_path / "items.csv").write_text(f"ItemId,tags\na,{tags}\nb,1\n")
    made(tmp_path, said, item_features=(tmp_path / "items.csv",), list_separator="|")
    assert any("'tags' has 1,500 values for one of the items" in line for line in said)


def fields_of(folder: Path, name: str, text: str, **options: Any) -> tuple[Dataset, Any]:
    (folder / name).write_text(text)
    dataset = made(folder, item_features=(folder / name,), **options)
    return dataset, dataset.fields("items")


def test_an_object_by_id_has_every_field_that_some_item_has(tmp_path: Path) -> None:
    text = '{"a": {"brand": "x"}, "b": {"brand": "y", "price": 1.5}, "c": {"price": 2}}'
    dataset, found = fields_of(tmp_path, "items.json", text)
    assert {name: kept.kind for name, kept in found.items()} == {
        "brand": "category",
        "price": "number",
    }
    price = catalogue(dataset.view("full")).items.numbers("price").tolist()
    assert price[1:3] == [1.5, 2.0] and np.isnan([price[0], price[3]]).all()
    with pytest.raises(DataError, match=r"items\.json .*'a' is here twice"):
        fields_of(tmp_path, "items.json", '{"a": {"brand": "x"}, "a": {"brand": "y"}}')


def test_a_word_for_no_value_is_no_number_and_no_category(tmp_path: Path) -> None:
    _, found = fields_of(tmp_path, "items.csv", "ItemId,price\na,1.5\nb,NA\nc,null\nd,2\n")
    assert found["price"].kind == "number"


def test_whole_numbers_that_would_be_one_are_refused(tmp_path: Path) -> None:
    """REES46's category ids: as float32 all of them are 2.0530136e+18."""
    ids = [2053013555631882655 + 2**20 * n for n in range(4)]
    text = "ItemId,kind\n" + "".join(f"{i},{n}\n" for i, n in zip("abcd", ids, strict=True))
    with pytest.raises(DataError, match=r"'kind' holds 4 whole numbers of which float32 tells 1 "):
        fields_of(tmp_path, "items.csv", text)
    _, found = fields_of(tmp_path, "items.csv", text, categorical=("kind",))
    assert (found["kind"].kind, found["kind"].size) == ("category", 4)
    with pytest.raises(DataError, match="holds 2 whole numbers of which float32 tells 1 apart"):
        fields_of(tmp_path, "items.csv", "ItemId,kind\na,16777216\nb,16777217\n")


def test_numbers_with_fractions_may_be_large(tmp_path: Path) -> None:
    """Above 2**24 every float32 is whole, and 1,000 of these are 126."""
    rows = "".join(f"{i},{1e8 + n / 7}\n" for n, i in enumerate("abcd"))
    _, found = fields_of(tmp_path, "items.csv", "ItemId,price\n" + rows)
    assert found["price"].kind == "number"


@pytest.mark.parametrize("values", [["0x0000FF", "0xFF0000"], ["7", "0x10"], ["NA", "null"]])
def test_what_no_float_is_spelt_like_is_a_category(tmp_path: Path, values: list[str]) -> None:
    text = f"ItemId,colour\na,{values[0]}\nb,{values[1]}\n"
    _, found = fields_of(tmp_path, "items.csv", text)
    assert found["colour"].kind == "category"


@pytest.mark.parametrize("value", ["inf", "-inf", "1e39"])
def test_what_is_no_float32_is_refused(tmp_path: Path, value: str) -> None:
    text = f"ItemId,price\na,1.5\nb,{value}\nc,2\n"
    with pytest.raises(DataError, match=r"items\.csv:3: column 'price': .* is no number to learn"):
        fields_of(tmp_path, "items.csv", text)


def test_a_whole_number_is_one_category_however_it_is_written(tmp_path: Path) -> None:
    """A column with a gap is written by pandas as floats; and blanks are no part of a value."""
    text = "ItemId,kind\na,1.0\nb,1\nc, 2.50\nd,007\n"
    _, found = fields_of(tmp_path, "items.csv", text, categorical=("kind",))
    assert list(found["kind"].vocabulary) == ["007", "1", "2.50"]
