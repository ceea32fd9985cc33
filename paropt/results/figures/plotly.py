"""Figures as Plotly's JSON, which a browser draws; no plotting library is needed here."""

from __future__ import annotations

from typing import Any

from paropt.results.figures.description import (
    COLOURS,
    DEEP,
    PALE,
    Bars,
    Cells,
    Figure,
    Lines,
    Marks,
    Series,
)

Json = dict[str, Any]
FEW = 12  # counted values that each get a tick of their own


def plotly(figure: Figure) -> Json:
    """``{"data": traces, "layout": …}``."""
    layout = {
        # below the tools that Plotly shows at the top right
        "title": {"text": figure.title, "font": {"size": 15}, "x": 0.02, "y": 0.9},
        "xaxis": {"title": {"text": figure.x}},
        "yaxis": {"title": {"text": figure.y}},
        "hovermode": "closest",
        "margin": {"t": 75, "r": 20},
        "showlegend": False,
    }
    match figure:
        case Lines():
            return _lines(figure, layout)
        case Marks():
            return _marks(figure, layout)
        case Bars():
            return _bars(figure, layout)
        case Cells():
            return _cells(figure, layout)
    raise TypeError(f"no figure: {figure!r}")


def _lines(figure: Lines, layout: Json) -> Json:
    traces = []
    for one, colour in figure.shown:
        trace: Json = {
            "type": "scatter",
            "mode": "markers" if one.dots else "lines",
            "x": [x for x, _ in one.points],
            "y": [y for _, y in one.points],
            "name": one.legend or one.name,
            "showlegend": bool(one.legend),
            "opacity": one.opacity,
            "hovertemplate": f"{one.name}<br>%{{x}}: %{{y:.4f}}<extra></extra>",
        }
        if one.dots:
            trace["marker"] = _marker(one, colour)
        else:
            shape = "hv" if one.steps else "linear"
            trace["line"] = {"color": COLOURS[colour], "width": one.width, "shape": shape}
            if one.dash:
                trace["line"]["dash"] = one.dash
            if len(one.known) == 1:
                trace["mode"] = "markers"  # a line through one point is not to be seen
                trace["marker"] = _marker(one, colour)
        traces.append(trace)
    layout["showlegend"] = any(trace["showlegend"] for trace in traces)
    last = max((x for one, _ in figure.shown for x, _ in one.points), default=0)
    if figure.whole and last <= FEW:
        layout["xaxis"]["dtick"] = 1
    if figure.zero:
        layout["yaxis"]["rangemode"] = "tozero"
    return {"data": traces, "layout": layout}


def _marker(one: Series, colour: int) -> Json:
    symbol = {"triangle": "triangle-up"}.get(one.shape, one.shape)
    return {
        "color": COLOURS[colour],
        "size": 8,
        "symbol": f"{symbol}-open" if one.hollow else symbol,
    }


def _marks(figure: Marks, layout: Json) -> Json:
    names = [mark.name for mark in figure.marks]
    colours = [COLOURS[colour] for _, colour in figure.shown]
    dots: Json = {
        "type": "scatter",
        "mode": "markers",
        "x": [mark.value for mark in figure.marks],
        "y": names,
        "name": figure.dots,
        "marker": {"color": colours, "size": 11},
        "showlegend": bool(figure.dots),
    }
    if any(mark.interval for mark in figure.marks):
        ends = [mark.interval or (mark.value, mark.value) for mark in figure.marks]
        values = [mark.value for mark in figure.marks]
        dots["error_x"] = {
            "type": "data",
            "array": [high - value for (_, high), value in zip(ends, values, strict=True)],
            "arrayminus": [value - low for (low, _), value in zip(ends, values, strict=True)],
        }
    rings: Json = {
        "type": "scatter",
        "mode": "markers",
        "x": [value for mark in figure.marks for value in mark.singles],
        "y": [mark.name for mark in figure.marks for _ in mark.singles],
        "name": figure.rings,
        "marker": {"color": COLOURS[2], "size": 10, "symbol": "circle-open"},
        "showlegend": bool(figure.rings),
    }
    layout["yaxis"] |= {"autorange": "reversed", "type": "category", "automargin": True}
    layout["showlegend"] = bool(figure.dots or figure.rings)
    return {"data": [trace for trace in (rings, dots) if trace["x"]], "layout": layout}


def _bars(figure: Bars, layout: Json) -> Json:
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [value for _, value in figure.bars],
        "y": [name for name, _ in figure.bars],
        "text": [f"{value:.0%}" for _, value in figure.bars],
        "marker": {"color": COLOURS[0]},
    }
    layout["xaxis"] |= {"tickformat": ".0%"}
    layout["yaxis"] |= {"autorange": "reversed", "type": "category", "automargin": True}
    return {"data": [trace], "layout": layout}


def _cells(figure: Cells, layout: Json) -> Json:
    rgb = [f"rgb({r},{g},{b})" for r, g, b in (PALE, DEEP)]
    trace = {
        "type": "heatmap",
        "x": list(range(1, figure.width + 1)),
        "y": [name for name, _ in figure.rows],
        "z": [list(values) for _, values in figure.rows],
        "zmin": 0,
        "zmax": figure.most,
        "colorscale": [[0, rgb[0]], [1, rgb[1]]],
        "colorbar": {"title": {"text": figure.scale}},
    }
    layout["yaxis"] |= {"autorange": "reversed", "type": "category"}
    if figure.width <= FEW:
        layout["xaxis"]["dtick"] = 1
    return {"data": [trace], "layout": layout}
