"""A worker process (`worker`) seen from the program: started when needed, killed when a query does not come back."""

import importlib.util
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from custom_metrics.engines import ENGINES, LOST, UnavailableError, shown
from custom_metrics.sandbox import late
from custom_metrics.stage import Stage

# A query has its time on the processor. By the clock it has so many times that, and a moment to start: one that waits
# for a disk, or on a machine with too much to do, is not given up at once.
CLOCK_TIMES = 4
GRACE_S = 2.0
# Comparing two results of the greatest size takes some seconds.
COMPARISON_S = 60.0
START_S = 120.0
# What the name of a query gets while its rows are compared.
COMPARING = " comparison"
WORKER = ("-m", "custom_metrics.worker")
# How a process ends that somebody stops: the system for its memory, a scheduler, a terminal. Windows lacks some.
SENT = {-getattr(signal, name, signal.SIGTERM) for name in ("SIGKILL", "SIGTERM", "SIGHUP", "SIGQUIT")}


class Failure(NamedTuple):
    """What ended a process: at which task, at which of its queries, with which error class and message.

    `certain`: whether it would do so at any time, however busy the machine is. `sent`: whether a signal ended it that
    somebody else may have sent.
    """

    place: int
    name: str
    error: list[str]
    certain: bool
    sent: bool = False


@cache
def _warn(lacking: tuple[str, ...]) -> None:
    """Say once what the kernel does not hold."""
    if lacking:
        warnings.warn(
            f"{' and '.join(lacking)}: not there on this machine, or not working; queries are confined by SQLite's "
            " (custom_metrics/confinement.py says what is lost).",
            RuntimeWarning,
            stacklevel=2,
        )


def refuse_without_limits() -> None:
    """Raise an `UnavailableError` on a system that cannot limit a process: SQL of a model runs in none other."""
    if importlib.util.find_spec("resource") is None:
        raise UnavailableError(
            f"No query is run on {platform.system()}: a process of this system cannot be kept from filling the memory "
            "or writing files (Python has no module `resource` here), and SQL of a model runs in none that can. Use "
            "Linux or macOS; on Windows that is WSL 2 (`wsl --install`)."
        )


