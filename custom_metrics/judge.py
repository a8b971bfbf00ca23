"""One answer of a model against one gold query: the core under the metric and under `score_spider`. No DeepEval.

    with Judge(timeout_s=5, jobs=4) as judge:
        verdict = judge.judge("concert_singer.sqlite", "SELECT count(*) FROM singer", "```sql\nSELECT 6\n```")
        verdicts = judge.judge_all([(database, gold, answer), …])

An error class is one of these; all but `ok` are 0 under `bag` or `ordered`:

| class                      | the query of the answer                                                               |
| -------------------------- | ------------------------------------------------------------------------------------- |
| `ok`                       | is right as `bag` and as `ordered`                                                    |
| `wrong_order_only`         | is right as `bag`, and not as `ordered`                                               |
| `duplicate_only`           | is right as `set`: the rows are there, not equally often                              |
| `wrong_columns`            | is right as `columns_any_order`, or has as many rows and another number of columns    |
| `extra_or_missing_columns` | would be right as `columns_any_order` if columns were left out of it or of the gold's |
| `wrong_rows`               | ran, and none of the above                                                            |
| `syntax_error`             | is not understood by SQLite                                                           |
| `no_such_table`            | names a table that does not exist                                                     |
| `no_such_column`           | names a column that does not exist                                                    |
| `ambiguous_column`         | names a column that two of its tables have                                            |
| `other_sql_error`          | fails otherwise, or ended the process that ran it                                     |
| `timeout`                  | had no result in time, and again had none when it was run alone                       |
| `too_large`                | needs more memory, more rows or a longer text than a query may                        |
| `forbidden`                | would do something other than read, or is several statements                          |
| `no_sql`                   | is not there: the answer is empty, or does not begin like a statement                 |
| `missing`                  | is not there: there is no answer at all (given by those who count, not by `Judge`)    |
"""

import atexit
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from queue import LifoQueue

from sqlglot import exp
from tqdm import tqdm

from custom_metrics.compare import SEMANTICS as SEMANTICS
from custom_metrics.extract import extract_sql
from custom_metrics.hardness import parse
from custom_metrics.sandbox import existing
from custom_metrics.sql_text import has_outer_order_by
from custom_metrics.worker import bare, how_it_ended, own_process

ERROR_CLASSES = (
    "ok", "wrong_rows", "wrong_columns", "wrong_order_only", "extra_or_missing_columns", "duplicate_only",
    "syntax_error", "no_such_table", "no_such_column", "ambiguous_column", "other_sql_error", "timeout", "too_large",
    "forbidden", "no_sql", "missing",
)  # fmt: skip
GOLD_FLAGS = ("gold_empty", "gold_duplicate_rows", "gold_double_quoted")

# Beyond its time, a query has this long to stop by itself before its process is killed.
GRACE_S = 2.0
# Comparing two results of the greatest size takes some seconds.
COMPARISON_S = 60.0
START_S = 120.0
CHUNK = 16
WORKER = ("-m", "custom_metrics.worker")


