"""Reading and checking of ``paramspaces/*.json``, and of GRU4Rec's own JSON-lines spaces."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

from paropt.errors import SpaceError, did_you_mean
from paropt.search.space import json_with_lines
from paropt.search.space.json_with_lines import Origin
from paropt.search.space.parameter import Kind, Parameter, same
from paropt.search.space.pinning import moved, pinned, searched_names
from paropt.search.space.space import Space, reachable
from paropt.search.space.start_points import FROM, values_of

EPOCHS = "n_epochs"  # every model's number of epochs goes by this name

_FIELDS = ("model", "note", "data", "fixed", "search", "start", "epochs")
_RANGE_FIELDS = {
    "int": ("type", "low", "high", "step", "log", "when"),
    "float": ("type", "low", "high", "step", "log", "when"),
    "categorical": ("type", "choices", "when"),
    "value": ("value", "when"),
}
_OTHER_WORDS = {"integer": "int", "double": "float", "number": "float", "choice": "categorical"}
_MAX_POINTS = 10_000_000  # of one parameter's grid
_LARGEST = 10**15  # a bound beyond it is a slip, and would lose digits as a float

Where = tuple[str | int, ...]


def read_space(path: str | Path, fixed: Iterable[str] = ()) -> Space:
    """The space of a file; ``fixed`` holds ``k=v,…`` texts that replace or add to its own.

    What it searches gets that value in every trial.

    Raises:
        SpaceError: the file cannot be read, or says something impossible (``file:line: …``).
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise SpaceError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpaceError(
            f"{path} is not UTF-8 text; a space is JSON (and pickles are never loaded), such as "
            "paramspaces/demo.json"
        ) from None
    try:
        source, lines = _load(text)
    except json_with_lines.JsonError as error:
        raise SpaceError(f"{path}:{error.line}: {error}") from None
    return of_object(source, fixed, str(path), lines)


def of_object(
    source: Any,
    fixed: Iterable[str] = (),
    name: str = "space",
    lines: Mapping[json_with_lines.Path, int] | None = None,
) -> Space:
    """The space of a JSON object from anywhere; ``fixed`` as in :func:`read_space`.

    ``name`` stands in errors, with the line of ``lines`` where that is known.
    """
    given = parse_fixed(fixed)
    if "elu_param" in given and isinstance(source, dict) and source.get("model") == "gru4rec":
        given.setdefault("final_act", final_act_of(given.pop("elu_param")))
    reader = _Reader(Origin(name, lines or {}, frozenset(given)))
    from_search = {key: given.pop(key) for key in searched_names(source, given)}
    if from_search:
        source = pinned(source, from_search)
        bare = reader.space(reader.with_fixed({**source, "start": []}, given))
        source["start"] = moved(bare, source.get("start", []), from_search)
    return reader.space(reader.with_fixed(source, given))


def from_json(source: Mapping[str, Any], name: str = "space") -> Space:
    """The space of an object that :meth:`Space.to_json` gave."""
    reader = _Reader(Origin(name))
    return reader.space(dict(source))


def parse_fixed(texts: Iterable[str]) -> dict[str, Any]:
    """``k=v,…`` as on GRU4Rec's command line: numbers, true/false and text.

    Raises:
        SpaceError: a part without "=", or a name given twice.
    """
    fixed: dict[str, Any] = {}
    for part in (part.strip() for text in texts for part in text.split(",")):
        if not part:
            continue
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not value:
            raise SpaceError(f"--fixed takes k=v,…; {part!r} has no value")
        if name in fixed:
            raise SpaceError(f"--fixed gives {name!r} twice")
        fixed[name] = _scalar(value)
    return fixed


def _scalar(text: str) -> Any:
    word = {"True": True, "False": False, "true": True, "false": False}.get(text)
    if word is not None:
        return word
    for parse in (int, float):
        try:
            number = parse(text)
        except ValueError:
            continue
        return number if number - number == 0 else text  # "nan" and "inf" stay words
    return text


# -- GRU4Rec's own format -----------------------------------------------------------------------


