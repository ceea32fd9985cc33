"""A WSGI layer in front of an application that trusts everybody, as optuna-dashboard does.

It lets a request through only if it names a host that we serve (a page elsewhere could otherwise
point its own name at us), reads and doesn't write unless writing was allowed, and shows the token.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
Headers = list[tuple[str, str]]

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
READING = ("GET", "HEAD")
MOST_READ = 1 << 20  # bytes of a request that is refused
# of files that trials uploaded: never run in our origin
SANDBOXED = [
    ("Content-Security-Policy", "sandbox; default-src 'none'"),
    ("Content-Disposition", "attachment"),
]
# of pages and data: once the token is taken away, nothing of them is left in the browser
UNKEPT = [("Cache-Control", "no-store")]
EVERYWHERE = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


@dataclass(frozen=True, slots=True)
class AccessControl:
    """The application behind its check of access; itself a WSGI application.

    Attributes:
        app: what is guarded.
        token: who shows it may enter: as ``?token=…`` (a cookie keeps it from then on), as a
            bearer header, or as that cookie. None lets everybody in who reaches the port.
        hosts: names that the ``Host`` header may give.
        any_address: accept any IP address as ``Host``; no name can be rebound to one.
        writable: let through other methods than GET and HEAD.
        cookie: the cookie's name; browsers share cookies between the ports of a host.
    """

    app: Application
    token: str | None
    hosts: frozenset[str]
    any_address: bool = False
    writable: bool = False
    cookie: str = field(default="paropt_token")

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        host = host_of(environ.get("HTTP_HOST", ""))
        if not self._serves(host):
            return _refuse(
                environ, start_response, "403 Forbidden", f"{host or 'no host'}: not served here"
            )
        method = environ["REQUEST_METHOD"]
        if method not in READING and not self.writable:
            return _refuse(
                environ,
                start_response,
                "405 Method Not Allowed",
                "this dashboard only reads; start it with --writable",
                [("Allow", ", ".join(READING))],
            )
        if method not in READING and not self._same_origin(environ):
            return _refuse(environ, start_response, "403 Forbidden", "this comes from another site")
        if self.token is not None:
            query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
            shown = [value for name, value in query if name == "token"]
            if shown and method in READING and self._right(shown[0]):
                return self._keep_in_cookie(environ, start_response, query)
            if not self._known(environ):
                return _refuse(
                    environ,
                    start_response,
                    "401 Unauthorized",
                    "open the address that paropt dashboard printed: its ?token=… lets you in",
                    [("WWW-Authenticate", "Bearer")],
                )
        # bottle, too, takes //artifacts/ for /artifacts/
        path = "/" + environ.get("PATH_INFO", "").lstrip("/")
        ours = [*EVERYWHERE, *([] if path.startswith("/static/") else UNKEPT)]
        ours += SANDBOXED if path.startswith("/artifacts") else []
        return self.app(environ, _hardened(start_response, ours))

    def _serves(self, host: str) -> bool:
        return host in self.hosts or (self.any_address and _is_address(host))

    def _same_origin(self, environ: Environ) -> bool:
        origin = environ.get("HTTP_ORIGIN")
        return origin is None or urlsplit(origin).netloc == environ.get("HTTP_HOST")

    def _known(self, environ: Environ) -> bool:
        scheme, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer" and self._right(bearer.strip()):
            return True
        try:
            kept = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(self.cookie)
        except CookieError:
            return False
        return kept is not None and self._right(kept.value)

    def _right(self, shown: str) -> bool:
        right = (self.token or "").encode()
        return bool(right) and hmac.compare_digest(shown.encode(errors="replace"), right)

    def _keep_in_cookie(
        self, environ: Environ, start_response: StartResponse, query: list[tuple[str, str]]
    ) -> Iterable[bytes]:
        """Give the cookie, and send the browser where the token stands in no address bar."""
        rest = urlencode([pair for pair in query if pair[0] != "token"])
        path = "/" + environ.get("PATH_INFO", "").lstrip("/\\")
        place = urlsplit(path)._replace(scheme="", netloc="").geturl() or "/"
        start_response(
            "303 See Other",
            [
                ("Location", f"{place}?{rest}" if rest else place),
                ("Set-Cookie", f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"),
                *UNKEPT,
                *EVERYWHERE,
            ],
        )
        return [b""]


def served_hosts(bound: str, extra: Iterable[str] = ()) -> frozenset[str]:
    """The names under which a server bound to ``bound`` is reached, in lower case."""
    names = {*LOOPBACK, bound.lower(), *(name.lower() for name in extra)}
    if not is_loopback(bound):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names - {"0.0.0.0", "::", ""})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is bound to ``host``."""
    if host.lower() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def host_of(header: str) -> str:
    """The host of a ``Host`` header: no port, lower case; empty if it makes no sense."""
    try:
        return (urlsplit(f"//{header.strip()}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _hardened(start_response: StartResponse, ours: Headers) -> StartResponse:
    """Replaces what the application says about how far its answers may be trusted."""
    replaced = {name.lower() for name, _ in ours} | {"access-control-allow-origin"}

    def start(status: str, headers: Headers, *rest: Any) -> Any:
        kept = [(name, value) for name, value in headers if name.lower() not in replaced]
        return start_response(status, [*kept, *ours], *rest)

    return start


def _refuse(
    environ: Environ,
    start_response: StartResponse,
    status: str,
    why: str,
    headers: Headers | None = None,
) -> Iterable[bytes]:
    _read_rest(environ)
    body = f"{status}: {why}\n".encode()
    start_response(
        status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            *UNKEPT,
            *EVERYWHERE,
            *(headers or []),
        ],
    )
    return [body]


def _read_rest(environ: Environ) -> None:
    """What was sent along: a connection that is closed with something unread is reset, and who sent
    it may never see the answer."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if length.isdecimal() and (size := min(int(length), MOST_READ)):
        environ["wsgi.input"].read(size)
