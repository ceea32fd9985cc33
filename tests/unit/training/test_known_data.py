"""What a saved model reads of new data: words and numbers as people write them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from paropt.data.events import Events as RawEvents
from paropt.data.log.sessions_file import Asked
from paropt.training.recommending.new_sessions import _unread
from paropt.training.saved_model.known_data import Knowledge, index_of, numbers


def test_words_are_found_with_blanks_around_them_and_whole_numbers_as_floats() -> None:
    words = ["7", "click", "7.5", "007"]
    values = pa.array([" click", "7.0", "7", "7.50", "007", "0.7", None, ""])
    assert index_of(values, words).tolist() == [1, 0, 0, -1, 3, -1, -1, -1]
    assert index_of(pa.array([7, 8]), words).tolist() == [0, -1]
    assert index_of(pa.array([7.0, 7.5]), words).tolist() == [0, 2]
    assert index_of(pa.array(["7.0"]), ["7", "7.0"]).tolist() == [1], "as written comes first"
    assert index_of(pa.array([" b", "b", None]), [" b"]).tolist() == [0, -1, -1], "as 0.1 kept it"


@pytest.mark.parametrize("words", [["False", "True"], ["false", "true"], ["0", "1"], ["no", "yes"]])
def test_true_is_true_however_it_is_written(words: list[str]) -> None:
    """A table of JSON lines has true, which is read as 1, where one of pandas had True."""
    values = pa.array(["true", " TRUE", "1", "1.0", "False", "0", "maybe", "", None])
    assert index_of(values, words).tolist() == [1, 1, 1, 1, 0, 0, -1, -1, -1]
    assert index_of(pa.array([True, False, None]), words).tolist() == [1, 0, -1]


def test_among_other_words_true_is_a_word() -> None:
    assert index_of(pa.array(["true", "1"]), ["1", "2", "False", "True"]).tolist() == [-1, 0]
    assert index_of(pa.array(["true", "false"]), ["True"]).tolist() == [0, -1]
    assert index_of(pa.array(["true", "1"]), ["True", "true"]).tolist() == [1, 0], (
        "as written first"
    )


def test_numbers_are_numbers_or_missing() -> None:
    found = numbers(pa.chunked_array([[" 1.5", "2", "12,5", None, "x", "1e3"]]))
    assert found.tolist() == pytest.approx([1.5, 2, np.nan, np.nan, np.nan, 1e3], nan_ok=True)


def test_a_column_of_which_no_value_is_known_is_said() -> None:
    table = pa.table({"act": ["one", "two"], "who": ["u", "v"], "price": ["1,5", "2"]})
    one, rows = np.zeros(2, np.int64), np.arange(2)
    asked = Asked(Path("live.csv"), ["s"], pa.array(["x"]), RawEvents(one, one, one, rows), table,
                  "s", "i", True)  # fmt: skip
    knowledge = Knowledge(sources={"action": "act", "price": "price"})
    unknown, some = np.full(2, -1, np.int32), np.array([np.nan, 2.0], np.float32)
    columns = {"action": unknown, "price": some}
    told, some_of_it = _unread(asked, knowledge, columns, np.array([0, -1], np.int32), "who")
    assert told == (
        "live.csv: the model knows no value of column 'act' (as 'one'), so it is unknown throughout"
    )
    assert some_of_it == (
        "live.csv: of 2 events with a 'price' 1 have one that the model doesn't know, as '1,5':"
        " there it is as good as missing"
    )
    nothing = replace(asked, table=pa.table({"act": ["", " "], "who": [None, "nan"]}))
    assert _unread(nothing, knowledge, {"action": unknown}, unknown, "who") == []
    (told,) = _unread(asked, knowledge, {}, unknown, "who")
    assert "no value of column 'who'" in told
