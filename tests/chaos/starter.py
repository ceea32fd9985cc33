"""One of many workers that find an empty database at the same moment: makes the study or joins it,
then works on it. ``python starter.py DEFINITION.json BUDGET`` and the arguments of a slot."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from paropt.errors import StorageUnreachable
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.worker.slot import main

if __name__ == "__main__":
    definition = StudyDefinition.from_json(json.loads(Path(sys.argv[1]).read_text()))
    url = os.environ["PAROPT_STORAGE"]
    while True:
        try:
            Study.create(url, definition, budget=int(sys.argv[2])).close()
            break
        except StorageUnreachable:  # the database is under faults, too
            time.sleep(0.2)
    sys.exit(main(sys.argv[3:]))
