"""Made-up data in the two layouts of the 2025 Tencent ads competition (TencentGR).

::

    python benchmarks/quality/tencent_gr.py OUT [--layout competition|parquet] [--users 1000]
        [--items 600]
    python benchmarks/quality/tencent_gr.py OUT --score ANSWER

No raw sample of the competition was at hand: the layouts are written from what several public
solutions read. What is planted can be learnt. Items lie on rings, one per cluster; the cluster
shows in the features 100 and 117 and in every vector, the place on it in 111. A user has two
interests, which show in the features 103 and 106, and a stride. Exposures walk along a ring by it
for some steps, then another walk begins, mostly on a ring of interest; clicks are where the
interest is. Who looks at pairs of neighbours sees no stride. Some items never occur in a sequence:
they are among the candidates only.

Beside the layout stands ``answers.jsonl``: the click that follows each sequence of
``predict_seq.jsonl``. With it an answer of ``paropt predict --top 10`` gets the competition's
score, .31·HR@10 + .69·NDCG@10, over the users whose click is of a candidate.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

# codes of features: of items; of users, one value each and several
ITEM_SPARSE = [
    str(n) for n in (100, 117, 111, 118, 101, 102, 119, 120, 114, 112, 121, 115, 122, 116)
]
USER_SPARSE = ["103", "104", "105", "109"]
USER_ARRAY = ["106", "107", "108", "110"]
STRIDE = 4  # the longest of users' strides: places on a ring from one exposure to the next
BLOCK = 5000  # users that are made at once
BEGIN = 1_740_000_000  # seconds
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Sizes:
    """How much is made; ``mean`` events per user, ``cold`` the share of items without events,
    ``offered`` that of the others that are candidates, as the cold ones are.

    ``vectors`` are (id, dimensions); the first is a pickle in the competition's layout, as
    ``emb_81_32.pkl`` is there, unless ``pickled`` is False. ``asked`` users are in the prediction.
    """

    users: int = 1000
    items: int = 600
    clusters: int = 12
    mean: float = 40.0
    cold: float = 0.05
    offered: float = 0.5
    asked: int = 100
    vectors: tuple[tuple[int, int], ...] = ((81, 32),)
    pickled: bool = True
    seed: int = 1


@dataclass(frozen=True)
class World:
    """Items by re-indexed id − 1: ring, place on it, features [n, 14] (0 missing), original id."""

    sizes: Sizes
    ring: Ints
    place: Ints
    on_ring: Sequence[Ints]
    features: Ints
    original: Ints
    centres: NDArray[np.float32]

    @property
    def interests(self) -> int:
        return self.sizes.clusters


@dataclass(frozen=True)
class Block:
    """Sequences of some users: their re-indexed ids, features, and events one after the other."""

    users: Ints
    sparse: Ints
    arrays: Sequence[Sequence[Sequence[int]]]
    offsets: Ints
    items: Ints
    actions: Ints  # −1 is null
    times: Ints


# -- what happens ------------------------------------------------------------------------------


def make_world(sizes: Sizes) -> World:
    random = np.random.default_rng((sizes.seed, 0))
    n = sizes.items
    ring = random.integers(0, sizes.clusters, n)
    warm = random.random(n) >= sizes.cold
    on_ring = [np.flatnonzero((ring == k) & warm) for k in range(sizes.clusters)]
    for k, members in enumerate(on_ring):
        if not len(members):
            raise SystemExit(f"ring {k} has no item; make more items or fewer clusters")
    place = np.zeros(n, np.int64)
    for members in on_ring:
        place[members] = np.arange(len(members))
    features = random.integers(1, 1 + max(2, n // 20), (n, len(ITEM_SPARSE)))
    features[random.random(features.shape) < 0.1] = 0
    told = np.where(random.random(n) < 0.9, ring, random.integers(0, sizes.clusters, n))
    features[:, 0], features[:, 1], features[:, 2] = 1 + told, 1 + ring // 3, 1 + place
    original = 900_000_001 + 7 * random.permutation(n)
    centres = random.standard_normal((sizes.clusters, 8)).astype(np.float32)
    return World(sizes, ring, place, on_ring, features, original, centres)


def make_block(world: World, first: int, count: int, stream: int) -> Block:
    """The users ``first`` … ``first + count − 1``, by a stream of random numbers of their own."""
    sizes = world.sizes
    random = np.random.default_rng((sizes.seed, 1 + stream, first))
    lengths = 4 + random.gamma(2.0, max(0.1, sizes.mean - 4) / 2, count).astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    user = np.repeat(np.arange(count), lengths)
    likes = random.integers(0, sizes.clusters, (count, 2))
    items, of_interest = _walks(world, random, user, offsets, likes)
    clicked = random.random(len(user)) < np.where(of_interest, 0.4, 0.05)
    actions = np.where(clicked, 1, 0)
    actions[clicked & (random.random(len(user)) < 0.05)] = 2
    actions[random.random(len(user)) < 0.001] = -1
    steps = random.integers(5, 4000, len(user))
    elapsed = np.cumsum(steps)
    begins = BEGIN + random.integers(0, 30 * 86_400, count)
    times = elapsed - np.repeat(elapsed[offsets[:-1]], lengths) + np.repeat(begins, lengths)
    sparse = random.integers(0, 9, (count, len(USER_SPARSE)))
    sparse[:, 0] = 1 + likes[:, 0]
    more = random.integers(1, 6, (count, 3))
    arrays = [
        [(1 + likes[i]).tolist(), more[i, :1].tolist(), [0], more[i].tolist()] for i in range(count)
    ]
    ids = np.arange(first, first + count)
    return Block(ids, sparse, arrays, offsets, items + 1, actions, times)


def _walks(
    world: World, random: np.random.Generator, user: Ints, offsets: Ints, likes: Ints
) -> tuple[Ints, NDArray[np.bool_]]:
    """Items [events], and whether each is of a ring that its user likes."""
    begins = random.random(len(user)) < 0.25
    begins[offsets[:-1]] = True
    at = np.flatnonzero(begins)
    walk = np.cumsum(begins) - 1
    liked = likes[user[at], random.integers(0, 2, len(at))]
    ring = np.where(
        random.random(len(at)) < 0.7, liked, random.integers(0, world.interests, len(at))
    )
    size = np.array([len(members) for members in world.on_ring])
    start = (random.random(len(at)) ** 2 * size[ring]).astype(np.int64)  # some are more popular
    stride = random.integers(1, STRIDE + 1, len(likes))[user]
    step = np.arange(len(user)) - at[walk]
    place = (start[walk] + stride * step) % size[ring[walk]]
    base = np.concatenate(([0], np.cumsum(size)))[ring[walk]]
    items = np.concatenate(list(world.on_ring))[base + place]
    return items, (likes[user] == ring[walk][:, None]).any(1)


def vectors_of(world: World, number: int, dim: int) -> NDArray[np.float32]:
    """Vectors [n, dim] of all items, near their ring's centre; some are not there (NaN)."""
    random = np.random.default_rng((world.sizes.seed, 99, number))
    spread = random.standard_normal((world.centres.shape[1], dim)).astype(np.float32)
    noise = random.standard_normal((world.sizes.items, dim), np.float32)
    found = world.centres[world.ring] @ spread + noise
    found[random.random(world.sizes.items) < 0.02] = np.nan
    return found


