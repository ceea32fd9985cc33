"""What a server has done, in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SESSIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Values counted by upper bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str) -> Iterator[str]:
        """As Prometheus has them: each bound counts all below it."""
        below = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self.total:.9g}"
        yield f"{name}_count {below}"


class Metrics:
    """Counted in the event loop's thread only."""

    def __init__(self, model: Mapping[str, str]) -> None:
        self.model = model
        self.requests: Counter[int] = Counter()  # by status
        self.seconds = Histogram(SECONDS)
        self.batches = Histogram(SESSIONS)
        self.sessions: Counter[str] = Counter()  # by who answered: model or popularity
        self.unknown = 0
        self.waiting = 0

    def batched(self, sessions: int) -> None:
        self.batches.add(sessions)

    def answered(self, popular: bool, unknown: int) -> None:
        """A session was."""
        self.sessions["popularity" if popular else "model"] += 1
        self.unknown += unknown

    def requested(self, status: int, seconds: float) -> None:
        self.requests[status] += 1
        self.seconds.add(seconds)

    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in self.model.items())
        yield from _head("paropt_model_info", "gauge", "The model that is served.")
        yield f"paropt_model_info{{{labels}}} 1"
        yield from _head("paropt_requests_total", "counter", "Requests for items, by HTTP status.")
        for status, count in sorted(self.requests.items()):
            yield f'paropt_requests_total{{status="{status}"}} {count}'
        yield from _head("paropt_request_seconds", "histogram", "From the request to its answer.")
        yield from self.seconds.lines("paropt_request_seconds")
        yield from _head("paropt_sessions_total", "counter", "Sessions answered, and by what.")
        for by in ("model", "popularity"):
            yield f'paropt_sessions_total{{by="{by}"}} {self.sessions[by]}'
        yield from _head("paropt_unknown_items_total", "counter", "Events of unknown items.")
        yield f"paropt_unknown_items_total {self.unknown}"
        yield from _head("paropt_batch_sessions", "histogram", "Sessions answered together.")
        yield from self.batches.lines("paropt_batch_sessions")
        yield from _head("paropt_waiting_sessions", "gauge", "Sessions that wait.")
        yield f"paropt_waiting_sessions {self.waiting}"


def _head(name: str, kind: str, help: str) -> Iterator[str]:
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {kind}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
