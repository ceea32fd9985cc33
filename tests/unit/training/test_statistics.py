"""Statistics of items: by plain counting, and from nothing but the split that is trained on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from paropt.data.dataset import View, open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import DataError
from paropt.training.batches.catalogue import catalogue, facts
from paropt.training.batches.statistics import of_new_items, statistics
from paropt.training.fitting.fit import Fit
from paropt.training.registry import complete_params
from paropt.training.saved_model.saved import load_model, save_model

DAY = 86_400
ACTS = ("see", "click", "see", "buy")


def log(out: Path, later: int = 0) -> Path:
    """Sixty users of four to six events over ten days; ``later`` turns what valid and test hold."""
    rows = ["SessionId\tItemId\tTime\tact"]
    for user in range(60):
        length = 4 + user % 3
        for step in range(length):
            item = (user * user + 3 * step) % 11
            time = 1_700_000_000 + (user % 7) * DAY // 2 + step * DAY
            act = ACTS[(user + step) % 4]
            if later and step >= length - 2:  # leave one out: valid and test
                item, time, act = (item + later) % 11, time + later * DAY, ACTS[(user + later) % 4]
            rows.append(f"u{user}\t{item}\t{time}\t{act}")
    path = out.with_suffix(".tsv")
    path.write_text("\n".join(rows) + "\n")
    options = Options(
        protocol="leave-one-out", keep_columns=("act",), kinds=("act=category",), min_support=1
    )
    prepare([path], out, options=options)
    return out


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    return open_dataset(log(tmp_path_factory.mktemp("statistics") / "data")).view("search")


def told(view: View) -> dict[str, list[float]]:
    return {name: read(view.n_items).tolist() for name, read in statistics(view).items()}


def test_they_are_what_one_counts(view: View) -> None:
    items, times = view.train.items.tolist(), view.train.times.tolist()
    words = view.dataset.fields("events")["act"].vocabulary
    acts = [words[code] for code in view.train.columns["act"].tolist()]
    found, n = told(view), view.n_items
    assert set(found) == {"stats.events", "stats.quantile", "stats.recency", "stats.age",
                          "stats.act.see", "stats.act.click", "stats.act.buy"}  # fmt: skip
    counts = [items.count(item) for item in range(n)]
    end = max(times)
    for item in range(n):
        own = [t for i, t in zip(items, times, strict=True) if i == item]
        assert found["stats.events"][item] == pytest.approx(math.log(1 + counts[item]))
        assert found["stats.quantile"][item] == pytest.approx(
            sum(count < counts[item] for count in counts) / n
        )
        for name, moment in (("recency", max(own)), ("age", min(own))):
            days = (end - moment) / (1000 * DAY)
            assert found[f"stats.{name}"][item] == pytest.approx(math.log(1 + days), rel=1e-5)
        clicks = sum(i == item and a == "click" for i, a in zip(items, acts, strict=True))
        share = (clicks + 5 * acts.count("click") / len(acts)) / (counts[item] + 5)
        assert found["stats.act.click"][item] == pytest.approx(share, rel=1e-5)


def test_an_item_that_training_never_saw_has_no_time_and_the_usual_share(view: View) -> None:
    beyond = {name: read(view.n_items + 2)[-1] for name, read in statistics(view).items()}
    acts = view.train.columns["act"]
    assert beyond["stats.events"] == 0 and np.isnan(beyond["stats.recency"])
    click = list(view.dataset.fields("events")["act"].vocabulary).index("click")
    assert beyond["stats.act.click"] == pytest.approx((acts == click).mean(), rel=1e-5)


def test_nothing_of_valid_or_test_reaches_them(view: View, tmp_path: Path) -> None:
    other = open_dataset(log(tmp_path / "other", later=4)).view("search")
    assert other.train.items.tolist() == view.train.items.tolist()
    assert other.test.items.tolist() != view.test.items.tolist()
    assert told(other) == told(view)
    # the full view trains on what the search is judged on
    assert told(view.dataset.view("full"))["stats.events"] != told(view)["stats.events"]


def test_a_model_reads_them_as_features_and_keeps_them(view: View, tmp_path: Path) -> None:
    names = ("stats.events", "stats.act.click")
    params = {"dim": 8, "blocks": 1, "max_length": 5, "features": names, "n_epochs": 1}
    fit = Fit("sasrec", params, view, seed=1)
    list(fit.epochs())
    save_model(tmp_path / "saved", fit)
    kept = load_model(tmp_path / "saved").model.catalogue.items
    for name in names:
        expected = torch.from_numpy(statistics(view)[name](view.n_items))
        assert torch.equal(kept.numbers(name), expected)
    assert set(kept.fields) == set(names)


def test_an_item_new_to_a_saved_model_has_those_of_no_event(view: View) -> None:
    support = torch.from_numpy(view.support())
    for name, read in statistics(view).items():
        found = of_new_items(name, torch.from_numpy(read(view.n_items)), support, 2)
        expected = torch.from_numpy(read(view.n_items + 2)[-2:])
        torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-5, atol=1e-6)


def test_other_names_are_refused_with_those_that_there_are(view: View) -> None:
    known = facts(view)
    with pytest.raises(DataError, match=r"'stats.event', which is no statistic.*'stats.events'\?"):
        complete_params("sasrec", {"features": "stats.event"}, known)
    with pytest.raises(DataError, match=r"'genre', which the data lack \(they have none\)"):
        complete_params("sasrec", {"features": "genre"}, known)
    assert "stats.events" not in catalogue(view).features
