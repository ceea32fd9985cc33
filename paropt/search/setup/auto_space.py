"""Which models suit a dataset, and in which ranges: a space made of the shipped ones by rules.

The rules are written down here, each with its reason, and told to the user as they are applied.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from paropt.errors import SpaceError
from paropt.search.setup.text_space import UR4REC, TextFacts, suit_texts, text_facts
from paropt.search.space import shipped
from paropt.search.space.file import EPOCHS, of_object, parse_fixed, suggest
from paropt.search.space.start_points import changed, distinct, values_of

if TYPE_CHECKING:
    from paropt.data import Dataset
    from paropt.search.space.space import Space

# Half of a log's events lie in histories up to its typical length. Short ones keep no model out: on
# sessions of three clicks SASRec's search ended above GRU4Rec's (benchmarks/quality/README.md).
# GRU4Rec is trained without gradients through time, which costs nothing in short sessions; beyond
# LONG, and on users' whole histories, what matters may lie further back than it learns to keep.
LONG = 50
# Up to FEW items a softmax over all of them costs about what thousands of negatives would.
FEW_ITEMS = 10_000
# From MANY on, the logits of one batch (128 sequences × 200 events × items × 4 B) pass 10 GB.
MANY_ITEMS = 100_000
# What the item table and its optimiser's moments may take: a quarter of a 16 GB device.
TABLE_BYTES = 4 << 30
ADAM_BYTES, ADAGRAD_BYTES = 16, 12  # per weight: itself, gradient, two moments; or sum and momentum
# Below, wide models learn the sessions by heart before they learn what is common to them.
FEW_EVENTS = 100_000
FEW_EVENTS_WIDTH, FEW_EVENTS_LAYERS = 128, 256
# From so many events on, ten epochs are more steps than forty of any of the published sets.
MANY_EVENTS = 3_000_000
MANY_EVENTS_EPOCHS = 10
# An epoch should be ten batches at the least, or Adam sees too few gradients to go by.
BATCHES = 10
# Less of a field than this share of the items tells few of them apart from what has none of it.
KNOWN = 0.5
# A category of which most items have one of their own is another id of theirs.
OWN_VALUES = 0.5
COVERED = 0.95  # of the events should lie in histories that fit into max_length

COUNTING = ("session_knn", "markov", "item_knn")
LONG_SHORT = "long_short"
MODELS = (*COUNTING, "gru4rec", "sasrec", "hstu", UR4REC)

Source = dict[str, Any]
Entry = dict[str, Any]


@dataclass(frozen=True)
class DataFacts:
    """What the rules look at, of the split ``train``.

    ``parts_lack``: columns that data cut into long and short parts lack; None of other data.
    ``typical`` and ``covering``: half, and 95 %, of the events are in histories of that length or
    shorter. ``features`` and ``vectors`` are what is known of items beside their ids, and of most
    of them.
    """

    items: int
    sessions: int
    events: int
    typical: int
    covering: int
    has_times: bool
    whole_histories: bool
    features: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    texts: TextFacts = field(default_factory=TextFacts)
    parts_lack: tuple[str, ...] | None = None


def facts_of(dataset: Dataset) -> DataFacts:
    """The facts of a dataset's training part."""
    train = dataset.split("train")
    lengths = np.sort(np.diff(train.offsets))
    upto = np.cumsum(lengths)
    typical, covering = (
        int(lengths[np.searchsorted(upto, share * upto[-1])]) for share in (0.5, COVERED)
    )
    return DataFacts(
        items=dataset.n_items("train"),
        sessions=len(lengths),
        events=int(upto[-1]),
        typical=typical,
        covering=covering,
        has_times=dataset.has_times,
        whole_histories=dataset.protocol != "time",
        features=_known_fields(dataset, ("category", "categories", "number")),
        parts_lack=_parts_lack(dataset),
        vectors=_known_fields(dataset, ("vector",)),
        texts=text_facts(dataset, KNOWN),
    )


