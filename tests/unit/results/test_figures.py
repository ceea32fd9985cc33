"""Figures: one description, three drawings that show the same; what they show of a study."""

from __future__ import annotations

import io
import re
import sys
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from paropt.errors import ParoptError
from paropt.results.figures import of_diagnostics, of_study, png
from paropt.results.figures.description import (
    BLUE,
    GREY,
    Bars,
    Cells,
    Figure,
    Lines,
    Mark,
    Marks,
    Series,
    blend,
)
from paropt.results.figures.plotly import plotly
from paropt.results.figures.svg import NARROW, document, svg
from paropt.results.searched import Searched, TrialFacts
from paropt.search.study.summary import Importance

LINES = Lines(
    "curves",
    "Curves & <more>",
    "epoch",
    "mrr@20",
    [
        Series("best", [(1, 0.25), (2, 0.5), (3, None), (4, 0.75)], dash="dash", width=3.0),
        Series("dots", [(1.5, 0.3)], dots=True, colour=1, shape="square", hollow=True),
        Series("quiet", [(1, 0.3), (2, 0.4)], label="", opacity=0.25),
        Series("empty", [(1, None)]),
    ],
    whole=True,
)
BARS = Bars("bars", "What matters", "share", "", [("learning_rate", 0.75), ("layers", 0.25)])
MARKS = Marks(
    "marks",
    "Best of each",
    "mrr@20",
    "",
    [Mark("gru4rec", 0.5, [0.25, 0.75], [0.4, 0.6]), Mark("hstu", 0.25)],
    "mean",
    "each seed",
)
CELLS = Cells("cells", "Load", "epoch", "layer.expert", [("1.1", [2.0, 0.5]), ("1.2", [0.0])])


@pytest.mark.parametrize("figure", [LINES, BARS, MARKS, CELLS])
def test_every_figure_is_drawn_in_every_way(figure: Figure) -> None:
    found = plotly(figure)
    assert found["layout"]["title"]["text"] == figure.title
    root = ElementTree.fromstring(document(figure))
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {figure.title, figure.x, figure.y} - {""} <= set(words)
    narrow = ElementTree.fromstring(svg(figure, NARROW))
    assert narrow.get("viewBox", "").split()[2] == "400"
    assert {element.text for element in narrow.iter("text")} >= {figure.x}
    content = png.png(figure)
    assert content == png.png(figure)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG" and picture.size == (1290, 600)
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10


def test_lines_are_the_same_numbers_in_plotly_and_svg() -> None:
    best, dots, quiet = plotly(LINES)["data"]
    assert (best["x"], best["y"]) == ([1, 2, 3, 4], [0.25, 0.5, None, 0.75])
    assert (best["line"]["dash"], best["line"]["width"], best["mode"]) == ("dash", 3.0, "lines")
    assert (dots["mode"], dots["y"]) == ("markers", [0.3])
    assert dots["marker"]["symbol"] == "square-open"
    assert (quiet["showlegend"], quiet["opacity"]) == (False, 0.25)
    assert plotly(LINES)["layout"]["xaxis"]["dtick"] == 1
    text = document(LINES)
    assert text.count("<path") == 2 and 'stroke-dasharray="6 4"' in text
    assert "quiet" not in text and "empty" not in text
    assert "var(" not in text  # not every reader of SVG knows CSS variables
    # y of 0.25 and 0.75, the least and most of all, lie 5 % inside the axis: 298 to 36
    path = re.search(r'<path d="M[\d.]+ ([\d.]+)L[\d.]+ ([\d.]+)L[\d.]+ ([\d.]+)"', text)
    assert path
    low, middle, high = map(float, path.groups())
    assert low == pytest.approx(298 - 262 * 0.025 / 0.55, abs=0.06)
    assert middle == pytest.approx((low + high) / 2, abs=0.06)


def test_steps_hold_their_value_until_the_next() -> None:
    steps = Lines("steps", "t", "x", "y", [Series("best", [(0, 0.0), (1, 1.0)], steps=True)])
    assert plotly(steps)["data"][0]["line"]["shape"] == "hv"
    # along to the next x first, then up
    assert re.search(r'<path d="M[\d.]+ [\d.]+H[\d.]+V[\d.]+"', document(steps))


