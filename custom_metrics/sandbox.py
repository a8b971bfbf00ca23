"""Run one SQL query that nobody has read yet against one SQLite file, and let it do no harm.

Covered, each attacked in tests/custom_metrics/test_sandbox.py:

- writing: the file is opened `mode=ro` and `immutable=1` (no lock, journal or WAL file is made), and an authorizer
  allows reading only (SELECT, reading a column, recursion, functions). ATTACH, VACUUM INTO, PRAGMA, transactions,
  temporary tables, INSERT/UPDATE/DELETE and every change of the schema are refused before they run.
- other files: no database can be attached, `load_extension` is refused twice, sorting and temporary results stay in
  memory, so nothing is spilled to a temporary folder.
- time: a deadline checked every few thousand steps of SQLite's virtual machine, and between rows.
- memory: SQLite may allocate `HEAP_BYTES` in all, one value may have `MAX_VALUE_BYTES`, a result `MAX_ROWS` and
  `MAX_BYTES`; the length of the SQL text, the depth of expressions and the size of the compiled program are limited.
- strange text: NUL characters, lone surrogates, values and names that are not UTF-8. Such values are decoded with
  `surrogateescape`, which is reversible: different bytes stay different.
- several statements in one text: refused, as SQLite would otherwise run only the first.

Not covered here, and covered by `worker` and `judge`, which run this in a process of its own that can be killed, has
little memory and may not write files: one call of a built-in function that is slow by itself (`instr` on two values of
megabytes) is not interrupted before it returns; a crash inside SQLite takes the process along; the rows that Python
holds are bounded in number and bytes, not in memory.

Not covered at all: results that differ from run to run (`random()`, the current time). A file with a WAL that has not
been checkpointed is read without it (`refuse_unmerged` is for the caller). What a flaw in SQLite
that gives a query the run of the process can still do, is said in `confinement`.

The heap limit is SQLite's own `hard_heap_limit`, which holds for all SQLite connections of the process.
"""

import re
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from custom_metrics.sql_text import first_word

MAX_ROWS = 500_000
MAX_BYTES = 64_000_000
MAX_VALUES = 5_000_000
MAX_SQL_CHARACTERS = 100_000
MAX_VALUE_BYTES = 10_000_000
HEAP_BYTES = 512_000_000
STEPS_BETWEEN_CHECKS = 2_000
CHECK_S = 1.0

# The first bytes of a rollback journal that is to be played back (https://www.sqlite.org/fileformat.html, section 3).
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")

_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: MAX_VALUE_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: MAX_SQL_CHARACTERS,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 1_000,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 1_000_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
# fts3_tokenizer takes and gives raw pointers; sqlite_log calls out of SQLite.
_REFUSED_FUNCTIONS = {"load_extension", "fts3_tokenizer", "sqlite_log"}

_STATEMENT = re.compile(
    "alter|analyze|attach|begin|commit|create|delete|detach|drop|end|explain|insert|pragma|reindex|release|replace"
    "|rollback|savepoint|select|update|vacuum|values|with"
)
# The first class whose words occur in SQLite's message.
_CLASSES = {
    "forbidden": "not authorized|authorization denied|is prohibited|too many attached|readonly database",
    "no_such_table": "no such table",
    "no_such_column": "no such column|has no column named",
    "ambiguous_column": "ambiguous column name",
    "too_large": "too big|too large|too many terms in compound|too complex|out of memory|parser stack overflow",
    "syntax_error": "syntax error|unrecognized token|incomplete input",
}


@dataclass(frozen=True)
class Execution:
    """What one query gave: `rows` (a list of tuples), or None with an `error_class` and the engine's `error` message.

    `columns` are the names of the columns of a query that ran.

    `error_class` is "" for a query that ran, else `no_sql` (nothing, or a text that does not begin like a statement),
    `syntax_error`, `no_such_table`, `no_such_column`, `ambiguous_column`, `forbidden`, `timeout`, `too_large` or
    `other_sql_error`.
    """

    rows: list[tuple] | None
    error_class: str = ""
    error: str = ""
    columns: tuple[str, ...] = ()


