"""The rules by which a log becomes splits; all of them are in ``meta.json`` and its fingerprint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Protocol = Literal["time", "leave-one-out", "long-short"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
DAY_MS = 86_400_000
PART = "part"  # the column that says which part of a user's history an event is in


@dataclass(frozen=True)
class Rules:
    """How events are cleaned and split.

    Attributes:
        protocol: ``time``: the last sessions are tested on, at every event but their first.
            ``leave-one-out``: each sequence's last event is. ``long-short``: a user's history is a
            long part and the short one after it; some users are left out of training.
        session_gap_ms: a session (or a user's log) is cut where more than this passes.
        keep_repeats: keep an item that directly follows itself in a session.
        min_session: sessions with fewer events go.
        min_support: items with fewer events go.
        one_pass: sessions, items, sessions, done; otherwise repeated until nothing changes.
        test_days: days of the test part, and of the validation part before it.
        test_fraction: the share of sessions tested on, where a log has an order but no time; of
            users, in long-short.
        by_end: sessions are assigned whole, by their last event (RSC15); otherwise a session is
            tested on when it starts after the cut, and training sessions are truncated there.
        known_test_items: test events of items that training lacks go (RSC15).
        end_ms: events from this time on are left out, and days are counted back from it; from
            the last event when None.
        long_share: of long-short: the share of a user's events that the long part has.
        part_gap_ms: the short part begins at least this long after the long part's end; what
            happened between them goes.
        min_long, min_short: users with fewer events in a part go.
        max_long, max_short: only so many of a part stay, the latest; all when None.
        fold: which of the 1 / ``test_fraction`` parts of the users is tested on, from 0.
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
    long_share: float = 0.9
    part_gap_ms: int = 0
    min_long: int = 100
    min_short: int = 10
    max_long: int | None = None
    max_short: int | None = None
    fold: int = 0

    @property
    def test_ms(self) -> int:
        return round(self.test_days * DAY_MS)

    def as_json(self) -> dict[str, Any]:
        """As in ``meta.json``: what no rule of the protocol is about is left out, as fingerprints
        of datasets that were made before there was such a rule must stay what they are."""
        own = () if self.protocol == "long-short" else OF_LONG_SHORT
        return {name: value for name, value in asdict(self).items() if name not in own}


OF_LONG_SHORT = (
    "long_share",
    "part_gap_ms",
    "min_long",
    "min_short",
    "max_long",
    "max_short",
    "fold",
)
LEAVE_ONE_OUT = Rules(protocol="leave-one-out", keep_repeats=True, min_session=3, min_support=1)
LONG_SHORT = Rules(protocol="long-short", keep_repeats=True, min_support=1)
