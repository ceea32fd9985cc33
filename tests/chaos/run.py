"""The fault suite: ``python tests/chaos/run.py [--short]``, or ``make chaos``.

Real slots on several hosts search real studies in a real PostgreSQL while a seeded driver kills,
stops, cuts off and fills up; then checker.py, which knows nothing of paropt, reads the database and
the slots' own records, and this program prints one table. It ends with 1 if a promise was broken.

The seed decides which faults come in which order; when exactly they hit is up to the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import checker
import psycopg2
from burst import Burst
from hosts import Server
from main import FULL, SHORT, STORE, Main, Size
from real import Real
from tampering import unseen

# what shows that the checker sees a broken promise
MUTATIONS = {
    "no fencing": Size(
        3, 1, hosts=2, slots=2, epochs=8, epoch_seconds=0.8, heartbeat=1.5, only=("stop_slot_long",)
    ),
    "forgetful": Size(
        2, 1, hosts=2, slots=1, epochs=4, epoch_seconds=0.2, heartbeat=1.5, only=("kill_trainer",)
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="half a minute, without real trainings"
    )
    parser.add_argument(
        "--store", action="store_true", help="checkpoints in an object store (the extra remote)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutation", choices=MUTATIONS, help="a promise to break")
    parser.add_argument("--keep", action="store_true", help="leave the records where they are")
    options = parser.parse_args()
    # whoever ends this ends its slots, servers and mounts as well
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    run = Path(tempfile.mkdtemp(prefix="paropt-chaos-", dir="/tmp"))
    run.chmod(0o711)
    server = Server()
    with contextlib.ExitStack() as leftovers:
        if options.keep:
            leftovers.callback(print, f"records in {run}")
        else:
            leftovers.callback(shutil.rmtree, run, ignore_errors=True)
        leftovers.callback(server.remove)
        parts = _parts(run, server, options)
        for part in parts:
            leftovers.callback(part.clean)
        began = time.monotonic()
        verdict = _play(parts)
        print(verdict.table())
        print(f"{'seconds':50}{time.monotonic() - began:>12.0f}")
        return 1 if verdict.broken else 0


def _parts(run: Path, server: Server, options: argparse.Namespace) -> list[Any]:
    seed, short = options.seed, options.short
    if options.mutation:
        return [Main(run, server, MUTATIONS[options.mutation], seed, options.mutation)]
    if options.store:
        return [Main(run, server, STORE if short else replace(STORE, trials=200, faults=150), seed)]
    if short:  # a real training under kills is half of the work
        return [Burst(run, server, 6, seed), Main(run, server, SHORT, seed)]
    return [Burst(run, server, 50, seed), Main(run, server, FULL, seed), Real(run, 10, 12, seed)]


def _play(parts: list[Any]) -> checker.Verdict:
    """All beside each other; then they are judged."""
    verdict = checker.Verdict()
    threads = [threading.Thread(target=_play_one, args=(part,), daemon=True) for part in parts]
    with contextlib.ExitStack() as ends:
        for part, thread in zip(parts, threads, strict=True):
            ends.callback(part.close)
            thread.start()
        for thread in threads:
            thread.join()
    for part in parts:
        (part.run / "manifest.json").write_text(json.dumps(part.manifest()))
        _judge(part, verdict)
    return verdict


def _play_one(part: Any) -> None:
    try:
        part.play()
    except Exception as error:
        part.diary.note("surprise", message=f"the suite itself failed: {error!r}")
        traceback.print_exc()


def _keep_tables(run: Path, connection: Any) -> None:
    """What --keep leaves to look into, after the server has gone."""
    cursor = connection.cursor()
    for table in ("trials", "trial_system_attributes", "trial_intermediate_values", "chaos_audit"):
        cursor.execute("SELECT to_regclass(%s)", (table,))
        if cursor.fetchone()[0]:
            with (run / f"{table}.csv").open("w") as file:
                cursor.copy_expert(f"COPY {table} TO STDOUT WITH CSV HEADER", file)


def _judge(part: Any, verdict: checker.Verdict) -> None:
    connection = psycopg2.connect(part.url)
    try:
        _keep_tables(part.run, connection)
        checker.check(part.run, connection, verdict, secret=part.secret)
        if isinstance(part, Main) and not verdict.broken:
            for name in unseen(part.run, connection, part.secret):
                verdict.say("surprise", f"the checker does not see {name}")
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