def test_cells_are_paler_for_less() -> None:
    (trace,) = plotly(CELLS)["data"]
    assert (trace["z"], trace["y"], trace["zmax"]) == ([[2.0, 0.5], [0.0]], ["1.1", "1.2"], 2.0)
    assert trace["colorscale"] == [[0, "rgb(255,255,255)"], [1, "rgb(29,78,216)"]]
    assert (blend(0.0), blend(1.0), blend(7.0)) == ((255, 255, 255), (29, 78, 216), (29, 78, 216))
    text = document(CELLS)
    for value in (2.0, 0.5, 0.0):
        red, green, blue = blend(value / 2)
        assert f'fill="rgb({red},{green},{blue})"><title>{value:.4f}' in text


def test_without_matplotlib_png_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    png.require()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ParoptError, match=r"pip install 'paropt\[plot\]'.*--format svg"):
        png.require()


# -- of a study ---------------------------------------------------------------------------------


def point(spent: float, value: float | None, best: float, **more: Any) -> dict[str, Any]:
    return {"spent": spent, "value": value, "best": best, "model": "gru4rec", **more}


def searched(**more: Any) -> Searched:
    space = {"models": more.pop("models", ["gru4rec"])}
    return Searched("shop", "mrr@20", "f" * 64, "data/shop", space=space, **more)


def test_time_is_counted_in_what_suits_it() -> None:
    points = [
        point(60.0, 0.2, 0.2, state="complete"),
        point(90.0, None, 0.2, state="failed"),  # it cost time
        point(120.0, 0.1, 0.2, state="pruned"),
    ]
    floor = {"popularity": {"mrr@20": 0.05}, "cooccurrence": {"recall@20": 0.4}}
    short = of_study.over_time(searched(points=points, floor=floor))
    best, complete, pruned, popularity = short.series
    assert short.x.startswith("device minutes")
    assert best.points == [(1.0, 0.2), (1.5, 0.2), (2.0, 0.2)]
    assert (complete.points, complete.hollow) == ([(1.0, 0.2)], False)
    assert (pruned.points, pruned.hollow, pruned.legend) == ([(2.0, 0.1)], True, "pruned")
    assert popularity.points == [(0.0, 0.05), (2.0, 0.05)]
    long = of_study.over_time(searched(points=[point(7200.0, 0.2, 0.2)]))
    assert long.x.startswith("device hours") and long.series[1].points == [(2.0, 0.2)]


def test_models_are_told_apart_by_colour_and_shape() -> None:
    points = [point(60.0, 0.2, 0.2), point(90.0, 0.1, 0.2) | {"model": "hstu"}]
    found = of_study.over_time(searched(models=["gru4rec", "hstu"], points=points))
    gru4rec, hstu = (series for series, _ in found.shown if series.dots)
    assert (gru4rec.legend, hstu.legend) == ("gru4rec, complete", "hstu, complete")
    assert gru4rec.colour != hstu.colour and gru4rec.shape != hstu.shape
    assert {gru4rec.colour, hstu.colour}.isdisjoint({BLUE, GREY})  # the best, and floors


def test_pruned_curves_are_faded_and_the_best_is_in_front() -> None:
    def trial(number: int, outcome: str, curve: list[float]) -> TrialFacts:
        return TrialFacts(number, outcome, "gru4rec", curve=curve)

    trials = [
        trial(0, "complete", [0.1, 0.5]),
        trial(1, "pruned", [0.1]),
        trial(2, "pruned", [0.2, 0.2]),
        trial(3, "complete", [0.4, 0.3]),
    ]
    floor = {"popularity": {"mrr@20": 0.05}}
    found = of_study.learning_curves(searched(curves=trials, best=trials[:1], floor=floor))
    assert [series.name[:7] for series in found.series] == [
        "trial 1",
        "trial 2",
        "trial 3",
        "trial 0",
        "popular",
    ]
    assert [series.legend for series in found.series] == [
        "pruned",
        "",
        "others",
        "trial 0, the best",
        "popularity",
    ]
    pruned, _, other, best, popularity = found.series
    assert pruned.opacity < other.opacity < best.opacity
    assert (pruned.dash, pruned.hollow, other.dash) == ("dot", True, "")
    assert best.width > other.width
    assert popularity.points == [(1, 0.05), (2, 0.05)]


