"""What the ads competition asks for: vectors of users and of candidates, and the best of these."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.data.features.vectors import VectorFile
from paropt.data.tencent_gr.candidates import Offered, read_offered
from paropt.data.tencent_gr.indexer import read_indexer
from paropt.data.tencent_gr.json_lines import read_json_lines
from paropt.data.tencent_gr.last_click import ACTIONS
from paropt.data.tencent_gr.sequences import Sequences, Tally, joined, named_once
from paropt.errors import DataError, ModelError
from paropt.training.batches.events import Events
from paropt.training.batches.plans import query_batches
from paropt.training.evaluation.ranking.judging import ROWS, queries
from paropt.training.recommending.candidates import Candidates, Note, admit
from paropt.training.recommending.wanted import unsaid, wanted_values
from paropt.training.registry import scores_itself
from paropt.training.saved_model.saved import SavedModel

TOP = "top.jsonl"
FILES = ("query.fbin", "embedding.fbin", "id.u64bin", "users.txt")
_SCORED = 1 << 22  # scores that are held at once


@dataclass(frozen=True)
class Request:
    """Whom to predict for, and from what; ``top``: write this many candidates of each as well."""

    sequences: Path
    candidates: Path
    out: Path
    indexer: Path | None = None
    vectors: Sequence[VectorFile] = ()
    want: Sequence[str] = ()
    top: int = 0


@dataclass(frozen=True)
class Told:
    """What was written: counts of users, candidates, unseen ones among them, and those left out."""

    out: Path
    users: int
    users_without_history: int
    candidates: int
    unseen: int
    left_out: int
    dim: int


def predict(saved: SavedModel, request: Request, note: Note) -> Told:
    """Write the files of a prediction into a new directory.

    Raises:
        DataError: files cannot be used, or the directory is there.
        ModelError: the model gives no vectors.
    """
    out = request.out
    if out.exists() or out.is_symlink():
        raise DataError(f"{out} exists; choose another --out")
    if scores_itself(saved.model):
        raise ModelError(f"model {saved.meta['model']!r} scores items itself and has no vectors")
    tally = Tally()
    sequences = joined(read_json_lines(request.sequences, None, tally))
    tally.say(note)
    users = named_once(sequences.users).to_pylist()
    offered = read_offered(request.candidates, with_features=True)
    indexer = read_indexer(request.indexer) if request.indexer else None
    candidates = admit(saved, offered, indexer, request.candidates, request.vectors, note)
    events = _events(saved, sequences, candidates, request.want, note)
    query, without = _queries(saved, events)
    if without:
        note(
            f"{without:,} of {len(users):,} users have no event that the model knows; their vector"
            " is the mean of the others'"
        )
    query, items = _with_bias(saved, query, torch.from_numpy(candidates.index))
    retrieval = offered.retrieval[candidates.offered]
    _write(out, users, query, items, retrieval, offered, candidates, request.top)
    return Told(out, len(users), without, len(items), candidates.unseen, candidates.left_out,
                items.shape[1])  # fmt: skip


def _events(
    saved: SavedModel, sequences: Sequences, candidates: Candidates, want: Sequence[str], note: Note
) -> Events:
    """What the model knows of the sequences, and a query at the end of each."""
    knowledge = saved.knowledge
    beyond = sequences.items >= len(candidates.numbers)
    items = candidates.numbers[np.where(beyond, 0, sequences.items)].astype(np.int32)
    columns = {}
    for name, kept in knowledge.columns.items():
        if name == "action_type":
            words = ACTIONS.take(pa.array(sequences.actions, mask=sequences.actions < 0))
            columns[name] = knowledge.encoded(name, pa.chunked_array([words]))
            continue
        note(f"the model reads {name!r}, which the sequences do not have: unknown throughout")
        unknown: NDArray[np.float32] | NDArray[np.int32] = np.full(len(items), -1, np.int32)
        if kept.kind == "number":
            unknown = np.full(len(items), np.nan, np.float32)
        columns[name] = unknown
    users = knowledge.users(sequences.users) if knowledge.needs.who else None
    wanted = wanted_values(saved, want)
    for line in unsaid(saved, wanted):
        note(line)
    events = Events(
        items,
        sequences.times,
        np.zeros(len(items), bool),
        sequences.offsets.astype(np.int64),
        columns=columns,
        users=users,
    )
    return events.take(items >= 0).with_queries(wanted)


def _queries(saved: SavedModel, events: Events) -> tuple[Tensor, int]:
    """A vector per session [S, d], and how many have no history."""
    model = saved.model
    batches = query_batches(
        events, model.max_length, ROWS, model.device, saved.knowledge.needs.wanted
    )
    if batches.total == 0:
        raise DataError("the model knows no event of any sequence; are they of its data?")
    found: list[Tensor] = []
    places: list[NDArray[np.int64]] = []
    with torch.no_grad():
        for batch in queries(batches):
            asked = batch.histories[:, 1].cpu().numpy()
            places.append(np.searchsorted(events.offsets, asked, side="right") - 1)
            found.append(model.encode(batch).float().cpu())
    vectors, place = torch.cat(found), np.concatenate(places)
    whole = vectors.mean(0).repeat(len(events.offsets) - 1, 1)
    whole[torch.from_numpy(place)] = vectors
    return whole, len(whole) - len(vectors)


def _with_bias(saved: SavedModel, query: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and candidates whose product is the score: a bias is one more dimension."""
    with torch.no_grad():
        table, bias = saved.model.item_table()
        items = table[index.to(table.device)].float().cpu()
        if bias is None:
            return query, items
        more = bias.to(table.device)[index.to(table.device)].float().cpu()
    return torch.cat((query, query.new_ones(len(query), 1)), 1), torch.cat(
        (items, more[:, None]), 1
    )