def _load(text: str) -> tuple[Any, dict[json_with_lines.Path, int]]:
    """A JSON object, or JSON lines turned into one."""
    rows = [(number, row) for number, row in enumerate(text.split("\n"), 1) if row.strip()]
    if not rows:
        raise json_with_lines.JsonError(1, "the file is empty")
    try:
        first, _ = json_with_lines.load(rows[0][1], rows[0][0])
    except json_with_lines.JsonError:
        return json_with_lines.load(text)
    if not (isinstance(first, dict) and "name" in first and "dtype" in first):
        return json_with_lines.load(text)
    search: dict[str, Any] = {}
    lines: dict[json_with_lines.Path, int] = {(): 1, ("search",): rows[0][0]}
    for number, row in rows:
        name, entry = _gru4rec_line(json_with_lines.load(row, number)[0], number)
        if name in search:
            raise json_with_lines.JsonError(number, f'"{name}" is said twice')
        search[name] = entry
        lines["search", name] = number
    return {"model": "gru4rec", "search": search}, lines


def _gru4rec_line(entry: Any, line: int) -> tuple[str, dict[str, Any]]:
    def refuse(message: str) -> NoReturn:
        raise json_with_lines.JsonError(line, message)

    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        refuse('a line should be an object with "name", "dtype" and "values"')
    name, dtype, values = entry["name"], entry.get("dtype"), entry.get("values")
    if odd := sorted(set(entry) - {"name", "dtype", "values", "step", "log"}):
        refuse(f'"{name}": unknown field {odd[0]!r}')
    if not isinstance(values, list):
        refuse(f'"{name}": "values" should be a list, not {values!r}')
    if dtype == "categorical":
        if name == "elu_param":
            try:
                return "final_act", {"type": dtype, "choices": [final_act_of(v) for v in values]}
            except SpaceError as error:
                refuse(str(error))
        return name, {"type": dtype, "choices": values}
    if dtype not in ("int", "float"):
        refuse(f'"{name}": "dtype" should be int, float or categorical, not {dtype!r}')
    if len(values) != 2:
        refuse(f'"{name}": "values" should be [low, high], not {values!r}')
    parsed: dict[str, Any] = {"type": dtype, "low": values[0], "high": values[1]}
    if entry.get("step") is not None:
        parsed["step"] = entry["step"]
    if entry.get("log"):
        parsed["log"] = entry["log"]
    return name, parsed


def final_act_of(elu_param: Any) -> str:
    """The official PyTorch version's number in the Theano version's word.

    Raises:
        SpaceError: it isn't a number that is 0 or above.
    """
    if isinstance(elu_param, bool) or not isinstance(elu_param, (int, float)) or elu_param < 0:
        raise SpaceError(f"elu_param should be 0 or above, not {elu_param!r}")
    return f"elu-{elu_param:g}" if elu_param else "linear"


def _revalued(own: Any, value: Any) -> Any:
    """A new value where the old one holds: under its condition, if it has one."""
    return {**own, "value": value} if isinstance(own, dict) and "when" in own else value


# -- the JSON object ----------------------------------------------------------------------------


