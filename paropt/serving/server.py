"""``paropt serve``: a socket, a model, and a server until a signal ends it."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from paropt.errors import ParoptError
from paropt.serving.limits import Limits

Note = Callable[[str], None]
NEEDED = ("starlette", "uvicorn")
DRAIN_SECONDS = 10  # that running requests have after a signal


class ServeError(ParoptError):
    """An address that cannot be served from, or what serving lacks."""


@dataclass(frozen=True)
class ServeRequest:
    """What is served and where; several ``directories`` are one model, their scores' mean."""

    directories: Sequence[Path]
    host: str = "127.0.0.1"
    port: int = 8080
    device: str = "cpu"
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)


def serve(request: ServeRequest, note: Note) -> None:
    """Serve until SIGTERM or SIGINT; a second one doesn't wait for running requests.

    Raises:
        ServeError: the extra is missing, or the address can't be had.
        DataError, ModelError: there is no such model, or it ranks no items.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ServeError(
            f"paropt serve needs {' and '.join(missing)}; install the extra: pip install "
            "'paropt[serve]'"
        )
    bound = _bind(request.host, request.port)
    with bound:
        service = _service(request)
        host, port = bound.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        about = service.about
        bound.listen()
        note(
            f"{about['model']} with {about['items']:,} items on http://{shown}:{port}: "
            "POST /recommend, GET /health, GET /metrics; Ctrl-C ends it"
        )
        if not _is_loopback(host):
            note(
                f"whoever reaches port {port} of this machine can ask: there is neither a password "
                "nor TLS here; keep it in a private network, or behind a proxy that has both"
            )
        _run(service.app(), bound)
        note("ended")


def _bind(host: str, port: int) -> socket.socket:
    """A socket that nobody listens on yet, before a model is loaded for nothing."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # named as TCP, or asyncio lets answers wait for 40 ms (Nagle's algorithm)
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        why = error.strerror or error
        raise ServeError(
            f"{host}:{port} can't be listened on ({why}); choose another --host or --port"
        ) from None
    return found


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


def _service(request: ServeRequest) -> Any:
    from paropt.serving.app import Service
    from paropt.training.recommending.answering import Answerer, use_threads
    from paropt.training.recommending.vectors import version_of
    from paropt.training.saved_model.ensemble import load_models

    use_threads(request.threads)
    saved = load_models(list(request.directories), request.device)
    about = {
        "model": saved.meta["model"],
        "items": saved.n_items,
        "version": "+".join(version_of(one)[:12] for one in request.directories),
        "trained": saved.meta["fingerprint"][:12],
    }
    return Service(Answerer(saved), about, request.limits)


def _run(app: Any, bound: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    with _signals():
        asyncio.run(uvicorn.Server(config).serve([bound]))


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGINT, which the server raises once more when it has ended, are no failure."""

    def ended(number: int, frame: FrameType | None) -> None:
        pass

    before = {number: signal.signal(number, ended) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