class GoldError(ValueError):
    """The gold query itself cannot be run: an error in the data, not in the answer.

    `index` is its place among the items of `Judge.judge_all`.
    """

    index: int | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of one answer.

    Attributes:
        sql: the query taken out of the answer (`extract.extract_sql`).
        correct: for each of `SEMANTICS`, whether `sql` is right.
        correct_raw: the same for the answer as it is.
        error_class: of `sql`; one of `ERROR_CLASSES` but `missing`.
        message: SQLite's message, or how the rows differ; "" if the class is ok.
        gold_rows: rows of the gold query.
        predicted_rows: rows of `sql`, None if it did not run.
        flags: which of `GOLD_FLAGS` hold for the gold query: it has no rows; it has the same row twice; it writes a
            string in double quotes, which only SQLite forgives.
        previews: if the `Judge` was asked for them, the first rows of both results, as `gold` and `predicted` (None if
            `sql` did not run); see `preview.preview`.
    """

    sql: str
    correct: dict[str, bool]
    correct_raw: dict[str, bool]
    error_class: str
    message: str
    gold_rows: int
    predicted_rows: int | None
    flags: tuple[str, ...]
    previews: dict | None = None

    def cells(self, missing: bool = False) -> dict[str, str | int | None]:
        """Write the verdict as cells of a table, one for each criterion; `missing` where there was no answer at all."""
        return {
            **{name: int(self.correct[name]) for name in SEMANTICS},
            **{f"{name}_raw": int(self.correct_raw[name]) for name in SEMANTICS},
            "error_class": "missing" if missing else self.error_class,
            "gold_rows": self.gold_rows,
            "predicted_rows": self.predicted_rows,
            "message": "no answer to this question" if missing else self.message,
            "flags": " ".join(self.flags),
            "sql": self.sql,
        }


class Judge:
    """Runs gold queries and answers in processes of its own, and compares; to be closed, or used in a `with`.

    The processes (`worker`) start when they are first needed, stay for all questions and keep databases open and the
    results of gold queries. One that does not come back in time is killed and replaced. A question in which a query
    took too long, or its process died, is judged a second time while this Judge runs nothing else, and that counts: the
    load it makes itself decides no verdict. May be used by several threads.

    Args:
        timeout_s: seconds a query may take.
        jobs: the number of processes.
        previews: whether verdicts come with the first rows of both results.

    Raises:
        ValueError: timeout_s is not above 0, or jobs not at least 1.
    """

    def __init__(self, timeout_s: float = 30.0, jobs: int = 1, previews: bool = False):
        if not timeout_s > 0 or jobs < 1:
            raise ValueError(f"Found timeout_s {timeout_s} and jobs {jobs}, expected more than 0 and at least 1.")
        self.timeout_s = timeout_s
        self.jobs = jobs
        self.previews = previews
        self._closed = False
        self._all = [_Process() for _ in range(jobs)]
        # The last that came back goes out first: its caches are warm, and fewer processes may do.
        self._idle: LifoQueue[_Process] = LifoQueue()
        for process in reversed(self._all):
            self._idle.put(process)
        self._alone = threading.Lock()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; a second time does nothing."""
        self._closed = True
        for process in self._all:
            process.kill()

    def judge(self, database: str | Path, gold: str, answer: str) -> Verdict:
        """Run a gold query and an answer on one database and compare their rows.

        Raises:
            FileNotFoundError: there is no such database.
            GoldError: the gold query does not run.
        """
        task = self._task(database, gold, answer)
        result, certain = self._run(task)
        return _verdict(task, result if certain else self._run_alone(task))

    def judge_all(self, items: Sequence[tuple[str | Path, str, str]], progress: bool = False) -> list[Verdict]:
        """Judge (database, gold, answer) triples with all processes at once; the verdicts come in the same order.

        Args:
            progress: show a bar on the error stream.

        Raises:
            FileNotFoundError: there is no such database; nothing was run then.
            GoldError: a gold query does not run; of several, the first is told, with its `index`.
        """
        tasks = [self._task(*item) for item in items]
        results: list[tuple[dict, bool] | None] = [None] * len(tasks)
        # Neighbours share a database, and maybe a gold query, which a process has to open and to run once.
        order = sorted(range(len(tasks)), key=lambda index: (tasks[index]["database"], tasks[index]["gold"]))
        chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
        lock = threading.Lock()
        bar = tqdm(total=len(tasks), unit="question", mininterval=5, disable=not progress)

        def work(chunk: Sequence[int]) -> None:
            for index in chunk:
                results[index] = self._run(tasks[index])
                with lock:
                    bar.update()

        with bar, ThreadPoolExecutor(self.jobs) as pool:
            try:
                list(pool.map(work, chunks))
            except BaseException:
                # Not to wait for what is still to be run.
                pool.shutdown(wait=False, cancel_futures=True)
                self.close()
                raise
        found = []
        for index, (task, (result, certain)) in enumerate(zip(tasks, results, strict=True)):
            try:
                found.append(_verdict(task, result if certain else self._run_alone(task)))
            except GoldError as error:
                error.index = index
                raise
        return found

    def _task(self, database: str | Path, gold: str, answer: str) -> dict:
        sql = extract_sql(answer)
        return {
            "database": str(existing(database)),
            "gold": gold,
            "ordered": orders_rows(gold),
            "sql": sql,
            "raw": None if bare(answer) == sql else answer,
            "timeout_s": self.timeout_s,
            "previews": self.previews,
        }

    def _run(self, task: dict) -> tuple[dict, bool]:
        """Return what `worker.assess` returns, and whether no query failed in a way that load may be to blame for."""
        process = self._take()
        try:
            return process.assess(task)
        finally:
            self._idle.put(process)

    def _run_alone(self, task: dict) -> dict:
        with self._alone:
            processes = [self._take() for _ in self._all]
            try:
                return processes[-1].assess(task)[0]
            finally:
                for process in processes:
                    self._idle.put(process)

    def _take(self) -> "_Process":
        process = self._idle.get()
        if self._closed:
            self._idle.put(process)
            raise ValueError("This Judge is closed.")
        return process


