import sqlite3

import pytest

from custom_metrics import sandbox
from custom_metrics.sandbox import Database


def execute(path, sql, *limits, **named):
    """Run a query on a connection of its own."""
    opened = Database(path)
    try:
        return opened.execute(sql, *limits, **named)
    finally:
        opened.close()


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A small database, alone in a folder that is also the working and the temporary folder."""
    folder = tmp_path / "folder with % and ?#"
    folder.mkdir()
    path = folder / "zoo.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE animal (id INTEGER PRIMARY KEY, name TEXT, weight REAL);
        CREATE TABLE keeper (id INTEGER, name TEXT);
        INSERT INTO animal VALUES (1, 'Ada', 1.5), (2, NULL, 2), (3, 'Ada', 3);
        INSERT INTO keeper VALUES (1, 'Bob');
        """
    )
    connection.execute("INSERT INTO animal VALUES (4, CAST(x'ff41' AS TEXT), 4), (5, CAST(x'fe41' AS TEXT), 4)")
    connection.commit()
    connection.close()
    monkeypatch.chdir(folder)
    for name in ("TMPDIR", "SQLITE_TMPDIR"):
        monkeypatch.setenv(name, str(folder))
    return path


@pytest.fixture
def untouched(database):
    """After the test the database has the same bytes and nothing lies beside it."""
    before = database.read_bytes()
    yield
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == [database.name]


def test_a_query_gives_its_rows(database, untouched):
    result = execute(database, "SELECT id, name, weight FROM animal WHERE id < 3 ORDER BY id;")
    assert result.rows == [(1, "Ada", 1.5), (2, None, 2.0)]
    assert (result.error_class, result.error) == ("", "")
    assert execute(str(database), "-- a comment\nWITH a AS (SELECT 1) SELECT * FROM a").rows == [(1,)]


WRITES = [
    "ATTACH DATABASE 'new.sqlite' AS other",
    "ATTACH DATABASE ':memory:' AS other",
    "VACUUM",
    "VACUUM INTO 'copy.sqlite'",
    "PRAGMA journal_mode = WAL",
    "PRAGMA user_version = 7",
    "PRAGMA writable_schema = ON",
    "PRAGMA hard_heap_limit = 0",
    "PRAGMA temp_store_directory = '.'",
    "SELECT * FROM pragma_user_version",
    "DROP TABLE animal",
    "ALTER TABLE animal ADD COLUMN x",
    "UPDATE animal SET name = 'x'",
    "DELETE FROM animal",
    "INSERT INTO animal VALUES (9, 'x', 0)",
    "INSERT INTO animal VALUES (9, 'x', 0) RETURNING id",
    "REPLACE INTO animal VALUES (1, 'x', 0)",
    "WITH a AS (SELECT 1) DELETE FROM animal",
    "CREATE TABLE t (x)",
    "CREATE TEMP TABLE t (x)",
    "CREATE TEMP VIEW v AS SELECT 1",
    "CREATE VIRTUAL TABLE v USING fts5(x)",
    "CREATE INDEX i ON animal (name)",
    "REINDEX",
    "ANALYZE",
    "BEGIN IMMEDIATE",
    "SAVEPOINT s",
    "COMMIT",
    "DETACH DATABASE main",
    "SELECT load_extension('x')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT 1; DROP TABLE animal",
    "SELECT 1; SELECT 2",
]


@pytest.mark.parametrize("sql", WRITES)
def test_whatever_is_no_plain_reading_is_refused(database, untouched, sql):
    result = execute(database, sql)
    assert result.rows is None
    # COMMIT fails before it is asked for permission: there is no transaction. The rest is refused.
    assert result.error_class == "forbidden" or (sql == "COMMIT" and result.error_class == "other_sql_error"), result


def test_attach_stays_impossible_without_the_authorizer(database, untouched, monkeypatch):
    monkeypatch.setattr(sandbox, "_authorize", lambda *_: sqlite3.SQLITE_OK)
    assert execute(database, "ATTACH DATABASE 'new.sqlite' AS other").error_class == "forbidden"
    assert execute(database, "DELETE FROM animal").error_class == "forbidden"


ENDLESS = [
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT max(i) FROM n",
    "SELECT count(*) FROM " + ", ".join(f"animal a{i}" for i in range(40)),
    "SELECT count(*) FROM " + ", ".join(f"animal a{i}" for i in range(40)) + " WHERE a0.name LIKE '%a%'",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT group_concat('xxxxxxxx') FROM n",
]


