"""``sslmode=verify-full``: the server is who its URL says, or nothing is sent to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text
from tls import Authority, TlsDoor

from paropt.errors import EXIT_STORAGE, StorageUnreachable
from paropt.storage.connect import open_storage

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def door(authority: Authority, postgres_server: Any) -> Iterator[TlsDoor]:
    door = TlsDoor(authority.certificate("localhost"), postgres_server.port)
    yield door
    door.close()


@pytest.fixture
def url(door: TlsDoor, database_url: str) -> Callable[..., str]:
    """The same database through the door, verified in full by default."""

    def verified(host: str = "localhost", **query: object) -> str:
        asked = {"sslmode": "verify-full", **{key: str(value) for key, value in query.items()}}
        url = make_url(database_url).set(host=host, port=door.port, query=asked)
        return url.render_as_string(hide_password=False)

    return verified


def test_a_verified_server_is_used(url: Callable[..., str], authority: Authority) -> None:
    with (
        open_storage(url(sslrootcert=authority.file)) as storage,
        storage.engine().connect() as connection,
    ):
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_what_cannot_be_verified_is_refused_in_a_sentence(
    url: Callable[..., str], authority: Authority, tmp_path: Path, database_url: str
) -> None:
    other = Authority(tmp_path / "theirs").file
    plain = make_url(database_url).set(query={"sslmode": "require"})
    for asked, why in (
        (url("127.0.0.1", sslrootcert=authority.file), "not for the host '127.0.0.1'"),
        (url(sslrootcert=other), "not one of the certificate authority"),
        (url(sslrootcert=tmp_path / "none.pem"), "name it with &sslrootcert=FILE"),
        (plain.render_as_string(hide_password=False), "does not speak TLS"),
    ):
        with pytest.raises(StorageUnreachable, match=why) as caught:
            open_storage(asked)
        assert caught.value.exit_code == EXIT_STORAGE
        assert str(make_url(asked).password) not in str(caught.value)
