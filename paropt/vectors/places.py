"""``--to``: which kind of place it names, and where its URL may come from instead."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from paropt.errors import VectorsError
from paropt.vectors.about import Encoding, What
from paropt.vectors.npy_store import NpyStore
from paropt.vectors.parquet_store import ParquetStore
from paropt.vectors.redis_place import RedisPlace, is_redis, parse_redis
from paropt.vectors.redis_store import RedisStore
from paropt.vectors.store import Store

URL = "PAROPT_REDIS_URL"
KEYS: dict[What, str] = {"users": "user:{id}", "items": "item:{id}"}
KNOWN = "redis://…, rediss://…, unix://…, DIR.parquet or FILE.npy"


@dataclass(frozen=True)
class Settings:
    """How vectors are to be written; None: as it is usual. ``ttl`` in seconds."""

    what: What = "users"
    encoding: Encoding | None = None
    key: str | None = None
    ttl: int | None = None
    overwrite: bool = False
    batch: int | None = None


def named_place(to: str | None, file: Path | None) -> str:
    """The place, from ``--to``, from a file, or from the environment's PAROPT_REDIS_URL.

    Raises:
        VectorsError: there is none, or the file can't be read.
    """
    if to is not None and file is not None:
        raise VectorsError("--to and --to-file both name a place; leave one of them out")
    if file is not None:
        try:
            to = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it isn't text"
            raise VectorsError(f"--to-file {file} cannot be read: {why}") from None
        if len(to.split()) != 1:
            raise VectorsError(f"--to-file {file} must hold one URL and nothing else")
    found = to if to is not None else os.environ.get(URL)
    if not found:
        raise VectorsError(f"it isn't said where the vectors go; give --to {KNOWN}, or set {URL}")
    return found


def open_place(to: str, settings: Settings) -> Store:
    """The place of vectors that ``to`` names, looked at but not touched.

    Raises:
        ParoptError: it is none, it can't be had, or the settings aren't for it.
    """
    store: Store
    if is_redis(to):
        store = _redis(parse_redis(to), settings)
    else:
        _check_for_files(to, settings)
        place = Path(to)
        kind = ParquetStore if place.suffix == ".parquet" else NpyStore
        store = kind(place, settings.overwrite)
    store.check()
    return store


def _redis(place: RedisPlace, settings: Settings) -> RedisStore:
    pattern = settings.key or KEYS[settings.what]
    if pattern.count("{id}") != 1:
        raise VectorsError(f"--key {pattern!r} needs {{id}} once, as in {KEYS[settings.what]}")
    return RedisStore(
        place,
        pattern,
        settings.encoding or "float32",
        settings.ttl,
        settings.overwrite,
        settings.batch or 1000,
    )


def _check_for_files(to: str, settings: Settings) -> None:
    scheme, separator, _ = to.partition("://")
    if separator:
        raise VectorsError(f"vectors don't go to {scheme}://…; they go to {KNOWN}")
    if Path(to).suffix not in (".parquet", ".npy"):
        shown = f"…@{to.rpartition('@')[2]}" if "@" in to else to  # it may be a mistyped URL
        raise VectorsError(f"vectors don't go to {shown!r}; they go to {KNOWN}")
    for option in ("key", "ttl", "encoding", "batch"):
        if getattr(settings, option) is not None:
            raise VectorsError(f"--{option} is for Redis, and {to} is a file; leave it out")
