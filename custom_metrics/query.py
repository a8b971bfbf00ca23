"""Run one query for a reader: its first rows, from a process of its own that can be killed and cannot write a file.

    from custom_metrics.query import query
    query("concert_singer.sqlite", "SELECT name FROM singer").rows

`judge` compares two queries and keeps processes for many questions; here a single query is only run.
"""

from dataclasses import dataclass
from pathlib import Path

from custom_metrics.engines import locate
from custom_metrics.process import Process


@dataclass(frozen=True)
class Result:
    """What one query gave.

    Attributes:
        columns: the names of its columns.
        rows: its first rows, each value as `preview.value` gives it, none cut; None if it did not run.
        more: whether it has rows beyond these.
        error_class, error: as of `sandbox.Execution`; "" for a query that ran.
    """

    columns: list[str]
    rows: list[list] | None
    more: bool
    error_class: str = ""
    error: str = ""


def query(database: str | Path, sql: str, timeout_s: float = 30.0, first_rows: int = 100) -> Result:
    """Run `sql` on a database, which is opened read-only, and return its first rows.

    Args:
        database: a SQLite or DuckDB file, or the address of a PostgreSQL database.
        sql: any text; `extract.extract_sql` takes it out of a model's answer.
        timeout_s: seconds it may take.
        first_rows: rows to return, at most; it is not run beyond these.

    Raises:
        FileNotFoundError: there is no such database.
        engines.UnavailableError: it cannot be opened, or its engine is not installed.
            Everything a query can do wrong is returned instead.
    """
    name, engine = locate(database)
    task = {"database": name, "engine": engine, "sql": sql, "timeout_s": timeout_s, "first_rows": first_rows}
    process = Process()
    try:
        results, failure = process.run([task])
    finally:
        process.kill()
    return Result([], None, False, *failure.error) if failure else Result(**results[0])
