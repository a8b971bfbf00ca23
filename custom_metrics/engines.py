"""Which engine runs the queries on a database: SQLite, DuckDB or PostgreSQL.

A database is the path of a file, which tells by its first bytes what it is, or the address of a PostgreSQL database,
`postgresql://reader@host/shop`. An engine is a module with a class `Database(name)` that has

- `engine`, its name in `ENGINES`, and `version`, for records;
- `check(sql)`: the error class of a text as one query that only reads, without running it; "" if it is one;
- `execute(sql, timeout_s, first_rows)`: what one query gave (`sandbox.Execution`);
- `close()`.
"""

import importlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom_metrics.sandbox import existing, refuse_unmerged

# A worker that ends with this status says that the query took the engine, or the connection to it, along.
LOST = 4
# https://duckdb.org/docs/stable/internals/storage: a checksum of eight bytes, then this.
_DUCKDB_MAGIC = b"DUCK"
_POSTGRES = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[^:@/?#\s]*)(?P<password>:[^:@/?#\s]*)?@)?(?P<place>[^@/?#\s]*)"
    r"(?P<path>/[^@/?#\s]*)?(?:\?(?P<options>[^@#\s]*))?"
)


@dataclass(frozen=True)
class Engine:
    """What is to be known of an engine before its module is imported."""

    module: str  # of `custom_metrics`
    package: str = ""  # that the module needs; "" if Python has it
    at_once: int = 0  # databases that a worker opens before it is confined; 0: one by one, when it already is


# Named as sqlglot names their dialects.
ENGINES = {
    "sqlite": Engine("sandbox"),
    "duckdb": Engine("duckdb_engine", "duckdb", at_once=16),
    "postgres": Engine("postgres_engine", "psycopg", at_once=1),
}


class UnavailableError(ValueError):
    """A database that cannot be opened. The message says which, without its password, and what to do."""


class LostError(RuntimeError):
    """The engine, or the connection to it, is gone, so that this process can run no further query."""


def is_address(database: str | Path) -> bool:
    """Tell whether a database is named by an address, and not by a path."""
    return isinstance(database, str) and database.startswith(("postgresql://", "postgres://"))


def locate(database: str | Path) -> tuple[str, str]:
    """Return the absolute path or the address of a database, and the name of its engine.

    Raises:
        FileNotFoundError: there is no such file.
        UnavailableError: the address is none, or the package that its engine needs is not installed.
    """
    if is_address(database):
        name, engine = str(database), "postgres"
        if not _POSTGRES.fullmatch(name):
            raise UnavailableError(
                "The address of a database was not understood; expected postgresql://user@host:port/name. In a user or "
                "a password, write each of : / ? # @ as % and its hexadecimal code: @ is %40."
            )
    else:
        name = str(existing(database))
        with Path(name).open("rb") as stream:
            engine = "duckdb" if stream.read(12)[8:] == _DUCKDB_MAGIC else "sqlite"
    package = ENGINES[engine].package
    if package and importlib.util.find_spec(package) is None:
        raise UnavailableError(
            f"{shown(name)}: needs the package {package}; run: pip install './custom_metrics[{engine}]'"
        )
    return name, engine


def readable(database: str | Path) -> tuple[str, str]:
    """Do as `locate`, and refuse a SQLite file with rows that are not in it yet.

    Raises:
        FileNotFoundError, UnavailableError: as of `locate`.
        sandbox.UnmergedError: some of its rows are in a file beside it.
    """
    name, engine = locate(database)
    if engine == "sqlite":
        refuse_unmerged(Path(name))
    return name, engine


def shown(database: str | Path) -> str:
    """Return a path as it is, and an address without its password and its options."""
    if not is_address(database):
        return str(database)
    found = _POSTGRES.fullmatch(str(database))
    if found is None:
        return "postgresql://…"
    return f"postgresql://{found['user'] + '@' if found['user'] else ''}{found['place']}{found['path'] or ''}"


def open_database(name: str, engine: str) -> Any:
    """Open a database by what `locate` returned. Raises an UnavailableError if it cannot be opened."""
    return importlib.import_module(f"custom_metrics.{ENGINES[engine].module}").Database(name)
