"""Places named by URLs (``s3://…``, ``gs://…``, ``https://…``, ``file://…``), through fsspec.

Credentials come from where each service's own tools look (environment, ``~/.aws``, a machine's
role). Those that stand in a URL, a signed ``https://`` address say, are used and shown nowhere.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from paropt.errors import ParoptError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s'\"<>()]+")
# fsspec's own packages by scheme; of others its message names the package
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
PACKAGES |= {"http": "aiohttp", "https": "aiohttp"}
# no answer for so long is no answer; the services' own clients try again in between
CONNECT_SECONDS, READ_SECONDS, TRIES = 5, 20, 3


class RemoteError(ParoptError):
    """A URL that cannot be read or written: no right, no such thing, no answer."""


class NotThere(RemoteError):
    """Nothing has this name."""


def is_url(word: str) -> bool:
    """Whether a word names a place by URL, and not a file of this machine."""
    return _URL.match(word) is not None


def public(url: str) -> str:
    """A URL for people, logs and definitions: without user, password, query and fragment."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", "")).rstrip("/")


def has_secrets(url: str) -> bool:
    """Whether :func:`public` leaves something out that may be a credential."""
    parts = urlsplit(url)
    return "@" in parts.netloc or bool(parts.query)


@dataclass
class Remote:
    """A place by URL: a file, or what lies below it. Errors are one sentence without secrets.

    Not for several threads at once.
    """

    url: str

    def __post_init__(self) -> None:
        self._parts: SplitResult = urlsplit(self.url)
        self._fs: Any = None

    @property
    def name(self) -> str:
        """How people are told of it."""
        return public(self.url)

    def child(self, relative: str) -> str:
        """The whole URL of what lies below; a query, which may be a signature, stays."""
        path = f"{self._parts.path.rstrip('/')}/{relative}" if relative else self._parts.path
        return urlunsplit(self._parts._replace(path=path))

    def read(self, relative: str = "") -> bytes:
        """The content of a small file.

        Raises:
            NotThere: there is none.
            RemoteError: it cannot be read.
        """
        with self._errors("read", relative):
            found: bytes = self._files().cat_file(self.child(relative))
        return found

    def facts(self, relative: str = "") -> dict[str, Any]:
        """Its size in bytes, where known, and what tells one version of it from another.

        Raises:
            NotThere, RemoteError: as :meth:`read`.
        """
        with self._errors("read", relative):
            info = self._files().info(self.child(relative))
        if info.get("type") == "directory":
            raise NotThere(f"{public(self.child(relative))} is a directory")
        marks = ("ETag", "etag", "md5Hash", "LastModified", "Last-Modified", "mtime")
        told = [f"{mark}={info[mark]}" for mark in marks if info.get(mark)]
        return {"size": info.get("size"), "version": " ".join(told)}

    def fetch(self, relative: str, to: Path, heard: Callable[[int], None] | None = None) -> None:
        """Copy a file here; ``to`` may be there by half if this fails.

        Raises:
            NotThere, RemoteError: as :meth:`read`, or ``to`` cannot be written.
        """
        from fsspec.callbacks import Callback

        def told(size: int | None, value: int, **_: object) -> None:
            if heard is not None:
                heard(value)

        to.parent.mkdir(parents=True, exist_ok=True)
        with self._errors("read", relative):
            callback = Callback(hooks={"told": told})
            self._files().get_file(self.child(relative), str(to), callback=callback)

    def store(self, source: Path, relative: str) -> None:
        """Copy a file there.

        Raises:
            RemoteError: it cannot be written.
        """
        with self._errors("write", relative):
            files = self._files()
            if self._parts.scheme in ("file", "local"):
                files.makedirs(files._parent(self.child(relative)), exist_ok=True)
            files.put_file(str(source), self.child(relative))

    def names(self) -> list[str]:
        """The names of the files right below, in a listing that is asked for anew.

        Raises:
            RemoteError: it cannot be listed; a place that isn't there is empty.
        """
        try:
            with self._errors("list", ""):
                files = self._files()
                files.invalidate_cache()
                found = files.ls(self.child(""), detail=False)
        except NotThere:
            return []
        return [str(path).rstrip("/").rpartition("/")[2] for path in found]

    def remove(self, relative: str) -> None:
        """Remove a file; it is no error if it isn't there.

        Raises:
            RemoteError: it may not be removed.
        """
        with contextlib.suppress(NotThere), self._errors("remove", relative):
            self._files().rm_file(self.child(relative))

    def _files(self) -> Any:
        if self._fs is None:
            self._fs = _filesystem(self._parts.scheme)
        return self._fs

    @contextlib.contextmanager
    def _errors(self, do: str, relative: str) -> Iterator[None]:
        place = public(self.child(relative))
        try:
            yield
        except RemoteError:
            raise
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotThere(f"there is no {place}") from None
        except Exception as error:  # every service has errors of its own
            self._fs = None  # credentials may be new next time
            raise RemoteError(self._sentence(do, place, error)) from None

    def _sentence(self, do: str, place: str, error: Exception) -> str:
        said = self._scrubbed(next(iter(str(error).strip().splitlines()), ""))
        kind = type(error).__name__
        if isinstance(error, PermissionError) or "Credential" in kind or "Token" in said:
            # this process has looked where the service's own tools look
            return (
                f"this machine may not {do} {place} ({said or kind}); "
                "give it credentials as the service's own tools take them"
            )
        return f"{place} cannot be {_DONE[do]} ({kind}{': ' * bool(said)}{said})"

    def _scrubbed(self, said: str) -> str:
        said = _IN_TEXT.sub(lambda found: public(found[0]), said)
        userinfo = self._parts.netloc.rpartition("@")[0]
        values = [value for _, value in parse_qsl(self._parts.query)]
        for secret in filter(None, [userinfo, self._parts.password, self._parts.query, *values]):
            said = said.replace(secret, "***")
        return said


_DONE = {"read": "read", "write": "written", "list": "listed", "remove": "removed"}


def _filesystem(scheme: str) -> Any:
    """fsspec's file system of a scheme, a new one: credentials are looked for again.

    Raises:
        RemoteError: it is unknown, or its package is not installed.
    """
    import fsspec

    package = PACKAGES.get(scheme)
    missing = package and importlib.util.find_spec(package) is None
    if missing:
        wanted = "paropt[remote]" if package != "gcsfs" else package
        raise RemoteError(f"{scheme}:// needs the package {package}: pip install {wanted!r}")
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if package == "s3fs":
        options["config_kwargs"] = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"max_attempts": TRIES},
        }
    try:
        return fsspec.filesystem(scheme, **options)
    except (ImportError, ValueError) as error:
        raise RemoteError(f"{scheme}:// cannot be used here: {error}") from None


def check_url(url: str, option: str) -> None:
    """Refuse a URL that could never work, before anything is asked or written.

    Raises:
        RemoteError: of a scheme that nobody knows, or without a place.
    """
    parts = urlsplit(url)
    if not parts.netloc and not parts.path.strip("/"):
        raise RemoteError(f"{option} {url} names no place; s3://BUCKET/PATH is one")
    _filesystem(parts.scheme)
