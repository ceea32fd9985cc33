"""What a text is written from: a user's titles, an item's fields; and prompts, which are files."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from paropt.data.dataset import Dataset
from paropt.data.features.fields import StoredField
from paropt.errors import DataError, did_you_mean

About = Literal["users", "items"]
TITLE_LETTERS, FIELD_LETTERS = 120, 1500
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Source:
    """What a dataset knows of users and items; of events, those of its split ``train`` only."""

    dataset: Dataset
    titles: StoredField | None
    kinds: StoredField | None = None
    last: int = 20

    @classmethod
    def of(cls, dataset: Dataset, titles: str | None, kinds: str | None, last: int) -> Source:
        """``titles`` is a field of items with their names, ``kinds`` one with their categories.

        Raises:
            DataError: items have no such field, or nobody can say which of several is the title.
        """
        fields = dataset.fields("items")
        texts = [name for name, field in fields.items() if field.kind == "text"]
        if titles is None and len(texts) == 1:
            titles = texts[0]
        if titles is None:
            titles = next((name for name in texts if "title" in name or "name" in name), None)
        if titles is None:
            raise DataError(
                f"{dataset.path} has no texts of items to write from (texts: "
                f"{', '.join(texts) or 'none'}); name one with --titles, or prepare it with"
                " --item-features"
            )
        for option, name in (("--titles", titles), ("--kinds", kinds)):
            if name is not None and name not in fields:
                hint = did_you_mean(name, fields, f"they have {', '.join(fields) or 'none'}")
                raise DataError(f"{option} {name}: items have no such feature; {hint}")
        return cls(dataset, fields[titles], fields[kinds] if kinds else None, last)

    # -- items ----------------------------------------------------------------------------------

    @cached_property
    def item_ids(self) -> list[str]:
        return [str(one) for one in self.dataset.item_ids()]

    def item_fields(self, item: int) -> dict[str, str]:
        """An item's fields as text, without those that it lacks."""
        found = {name: ", ".join(words[item]) for name, words in self.told.items()}
        return {name: text[:FIELD_LETTERS] for name, text in found.items() if text}

    @cached_property
    def told(self) -> Mapping[str, list[list[str]]]:
        """What words can tell of items: each field's words, by item."""
        fields = self.dataset.fields("items")
        return {name: _words(field) for name, field in fields.items() if field.kind != "vector"}

    # -- users ----------------------------------------------------------------------------------

    @cached_property
    def user_ids(self) -> list[str]:
        if not self.dataset.has_users:
            raise DataError(
                f"{self.dataset.path} does not know whose its sessions are, so there are no users"
                " to write about; prepare it with --user-key, or --protocol leave-one-out"
            )
        return [str(one) for one in self.dataset.user_ids()]

    @cached_property
    def histories(self) -> Mapping[int, Sequence[int]]:
        """Each user's items in ``train``, oldest first."""
        train = self.dataset.split("train")
        users, found = train.users, dict[int, list[int]]()
        if users is None:
            return found
        for session, user in enumerate(users.tolist()):
            if user >= 0:
                begin, end = train.offsets[session], train.offsets[session + 1]
                found.setdefault(user, []).extend(train.items[begin:end].tolist())
        return found

    def history(self, user: int) -> list[str]:
        """The titles of a user's last items, latest first, each once."""
        newest = dict.fromkeys(reversed(self.histories.get(user, ())))
        told = (", ".join(self._titles[item]) for item in newest)
        return [text[:TITLE_LETTERS] for text in _some(told, self.last)]

    def mostly(self, user: int) -> list[str]:
        """The categories that a user's items have most, with how often: ``Drama (12)``."""
        if self.kinds is None:
            return []
        counts = Counter(
            word for item in self.histories.get(user, ()) for word in self._kinds[item]
        )
        best = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return [f"{word} ({count})" for word, count in best[:5]]

    @cached_property
    def _titles(self) -> list[list[str]]:
        return [] if self.titles is None else _words(self.titles)

    @cached_property
    def _kinds(self) -> list[list[str]]:
        return [] if self.kinds is None else _words(self.kinds)

    def from_history(self, user: int) -> str | None:
        """A user's text without a language model: the same for the same events."""
        titles, mostly = self.history(user), self.mostly(user)
        parts = [f"Liked, latest first: {'; '.join(titles)}."] if titles else []
        parts += [f"Mostly {', '.join(mostly)}."] if mostly else []
        return " ".join(parts) or None


def _some(texts: Iterator[str], count: int) -> Iterator[str]:
    """The first ``count`` that are not empty."""
    return itertools.islice((text for text in texts if text), count)


def _words(field: StoredField) -> list[list[str]]:
    """The words of a field for every item: categories by name; a text or number is one word."""
    if field.kind == "text":
        return [[text] if text else [] for text in field.texts()]
    if field.kind == "number":
        numbers = field.array().tolist()
        return [[] if math.isnan(number) else [f"{number:g}"] for number in numbers]
    if field.kind == "category":
        codes, offsets = field.array(), np.arange(len(field.array()) + 1)
    else:
        codes, offsets = field.array("codes"), field.array("offsets")
    vocabulary = list(field.vocabulary)
    names = [vocabulary[code] if code >= 0 else "" for code in codes.tolist()]
    cut = (names[begin:end] for begin, end in itertools.pairwise(offsets.tolist()))
    return [[name for name in some if name] for some in cut]


# -- prompts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """A prompt with ``{names}`` where a user's or item's own text goes."""

    text: str
    where: str

    @classmethod
    def read(cls, path: Path | None, about: About) -> Prompt:
        """From a file, or paropt's own.

        Raises:
            DataError: it cannot be read, or has no place for anything.
        """
        if path is None:
            own = resources.files(__package__) / f"prompt_{about}.txt"
            return cls(own.read_text(encoding="utf-8"), f"paropt's prompt for {about}")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"--prompt {path} cannot be read: {error}") from None
        if not _PLACE.search(text):
            what = "{history}" if about == "users" else "{fields}"
            raise DataError(f"--prompt {path} has no {what}, so it asks the same of everybody")
        return cls(text, str(path))

    def filled(self, values: Mapping[str, str]) -> str:
        """With the values in.

        Raises:
            DataError: it names something that there isn't.
        """

        def value(match: re.Match[str]) -> str:
            if match[1] not in values:
                hint = did_you_mean(match[1], values, f"there are {', '.join(values)}")
                raise DataError(f"{self.where}: nothing is called {{{match[1]}}}; {hint}")
            return values[match[1]]

        return _PLACE.sub(value, self.text)


def user_values(source: Source, user: int) -> dict[str, str]:
    """What a prompt about a user may name."""
    history = "\n".join(f"- {title}" for title in source.history(user))
    return {"history": history, "kinds": ", ".join(source.mostly(user))}


def item_values(source: Source, item: int) -> dict[str, str]:
    """What a prompt about an item may name: ``fields``, and each field."""
    told = source.item_fields(item)
    named = dict.fromkeys(source.told, "") | told
    return {**named, "fields": "\n".join(f"{name}: {text}" for name, text in told.items())}
