"""Data by ``s3://`` and ``http://``, from real servers on this machine."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paropt.errors import DataError
from paropt.launch.data.data_source import named_data, url_of

pytestmark = pytest.mark.extras


def test_a_directory_in_s3_is_fetched_once(
    ring: Path, object_store: Any, paropt_home: Path
) -> None:
    object_store.files().put(str(ring), "s3://shop/ring", recursive=True)
    said: list[str] = []
    made = named_data("s3://shop/ring", said.append)
    assert named_data("s3://shop/ring/", said.append) == made
    assert ["fetching" in said[0], "fetched before" in said[1]] == [True, True]
    assert (made / "meta.json").read_bytes() == (ring / "meta.json").read_bytes()


def test_a_log_in_s3_is_fetched_again_when_it_changed(
    ring: Path, object_store: Any, paropt_home: Path
) -> None:
    log = (ring.parent / "log.tsv").read_text()
    files = object_store.files()
    files.pipe_file("s3://shop/log.tsv", log.encode())
    first = named_data("s3://shop/log.tsv")
    assert named_data("s3://shop/log.tsv") == first
    files.pipe_file("s3://shop/log.tsv", log[: log.rindex("\n", 0, -9) + 1].encode())
    assert named_data("s3://shop/log.tsv") != first


def test_without_credentials_it_is_said_which_machine_may_not(
    object_store: Any, paropt_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(DataError, match="give it credentials"):
        named_data("s3://shop/ring")


@pytest.fixture
def web(ring: Path) -> Iterator[str]:
    """The ring's directory behind a server that lists nothing and asks for a signature."""

    class Signed(http.server.SimpleHTTPRequestHandler):
        def send_head(self) -> Any:
            if "?sig=of-tests" not in self.path or self.path.partition("?")[0].endswith("/"):
                self.send_error(403, "no signature")
                return None
            return super().send_head()

        def log_message(self, format: str, *words: object) -> None:
            pass

    handler = functools.partial(Signed, directory=str(ring.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/{ring.name}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_signed_address_is_used_and_not_shown(web: str, ring: Path, paropt_home: Path) -> None:
    pytest.importorskip("aiohttp")
    said: list[str] = []
    made = named_data(f"{web}?sig=of-tests", said.append)
    assert (made / "meta.json").read_bytes() == (ring / "meta.json").read_bytes()
    assert url_of(f"{web}?sig=of-tests") == web
    with pytest.raises(DataError, match="cannot be read") as caught:
        named_data(f"{web}?sig=wrong-one", said.append)
    assert "of-tests" not in " ".join(said) and "wrong-one" not in str(caught.value)