def _parts_lack(dataset: Dataset) -> tuple[str, ...] | None:
    """Of data cut into long and short parts, the columns that they lack; None of others."""
    if dataset.protocol != "long-short":
        return None
    return tuple(n for n in ("category", "behaviour") if n not in dataset.fields("events"))


def _known_fields(dataset: Dataset, kinds: Sequence[str]) -> tuple[str, ...]:
    """The fields of items, of these kinds, that most items have and that are no ids themselves."""
    n_items = dataset.n_items("test")
    return tuple(
        name
        for name, field in dataset.fields("items").items()
        if field.kind in kinds
        and "+" not in name  # it joins names in a parameter
        and field.missing <= (1 - KNOWN) * n_items
        and not (field.kind == "category" and field.size > OWN_VALUES * n_items)
    )


def suited_space(dataset: Dataset, fixed: Iterable[str] = ()) -> tuple[Space, list[str]]:
    """A space for a dataset, and one sentence for each of the decisions in it.

    What ``fixed`` (``k=v,…``) names is not searched: nobody wrote this space, so nobody can take
    the range out of it.

    Raises:
        SpaceError, ParamError: ``fixed`` does not fit it.
    """
    from paropt.search.setup.check_space import checked

    given = parse_fixed(fixed)
    model = given.pop("model", None)
    source, reasons = compose(facts_of(dataset), model)
    for name, value in given.items():
        _yield_to(name, value, source)
    texts = [f"{name}={value}" for name, value in given.items()]
    return checked(of_object(source, texts, "the space made for the data")), reasons


def _yield_to(name: str, value: Any, source: Source) -> None:
    """Takes the ranges of ``name`` out, for the models that have it to be given the value."""
    entry = source["search"].pop(name, None)
    if entry is None:
        return
    ranges = entry if isinstance(entry, list) else [entry]
    having = [r["when"]["model"] for r in ranges if "model" in r.get("when", {})]
    models = [m for one in having for m in ([one] if isinstance(one, str) else one)]
    if len(having) == len(ranges):
        source["fixed"][name] = {"value": None, "when": {"model": list(dict.fromkeys(models))}}
    # what holds only under another value of it is in no point's reach any more
    decides = any(
        name in r.get("when", {})
        for other in source["search"].values()
        for r in (other if isinstance(other, list) else [other])
    )
    alike = [p for p in source["start"] if not decides or p.get(name, value) == value]
    points = [{k: v for k, v in point.items() if k != name} for point in alike]
    source["start"] = distinct(points)


def compose(facts: DataFacts, model: str | None = None) -> tuple[Source, list[str]]:
    """The space as a JSON object, and why it is so; of one ``model`` if the user wants that."""
    if facts.parts_lack is not None and model in (None, LONG_SHORT):
        return _long_short(facts)
    trained, reasons = _models(facts)
    models = [*COUNTING, *trained]
    first = f"{', '.join(COUNTING)} first: they count, which takes seconds, and are hard to beat"
    reasons = [first, *reasons]
    if model is not None:
        if model not in MODELS:
            raise SpaceError(
                f"--fixed: without --space there are ranges of {', '.join(MODELS)}, "
                f"not of {model!r}; {suggest(model, MODELS)}"
            )
        models, reasons = [model], [f"{model}: as --fixed says"]
    sources = {}
    for model in models:
        sources[model] = _source(model, facts)
    reasons += [reason for rule in _RANGES for reason in rule(models, facts)]
    whole = merged("model", sources)
    whole["note"] = f"Made for the data: {'; '.join(reasons)}."
    return whole, reasons


