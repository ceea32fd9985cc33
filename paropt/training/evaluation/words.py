"""What is said beside a number: how many targets it stands on, its interval, equal scores.

A value says little without them: one that rests on 62 targets, or on the sixth of the targets whose
items training has seen, is another number than it looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paropt.training.evaluation.objective import NOTICEABLE, Objective
from paropt.training.evaluation.protocol import SAMPLED

FEW = 1000  # targets: with fewer, the second digit is chance
Found = Mapping[str, Any]


def coverage(found: Found) -> str:
    """``1,932 of 11,087 targets ranked, of 536 sessions``; empty where nobody counted them."""
    targets, unknown, sessions = (found.get(key) for key in ("targets", "unknown", "sessions"))
    if targets is None:
        return ""
    if by_itself(found):
        over = f", over {sessions:,} sessions, users or items" if sessions else ""
        return f"the model judged itself{over}"
    of = f" of {targets + unknown:,}" if unknown else ""
    whose = f", of {sessions:,} sessions" if sessions else ""
    return f"{targets:,}{of} targets ranked{whose}"


def by_itself(found: Found) -> bool:
    """Whether nothing was ranked: what is ranked has a share of ties, if only 0."""
    return "tied" in found and found["tied"] is None and found.get("candidates") != SAMPLED


def value_words(found: Found, value: float | None) -> str:
    """``0.7499 [0.7312, 0.7686], 0.1307 with the left-out targets as misses``."""
    if value is None:
        return "-"
    text = f"{value:.4f}"
    if found.get("interval"):
        low, high = found["interval"]
        text += f" [{low:.4f}, {high:.4f}]"
    misses = found.get("with_misses")
    if misses is not None and found.get("unknown"):
        text += f", {misses:.4f} with the left-out targets as misses"
    return text


def experts(extra: Mapping[str, Any]) -> str:
    """How evenly experts work: ``experts 12–31 % busiest, 3 of 16 dead``; empty without any.

    Busiest: the share of the tokens that the busiest expert of a mixture gets, from the mixture
    where that is least to the one where it is most; an even share would be 100 % over the experts.
    Dead: with less than a tenth of that.
    """
    mixtures = [mixture for mixture in extra.get("experts") or () if mixture.get("load")]
    if not mixtures:
        return ""
    busiest = sorted(max(mixture["load"]) for mixture in mixtures)
    least, most = (f"{100 * share:.0f}" for share in (busiest[0], busiest[-1]))
    span = most if least == most else f"{least}–{most}"
    count = sum(len(mixture["load"]) for mixture in mixtures)
    dead = sum(int(mixture.get("dead", 0)) for mixture in mixtures)
    return f"experts: busiest {span} %, {dead} of {count} dead"


def cautions(found: Found, objective: Objective, *, ranked_by: str = "") -> list[str]:
    """Sentences about what a reader of the value must know; mostly none.

    ``ranked_by`` ends the one about equal scores: what follows from them.
    """
    targets, unknown, tied = found.get("targets"), found.get("unknown") or 0, found.get("tied")
    lines = []
    if by_itself(found):
        targets, units = None, found.get("sessions")
        if units is not None and units < FEW:
            lines.append(f"the model judged itself over {units:,} only: numbers are rough")
    if targets is not None and targets < unknown:
        lines.append(
            f"only {targets:,} of {targets + unknown:,} targets were ranked: training never saw "
            "the items of the others, or none before them"
        )
    if targets is not None and targets < FEW:
        lines.append(f"only {targets:,} targets were ranked, fewer than {FEW:,}: numbers are rough")
    worst = objective.of(found.get("conservative") or {})
    if tied is not None and tied > NOTICEABLE and worst is not None:
        lines.append(
            f"{tied:.1%} of the targets tie with another item; counted against them, "
            f"{objective.metric} is {worst:.4f}{ranked_by}"
        )
    given = found.get("given") or (found.get("extra") or {}).get("given")
    if given:
        lines.append(
            f"the model was told each target's own {' and '.join(given)}, as a request would say "
            "what is wanted; models that are not told have a harder task"
        )
    return lines