def test_models_stand_in_order_beside_what_needs_no_training() -> None:
    models = [
        {"model": "gru4rec", "best": 0.2, "overall": 0.3},
        {"model": "hstu", "best": 0.25, "overall": 0.25},
        {"model": "sasrec", "best": None, "overall": None},
    ]
    found = searched(
        models=["gru4rec", "hstu", "sasrec"],
        by_model={"spend": 90.0, "models": models},
        floor={"cooccurrence": {"mrr@20": 0.1}},
    )
    (figure,) = of_study.per_model(found)
    assert [(mark.name, mark.value, list(mark.singles)) for mark in figure.marks] == [
        ("hstu", 0.25, [0.25]),
        ("gru4rec", 0.2, [0.3]),
        ("co-occurrence", 0.1, []),
    ]
    assert "90 device seconds" in figure.title
    assert of_study.per_model(searched()) == []


def test_importance_is_told_for_each_model() -> None:
    one = Importance("hstu", {"learning_rate": 0.75, "dropout": 0.25}, 12, ["rotary"])
    (bars,) = [f for f in of_study.of_search(searched(importances=[one])) if isinstance(f, Bars)]
    assert (bars.name, bars.bars[0]) == ("importance-hstu", ("learning_rate", 0.75))
    assert "12 trials" in bars.title


def test_similarities_and_experts_epoch_by_epoch() -> None:
    said = [
        {"positive": 0.5, "negative": 0.25},
        {"positive": 0.75, "negative": "none"},  # a user's model may say anything
    ]
    similar, apart = of_diagnostics.similarity({"hstu, trial 3": said})
    assert isinstance(similar, Lines) and isinstance(apart, Lines) and not apart.shown
    assert [series.legend for series in similar.series] == ["hstu: positives", "hstu: negatives"]
    assert similar.series[0].points == [(1, 0.5), (2, 0.75)]
    assert similar.series[1].points == [(1, 0.25), (2, None)]

    def layer(load: list[float]) -> dict[str, Any]:
        return {"load": load, "max_violation": max(load) * 2 - 1, "entropy": 0.5, "dead": 1}

    epochs = [[layer([0.75, 0.25]), layer([0.5, 0.5])], [layer([0.5, 0.5]), {}], None]
    load, violation, entropy, dead = of_diagnostics.experts({"hstu, trial 3": epochs})
    assert isinstance(load, Cells) and isinstance(violation, Lines)
    assert load.rows == [
        ("1.1", [1.5, 1.0, None]),
        ("1.2", [0.5, 1.0, None]),
        ("2.1", [1.0, None, None]),
        ("2.2", [1.0, None, None]),
    ]
    assert violation.series[0].points == [(1, 0.5), (2, 0.0), (3, None)]
    assert violation.series[1].points == [(1, 0.0), (2, None), (3, None)]
    assert [figure.name for figure in (entropy, dead)] == [
        "experts-hstu-entropy",
        "experts-hstu-dead",
    ]


def test_cosines_epoch_by_epoch_are_shares_of_what_was_looked_at() -> None:
    said: list[Any] = [
        {"gap": 0.5, "auc": 0.75, "positive_histogram": [1, 0, 0, 3], "negative_histogram": "x"},
        {"gap": 0.25, "auc": None, "positive_histogram": [0, 0, 0, 0]},
        None,
    ]
    _, apart, cosines = of_diagnostics.similarity({"hstu, trial 3": said})
    assert isinstance(apart, Lines) and isinstance(cosines, Cells)
    assert [series.legend for series in apart.series] == ["hstu: gap", "hstu: AUC"]
    assert apart.series[0].points == [(1, 0.5), (2, 0.25), (3, None)]
    assert apart.series[1].points == [(1, 0.75), (2, None), (3, None)]
    assert cosines.name == "cosines-hstu-positives"
    assert cosines.rows == [
        ("0.5", [0.75, None, None]),
        ("0.0", [0.0, None, None]),
        ("-0.5", [0.0, None, None]),
        ("-1.0", [0.25, None, None]),
    ]
