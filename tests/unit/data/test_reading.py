"""Event files as people's programs write them: every row is read, or the file is refused."""

from __future__ import annotations

import csv
import gzip
import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from paropt.data.reading.read import look_at, read_columns, refuse_header
from paropt.errors import DataError


def read(
    path: Path, columns: Sequence[str] = ("s", "i", "t"), headless: Sequence[str] = ()
) -> list[tuple[object, ...]]:
    """The named columns of a file, row by row."""
    table, _ = read_columns([look_at(path, headless)], columns)
    return list(zip(*(table.column(name).to_pylist() for name in columns), strict=True))


def written(path: Path, content: str | bytes) -> Path:
    """The file with this content, compressed if its name says so."""
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


# -- quotes ---------------------------------------------------------------------------------

TITLES = ['6" pipe', '"open', 'close"', '"whole"', '"Great" movie', '"', '""', "a,b", 'x""y']


@pytest.mark.parametrize("name", ["log.tsv", "log.tsv.gz"])
@pytest.mark.parametrize("title", TITLES)
def test_in_a_tsv_a_quote_is_a_character(tmp_path: Path, name: str, title: str) -> None:
    rows = [("1", title if n == 3 else f"title {n}", str(n)) for n in range(9)]
    text = "\n".join("\t".join(row) for row in [("s", "i", "t"), *rows])
    assert read(written(tmp_path / name, text)) == rows


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_tsv_that_a_program_quoted_is_read_without_its_quotes(
    tmp_path: Path, quoting: int
) -> None:
    rows = [("1", 'a "b" c', "5"), ("2", 'd"', "6"), ("3", "plain", "7")]
    text = io.StringIO()
    csv.writer(text, delimiter="\t", quoting=quoting, lineterminator="\n").writerows(
        [("s", "i", "t"), *rows]
    )
    assert read(written(tmp_path / "log.tsv", text.getvalue())) == rows


@pytest.mark.parametrize("nothing", ["NA", "NULL", r"\N", ""])
def test_quotes_go_where_some_values_are_missing(tmp_path: Path, nothing: str) -> None:
    """R's ``write.table`` quotes every text but NA."""
    rows = [("1", "A 1", "5"), ("2", nothing, "6"), ("3", "B 2", "7")]
    lines = ["s\ti\tt", '1\t"A 1"\t5', f"2\t{nothing}\t6", '3\t"B 2"\t7']
    assert read(written(tmp_path / "log.tsv", "\n".join(lines))) == rows
    blanks = ["s, i, t", '1, "A 1", 5', f"2, {nothing}, 6", '3, "B 2", 7']
    found = read(written(tmp_path / "log.csv", "\n".join(blanks)))
    assert [str(item).strip() for _, item, _ in found] == ["A 1", nothing, "B 2"]


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
@pytest.mark.parametrize("n_rows", [40, 60_000])
def test_a_line_end_in_a_quoted_value_is_read_in_files_of_any_size(
    tmp_path: Path, name: str, n_rows: int
) -> None:
    """Sixty thousand of these rows are more than one of pyarrow's blocks."""
    rows = [(str(n), f'say "hi",\n{"x" * 150}\r\nbye {n}', str(n)) for n in range(n_rows)]
    text = io.StringIO()
    csv.writer(text).writerows([("s", "i", "t"), *rows])
    assert n_rows < 100 or len(text.getvalue()) > 8 << 20
    assert read(written(tmp_path / name, text.getvalue())) == rows


@pytest.mark.parametrize("value", ['6" pipe', 'pipe 6"', "it's", 'a""b'])
@pytest.mark.parametrize("delimiter", [",", ";", "|"])
def test_a_quote_inside_a_value_of_a_csv_stays(tmp_path: Path, value: str, delimiter: str) -> None:
    rows = [("1", value if n % 3 else '"quoted"', str(n)) for n in range(5)]
    text = "\n".join(delimiter.join(row) for row in [("s", "i", "t"), *rows])
    expected = [(s, i.replace('"quoted"', "quoted"), t) for s, i, t in rows]
    assert read(written(tmp_path / "log.csv", text)) == expected


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize(
    "wrong",
    [
        {4: '1,"open,3'},  # to the end of the file
        {4: '1,"open,3', 5: '1,also "open,3'},
        {4: '1,"open,3', 6: '1,close",3'},  # well-formed, with rows inside
        {4: '1,"open,3', 5: '1,close",3'},
        {4: '1,"Great" movie,3'},
        {4: '1,"an \\"escaped\\" one",3'},
        {4: '"1,2,3'},
    ],
)
def test_a_wrong_quote_in_a_csv_is_named_with_its_line(
    tmp_path: Path, wrong: dict[int, str], packed: str
) -> None:
    lines = ["s,i,t", *(f"1,title {n},{n}" for n in range(9))]
    for line, text in wrong.items():
        lines[line - 1] = text
    log = written(tmp_path / f"log.csv{packed}", "\n".join(lines))
    with pytest.raises(DataError, match=r"log\.csv(\.gz)?:4: a .*quote"):
        read(log)


