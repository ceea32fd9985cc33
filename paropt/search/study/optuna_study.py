"""A stored study as Optuna's own object, for those who analyse it with Optuna's tools."""

from __future__ import annotations

import optuna
from sqlalchemy.engine import URL

from paropt.storage.engine import open_rdb


def optuna_study(url: str | URL, name: str) -> optuna.Study:
    """The study, through Optuna's cached view of the same tables. To read: paropt's trials are
    told and asked by slots, which hold leases that Optuna knows nothing of.

    Raises:
        StorageUnreachable: no answer.
        StudyError: the tables are of another version of Optuna.
    """
    return optuna.load_study(study_name=name, storage=open_rdb(url))
