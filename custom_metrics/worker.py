"""The process in which queries run: it can be killed, has little memory, and reads nothing but its databases.

Started by `process` as `python -m custom_metrics.worker FD FILE`, where FD is one end of a socket pair and FILE what
`stage` shares. The first message names the databases that it can read from then on. The others are lists of questions;
it notes before each query which one it starts, and answers in JSON, question by question. JSON keeps hostile text whole
(lone surrogates as escapes) and cannot run code in the process that reads it. Results stay here: only verdicts travel,
and the first rows if asked for.
"""

import codecs
import hashlib
import html
import json
import os
import signal
import sqlite3
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from custom_metrics.compare import SEMANTICS, difference, soft_f1, suite_equal, verdicts
from custom_metrics.confinement import confine
from custom_metrics.engines import ENGINES, LOST, LostError, UnavailableError, is_address, open_database
from custom_metrics.extract import NOT_A_QUERY, extract_sql
from custom_metrics.further import REPEATS, close, gold_columns, reward
from custom_metrics.preview import preview, value
from custom_metrics.results import Results, nothing_right
from custom_metrics.sandbox import MAX_SQL_CHARACTERS, MAX_VALUE_BYTES, Database, Execution
from custom_metrics.sql_text import bare, suite_query, without_double_quotes
from custom_metrics.stage import Stage

# The address space of the process, Python included; SQLite itself may take `sandbox.HEAP_BYTES` of it.
MEMORY_BYTES = 2_000_000_000
OPEN_DATABASES = 16
# Results of gold queries are kept until they hold so many values together.
KEPT_VALUES = 2_000_000
# Those of `further.FURTHER` that look at rows.
ROWS = {"close": close, "gold_columns": gold_columns}
# Answers to one question are often the same query: what it gave is kept for that long, in values.
KEPT_FOR_ONE = 200_000
# A task that took so long is the last that is done of its list; results are sent at least so often.
SLOW_S = 0.25
SEND_S = 0.05


class Notes:
    """What is known by now of one gold query: its flags, and what queries gave that were compared with it."""

    def __init__(self):
        self.flags: list[str] | None = None
        self.scored: dict[str, tuple[Execution, dict[str, bool]]] = {}
        self.kept = 0

    def keep(self, text: str, result: Execution, correct: dict[str, bool]) -> None:
        """Keep what a query gave, if it ran: a failure may be one of time or memory."""
        if result.rows is not None and self.kept < KEPT_FOR_ONE:
            self.kept += _values(result)
            self.scored[text] = result, correct


class Databases:
    """Open databases, and the results of gold queries by content of the database, query and time allowed.

    Args:
        given: those that were opened before the process was confined, by name. The content of such a one is taken to
            stay as it is; others are SQLite files.
    """

    def __init__(self, given: Mapping[str, Any] | None = None):
        self._given = given or {}
        self._open: OrderedDict[str, tuple[tuple, str, Database]] = OrderedDict()
        self._gold: OrderedDict[tuple, Execution] = OrderedDict()
        self._kept = 0
        self._notes: tuple[object, Notes] = None, Notes()

    def notes(self, *key: object) -> Notes:
        """Return the notes on one gold query, which are empty if the one asked for before was another."""
        if self._notes[0] != key:
            self._notes = key, Notes()
        return self._notes[1]

    def open(self, name: str) -> Any:
        """Return a database for a single query."""
        return self._given.get(name) or Database(name)

    def get(self, path: str) -> tuple[str, Any]:
        """Return what tells the content of a database, the SHA-256 of a SQLite file, and the database, open.

        A SQLite file that has changed is read again.
        """
        if path in self._given:
            return path, self._given[path]
        stat = os.stat(path)  # noqa: PTH116 - several times for each question
        state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if path in self._open and self._open[path][0] != state:
            self._open.pop(path)[2].close()
        if path not in self._open:
            with Path(path).open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            self._open[path] = (state, sha256, Database(path))
            if len(self._open) > OPEN_DATABASES:
                self._open.popitem(last=False)[1][2].close()
        self._open.move_to_end(path)
        return self._open[path][1:]

    def gold(self, path: str, sql: str, timeout_s: float, run: Callable[[], Execution]) -> Execution:
        """Return the kept result of a gold query, or that of `run`, which is kept then."""
        key = (self.get(path)[0], sql, timeout_s)
        if key in self._gold:
            self._gold.move_to_end(key)
            return self._gold[key]
        result = run()
        self._gold[key] = result
        self._kept += _values(result)
        while self._kept > KEPT_VALUES and len(self._gold) > 1:
            self._kept -= _values(self._gold.popitem(last=False)[1])
        return result


