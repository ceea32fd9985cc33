"""Names that people give: which a study may have, how they are typed, which files they get."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt.errors import ParoptError
from paropt.files import file_stem, paramfile_name, readable, write_bytes
from paropt.names import allowed, check_name, command, quoted, shown

GOOD = ["shop", "my shop", "团购", "обзор", "दुकान", "a/b", "..", "don't", "🦊", "x" * 512]


@pytest.mark.parametrize("name", [*GOOD, "x" * 512])
def test_names_that_a_study_may_have(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty; give a name"),
        (" ", "empty; give a name"),
        ("x" * 600, "at most 512 characters, and this has 600"),
        ("团" * 513, "at most 512 characters, and this has 513"),
        ("a\nb", "cannot be shown"),
        ("a\0b", "cannot be shown"),
        ("a\x1b[2Jb", "cannot be shown"),
        ("\udcff", "cannot be shown"),
        ("a\u202eb", "cannot be shown"),
        (" a", "begins or ends with a blank"),
        ("a\u00a0", "begins or ends with a blank"),
        ("-a", "would be taken for an option"),
    ],
)
def test_names_that_a_study_may_not_have(name: str, why: str) -> None:
    assert not allowed(name)
    with pytest.raises(ParoptError, match=why):
        check_name(name)


def test_files_keep_letters_of_every_script() -> None:
    assert file_stem("shop-1.b_c") == "shop-1.b_c"
    assert file_stem("团购") == "团购"
    assert file_stem("दुकान") == "दुकान"
    assert paramfile_name("外卖", 1, 7) == "外卖_1_trial7.json"
    assert readable("my shop") == "my-shop"
    assert readable("🦊") == "study"


def test_what_a_file_cannot_be_called_after_gets_a_digest() -> None:
    odd = ["my shop", "my-shop", "my/shop", "🦊", "🐻", "..", ".", "-", "x" * 300, "x" * 301]
    stems = [file_stem(name) for name in odd]
    assert len(set(stems)) == len(odd)
    assert stems[0].startswith("my-shop-")
    assert len(stems[0]) == len("my-shop-") + 6


@given(st.text(max_size=600), st.text(max_size=600))
def test_every_name_gets_a_file_of_its_own(name: str, other: str) -> None:
    stem = file_stem(name)
    assert Path(stem).name == stem
    assert len(paramfile_name(name, 1000, 10**9).encode()) < 255
    assert not stem.startswith((".", "-"))
    if "-" not in name + other:  # one that ends in another's digest is no accident
        assert (stem == file_stem(other)) == (name == other)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_shell_reads_a_command_as_it_was_meant(word: str) -> None:
    assert shlex.split(command("export", word)) == ["paropt", "export", word]


def test_a_command_in_a_sentence() -> None:
    assert quoted("stop", "shop") == "'paropt stop shop'"
    assert quoted("stop", "my shop") == "`paropt stop 'my shop'`"


def test_text_of_others_moves_no_cursor() -> None:
    assert shown("a\x1b[2J\nb \udcff") == "a�[2J b �"


def test_files_are_there_whole_or_not(tmp_path: Path) -> None:
    path = tmp_path / "new" / f"{file_stem('团' * 400)}.json"
    write_bytes(path, b"1")
    with pytest.raises(ParoptError, match="exists; add --overwrite"):
        write_bytes(path, b"2")
    assert path.read_bytes() == b"1"
    write_bytes(path, b"2", overwrite=True)
    assert path.read_bytes() == b"2"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