class Database:
    """One SQLite file, open for any number of queries; nothing that a query does outlives it.

    Args:
        path: of the file; it is never changed.

    Raises:
        FileNotFoundError: there is no such file.
    """

    engine = "sqlite"
    version = f"SQLite {sqlite3.sqlite_version}"

    def __init__(self, path: str | Path):
        uri = existing(path).as_uri()
        self._deadline = 0.0
        self._connection = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)
        self._connection.text_factory = lambda raw: raw.decode("utf-8", errors="surrogateescape")
        self._connection.execute(f"PRAGMA hard_heap_limit = {HEAP_BYTES}")
        self._connection.execute("PRAGMA temp_store = MEMORY")
        for limit, value in _LIMITS.items():
            self._connection.setlimit(limit, value)
        self._connection.set_authorizer(_authorize)
        self._connection.set_progress_handler(lambda: time.process_time() > self._deadline, STEPS_BETWEEN_CHECKS)

    def close(self) -> None:
        self._connection.close()

    def check(self, sql: str) -> str:
        """Return the error class of a text as one query on this database, without running it; "" if it is one."""
        self._deadline = time.process_time() + CHECK_S
        return prepare(self._connection, sql)

    def execute(self, sql: str, timeout_s: float = 30.0, first_rows: int | None = None) -> Execution:
        """Run one query; see the module's text for what is prevented.

        Args:
            sql: any text.
            timeout_s: seconds, from now to the last row.
            first_rows: stop after so many rows, as if there were no more; None: run to the end.
        """
        if not first_word(sql):
            return Execution(None, "no_sql", "no SQL")
        self._deadline = time.process_time() + timeout_s
        try:
            cursor = self._connection.execute(sql)
            if cursor.description is None:
                # Without columns it is no query, and its lack of rows must not pass for an empty result.
                return Execution(None, "forbidden", "not a query")
            found = collect(cursor, [column[0] for column in cursor.description], first_rows)
            if found.rows is None:
                cursor.close()
            elif time.process_time() > self._deadline:
                return late(timeout_s)
            return found
        except MemoryError:
            return Execution(None, "too_large", "out of memory")
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            # ValueError covers text that cannot be encoded (lone surrogates) and, in some Python versions, NUL.
            if time.process_time() > self._deadline and "interrupted" in str(error):
                return late(timeout_s)
            return Execution(None, _classify(sql, error), str(error))


def collect(found: Iterable[tuple], columns: Sequence[str], first_rows: int | None) -> Execution:
    """Take the rows of a query that runs, up to the limits of a result."""
    rows, size = [], 0
    max_rows = min(MAX_ROWS, MAX_VALUES // len(columns))
    try:
        for row in islice(found, first_rows):
            rows.append(row)
            for value in row:
                if isinstance(value, (str, bytes)):
                    size += len(value)
            if len(rows) > max_rows or size > MAX_BYTES:
                most = f"{max_rows} rows or {MAX_BYTES} bytes"
                return Execution(None, "too_large", f"the result has more than {most}")
    except MemoryError:
        # First of all: a second MemoryError in here, and CPython 3.11 would look for a handler for ever.
        rows = None
        return Execution(None, "too_large", "out of memory")
    return Execution(rows, columns=tuple(columns))


def unlike_sql(sql: str) -> Execution | None:
    """Return the error of a text that other engines than SQLite need not see."""
    if not first_word(sql):
        return Execution(None, "no_sql", "no SQL")
    if len(sql) > MAX_SQL_CHARACTERS:
        return Execution(None, "too_large", f"a text of more than {MAX_SQL_CHARACTERS} characters")
    if "\0" in sql or any("\ud800" <= character <= "\udfff" for character in sql):
        return Execution(None, "syntax_error", "NUL or a lone surrogate in the text")
    return None


def reads_like_sql(sql: str) -> bool:
    """Tell whether a text begins with a word that a statement begins with."""
    return _STATEMENT.fullmatch(first_word(sql)) is not None


def prepare(connection: sqlite3.Connection, sql: str) -> str:
    """Return the error class that `sql` has as one query, by preparing it; "" if it is one."""
    if not first_word(sql):
        return "no_sql"
    if len(sql) > MAX_SQL_CHARACTERS:
        return "too_large"
    try:
        connection.execute(f"EXPLAIN {sql}").close()
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        return _classify(sql, error)
    return ""


class UnmergedError(ValueError):
    """A database with changes that stand in a file beside it, which a reader of the one file would not see."""


def refuse_unmerged(path: Path) -> None:
    """Raise an `UnmergedError` if a database has a WAL with rows, or a journal of a change that was broken off."""
    wal, journal = Path(f"{path}-wal"), Path(f"{path}-journal")
    if wal.is_file() and wal.stat().st_size:
        raise UnmergedError(
            f"{wal}: found changes that are not in {path.name} yet, expected a database in one file. Close the program "
            f"that writes them, or run: sqlite3 {path} 'PRAGMA wal_checkpoint(TRUNCATE)'"
        )
    if journal.is_file():
        with journal.open("rb") as stream:
            if stream.read(8) == JOURNAL_MAGIC:
                raise UnmergedError(
                    f"{journal}: found a change of {path.name} that was broken off, expected a database in one file. "
                    f"To undo it, run: sqlite3 {path} 'SELECT count(*) FROM sqlite_master'"
                )


def existing(path: str | Path) -> Path:
    """Give the absolute path of a database. Raises a FileNotFoundError if there is no such file."""
    path = Path(path).absolute()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such database.")
    return path


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    allowed = action in _ALLOWED
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = (second or "").lower() not in _REFUSED_FUNCTIONS
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def late(timeout_s: float) -> Execution:
    """Return what a query gives that has used its time."""
    return Execution(None, "timeout", f"no result within {timeout_s:g} s")


def _classify(sql: str, error: Exception) -> str:
    message = str(error).lower()
    if "one statement at a time" in message:
        return "forbidden"
    if "null character" in message or isinstance(error, UnicodeError):
        return "syntax_error"
    name = next((name for name, words in _CLASSES.items() if re.search(words, message)), "other_sql_error")
    return "no_sql" if name == "syntax_error" and not reads_like_sql(sql) else name
