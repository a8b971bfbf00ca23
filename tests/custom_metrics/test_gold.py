"""Which gold queries fail, and which leave open what they give."""

import sqlite3
from contextlib import closing

import pytest

from custom_metrics.gold import OPEN, certify, doubtful, settled
from custom_metrics.judge import SEMANTICS


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Four people: two of one age, three of one town."""
    path = tmp_path_factory.mktemp("gold") / "people.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, town TEXT)")
        rows = [(1, "Ana", 30, "Porto"), (2, "Bo", 40, "Porto"), (3, "Cy", 40, "Porto"), (4, "Di", 50, "Lyon")]
        connection.executemany("INSERT INTO person VALUES (?, ?, ?, ?)", rows)
    return path


QUERIES = {
    # Nothing is open.
    "SELECT name FROM person": "",
    "SELECT count(*) FROM person": "",
    "SELECT name FROM person ORDER BY name": "",
    "SELECT name FROM person ORDER BY age DESC LIMIT 1": "",
    "SELECT age FROM person ORDER BY age": "",  # who ties looks alike
    "SELECT age FROM person ORDER BY age LIMIT 2": "",
    "SELECT name FROM person LIMIT 4": "",  # all there are
    "SELECT town, count(*) FROM person GROUP BY town": "",
    "SELECT id, name, count(*) FROM person GROUP BY id": "",  # one name for each id
    "SELECT name, max(age) FROM person": "",  # SQLite: of the row with the greatest
    'SELECT name FROM person WHERE town = "Porto" ORDER BY name LIMIT 2': "",  # a string, says SQLite
    "SELECT DISTINCT town FROM person ORDER BY town": "",
    "SELECT name FROM person WHERE age = 30 UNION SELECT name FROM person WHERE age = 50 ORDER BY name": "",
    # The rows are.
    "SELECT name FROM person ORDER BY age LIMIT 2": "rows",
    "SELECT name FROM person LIMIT 1": "rows",
    "SELECT name, count(*) FROM person GROUP BY town": "rows",
    "SELECT name, count(*) FROM person": "rows",
    "SELECT town FROM person WHERE id = (SELECT id FROM person WHERE age > 30 ORDER BY town = 'x' LIMIT 1)": "rows",
    "SELECT count(*) FROM person WHERE name > (SELECT name FROM person WHERE age = 40 LIMIT 1)": "rows",
    "SELECT age FROM person GROUP BY age ORDER BY count(*) LIMIT 1": "rows",
    # Only their order is.
    "SELECT name FROM person ORDER BY age": "order",
    "SELECT name, town FROM person ORDER BY town": "order",
    "SELECT age FROM person GROUP BY age ORDER BY count(*)": "order",
    # Nobody can tell.
    "SELECT * FROM person ORDER BY age LIMIT 2": "unknown",
    "SELECT shoe FROM person": "unknown",
}


def test_what_a_query_leaves_open(database):
    found = certify([(database, query) for query in QUERIES], jobs=2)
    assert {query: one.open for query, one in zip(QUERIES, found, strict=True)} == QUERIES
    assert set(QUERIES.values()) == set(OPEN)


def test_a_query_that_runs_is_right_as_an_answer_to_itself_and_one_that_fails_is_not(database):
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    queries = ["SELECT name FROM person WHERE age > 90", "SELECT shoe FROM person", "SELEC 1", slow]
    empty, column, syntax, late = certify([(database, query) for query in queries], timeout_s=0.3)
    assert (empty.rows, empty.error_class, set(empty.correct.values())) == (0, "ok", {True})
    assert [one.error_class for one in (column, syntax, late)] == ["no_such_column", "no_sql", "timeout"]
    for one in (column, syntax, late):
        assert one.rows is None
        assert not any(one.correct.values())


def test_ties_are_broken_both_ways():
    up, down = settled("SELECT name FROM person ORDER BY age DESC LIMIT 3")
    assert up == "SELECT name FROM person ORDER BY age DESC, 1 ASC LIMIT 3"
    assert down == "SELECT name FROM person ORDER BY age DESC, 1 DESC LIMIT 3"
    assert settled("SELECT name FROM person") == ()
    assert settled("SELECT * FROM person LIMIT 3") is None
    assert settled("no query") is None


@pytest.mark.parametrize("criterion", SEMANTICS)
def test_what_is_in_doubt_depends_on_the_criterion(criterion):
    assert doubtful(criterion, True, "rows")
    assert doubtful(criterion, False, "")
    assert not doubtful(criterion, True, "")
    assert doubtful(criterion, True, "order") == (criterion in ("ordered", "test_suite"))