# -- the competition's layout -------------------------------------------------------------------


def write_competition(folder: Path, sizes: Sizes = Sizes()) -> World:
    """``seq.jsonl`` and all that lies beside it."""
    world = make_world(sizes)
    folder.mkdir(parents=True, exist_ok=True)
    rendered = [_features(row) for row in world.features.tolist()]
    write = _LineWriter(world, rendered)
    offsets: list[int] = []
    with (folder / "seq.jsonl").open("wb") as file:
        at = 0
        for block in _blocks(world):
            for line in write(block, str):
                offsets.append(at)
                at += file.write(line)
    _pickle(folder / "seq_offsets.pkl", offsets)
    with (folder / "item_feat_dict.json").open("w") as text:
        for number, features in enumerate(rendered, 1):
            text.write(f'{"{" if number == 1 else ", "}"{number}": {features.decode()}')
        text.write("}")
    _pickle(folder / "indexer.pkl", indexer(world))
    _write_embeddings(folder / "creative_emb", world)
    _write_prediction(folder, world, write)
    return world


def indexer(world: World) -> dict[str, Any]:
    """Original ids and re-indexed ones, as plain dicts."""
    users = {_name(user): user for user in range(1, world.sizes.users + 1)}
    items = {one: number for number, one in enumerate(world.original.tolist(), 1)}
    codes = {name: {str(code): code for code in range(1, 4)} for name in ITEM_SPARSE}
    return {"i": items, "u": users, "f": codes}


def _name(user: int) -> str:
    return f"user_{user:08d}"


def _features(row: Sequence[int]) -> bytes:
    told = {name: value for name, value in zip(ITEM_SPARSE, row, strict=True) if value}
    return json.dumps(told).encode()


def _pickle(path: Path, content: Any) -> None:
    with path.open("wb") as file:
        pickle.dump(content, file)


