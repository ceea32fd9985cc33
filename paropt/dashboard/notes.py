"""Notes in Markdown for the dashboard: of a study, and of a trial."""

from __future__ import annotations

from typing import Any

from paropt.names import baseline, begun_with
from paropt.results.pages.markdown import markdown
from paropt.results.pages.space_and_data import choice
from paropt.results.pages.study_page import study_page
from paropt.results.searched import Searched
from paropt.results.words import between, listed, number
from paropt.search.history.history import Record
from paropt.search.study.summary import judged
from paropt.search.study.trial import reached
from paropt.training.evaluation.objective import Objective
from paropt.training.metrics import OF_MODELS, written


def study_note(searched: Searched) -> str:
    """What ``paropt report`` says of the search, without its figures, which are plots here."""
    return markdown(study_page(searched))


def study_facts(searched: Searched) -> dict[str, str]:
    """What its definition holds, in words; the note has all of it."""
    return {
        "models": listed(searched.models),
        "searched for": f"{searched.metric}, {searched.evaluation}",
        **(
            {"constraints": ", ".join(searched.constraints["limits"])}
            if searched.constraints
            else {}
        ),
        **{f"floor: {baseline(name)}": number(v) for name, v in searched.floors.items()},
        "state": ": ".join(filter(None, (_state(searched), searched.why))),
        "trials": str(searched.budget) if searched.budget else "no limit",
        "data": searched.data,
        **({"begins with": begun_with(searched.begin)} if searched.begin else {}),
        "fingerprint": searched.fingerprint,
        "seed": str(searched.seed),
        "sampler": choice(searched.sampler),
        "pruner": choice(searched.pruner),
    }


def _state(searched: Searched) -> str:
    """As ``paropt status`` says it, as far as that does not need the slots."""
    counts, budget = searched.counts, searched.budget
    ended = counts.get("complete", 0) + counts.get("pruned", 0)
    open_ones = counts.get("running", 0) + counts.get("waiting", 0)
    if budget and ended >= budget and not open_ones:
        return "done"
    return {"pause": "paused", "stop": "stopped"}.get(searched.state, "not done")


def trial_note(record: Record, objective: Objective) -> str:
    """What one wants to know of a trial first, as a table of two columns."""
    metric, found = objective.metric, reached(record.reports, objective)
    found |= record.end.get("measures", {})
    owner = record.owner
    memory = found.get("peak_memory_mib")
    cells: dict[str, Any] = {
        metric: _rounded(found.get(metric) if record.value is None else record.value),
        **_stands_on(record, objective),
        **{name: _rounded(found[name]) for name in ("recall@20", "mrr@20") if name in found},
        "equal scores": found.get("tied", ""),
        "best epoch": f"{found['epoch']} of {found['epochs']} run" if "epoch" in found else "",
        "stage": found.get("stage", "") if found.get("stage") != "main" else "",
        "events/s": f"{found['events_per_second']:,.0f}" if "events_per_second" in found else "",
        "seconds per epoch": found.get("seconds_per_epoch", ""),
        "peak memory": f"{memory:,.0f} MiB" if memory is not None else "",
        **{name: written(name, found[name]) for name in OF_MODELS if name in found},
        "memory": found.get("memory", ""),
        "experts": found.get("experts", ""),
        "device": f"{owner.get('device', '')} on {owner.get('host', '')}" if owner else "",
        "attempt": record.meta["attempt"] if record.meta["attempt"] > 1 else "",
        "why it ended": _why(record),
    }
    rows = [f"| {name} | {_plain(value)} |" for name, value in cells.items() if value != ""]
    return "\n".join([f"| {_plain(record.meta['model'])} | |", "|---|---|", *rows, ""])


def _stands_on(record: Record, objective: Objective) -> dict[str, str]:
    """How sure its value is, and of how many targets it is."""
    found = judged(record.value, record.best_report, objective)
    told = {"95% interval": between(found["interval"])}
    if found["targets"] is not None:
        told["targets"] = f"{found['targets']:,}"
    if found["unknown"]:
        told["targets"] += f", and {found['unknown']:,} left out: training never saw their item"
    return told


def _why(record: Record) -> str:
    why, message = record.end.get("why", ""), record.end.get("message", "")
    return f"{why}: {message}" if message else str(why)


def _rounded(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else ""


def _plain(text: Any) -> str:
    """Without what Markdown would read: names and paths come from whoever made the study."""
    return "".join(c for c in str(text) if c not in "`<>|[]()*_\\\n\r")
