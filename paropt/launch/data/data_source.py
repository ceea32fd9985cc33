"""What ``--data`` names: a dataset directory, the demo set, or event files prepared on the fly.

Event files are prepared as ``paropt prepare`` does it and kept in
``PAROPT_HOME/datasets/STEM-HASH``; the hash is of their content and of the options, so that
the same files are prepared once.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paropt.errors import DataError, closest
from paropt.files import readable
from paropt.launch.data.made_once import alone
from paropt.machine.home import paropt_home
from paropt.machine.remote import is_url, public

if TYPE_CHECKING:
    from paropt.data import Dataset
    from paropt.data.log.options import Options, Recipe

DEMO = "demo"
_DIRECTORIES = "tencent-gr"  # not made on the way: tens of gigabytes
KEPT = 2  # raised when `prepare` makes something else of the same files

Note = Callable[[str], None]


@dataclass(frozen=True)
class EventFiles:
    """Event files, and the options of ``paropt prepare`` that were given for them."""

    places: tuple[str, ...]
    options: Options


Given = str | Path | Sequence[str | Path] | EventFiles


def silent(line: str) -> None:
    """Takes a remark and drops it."""


def named_data(given: Given, note: Note = silent) -> Path:
    """The dataset directory that ``--data`` names; ``note`` is told what was made on the way.

    Raises:
        DataError: there is nothing of that name, or these are no events; nothing is written then.
    """
    words, options = _words_of(given)
    if "" in words:
        raise DataError(f"--data is empty; {_WHAT_DATA_IS}")
    words = [_here(word, note) for word in words]
    places = list(map(Path, words))
    first = places[0]
    if options is not None and options.format == _DIRECTORIES:
        raise DataError(
            f"--format {_DIRECTORIES} is of a directory that is prepared once, which takes a while:"
            f" 'paropt prepare --format {_DIRECTORIES} {first} --out DIR', then --data DIR"
        )
    if len(places) == 1 and is_dataset(words[0]):
        if options is not None:
            raise DataError(
                f"--data {first} is prepared already, so options on how a log is read do not"
                " apply; give its event files, or leave the options out"
            )
        if not first.exists():
            return demo_set()
        if words == [DEMO]:
            note(f"--data {DEMO} is the directory of that name here, not the demo set")
        return first
    for place in places:
        check_file(place)
    return prepared(places, note, options)


def url_of(given: Given | None) -> str | None:
    """The URL that ``--data`` names, as others may see it; None where it is no single URL."""
    words = _words_of(given)[0] if given else []
    return public(words[0]) if len(words) == 1 and is_url(words[0]) else None


def _here(word: str, note: Note) -> str:
    """A word of ``--data`` that is a place on this machine: what has a URL is fetched."""
    if not is_url(word):
        return word
    from paropt.launch.data.remote_data import fetched

    return str(fetched(word, note))


def is_dataset(word: str) -> bool:
    """Whether ``--data`` names a dataset directory, or the demo set, and no event files."""
    place = Path(word)
    return _is_prepared(place) or (word == DEMO and not place.exists())


def _words_of(given: Given) -> tuple[list[str], Options | None]:
    if isinstance(given, EventFiles):
        return list(given.places), given.options
    return [str(word) for word in ([given] if isinstance(given, str | Path) else given)], None


def open_data(path: Path) -> Dataset:
    """See :func:`paropt.data.open_dataset`."""
    from paropt.data import open_dataset

    return open_dataset(path.absolute())


def demo_set() -> Path:
    """The demo set's directory, made at first use."""
    from paropt.data.prepare import prepare_demo

    path = paropt_home() / "datasets" / DEMO
    with alone(path):
        if not (path / "meta.json").exists():
            prepare_demo(path)
    return path


