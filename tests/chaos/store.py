"""An object store that speaks as much S3 as checkpoints need, and misbehaves on demand.

Objects are there whole once their PUT was answered; listings lag behind by a moment, always.
``fault`` is one of: ``away`` (connections are closed), ``expired`` (credentials are not taken),
``half`` (half of an object is kept and the connection closed).
"""

from __future__ import annotations

import sys
import threading
import time
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

LAG = 0.7  # seconds until a listing shows what became of an object
EXPIRED = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>ExpiredToken</Code>'
    "<Message>The provided token has expired.</Message></Error>"
)
MISSING = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>NoSuchKey</Code>'
    "<Message>The specified key does not exist.</Message></Error>"
)


class ObjectStore:
    """In this process, on a loopback port of its own. Close it at the end.

    Attributes:
        fault: what is wrong with it now; empty if nothing is.
        objects: what it holds, by key (bucket and all).
    """

    def __init__(self) -> None:
        self.fault = ""
        self.objects: dict[str, bytes] = {}
        self._listed: list[tuple[float, str, bool]] = []  # when, which key, and whether it came
        self._lock = threading.Lock()
        store = self

        class Handler(_Handler):
            def __init__(self, *words: object) -> None:
                self.store = store
                super().__init__(*words)

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "key-of-chaos",
            "AWS_SECRET_ACCESS_KEY": "word-of-chaos",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def put(self, key: str, content: bytes) -> None:
        with self._lock:
            self.objects[key] = content
            self._listed.append((time.monotonic(), key, True))

    def remove(self, key: str) -> None:
        with self._lock:
            self.objects.pop(key, None)
            self._listed.append((time.monotonic(), key, False))

    def listing(self, prefix: str) -> list[str]:
        """As it was a moment ago."""
        until, shown = time.monotonic() - LAG, set()
        with self._lock:
            for when, key, came in self._listed:
                if when <= until:
                    (shown.add if came else shown.discard)(key)
        return sorted(key for key in shown if key.startswith(prefix))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients are killed here while they send: that is no error of the server's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    store: ObjectStore
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *words: object) -> None:
        pass

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path).strip("/")

    def _refused(self) -> bool:
        if self.store.fault == "away":
            self.close_connection = True
            self.connection.close()
            return True
        if self.store.fault == "expired":
            self._answer(400, EXPIRED)
            return True
        return False

    def _answer(self, code: int, body: str | bytes = b"", **headers: str) -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _content(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return content
        whole = b""
        while content:  # SIZE;signature CRLF that many bytes CRLF …, and a checksum
            head, _, content = content.partition(b"\r\n")
            size = int(head.partition(b";")[0], 16)
            if not size:
                break
            whole, content = whole + content[:size], content[size + 2 :]
        return whole

    def do_PUT(self) -> None:
        content = self._content()
        if self._refused():
            return
        if self.store.fault == "half":
            self.store.put(self.key, content[: len(content) // 2])
            self.close_connection = True
            self.connection.close()
            return
        self.store.put(self.key, content)
        self._answer(200, ETag=f'"{md5(content).hexdigest()}"')

    def do_GET(self) -> None:
        if self._refused():
            return
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._list(query)
            return
        found = self.store.objects.get(self.key)
        if found is None:
            self._answer(404, MISSING)
            return
        code, facts = 200, {"ETag": f'"{md5(found).hexdigest()}"', "Last_Modified": formatdate(0)}
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = min(int(last) if last else len(found) - 1, len(found) - 1)
            facts["Content_Range"] = f"bytes {first}-{end}/{len(found)}"
            code, found = 206, found[int(first) : end + 1]
        self._answer(code, found, **facts)

    do_HEAD = do_GET

    def _list(self, query: dict[str, list[str]]) -> None:
        bucket, prefix = self.key, query.get("prefix", [""])[0]
        rows = "".join(
            f"<Contents><Key>{escape(key.removeprefix(bucket + '/'))}</Key>"
            "<LastModified>2020-01-01T00:00:00.000Z</LastModified><Size>1</Size></Contents>"
            for key in self.store.listing(f"{bucket}/{prefix}")
        )
        self._answer(
            200,
            f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>{bucket}</Name>'
            f"<IsTruncated>false</IsTruncated>{rows}</ListBucketResult>",
        )

    def do_DELETE(self) -> None:
        if self._refused():
            return
        self.store.remove(self.key)
        self._answer(204)

    def do_POST(self) -> None:
        self._content()
        self._answer(501)
