"""A PostgreSQL server of the tests' own: private folder, Unix socket only, gone afterwards.

with running(folder) as server:
    url = server.database("name")
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg


class NoPostgres(Exception):
    """PostgreSQL's programs are not installed here."""


def programs() -> Path:
    """The folder of `initdb` and `postgres`. Raises NoPostgres."""
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    on_path = shutil.which("initdb")
    for folder in [*reversed(newest), *([Path(on_path).parent] if on_path else [])]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise NoPostgres("no PostgreSQL here (Debian, Ubuntu: apt install postgresql)")


@dataclass(frozen=True)
class Server:
    """A running server that trusts whoever reaches its socket."""

    socket: Path
    user: str

    def url(self, database: str) -> str:
        """As `store.url` takes it."""
        return f"postgresql://{self.user}@/{database}?host={self.socket}"

    def database(self, name: str, template: str = "template0") -> str:
        """Make a database; its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
        return self.url(name)

    def drop(self, name: str) -> None:
        """Remove a database, also from under its connections."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@contextmanager
def running() -> Iterator[Server]:
    """A server. Raises NoPostgres; runs as `postgres` when the tests run as root."""
    folder = programs()
    root = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path is short
    prefix: list[str] = []
    user = pwd.getpwuid(os.getuid()).pw_name
    if os.getuid() == 0:
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError as exc:
            raise NoPostgres("PostgreSQL refuses root, and there is no user `postgres`") from exc
        user = "postgres"
        os.chown(root, owner.pw_uid, owner.pw_gid)
        prefix = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    data = root / "data"
    initdb = ["initdb", "-D", str(data), "-A", "trust", "-U", user, "-E", "UTF8", "--no-locale"]
    process = None
    try:
        _run([*prefix, str(folder / initdb[0]), *initdb[1:], "--no-sync"], root)
        settings = {
            "listen_addresses": "", "unix_socket_directories": str(root), "fsync": "off",
            "max_connections": "200", "shared_buffers": "32MB", "autovacuum": "off",
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (root / "log").open("wb") as log:
            process = subprocess.Popen(
                [*prefix, str(folder / "postgres"), "-D", str(data), *options],
                stdout=log, stderr=log, cwd=root,
            )  # fmt: skip
        _await(Server(root, user), process, root / "log")
        yield Server(root, user)
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # ends connections too
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(root, ignore_errors=True)


def _run(command: list[str], cwd: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr


def _await(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    import time

    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(server.url("postgres")).close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
