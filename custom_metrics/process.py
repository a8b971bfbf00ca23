"""A worker process (`worker`) seen from the program: started when needed, killed when a query does not come back."""

import json
import os
import signal
import socket
import subprocess
import sys
import warnings
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

# A query has its time on the processor. By the clock it has so many times that, and a moment to start: one that waits
# for a disk, or on a machine with too much to do, is not given up at once.
CLOCK_TIMES = 4
GRACE_S = 2.0
# Comparing two results of the greatest size takes some seconds.
COMPARISON_S = 60.0
START_S = 120.0
WORKER = ("-m", "custom_metrics.worker")


@cache
def _warn(lacking: tuple[str, ...]) -> None:
    """Say once what the kernel does not hold."""
    if lacking:
        warnings.warn(
            f"{' and '.join(lacking)}: not there on this machine, or not working; queries are confined by SQLite's "
            "authorizer and by limits alone (custom_metrics/confinement.py says what is lost).",
            RuntimeWarning,
            stacklevel=2,
        )


class Process:
    """One worker process: after one that was killed or died, the next task starts another.

    It can read the databases that were known when it started. For another one, or a file that has been replaced since,
    a new process is started.

    Args:
        databases: those known so far, which may be shared by several processes: path to what tells a file from others.
    """

    def __init__(self, databases: dict[str, tuple[int, int]] | None = None):
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self._databases = {} if databases is None else databases
        self._readable: dict[str, tuple[int, int]] = {}

    def assess(self, task: dict) -> tuple[dict, bool]:
        """Send a task until it comes back, each time without the query that took the process down the time before.

        Returns:
            What `worker.assess` returns, and whether that is certain: no query was given up by the clock, nor its
            process by a system that lacked memory.
        """
        known: dict[str, list[str]] = {}
        certain = True
        while True:
            result = self.run(task | {"known": dict(known)})
            if isinstance(result, dict):
                return result, certain
            name, error, sure = result
            known[name] = error
            certain &= sure

    def run(self, task: dict) -> dict | tuple[str, list[str], bool]:
        """Return the answer, or the name of the query that ended the process, its error class and message, and whether
        it would do so at any time."""
        name, comparing = "gold", ""
        try:
            if not self._may_read(task["database"]):
                self.kill()
            if self._process is None:
                self._start()
            self._connection.send_bytes(json.dumps(task).encode("ascii"))
            while self._connection.poll(COMPARISON_S if comparing else CLOCK_TIMES * task["timeout_s"] + GRACE_S):
                message = json.loads(self._connection.recv_bytes())
                if isinstance(message, dict):
                    return message
                name, comparing, _ = message.partition(" comparison")
            self.kill()
            if comparing:
                return name, ["too_large", "comparing the rows takes too long"], False
            return name, ["timeout", f"no result within {task['timeout_s']:g} s"], False
        except (EOFError, OSError):
            if self._process is None:  # it cannot be started
                raise
            status = self.kill()
        except BaseException:
            # Left in the middle (Ctrl+C), it would answer the next question with the result of this one.
            self.kill()
            raise
        if status == -signal.SIGPROF:  # see `worker.ending_after`
            return name, ["timeout", f"no result within {task['timeout_s']:g} s"], True
        # It gave up for lack of memory (0), or the system killed it for that. Comparing runs no query: nothing but a
        # lack of memory ends it.
        if comparing or status in (0, -signal.SIGKILL):
            return name, ["too_large", "out of memory"], status == 0
        return name, ["other_sql_error", f"the query ended its process (status {status})"], True

    def knows(self, database: str) -> None:
        """Note a database, so that a process which starts from now on can read it."""
        found = os.stat(database)  # noqa: PTH116 - for every question
        self._databases[database] = (found.st_dev, found.st_ino)

    def _may_read(self, database: str) -> bool:
        self.knows(database)
        return self._readable.get(database) == self._databases[database]

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        path = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")]
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        self._readable = dict(self._databases)
        with theirs:
            self._process = subprocess.Popen(
                # -P: no module is taken from the working folder. -B: nothing is written, which is forbidden there.
                [sys.executable, "-P", "-B", *WORKER, str(theirs.fileno())],
                # Nothing else of the environment, where people keep keys.
                env=kept | {"PYTHONPATH": os.pathsep.join(filter(None, path))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._connection = Connection(ours.detach())
        try:
            self._connection.send_bytes(json.dumps(list(self._readable)).encode("ascii"))
            ready = self._connection.poll(START_S) and self._connection.recv_bytes()
        except (EOFError, ConnectionError):
            ready = False
        if ready:
            _warn(tuple(json.loads(ready)))
        else:
            raise RuntimeError(f"{sys.executable} -m custom_metrics.worker does not start (status {self.kill()}).")

    def kill(self) -> int | None:
        """End the process, if there is one, and return its exit status."""
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        if process is None:
            return None
        # One that has ended by itself keeps its own status.
        try:
            status = process.wait(1.0 if connection.poll(0) else 0)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        connection.close()
        return status
