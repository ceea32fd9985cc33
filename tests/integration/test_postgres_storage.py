"""Opening storages: what answers, and what is said when nothing does."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from paropt.service.storage import open_storage


def test_fresh_database_answers(database_url: str) -> None:
    with open_storage(database_url) as storage, storage.engine().connect() as connection:
        assert connection.execute(text("SHOW timezone")).scalar_one() == "UTC"
        assert not storage.is_embedded


@pytest.mark.usefixtures("paropt_home")
def test_embedded_is_the_default() -> None:
    with open_storage() as storage:
        assert storage.is_embedded
        with storage.engine().connect() as connection:
            assert connection.execute(text("SELECT current_user")).scalar_one() == "paropt"