def assess(databases: Databases, task: Mapping[str, Any], announce: Callable[[str], None]) -> dict:
    """Run all that one verdict needs, and compare.

    Args:
        task: `database`, its path or address; `gold`, the gold query, or the message of `results.Results`; `ordered`,
            whether that query sorts its rows;
            `answer`, as the model gave it; `fence`, as of `extract.extract_sql`; `timeout_s`, seconds each query may
            take; `previews`, whether the first rows are wanted; `further`, which of `further.FURTHER` are; `known`,
            error class and message of queries that are not to be run (again), by the names that `announce` gets.
        announce: is called before each query, with its name.

    Returns:
        `gold_error` (error class and message) if the gold query fails, else `verdict`, what `judge.Verdict` holds.
    """
    database, gold, timeout_s = task["database"], task["gold"], task["timeout_s"]
    sha256, opened = databases.get(database)
    run = _runner(task, opened, announce)
    if not isinstance(gold, str):
        return {"verdict": _by_results(task, opened, run, announce)}

    def run_gold(name: str, text: str) -> Execution:
        return databases.gold(database, text, timeout_s, lambda: run(name, text))

    expected = run_gold("gold", gold)
    if expected.rows is None:
        return {"gold_error": [expected.error_class, expected.error]}
    notes = databases.notes(sha256, gold, timeout_s, task["ordered"])

    # What the test-suite evaluator runs instead; mostly the same text, and then the same result.
    gold_variant = suite_query(gold)
    expected_variant = expected if bare(gold_variant) == bare(gold) else run_gold("gold variant", gold_variant)
    # IS DISTINCT FROM falls apart without its DISTINCT; then it stays, in both queries.
    keep_distinct = expected_variant.rows is None
    if keep_distinct:
        expected_variant = expected

    def score(name: str, text: str) -> tuple[Execution, dict[str, bool]]:
        if text in notes.scored:
            return notes.scored[text]
        result = run(name, text)
        # What took too long takes too long without its DISTINCT as well.
        runs_on = result.error_class != "timeout" and len(text) <= MAX_SQL_CHARACTERS
        variant = suite_query(text, keep_distinct) if runs_on else text
        variant_result = result if bare(variant) == bare(text) else run(f"{name} variant", variant)
        announce(f"{name} comparison")
        correct = dict.fromkeys(SEMANTICS, False)
        if result.rows is not None:
            correct |= verdicts(expected.rows, result.rows, task["ordered"])
        correct["test_suite"] = variant_result.rows is not None and suite_equal(
            expected_variant.rows, variant_result.rows, "order by" in gold_variant.lower()
        )
        notes.keep(text, result, correct)
        return result, correct

    sql, (result, correct), (_, correct_raw) = _answered(task, opened, score, announce)
    error_class, message = result.error_class, result.error
    if result.rows is not None:
        error_class, message = difference(expected.rows, result.rows, correct)
    if notes.flags is None:
        notes.flags = flags(gold, expected, opened)
    verdict = {
        "sql": sql,
        "correct": correct,
        "correct_raw": correct_raw,
        "error_class": error_class,
        "message": message,
        "gold_rows": len(expected.rows),
        "predicted_rows": None if result.rows is None else len(result.rows),
        "soft_f1": 0.0 if result.rows is None else soft_f1(expected.rows, result.rows),
        "flags": notes.flags,
        "previews": _previews(expected, result) if task["previews"] else None,
        "further": _further(task, Compared(expected, result, correct, sql), opened, announce),
    }
    return {"verdict": verdict}


