"""TLS before a test's PostgreSQL: a certificate authority of our own, and a door with TLS."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

SSL_REQUEST = struct.pack("!II", 8, 80877103)  # what libpq says first


class Authority:
    """A certificate authority in ``directory``: ``ca.pem``, and certificates for hosts."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("there is no openssl here")
        self.directory = directory
        directory.mkdir(parents=True)
        self.file = directory / "ca.pem"
        self._openssl(
            "req", "-x509", *NEW_KEY, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=tests",
            "-days", "2",
        )  # fmt: skip

    def certificate(self, host: str) -> Path:
        """A file with a key and a certificate for ``host``."""
        (self.directory / "names").write_text(f"subjectAltName=DNS:{host}\n")
        self._openssl(
            "req", *NEW_KEY, "-keyout", "host.key", "-out", "host.csr", "-subj", f"/CN={host}"
        )
        self._openssl(
            "x509", "-req", "-in", "host.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", "host.pem", "-days", "2", "-extfile", "names",
        )  # fmt: skip
        both = self.directory / f"{host}.pem"
        parts = (self.directory / "host.key", self.directory / "host.pem")
        both.write_text("".join(part.read_text() for part in parts))
        return both

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.directory, check=True, capture_output=True)


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class TlsDoor:
    """Takes TLS on a loopback port of its own, and passes what was said to ``port`` in the clear.

    The servers of the tests are built without OpenSSL. Close it at the end.
    """

    def __init__(self, certificate: Path, port: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._behind = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._sockets.append(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # a client that does not like the certificate
            assert client.recv(8, socket.MSG_WAITALL) == SSL_REQUEST
            client.sendall(b"S")
            outside = self._context.wrap_socket(client, server_side=True)
            inside = socket.create_connection(self._behind)
            self._sockets += [outside, inside]
            self._start(_pass_on, inside, outside)
            _pass_on(outside, inside)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(10)


def _pass_on(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(1 << 16):
            to.sendall(chunk)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_RDWR)
