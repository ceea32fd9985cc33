"""The rules by which a log becomes splits; all of them are in ``meta.json`` and its fingerprint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Protocol = Literal["time", "leave-one-out"]
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Rules:
    """How events are cleaned and split.

    Attributes:
        protocol: ``time``: the last sessions are tested on, at every event but their first.
            ``leave-one-out``: each sequence's last event is.
        session_gap_ms: a session (or a user's log) is cut where more than this passes.
        keep_repeats: keep an item that directly follows itself in a session.
        min_session: sessions with fewer events go.
        min_support: items with fewer events go.
        one_pass: sessions, items, sessions, done; otherwise repeated until nothing changes.
        test_days: days of the test part, and of the validation part before it.
        test_fraction: the share of sessions tested on, where a log has an order but no time.
        by_end: sessions are assigned whole, by their last event (RSC15); otherwise a session is
            tested on when it starts after the cut, and training sessions are truncated there.
        known_test_items: test events of items that training lacks go (RSC15).
        end_ms: events from this time on are left out, and days are counted back from it; from
            the last event when None.
    """

    protocol: Protocol = "time"
    session_gap_ms: int | None = None
    keep_repeats: bool = False
    min_session: int = 2
    min_support: int = 5
    one_pass: bool = False
    test_days: float = 1.0
    test_fraction: float = 0.1
    by_end: bool = False
    known_test_items: bool = False
    end_ms: int | None = None

    @property
    def test_ms(self) -> int:
        return round(self.test_days * DAY_MS)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


LEAVE_ONE_OUT = Rules(protocol="leave-one-out", keep_repeats=True, min_session=3, min_support=1)
