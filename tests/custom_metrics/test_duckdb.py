"""DuckDB behind the judge: the same verdicts and classes as SQLite's, and no harm done."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from _engines import FAILURES
from custom_metrics import sandbox
from custom_metrics.cli import main
from custom_metrics.compare import SEMANTICS
from custom_metrics.duckdb_engine import Database
from custom_metrics.engines import UnavailableError, locate
from custom_metrics.gold import certify
from custom_metrics.judge import GoldError, Judge, judge
from custom_metrics.query import query

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT max(i) FROM n"
SCRIPT = """
CREATE TABLE animal (id INTEGER PRIMARY KEY, name TEXT, weight DECIMAL(6, 2), born DATE, tags TEXT[]);
CREATE TABLE keeper (id INTEGER, name TEXT);
INSERT INTO animal VALUES
    (1, 'Ada', 1.5, '2020-01-02', ['a', 'b']), (2, NULL, 2, '2021-01-02', []), (3, 'Ada', 3, NULL, NULL);
INSERT INTO keeper VALUES (1, 'Bob');
"""


def make(path, script=SCRIPT):
    with duckdb.connect(str(path)) as connection:
        connection.execute(script)
    return path


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A small database, alone in a folder that is also the working folder."""
    folder = tmp_path / "folder with % and #"
    folder.mkdir()
    monkeypatch.chdir(folder)
    # The name tells nothing: its first bytes do.
    return make(folder / "zoo.db")


@pytest.fixture
def opened(database):
    """The database, open; afterwards it has the same bytes, and nothing lies beside it."""
    before = database.read_bytes()
    one = Database(str(database))
    yield one
    one.close()
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == [database.name]


HARMFUL = [
    "ATTACH 'new.duckdb'",
    "ATTACH ':memory:' AS m",
    "DETACH zoo",
    "USE memory",
    "CREATE TABLE t (x INT)",
    "CREATE TEMP TABLE keeper (x INT)",
    "CREATE OR REPLACE TEMP MACRO lower(x) AS 'x'",
    "CREATE TYPE mood AS ENUM ('a')",
    "CREATE SECRET s (TYPE s3)",
    "DROP TABLE animal",
    "ALTER TABLE animal ADD COLUMN x INT",
    "UPDATE animal SET name = 'x'",
    "DELETE FROM animal",
    "INSERT INTO animal (id) VALUES (9)",
    "INSERT INTO animal (id) VALUES (9) RETURNING id",
    "WITH a AS (SELECT 1 AS i) INSERT INTO animal (id) SELECT i FROM a",
    "MERGE INTO animal USING keeper ON animal.id = keeper.id WHEN MATCHED THEN DELETE",
    "TRUNCATE animal",
    "COPY animal TO 'copy.csv'",
    "COPY (SELECT 1) TO 'copy.parquet'",
    "COPY animal FROM 'copy.csv'",
    "EXPORT DATABASE 'export'",
    "IMPORT DATABASE 'export'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "FORCE CHECKPOINT",
    "CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "BEGIN",
    "COMMIT",
    "SET memory_limit = '8GB'",
    "SET lock_configuration = false",
    "RESET memory_limit",
    "PRAGMA threads = 8",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "SET VARIABLE x = 1",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_text('/proc/self/environ')",
    "SELECT * FROM read_blob('*')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM 'https://example.org/a.parquet'",
    "SELECT 1; DROP TABLE animal",
    "SELECT 1; SELECT 2",
]


@pytest.mark.parametrize("sql", HARMFUL)
def test_whatever_is_no_plain_reading_is_refused(opened, sql):
    result = opened.execute(sql)
    assert result.rows is None
    # A name that is no table, since no file can be taken for one, is an unknown table.
    assert result.error_class in ("forbidden", "no_such_table"), result
    assert opened.execute("SELECT count(*) FROM animal").rows == [(3,)]


def test_a_variable_of_python_is_no_table(opened):
    keepers = {"id": [1]}
    assert keepers and opened.execute("SELECT * FROM keepers").error_class == "no_such_table"
    assert opened.execute("SELECT getenv('HOME')").error_class == "other_sql_error"


