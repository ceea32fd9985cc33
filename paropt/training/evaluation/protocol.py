"""How next items are judged: which items are candidates, and where equal scores stand.

Two numbers can only be compared if they were got alike. Results of leave-one-out splits are mostly
published with the items of the history taken out of the candidates, those of session logs with all
items as candidates; a study that optimises the one says little of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Ties = Literal["standard", "conservative", "median"]
TIES: tuple[Ties, ...] = get_args(Ties)
SAMPLED = "sampled-100"
CANDIDATES = ("all", SAMPLED)


class Histories(Protocol):
    """What is read of a split: items and targets [events], and where sessions begin."""

    @property
    def items(self) -> NDArray[np.int32]: ...
    @property
    def targets(self) -> NDArray[np.bool_]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class EvaluationProtocol:
    """``filter_seen``: the items of a target's own history are no candidates, but for the target.
    ``ties``: a target stands before those of the same score ("standard"), after them
    ("conservative") or in their middle ("median"). ``candidates``: "all" items of training, or,
    in a legacy evaluation, the target and 99 that are drawn ("sampled-100")."""

    filter_seen: bool = False
    ties: Ties = "standard"
    candidates: str = "all"

    @classmethod
    def of_data(cls, protocol: str) -> EvaluationProtocol:
        """The usual one for data that was split by ``protocol``, "leave-one-out" or "time"."""
        return cls(filter_seen=protocol == "leave-one-out")

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> EvaluationProtocol:
        """Reads what :meth:`to_json` gave; what is not said is as paropt 0.1 did it."""
        known = ("filter_seen", "ties", "candidates")
        return cls(**{key: stored[key] for key in known if stored.get(key) is not None})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def asked(self, filter_seen: bool | None, ties: Ties | None) -> EvaluationProtocol:
        """This one, but for what somebody asked for."""
        return EvaluationProtocol(
            self.filter_seen if filter_seen is None else filter_seen, ties or self.ties
        )

    def caution(self, events: Histories, n_items: int) -> str:
        """What to say where targets are in their own history, which is filtered but for them: it
        flatters whoever remembers histories, and nobody who filters them recommends these. ""
        where none is, or nothing is filtered. Items from ``n_items`` on are unknown, not ranked."""
        import numpy as np  # here, as every verb imports this module

        if not self.filter_seen:
            return ""
        sessions = np.repeat(np.arange(len(events.offsets) - 1), np.diff(events.offsets))
        keys = sessions * (int(events.items.max(initial=0)) + 1) + events.items
        _, first = np.unique(keys, return_index=True)
        again = np.ones(len(keys), bool)
        again[first] = False
        ranked = events.targets & (events.items < n_items)
        wanted = ranked & (np.arange(len(keys)) > events.offsets[:-1][sessions])
        n_targets, repeated = int(wanted.sum()), int(np.count_nonzero(again & wanted))
        if not repeated:
            return ""
        return (
            f"{repeated:,} of {n_targets:,} targets are in their own history, which is filtered but"
            " for them: no recommendation without what was seen can be one of these;"
            " --no-filter-seen ranks all alike"
        )

    def words(self) -> str:
        """For people: ``history filtered, standard ties``."""
        seen = "history filtered" if self.filter_seen else "history not filtered"
        if self.candidates == SAMPLED:
            seen = "99 items drawn, " + ("none" if self.filter_seen else "some") + " of the history"
        return f"{seen}, {self.ties} ties"
