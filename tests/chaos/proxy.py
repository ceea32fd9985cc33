"""A TCP proxy that can be cut, so that one worker loses the database and the others do not."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from typing import Literal

Fault = Literal["healthy", "refuse", "blackhole"]


class Proxy:
    """Forwards ``127.0.0.1:port`` to ``target``, all connections in one thread.

    ``refuse`` resets what is open and what comes (the server is down); ``blackhole`` keeps
    connections open and forwards nothing, as a network does that drops packets.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._fault: Fault = "healthy"
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._server.getsockname()[1]
        self._wake_in, self._wake_out = socket.socketpair()
        self._closed = False
        self._selector.register(self._server, selectors.EVENT_READ)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    @property
    def fault(self) -> Fault:
        return self._fault

    def set(self, fault: Fault) -> None:
        """Change what happens to the traffic, from now on."""
        with self._lock:
            self._fault = fault
        self._wake_in.send(b"x")

    def close(self) -> None:
        self._closed = True
        self._wake_in.send(b"x")
        self._thread.join(10)
        for end in (self._server, self._wake_in, self._wake_out):
            end.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._closed:
            # held-back bytes make their sockets readable all the time: look only now and then
            held = self._fault == "blackhole"
            for key, _ in self._selector.select(0.05 if held else None):
                end = key.fileobj
                assert isinstance(end, socket.socket)
                if end is self._wake_out:
                    end.recv(64)
                    if self._fault == "refuse":
                        self._drop_all()
                elif end is self._server:
                    self._accept()
                elif self._fault == "healthy":
                    self._forward(end)
            if held and self._fault == "blackhole":
                time.sleep(0.05)
        self._drop_all()

    def _accept(self) -> None:
        client, _ = self._server.accept()
        if self._fault == "refuse":
            client.close()
            return
        try:
            upstream = socket.create_connection(self._target, timeout=5)
        except OSError:
            client.close()
            return
        for end, other in ((client, upstream), (upstream, client)):
            end.settimeout(30)
            self._pairs[end] = other
            self._selector.register(end, selectors.EVENT_READ)

    def _forward(self, end: socket.socket) -> None:
        other = self._pairs.get(end)
        if other is None:
            return
        try:
            data = end.recv(1 << 16)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        self._drop(end, other)

    def _drop(self, *ends: socket.socket) -> None:
        for end in ends:
            self._pairs.pop(end, None)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(end)
            end.close()

    def _drop_all(self) -> None:
        for end in list(self._pairs):
            self._drop(end)
