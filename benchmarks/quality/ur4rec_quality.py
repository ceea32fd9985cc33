"""UR4Rec in its parts beside SASRec, SASRec with the same text vectors, and the floors.

    python benchmarks/quality/ur4rec_quality.py --data DIR --text title_vector --out ROWS.jsonl
        [--user-text taste_vector] [--seed 1 2 3] [--case sasrec words …]
        [--sasrec 20] [--retriever 10] [--joint 5] [--params K=V,…] [--view full] [--threads 1]
    python benchmarks/quality/ur4rec_quality.py --out ROWS.jsonl --table

DIR is a dataset directory that was split leave-one-out and has vectors of texts
(``paropt prepare … --protocol leave-one-out --text-vectors title``); several fields are written
``title_vector+plot_vector``. All items are ranked but for those of the user's history. Each row of
ROWS is one case of one seed, with the rank of every session's target; rows that are there already
are not worked out again. The table has means over seeds, and paired differences to SASRec with 95 %
intervals by bootstrap over sessions, of ranks averaged over seeds.

Every training goes to the end of its schedule (rates fall to zero), so nothing is chosen by test.
SASRec is trained once per seed, as UR4Rec's first stage, and all cases but those with vectors in
SASRec's own table begin with it:

========== ========================================================================================
sasrec     SASRec alone
words      SASRec with the text vectors in its item table beside ids (id_init normal)
words0     the same with ids that begin at zero
retriever  the retriever's scores alone
weighted   fused, w = .5, log-probabilities;  z-score: unit variance;  learned, adaptive: see docs
joint      the joint stage after these, learned fusion
no-experts no expert: SASRec's state goes to the proxies as it is
no-memory  without a memory
no-taste   without the users' texts (where --user-text names some)
no-words   the retriever without texts: embeddings alone
========== ========================================================================================
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import statistics
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from models.parts.ur4rec.fusion import Fusion
from models.ur4rec import FUSED, RANKED_BY, UR4Rec
from paropt.data.dataset import Dataset, View, open_dataset
from paropt.training.batches.catalogue import catalogue
from paropt.training.batches.events import known_events
from paropt.training.batches.plans import evaluation
from paropt.training.evaluation.baselines.floors import floor_ranks
from paropt.training.evaluation.baselines.session_knn import session_knn_ranks
from paropt.training.evaluation.ranking.judging import evaluate, queries, seen_items
from paropt.training.evaluation.ranking.ranks import rank
from paropt.training.fitting.fit import Fit
from paropt.training.metrics import means
from paropt.training.train_request import parse_params

METRICS = ("recall@10", "ndcg@10", "recall@20", "mrr@20")  # recall@10 of one target is HR@10
DEEPEST = 20
RARE = (5, 10)  # events of an item, or of a user, in training
SIZES: dict[str, Any] = {
    "dim": 64, "blocks": 2, "heads": 1, "max_length": 100, "dropout": 0.2, "batch_size": 32,
    "learning_rate": 0.002, "warmup": 0.05, "schedule": "linear",
}  # fmt: skip
RANKINGS = ("retriever", "weighted", "z-score", "learned")  # of one training
ABLATIONS: dict[str, dict[str, Any]] = {
    "adaptive": {"fusion": "adaptive"},
    "no-experts": {"fusion": "learned", "retriever_experts": "none"},
    "no-memory": {"fusion": "learned", "memory_users": 0},
    "no-taste": {"fusion": "learned", "user_text": "none"},
    "no-words": {"fusion": "learned", "item_text": "none", "user_text": "none"},
}
CASES = ("sasrec", "words", "words0", *RANKINGS, "joint", *ABLATIONS)
FLOORS = ("popularity", "co-occurrence", "session k-NN", "text k-NN")
Ranks = NDArray[np.float64]


class Rows:
    """The file of results, a JSON line for each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text() if path.exists() else ""
        self.found = [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def has(self, case: str, seed: int, key: str) -> bool:
        """Whether it was worked out already."""
        return any((r["case"], r["seed"], r["key"]) == (case, seed, key) for r in self.found)

    def add(self, row: dict[str, Any]) -> None:
        """Write one; all at once, so that a kill leaves whole lines."""
        self.found.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        told = {name: round(row["metrics"][name], 4) for name in METRICS}
        print(f"  {row['case']} seed {row['seed']}: {told}", file=sys.stderr, flush=True)


class Bench:
    """One dataset, one view, one set of parameters."""

    def __init__(self, args: argparse.Namespace, rows: Rows) -> None:
        self.args, self.rows = args, rows
        dataset: Dataset = open_dataset(args.data)
        self.view: View = dataset.view(args.view)
        self.params = SIZES | args.params
        about = [dataset.fingerprint, args.view, args.text, self.params]
        about += [args.sasrec, args.retriever, args.joint]
        if args.user_text != "none":
            about.append(args.user_text)
        self.key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
        self.seconds: dict[str, list[float]] = {}

    def lacks(self, cases: Iterator[str] | tuple[str, ...], seed: int) -> list[str]:
        """Those of the wanted cases that aren't there yet."""
        wanted = [case for case in cases if case in (*self.args.case, *FLOORS)]
        if self.args.user_text == "none":
            wanted = [case for case in wanted if case != "no-taste"]
        return [case for case in wanted if not self.rows.has(case, seed, self.key)]

    # -- rows -------------------------------------------------------------------------------

    def write(self, case: str, seed: int, ranks: Ranks, seconds: Mapping[str, float]) -> None:
        """``ranks`` [sessions]: NaN without a target that is known, infinite beyond DEEPEST."""
        known = ~np.isnan(ranks)
        support = self.view.support()
        rare: dict[str, Any] = {}
        for most in RARE:
            for what, events in (("items", support[self.targets()]), ("users", self.histories())):
                chosen = known & (events <= most)
                if chosen.any():
                    numbers = means(ranks[chosen], METRICS)
                    rare[f"{what} of ≤ {most} events"] = {"n": int(chosen.sum()), **numbers}
        packed = np.nan_to_num(np.where(ranks <= DEEPEST, ranks, 0), nan=0).astype(np.uint8)
        packed[~known] = 255
        row = {
            "data": str(Path(self.args.data).name), "key": self.key, "view": self.args.view,
            "case": case, "seed": seed, "targets": int(known.sum()),
            "metrics": means(ranks[known], METRICS), "rare": rare,
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
            "epochs": [self.args.sasrec, self.args.retriever, self.args.joint],
            "ranks": base64.b64encode(zlib.compress(packed.tobytes(), 9)).decode(),
        }  # fmt: skip
        self.rows.add(row)

    def targets(self) -> NDArray[np.int64]:
        """The item of each session's target; item 0 where training doesn't know it."""
        test = self.view.test
        last = np.asarray(test.items)[np.asarray(test.offsets)[1:] - 1].astype(np.int64)
        return np.where(last < self.view.n_items, last, 0)

    def histories(self) -> NDArray[np.int64]:
        """How many events of each session training saw."""
        return np.diff(np.asarray(self.view.test.offsets)) - 1

    def by_session(self, ranks: Ranks, sessions: NDArray[np.int64]) -> Ranks:
        found = np.full(self.view.test.n_sessions, np.nan)
        found[sessions] = ranks
        return found

    # -- floors -----------------------------------------------------------------------------

    def floors(self) -> None:
        """Of seed 0, as nothing in them is random."""
        wanted = self.lacks(FLOORS, 0)
        if not wanted:
            return
        events = known_events(self.view.test, self.view.n_items)
        positions, _ = events.queries()
        sessions = np.searchsorted(events.offsets, positions, side="right") - 1
        counted = floor_ranks(self.view, "standard", True)
        found = {
            "popularity": counted["popularity"],
            "co-occurrence": counted["cooccurrence"],
            "session k-NN": session_knn_ranks(self.view, "standard", True),
        }
        for name in wanted:
            if name in found:
                self.write(name, 0, self.by_session(found[name], sessions), {})
        if "text k-NN" in wanted:
            self.write("text k-NN", 0, self.text_knn(), {})

    def text_knn(self) -> Ranks:
        """Items by the cosine of their whitened text and the mean of the last 10 of the user."""
        items = catalogue(self.view).items
        parts = [items.vectors(name).rows(torch.arange(self.view.n_items))
                 for name in self.args.text.split("+")]  # fmt: skip
        raw = torch.cat(parts, 1)
        there = raw.abs().sum(1) > 0
        centred = raw - raw[there].mean(0)
        values, directions = torch.linalg.eigh(centred[there].T @ centred[there] / int(there.sum()))
        kept = directions[:, -64:] / values[-64:].clamp(min=1e-6).sqrt()
        table = F.normalize(centred @ kept, dim=1) * there[:, None]
        found = np.full(self.view.test.n_sessions, np.nan)
        batches = evaluation(self.view.test, self.view.n_items, 10, 1024)
        for batch in queries(batches):
            wanted = batch.targets >= 0
            lately = table[batch.items].cumsum(1)
            vectors = F.normalize(lately[wanted], dim=1)
            exclude = seen_items(batch.histories, batches.store.items)
            ranks = rank(vectors, batch.targets[wanted], table, exclude=exclude)
            begins = batch.histories[:, 0].contiguous()
            sessions = torch.searchsorted(batches.store.offsets, begins, right=True) - 1
            found[sessions.numpy()] = np.where(ranks <= DEEPEST, ranks, np.inf)
        return found

    # -- models -----------------------------------------------------------------------------

    def fit(self, model: str, params: Mapping[str, Any], seed: int) -> Fit:
        return Fit(
            model, self.params | dict(params), self.view, seed=seed, at=(10, 20),
            filter_seen=True, evaluate="last",
        )  # fmt: skip

    def train(self, fit: Fit) -> dict[str, float]:
        """Median seconds of an epoch by stage."""
        seconds: dict[str, list[float]] = {}
        for epoch in fit.epochs():
            seconds.setdefault(epoch.stage or "main", []).append(epoch.train_seconds or 0.0)
            print(f"    {fit.name} {epoch.stage} {epoch.epoch}: loss {epoch.loss:.4f}, "
                  f"{epoch.train_seconds:.1f} s", file=sys.stderr, flush=True)  # fmt: skip
        return _medians(seconds)

    def ranks(self, fit: Fit) -> Ranks:
        model = fit.model
        found = evaluate(model, self.view.test, self.view.n_items, at=(10, 20), filter_seen=True)
        return self.by_session(found.ranks, found.sessions)

    def stages(self, **epochs: int) -> dict[str, Any]:
        named = ("pretrain_sasrec", "pretrain_retriever", "joint_finetune", "end_to_end")
        texts = {"item_text": self.args.text, "user_text": self.args.user_text}
        return {"fusion": "learned"} | texts | {name: epochs.get(name, 0) for name in named}

    def seed(self, seed: int) -> None:
        """All cases of one seed."""
        for case, begin in (("words", "normal"), ("words0", "zero")):
            if self.lacks((case,), seed):
                given = {"vectors": self.args.text, "id_init": begin, "n_epochs": self.args.sasrec}
                fit = self.fit("sasrec", given, seed)
                seconds = self.train(fit)
                self.write(case, seed, self.ranks(fit), seconds)
        if not self.lacks(("sasrec", *RANKINGS, "joint", *ABLATIONS), seed):
            return
        first = self.fit("ur4rec", self.stages(pretrain_sasrec=self.args.sasrec), seed)
        seconds = self.train(first)
        if self.lacks(("sasrec",), seed):
            self.write("sasrec", seed, self.ranks(first), seconds)
        base = first.model.state_dict()
        sasrec = {name: value for name, value in base.items() if _of_sasrec(name)}
        self.rankings(seed, sasrec)
        for case, given in ABLATIONS.items():
            if self.lacks((case,), seed):
                fit = self.retriever(seed, sasrec, given)
                seconds = self.train(fit)
                self.write(case, seed, self.ranks(fit), seconds)

    def retriever(self, seed: int, sasrec: Mapping[str, Any], given: Mapping[str, Any]) -> Fit:
        """The retriever's stage, after SASRec's."""
        stages = self.stages(pretrain_retriever=self.args.retriever)
        if given.get("joint"):
            stages["joint_finetune"] = self.args.joint
        more = {name: value for name, value in given.items() if name != "joint"}
        fit = self.fit("ur4rec", stages | more, seed)
        fit.model.load_state_dict(sasrec, strict=False)
        return fit

    def rankings(self, seed: int, sasrec: Mapping[str, Any]) -> None:
        """One training, ranked in several ways; and the joint stage after it."""
        wanted = self.lacks(RANKINGS, seed)
        joint = self.lacks(("joint",), seed)
        if not (wanted or joint):
            return
        fit = self.retriever(seed, sasrec, {"joint": bool(joint)})
        seconds: dict[str, list[float]] = {}
        for epoch in fit.epochs():
            seconds.setdefault(epoch.stage or "", []).append(epoch.train_seconds or 0.0)
            if epoch.epoch == self.args.retriever:
                for case in wanted:
                    with ranking(fit.model, case):
                        self.write(case, seed, self.ranks(fit), _medians(seconds))
        if joint:
            self.write("joint", seed, self.ranks(fit), _medians(seconds))


def _medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {stage: statistics.median(values) for stage, values in seconds.items()}


def _of_sasrec(name: str) -> bool:
    return name.split(".")[0] not in ("retriever", "fusion", "ranked_by")


@contextmanager
def ranking(model: Any, case: str) -> Iterator[None]:
    """Within, the model's scores rank as ``case`` says."""
    assert isinstance(model, UR4Rec)
    fusion, by = model.fusion, int(model.ranked_by)
    model.ranked_by.fill_(RANKED_BY["retriever"] if case == "retriever" else FUSED)
    if case in ("weighted", "z-score"):
        scale = "z-score" if case == "z-score" else "log-softmax"
        model.fusion = Fusion("weighted", 0.5, scale, int(model.params["dim"]))
    try:
        yield
    finally:
        model.fusion = fusion
        model.ranked_by.fill_(by)


# -- the table --------------------------------------------------------------------------------


def unpacked(row: Mapping[str, Any]) -> Ranks:
    """Ranks by session as they were written."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(row["ranks"])), np.uint8)
    ranks = raw.astype(np.float64)
    ranks[raw == 0] = np.inf
    ranks[raw == 255] = np.nan
    return ranks


def gains(rows: list[dict[str, Any]]) -> tuple[Ranks, Ranks]:
    """HR@10 and NDCG@10 of every session with a target, means over seeds."""
    each = [unpacked(row) for row in rows]
    each = [ranks[~np.isnan(ranks)] for ranks in each]
    hits = np.mean([ranks <= 10 for ranks in each], axis=0)
    ndcg = np.mean([np.where(r <= 10, 1 / np.log2(r + 1), 0.0) for r in each], axis=0)
    return hits, ndcg


def interval(difference: Ranks) -> str:
    """Its mean with the 95 % interval of 10,000 draws of sessions."""
    draw = np.random.default_rng(1)
    n = len(difference)
    drawn = [difference[draw.integers(0, n, n)].mean() for _ in range(10_000)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{difference.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown, a table for each dataset and setting."""
    for key in dict.fromkeys(row["key"] for row in rows):
        own = [row for row in rows if row["key"] == key]
        one = own[0]
        yield f"\n{one['data']}, {one['view']}: {one['targets']} targets, epochs {one['epochs']}\n"
        heads = ("case", "seeds", *METRICS, "NDCG@10 − SASRec's", "seconds per epoch")
        yield f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}"
        by_case = {c: [r for r in own if r["case"] == c] for c in (*FLOORS, *CASES)}
        base = by_case["sasrec"]
        for case, found in by_case.items():
            if found:
                yield _line(case, found, base)
        yield "\n| rare | case | n | HR@10 | NDCG@10 |\n|---|---|---|---|---|"
        for what in dict.fromkeys(name for row in own for name in row["rare"]):
            for case, found in by_case.items():
                some = [row["rare"][what] for row in found if what in row["rare"]]
                if some:
                    hr, ndcg = (np.mean([s[m] for s in some]) for m in METRICS[:2])
                    yield f"| {what} | {case} | {some[0]['n']} | {hr:.4f} | {ndcg:.4f} |"


