"""A worker process (`worker`) seen from the program: started when needed, killed when a query does not come back."""

import json
import os
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

# Beyond its time, a query has this long to stop by itself before its process is killed.
GRACE_S = 2.0
# Comparing two results of the greatest size takes some seconds.
COMPARISON_S = 60.0
START_S = 120.0
WORKER = ("-m", "custom_metrics.worker")


class Process:
    """One worker process: after one that was killed or died, the next task starts another."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None

    def assess(self, task: dict) -> tuple[dict, bool]:
        """Send a task until it comes back, each time without the query that took the process down the time before.

        Returns:
            What `worker.assess` returns, and whether no query took too long or ended the process.
        """
        known: dict[str, list[str]] = {}
        while True:
            result = self.run(task | {"known": dict(known)})
            if isinstance(result, dict):
                return result, not known and not result["timeouts"]
            name, error = result
            known[name] = error

    def run(self, task: dict) -> dict | tuple[str, list[str]]:
        """Return the answer, or the name of the query that ended the process with its error class and message."""
        name, comparing = "gold", ""
        try:
            if self._process is None:
                self._start()
            self._connection.send_bytes(json.dumps(task).encode("ascii"))
            while self._connection.poll(COMPARISON_S if comparing else task["timeout_s"] + GRACE_S):
                message = json.loads(self._connection.recv_bytes())
                if isinstance(message, dict):
                    return message
                name, comparing, _ = message.partition(" comparison")
            self.kill()
            if comparing:
                return name, ["too_large", "comparing the rows takes too long"]
            return name, ["timeout", f"no result within {task['timeout_s']:g} s"]
        except (EOFError, OSError):
            if self._process is None:  # it cannot be started
                raise
            status = self.kill()
        except BaseException:
            # Left in the middle (Ctrl+C), it would answer the next question with the result of this one.
            self.kill()
            raise
        # It gave up for lack of memory (0), or the system killed it for that. Comparing runs no query: nothing but a
        # lack of memory ends it.
        if comparing or status in (0, -9):
            return name, ["too_large", "out of memory"]
        return name, ["other_sql_error", f"the query ended its process (status {status})"]

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        path = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")]
        with theirs:
            self._process = subprocess.Popen(
                # -P: no module is taken from the working folder. -B: nothing is written, which is forbidden there.
                [sys.executable, "-P", "-B", *WORKER, str(theirs.fileno())],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._connection = Connection(ours.detach())
        try:
            ready = self._connection.poll(START_S) and self._connection.recv_bytes()
        except (EOFError, ConnectionError):
            ready = False
        if not ready:
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