def _blocks(world: World) -> Iterator[Block]:
    for first in range(0, world.sizes.users, BLOCK):
        yield make_block(world, first + 1, min(BLOCK, world.sizes.users - first), 0)


class _LineWriter:
    """A block's sequences as lines of JSON."""

    def __init__(self, world: World, rendered: Sequence[bytes]) -> None:
        self.heads = [b"[null, %d, null, %s, " % (i, f) for i, f in enumerate(rendered, 1)]

    def __call__(self, block: Block, spelt: Callable[[int], str]) -> Iterator[bytes]:
        heads = self.heads
        items, times = (block.items - 1).tolist(), block.times.tolist()
        words = [b"0", b"1", b"2", b"null"]
        records = [
            b"%s%s, %d]" % (heads[item], words[action], time)
            for item, action, time in zip(items, block.actions.tolist(), times, strict=True)
        ]
        edges = block.offsets.tolist()
        for i, user in enumerate(block.users.tolist()):
            told = dict(zip(USER_SPARSE, block.sparse[i].tolist(), strict=True))
            told |= dict(zip(USER_ARRAY, block.arrays[i], strict=True))
            begin, end = edges[i], edges[i + 1]
            head = f"[{spelt(user)}, null, {json.dumps(told)}, null, null, {times[begin]}]"
            yield b"[" + b", ".join([head.encode(), *records[begin:end]]) + b"]\n"


def _write_embeddings(folder: Path, world: World) -> None:
    folder.mkdir(exist_ok=True)
    for place, (number, dim) in enumerate(world.sizes.vectors):
        found = vectors_of(world, number, dim)
        pairs = list(zip(world.original.tolist(), found, strict=True))
        name = f"emb_{number}_{dim}"
        if place == 0 and world.sizes.pickled:
            there = {str(one): row for one, row in pairs if np.isfinite(row[0])}
            _pickle(folder / f"{name}.pkl", there)
            continue
        (folder / name).mkdir(exist_ok=True)
        for part in range(2):
            with (folder / name / f"part-{part:05d}").open("w") as file:
                for one, row in pairs[part::2]:
                    told: dict[str, Any] = {"anonymous_cid": str(one)}
                    if np.isfinite(row[0]):
                        told["emb"] = [round(value, 5) for value in row.tolist()]
                    file.write(json.dumps(told) + "\n")


def _write_prediction(folder: Path, world: World, write: _LineWriter) -> None:
    """Users whom training never saw, each up to a click that ``answers.jsonl`` has."""
    block = make_block(world, world.sizes.users + 1, world.sizes.asked, 1)
    kept, answers = _before_last_click(block)
    with (folder / "predict_seq.jsonl").open("wb") as file:
        file.writelines(write(kept, lambda user: json.dumps(_name(user))))
    with (folder / "answers.jsonl").open("w") as text:
        for user, item in zip(kept.users.tolist(), answers.tolist(), strict=True):
            told = {"user": _name(user), "creative_id": int(world.original[item - 1])}
            text.write(json.dumps(told) + "\n")
    with (folder / "predict_set.jsonl").open("w") as text:
        for retrieval, item in enumerate(candidates(world).tolist()):
            row = world.features[item - 1].tolist()
            told = {
                "creative_id": int(world.original[item - 1]),
                "retrieval_id": retrieval,
                "features": dict(zip(ITEM_SPARSE, row, strict=True)),
            }
            text.write(json.dumps(told) + "\n")


def candidates(world: World) -> Ints:
    """Re-indexed ids of what may be shown: some of the items, and all without events."""
    random = np.random.default_rng((world.sizes.seed, 7))
    cold = np.ones(world.sizes.items, bool)
    cold[np.concatenate(list(world.on_ring))] = False
    return 1 + np.flatnonzero(cold | (random.random(world.sizes.items) < world.sizes.offered))


def _before_last_click(block: Block) -> tuple[Block, Ints]:
    """Sequences up to before their last click, where something is before it; the clicks."""
    kept, answers, parts = [], [], []
    for i, (begin, end) in enumerate(zip(block.offsets[:-1], block.offsets[1:], strict=True)):
        clicks = np.flatnonzero(block.actions[begin:end] == 1)
        if len(clicks) and clicks[-1] > 0:
            kept.append(i)
            parts.append(np.arange(begin, begin + clicks[-1]))
            answers.append(int(block.items[begin + clicks[-1]]))
    events = np.concatenate(parts)
    left = Block(
        block.users[kept],
        block.sparse[kept],
        [block.arrays[i] for i in kept],
        np.concatenate(([0], np.cumsum([len(part) for part in parts]))),
        block.items[events],
        block.actions[events],
        block.times[events],
    )
    return left, np.array(answers)


