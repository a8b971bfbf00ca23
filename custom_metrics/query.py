"""Run one query for a reader: its first rows, from a process of its own that can be killed and cannot write a file.

    from custom_metrics.query import query
    query("concert_singer.sqlite", "SELECT name FROM singer").rows

`judge` compares two queries and keeps processes for many questions; here a single query is only run.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from custom_metrics.preview import value
from custom_metrics.sandbox import MAX_VALUE_BYTES, Database, existing
from custom_metrics.worker import confine, how_it_ended, own_process

# Beyond its time, a query has this long for Python to start and for itself to stop, before its process is killed.
GRACE_S = 10.0


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
    """Run `sql` on a SQLite file, which is opened read-only, and return its first rows.

    Args:
        database: the file.
        sql: any text; `extract.extract_sql` takes it out of a model's answer.
        timeout_s: seconds it may take.
        first_rows: rows to return, at most; it is not run beyond these.

    Raises:
        FileNotFoundError: there is no such database. Everything a query can do wrong is returned instead.
    """
    task = {"database": str(existing(database)), "sql": sql, "timeout_s": timeout_s, "first_rows": first_rows}
    try:
        done = subprocess.run(
            **own_process("-m", "custom_metrics.query"),
            input=json.dumps(task).encode("ascii"),
            stdout=subprocess.PIPE,
            timeout=timeout_s + GRACE_S,
        )
    except subprocess.TimeoutExpired:
        return Result([], None, False, "timeout", f"no result within {timeout_s:g} s")
    if done.returncode == 0 and done.stdout:
        return Result(**json.loads(done.stdout))
    return Result([], None, False, *how_it_ended(done.returncode))


def main() -> None:
    """Answer the one task on standard input, as JSON on standard output."""
    task = json.load(sys.stdin)
    confine()
    try:
        most = task["first_rows"]
        found = Database(task["database"]).execute(task["sql"], task["timeout_s"], first_rows=most + 1)
        rows = found.rows and [[value(cell, 2 * MAX_VALUE_BYTES) for cell in row] for row in found.rows[:most]]
        answer = {
            "columns": list(found.columns),
            "rows": rows,
            "more": found.rows is not None and len(found.rows) > most,
            "error_class": found.error_class,
            "error": found.error,
        }
        print(json.dumps(answer), flush=True)
    except MemoryError:
        # Not by returning: what Python does at its end takes memory.
        os._exit(0)


if __name__ == "__main__":
    main()
