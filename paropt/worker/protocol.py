"""JSON lines between a slot and its trainer; docs/architecture.md lists the messages."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

Message = dict[str, Any]


def encode(message: Mapping[str, Any]) -> bytes:
    """One line. What isn't finite becomes null, because JSON has no word for it."""
    text = json.dumps(_plain(message), allow_nan=False, separators=(",", ":"))
    return text.encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class LineReader:
    """Puts the chunks that a pipe gives together to messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The messages that ``chunk`` completes; what isn't one is passed over."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in whole:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict):
                yield message