@pytest.mark.parametrize(
    ("sql", "error_class"),
    [
        *FAILURES,
        ("SELECT FROM animal WHERE", "syntax_error"),
        ("SELECT ?", "other_sql_error"),
        ("SELECT CAST('a' AS INT)", "other_sql_error"),
        ("SELECT " + "(" * 10_000 + "1" + ")" * 10_000, "too_large"),
        ("SELECT list(range) FROM range(200000000)", "too_large"),
        ("SELECT range FROM range(1000000)", "too_large"),
    ],
    ids=lambda value: value[:30],
)
def test_every_failure_has_its_class(opened, sql, error_class):
    result = opened.execute(sql)
    assert (result.rows, result.error_class) == (None, error_class), result
    assert result.error and "\n" not in result.error
    assert opened.execute("SELECT 1").rows == [(1,)]


def test_the_check_prepares_and_runs_nothing(opened):
    good = [
        "SELECT name FROM animal",
        ENDLESS,
        "FROM animal",
        "VALUES (1)",
        "PIVOT animal ON name IN ('Ada') USING sum(id)",
    ]
    assert [opened.check(sql) for sql in good] == [""] * 5
    bad = ["SELECT age FROM animal", "DROP TABLE animal", "SELECT 1; SELECT 2", "ANALYZE SELECT 1", "So, here"]
    assert [opened.check(sql) for sql in bad] == ["no_such_column", "forbidden", "forbidden", "syntax_error", "no_sql"]


@pytest.mark.parametrize(
    "sql",
    [
        ENDLESS,
        "SELECT count(*) FROM " + ", ".join(f"range(1000) r{i}" for i in range(9)) + " WHERE r0.range % 7 = r1.range",
    ],
    ids=["recursive", "product"],
)
def test_an_endless_query_ends(opened, sql):
    result = opened.execute(sql, timeout_s=0.2)
    assert (result.error_class, result.error) == ("timeout", "no result within 0.2 s")
    assert opened.execute("SELECT 1").rows == [(1,)]


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("1.50::DECIMAL(9, 2)", 1.5),
        ("7.00::DECIMAL(9, 2)", 7),
        ("170141183460469231731687303715884105727::HUGEINT", 2**127 - 1),
        ("true", 1),
        ("DATE '2020-01-02'", "2020-01-02"),
        ("TIMESTAMP '2020-01-02 03:04:05'", "2020-01-02 03:04:05"),
        ("TIMESTAMPTZ '2020-01-02 03:04:05+01'", "2020-01-02 02:04:05+00:00"),
        ("TIME '03:04:05'", "03:04:05"),
        ("INTERVAL 36 HOUR", "1 day, 12:00:00"),
        ("UUID '00000000-0000-0000-0000-000000000001'", "00000000-0000-0000-0000-000000000001"),
        ("[1.0, 2.5, NULL]", "[1, 2.5, null]"),
        ("{'a': DATE '2020-01-02', 'b': [1]}", '{"a": "2020-01-02", "b": [1]}'),
        ("MAP {1: 'é'}", '{"1": "é"}'),
        ("'\\xAA'::BLOB", b"\xaa"),
        ("'x'::ENUM ('x', 'y')", "x"),
        ("NULL", None),
    ],
)
def test_values_are_those_that_are_compared(opened, sql, value):
    ((found,),) = opened.execute(f"SELECT {sql}").rows
    assert (found, type(found)) == (value, type(value))


RIGHT = {
    "SELECT count(*) FROM animal": "SELECT 3.0::DOUBLE",
    "SELECT 0.1": "SELECT 0.1::DOUBLE",
    "SELECT born FROM animal WHERE id = 1": "SELECT '2020-01-02'",
    "SELECT 'nan'::DOUBLE": "SELECT 'nan'::FLOAT",
    "SELECT tags FROM animal ORDER BY id": "SELECT tags FROM animal ORDER BY id",
    "SELECT sum(weight) FROM animal": "Sure:\n```sql\nSELECT sum(weight) FROM animal;\n```",
    "SELECT DISTINCT ON (name) name, id FROM animal ORDER BY name, id": "SELECT name, min(id) FROM animal "
    "GROUP BY ALL ORDER BY ALL",
}