def _runner(task: Mapping[str, Any], database: Any, announce: Callable[[str], None]) -> Callable[[str, str], Execution]:
    """Return what runs a query by the name of its part in the task, unless it is known what came of it."""

    def run(name: str, text: str) -> Execution:
        if name in task["known"]:
            return Execution(None, *task["known"][name])
        announce(name)
        with ending_after(task["timeout_s"]):
            return database.execute(text, task["timeout_s"])

    return run


def _answered(
    task: Mapping[str, Any],
    database: Any,
    score: Callable[[str, str], tuple[Execution, Any]],
    announce: Callable[[str], None],
) -> tuple[str, tuple[Execution, Any], tuple[Execution, Any]]:
    """Return the SQL of an answer, and what `score` says of it and of the answer as it is."""
    answer = task["answer"]
    raw = score("raw", answer)
    # What the engine understands is never cut.
    if raw[0].error_class not in NOT_A_QUERY:
        return bare(answer), raw, raw
    check = None
    if "extraction" not in task["known"]:
        announce("extraction")
        check = database.check
    with ending_after(task["timeout_s"]):
        sql = extract_sql(answer, check, task["fence"])
    return sql, raw if sql == answer.strip() else score("sql", sql), raw


def _by_results(
    task: Mapping[str, Any], database: Any, run: Callable[[str, str], Execution], announce: Callable[[str], None]
) -> dict:
    """Return the verdict on an answer by gold results, where there is no gold query."""
    gold = Results(**task["gold"])

    def score(name: str, text: str) -> tuple[Execution, Any]:
        result = run(name, text)
        announce(f"{name} comparison")
        return result, nothing_right(gold) if result.rows is None else gold.judge(result.rows)

    sql, (result, found), (_, found_raw) = _answered(task, database, score, announce)
    failed = result.rows is None
    return found._asdict() | {
        "sql": sql,
        "correct_raw": found_raw.correct,
        "error_class": result.error_class if failed else found.error_class,
        "message": result.error if failed else found.message,
        "predicted_rows": None if failed else len(result.rows),
        "flags": gold.flags(),
    }


class Compared(NamedTuple):
    """A gold query's result and a prediction's, what the semantics say, and the prediction."""

    expected: Execution
    result: Execution
    correct: Mapping[str, bool]
    sql: str


def _further(
    task: Mapping[str, Any], found: Compared, database: Any, announce: Callable[[str], None]
) -> dict[str, float]:
    """Return the criteria of `further.FURTHER` that the task asks for."""
    further = {}
    for name in task["further"]:
        if name in ROWS:
            announce("further comparison")
            runs = found.result.rows is not None and "further" not in task["known"]
            further[name] = found.correct["bag"] or (runs and ROWS[name](found.expected.rows, found.result.rows))
        else:
            right = found.correct["set"] and "timing" not in task["known"]
            further[name] = timed(database, (task["gold"], found.sql), task["timeout_s"], announce) if right else 0.0
    return {name: float(value) for name, value in further.items()}


def _previews(expected: Execution, result: Execution) -> dict:
    predicted = None if result.rows is None else preview(result.columns, result.rows, expected.rows)
    return {"gold": preview(expected.columns, expected.rows, result.rows or []), "predicted": predicted}


def timed(database: Any, queries: tuple[str, str], timeout_s: float, announce: Callable[[str], None]) -> float:
    """Return `further.reward` of a gold query and a right one, which are run in turns; 0 if a run fails."""
    seconds = []
    for _ in range(REPEATS):
        announce("timing")
        times = []
        for query in queries:
            with ending_after(timeout_s):
                begun = time.perf_counter()
                found = database.execute(query, timeout_s)
                times.append(time.perf_counter() - begun)
            if found.rows is None:
                return 0.0
        seconds.append((times[0], times[1]))
    return reward(seconds)


def flags(gold: str, expected: Execution, database: Any) -> list[str]:
    """Return which of `judge.GOLD_FLAGS` hold for a gold query and its rows."""
    found = []
    if not expected.rows:
        found.append("gold_empty")
    if len(set(expected.rows)) < len(expected.rows):
        found.append("gold_duplicate_rows")
    # SQLite takes "name" for a string where no column has that name, which it never does with `name`.
    names_only = without_double_quotes(gold) if database.engine == "sqlite" else None
    if names_only and database.execute(f"EXPLAIN {names_only}").error_class == "no_such_column":
        found.append("gold_double_quoted")
    return found


