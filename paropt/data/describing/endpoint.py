"""One question to an endpoint that speaks OpenAI's chat completions, and what can come of it.

The standard library does it: one POST, with limits on its size and time that clients made for it
don't have (an answer that dribbles for ever ends here too).
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from paropt.errors import DataError

LARGEST = 1 << 20  # bytes of an answer that are read
SHOWN = 160  # letters of a server's own words


class NoText(Exception):
    """This question has no answer now; the next may have one."""


class TryLater(NoText):
    """The server is busy; ``wait`` are the seconds that it asks for, or 0."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, whom, and for how much; ``key`` is never shown."""

    base_url: str
    model: str
    key: str = ""
    max_tokens: int = 160
    timeout: float = 60.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError(f"--base-url {self.shown}: write http://HOST/v1 or https://HOST/v1")
        if parts.username or parts.password:
            raise DataError(
                "--base-url holds a user or password; give the key in the environment (--key-env)"
            )

    def __repr__(self) -> str:
        return f"Endpoint({self.shown!r}, {self.model!r})"

    @property
    def shown(self) -> str:
        """The address without what may be secret in it."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def ask(self, prompt: str) -> str:
        """The answer's text.

        Raises:
            DataError: no question will have an answer: the key or the address is wrong.
            TryLater: the server is busy, or was too slow.
            NoText: it refuses, or answers with something else than a text.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        request = urllib.request.Request(
            self.base_url.rstrip("/") + "/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Accept": "application/json"},
        )
        if self.key:
            request.add_unredirected_header("Authorization", f"Bearer {self.key}")
        try:
            with _OPENER.open(request, timeout=self.timeout) as answer:
                return _text_of(_read(answer, time.monotonic() + self.timeout))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise TryLater(f"no answer within {self.timeout:g} s") from None
            raise DataError(
                f"{self.shown} cannot be reached: {self._clean(error.reason)}"
            ) from None
        except TimeoutError:
            raise TryLater(f"no answer within {self.timeout:g} s") from None
        except (
            OSError,
            HTTPException,
            ValueError,
        ) as error:  # the connection broke, or this is no HTTP
            raise TryLater(f"the answer broke off: {self._clean(error)}") from None

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        said = self._clean(_message(error))
        if error.code in (401, 403):
            return DataError(f"{self.shown} does not take the key ({error.code}: {said})")
        if error.code in (404, 405) or 300 <= error.code < 400:
            return DataError(
                f"{self.shown} has no chat completions for the model {self.model!r}"
                f" ({error.code}: {said}); look at --base-url and --model"
            )
        if error.code in (408, 409, 429) or error.code >= 500:
            return TryLater(f"the server is busy ({error.code}: {said})", _asked_wait(error))
        return NoText(f"refused ({error.code}: {said})")

    def _clean(self, words: object) -> str:
        """A server's words in one line, without the key should it repeat it."""
        text = " ".join(str(words).split())
        return (text.replace(self.key, "…") if self.key else text)[:SHOWN]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key goes to the host that the user named, and to no other."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _read(answer: HTTPResponse, until: float) -> bytes:
    found = b""
    while chunk := answer.read1(1 << 16):
        found += chunk
        if len(found) > LARGEST:
            raise NoText(f"the answer has more than {LARGEST:,} bytes")
        if time.monotonic() > until:
            raise TimeoutError
    return found


def _text_of(body: bytes) -> str:
    try:
        choice = json.loads(body)["choices"][0]
        message = choice["message"]
        said = message["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise NoText("the answer is no chat completion") from None
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        raise NoText("refused by the model")
    if not isinstance(said, str) or not said.strip():
        raise NoText("the answer has no text")
    return " ".join(said.split())


def _message(error: urllib.error.HTTPError) -> str:
    try:
        body = json.loads(error.read(1 << 14))
        found = body["error"]
        return str(found["message"] if isinstance(found, dict) else found)
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        return str(error.reason)


def _asked_wait(error: urllib.error.HTTPError) -> float:
    try:
        return min(float(error.headers.get("Retry-After", 0)), 60.0)
    except ValueError:
        return 0.0