@pytest.mark.parametrize("gold", RIGHT)
def test_right_answers(database, gold):
    verdict = judge(database, gold, RIGHT[gold])
    assert {name for name, correct in verdict.correct.items() if correct} >= {"set", "bag", "ordered"}, verdict


def test_verdicts_of_a_judge(database, tmp_path):
    other = tmp_path / "other.sqlite"
    sqlite3.connect(other).execute("CREATE TABLE t (a)").close()
    second = make(tmp_path / "second.duckdb", "CREATE TABLE t AS SELECT 5 AS a")
    items = [
        (database, "SELECT id FROM animal ORDER BY id", "SELECT id FROM animal ORDER BY id DESC"),
        (other, "SELECT count(*) FROM t", "SELECT 0"),
        (second, "SELECT a FROM t", "SELECT 5"),
        (database, "SELECT absent FROM animal", "SELECT 1"),
        (database, "SELECT 1", ENDLESS),
        # This memory DuckDB does not count; the system does.
        (database, "SELECT 1", "SELECT repeat('x', 2000000000)"),
        (database, "SELECT id FROM animal", "I think\n```\nSELECT id FROM animal WHERE id < 3\n```"),
    ]
    with Judge(timeout_s=1, jobs=2, previews=True) as several:
        found = several.judge_all(items)
        assert several.version("duckdb") == f"DuckDB {duckdb.__version__}"
    assert isinstance(found[3], GoldError) and found[3].error_class == "no_such_column"
    classes = [one.error_class for one in (*found[:3], *found[4:])]
    assert classes == ["wrong_order_only", "ok", "ok", "timeout", "too_large", "wrong_rows"]
    assert not any("gold_double_quoted" in one.flags for one in found[:3])


def test_order_counts_where_duckdb_sorts(database):
    gold = "FROM animal SELECT id ORDER BY id"
    assert judge(database, gold, "SELECT id FROM animal ORDER BY id DESC").error_class == "wrong_order_only"


def test_what_stands_in_a_wal_is_read(database):
    program = (
        "import duckdb, os\nc = duckdb.connect('zoo.db')\nc.execute('CHECKPOINT')\n"
        "c.execute(\"INSERT INTO keeper VALUES (2, 'Cy')\")\nos._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert Path("zoo.db.wal").stat().st_size
    assert judge(database, "SELECT count(*) FROM keeper", "SELECT 2").correct["bag"]


def test_a_wal_that_duckdb_would_not_find_is_told(tmp_path):
    folder = tmp_path / "which?"
    folder.mkdir()
    path = make(tmp_path / "zoo.duckdb").rename(folder / "zoo.duckdb")
    assert judge(path, "SELECT 3", "SELECT count(*) FROM animal").correct["bag"]
    (folder / "zoo.duckdb.wal").write_bytes(b"x")
    with Judge() as one, pytest.raises(UnavailableError, match=r"zoo\.duckdb\.wal: DuckDB does not find it"):
        one.judge(path, "SELECT 3", "SELECT 3")


def copied(source, path):
    """Copy a SQLite file into a DuckDB file, each column as its declared type."""
    types = {"INTEGER": "BIGINT", "REAL": "DOUBLE"}
    with closing(sqlite3.connect(source)) as old, duckdb.connect(str(path)) as new:
        for (name,) in old.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = old.execute(f'PRAGMA table_info("{name}")').fetchall()
            typed = ", ".join(f'"{column[1]}" {types.get(column[2], "VARCHAR")}' for column in columns)
            new.execute(f'CREATE TABLE "{name}" ({typed})')
            if rows := old.execute(f'SELECT * FROM "{name}"').fetchall():
                new.executemany(f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(columns))})', rows)
    return path


