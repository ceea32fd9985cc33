"""One connection to a Redis server: commands packed here, its refusals said in a sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from paropt.errors import VectorsError
from paropt.vectors.redis_errors import explained
from paropt.vectors.redis_place import RedisPlace

CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0


def packed(*words: bytes | str | int) -> bytes:
    """One command as the server reads it (RESP): its words, each with its length."""
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded]
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


class Link:
    """Closes with ``with``. What the server refuses is a :class:`VectorsError`, what it doesn't
    answer a :class:`StorageUnreachable`; neither repeats the password."""

    def __init__(self, place: RedisPlace) -> None:
        self.place = place
        self._connection = _connection(place)
        with self._told(connecting=True):
            self._connection.connect()

    def ask(self, *words: bytes | str | int) -> Any:
        """The answer to one command."""
        self.send([packed(*words)], 1)
        return self.receive(1)[0]

    def send(self, commands: Sequence[bytes], count: int) -> None:
        """Send ``count`` commands, packed; their answers are to be received."""
        with self._told():
            self._connection.send_packed_command(commands)

    def receive(self, count: int) -> list[Any]:
        """The next answers. All are received before one of them is raised as an error."""
        from redis.exceptions import ResponseError

        refused: ResponseError | None = None
        answers = []
        with self._told():
            for _ in range(count):
                try:
                    answers.append(self._connection.read_response())
                except ResponseError as error:
                    refused = refused or error
            if refused is not None:
                raise refused
        return answers

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.disconnect()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _told(self, connecting: bool = False) -> Iterator[None]:
        from redis.exceptions import RedisError, ResponseError

        try:
            yield
        except (RedisError, OSError) as error:
            if not isinstance(error, ResponseError):
                self.close()
            raise explained(self.place, error, connecting) from None


def _connection(place: RedisPlace) -> Any:
    """A connection of redis-py, whose types are not declared, that isn't made yet.

    Raises:
        VectorsError: redis-py is not installed.
    """
    try:
        from redis import connection as made
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise VectorsError(
            "writing to Redis needs redis-py, which is not installed here;"
            " pip install 'paropt[redis]'"
        ) from None
    connections: Any = made
    common: dict[str, Any] = {
        "db": place.db,
        "username": place.username,
        "password": place.password,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": ANSWER_SECONDS,
        "retry": Retry(NoBackoff(), 0),  # what was sent before would be lost without a word
        "protocol": 2,
        "decode_responses": False,
    }
    if place.scheme == "unix":
        return connections.UnixDomainSocketConnection(path=place.path, **common)
    common |= {"host": place.host, "port": place.port}
    if place.scheme != "rediss":
        return connections.Connection(**common)
    tls: dict[str, Any] = dict(place.tls)
    tls["ssl_check_hostname"] = (
        tls.get("ssl_check_hostname", "true").lower() == "true"
        and tls.get("ssl_cert_reqs") != "none"
    )
    return connections.SSLConnection(**common, **tls)
