"""What kind of event it was, and which kind is wanted next: exposed, clicked, bought.

A column of events says it. It can be part of the input, a condition on what is asked for, and a
weight of what is learned from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.parts.contract import Facts, Needs, Param, SequenceBatch
from models.parts.rows import Rows, words_of
from models.parts.transformer.unpadding import Unpadding

NONE = "none"

ACTION_PARAMS: tuple[Param, ...] = (
    Param("action_column", "str", NONE,
          "the events' column that says what was done (action_type, say), or none", pattern=".+"),
    Param("action_input", "str", NONE, "how a position reads its event's action",
          choices=(NONE, "add")),
    Param("action_condition", "str", NONE,
          "how a prediction reads the action that is wanted of the next event, the target's own "
          "in an evaluation: scaling and shifting the state (FiLM)",
          choices=(NONE, "film"), source="arXiv 1709.07871"),
    Param("action_weights", "names", (),
          "weights of targets in the loss by their action, as exposure=0.1+click=1; others 1"),
)  # fmt: skip


def action_needs(params: Mapping[str, Any]) -> Needs:
    """The column, and whether batches carry it for targets."""
    column = params.get("action_column", NONE)
    asked, weighed = params.get("action_condition") == "film", params.get("action_weights")
    if column == NONE or not (asked or weighed or params.get("action_input") == "add"):
        return Needs()
    wanted = (column,) if asked or weighed else ()
    return Needs({column: ("category",)}, wanted, loss_only=() if asked else wanted)


def check_actions(params: Mapping[str, Any], facts: Facts | None) -> None:
    """Refuse what reads actions without a column, and weights of actions that there are not.

    Raises:
        ValueError: one clause.
    """
    column = params["action_column"]
    reads = [name for name in ("action_input", "action_condition") if params[name] != NONE]
    reads += ["action_weights"] if params["action_weights"] else []
    if column == NONE and reads:
        said = params[reads[0]]
        value = said if isinstance(said, str) else "+".join(said)
        raise ValueError(
            f"{reads[0]} {value} needs action_column, the name of the events' column that says "
            f"what was done; name it, or set {reads[0]} to none"
        )
    weights = action_weights(params)
    kept = facts.columns.get(column) if facts is not None else None
    if kept is None or kept.kind != "category":
        return  # what the data lack is refused by their needs
    if strangers := [name for name in weights if name not in kept.vocabulary]:
        known = ", ".join(list(kept.vocabulary)[:10])
        raise ValueError(
            f"action_weights has a weight for {strangers[0]!r}, which is no {column}; "
            f"there are {known}"
        )
    if kept.vocabulary and not any(weights.get(name, 1.0) for name in kept.vocabulary):
        raise ValueError(f"action_weights weighs every {column} 0, so nothing would be learned")


def action_weights(params: Mapping[str, Any]) -> dict[str, float]:
    """The weights by action.

    Raises:
        ValueError: one that is not of the form name=weight, or is below 0.
    """
    found = {}
    for entry in params.get("action_weights", ()):
        name, equals, text = entry.rpartition("=")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not (name and equals and 0 <= weight < math.inf):
            raise ValueError(
                f"action_weights {entry!r} is not of the form name=weight with a weight of at "
                "least 0, as in exposure=0.1+click=1"
            )
        if name in found:
            raise ValueError(f"action_weights has two weights for {name!r}")
        found[name] = weight
    return found


class Actions(nn.Module):
    """The parts of a model that read actions; each there only where it is asked for."""

    weights: Tensor | None

    def __init__(self, params: Mapping[str, Any], facts: Facts, dim: int) -> None:
        super().__init__()
        self.column = str(params.get("action_column", NONE))
        needs = action_needs(params)
        kept = facts.columns[self.column] if needs.columns else None
        size = kept.size + 1 if kept else 0  # the last row: unknown
        self.keys = words_of(range(kept.size), kept.vocabulary) if kept else []
        self.input = self.scale = self.shift = None
        if kept and params["action_input"] == "add":
            self.input = _Codes(size, dim, std=0.02)
        if kept and params["action_condition"] == "film":
            # begins as no condition
            self.scale, self.shift = _Codes(size, dim, std=0), _Codes(size, dim, std=0)
        weights = None
        if kept and (given := action_weights(params)):
            weights = torch.tensor([*(given.get(name, 1.0) for name in kept.vocabulary), 1.0])
        self.register_buffer("weights", weights, persistent=False)

    def keyed_rows(self) -> dict[str, Rows]:
        """Its weights, which have a row per action."""
        parts = {"input": self.input, "scale": self.scale, "shift": self.shift}
        return {f"{name}.weight": Rows(self.keys) for name, part in parts.items() if part}

    def add_input(self, h: Tensor, batch: SequenceBatch, layout: Unpadding) -> Tensor:
        """Tokens [T, d] with their own actions."""
        if self.input is None:
            return h
        added: Tensor = self.input(layout.pack(batch.columns[self.column]))
        return h + added

    def condition(self, h: Tensor, batch: SequenceBatch) -> Tensor:
        """States h [n_targets, d], given which action is wanted: h ⊙ (1 + γ) + β."""
        if self.scale is None or self.shift is None:
            return h
        wanted = batch.wanted[self.column][batch.targets >= 0]
        conditioned: Tensor = h * (1 + self.scale(wanted)) + self.shift(wanted)
        return conditioned

    def weigh(self, batch: SequenceBatch) -> Tensor | None:
        """The weight of each target's action [n_targets], or None where all count alike."""
        if self.weights is None:
            return None
        return self.weights[batch.wanted[self.column][batch.targets >= 0]]


class _Codes(nn.Embedding):
    """A vector per code; −1, unknown, is the last row."""

    def __init__(self, size: int, dim: int, std: float) -> None:
        super().__init__(size, dim)
        nn.init.normal_(self.weight, std=std) if std else nn.init.zeros_(self.weight)

    def forward(self, codes: Tensor) -> Tensor:
        return super().forward(torch.where(codes < 0, self.num_embeddings - 1, codes))
