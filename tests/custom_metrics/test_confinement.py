"""Arbitrary code in a confined process, as a flaw in an engine might let run: every door is shut."""

import json
import os
import platform
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from custom_metrics import process
from custom_metrics.judge import Judge

ROOT = Path(__file__).resolve().parents[2]
HELD = platform.system() == "Linux" and platform.machine() == "x86_64"
pytestmark = pytest.mark.skipif(not HELD, reason="what is held here is held by Linux on x86-64")

DOORS = """
import ctypes, json, os, socket, sqlite3, subprocess, sys, threading
from custom_metrics import worker
from custom_metrics.confinement import confine

engine, database, victim, parent = sys.argv[1:]
doors = {
    "read a file": lambda: open(victim).read(),
    "read the environment of the parent": lambda: open(f"/proc/{parent}/environ").read(),
    "read its own environment": lambda: open("/proc/self/environ").read(),
    "look into a folder": lambda: os.listdir("/"),
    "write": lambda: open(victim, "a"),
    "write the database": lambda: open(database, "r+b"),
    "make a file": lambda: open(victim + ".new", "w"),
    "truncate": lambda: os.truncate(victim, 0),
    "delete": lambda: os.unlink(victim),
    "rename": lambda: os.rename(victim, victim + ".old"),
    "link": lambda: os.link(victim, victim + ".link"),
    "point": lambda: os.symlink(victim, victim + ".symlink"),
    "make a folder": lambda: os.mkdir(victim + ".d"),
    "change rights": lambda: os.chmod(victim, 0o777),
    "change times": lambda: os.utime(victim),
    "change the owner": lambda: os.chown(victim, 1, 1),
    "fork": os.fork,
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "start a process": lambda: subprocess.run(["/bin/true"]),
    "start a thread": lambda: threading.Thread(target=print).start(),
    "open a socket": socket.socket,
    "open a pair": socket.socketpair,
    "signal": lambda: os.kill(int(parent), 0),
    "another database": lambda: sqlite3.connect(victim).execute("SELECT * FROM sqlite_master").fetchall(),
}
given = worker.open_before(engine, [database])
worker.preload()
worker.limit()
lacking = confine([database])
assert not os.environ
open_doors = []
for name, door in doors.items():
    try:
        door()
        open_doors.append(name)
    except (PermissionError, sqlite3.OperationalError, RuntimeError) as error:
        # A thread that cannot be started is a RuntimeError.
        pass
libc = ctypes.CDLL(None, use_errno=True)
for number in (101, 165, 272, 304, 321, 425):  # ptrace, mount, unshare, open_by_handle_at, bpf, io_uring_setup
    if libc.syscall(number, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1:
        open_doors.append(number)
rows = worker.Databases(given).open(database).execute("SELECT * FROM t").rows
print(json.dumps([lacking, open_doors, rows]))
"""


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "one.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (5);")
    return path


@pytest.mark.parametrize("engine", ["sqlite", "duckdb"])
def test_every_door_is_shut_but_that_to_the_database(database, tmp_path, engine):
    if engine == "duckdb":
        database.unlink()
        with duckdb.connect(str(database)) as connection:
            connection.execute("CREATE TABLE t AS SELECT 5 AS a")
    victim = tmp_path / "victim"
    victim.write_text("secret", encoding="utf-8")
    arguments = [sys.executable, "-c", DOORS, engine, database, victim, str(os.getpid())]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SECRET": "x"}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lacking, open_doors, rows = json.loads(done.stdout)
    if lacking:
        pytest.skip(f"this kernel lacks {lacking}")
    assert (open_doors, rows) == ([], [[5]])
    assert victim.read_text(encoding="utf-8") == "secret" and len(list(tmp_path.iterdir())) == 2


def test_a_process_reads_databases_that_are_named_later(database, tmp_path):
    other = tmp_path / "other.sqlite"
    other.write_bytes(database.read_bytes())
    with Judge(timeout_s=20) as judge:
        assert judge.judge(database, "SELECT a FROM t", "SELECT 5").correct["bag"]
        first = judge._all[0]._process
        assert judge.judge(other, "SELECT a FROM t", "SELECT 5").correct["bag"]
        second = judge._all[0]._process
        # The one that was started last knows both.
        assert judge.judge(database, "SELECT a FROM t", "SELECT 5").correct["bag"]
        assert first is not second and judge._all[0]._process is second
        # A file that took the place of another is another file.
        copy = tmp_path / "copy.sqlite"
        with closing(sqlite3.connect(copy)) as connection:
            connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (6);")
        copy.replace(database)
        assert judge.judge(database, "SELECT a FROM t", "SELECT 6").correct["bag"]


def test_the_environment_of_a_worker_is_empty(database, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "x")
    with Judge(timeout_s=20) as judge:
        judge.judge(database, "SELECT 1", "SELECT 1")
        environment = Path(f"/proc/{judge._all[0]._process.pid}/environ").read_bytes()
    assert b"PYTHONPATH" in environment and b"SECRET_KEY" not in environment


def test_what_the_kernel_lacks_is_told_by_name(database, monkeypatch):
    program = "import sys; from custom_metrics import worker; worker.confine = lambda paths: ['Landlock']; "
    monkeypatch.setattr(process, "WORKER", ("-c", program + "worker.main(*map(int, sys.argv[1:]))"))
    process._warn.cache_clear()
    with Judge(timeout_s=20) as judge, pytest.warns(RuntimeWarning, match="Landlock: not there on this machine"):
        judge.judge(database, "SELECT 1", "SELECT 1")