# -- rows and fields ------------------------------------------------------------------------

ROWS = [("1", "a", "10"), ("1", "b", "20"), ("2", "a", "30")]


@pytest.mark.parametrize(
    "text",
    [
        "s,i,t\n1,a,10\n1,b,20\n2,a,30\n",
        "s,i,t\r\n1,a,10\r\n1,b,20\r\n2,a,30",
        "s,i,t\r1,a,10\r1,b,20\r2,a,30\r",  # as old Macs did
        "\ufeffs,i,t\n1,a,10\n1,b,20\n2,a,30\n",
        "\n\r\n\ns,i,t\n\n1,a,10\n\n\n1,b,20\n2,a,30\n\n\n",
        "s,i,t,\n1,a,10,\n1,b,20,\n2,a,30,\n",
        "s,i,t,,\n1,a,10,,\n1,b,20,x,\n2,a,30,,y\n",  # columns without a name
        "s,i,t\n1,a,10,\n1,b,20,\n2,a,30,\n",
        "s,i,t,\n1,a,10\n1,b,20\n2,a,30\n",
        ",s,i,t,\n0,1,a,10,\n1,1,b,20,\n2,2,a,30,\n",
        "s|i|t\n1|a|10\n1|b|20\n2|a|30\n",
        "s i t\n1 a 10\n1 b 20\n2 a 30\n",
        "  s\ti   t\n1  a\t\t10 \n\n 1 b 20\t\n2 a 30",
        '"s","i","t"\n"1","a","10"\n1,b,20\n2,"a",30\n',
        's, i, t\n1, "a", 10\n1, "b", 20\n2, "a", 30\n',
        '"s"\t"i"\t"t"\n1\ta\t10\n1\tb\t20\n2\ta\t30\n',
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_the_same_rows_however_they_are_written(tmp_path: Path, text: str, packed: str) -> None:
    rows = read(written(tmp_path / f"log{packed}", text))
    assert [tuple(str(value).strip() for value in row) for row in rows] == ROWS


@pytest.mark.parametrize(
    ("text", "headless"),
    [
        ("1 a 10\n1 b 20\n2 a 30\n", ("s", "i", "t")),
        ("1\ta 10\n1\tb 20\n2\ta 30\n", ("s", "i", "t")),
        ("1,a,10,\n1,b,20,\n2,a,30,\n", ("s", "i", "t")),
        ("\ufeff1\ta\t10\n1\tb\t20\n2\ta\t30\n", ("s", "i", "t")),
        ("1::a::10\n1::b::20\n2::a::30\n", ("s", "i", "t")),
    ],
)
def test_files_without_a_header(tmp_path: Path, text: str, headless: tuple[str, ...]) -> None:
    log = written(tmp_path / "log", text)
    layout = look_at(log, headless, "::" if "::" in text else "")
    table, _ = read_columns([layout], headless)
    assert [tuple(row.values()) for row in table.to_pylist()] == ROWS


@pytest.mark.parametrize(
    "first",
    [
        "s,i,t", "s, i,t ", "i,s,t", '"s","i","t"', "S,I,T", "s,i,t,", "\ufeffs,i,t", "\n\ns,i,t",
        "s\ti\tt", "s i  t", "s::i::t", "s|i|t", "s:token\ti:token\tt:float",
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_header_is_no_row_where_the_columns_are_named(
    tmp_path: Path, first: str, packed: str
) -> None:
    log = written(tmp_path / f"log{packed}", f"{first}\n1,a,10\n")
    what = r"log[.gz]* begins with a header line of its own, .*; leave --header out, or take that"
    with pytest.raises(DataError, match=what):
        refuse_header(log, ("s", "i", " t"), "--header")


def test_a_first_row_is_no_header(tmp_path: Path) -> None:
    for first in ("1,a,10", "s,i,10", "s,i", "s,i,t,u", "s,s,t", '{"s": "i"}'):
        refuse_header(written(tmp_path / "log", f"{first}\n"), ("s", "i", "t"), "--header")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("s,i,t\n1,a,10\n1,b\n2,a,30\n", "log:3: 2 fields where 3 are expected"),
        ("s,i,t\n1,a,10\n1\n2,a,30\n", "log:3: 1 field where 3 are expected"),
        ("s,i,t\n1,a,10,\n1,b,20,x\n2,a,30,\n", "log:3: 'x' is in no column of the header"),
        ("s,i,t\n1,a,10,x\n1,b,20,x\n", "log:2: 4 fields where 3 are expected"),
        ("s i t\n1 a 10\n1 b c 20\n", "log:3: 4 fields where 3 are expected"),
        ("s\ti\tt\n1\ta\t10\n1\tb\rc\t20\n2\ta\t30\n", "log:3: .* where 3 are expected"),
        ("s,i,t\n1,a,10\n\n\ufeffs,i,t\n2,a,30\n", "log:4: the header is here again"),
        ("s\ti\tt\n" + "\0" * 30 + "\n", "log is a binary file"),
        ("s,i,t\n", "log has a header but no events"),
        ('s,i,"t\n1,a,10\n', "log:1: the header has a quote that is not closed"),
        ("s,i,s\n1,a,10\n", "log:1: the header names column 's' twice"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, text: str, sentence: str
) -> None:
    log = written(tmp_path / "log", text)
    with pytest.raises(DataError, match=sentence):
        read(log)


def test_only_the_columns_that_are_read_must_be_utf8(tmp_path: Path) -> None:
    log = written(tmp_path / "log.csv", b"s,title,i,t\n1,caf\xe9,a,10\n1,b,\xe9,20\n")
    assert read(log, ["s", "t"]) == [("1", "10"), ("1", "20")]
    with pytest.raises(DataError, match=r"log\.csv:3: not UTF-8 text \(column 'i'\)"):
        read(log)


def test_bad_rows_are_left_out_when_asked_and_the_others_keep_their_lines(tmp_path: Path) -> None:
    text = b"s,i,t\n1,a,10\ntorn\n\n1,b,20,9\ns,i,t\n\xff\xff\n2,a,30\n3,c"
    log = written(tmp_path / "log.csv", text)
    table, place = read_columns([look_at(log)] * 2, ["s", "i", "t"], skip_bad_rows=True)
    rows = [tuple(row.values()) for row in table.to_pylist()]
    assert rows == [("1", "a", "10"), ("2", "a", "30")] * 2
    assert [row.line for row in place.skipped] == [3, 5, 6, 7, 9] * 2
    assert str(place.skipped[0]) == f"{log}:3: 1 field where 3 are expected"
    assert [place.line(row)[1] for row in range(4)] == [2, 8, 2, 8]
    assert place.files(4).tolist() == [0, 0, 1, 1]
    last = place.of(table.column("i").to_numpy() == "a").of([False, True, False, True])
    assert str(last.fail(1, "t", "is late")) == f"{log}:8: column 't': is late"


def test_rows_with_wrong_quotes_are_bad_rows(tmp_path: Path) -> None:
    text = 's,i,t\n1,"a ""b""",10\n1,"open,5\n2,"x\ny",30\n3,c,40\n540000,85012,"TO'
    log = written(tmp_path / "log.csv", text)
    table, place = read_columns([look_at(log)], ["s", "i", "t"], skip_bad_rows=True)
    rows = [tuple(row.values()) for row in table.to_pylist()]
    assert rows == [("1", 'a "b"', "10"), ("2", "x\ny", "30"), ("3", "c", "40")]
    assert [row.line for row in place.skipped] == [3, 7]
    assert [place.line(row)[1] for row in range(3)] == [2, 4, 6]
    with pytest.raises(DataError, match=r"log\.csv:3: a value begins .*--skip-bad-rows"):
        read(log)


# -- pipes ----------------------------------------------------------------------------------


def test_a_pipe_is_read_once_and_well(tmp_path: Path) -> None:
    """By process substitution, ``<(zcat …)``, a file is a pipe; looking at it must lose nothing."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("s,i,t\n1,a,10\n1,b,20\n2,a,30\n",))
    writer.start()
    assert read(pipe) == ROWS
    writer.join()
    with pytest.raises(DataError, match="pipe:4: column 't': is late"):
        raise read_columns([look_at(pipe)], ["t"])[1].fail(2, "t", "is late")


def test_a_device_is_no_file() -> None:
    with pytest.raises(DataError, match="/dev/zero is no regular file"):
        look_at(Path("/dev/zero"))