class Process:
    """One worker process: after one that was killed or died, the next task starts another.

    It can read the databases of one engine that were known when it started; of some engines only a few of them
    (`engines.Engine.at_once`). For another one, or a file that has been replaced since, a new process is started.

    Args:
        databases: those known so far, which may be shared by several processes: path or address, to the engine and what
            tells a file from others.
    """

    def __init__(self, databases: dict[str, tuple] | None = None):
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self._stage: Stage | None = None
        self._databases = {} if databases is None else databases
        self._readable: dict[str, tuple] = {}
        self.versions: dict[str, str] = {}

    def assess(self, tasks: Sequence[dict]) -> dict[int, tuple[dict, bool]]:
        """Send tasks, and return what came of some of them, of one at least.

        What follows a query that took long, or that took the process down, is left to whichever process is free. The
        one that took it down is sent again, each time without the query that did so. A signal that may have come from
        elsewhere is not laid to a query before it has come twice.

        Returns:
            By the place of a task: what `worker.assess` returns, and whether that is certain: no query was given up by
            the clock, nor its process by a system that lacked memory.
        """
        results, failure = self.run([task | {"known": {}} for task in tasks])
        found = {place: (result, True) for place, result in enumerate(results)}
        if failure:
            place, known, certain, doubted = failure.place, {}, True, set()
            while failure:
                if failure.name in known:  # it is not run again, so something else ends the process
                    raise RuntimeError(
                        f"{shown(tasks[place]['database'])}: no process can work with it ({failure.error[1]})."
                    )
                if failure.sent and failure.name not in doubted:
                    doubted.add(failure.name)
                else:
                    known[failure.name] = failure.error
                    certain &= failure.certain
                results, failure = self.run([tasks[place] | {"known": dict(known)}])
            found[place] = results[0], certain
        return found

    def run(self, tasks: Sequence[dict]) -> tuple[list[dict], Failure | None]:
        """Return the results of the first of the tasks, and what ended the process at a task behind these, if it did.

        All tasks have the same `timeout_s` and the same `engine`, and no more databases than a process of it can read.

        Raises:
            UnavailableError: a database cannot be opened, or this system cannot limit a process.
        """
        results: list[dict] = []
        too_late = ["timeout", late(tasks[0]["timeout_s"]).error]
        try:
            for database in dict.fromkeys(task["database"] for task in tasks):
                if not self._may_read(database, tasks[0]["engine"]):
                    self.kill()
            if self._process is None:
                self._start(tasks[0]["engine"], tasks[0]["database"])
            self._stage.begin(0)
            self._connection.send_bytes(json.dumps(tasks).encode("ascii"))
            while message := self._next(tasks[0]["timeout_s"]):
                results += message["results"]
                if message["end"]:
                    return results, None
            place, name, comparing = self._doing()
            self.kill()
            if comparing:
                return results, Failure(place, name, ["too_large", "comparing the rows takes too long"], False)
            return results, Failure(place, name, too_late, False)
        except (EOFError, OSError):
            if self._process is None:  # it cannot be started
                raise
            place, name, comparing = self._doing()
            status = self.kill()
        except BaseException:
            # Left in the middle (Ctrl+C), it would answer the next question with the result of this one.
            self.kill()
            raise
        if status == -signal.SIGPROF:  # see `worker.ending_after`
            return results, Failure(place, name, too_late, True)
        # It gave up for lack of memory (0), or the system killed it for that. Comparing runs no query: nothing but a
        # lack of memory ends it.
        sent = status in SENT
        if comparing or status in (0, -signal.SIGKILL):
            return results, Failure(place, name, ["too_large", "out of memory"], status == 0, sent)
        what = "the engine, or the connection to it" if status == LOST else f"its process (status {status})"
        error = ["other_sql_error", f"the query ended {what}"]
        return results, Failure(place, name, error, True, sent)

    def _next(self, timeout_s: float) -> dict | None:
        """Return the next message, None if what the process does takes too long by the clock."""
        wait = allowed = CLOCK_TIMES * timeout_s + GRACE_S
        while wait > 0:
            if self._connection.poll(wait):
                return json.loads(self._connection.recv_bytes())
            _, name, seconds = self._stage.read()
            wait = (COMPARISON_S if name.endswith(COMPARING) else allowed) - seconds
        return None

    def _doing(self) -> tuple[int, str, bool]:
        """Return the place of the task, the name of the query, and whether its rows are being compared."""
        place, name, _ = self._stage.read()
        return place, name.removesuffix(COMPARING), name.endswith(COMPARING)

    def knows(self, database: str, engine: str) -> None:
        """Note a database, so that a process which starts from now on can read it."""
        state: tuple = (engine,)
        if engine != "postgres":
            found = os.stat(database)  # noqa: PTH116 - for every question
            state = (engine, found.st_dev, found.st_ino)
        self._databases[database] = state

    def _may_read(self, database: str, engine: str) -> bool:
        self.knows(database, engine)
        return self._readable.get(database) == self._databases[database]

    def _start(self, engine: str, wanted: str) -> None:
        refuse_without_limits()
        ours, theirs = socket.socketpair()
        path = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")]
        # libpq finds a password there that is not in the address, or a file of them.
        needed = r"LD_LIBRARY_PATH|HOME|PG\w+" if engine == "postgres" else "LD_LIBRARY_PATH"
        kept = {name: value for name, value in os.environ.items() if re.fullmatch(needed, name)}
        known = sorted(name for name, (kind, *_) in self._databases.items() if kind == engine)
        if most := ENGINES[engine].at_once:
            # Whoever asks about many does so in this order.
            first = known.index(wanted)
            known = (known[first:] + known[:first])[:most]
        self._readable = {name: self._databases[name] for name in known}
        with theirs, Stage.new_file() as shared:
            self._stage = Stage(shared.fileno())
            self._process = subprocess.Popen(
                # -P: no module is taken from the working folder. -B: nothing is written, which is forbidden there.
                [sys.executable, "-P", "-B", *WORKER, str(theirs.fileno()), str(shared.fileno())],
                # Nothing else of the environment, where people keep keys.
                env=kept | {"PYTHONPATH": os.pathsep.join(filter(None, path))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), shared.fileno()],
            )
        self._connection = Connection(ours.detach())
        try:
            self._connection.send_bytes(json.dumps({"engine": engine, "databases": known}).encode("ascii"))
            ready = self._connection.poll(START_S) and self._connection.recv_bytes()
        except (EOFError, ConnectionError):
            ready = False
        if not ready:
            raise RuntimeError(f"{sys.executable} -m custom_metrics.worker does not start (status {self.kill()}).")
        message = json.loads(ready)
        if "unavailable" in message:
            self.kill()
            raise UnavailableError(message["unavailable"])
        self.versions[engine] = message["version"]
        _warn(tuple(message["lacking"]))

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
        self._stage.close()
        return status
