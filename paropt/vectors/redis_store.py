"""Vectors in Redis: a key per vector, and a hash beside them that says what they are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from paropt.errors import VectorsError
from paropt.vectors.about import About, Encoding
from paropt.vectors.encodings import encoder
from paropt.vectors.redis_link import Link, packed
from paropt.vectors.redis_place import RedisPlace
from paropt.vectors.sample import Sample
from paropt.vectors.store import Note, Written
from paropt.version import __version__

ASKED = 1000  # keys of one question
WRITING, COMPLETE = "writing", "complete"


class RedisStore:
    """Writes pipelines of ``batch`` vectors: the next is packed while the server takes the last.

    ``pattern`` is a key with ``{id}`` in it; ``ttl`` are seconds. Nothing that is there is ever
    removed: a key is set, or left alone. How many vectors are safely written is kept in the hash,
    always of pipelines whose every answer was read.
    """

    def __init__(
        self,
        place: RedisPlace,
        pattern: str,
        encoding: Encoding = "float32",
        ttl: int | None = None,
        overwrite: bool = False,
        batch: int = 1000,
    ) -> None:
        self.place, self.pattern, self.ttl = place, pattern, ttl
        self.overwrite, self.batch, self.encoding = overwrite, batch, encoding
        self.hash = f"paropt:embed:{pattern}"
        self._encode = encoder(encoding)
        self._link: Link | None = None
        self._ids: pa.Array = pa.array([], pa.string())
        self._sample = Sample(0, 1)
        self._sent, self._answers, self._done = 0, 0, 0
        self._evicted: int | None = None
        self._lasting = False  # whether vectors without a time to live are among those there

    def __str__(self) -> str:
        return str(self.place)

    def check(self) -> None:
        with Link(self.place) as link:
            link.ask("PING")

    # -- what is there ---------------------------------------------------------------------------

    def begin(self, about: About, ids: pa.Array, note: Note) -> int:
        self._link = Link(self.place)
        self._ids = ids
        stored = self._stored()
        settled: dict[str, Any] = {
            **about.to_text(),
            "encoding": self.encoding,
            "ttl": self.ttl or 0,
        }
        here = 0
        self._lasting = self.ttl is None or "yes" in (stored.get("lasting"), _lasts(stored))
        if stored:
            here = self._beside(about, stored, settled, note)
            self._tell_of_others(stored, len(ids), note)
        elif not self.overwrite:
            self._refuse_strangers()
        # the last is always written: then there is something to compare
        self._done = self._sent = min(here, len(ids) - 1)
        self._sample = Sample(self._done, len(ids))
        self._evicted = self._evictions()
        state = {"state": WRITING, "done": self._done, "key": self.pattern, "paropt": __version__}
        state["lasting"] = "yes" if self._lasting else "no"
        self._set(settled | state)
        return self._done

    def _beside(
        self, about: About, stored: dict[str, str], settled: dict[str, Any], note: Note
    ) -> int:
        """How many of these vectors are there, beside others that they may join or replace."""
        why = about.misfit(stored)
        if why is None and stored.get("encoding") != self.encoding:
            why = f"vectors as {stored.get('encoding') or 'something else'}", f"as {self.encoding}"
        if why is not None:
            theirs, own = why
            if self.overwrite:
                note(f"replacing {theirs} under {self.pattern}; other keys keep what they have")
                return 0
            raise VectorsError(
                f"{self.place} holds {theirs} under {self.pattern}, and these are {own}; choose"
                " another --key, or say --overwrite to replace them"
            )
        same = about.same_run(stored) and stored.get("ttl") == str(settled["ttl"])
        done = stored.get("done", "")
        if not same or stored.get("state") != WRITING or not done.isdecimal():
            return 0
        return self._still_there(min(int(done), len(self._ids)))

    def _tell_of_others(self, stored: dict[str, str], count: int, note: Note) -> None:
        """Say that vectors of earlier runs stay, where there are more of them."""
        before = stored.get("count", "")
        if before.isdecimal() and int(before) > count:
            note(
                f"{int(before):,} vectors were written before, and these are {count:,}: the others"
                f" stay as they are under {self.pattern}; --ttl lets go of what isn't written again"
            )

    def _stored(self) -> dict[str, str]:
        link = self._open()
        kind = link.ask("TYPE", self.hash)
        if kind not in (b"none", b"hash"):
            raise VectorsError(
                f"{self.hash} in {self.place} is no hash but a {_text(kind)}: another program's;"
                " choose another --key"
            )
        words = [_text(word) for word in link.ask("HGETALL", self.hash)]
        return dict(zip(words[::2], words[1::2], strict=True))

    def _still_there(self, count: int) -> int:
        """How many of the first keys there are, up to the first that is missing."""
        link = self._open()
        if count and self.ttl is not None and link.ask("TTL", self._keys(0, 1)[0]) < self.ttl / 2:
            return 0  # they would be gone soon, long before those that are written now
        for begin, keys in self._keys_of(0, count):
            if link.ask("EXISTS", *keys) == len(keys):
                continue
            link.send([packed("EXISTS", key) for key in keys], len(keys))
            return begin + link.receive(len(keys)).index(0)
        return count

    def _refuse_strangers(self) -> None:
        """Raises :class:`VectorsError` if one of the keys is there, and nothing says whose."""
        link = self._open()
        if link.ask("DBSIZE") == 0:
            return
        found, example = 0, b""
        for _, keys in self._keys_of(0, len(self._ids)):
            count = link.ask("EXISTS", *keys)
            if count and not found:
                link.send([packed("EXISTS", key) for key in keys], len(keys))
                example = keys[link.receive(len(keys)).index(1)]
            found += count
        if not found:
            return
        kind = _text(link.ask("TYPE", example))
        size = f" of {link.ask('STRLEN', example):,} bytes" if kind == "string" else ""
        raise VectorsError(
            f"{self.place} has {found:,} of these keys already, and nothing says that they are"
            f" vectors of paropt ({_text(example)} is a {kind}{size}); choose another --key, or say"
            " --overwrite to replace them"
        )

    # -- writing ---------------------------------------------------------------------------------

    def write(self, first: int, vectors: NDArray[np.float32]) -> None:
        values = self._encode(vectors)
        for row in self._sample.among(first, len(values)):
            self._sample.values[row] = values[row - first]
        keys = self._keys(first, len(values))
        commands, count = self._commands(keys, values)
        self._settle()
        progress = [packed("HSET", self.hash, "done", self._done), self._expiry()]
        self._open().send([*progress, commands], len(progress) + count)
        self._answers, self._sent = len(progress) + count, first + len(values)

    def _commands(self, keys: Sequence[bytes], values: Sequence[bytes]) -> tuple[bytes, int]:
        """Commands that set the keys, packed, and how many; MSET knows no time to live."""
        pairs = zip(keys, values, strict=True)
        if self.ttl is None:
            words = [b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(k), k, len(v), v) for k, v in pairs]
            return b"*%d\r\n$4\r\nMSET\r\n%b" % (2 * len(keys) + 1, b"".join(words)), 1
        end = b"$2\r\nEX\r\n$%d\r\n%d\r\n" % (len(str(self.ttl)), self.ttl)
        sets = [
            b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n%b" % (len(k), k, len(v), v, end)
            for k, v in pairs
        ]
        return b"".join(sets), len(sets)

    def _settle(self) -> None:
        """Read what the server answers to the last pipeline."""
        answers, self._answers = self._answers, 0
        self._open().receive(answers)
        self._done = self._sent

    def _keys(self, first: int, count: int) -> list[bytes]:
        before, after = self.pattern.split("{id}")
        return [
            f"{before}{one}{after}".encode() for one in self._ids.slice(first, count).to_pylist()
        ]

    def _keys_of(self, first: int, end: int) -> Iterator[tuple[int, list[bytes]]]:
        for begin in range(first, end, ASKED):
            yield begin, self._keys(begin, min(ASKED, end - begin))

    def _set(self, facts: dict[str, Any]) -> None:
        link = self._open()
        words = [word for pair in facts.items() for word in pair]
        link.send([packed("HSET", self.hash, *words), self._expiry()], 2)
        link.receive(2)

    def _expiry(self) -> bytes:
        """The hash lives as long as the vector that was written last, and as those that stay."""
        if self.ttl is None or self._lasting:
            return packed("PERSIST", self.hash)
        return packed("EXPIRE", self.hash, self.ttl)

    # -- the end ---------------------------------------------------------------------------------

    def finish(self) -> Written:
        self._settle()
        self._compare()
        facts = {"state": COMPLETE, "done": self._done, "written": int(time.time())}
        self._set(facts)
        return Written(len(self._sample.rows), self._warnings())

    def _compare(self) -> None:
        """Raises :class:`VectorsError` if the sample isn't what was written."""
        rows = self._sample.rows.tolist()
        keys = [self._keys(row, 1)[0] for row in rows]
        found = self._open().ask("MGET", *keys)
        other = [
            key
            for key, row, value in zip(keys, rows, found, strict=True)
            if value != self._sample.values[row]
        ]
        if other:
            self._set({"done": 0})  # so that none of them is taken for written
            raise VectorsError(
                f"{len(other)} of {len(rows)} vectors that were read back from {self.place} are not"
                f" what was written ({_text(other[0])}): it evicts keys, or another program writes"
                " them; mend that and run the command again"
            )

    def _evictions(self) -> int | None:
        """How many keys the server has thrown out so far; None where it doesn't say."""
        try:
            facts = _text(self._open().ask("INFO", "stats"))
        except VectorsError:
            return None
        for line in facts.splitlines():
            name, _, value = line.partition(":")
            if name == "evicted_keys":
                return int(value)
        return None

    def _warnings(self) -> list[str]:
        after = self._evictions()
        if after is None or self._evicted is None or after == self._evicted:
            return []
        return [
            f"{self.place} threw out {after - self._evicted:,} keys meanwhile because its memory is"
            " full, perhaps vectors; raise its maxmemory"
        ]

    def close(self) -> None:
        if self._link is not None:
            self._link.close()

    def _open(self) -> Link:
        assert self._link is not None  # begin() was called
        return self._link


def _lasts(stored: dict[str, str]) -> str:
    """Whether vectors of an earlier run stay: "yes" or "no", as paropt before it said so."""
    return "yes" if stored.get("ttl") == "0" and stored.get("done", "0") != "0" else "no"


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