# -- files -------------------------------------------------------------------------------------


def _write(
    out: Path,
    users: Sequence[str],
    query: Tensor,
    items: Tensor,
    retrieval: NDArray[np.uint64],
    offered: Offered,
    candidates: Candidates,
    top: int,
) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            _write_array(beside / "query.fbin", query.numpy())
            _write_array(beside / "embedding.fbin", items.numpy())
            _write_array(beside / "id.u64bin", retrieval[:, None])
            (beside / "users.txt").write_text("".join(f"{user}\n" for user in users), "utf-8")
            if top:
                ids = offered.ids.take(pa.array(candidates.offered)).to_pylist()
                with (beside / TOP).open("w", encoding="utf-8") as file:
                    for line in _best(users, query, items, ids, retrieval, top):
                        file.write(line + "\n")
            beside.chmod(0o777 & ~_umask())
            beside.rename(out)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}") from None


def _write_array(path: Path, rows: NDArray[np.float32] | NDArray[np.uint64]) -> None:
    """Two little-endian uint32, how many rows of how many numbers, and the numbers."""
    with path.open("wb") as file:
        file.write(struct.pack("<II", *rows.shape))
        file.write(np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).tobytes())


def _best(
    users: Sequence[str],
    query: Tensor,
    items: Tensor,
    ids: Sequence[str],
    retrieval: NDArray[np.uint64],
    top: int,
) -> Iterator[str]:
    """The best candidates of each user by every score, as lines of JSON."""
    rows: Iterable[Tensor] = query.split(max(1, _SCORED // len(items)))
    number = 0
    for part in rows:
        best = torch.topk(part @ items.T, min(top, len(items)))
        for scores, places in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            shown = [
                {"creative_id": ids[i], "retrieval_id": int(retrieval[i]), "score": score}
                for i, score in zip(places, scores, strict=True)
            ]
            yield json.dumps({"user": users[number], "items": shown}, ensure_ascii=False)
            number += 1


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
