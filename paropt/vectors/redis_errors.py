"""What Redis, the network or TLS said, as a sentence of what is wrong and what to do."""

from __future__ import annotations

from paropt.errors import ParoptError, StorageUnreachable, VectorsError
from paropt.vectors.redis_place import RedisPlace

_AGAIN = "run the same command again then, it goes on where this one ended"
_CLUSTER = "is part of a Redis Cluster, which paropt doesn't write to; name a single server"
_NOT_ALLOWED = (
    "doesn't let this user write these keys; on them and on paropt:embed:* it needs SET, MSET,"
    " MGET, EXISTS, TYPE, STRLEN, TTL, HSET, HGETALL, EXPIRE and PERSIST, and DBSIZE"
)
# what servers say, and what follows the server's name in the sentence
_REFUSALS = (
    ("when used memory", f"has no memory left; raise its maxmemory or make room, and {_AGAIN}"),
    ("read only replica", "is a read-only replica; name its primary"),
    ("readonly", "is a read-only replica; name its primary"),
    ("rdb snapshots", f"takes no writes while it can't save to its disk; mend that, and {_AGAIN}"),
    ("misconf", f"takes no writes while it can't save to its disk; mend that, and {_AGAIN}"),
    ("good replicas", f"takes no writes while it lacks replicas; mend that, and {_AGAIN}"),
    ("moved", _CLUSTER),
    ("same slot", _CLUSTER),
    ("cluster is down", _CLUSTER),
    ("hash slot not served", _CLUSTER),
    ("no permissions", _NOT_ALLOWED),
    ("index is out of range", "has no database of this number; leave it out of the URL for 0"),
)


def explained(place: RedisPlace, error: Exception, connecting: bool) -> ParoptError:
    """The error to raise in place of redis-py's; it never holds the password.

    :class:`StorageUnreachable` where there was no connection to be had or it was lost, else
    :class:`VectorsError`.
    """
    from redis import exceptions

    said = str(error)
    if isinstance(error, exceptions.AuthenticationError) or _signs(said, "noauth", "wrongpass"):
        return StorageUnreachable(_no_entry(place, said))
    if isinstance(error, exceptions.MovedError):
        return VectorsError(f"{place} {_CLUSTER}")
    if isinstance(error, exceptions.ResponseError):
        return _refused(place, said)
    if isinstance(error, exceptions.BusyLoadingError):
        return StorageUnreachable(f"{place} is still loading its data; try again in a moment")
    return StorageUnreachable(_unreachable(place, said, connecting))


def _signs(said: str, *signs: str) -> bool:
    return any(sign in said.lower() for sign in signs)


def _refused(place: RedisPlace, said: str) -> ParoptError:
    if _signs(said, "authentication required"):
        return StorageUnreachable(_no_entry(place, said))
    for sign, sentence in _REFUSALS:
        if _signs(said, sign):
            return VectorsError(f"{place} {sentence}")
    return VectorsError(f"{place} refused: {said.splitlines()[0] if said else 'no reason given'}")


def _no_entry(place: RedisPlace, said: str) -> str:
    if place.password is None:
        return (
            f"{place} wants a password; give it in PAROPT_REDIS_URL, in a file (--to-file) or in"
            " REDISCLI_AUTH"
        )
    if _signs(said, "without any password configured", "no password is set"):
        return f"{place} has no password for this user, and one was given; leave it out"
    return f"{place} doesn't take this user and password; check both"


def _unreachable(place: RedisPlace, said: str, connecting: bool) -> str:
    if _signs(said, "max number of clients"):
        return f"{place} has no connection left; raise its maxclients"
    if place.scheme == "rediss" and (why := _about_tls(place, said)):
        return why
    if _signs(said, "name or service", "nodename", "name resolution", "no address"):
        return f"the host {place.host!r} of {place} is not known here; check its name"
    if not connecting:
        return (
            f"the connection to {place} was lost; run the same command again, it goes on where"
            " this one ended"
        )
    if _signs(said, "closed by server", "reset by peer"):
        return f"{place} closed the connection at once; if its port wants TLS, write rediss://"
    if _signs(said, "permission denied"):
        return f"this user may not open {place}; check the socket's permissions"
    if _signs(said, "timeout", "timed out"):
        port = "that its port speaks TLS" if place.scheme == "rediss" else "the port"
        return f"no Redis answers at {place} in time; check the host, {port} and firewalls"
    return f"no Redis answers at {place}; start it, or check the place"


def _about_tls(place: RedisPlace, said: str) -> str | None:
    if _signs(said, "mismatch", "not valid for"):
        return f"the certificate of {place} names another host; write the one that it names"
    if _signs(said, "certificate verify failed", "certificate_verify_failed"):
        return (
            f"the certificate of {place} is signed by nobody known here; name its authority with"
            " ?ssl_ca_certs=FILE"
        )
    if _signs(said, "pem lib", "x509", "no certificate or crl"):
        return f"a file that the URL of {place} names holds no certificate or key that fits"
    if _signs(said, "eof occurred"):
        return (
            f"{place} broke off TLS; if it wants a certificate, add"
            " ?ssl_certfile=FILE&ssl_keyfile=FILE to its URL"
        )
    if _signs(said, "certificate required", "certificate_required", "handshake failure"):
        return f"{place} wants a certificate; add ?ssl_certfile=FILE&ssl_keyfile=FILE to its URL"
    if _signs(said, "wrong version number", "wrong_version_number", "record layer"):
        return f"no TLS is spoken at {place}; write redis:// for a port without"
    return None