def _long_short(facts: DataFacts) -> tuple[Source, list[str]]:
    """Of the one model that reads long and short parts; no other is judged by the same thing."""
    source = _read("longterm")
    reasons = [f"{LONG_SHORT}: histories are cut into long and short parts"]
    _keep(source["search"]["batch_size"], facts.sessions // BATCHES)
    for column in facts.parts_lack or ():
        source["fixed"][column] = False
        reasons.append(f"no {column}: the data have no such column")
    source["note"] = f"Made for the data: {'; '.join(reasons)}."
    return {"model": LONG_SHORT, **_inside(source)}, reasons


# -- the rules ------------------------------------------------------------------------------


def _models(facts: DataFacts) -> tuple[list[str], list[str]]:
    length = f"half of the events are in histories of up to {facts.typical}"
    if facts.whole_histories:
        models, why = ["sasrec", "hstu"], "each sequence is a user's whole history (leave-one-out)"
    elif facts.typical <= LONG:
        models, why = ["gru4rec", "sasrec", "hstu"], f"{length}, which may suit each kind of model"
    else:
        models, why = ["sasrec", "hstu"], f"{length}, longer than GRU4Rec is trained to look back"
    reasons = [f"{' and '.join(models)}: {why}"]
    if "hstu" in models and not facts.has_times:
        models = [model for model in models if model != "hstu"]
        reasons = [
            f"{' and '.join(models)}: {why}",
            "no hstu: the log has an order but no times, which its attention is about",
        ]
    if facts.texts.items:
        models = [*models, UR4REC]
        reasons.append(f"{UR4REC}: items have texts ({', '.join(facts.texts.items)})")
    return models, reasons


def _says_losses(models: Sequence[str], facts: DataFacts) -> list[str]:
    reasons = []
    if "gru4rec" in models:
        n_sample = _n_sample(facts)
        reasons.append(
            f"gru4rec with cross-entropy and BPR-max, each published best on some sets, over "
            f"{n_sample} samples"
            + (f", at most half of {facts.items:,} items" if n_sample < 2048 else "")
        )
    if set(models) - {"gru4rec", *COUNTING}:
        count = f"{facts.items:,} items"
        reasons.append(
            {
                "all": f"softmax over the whole catalogue: {count} are few",
                "sampled": f"sampled losses only: {count} make too large a softmax",
                "both": f"softmax over the whole catalogue or a sample: {count} allow either",
            }[_softmax(facts)]
        )
    return reasons


def _says_sizes(models: Sequence[str], facts: DataFacts) -> list[str]:
    reasons: list[str] = []
    if not set(models) - set(COUNTING):
        return reasons
    if facts.events < FEW_EVENTS:
        reasons.append(f"narrow models: {facts.events:,} events are few")
    if _widest(facts, ADAM_BYTES) < 256:
        reasons.append(f"narrow models: a wider table of {facts.items:,} items needs much memory")
    if set(models) - {"gru4rec", *COUNTING} and facts.events >= MANY_EVENTS:
        reasons.append(f"{MANY_EVENTS_EPOCHS} epochs: {facts.events:,} events are many")
    if facts.sessions < (512 if {"sasrec", "hstu"} & set(models) else 256) * BATCHES:
        reasons.append(f"small batches: there are {facts.sessions:,} sessions")
    return reasons


def _says_items(models: Sequence[str], facts: DataFacts) -> list[str]:
    known = [*facts.features, *facts.vectors]
    if not known or not {"sasrec", "hstu"} & set(models):
        return []
    return [f"items by their ids alone, and with {', '.join(known)}"]


_RANGES = (_says_losses, _says_sizes, _says_items)


def _softmax(facts: DataFacts) -> str:
    if facts.items <= FEW_ITEMS:
        return "all"
    return "both" if facts.items <= MANY_ITEMS else "sampled"


def _n_sample(facts: DataFacts) -> int:
    """Of GRU4Rec: 2048 as published, but not more than half of the items; a power of two."""
    return int(min(2048, max(8, 2 ** int(np.log2(max(facts.items // 2, 1))))))


def _widest(facts: DataFacts, bytes_per_weight: int) -> int:
    return int(TABLE_BYTES // (bytes_per_weight * facts.items))


# -- the shipped spaces, cut to size ----------------------------------------------------------


def _source(model: str, facts: DataFacts) -> Source:
    if model in COUNTING:
        return _read(model)
    return _gru4rec(facts) if model == "gru4rec" else _sequences(model, facts)


def _gru4rec(facts: DataFacts) -> Source:
    source = merged(
        "loss",
        {"cross-entropy": _read("gru4rec_xe_shared"), "bpr-max": _read("gru4rec_bprmax_shared")},
    )
    del source["search"]["logq"]  # of cross-entropy only; elsewhere 0 is the default
    source["fixed"]["logq"] = {"value": 1.0, "when": {"loss": "cross-entropy"}}
    source["fixed"]["n_sample"] = _n_sample(facts)
    widest = _widest(facts, ADAGRAD_BYTES)
    if facts.events < FEW_EVENTS:
        widest = min(widest, FEW_EVENTS_LAYERS)
    _lower(source["search"]["layers"], widest)
    _lower(source["search"]["batch_size"], facts.sessions // BATCHES)
    return _inside(source)


def _sequences(model: str, facts: DataFacts) -> Source:
    source = _read(model)
    search = source["search"]
    widest = _widest(facts, ADAM_BYTES)
    if facts.events < FEW_EVENTS:
        widest = min(widest, FEW_EVENTS_WIDTH)
    _keep(search["dim"], widest)
    _keep(search["batch_size"], facts.sessions // BATCHES)
    # the first length that covers them, and those below
    lengths = search["max_length"]["choices"]
    _keep(
        search["max_length"], min((n for n in lengths if n >= facts.covering), default=max(lengths))
    )
    _keep_losses(source, _softmax(facts))
    if model == UR4REC:
        suit_texts(source, facts.texts, MANY_EVENTS_EPOCHS if facts.events >= MANY_EVENTS else None)
        return _inside(source)
    if facts.events >= MANY_EVENTS:
        source["fixed"][EPOCHS] = MANY_EVENTS_EPOCHS
    source = _inside(source)  # a point that the data rule out can't begin with what they know
    _search_items(source, facts)
    return source


def _search_items(source: Source, facts: DataFacts) -> None:
    """What items are made of: in each start point their ids alone, and in one more, the first,
    also all vectors, from which they begin (else all features)."""
    if not (facts.features or facts.vectors):
        return
    search, start = source["search"], source["start"]
    alone: dict[str, Any] = {}
    rich: dict[str, Any] = {}
    for name, known in (("features", facts.features), ("vectors", facts.vectors)):
        if known:
            joined = "+".join(known)
            search[name] = _choice(["none", joined])
            alone[name], rich[name] = "none", joined
    first = "vectors" if facts.vectors else "features"
    search["id_init"] = _choice(["normal", "zero"]) | {"when": {first: rich[first]}}
    beginning = {**alone, first: rich[first], "id_init": "zero"}
    first_point = dict(start[0])
    source["start"] = [{**first_point, **alone}, {**first_point, **beginning}]
    source["start"] += [{**point, **alone} for point in start[1:]]


def _read(name: str) -> Source:
    source: Source = json.loads(shipped.spaces()[name].read_text("utf-8"))
    return {key: source.get(key, {}) for key in ("model", "fixed", "search")} | {
        "start": source.get("start", [])
    }


def _lower(entry: Entry, highest: int) -> None:
    """A range's upper end brought down onto its grid, to its lower end at the least."""
    steps = max(0, min(highest, entry["high"]) - entry["low"]) // entry["step"]
    entry["high"] = entry["low"] + steps * entry["step"]


def _keep(entry: Entry, highest: int) -> None:
    """The choices up to ``highest``; the smallest in any case."""
    entry["choices"] = [n for n in entry["choices"] if n <= highest] or [min(entry["choices"])]


def _keep_losses(source: Source, softmax: str) -> None:
    search = source["search"]
    losses = search["loss"]["choices"]
    if softmax != "both":
        losses = [loss for loss in losses if (loss == "cross-entropy") == (softmax == "all")]
    search["loss"]["choices"] = losses
    for name, entry in list(search.items()):
        wanted = entry.get("when", {}).get("loss")
        if wanted is None:
            continue
        met = [loss for loss in losses if loss in ([wanted] if isinstance(wanted, str) else wanted)]
        if met:
            entry["when"]["loss"] = met
        else:
            del search[name]


def _inside(source: Source) -> Source:
    """The start points moved into the ranges; those that name what is not searched go."""
    points = []
    for point in source["start"]:
        own = values_of(point)
        moved = {name: _moved(value, source["search"].get(name)) for name, value in own.items()}
        if None not in moved.values():
            points.append(changed(point, moved))
    return {**source, "start": distinct(points)}


def _moved(value: Any, entry: Any) -> Any:
    """The value, or the nearest bound or number of the entry; None where there is none such."""
    if not isinstance(entry, dict):
        return None
    choices = entry.get("choices")
    if choices is None:
        return min(max(value, entry["low"]), entry["high"])
    if value in choices:
        return value
    if isinstance(value, str | bool):
        return None
    return min(choices, key=lambda choice: abs(choice - value))


# -- several spaces as one ------------------------------------------------------------------


def merged(key: str, sources: Mapping[str, Source]) -> Source:
    """One space that chooses among several by the parameter ``key``.

    What is alike in all is said once; the rest holds where ``key`` has the value.
    """
    if len(sources) == 1:
        return next(iter(sources.values()))
    entries = {value: _entries(source, key) for value, source in sources.items()}
    names = dict.fromkeys(name for own in entries.values() for name in own)
    whole: Source = {"fixed": {}, "search": {key: _choice(list(sources))}, "start": []}
    if key != "model":
        whole["model"] = next(iter(sources.values()))["model"]
    for name in names:
        having = {value: own[name] for value, own in entries.items() if name in own}
        ranges = _under(key, having, len(sources))
        alone = ranges[0] if len(ranges) == 1 else {}
        if alone.get("type") == "categorical" and len(alone["choices"]) == 1:
            (constant,) = alone["choices"]
            when = {"when": alone["when"]} if alone.get("when") else {}
            whole["fixed"][name] = {"value": constant, **when} if when else constant
        else:
            whole["search"][name] = alone or ranges
    for index in range(max(len(source["start"]) for source in sources.values())):
        for value, source in sources.items():
            whole["start"] += [
                {key: value, **point} for point in source["start"][index : index + 1]
            ]
    return whole


def _entries(source: Source, key: str) -> dict[str, list[Entry]]:
    """Ranges by name; a constant is a choice of one."""
    found: dict[str, list[Entry]] = {}
    for name, value in source["fixed"].items():
        constant = value if isinstance(value, dict) else {"value": value}
        when = {"when": constant["when"]} if "when" in constant else {}
        found[name] = [_choice([constant["value"]]) | when]
    for name, entry in source["search"].items():
        found[name] = entry if isinstance(entry, list) else [entry]
    if key in found and source["fixed"].get(key) is not None:
        del found[key]
    return found


def _choice(choices: Sequence[Any]) -> Entry:
    return {"type": "categorical", "choices": list(choices)}


def _under(key: str, having: Mapping[str, list[Entry]], of: int) -> list[Entry]:
    """The ranges of one parameter, each under the values of ``key`` that have it."""
    alike: list[tuple[list[str], list[Entry]]] = []
    for value, entries in having.items():
        for values, known in alike:
            if known == entries:
                values.append(value)
                break
        else:
            alike.append(([value], entries))
    if len(alike) == 1 and len(having) == of:
        return alike[0][1]
    return [
        {**entry, "when": {key: values if len(values) > 1 else values[0], **entry.get("when", {})}}
        for values, entries in alike
        for entry in entries
    ]
