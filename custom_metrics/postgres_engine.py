"""Run one SQL query that nobody has read yet on a PostgreSQL database, and let it change nothing.

What holds, each attacked in tests/custom_metrics/test_postgres.py:

- writing: a role that is a superuser, may run programs or touch files of the server, or may write to any table is
  refused at the start. Every query is the SELECT of a cursor (`DECLARE … CURSOR FOR`), sent alone by the protocol that
  takes one statement only, in a transaction that is READ ONLY and rolled back.
- time: `statement_timeout`. It is by the clock of the server, which cannot tell the time on the processor of one query;
  a server that is busy with other work makes queries late.
- memory here: rows are fetched some at a time, within the limits of `sandbox`.

What a role may read, and what the functions do that it may call, is the server's to say: this is no protection of a
server from who may log in. Memory and temporary files of the server are bounded by its own configuration.

The connection is made before the process is confined. After that it can open no other, nor any file.
"""

import time
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import pq
from psycopg.postgres import types
from psycopg.types.string import TextLoader

from custom_metrics.engines import LostError, UnavailableError, shown
from custom_metrics.sandbox import CHECK_S, Execution, collect, late, reads_like_sql, unlike_sql
from custom_metrics.values import plain

CONNECT_S = 10
ROWS_AT_ONCE = 5_000
_SETTINGS = (
    "SET default_transaction_read_only = on; SET cursor_tuple_fraction = 1; SET client_encoding = 'UTF8'; "
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; "
    "SET extra_float_digits = 1"
)
# What is read as a number, a truth value or bytes; all else is the text that PostgreSQL writes, or a list of such.
_READ = ("int2", "int4", "int8", "oid", "float4", "float8", "numeric", "bool", "bytea")
_POWERS = """
SELECT current_setting('is_superuser') = 'on' OR EXISTS (
    SELECT FROM pg_roles WHERE pg_has_role(oid, 'member')
    AND rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')
)
"""
_WRITABLE = """
SELECT format('%s', c.oid::regclass) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'f') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') ORDER BY 1 LIMIT 1
"""
_READER = (
    "Use one that may only read: CREATE ROLE reader LOGIN PASSWORD '…'; GRANT pg_read_all_data TO reader; "
    "(PostgreSQL 14 or later)"
)
# By SQLSTATE, or its first two characters (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_CLASSES = {
    "42601": "syntax_error", "42P01": "no_such_table", "3F": "no_such_table", "42703": "no_such_column",
    "42702": "ambiguous_column", "25006": "forbidden", "42501": "forbidden", "42P11": "forbidden",
    "57014": "timeout", "53": "too_large", "54": "too_large",
}  # fmt: skip


class Database:
    """One PostgreSQL database, with one connection for any number of queries; nothing that a query does outlives it.

    Raises:
        UnavailableError: it cannot be connected with, or the role may write.
    """

    engine = "postgres"

    def __init__(self, name: str):
        here = shown(name)
        try:
            self._connection = psycopg.connect(
                name, autocommit=True, connect_timeout=CONNECT_S, application_name="text-to-sql-accuracy"
            )
            self._connection.execute(_SETTINGS)
            (powerful,), writable = (self._connection.execute(query).fetchone() for query in (_POWERS, _WRITABLE))
        except psycopg.ProgrammingError:
            # libpq repeats what it does not understand of an address, which may be a password.
            raise UnavailableError(f"{here}: the address, or one of its options, is not understood.") from None
        except psycopg.Error as error:
            raise UnavailableError(f"{here}: cannot be connected with ({' '.join(str(error).split())}).") from None
        found = "is a superuser, or may touch files of the server" if powerful else ""
        if writable and not found:
            found = f"may write to {writable[0]}"
        if found:
            self._connection.close()
            raise UnavailableError(f"{here}: the role {found}. {_READER}")
        for known in types:
            if known.name not in _READ:
                self._connection.adapters.register_loader(known.oid, TextLoader)
        self.version = f"PostgreSQL {self._connection.execute('SHOW server_version').fetchone()[0].split()[0]}"

    def close(self) -> None:
        self._connection.close()

    def check(self, sql: str) -> str:
        """Return the error class of a text as one query on this database, without running it; "" if it is one."""
        return self._run(sql, CHECK_S, 0).error_class

    def execute(self, sql: str, timeout_s: float = 30.0, first_rows: int | None = None) -> Execution:
        """Run one query; as of `sandbox.Database.execute`, but for the time, which is by the clock."""
        return self._run(sql, timeout_s, first_rows)

    def _run(self, sql: str, timeout_s: float, first_rows: int | None) -> Execution:
        if refused := unlike_sql(sql):
            return refused
        try:
            try:
                return self._in_transaction(sql, time.monotonic() + timeout_s, first_rows)
            except psycopg.Error as error:
                if self._connection.broken or error.sqlstate is None:
                    raise
                failed = error
            finally:
                self._ask("ROLLBACK")
            if failed.sqlstate == "57014":
                return late(timeout_s)
            return Execution(None, *self._failure(sql, failed))
        except (psycopg.Error, MemoryError) as error:
            # After a lack of memory nobody can tell what libpq holds of a result.
            raise LostError(str(error)) from None

    def _in_transaction(self, sql: str, deadline: float, first_rows: int | None) -> Execution:
        self._ask(f"BEGIN READ ONLY; {_until(deadline)}")
        # `binary` has it sent by the protocol that takes one statement only.
        self._ask(f"DECLARE c NO SCROLL CURSOR FOR {sql}", binary=True)
        if first_rows == 0:
            return Execution([])
        some = self._fetch(deadline)
        columns = [column.name for column in some.description]

        def rows() -> Iterator[tuple]:
            fetched = some.fetchall()
            while fetched:
                yield from (tuple(map(plain, row)) for row in fetched)
                fetched = self._fetch(deadline).fetchall() if len(fetched) == ROWS_AT_ONCE else []

        return collect(rows(), columns, first_rows)

    def _ask(self, statement: str, **options: Any) -> psycopg.Cursor:
        return self._connection.execute(statement, **options)

    def _fetch(self, deadline: float) -> psycopg.Cursor:
        self._ask(_until(deadline))
        return self._ask(f"FETCH FORWARD {ROWS_AT_ONCE} FROM c")

    def _failure(self, sql: str, error: psycopg.Error) -> tuple[str, str]:
        """Return the error class and the message of a query that failed."""
        name = _CLASSES.get(error.sqlstate) or _CLASSES.get(error.sqlstate[:2], "other_sql_error")
        message = _said(error)
        if name == "syntax_error":
            # What is no query can be another statement, or several: the server says so when it only reads it.
            alone = self._connection.pgconn.prepare(b"", sql.encode())
            if alone.status == pq.ExecStatus.COMMAND_OK:
                return "forbidden", "not a query"
            state, message = (
                (alone.error_field(field) or b"").decode("utf-8", "replace")
                for field in (pq.DiagnosticField.SQLSTATE, pq.DiagnosticField.MESSAGE_PRIMARY)
            )
            if state != "42601" or "multiple commands" in message:
                return "forbidden", message
            if "memory exhausted" in message:
                return "too_large", message
            return ("syntax_error" if reads_like_sql(sql) else "no_sql"), message
        if message.startswith("DECLARE CURSOR must not"):
            name = "forbidden"
        if "missing FROM-clause entry" in message:  # as SQLite says of T2.name without a T2
            name = "no_such_column"
        return name, message


def _until(deadline: float) -> str:
    return f"SET LOCAL statement_timeout = {max(1, round(1000 * (deadline - time.monotonic())))}"


def _said(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error)
