"""A real PgBouncer before a test's PostgreSQL, in any of its pool modes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import make_url


class PgBouncer:
    """A pooler on a free loopback port before ``url``. End it with ``stop``."""

    def __init__(self, url: str, mode: str, **settings: object) -> None:
        program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
        if program is None:
            pytest.skip("there is no pgbouncer here (apt-get install pgbouncer)")
        behind = make_url(url)
        self.directory = Path(tempfile.mkdtemp(prefix="paropt-pgbouncer-", dir="/tmp"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = behind.set(port=self.port).render_as_string(hide_password=False)
        (self.directory / "users").write_text(f'"{behind.username}" "{behind.password}"\n')
        told = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": self.directory / "users",
            "pool_mode": mode,
            **settings,
        }
        lines = [f"{name} = {value}" for name, value in told.items()]
        server = f"host={behind.host} port={behind.port} dbname={behind.database}"
        head = f"[databases]\n{behind.database} = {server}\n[pgbouncer]\n"
        (self.directory / "ini").write_text(head + "\n".join(lines) + "\n")
        as_user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
        if as_user:
            for path in (self.directory, *self.directory.iterdir()):
                shutil.chown(path, as_user)
        self.process = subprocess.Popen(
            [program, str(self.directory / "ini")],
            stderr=subprocess.PIPE,
            text=True,
            user=as_user,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "process up" in line:
                return
        raise RuntimeError(f"pgbouncer ended with {self.process.wait()}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate()
        shutil.rmtree(self.directory, ignore_errors=True)
