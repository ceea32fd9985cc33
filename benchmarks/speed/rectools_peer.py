"""RecTools' SASRec or HSTU on a log, leave one out: what sequence_speed.py --rectools runs.

    PYTHON benchmarks/speed/rectools_peer.py LOG MODEL EPOCHS DROPOUT THREADS

PYTHON is that of an environment with `rectools[torch]`; nothing of paropt is imported. LOG is a TSV
with the columns SessionId, ItemId and Time, in order. Two blocks, one head, 64 dimensions, at most
200 events, batches of 128, Adam at 1e-3, a softmax over the catalogue, as in sequence_speed.py. The
last event of each user is the test; the history is filtered. One JSON line: seconds per epoch, and
metrics.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import rectools
import torch
from rectools.dataset import Dataset
from rectools.dataset.context import get_context
from rectools.models import HSTUModel, SASRecModel


class Watch(lightning.Callback):
    """How long each epoch takes; RecTools trains with a copy of it, which shares the list."""

    seconds: ClassVar[list[float]] = []
    cpu_seconds: ClassVar[list[float]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.began, self.began_cpu = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self.began)
        self.cpu_seconds.append(time.process_time() - self.began_cpu)


def main() -> None:
    log, name, epochs, dropout, threads = sys.argv[1:]
    logging.disable(logging.WARNING)
    torch.set_num_threads(int(threads))
    lightning.seed_everything(1)
    events = pd.read_csv(log, sep="\t")
    events.columns = ["user_id", "item_id", "datetime"]
    # events of the same second keep the file's order
    order = pd.to_timedelta(events.groupby("user_id").cumcount(), unit="us")
    events["datetime"] = pd.to_datetime(events.datetime, unit="s") + order
    events["weight"] = 1.0
    last = events.groupby("user_id").cumcount(ascending=False) == 0
    train, test = events[~last], events[last]
    test = test[test.item_id.isin(train.item_id)]
    dataset = Dataset.construct(train)

    def trainer() -> Any:
        quiet = dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
        )
        return lightning.Trainer(
            min_epochs=int(epochs),
            max_epochs=int(epochs),
            accelerator="cpu",
            callbacks=[Watch()],
            **quiet,
        )

    model = {"sasrec": SASRecModel, "hstu": HSTUModel}[name](
        n_blocks=2,
        n_heads=1,
        n_factors=64,
        session_max_len=200,
        dropout_rate=float(dropout),
        loss="softmax",
        lr=1e-3,
        batch_size=128,
        epochs=int(epochs),
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
    )
    model.fit(dataset)
    more = {"context": get_context(test)} if name == "hstu" else {}
    found = model.recommend(test.user_id.unique(), dataset, k=20, filter_viewed=True, **more)
    hits = found.merge(test[["user_id", "item_id"]], on=["user_id", "item_id"])["rank"].to_numpy()
    ten = hits[hits <= 10]
    print(
        json.dumps(
            {
                "rectools": rectools.__version__,
                "seconds": Watch.seconds,
                "cpu_seconds": Watch.cpu_seconds,
                "recall@10": len(ten) / len(test),
                "ndcg@10": float((1 / np.log2(ten + 1)).sum()) / len(test),
            }
        )
    )


if __name__ == "__main__":
    main()
