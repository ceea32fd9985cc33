"""What the report of a final test holds (docs/final.md), as far as paropt reads it again."""

from __future__ import annotations

from typing import Any

from paropt.storage.row_schema import (
    BOOL,
    FLOOR,
    FOUND,
    INT8,
    NAME,
    OBJECT,
    TEXT,
    Every,
    Members,
    RowSchema,
    Unless,
    number,
    optional,
    whole,
)

_NUMBER = optional(number())
_MEASURED = Members(
    {"mean": number(), "interval": Unless(None, Every(number()))},
    {"spread": _NUMBER, "values": Every(number())},
)
_METRICS = Every(_MEASURED, dict)
_CONFIGURATION: dict[str, RowSchema] = {
    "name": NAME,
    "model": NAME,
    "params": OBJECT,
    "epochs": whole(1),
    "found": FOUND,
    "source": TEXT,
}
_TESTED = Members({**_CONFIGURATION, "metrics": _METRICS, "threads": optional(whole())})
_TRAINED = Members(
    {
        **_CONFIGURATION,
        "epoch": whole(1),
        "mean": number(),
        "spread": _NUMBER,
        "curve": Every(_NUMBER),
        "flattered": _NUMBER,
    }
)
_FAILED = Members({**_CONFIGURATION, "failures": Every(TEXT)})
_COUNTS = Members(dict.fromkeys(("complete", "pruned", "failed"), whole()))
_BEST = Members(
    {
        "value": number(),
        "trial": whole(),
        "epoch": optional(whole(1)),
        "params": OBJECT,
        "model": NAME,
    }
)
_SEARCH = Members(
    {
        "split": TEXT,
        "seed": whole(0, INT8),
        "counts": _COUNTS,
        "best": Unless(None, _BEST),
        "floor": FLOOR,
        "points": Every(Members({"spent": number(), "value": _NUMBER, "best": _NUMBER})),
    }
)
_TEST = Members(
    {
        "split": TEXT,
        "chosen": _TESTED,
        "control": Unless(None, _TESTED),
        "difference": Unless(None, _METRICS),
        "baselines": Every(Members({"metrics": _METRICS}), dict),
        "intervals": Members(
            {
                "level": number(0, 1),
                "draws": whole(),
                "groups": whole(),
                "hashed": BOOL,
                "targets": whole(0, INT8),
            }
        ),
    }
)
_FLATTERY = Members({"search": number(), "fresh": _NUMBER, "flattered": _NUMBER, "seeds": whole()})
_REPORT = Members(
    {
        "study": TEXT,
        "final": whole(1),
        "metric": NAME,
        "fingerprint": NAME,
        "data": TEXT,
        "semantics": whole(),
        "versions": Every(TEXT, dict),
        "ties": TEXT,
        "at": Every(whole(1)),
        "devices": Every(TEXT),
        "search": _SEARCH,
        "seeds": Every(whole(0, INT8)),
        "entries": Every(Members({"failures": Every(TEXT)})),
        "chosen": TEXT,
        "flattery": _FLATTERY,
        "test": _TEST,
        "looks": Every(Members({"study": TEXT, "at": TEXT})),
        "again": BOOL,
    }
)


class _Report:
    """Members, and what they say of each other."""

    def fault(self, value: Any) -> str:
        if found := _REPORT.fault(value):
            return found
        for entry in value["entries"]:
            of = _FAILED if entry["failures"] else _TRAINED
            if found := of.fault(entry):
                return f".entries{found}"
        test, metric = value["test"], value["metric"]
        for role in ("chosen", "control"):
            if test[role] is not None and metric not in test[role]["metrics"]:
                return f".test.{role}.metrics has no {metric!r}"
        return ""


REPORT: RowSchema = _Report()
