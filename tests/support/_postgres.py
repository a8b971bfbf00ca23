"""A PostgreSQL server for tests, from the programs of the system, in a folder of its own."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").is_dir() else []


def _program(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([*map(str, reversed(PLACES)), os.environ.get("PATH", "")]))
    return found or pytest.skip(f"no {name} of PostgreSQL on this system (Debian: apt-get install postgresql)")


@contextmanager
def server() -> Iterator[str]:
    """Start a server; give the place of it, as `127.0.0.1:port`, where `postgres` is a superuser without a password."""
    initdb, control = _program("initdb"), _program("pg_ctl")
    # It refuses to run as root; Debian's package brings a user for it.
    before = []
    if os.geteuid() == 0:
        if shutil.which("runuser") is None or subprocess.run(["id", "postgres"], capture_output=True).returncode:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres or no runuser")
        before = ["runuser", "-u", "postgres", "--"]
    # Not below pytest's folder, which other users cannot enter. The name of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        folder.chmod(0o777)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data, log = folder / "data", folder / "log"
        made = [initdb, "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([*before, *made], check=True, capture_output=True)
        # Passwords count for the role that has one.
        (data / "pg_hba.conf").write_text(
            "host all guarded 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n", encoding="utf-8"
        )
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        started = [*before, control, "-D", data, "-w", "-l", log, "-o", options, "start"]
        subprocess.run(started, check=True, stdout=subprocess.DEVNULL)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            subprocess.run([*before, control, "-D", data, "-m", "immediate", "stop"], check=True, capture_output=True)
    finally:
        shutil.rmtree(folder)
