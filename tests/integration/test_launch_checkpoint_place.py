"""Where checkpoints lie on a disk that machines share, however each of them spells the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from paropt.launch.launcher import _spec
from paropt.launch.opening.checkpoint_place import folders_on_disk
from paropt.launch.opening.open_study import OpenedStudy
from paropt.machine.slot_files import slots_directory
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.storage import study_rows
from paropt.storage.connect import open_storage

SPACE = {"model": "gru4rec", "search": {"layers": {"type": "int", "low": 8, "high": 32}}}


def made(url: str, name: str = "shop") -> None:
    definition = StudyDefinition(
        name, SPACE, "mrr@20", [20], "nowhere", "0" * 64, sampler={"name": "random"}
    )
    with open_storage(url) as storage:
        Study.create(storage.url, definition).close()


@contextmanager
def opened(url: str, name: str = "shop") -> Iterator[OpenedStudy]:
    with open_storage(url) as storage:
        study = Study.load(storage.url, name)
        yield OpenedStudy(storage, study, Path("nowhere"), True)
        study.close()


def spelt(url: str) -> str:
    """The same database, as another machine may call it."""
    assert "@127.0.0.1:" in url
    return url.replace("@127.0.0.1:", "@localhost:")


def test_machines_that_spell_the_database_differently_share_a_folder(
    database_url: str, paropt_home: Path, tmp_path: Path
) -> None:
    made(database_url)
    found = []
    for url in (database_url, spelt(database_url)):
        with opened(url) as machine:
            spec = _spec(machine, tmp_path, None)
            found.append((spec.checkpoints, spec.files, spec.earlier))
    (one, files, before), (two, others, _) = found
    assert one == two and one.parent == tmp_path and one.name.startswith("shop-")
    assert files != others and before is None  # what is of a machine stays so


def test_a_study_that_takes_anothers_name_has_a_folder_of_its_own(
    database_url: str, paropt_home: Path, tmp_path: Path
) -> None:
    found = []
    for _ in range(2):
        made(database_url)
        with opened(database_url) as machine:
            found.append(folders_on_disk(machine, tmp_path)[0])
            study = study_rows.trial_rows.find_study
            with machine.storage.engine().begin() as connection:
                number = study(connection, "shop")
                assert number is not None
                study_rows.delete(connection, number)
    assert len(set(found)) == 2


def test_what_an_earlier_version_left_is_looked_for(
    database_url: str, paropt_home: Path, tmp_path: Path
) -> None:
    made(database_url)
    with opened(database_url) as machine:
        name = slots_directory(paropt_home, machine.storage.describe(), "shop").name
        assert folders_on_disk(machine, tmp_path)[1] is None
        (tmp_path / name).mkdir()
        assert folders_on_disk(machine, tmp_path)[1] == tmp_path / name
        assert _spec(machine, tmp_path, None).earlier == tmp_path / name


def test_a_role_that_may_not_ask_for_the_servers_identity_shares_one_too(
    database_url: str, paropt_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(database_url)
    with opened(database_url) as machine:
        whole = folders_on_disk(machine, tmp_path)[0]
        monkeypatch.setattr(study_rows, "MAY_ASK", text("SELECT false"))
        part = folders_on_disk(machine, tmp_path)[0]
        assert part != whole and part == folders_on_disk(machine, tmp_path)[0]