@pytest.mark.parametrize("sql", ENDLESS)
def test_an_endless_query_ends(database, untouched, sql):
    result = execute(database, sql, timeout_s=0.2)
    assert result.error_class == "timeout"
    assert "0.2 s" in result.error


TOO_LARGE = [
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",  # rows without end
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT zeroblob(9000000) FROM n",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT randomblob(9000000) FROM n ORDER BY 1",
    "SELECT zeroblob(2000000000)",
    "SELECT length(randomblob(2000000000))",
    # From 3.46 on SQLite's parser takes as many as come.
    *(["SELECT " + "(" * 10_000 + "1" + ")" * 10_000] if sqlite3.sqlite_version_info < (3, 46) else []),
    "SELECT " + " + ".join(["1"] * 5_000),
    "SELECT " + " UNION ".join(["SELECT 1"] * 600)[7:],
    "SELECT 1 WHERE 'a' LIKE '" + "%a" * 2_000 + "'",
    "SELECT id FROM animal WHERE id IN (" + ",".join(map(str, range(100_000))) + ")",
    # Each name doubles the one before: the program that SQLite compiles has no bounds, and no step is ever made.
    "WITH a0 AS (SELECT 1 UNION ALL SELECT 1)"
    + "".join(f", a{i} AS (SELECT * FROM a{i - 1} UNION ALL SELECT * FROM a{i - 1})" for i in range(1, 40))
    + " SELECT count(*) FROM a39",
]


@pytest.mark.parametrize("sql", TOO_LARGE, ids=range(len(TOO_LARGE)))
def test_a_query_that_eats_memory_is_stopped(database, untouched, sql):
    result = execute(database, sql, timeout_s=20)
    assert result.rows is None
    assert result.error_class == "too_large", result
    assert execute(database, "SELECT 1").rows == [(1,)]


def test_printf_makes_no_giant(database, untouched):
    assert execute(database, "SELECT printf('%1000000000d', 1)").rows == [(None,)]


def test_the_caps_on_rows_and_bytes(database, untouched, monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_BYTES", 6)
    assert execute(database, "SELECT 'abcdef'").rows == [("abcdef",)]
    assert execute(database, "SELECT 'abc', x'00112233'").error_class == "too_large"
    monkeypatch.setattr(sandbox, "MAX_ROWS", 5)
    assert len(execute(database, "SELECT id FROM animal").rows) == 5
    monkeypatch.setattr(sandbox, "MAX_ROWS", 4)
    assert execute(database, "SELECT id FROM animal").error_class == "too_large"


@pytest.mark.parametrize(
    ("sql", "error_class"),
    [
        ("", "no_sql"),
        (" \n;\n-- nothing\n/* here */", "no_sql"),
        ("Here is the SQL you asked for", "no_sql"),
        ("-- the query\nThe answer is 42", "no_sql"),
        ("Selected singers", "no_sql"),
        ("SELECT FROM animal", "syntax_error"),
        ("SELECT (1", "syntax_error"),
        ("SELECT 'open", "syntax_error"),
        ("SELECT 1\0", "syntax_error"),
        ("SELECT '\ud800'", "syntax_error"),
        ("SELECT * FROM absent", "no_such_table"),
        ("SELECT age FROM animal", "no_such_column"),
        ("SELECT T2.name FROM animal AS T1", "no_such_column"),
        ("SELECT name FROM animal, keeper", "ambiguous_column"),
        ("SELECT absent(1)", "other_sql_error"),
        ("SELECT ?", "other_sql_error"),
        ("SELECT max(count(*)) FROM animal", "other_sql_error"),
    ],
)
def test_every_failure_has_its_class(database, untouched, sql, error_class):
    result = execute(database, sql)
    assert result.rows is None
    assert result.error_class == error_class, result
    assert result.error


def test_text_that_is_not_utf8_is_kept_apart(database, untouched):
    rows = execute(database, "SELECT name FROM animal WHERE id > 3 ORDER BY id").rows
    assert rows == [("\udcffA",), ("\udcfeA",)]
    assert [row[0].encode("utf-8", "surrogateescape") for row in rows] == [b"\xffA", b"\xfeA"]


def test_nul_in_a_value_is_kept(database, untouched):
    assert execute(database, "SELECT CAST(x'610062' AS TEXT), x'00'").rows == [("a\0b", b"\0")]


def test_a_missing_database_is_no_error_of_the_query(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.sqlite"):
        execute(tmp_path / "none.sqlite", "SELECT 1")
    assert list(tmp_path.iterdir()) == []
