"""By which address other machines reach this one."""

from __future__ import annotations

import ipaddress
import socket

# addresses for documentation (RFC 5737, RFC 3849): the kernel picks the way there, nothing is sent
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def address_for_others(bound: str) -> str | None:
    """What others type to reach a server that is bound to ``bound``; None if only we reach it.

    No name is looked up: that may take seconds, and end in a name that others don't know.
    """
    if bound in ("0.0.0.0", "::", ""):
        return _own_address() or socket.gethostname()
    if bound == "localhost" or _is_loopback(bound):
        return None
    return bound


def _own_address() -> str | None:
    """The address by which this machine goes out."""
    for family, elsewhere in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))
                found = str(probe.getsockname()[0])
        except OSError:
            continue
        if not _is_loopback(found):
            return found
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