class _Process:
    """One worker process: started when needed, killed when a query does not come back, then started anew."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None

    def assess(self, task: dict) -> tuple[dict, bool]:
        """Send a task until it comes back, each time without the query that took the process down the time before."""
        known: dict[str, list[str]] = {}
        while True:
            result = self._try(task | {"known": dict(known)})
            if isinstance(result, dict):
                return result, not known and not result["timeouts"]
            name, error = result
            known[name] = error

    def _try(self, task: dict) -> dict | tuple[str, list[str]]:
        """Return the result, or the name of the query that ended the process with its error class and message."""
        name = "gold"
        try:
            if self._process is None:
                self._start()
            self._connection.send_bytes(json.dumps(task).encode("ascii"))
            while True:
                comparison = name.endswith(" comparison")
                allowed = COMPARISON_S if comparison else task["timeout_s"] + GRACE_S
                if not self._connection.poll(allowed):
                    self.kill()
                    if comparison:
                        return name.removesuffix(" comparison"), ["too_large", "comparing the rows takes too long"]
                    return name, ["timeout", f"no result within {task['timeout_s']:g} s"]
                message = json.loads(self._connection.recv_bytes())
                if isinstance(message, dict):
                    return message["result"]
                name = message
        except (EOFError, ConnectionError):
            status = self.kill()
        except BaseException:
            # Left in the middle (Ctrl+C), it would answer the next question with the result of this one.
            self.kill()
            raise
        # Comparing runs no query: nothing but a lack of memory ends it.
        return name.removesuffix(" comparison"), how_it_ended(0 if name.endswith(" comparison") else status)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                **own_process(*WORKER, str(theirs.fileno())),
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


@lru_cache(maxsize=20_000)
def orders_rows(gold: str) -> bool:
    """Tell whether a query has an ORDER BY of its own, not only in a subquery or a window."""
    if "order" not in gold.lower():
        return False
    tree = parse(gold)
    if tree is None:
        return has_outer_order_by(gold)
    while isinstance(tree, exp.Subquery) and not tree.args.get("order"):
        tree = tree.this
    return tree.args.get("order") is not None


def _verdict(task: dict, result: dict) -> Verdict:
    if "gold_error" in result:
        error_class, message = result["gold_error"]
        raise GoldError(f"{task['database']}: the gold query fails ({error_class}: {message}): {task['gold']}")
    return Verdict(sql=task["sql"], **result["verdict"] | {"flags": tuple(result["verdict"]["flags"])})


_shared: dict[float, Judge] = {}
_shared_lock = threading.Lock()


def judge(database: str | Path, gold: str, answer: str, timeout_s: float = 30.0) -> Verdict:
    """Judge one answer with a `Judge` that all calls share and that ends with the program.

    Raises:
        FileNotFoundError: there is no such database.
        GoldError: the gold query does not run.
    """
    with _shared_lock:
        if timeout_s not in _shared:
            _shared[timeout_s] = Judge(timeout_s)
            atexit.register(_shared[timeout_s].close)
    return _shared[timeout_s].judge(database, gold, answer)
