"""Training one configuration, and what a saved model is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from paropt.api.data import as_files, say
from paropt.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from paropt.data import Dataset
    from paropt.data.log.sessions_file import Asked
    from paropt.training.recommending.new_sessions import Sessions
    from paropt.training.run_result import RunResult
    from paropt.training.saved_model.saved import SavedModel

Listed: TypeAlias = "Sequence[Sequence[str]] | Mapping[str, Sequence[str]]"
Asking: TypeAlias = "pd.DataFrame | str | Path | Listed"


@dataclass(frozen=True)
class Vectors:
    """``values[i]`` [d] is the vector of ``ids[i]``; ``values`` is float32 [n, d]."""

    ids: list[str]
    values: NDArray[np.float32]


class Recommender:
    """A model that ``paropt train --save`` or :func:`train` wrote.

    Sessions are given as a data frame or file that is read as the model's own log was, as lists of
    item ids in the order of their events, or as such lists by the sessions' names.
    """

    def __init__(self, saved: SavedModel, directory: Path) -> None:
        self._saved, self.directory = saved, directory

    def __repr__(self) -> str:
        return f"<{self.name} of {self._saved.n_items:,} items in {self.directory}>"

    @property
    def name(self) -> str:
        """The model's: ``gru4rec``, say."""
        return str(self._saved.meta["model"])

    @property
    def params(self) -> dict[str, Any]:
        return dict(self._saved.meta["params"])

    @property
    def metrics(self) -> dict[str, float]:
        """As it was judged when it was saved."""
        return dict(self._saved.meta["metrics"])

    @property
    def item_ids(self) -> list[str]:
        """The items that it knows."""
        found: list[str] = self._saved.item_ids.tolist()
        return found

    def recommend(
        self,
        sessions: Asking,
        top: int = 20,
        filter_seen: bool = False,
        want: Sequence[str] = (),
        candidates: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
    ) -> pd.DataFrame:
        """Next items: columns ``session``, ``rank`` from 1, ``item``, ``score``, ``by``.

        ``by`` is "model", or "popularity" for a session of which the model knows nothing. Of
        ``candidates`` only, and nothing of ``exclude``: ids of items.

        Raises:
            DataError, ModelError: the sessions cannot be read, or no item of them is known.
        """
        import pandas as pd

        from paropt.training.recommending.new_sessions import recommend
        from paropt.training.recommending.offer import make_offer

        offer = make_offer(self._saved, candidates, exclude)
        for note in offer.notes:
            say(note)
        known = self._known(sessions, want)
        rows = [
            {
                "session": found.session,
                "rank": rank,
                "item": item,
                "score": score,
                "by": "popularity" if found.popular else "model",
            }
            for found in recommend(self._saved, known, top, filter_seen, offer)
            for rank, (item, score) in enumerate(zip(found.items, found.scores, strict=True), 1)
        ]
        return pd.DataFrame(rows, columns=["session", "rank", "item", "score", "by"])

    def scores(self, sessions: Asking, items: Sequence[str]) -> pd.DataFrame:
        """The scores of ``items`` for each session: a row per session, a column per item.

        NaN where the model knows the item not, or nothing of the session.

        Raises:
            DataError, ModelError: as :meth:`recommend`.
        """
        found = self.recommend(sessions, top=max(1, len(items)), candidates=items)
        order = list(dict.fromkeys(found["session"]))
        found.loc[found["by"] != "model", "score"] = np.nan
        table = found.pivot(index="session", columns="item", values="score")
        return table.reindex(index=order, columns=list(dict.fromkeys(items)))

    def item_vectors(self) -> Vectors:
        """Of every item; a bias is the last dimension.

        Raises:
            ModelError: the model has none.
        """
        from paropt.training.recommending.vectors import ItemVectors

        return _vectors(ItemVectors(self._saved))

    def user_vectors(self, sessions: Asking) -> Vectors:
        """Of each user, or session, that has an item that the model knows: its latest state.

        The inner product with an item's vector is the item's score.

        Raises:
            DataError, ModelError: the sessions cannot be read, or the model has no such vectors.
        """
        from paropt.training.recommending.user_events import users_of_asked
        from paropt.training.recommending.vectors import UserVectors

        with self._asked(sessions) as (asked, _):
            return _vectors(UserVectors(self._saved, users_of_asked(self._saved, asked)))

    def _known(self, sessions: Asking, want: Sequence[str]) -> Sessions:
        from paropt.training.recommending.new_sessions import known_sessions

        with self._asked(sessions) as (asked, say):
            found = known_sessions(asked, self._saved, want=want)
            for note in found.notes:
                say(note)
        return found

    @contextmanager
    def _asked(self, sessions: Asking) -> Iterator[tuple[Asked, Callable[[str], None]]]:
        """The sessions, read as the model's own log, and who takes remarks on them."""
        import pandas as pd

        from paropt.data.log.options import Options
        from paropt.data.log.sessions_file import read_asked

        options = None
        if isinstance(sessions, str | Path | pd.DataFrame):
            events = sessions
        else:
            log = self._saved.meta.get("log") or {}
            keys = (log.get("session_key") or "session_id", log.get("item_key") or "item_id")
            events, options = _frame(sessions, *keys), Options(rows_in_order=True)
        knowledge = self._saved.knowledge
        further = [*knowledge.sources.values(), *filter(None, [knowledge.user_key])]
        with as_files(events, "sessions") as (files, note):
            yield read_asked(files[0], options, self._saved.meta.get("log"), further), note


