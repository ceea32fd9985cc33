"""What of a command line everybody may see."""

from __future__ import annotations

import pytest

from paropt.cli._typed_secrets import without_secrets

SHOWN = "postgresql://me@db:5433/shop?sslmode=require"
TYPED = "postgresql://me:s%2Fe@db:5433/shop?sslmode=require"


@pytest.mark.parametrize("given", [["--storage", TYPED], [f"--storage={TYPED}"]])
def test_the_password_of_a_storage_goes_into_the_environment(given: list[str]) -> None:
    kept, secrets = without_secrets(["-v", "status", *given, "--json"], {})
    assert kept == ["-v", "status", "--storage", SHOWN, "--json"]
    assert secrets == {"PGPASSWORD": "s/e"}


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        (SHOWN, {}),
        ("mysql://me:secret@db/shop", {}),
        ("no url", {}),
        # whose password libpq takes before PGPASSWORD
        (f"{TYPED}&service=ours", {}),
        (TYPED, {"PGSERVICE": "ours"}),
    ],
)
def test_what_has_no_password_or_no_other_place_stays(
    url: str, environment: dict[str, str]
) -> None:
    words = ["status", "--storage", url]
    assert without_secrets(words, environment) == (words, {})


def test_addresses_of_messages_are_added_to_those_of_the_environment() -> None:
    words = [
        "launch",
        "--notify",
        "tgram://a",
        "--json",
        "--notify=tgram://b",
        "--notify-file",
        "x",
    ]
    kept, secrets = without_secrets(words, {"PAROPT_NOTIFY": "json://h"})
    assert kept == ["launch", "--json", "--notify-file", "x"]
    assert secrets == {"PAROPT_NOTIFY": "json://h\ntgram://a\ntgram://b"}


def test_a_place_of_vectors_and_a_token() -> None:
    place = "redis://:secret@h:6379/0"
    assert without_secrets(["embed", "m", "--to", place], {}) == (
        ["embed", "m"],
        {"PAROPT_REDIS_URL": place},
    )
    for words in (
        ["embed", "m", "--to", "redis://h:6379/0"],
        ["embed", "m", "--to", "u@home.npy"],
        ["embed", "m", "--to", place, "--to-file", "f"],  # refused, and it says so
    ):
        assert without_secrets(words, {}) == (words, {})
    assert without_secrets(["dashboard", "--token=word", "--port", "0"], {}) == (
        ["dashboard", "--port", "0"],
        {"PAROPT_DASHBOARD_TOKEN": "word"},
    )


def test_an_option_without_its_value_is_left_to_be_refused() -> None:
    assert without_secrets(["status", "--storage"], {}) == (["status", "--storage"], {})
