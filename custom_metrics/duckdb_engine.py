"""Run one SQL query that nobody has read yet against one DuckDB file, and let it do no harm.

What `sandbox` says of SQLite holds here, by these means, each attacked in tests/custom_metrics/test_duckdb.py:

- writing: the file is opened read-only, and DuckDB's own parser must find one statement, a SELECT. (DuckDB reads FROM,
  VALUES, DESCRIBE and PIVOT … IN as one as well; a PIVOT that has to look for its columns makes a type first, and is
  refused.) Each query has a connection of its own, so that nothing it sets outlives it.
- other files: no access to files and networks, no extension is installed or loaded, nothing is spilled to a folder, no
  variable of Python can be named as a table, and the configuration is locked.
- time: a signal interrupts DuckDB when the query has used its time on the processor. DuckDB looks for one between
  pieces of work; `worker` ends the process if it does not.
- memory: `memory_limit`, and the limits on the length of the text, on rows and on bytes of `sandbox`. Rows are taken
  from DuckDB some at a time. It does not count the texts that a query makes; the limit on the memory of a worker does.

DuckDB reads files of the system when it opens a database, and starts threads unless it is told not to. So a worker
opens its databases before it is confined, and one thread runs each query. A change that stands in a WAL is read.
"""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb

from custom_metrics.engines import LostError, UnavailableError
from custom_metrics.sandbox import CHECK_S, HEAP_BYTES, Execution, collect, late, reads_like_sql, unlike_sql
from custom_metrics.values import plain

_CONFIG = {
    "threads": 1,
    "async_threads": 0,
    "memory_limit": f"{HEAP_BYTES}B",
    "temp_directory": "",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}
_AFTERWARDS = (
    "LOAD icu",
    "SET TimeZone = 'UTC'",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
# What is imported when such a value is first seen would be read from files, which is then over.
_ONE_OF_EACH = (
    "SELECT now(), current_date, TIME '10:00', TIMETZ '10:00:00+01', INTERVAL 1 DAY, uuid(), 1.5, 1::HUGEINT, "
    "'x'::BLOB, [1], {'a': 1}, MAP {'a': 1}, 'nan'::DOUBLE, DATE '20000-01-01'"
)
ROWS_AT_ONCE = 1_000
# The first class whose pattern occurs in a message, by the exception that it comes with.
_CATALOG = {"no_such_table": "(?:table|schema|catalog|view) with name"}
_BINDER = {
    "ambiguous_column": "ambiguous reference to column",
    "no_such_table": "^binder error: (?:catalog|schema) ",
    "no_such_column": "referenced (?:column|table) |does not have a column|column .* (?:not found|not exist)",
}


class _LateError(Exception):
    """The query has used its time."""


class Database:
    """One DuckDB file, open for any number of queries; nothing that a query does outlives it.

    Used by the main thread of a process, which gets the signals.

    Raises:
        UnavailableError: it cannot be opened.
    """

    engine = "duckdb"
    version = f"DuckDB {duckdb.__version__}"

    def __init__(self, name: str):
        wal = Path(f"{name}.wal")
        if "?" in name and wal.is_file() and wal.stat().st_size:
            # DuckDB takes it for the end of a path, and looks for the WAL elsewhere.
            raise UnavailableError(f"{wal}: DuckDB does not find it in a path with a question mark. Rename the folder.")
        try:
            self._connection = duckdb.connect(name, read_only=True, config=_CONFIG)
        except duckdb.Error as error:
            raise UnavailableError(f"{name}: DuckDB {duckdb.__version__} cannot open it ({_said(error)}).") from None
        for statement in _AFTERWARDS:
            self._connection.execute(statement)
        self._connection.execute(_ONE_OF_EACH).fetchall()
        self._deadline = 0.0

    def close(self) -> None:
        self._connection.close()

    def check(self, sql: str) -> str:
        """Return the error class of a text as one query on this database, without running it; "" if it is one."""
        return self._run(sql, "EXPLAIN ", CHECK_S, 0).error_class

    def execute(self, sql: str, timeout_s: float = 30.0, first_rows: int | None = None) -> Execution:
        """Run one query; as of `sandbox.Database.execute`."""
        return self._run(sql, "", timeout_s, first_rows)

    def _run(self, sql: str, before: str, timeout_s: float, first_rows: int | None) -> Execution:
        if refused := unlike_sql(sql):
            return refused
        try:
            with self._interrupted_after(timeout_s), closing(self._connection.cursor()) as cursor:
                if refused := self._refused(sql):
                    return refused
                cursor.execute(before + sql)
                found = collect(_rows(cursor), [column[0] for column in cursor.description], first_rows)
        except MemoryError:
            return Execution(None, "too_large", "out of memory")
        except (duckdb.InternalException, duckdb.FatalException) as error:
            # It refuses all further queries.
            raise LostError(_said(error)) from None
        except (duckdb.Error, _LateError, RuntimeError, ValueError, OverflowError) as error:
            if time.process_time() > self._deadline:
                return late(timeout_s)
            return Execution(None, _classify(sql, error), _said(error))
        return late(timeout_s) if time.process_time() > self._deadline else found

    def _refused(self, sql: str) -> Execution | None:
        """Return the error of a text that is not one SELECT."""
        statements = self._connection.extract_statements(sql)
        if len(statements) != 1:
            return Execution(None, "forbidden", f"{len(statements)} statements, expected one")
        if statements[0].type != duckdb.StatementType.SELECT:
            return Execution(None, "forbidden", f"not a query: {statements[0].type.name}")
        return None

    @contextmanager
    def _interrupted_after(self, timeout_s: float) -> Iterator[None]:
        self._deadline = time.process_time() + timeout_s

        def look(*_: Any) -> None:
            left = self._deadline - time.process_time()
            if left < 0:
                raise _LateError
            signal.setitimer(signal.ITIMER_REAL, left + 0.001)

        before = signal.signal(signal.SIGALRM, look)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _rows(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple]:
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        for row in rows:
            yield tuple(map(plain, row))


def _said(error: Exception) -> str:
    """Return what an exception says, without the lines of the query that it repeats."""
    return " ".join(str(error).partition("\n\n")[0].split())


def _classify(sql: str, error: Exception) -> str:
    message = _said(error).lower()
    match error:
        case duckdb.OutOfMemoryException():
            return "too_large"
        case duckdb.ParserException() | duckdb.SyntaxException():
            if "expression depth" in message:
                return "too_large"
            return "syntax_error" if reads_like_sql(sql) else "no_sql"
        case duckdb.PermissionException():
            return "forbidden"
        case duckdb.CatalogException():
            classes = _CATALOG
        case duckdb.BinderException():
            classes = _BINDER
        case _:
            return "other_sql_error"
    return next((name for name, words in classes.items() if re.search(words, message)), "other_sql_error")
