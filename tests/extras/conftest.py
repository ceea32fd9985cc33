"""What the tests with extras share: an object store."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class ObjectStore:
    """moto's S3 in a process of its own, with a bucket ``shop``; ``environment`` leads there."""

    def __init__(self) -> None:
        pytest.importorskip("moto")
        pytest.importorskip("s3fs")
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        lines = iter(self._process.stdout.readline, "")
        port = next(line for line in lines if line.strip().isdecimal()).strip()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "key-of-tests",
            "AWS_SECRET_ACCESS_KEY": "word-of-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def files(self) -> Any:
        """fsspec's file system of it."""
        import fsspec

        return fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)

    def close(self) -> None:
        self._process.communicate("")


@pytest.fixture(scope="session")
def object_store_server() -> Iterator[ObjectStore]:
    store = ObjectStore()
    yield store
    store.close()


@pytest.fixture
def object_store(
    object_store_server: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ObjectStore]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in object_store_server.environment.items():
        monkeypatch.setenv(name, value)
    files = object_store_server.files()
    files.mkdir("shop")
    yield object_store_server
    files.rm("shop", recursive=True)