class _Reader:
    """Turns the object into a :class:`Space`; knows where everything was written."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin

    def fail(self, where: Where, message: str) -> NoReturn:
        self.origin.fail(where, message)

    def with_fixed(self, source: Any, fixed: Mapping[str, Any]) -> dict[str, Any]:
        self._object(source, (), "a space")
        own = source.get("fixed", {})
        self._object(own, ("fixed",), '"fixed"')
        merged = {**own, **{name: _revalued(own.get(name), value) for name, value in fixed.items()}}
        return {**source, "fixed": merged} if merged else dict(source)

    def _object(self, value: Any, where: Where, what: str) -> None:
        if not isinstance(value, dict):
            self.fail(where, f"{what} should be an object, not {_short(value)}")

    def space(self, source: dict[str, Any]) -> Space:
        self._object(source, (), "a space")
        self._fields(source, (), _FIELDS, "field")
        fixed, search = source.get("fixed", {}), source.get("search", {})
        self._object(fixed, ("fixed",), '"fixed"')
        self._object(search, ("search",), '"search"')
        if "model" in fixed:
            self.fail(("fixed", "model"), '"model" stands beside "fixed", not in it')
        for name in fixed:
            if name in search:
                self.fail(("fixed", name), f'"{name}" is both fixed and searched; keep one')
        parameters = [self._model(source, search)]
        for name, value in fixed.items():
            entry = value if isinstance(value, dict) else {"value": value}
            if "value" not in entry:
                self.fail(("fixed", name), f'"{name}" is fixed, but to no "value"')
            parameters.append(self._range(name, entry, ("fixed", name)))
        for name, value in search.items():
            if name != "model":
                parameters += self._ranges(name, value, ("search", name))
        ordered, idle = self._apart(self._ordered(parameters))
        self._check_conditions(ordered)
        data = source.get("data")
        if data is not None and not isinstance(data, str):
            self.fail(("data",), f'"data" should be a path, not {_short(data)}')
        space = Space(
            tuple(ordered), (), data, source, self._epochs(source), self.origin, tuple(idle)
        )
        points = self._start(space, source.get("start", []))
        start = tuple(values_of(point) for point in points)
        return replace(space, start=start, start_from=tuple(p.get(FROM) for p in points))

    def _fields(
        self, entry: Mapping[str, Any], where: Where, known: Sequence[str], of: str
    ) -> None:
        for key in entry:
            if key not in known:
                self.fail((*where, key), f"unknown {of} {key!r}; {suggest(key, known)}")

    def _model(self, source: Mapping[str, Any], search: Mapping[str, Any]) -> Parameter:
        if "model" in search:
            if "model" in source:
                self.fail(("search", "model"), '"model" is both given and searched; keep one')
            ranges = self._ranges("model", search["model"], ("search", "model"))
            model = ranges[0]
            if len(ranges) > 1 or model.kind != "categorical" or model.when:
                self.fail(
                    ("search", "model"), '"model" is searched by {"type": "categorical"} only'
                )
        elif "model" not in source:
            self.fail((), 'a space names its "model", or searches it')
        else:
            model = Parameter(
                "model", "value", "model", choices=(source["model"],), where=("model",)
            )
        for choice in model.choices:
            if not isinstance(choice, str) or not choice:
                self.fail(("model",), f'"model" should be a model\'s name, not {_short(choice)}')
        return model

    # -- ranges ---------------------------------------------------------------------------------

    def _ranges(self, name: str, value: Any, where: Where) -> list[Parameter]:
        if not isinstance(value, list):
            return [self._range(name, value, where)]
        if not value:
            self.fail(where, f'"{name}" has no range')
        ranges = [self._range(name, v, (*where, i)) for i, v in enumerate(value)]
        if len(ranges) == 1:
            return ranges
        for index, parameter in enumerate(ranges):
            for other in ranges[:index]:
                if not _exclusive(parameter.when, other.when):
                    self.fail(
                        (*where, index), f'"{name}" has two ranges whose "when" can hold together'
                    )
        return [replace(p, label=f"{name} ({p.when_text()})") for p in ranges]

    def _range(self, name: str, entry: Any, where: Where) -> Parameter:
        if not name or any(sign in name for sign in "=, \n"):
            self.fail(where, f"{name!r} is no name for a parameter")
        self._object(entry, where, f'"{name}"')
        kind = entry.get("type", "value" if "value" in entry else None)
        kind = _OTHER_WORDS.get(kind, kind) if isinstance(kind, str) else kind
        if (
            not isinstance(kind, str)
            or kind not in _RANGE_FIELDS
            or (kind == "value") == ("type" in entry)
        ):
            self.fail(
                (*where, "type"),
                f'"{name}": "type" should be int, float or categorical, not {_short(kind)}',
            )
        self._fields(entry, where, _RANGE_FIELDS[kind], f'field of "{name}"')
        when = self._when(name, entry.get("when", {}), (*where, "when"))
        if kind in ("value", "categorical"):
            values = [entry["value"]] if kind == "value" else entry.get("choices")
            choices = self._choices(name, values, (*where, "choices"))
            found: Kind = "value" if kind == "value" else "categorical"
            return Parameter(name, found, name, choices=choices, when=when, where=where)
        return self._numbers(name, kind, entry, when, where)

    def _choices(self, name: str, values: Any, where: Where) -> tuple[Any, ...]:
        if not isinstance(values, list) or not values:
            self.fail(where, f'"{name}": "choices" should be a list of values')
        choices: list[Any] = []
        for value in values:
            if isinstance(value, list) and value and all(type(size) is int for size in value):
                value = "/".join(map(str, value))  # sizes of several layers, as GRU4Rec writes them
            if not isinstance(value, (str, int, float)) or value in (math.inf, -math.inf):
                self.fail(where, f'"{name}": {_short(value)} is no value for a parameter')
            if any(same(value, choice) for choice in choices):
                self.fail(where, f'"{name}": the choice {value!r} is there twice')
            choices.append(value)
        return tuple(choices)

    def _numbers(
        self, name: str, kind: str, entry: Mapping[str, Any], when: Any, where: Where
    ) -> Parameter:
        low = self._number(name, entry, "low", kind, where)
        high = self._number(name, entry, "high", kind, where)
        if low > high:
            self.fail((*where, "low"), f'"{name}": low {low} is above high {high}')
        log = entry.get("log", False)
        if not isinstance(log, bool):
            self.fail(
                (*where, "log"), f'"{name}": "log" should be true or false, not {_short(log)}'
            )
        if log and low <= 0:
            self.fail((*where, "low"), f'"{name}": low {low} is not above 0, as "log" needs')
        step = None
        if entry.get("step") is not None:
            step = self._number(name, entry, "step", kind, where)
            if step <= 0:
                self.fail((*where, "step"), f'"{name}": step {step} is not above 0')
            self._check_step(name, low, high, step, (*where, "step"))
        elif kind == "int":
            step = 1
        found: Kind = "int" if kind == "int" else "float"
        return Parameter(name, found, name, low, high, step, log, (), when, where)

    def _check_step(self, name: str, low: float, high: float, step: float, where: Where) -> None:
        span = Decimal(repr(high)) - Decimal(repr(low))
        exact = Decimal(repr(step))
        if span / exact > _MAX_POINTS:
            self.fail(where, f'"{name}": step {step} makes more than {_MAX_POINTS} points')
        if span % exact:
            last = Decimal(repr(low)) + span // exact * exact
            self.fail(
                where,
                f'"{name}": step {step} doesn\'t divide {low} … {high}; the last point is {last}',
            )

    def _number(
        self, name: str, entry: Mapping[str, Any], field: str, kind: str, where: Where
    ) -> Any:
        if field not in entry:
            self.fail(where, f'"{name}" has no "{field}"')
        value = entry[field]
        wanted = "an integer" if kind == "int" else "a number"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail((*where, field), f'"{name}": {field} should be {wanted}, not {_short(value)}')
        if abs(value) > _LARGEST or 0 < abs(value) < 1 / _LARGEST:
            self.fail(
                (*where, field), f'"{name}": {field} {_short(value)} is out of all proportion'
            )
        if kind == "int" and value != int(value):
            self.fail((*where, field), f'"{name}": {field} should be {wanted}, not {value}')
        return int(value) if kind == "int" else float(value)

    # -- conditions -----------------------------------------------------------------------------

    def _when(self, name: str, when: Any, where: Where) -> dict[str, tuple[Any, ...]]:
        self._object(when, where, f'"{name}": "when"')
        parsed = {}
        for other, values in when.items():
            values = values if isinstance(values, list) else [values]
            if not values or not all(isinstance(v, (str, int, float, bool)) for v in values):
                self.fail(
                    (*where, other), f'"{name}": when {other} is what? give a value or a list'
                )
            parsed[other] = tuple(values)
        return parsed

    def _ordered(self, parameters: list[Parameter]) -> list[Parameter]:
        """Each after those that its conditions mention, otherwise as written."""
        names = {parameter.name for parameter in parameters}
        for p in parameters:
            for other in p.when:
                if other not in names:
                    message = f'"{p.name}" has a "when" on {other!r}, which is not in the space'
                    self.fail((*p.where, "when"), f"{message}; {suggest(other, names)}")
        ordered: list[Parameter] = []
        left = list(parameters)
        while left:
            open_names = {parameter.name for parameter in left}
            ready = [p for p in left if not open_names & set(p.when)]
            if not ready:
                cycle = " and ".join(f'"{p.name}"' for p in left)
                self.fail((*left[0].where, "when"), f'the "when" of {cycle} go in a circle')
            ordered += ready
            left = [p for p in left if p not in ready]
        return ordered

    def _apart(self, ordered: list[Parameter]) -> tuple[list[Parameter], list[Parameter]]:
        """What may come into force, and what can't while other parameters are fixed as they are.

        A space whose loss is fixed may well say what else to search for another loss:
        ``--fixed`` brings that into force.
        """
        by_name: dict[str, list[Parameter]] = {}
        idle: list[Parameter] = []
        for p in ordered:
            if any(self._excluded(name, values, by_name) for name, values in p.when.items()):
                idle.append(p)
            else:
                by_name.setdefault(p.name, []).append(p)
        return [p for p in ordered if p not in idle], idle

    @staticmethod
    def _excluded(
        name: str, values: tuple[Any, ...], by_name: Mapping[str, list[Parameter]]
    ) -> bool:
        known = by_name.get(name, [])
        if name == "model" or any(q.searched for q in known):
            return False
        return not any(q.can_be(value) for q in known for value in values)

    def _check_conditions(self, ordered: list[Parameter]) -> None:
        """Refuse conditions that can never hold, those of what they depend on included."""
        by_name: dict[str, list[Parameter]] = {}
        for p in ordered:
            by_name.setdefault(p.name, []).append(p)
        for p in ordered:
            for other, values in p.when.items():
                if any(q.count == float("inf") for q in by_name[other]):
                    self.fail(
                        (*p.where, "when"),
                        f'"{p.name}": "when" needs a {other} with a step or choices',
                    )
                for value in values:
                    if not any(q.can_be(value) for q in by_name[other]):
                        known = "; or ".join(q.range_text() for q in by_name[other])
                        self.fail(
                            (*p.where, "when"),
                            f'"{p.name}": "when" can\'t hold, {other} is never {value} but {known}',
                        )
            if not reachable(p, by_name, {}):
                self.fail(
                    (*p.where, "when"), f'"{p.name}": "when" can\'t hold together with its own'
                )

    # -- the rest -------------------------------------------------------------------------------

    def _epochs(self, source: Mapping[str, Any]) -> dict[str, int]:
        epochs = source.get("epochs", {})
        self._object(epochs, ("epochs",), '"epochs"')
        return {str(model): int(count) for model, count in epochs.items()}

    def _start(self, space: Space, points: Any) -> Sequence[Mapping[str, Any]]:
        if not isinstance(points, list):
            self.fail(("start",), f'"start" should be a list of points, not {_short(points)}')
        for index, point in enumerate(points):
            where: Where = ("start", index)
            self._object(point, where, "a point to start from")
            if not isinstance(point.get(FROM, ""), str):
                self.fail(where, f'start point {index + 1}: "{FROM}" should be a text')
            values = values_of(point)
            try:
                space.complete(values, lambda p: p.nth(0) if p.count < float("inf") else p.low)
            except ValueError as error:
                self.fail(where, f"start point {index + 1} is outside the space: {error}")
        return points


def _exclusive(left: Mapping[str, Sequence[Any]], right: Mapping[str, Sequence[Any]]) -> bool:
    return any(
        not any(same(a, b) for a in left[name] for b in right[name])
        for name in left.keys() & right.keys()
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "…"


def suggest(word: str, known: Iterable[str]) -> str:
    """What the reader of a misspelt word may have meant."""
    known = list(known)
    return did_you_mean(word, known, f"there are {', '.join(known)}")