def _values(result: Execution) -> int:
    return sum(len(row) for row in result.rows[:1]) * len(result.rows) + 1 if result.rows else 1


def first_rows(databases: Databases, task: Mapping[str, Any]) -> dict:
    """Run the one query `sql` of a task, up to its `first_rows`; return what `query.Result` holds."""
    most = task["first_rows"]
    with ending_after(task["timeout_s"]):
        found = databases.open(task["database"]).execute(task["sql"], task["timeout_s"], most + 1)
    return {
        "columns": list(found.columns),
        "rows": found.rows and [[value(cell, 2 * MAX_VALUE_BYTES) for cell in row] for row in found.rows[:most]],
        "more": found.rows is not None and len(found.rows) > most,
        "error_class": found.error_class,
        "error": found.error,
    }


@contextmanager
def ending_after(timeout_s: float) -> Iterator[None]:
    """End the process if what is done inside does not stop by itself: one call of a built-in function, say.

    The time is that of the processor, as for `Database.execute`: how busy the machine is decides nothing.
    """
    signal.setitimer(signal.ITIMER_PROF, 1.05 * timeout_s + 0.05)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def preload() -> None:
    """Import what the standard library imports when it is first used."""
    for name in ("surrogateescape", "backslashreplace"):
        codecs.lookup_error(name)
    with closing(sqlite3.connect(":memory:")) as nothing:
        nothing.execute("SELECT random()").fetchall()
    html.unescape("&amp;")
    # Python 3.13 imports urllib here, where `sandbox` makes the name of a file from its path.
    Path("/").as_uri()


def limit() -> None:
    """Take from this process what no query needs: much memory, writing files, and the environment."""
    import resource  # Windows has none, and `process` starts no worker there

    os.environ.clear()
    # Ctrl+C is for the program that started this one, which then closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Some systems have no such limit; SQLite's own holds there.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # Not a byte into any file: SQLite is told not to, and here the system is told as well.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def work(databases: Databases, tasks: Sequence[Mapping[str, Any]], stage: Stage, send: Callable[[dict], None]) -> None:
    """Do tasks in their order and send what comes of them, some at a time; after one that took long, leave the rest.

    Whoever has nothing to do can take that, so that slow queries are shared among the processes.
    """
    results, sent = [], time.monotonic()
    for place, task in enumerate(tasks):
        stage.begin(place)
        begun = time.monotonic()
        results.append(first_rows(databases, task) if "first_rows" in task else assess(databases, task, stage.tell))
        now = time.monotonic()
        if now - begun > SLOW_S:
            break
        if now - sent > SEND_S:
            send({"results": results, "end": False})
            results, sent = [], now
    send({"results": results, "end": True})


def open_before(engine: str, names: Sequence[str]) -> dict[str, Any]:
    """Open the databases of an engine that could not do so in a confined process."""
    return {name: open_database(name, engine) for name in names} if ENGINES[engine].at_once else {}


def main(descriptor: int, stage_descriptor: int) -> None:
    """Answer messages until the other end is closed; the first names an engine, and the databases that may be read."""
    stage = Stage(stage_descriptor)
    with Connection(descriptor) as connection:

        def send(message: object) -> None:
            connection.send_bytes(json.dumps(message).encode("ascii"))

        first = json.loads(connection.recv_bytes())
        try:
            given = open_before(first["engine"], first["databases"])
        except UnavailableError as error:
            send({"unavailable": str(error)})
            return
        databases = Databases(given)
        # What is imported late would be read from files, which is then over.
        preload()
        limit()
        version = next(iter(given.values()), Database).version
        send({"lacking": confine(name for name in first["databases"] if not is_address(name)), "version": version})
        while True:
            try:
                tasks = json.loads(connection.recv_bytes())
            except EOFError:
                return
            try:
                work(databases, tasks, stage, send)
            except MemoryError:
                # Said by ending without an answer. A new process starts with all of its memory. Not by returning: what
                # Python does at its end takes memory.
                os._exit(0)
            except LostError:
                os._exit(LOST)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
