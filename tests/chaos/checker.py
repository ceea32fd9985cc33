"""Reads what a run of the fault suite left behind and says which promise was broken.

It imports nothing of paropt: what it knows is in evidence.py. The promises are those of
docs/reliability.md.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from evidence import Evidence, Trial, collect

ENDED = ("COMPLETE", "PRUNED", "FAIL")
STORE_SECONDS = 10.0  # after the end of a trouble of the object store: clients wait and try again
ATTEMPTS = 3  # of a configuration before it counts as failed
# what one trial in thirty does; tests/chaos/trainer.py has the same
ACTS = {0: "oom", 1: "nan", 2: "crash", 3: "oom-once", 4: "hang"}


@dataclass
class Verdict:
    """Broken promises by number, and what the table shows."""

    broken: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    figures: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def say(self, kind: str, message: str) -> None:
        self.broken[kind].append(message)

    def table(self) -> str:
        rows = [(name, str(count)) for name, count in sorted(self.faults.items())]
        rows += [("faults in all", str(sum(self.faults.values())))]
        rows += [("", "")]
        rows += [(name, str(value)) for name, value in self.figures.items()]
        rows += [(kind, str(len(self.broken.get(kind, [])))) for kind in KINDS]
        text = [f"{name:50}{value:>12}" for name, value in rows]
        for kind, messages in self.broken.items():
            text += [f"BROKEN {kind}: {message}" for message in messages[:10]]
        return "\n".join(text)


KINDS = (
    "lost",
    "doubled",
    "stuck",
    "fenced writes",
    "wrong",
    "late",
    "repeated",
    "leaked",
    "surprise",
)


def check(run: Path, connection: Any, verdict: Verdict, *, secret: str) -> None:
    """Everything that was promised, held against everything that is known of one study."""
    manifest = json.loads((run / "manifest.json").read_text())
    evidence = collect(run, manifest, connection)
    hits = [d["fault"] for d in evidence.diary if d["what"] == "fault"]
    verdict.faults.update(name for name in hits if not name.endswith(" ends"))
    _check_counts(evidence, verdict)
    if "reference" in manifest:
        _check_reference(evidence, verdict)
    else:
        _check_values(evidence, verdict)
    _check_acknowledged(evidence, verdict)
    _check_fences(evidence, verdict)
    _check_exits(evidence, verdict)
    if evidence.audit:
        _check_take_overs(evidence, verdict)
    _check_repeated(evidence, verdict)
    _check_leftovers(evidence, verdict)
    _check_logs(manifest, connection, secret, verdict)


# -- 1: nothing lost, nothing doubled, nothing left -------------------------------------------


def _check_counts(evidence: Evidence, verdict: Verdict) -> None:
    wanted = evidence.manifest["trials"]
    finished = [trial for trial in evidence.trials if trial.finished]
    if len(finished) < wanted:
        verdict.say("lost", f"{len(finished)} finished trials instead of {wanted}")
    if len(finished) > wanted:
        verdict.say("doubled", f"{len(finished)} finished trials instead of {wanted}")
    same = Counter(_params(trial) for trial in finished)
    for params, count in same.items():
        if count > 1:
            verdict.say("doubled", f"{count} finished trials with {params}")
    for root, attempts in evidence.lineages().items():
        if sum(trial.finished for trial in attempts) > 1:
            verdict.say("doubled", f"configuration {root} finished more than once")
        for trial in attempts:
            if trial.state not in ENDED:
                verdict.say("stuck", f"trial {trial.number} is {trial.state}")
        if len(attempts) > ATTEMPTS:
            verdict.say("wrong", f"configuration {root} had {len(attempts)} attempts")
        for trial, following in pairwise(attempts):
            if trial.end.get("why") != "lost" or trial.end.get("next") != following.number:
                verdict.say("wrong", f"trial {following.number} follows an end: {trial.end}")
    for lease in set(evidence.leases) & {t.id for t in evidence.trials if t.state not in ENDED}:
        verdict.say("stuck", f"a lease on trial with id {lease}")
    numbers = [trial.number for trial in evidence.trials]
    if numbers != list(range(len(numbers))):
        verdict.say("wrong", "numbers of trials are not 0, 1, 2, …")
    verdict.figures["trials finished"] += len(finished)
    verdict.figures["attempts"] += len(evidence.trials)
    given_up = sum(trial.end.get("why") == "given up" for trial in evidence.trials)
    verdict.figures[f"configurations given up after {ATTEMPTS} attempts"] += given_up


def act(x: float) -> str:
    return ACTS.get(int(x * 1e6) % 30, "fine")


def _check_values(evidence: Evidence, verdict: Verdict) -> None:
    """Every trial ended as its parameters say that it must, with exactly these numbers."""
    epochs = evidence.manifest["epochs"]
    for trial in evidence.trials:
        curve = {epoch: trial.x * epoch / epochs for epoch in range(1, epochs + 1)}
        stray = {e: v for e, v in trial.curve.items() if curve.get(e) != v}
        if stray:
            verdict.say("wrong", f"trial {trial.number} reports {stray} and not {curve}")
        if trial.finished and (trial.value, trial.curve) != (curve[epochs], curve):
            verdict.say(
                "wrong", f"trial {trial.number} is {trial.value} {trial.curve}, not {curve}"
            )
    for root, attempts in evidence.lineages().items():
        last = attempts[-1]
        wanted = {"oom": ["oom"], "nan": ["diverged"]}.get(act(last.x), ["complete"])
        why = last.end.get("why")
        if why not in [*wanted, "given up"]:
            verdict.say("wrong", f"configuration {root} ({act(last.x)}) ended {last.end}")
        if why in ("oom", "diverged") and (last.state, last.value) != ("PRUNED", None):
            verdict.say("wrong", f"configuration {root} {why} is {last.state} {last.value}")
        if why == "given up" and len(attempts) != ATTEMPTS:
            verdict.say("wrong", f"configuration {root} was given up after {len(attempts)}")


def _check_reference(evidence: Evidence, verdict: Verdict) -> None:
    """Every configuration has the numbers, bit for bit, that it has in the study without faults."""
    calm = {_params(trial): (trial.value, trial.curve) for trial in evidence.reference}
    stormy = {_params(t): (t.value, t.curve) for t in evidence.trials if t.finished}
    if calm.keys() != stormy.keys():
        verdict.say("wrong", f"other configurations: {calm.keys() ^ stormy.keys()}")
    for params in calm.keys() & stormy.keys():
        if calm[params] != stormy[params]:
            verdict.say("wrong", f"{params}: {stormy[params]} instead of {calm[params]}")
    if not any(record.get("resumed_epoch") for record in evidence.records):
        verdict.say("surprise", "no real training went on from a checkpoint")
    verdict.figures["real trainings equal to undisturbed ones"] += len(calm)


def _params(trial: Trial) -> str:
    return json.dumps(trial.meta["params"], sort_keys=True)


# -- 1 and 4: what a slot was told was saved --------------------------------------------------


def _check_acknowledged(evidence: Evidence, verdict: Verdict) -> None:
    by_number = {trial.number: trial for trial in evidence.trials}
    last_of = {root: attempts[-1] for root, attempts in evidence.lineages().items()}
    saved = settled = 0
    for record in evidence.records:
        trial = by_number.get(record.get("trial", -1))
        if trial is None:
            if "trial" in record:
                verdict.say("lost", f"trial {record['trial']}, which {record['host']} had")
            continue
        if record["event"] == "saved":
            saved += 1
            # an attempt from zero after this one drops what it will report again
            for holder in {trial.number: trial, -1: last_of[trial.root]}.values():
                kept = holder.curve.get(record["epoch"])
                if kept != record["value"] and (holder.finished or kept is not None):
                    verdict.say(
                        "lost",
                        f"epoch {record['epoch']} of trial {trial.number}, saved as "
                        f"{record['value']}, is {kept} in trial {holder.number}",
                    )
        if record["event"] in ("done", "pruned", "failed"):
            settled += 1
            state = {"done": ["COMPLETE"], "pruned": ["PRUNED"], "failed": ["FAIL", "PRUNED"]}
            if trial.state not in state[record["event"]]:
                verdict.say("lost", f"trial {trial.number}: {record['event']}, now {trial.state}")
    verdict.figures["writes that slots were told were saved"] += saved + settled


# -- 3: who lost a trial writes nothing -------------------------------------------------------


def _check_fences(evidence: Evidence, verdict: Verdict) -> None:
    ended: dict[int, int] = {}  # trial -> the transaction that ended it
    for _, tx, what, trial, said in evidence.audit:
        if what in ("beat", "lease"):
            continue
        if trial in ended and tx != ended[trial]:
            verdict.say("fenced writes", f"{what} of trial id {trial} ({said}) after its end")
        if what == "trials" and said in ENDED:
            ended.setdefault(trial, tx)
    lost = [record for record in evidence.records if record["event"] == "lost"]
    verdict.figures["slots that came back and let go"] += len(lost)
    for trial in evidence.trials:
        if trial.end.get("why") in ("lost", "given up"):
            _check_late_answers(trial, evidence, verdict)


def _check_late_answers(trial: Trial, evidence: Evidence, verdict: Verdict) -> None:
    """What an owner was told after its trial had been taken away.

    The answer to an earlier write may come late: the owner was frozen, or cut off, in between. Then
    the value is in the row, which nobody wrote to after the end (that is checked above).
    """
    for record in evidence.records:
        if record.get("trial") != trial.number or record["time"] <= trial.ended + 1:
            continue
        if record["event"] in ("done", "pruned", "failed"):
            verdict.say("fenced writes", f"trial {trial.number} was taken away: {record}")
        if record["event"] == "saved":
            verdict.figures["  answers that came after the trial was taken away"] += 1
            if trial.curve.get(record["epoch"]) != record["value"]:
                verdict.say("fenced writes", f"trial {trial.number} was taken away: {record}")


# -- how processes ended ----------------------------------------------------------------------


def _check_exits(evidence: Evidence, verdict: Verdict) -> None:
    killed = {
        entry["pid"]
        for entry in evidence.diary
        if entry.get("fault", "").startswith(("kill slot", "power loss"))
    }
    codes: Counter[str] = Counter()
    for entry in evidence.diary:
        if entry["what"] in ("surprise", "leak"):
            verdict.say({"leak": "leaked"}.get(entry["what"], "surprise"), entry["message"])
        if entry["what"] != "exit":
            continue
        codes[f"{entry['code']}"] += 1
        if entry["code"] not in (0, 3) and not (entry["code"] == -9 and entry["pid"] in killed):
            verdict.say("surprise", f"a slot ended with {entry}")
    verdict.figures["slot processes"] += sum(codes.values())
    for code in ("0", "3", "-9"):
        verdict.figures[f"  that ended with {code}"] += codes[code]


# -- 2: take-overs ----------------------------------------------------------------------------


def _check_take_overs(evidence: Evidence, verdict: Verdict) -> None:
    """From the fault to the moment at which another slot might begin.

    Where the database was away for everybody in between, or the machine too busy to let the witness
    beat in time, time counts from the end of that: nobody may be judged by what could not be said.
    """
    heartbeat = evidence.manifest["heartbeat"]
    late = _late_beats(evidence)
    plain: list[float] = [0.0]
    after: list[float] = [0.0]
    for trial in evidence.trials:
        if trial.end.get("why") not in ("lost", "given up"):
            continue
        if not trial.end["message"].startswith("its worker was lost"):
            continue
        begin = _fault_of(trial, evidence.diary)
        if begin is None and _fell_silent(trial, evidence):
            verdict.figures["  from slots that this machine did not let beat"] += 1
            continue
        if begin is None:
            verdict.say("wrong", f"trial {trial.number} was taken from nobody's fault: {trial.end}")
            continue
        calm = _calm_since(evidence, begin, trial.ended)
        calm = max([calm or 0.0, *(at for at in late if begin < at < trial.ended)]) or None
        taken = trial.ended - (calm or begin)
        (after if calm else plain).append(taken)
        allowed = (2.5 if calm else 2) * heartbeat
        if taken > allowed:
            verdict.say("late", f"trial {trial.number}: {taken:.1f} s, {trial.end['message']}")
    verdict.figures["trials taken over"] = len(plain) + len(after) - 2
    verdict.figures["longest take-over, s"] = round(max(plain), 2)
    verdict.figures["  promised: two heartbeats, s"] = 2 * heartbeat
    verdict.figures["longest after an outage for all, s"] = round(max(after), 2)
    verdict.figures["  promised: two and a half, s"] = 2.5 * heartbeat
    verdict.figures["beats that this machine was late with"] = len(late)


def _fault_of(trial: Trial, diary: list[dict[str, Any]]) -> float | None:
    """When the owner was last hit by something that keeps it from beating, or ended."""
    host, pid = trial.owner.get("host"), trial.owner.get("pid")
    times = [
        entry["time"]
        for entry in diary
        # the driver notices the end of a process a little later
        if entry["time"] <= trial.ended + (1.0 if entry["what"] == "exit" else 0.05)
        and entry.get("host") == host
        # of a kill the fault itself counts
        and (
            (entry["what"] == "exit" and entry["code"] != -9)
            or (entry["what"] == "fault" and "ends" not in entry["fault"])
        )
        and entry.get("fault") not in ("two at once", "full disk")
        and entry.get("pid", pid) == pid
    ]
    exits = [
        e["time"] for e in diary if e["what"] == "exit" and e["pid"] == pid and e["code"] == -9
    ]
    # the driver notices an end a little after the fault that made it
    times = [time for time in times if time not in exits]
    return max(times, default=None)


def _fell_silent(trial: Trial, evidence: Evidence) -> bool:
    """Whether the owner, which nobody hit, did not beat for the whole grace period all the same."""
    mine = f"{trial.owner.get('host')}/{trial.owner.get('id')}"
    beats = [
        at
        for at, _, what, _, said in evidence.audit
        if what == "beat" and said == mine and at < trial.ended
    ]
    return not beats or trial.ended - beats[-1] > 1.4 * evidence.manifest["heartbeat"]


def _calm_since(evidence: Evidence, begin: float, end: float) -> float | None:
    """When the last disturbance for everybody between two times was over."""
    found, since, open_ones = None, 0.0, 0
    for entry in evidence.diary:
        if entry["what"] == "disturbed":
            since = since if open_ones else entry["time"]
            open_ones += 1
        if entry["what"] == "calm":
            open_ones -= 1
            # who has watched for less than two periods since then does not judge yet
            settled = entry["time"] + 2 * evidence.manifest["heartbeat"]
            if not open_ones and since < end and settled > begin:
                found = entry["time"]
    return max(found, begin) if found is not None else None


def _late_beats(evidence: Evidence) -> list[float]:
    """When the witness, which nobody harms, beat so late that its watch over others began anew."""
    gap = evidence.manifest["heartbeat"] / 2
    beats = [
        at
        for at, _, what, _, said in evidence.audit
        if what == "beat" and said.startswith(f"{evidence.manifest['witness']}/")
    ]
    return [after for before, after in pairwise(beats) if after - before > gap]


# -- 2: work repeated -------------------------------------------------------------------------


def _check_repeated(evidence: Evidence, verdict: Verdict) -> None:
    """An epoch is trained again only where a checkpoint could not be there, and that is said."""
    distinct = {(root, epoch) for _, root, _, epoch in evidence.trained}
    repeated = len(evidence.trained) - len(distinct)
    starts: dict[int, list[dict[str, Any]]] = defaultdict(list)
    root_of = {trial.number: trial.root for trial in evidence.trials}
    for record in evidence.records:
        if record["event"] == "started" and record["trial"] in root_of:
            starts[root_of[record["trial"]]].append(record)
    zeros, resumed, allowed, elsewhere = 0, 0, 0, 0
    for root, of_root in starts.items():
        # an owner that was stopped may begin a trial long after it was given to the next one
        of_root.sort(key=lambda record: (record["trial"], record["time"]))
        for before, record in pairwise(of_root):
            zeros += record["resumed_epoch"] is None
            resumed += record["resumed_epoch"] is not None
            elsewhere += record["resumed_epoch"] is not None and before["host"] != record["host"]
            allowed += evidence.manifest["epochs"]
            if record["resumed_epoch"] is None and _had_checkpoint(evidence, root, before, record):
                verdict.say("repeated", f"configuration {root} from zero without need: {record}")
            trained = any(
                r["event"] == "saved"
                and before["time"] <= r["time"] <= record["time"]
                and r["trial"] == before["trial"]
                for r in evidence.records
            )
            if record["resumed_epoch"] is None and trained and not record["why_from_zero"]:
                said = f"configuration {root} from zero, not saying why: {record} after {before}"
                verdict.say("repeated", said)
    if evidence.manifest.get("store") is not None and not elsewhere:
        verdict.say("repeated", "no trial went on from another host's checkpoint")
    if repeated > allowed:
        verdict.say("repeated", f"{repeated} epochs, and {allowed} would be the most")
    verdict.figures["fits that went on from a checkpoint"] += resumed
    verdict.figures["of these, on another host than before"] += elsewhere
    verdict.figures["fits from zero again (other host, bad disk)"] += zeros
    verdict.figures["epochs trained"] += len(evidence.trained)
    verdict.figures["epochs trained more than once"] += repeated


def _had_checkpoint(
    evidence: Evidence, root: int, before: dict[str, Any], record: dict[str, Any]
) -> bool:
    """Whether the fit before was here, trained an epoch and could write."""
    host = record["host"]
    if before["host"] != host and evidence.manifest.get("store") is None:
        return False
    hosts = (host, before["host"])
    damaged = any(
        entry["time"] < record["time"]
        and ((entry.get("disk") and entry["host"] in hosts) or _troubled(entry, before))
        for entry in evidence.diary
    )
    told = [
        r
        for r in evidence.records
        if r["event"] == "saved"
        and r["trial"] == before["trial"]
        and r["epoch"] >= 2
        and before["time"] <= r["time"] <= record["time"]
    ]
    return bool(told) and not damaged


def _troubled(entry: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether the store may have been in trouble since the fit before began."""
    return bool(entry.get("store")) and entry["time"] >= before["time"] - STORE_SECONDS