# -- the layout of the public release -----------------------------------------------------------


def write_parquet(folder: Path, sizes: Sizes = Sizes()) -> World:
    """``seq/``, ``item_feat/``, ``user_feat/``, ``mm_emb/``, ``candidate/`` and ``indexer.pkl``."""
    world = make_world(sizes)
    for number, block in enumerate(_blocks(world)):
        _write_part(folder / "seq", number, _sequences(block))
        users: dict[str, Any] = {"user_id": block.users}
        users |= {name: block.sparse[:, i] for i, name in enumerate(USER_SPARSE)}
        for i, name in enumerate(USER_ARRAY):
            users[name] = pa.array([row[i] for row in block.arrays], pa.list_(pa.int64()))
        _write_part(folder / "user_feat", number, pa.table(users))
    items: dict[str, Any] = {"item_id": np.arange(1, sizes.items + 1)}
    items |= {name: world.features[:, i] for i, name in enumerate(ITEM_SPARSE)}
    _write_part(folder / "item_feat", 0, pa.table(items))
    for one, dim in sizes.vectors:
        found = vectors_of(world, one, dim)
        missing = ~np.isfinite(found[:, 0])
        lists = pa.array([None if m else r for m, r in zip(missing, found.tolist(), strict=True)])
        ids = pa.array([str(value) for value in world.original.tolist()])
        table = pa.table({"anonymous_cid": ids, "emb": lists.cast(pa.list_(pa.float32()))})
        _write_part(folder / "mm_emb" / f"emb_{one}_{dim}_parquet", 0, table)
    chosen = candidates(world)
    table = pa.table({"item_id": chosen, "retrieval_id": np.arange(len(chosen))})
    _write_part(folder / "candidate", 0, table)
    _pickle(folder / "indexer.pkl", indexer(world))
    return world


def _sequences(block: Block) -> pa.Table:
    actions = pa.array(block.actions, pa.int64(), mask=block.actions < 0)
    events = pa.StructArray.from_arrays(
        [pa.array(block.items), actions, pa.array(block.times)],
        ["item_id", "action_type", "timestamp"],
    )
    lists = pa.ListArray.from_arrays(pa.array(block.offsets, pa.int32()), events)
    return pa.table({"user_id": block.users, "seq": lists})


def _write_part(folder: Path, number: int, table: pa.Table) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(table, folder / f"part-{number:05d}.parquet")


def score(folder: Path, answer: Path) -> dict[str, float]:
    """What ``top.jsonl`` of an answer is worth by ``answers.jsonl``."""
    offered = {told["creative_id"] for told in _lines(folder / "predict_set.jsonl")}
    clicks = {told["user"]: told["creative_id"] for told in _lines(folder / "answers.jsonl")}
    gains = []
    for told in _lines(answer / "top.jsonl"):
        if clicks[told["user"]] in offered:
            best = [int(one["creative_id"]) for one in told["items"][:10]]
            there = clicks[told["user"]] in best
            rank = best.index(clicks[told["user"]]) if there else 0
            gains.append((there, there / math.log2(2 + rank)))
    hits, ndcg = (sum(one) / len(gains) for one in zip(*gains, strict=True))
    found = {"users": len(gains), "hr@10": hits, "ndcg@10": ndcg}
    return found | {"score": 0.31 * hits + 0.69 * ndcg}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


WRITE = {"competition": write_competition, "parquet": write_parquet}


def _vectors(text: str) -> tuple[tuple[int, int], ...]:
    pairs = [one.split(":") for one in text.split(",") if one]
    return tuple((int(number), int(dim)) for number, dim in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--layout", choices=list(WRITE), default="competition")
    for name, kind in (("users", int), ("items", int), ("clusters", int), ("mean", float)):
        parser.add_argument(f"--{name}", type=kind, default=getattr(Sizes(), name))
    for name, kind in (("cold", float), ("offered", float), ("asked", int), ("seed", int)):
        parser.add_argument(f"--{name}", type=kind, default=getattr(Sizes(), name))
    parser.add_argument("--vectors", type=_vectors, default=Sizes().vectors, metavar="81:32,82:64")
    parser.add_argument("--score", type=Path, metavar="ANSWER", help="of paropt predict --top 10")
    given = vars(parser.parse_args())
    out, layout, answer = given.pop("out"), given.pop("layout"), given.pop("score")
    if answer:
        print(json.dumps({k: round(v, 4) for k, v in score(out, answer).items()}))
    else:
        WRITE[layout](out, Sizes(**given))


if __name__ == "__main__":
    main()
