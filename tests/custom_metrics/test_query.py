"""A single query for a reader: its first rows, whatever they hold, and no harm, whatever the query is."""

import sqlite3
from contextlib import closing

import pytest

from custom_metrics.query import query

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT {} FROM c"


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("query") / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE toy (id INTEGER, name TEXT); INSERT INTO toy VALUES (1, 'kite'), (2, 'top')"
        )
    return path


def test_rows_come_as_values_that_json_holds(database):
    long = "x" * 5000
    found = query(database, f"SELECT id, NULL, 1.5, '{long}', x'00ff', 1 << 60, 9e999, CAST(x'e9' AS TEXT) FROM toy")
    cells = [None, 1.5, long, {"blob": "00ff", "length": 2}, {"number": str(1 << 60)}, {"number": "inf"}, "\udce9"]
    assert found.rows == [[1, *cells], [2, *cells]]
    assert found.columns[0] == "id"
    assert (found.more, found.error_class) == (False, "")
    assert query(database, "SELECT name AS a FROM toy WHERE id > 9").rows == []


def test_only_the_first_rows_are_computed(database):
    assert (query(database, "SELECT id FROM toy", first_rows=1).rows, query(database, ENDLESS.format("x")).more) == (
        [[1]],
        True,
    )
    assert query(database, "SELECT id FROM toy", first_rows=1).more
    assert not query(database, "SELECT id FROM toy", first_rows=2).more


@pytest.mark.parametrize(
    ("sql", "error_class", "error"),
    [
        ("DROP TABLE toy", "forbidden", "not authorized"),
        ("SELECT colour FROM toy", "no_such_column", "no such column: colour"),
        ("I do not know.", "no_sql", "syntax error"),
        (ENDLESS.format("max(x)"), "timeout", "no result within 0.5 s"),
        # One call that SQLite does not interrupt: the process is killed, or has no memory for it.
        ("SELECT hex(zeroblob(9000000)) || hex(zeroblob(9000000))", "too_large", ""),
    ],
)
def test_a_query_that_does_not_run_is_told_and_harms_nothing(sql, error_class, error, database):
    before = database.read_bytes()
    found = query(database, sql, timeout_s=0.5)
    assert (found.rows, found.columns, found.error_class) == (None, [], error_class)
    assert error in found.error
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == [database.name]


# No query is known that does either: a worker that has started stands in for it.
STAND_IN = """
import sys, time
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
connection.send_bytes(b'{{"lacking": [], "version": ""}}')
connection.recv_bytes()
{}
"""


def test_a_process_that_dies_or_does_not_come_back_is_told(database, monkeypatch):
    for script, error_class in (("sys.exit(139)", "other_sql_error"), ("time.sleep(60)", "timeout")):
        monkeypatch.setattr("custom_metrics.process.WORKER", ("-c", STAND_IN.format(script)))
        monkeypatch.setattr("custom_metrics.process.GRACE_S", 0.2)
        assert query(database, "SELECT 1", timeout_s=0.3).error_class == error_class


def test_an_interpreter_that_does_not_start_is_no_error_of_the_query(database, monkeypatch):
    monkeypatch.setattr("sys.executable", str(database.parent / "none"))
    with pytest.raises(FileNotFoundError, match="none"):
        query(database, "SELECT 1")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such database"):
        query(tmp_path / "none.sqlite", "SELECT 1")
