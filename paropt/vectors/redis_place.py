"""URLs of Redis, and how they are shown: without what is secret."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from paropt.errors import ParoptError

SCHEMES = ("redis", "rediss", "unix")
FORMS = "redis://USER@HOST:PORT/DB, rediss://… (TLS) or unix:///PATH?db=N"
# of a URL's query: what is handed on to TLS, and a database's number
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")


@dataclass(frozen=True)
class RedisPlace:
    """A Redis server and one of its databases; ``str`` shows it without the password."""

    scheme: str
    host: str = "localhost"
    port: int = 6379
    path: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        user = f"{self.username}@" if self.username else ""
        if self.scheme == "unix":
            return f"unix://{user}{self.path}" + (f"?db={self.db}" if self.db else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{user}{host}:{self.port}/{self.db}"


def is_redis(text: str) -> bool:
    """Whether a place is a URL of Redis, perhaps a wrong one."""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


def parse_redis(text: str) -> RedisPlace:
    """A URL of Redis. The password may come from ``REDISCLI_AUTH`` instead.

    Raises:
        ParoptError: it is none; the message doesn't repeat it, since it may hold a password.
    """
    try:
        parts = urlsplit(text)
        port = parts.port or 6379
    except ValueError:
        raise _no_url("its port is no number") from None
    if parts.fragment:
        raise _no_url("it has a #")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if strange := [name for name in query if name not in ("db", *_TLS)]:
        raise ParoptError(
            f"the URL of Redis has {strange[0]!r} behind its ?, where paropt knows db, "
            + ", ".join(_TLS)
        )
    tls = {name: value for name, value in query.items() if name in _TLS}
    if tls and parts.scheme != "rediss":
        raise ParoptError(f"{next(iter(tls))} is for TLS; write rediss:// in the URL of Redis")
    _check_files(tls)
    return RedisPlace(
        scheme=parts.scheme,
        host=parts.hostname or "localhost",
        port=port,
        path=unquote(parts.path) if parts.scheme == "unix" else "",
        db=_db(parts, query),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else os.environ.get("REDISCLI_AUTH"),
        tls=tls,
    )


def _db(parts: SplitResult, query: Mapping[str, str]) -> int:
    named = query.get("db", "")
    if parts.scheme == "unix":
        if not parts.path or parts.hostname:
            raise _no_url("a socket's path begins with /, as in unix:///run/redis.sock")
    else:
        named = parts.path.strip("/") or named
    if not named:
        return 0
    if not named.isdecimal():
        raise _no_url("its database is no number")
    return int(named)


def _check_files(tls: Mapping[str, str]) -> None:
    for name in _TLS[:3]:
        if name in tls and not Path(tls[name]).is_file():
            raise ParoptError(f"{name} in the URL of Redis is no file: {tls[name]}")
    requirement = tls.get("ssl_cert_reqs", "required")
    if requirement not in ("required", "optional", "none"):
        raise ParoptError(f"ssl_cert_reqs is required, optional or none, not {requirement!r}")
    checked = tls.get("ssl_check_hostname", "true").lower()
    if checked not in ("true", "false"):
        raise ParoptError(f"ssl_check_hostname is true or false, not {checked!r}")


def _no_url(why: str) -> ParoptError:
    return ParoptError(
        f"the place of the vectors is no URL of Redis: {why}; it is {FORMS}, and in a password"
        " / ? # @ % are written %2F %3F %23 %40 %25"
    )
