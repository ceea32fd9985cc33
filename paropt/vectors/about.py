"""What a set of vectors is: what is kept beside it, and what decides whether two go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

What = Literal["users", "items"]
Encoding = Literal["float32", "json"]


@dataclass(frozen=True)
class About:
    """Attributes:

    what: whose vectors they are.
    model: the name of the model's kind.
    version: a digest of its weights.
    dimension: how many numbers a vector has.
    bias: the last of them is the item's bias, or what it is multiplied with.
    data: a digest of the events that they were made of; of items nothing.
    split: the split of a dataset, or None.
    want: what is wanted of the next event, where the model was told.
    count: how many they are.
    """

    what: What
    model: str
    version: str
    dimension: int
    bias: bool
    data: str
    split: str | None
    want: str
    count: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> dict[str, str]:
        """:meth:`to_json` in words: "" for None."""
        return {name: _text(value) for name, value in self.to_json().items()}

    def same_run(self, stored: Mapping[str, Any]) -> bool:
        """Whether what is stored was made of the same model and events, in the same order."""
        return all(_text(stored.get(name)) == text for name, text in self.to_text().items())

    def misfit(self, stored: Mapping[str, Any]) -> tuple[str, str] | None:
        """What is stored and what this is, where the two can't stand beside each other."""
        if (theirs := _text(stored.get("what"))) != self.what:
            return f"vectors of {theirs or 'something else'}", f"of {self.what}"
        if (theirs := _text(stored.get("dimension"))) != str(self.dimension):
            return f"vectors of {theirs or 'unknown'} dimensions", f"of {self.dimension}"
        if (theirs := _text(stored.get("version"))) != self.version:
            other = f"{_text(stored.get('model'))} {theirs[:12]}".strip() or "unknown"
            return f"vectors of another model ({other})", f"of {self.model} {self.version[:12]}"
        return None


def _text(value: Any) -> str:
    return "" if value is None else str(value)