def _frame(sessions: Listed, session_key: str, item_key: str) -> pd.DataFrame:
    import pandas as pd

    named = sessions if isinstance(sessions, Mapping) else dict(enumerate(sessions, 1))
    if isinstance(sessions, Sequence) and any(isinstance(items, str) for items in sessions):
        raise DataError("sessions are lists of item ids, one list per session: [[…], […]]")
    rows = [(str(name), str(item)) for name, items in named.items() for item in items]
    if not rows:
        raise DataError("the sessions have no events; give each the ids of its items")
    return pd.DataFrame(rows, columns=[session_key, item_key])


def _vectors(of: Any) -> Vectors:
    return Vectors(of.ids.to_pylist(), np.concatenate(list(of.blocks(0))))


def load_model(directory: str | Path, device: str = "cpu") -> Recommender:
    """A saved model.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    from paropt.training.saved_model.saved import load_model

    return Recommender(load_model(directory, device), Path(directory))


def train(
    params: Mapping[str, Any] | str | Path | None,
    data: Dataset | str | Path,
    *,
    model: str | None = None,
    save: str | Path | None = None,
    on_epoch: Callable[[Any, int], None] | None = None,
    **options: Any,
) -> RunResult:
    """Train one configuration and judge it, as ``paropt train`` does.

    Args:
        params: parameters by name, a paramfile, or the name of one of paropt's; None where an
            earlier model is gone on from (``begin=DIRECTORY``) and nothing is changed.
        data: a dataset or its directory.
        model: whose parameters these are; a paramfile says it, else it is "gru4rec".
        save: a directory for the model, which :func:`load_model` reads.
        on_epoch: called with each :class:`paropt.training.evaluation.epochs.EpochReport`, and how
            many there will be.
        options: ``split``, ``seed``, ``epochs``, ``metric``, ``device``, ``threads`` and whatever
            else :class:`paropt.training.train_request.TrainRequest` has.

    Raises:
        ParoptError: as the command's.
    """
    from paropt.data import Dataset
    from paropt.search.space.training_requests import train_request
    from paropt.training.train import train as train_model

    request, provenance = train_request(params, model, options)
    outcome = train_model(
        request,
        data.path if isinstance(data, Dataset) else data,
        save=None if save is None else Path(save),
        on_epoch=on_epoch or (lambda report, epochs: None),
        provenance=provenance,
        note=say,
    )
    if outcome.split != "search":
        from paropt.results.final.looks_here import known_to_a_final_test, note_look

        if not known_to_a_final_test(
            provenance, outcome.fingerprint, outcome.split, outcome.seed, request.epochs
        ):
            say(note_look(outcome))
    return outcome
