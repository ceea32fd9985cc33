"""What a sentence proposes in place of a word that nobody knows, and how a program ends by it."""

from __future__ import annotations

import pytest

from paropt.errors import (
    EXIT_FAILURE,
    EXIT_USAGE,
    DataError,
    ParamError,
    UsageError,
    closest,
    did_you_mean,
)
from paropt.search.space.shipped import spaces


def test_the_first_part_of_names_says_which_are_meant() -> None:
    known = ["ur4rec", "gru4rec_xe", "gru4rec_bprmax"]
    hint = "did you mean 'gru4rec_xe' or 'gru4rec_bprmax'?"
    assert did_you_mean("gru4rec", known, "otherwise") == hint
    assert closest("gru4rec", iter(known)) == "gru4rec_xe"
    assert did_you_mean("gru", known[:2], "otherwise") == "did you mean 'gru4rec_xe'?"


def test_two_letters_or_many_names_are_no_hint() -> None:
    assert did_you_mean("gr", ["gru4rec_xe"], "otherwise") == "otherwise"
    many = [f"100{k}" for k in range(7)]
    assert did_you_mean("100", many, "otherwise") == "did you mean '1006'?"
    assert did_you_mean("xyz", many, "otherwise") == "otherwise"


def test_a_slip_is_met_by_the_word_that_is_most_like_it() -> None:
    assert did_you_mean("sesrec", ["sasrec", "hstu"], "otherwise") == "did you mean 'sasrec'?"


@pytest.mark.parametrize("model", ["gru4rec", "sasrec", "hstu"])
def test_a_model_named_in_place_of_a_space_leads_to_its_spaces(model: str) -> None:
    meant = closest(model, spaces())
    assert meant is not None and meant.startswith(model)


def test_a_word_that_means_nothing_is_a_slip_of_the_command_line() -> None:
    assert UsageError("").exit_code == ParamError("").exit_code == EXIT_USAGE == 2
    assert DataError("").exit_code == EXIT_FAILURE == 1