def test_verdicts_on_the_same_data_are_those_of_sqlite(tmp_path):
    """Of the demo's questions, with answers that forget every DESC, wherever no query leaves its rows open."""
    data = ROOT / "resources/demo/spider_data"
    asked = [(row["db_id"], row["query"]) for row in json.loads((data / "dev.json").read_text(encoding="utf-8"))]
    old = {name: data / f"database/{name}/{name}.sqlite" for name, _ in asked}
    new = {name: copied(path, tmp_path / f"{name}.duckdb") for name, path in old.items()}
    answers = [f"Here it is:\n```sql\n{gold.replace(' DESC', '')};\n```" for _, gold in asked]
    with Judge(timeout_s=20, jobs=2) as both:
        on_sqlite, on_duckdb = (
            both.judge_all([(place[name], gold, text) for (name, gold), text in zip(asked, answers, strict=True)])
            for place in (old, new)
        )
    settled = [
        {one.open for one in pair} <= {"", "order"}
        for pair in zip(
            certify([(old[name], gold) for name, gold in asked], jobs=2),
            certify([(old[name], gold.replace(" DESC", "")) for name, gold in asked], jobs=2),
            strict=True,
        )
    ]
    # DuckDB refuses a column that is neither aggregated nor grouped by.
    ran = [not isinstance(one, GoldError) for one in on_duckdb]
    assert all(runs or "must appear in the GROUP BY" in str(one) for runs, one in zip(ran, on_duckdb, strict=True))
    compared = [
        (left, right)
        for left, right, *comparable in zip(on_sqlite, on_duckdb, ran, settled, strict=True)
        if all(comparable)
    ]
    assert len(compared) > 150
    for left, right in compared:
        same = [name for name in SEMANTICS if name not in ("ordered", "test_suite")]
        assert [left.correct[name] for name in same] == [right.correct[name] for name in same], (left, right)
        assert (left.sql, left.gold_rows, left.predicted_rows) == (right.sql, right.gold_rows, right.predicted_rows)


def test_a_file_that_cannot_be_opened_is_said_so(database):
    database.write_bytes(database.read_bytes()[:100])
    with Judge(timeout_s=5) as one, pytest.raises(UnavailableError, match=r"zoo\.db: DuckDB \S+ cannot open it"):
        one.judge(database, "SELECT 1", "SELECT 1")


def test_a_missing_package_is_said_so(database, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"pip install './custom_metrics\[duckdb\]'"):
        locate(database)


def test_first_rows_and_certificates(database):
    found = query(database, "SELECT id, born FROM animal ORDER BY id", first_rows=2)
    assert (found.columns, found.rows, found.more) == (["id", "born"], [[1, "2020-01-02"], [2, "2021-01-02"]], True)
    golds = ["SELECT name FROM animal ORDER BY id LIMIT 1", "SELECT id FROM animal ORDER BY name NULLS LAST LIMIT 1"]
    assert [one.open for one in certify([(database, gold) for gold in golds])] == ["", "rows"]


def test_the_command_line(database, capsys):
    folder = database.parent
    (folder / "zoo").mkdir()
    database.rename(folder / "zoo/zoo.duckdb")
    questions = [{"db_id": "zoo", "query": "SELECT name FROM animal"}, {"db_id": "zoo", "query": "SELECT 7"}]
    (folder / "q.json").write_text(json.dumps(questions), encoding="utf-8")
    (folder / "p.txt").write_text("FROM animal SELECT name\nSELECT 8\n", encoding="utf-8")
    arguments = ["--questions", "q.json", "--databases", str(folder), "--out", "a.csv", "--jobs", "1"]
    assert main(["score", "p.txt", *arguments]) == 0
    assert "2 questions on 1 databases" in capsys.readouterr().out
    text = (folder / "a.csv").read_text(encoding="utf-8")
    assert text.count(f"DuckDB {duckdb.__version__}") == 2


def test_limits_on_rows(opened, monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_ROWS", 3)
    assert len(opened.execute("SELECT id FROM animal").rows) == 3
    monkeypatch.setattr(sandbox, "MAX_ROWS", 2)
    assert opened.execute("SELECT id FROM animal").error_class == "too_large"


def test_it_runs_in_one_thread(opened):
    threads = Path("/proc/self/task")
    if not threads.is_dir():
        pytest.skip("no /proc on this system")
    before = list(threads.iterdir())
    opened.execute("SELECT count(*) FROM range(3000000)")
    assert list(threads.iterdir()) == before


def test_the_metric_of_deepeval(database):
    from deepeval.test_case import LLMTestCase

    from custom_metrics.execution_accuracy import ExecutionAccuracy

    case = LLMTestCase(input="?", actual_output="SELECT 3", expected_output="SELECT count(*) FROM animal")
    assert ExecutionAccuracy(database=database, timeout_s=5).measure(case) == 1