def prepared(files: Sequence[Path], note: Note = silent, options: Options | None = None) -> Path:
    """Event files as a dataset directory of their own, made unless it is there.

    Raises:
        DataError: they are no events that can be read with these options.
    """
    from paropt.data import prepare as preparing
    from paropt.data.log.command import prepare_command
    from paropt.data.log.options import Options, make_recipe

    options = options or Options()
    shown = f"{files[0]}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    recipe = make_recipe(files, {}, options, silent)
    name = f"{_stem(files[0])}-{_identity(files, options)[:10]}"
    path = paropt_home() / "datasets" / name
    with alone(path):
        dataset = _kept(path)
        if dataset is None:
            note(f"preparing {shown}: {_reading(recipe)}")
            dataset = preparing.prepare(files, path, options=options, note=note)
        else:
            note(f"{shown} was prepared before")
            for said in dataset.meta.get("said", []):
                note(said)
            if recipe.guessed:
                words = dataset.meta.get("options", [])
                note(f"to change it: {prepare_command(files, words)}")
    note(_found(dataset))
    return path


def _is_prepared(place: Path) -> bool:
    """Whether it is a directory, and not one of Parquet files; datasets hold such files too."""
    from paropt.data.reading.layouts import is_parquet_directory

    if not place.is_dir():
        return False
    above = (place / "meta.json").exists() or any(place.glob("*/meta.json"))
    return above or not is_parquet_directory(place)


def check_file(place: Path) -> None:
    if _is_prepared(place):
        raise DataError(
            f"--data takes one dataset directory or event files, and {place} is a directory "
            "among others"
        )
    if not place.exists():
        near = [path.name for path in _beside(place)]
        close = closest(place.name, near)
        hint = f"did you mean {place.with_name(close)}?" if close else _WHAT_DATA_IS
        raise DataError(f"--data {place} does not exist; {hint}")


_WHAT_DATA_IS = "give event files, or a directory that 'paropt prepare' made"


def _beside(place: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(place.parent.iterdir())
    return []


# -- keeping --------------------------------------------------------------------------------


def _stem(file: Path) -> str:
    """A file's name without its endings, fit to name a study after."""
    return readable(file.name.split(".")[0], 40, "events")


def _identity(files: Sequence[Path], options: Options) -> str:
    """A hash of what the files hold, in their order, and of how they are prepared."""
    from paropt.data.log.command import said_options
    from paropt.data.reading.layouts import files_of, on_disk

    whole = hashlib.sha256(f"{KEPT}".encode())
    if said := said_options(options):
        whole.update(repr(sorted(said.items())).encode())
    for file in (part for path in files for part in files_of(path)):
        try:
            with on_disk(file).open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise DataError(f"{file}: {error.strerror or error}") from None
    return whole.hexdigest()


def _kept(path: Path) -> Dataset | None:
    """What lies there, unless it is damaged: then it goes."""
    if not path.exists():
        return None
    with contextlib.suppress(DataError):
        return open_data(path)
    shutil.rmtree(path, ignore_errors=True)
    return None


# -- in words -------------------------------------------------------------------------------


def _reading(recipe: Recipe) -> str:
    schema, rules = recipe.schema, recipe.rules
    order = f"{schema.order_column} (an order)" if schema.order_column else "the rows' order"
    time = schema.time_key or order
    columns = f"{schema.session_key}, {schema.item_key} and {time}"
    if recipe.of_users:
        split = "sessions are users"
    elif rules.protocol == "long-short":
        split = (
            f"the last {1 - rules.long_share:.0%} of each user's events are the short part,"
            f" {rules.test_fraction:g} of the users for test, as many for valid"
        )
    elif rules.protocol == "leave-one-out":
        split = "each sequence's last event is for test, the one before for valid"
    else:
        days = f"{rules.test_days:g} day{'s' * (rules.test_days != 1)}"
        split = f"the last {days} for test, as much before for valid"
    return f"format {recipe.format.name} ({columns}); {split}"


def _found(dataset: Dataset) -> str:
    train = dataset.split("train_full")
    return (
        f"{train.n_events:,} events of {dataset.n_items('train_full'):,} items to train on, "
        f"fingerprint {dataset.fingerprint[:12]}, in {dataset.path}"
    )