# -- 7 and hostile input: nothing is left lying about -----------------------------------------


def _check_leftovers(evidence: Evidence, verdict: Verdict) -> None:
    for name in evidence.manifest.get("store") or []:
        verdict.say("stuck", f"the object {name}")
    for host in evidence.manifest["hosts"]:
        for path in sorted(Path(host["directory"]).glob("checkpoints/**/*")):
            if path.suffix in (".ckpt", ".json") or path.name.startswith("."):
                verdict.say("stuck", f"the checkpoint {path}")


def _check_logs(manifest: dict[str, Any], connection: Any, secret: str, verdict: Verdict) -> None:
    for host in manifest["hosts"]:
        for path in Path(host["directory"]).rglob("*"):
            if not path.is_file() or "postgres" in path.parts:
                continue
            text = path.read_text(errors="replace")
            if secret in text:
                verdict.say("leaked", f"the password is in {path}")
            if "Traceback" in text:
                at = text.index("Traceback")
                verdict.say("surprise", f"{path} has a traceback: {text[at : at + 1500]}")
    cursor = connection.cursor()
    for table in (
        "study_user_attributes",
        "study_system_attributes",
        "trial_user_attributes",
        "trial_system_attributes",
        "paropt_slot",
    ):
        cursor.execute(f"SELECT count(*) FROM {table} t WHERE t::text LIKE %s", (f"%{secret}%",))
        if cursor.fetchone()[0]:
            verdict.say("leaked", f"the password is in the table {table}")