def _line(case: str, found: list[dict[str, Any]], base: list[dict[str, Any]]) -> str:
    cells = [case, str(len(found))]
    for metric in METRICS:
        values = [row["metrics"][metric] for row in found]
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.4f}{spread}")
    paired = "–"
    if base and case != "sasrec":
        paired = interval(gains(found)[1] - gains(base)[1])
    stages = dict.fromkeys(stage for row in found for stage in row["seconds"])
    taken = [f"{stage} {statistics.median(r['seconds'][stage] for r in found):.1f}"
             for stage in stages]  # fmt: skip
    return f"| {' | '.join([*cells, paired, ', '.join(taken) or '–'])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--text", default="title_vector", help="fields of vectors, joined by +")
    parser.add_argument("--user-text", default="none", help="fields of users' vectors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--sasrec", type=int, default=20, help="epochs")
    parser.add_argument("--retriever", type=int, default=10, help="epochs")
    parser.add_argument("--joint", type=int, default=5, help="epochs")
    parser.add_argument("--params", type=parse_params, default={}, metavar="K=V,…")
    parser.add_argument("--view", choices=("search", "full"), default="full")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = Rows(args.out)
    if not args.table:
        began = time.perf_counter()
        bench = Bench(args, rows)
        bench.floors()
        for seed in args.seed:
            bench.seed(seed)
        print(f"  {time.perf_counter() - began:.0f} s", file=sys.stderr)
    print("\n".join(table(rows.found)))


if __name__ == "__main__":
    main()
