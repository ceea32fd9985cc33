"""``python -m paropt.storage.initialise``: make all tables, once, before anybody works.

Nobody has to: ``launch`` makes what is missing. It is for databases where the workers' role may
not make tables, and for a container that others wait for.
"""

from __future__ import annotations

import logging
import sys

from paropt.errors import ParoptError
from paropt.storage import engine as optuna_tables
from paropt.storage.connect import open_storage
from paropt.storage.schema import create_tables

PATIENCE = 120.0  # seconds for a database that is started together with us


def main() -> int:
    """Make the tables of the storage that the environment names; returns the exit code."""
    try:
        with open_storage(wait=PATIENCE) as storage:
            optuna_tables.initialise(storage.url)
            create_tables(storage.engine())
            logging.getLogger(__name__).info("the tables are there: %s", storage.describe())
    except ParoptError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
