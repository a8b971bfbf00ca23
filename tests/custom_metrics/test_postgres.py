"""PostgreSQL behind the judge: the same verdicts and classes, nothing changed, and no password shown."""

import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from _engines import FAILURES
from _postgres import server
from custom_metrics.cli import main
from custom_metrics.engines import UnavailableError, shown
from custom_metrics.judge import GoldError, Judge, judge
from custom_metrics.postgres_engine import Database
from custom_metrics.query import query

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT max(i) FROM n"
SECRET = "s3cret:w@rd"
ROLES = """
CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader;
CREATE ROLE guarded LOGIN PASSWORD 's3cret:w@rd'; GRANT pg_read_all_data TO guarded;
CREATE ROLE writer LOGIN;
CREATE ROLE programs LOGIN; GRANT pg_execute_server_program TO programs;
CREATE DATABASE zoo;
CREATE DATABASE other;
"""
SCRIPT = """
CREATE TABLE animal (id INTEGER PRIMARY KEY, name TEXT, weight NUMERIC(6, 2), born DATE, tags TEXT[]);
CREATE TABLE keeper (id INTEGER, name TEXT);
CREATE SEQUENCE counter;
INSERT INTO animal VALUES
    (1, 'Ada', 1.5, '2020-01-02', '{a,b}'), (2, NULL, 2, '2021-01-02', '{}'), (3, 'Ada', 3, NULL, NULL);
INSERT INTO keeper VALUES (1, 'Bob');
GRANT DELETE ON keeper TO writer;
"""


@pytest.fixture(scope="module")
def place():
    with server() as found:
        with psycopg.connect(f"postgresql://postgres@{found}/postgres", autocommit=True) as connection:
            for statement in ROLES.strip().split("\n"):
                for one in statement.split("; "):
                    connection.execute(one)
        with psycopg.connect(f"postgresql://postgres@{found}/zoo", autocommit=True) as connection:
            connection.execute(SCRIPT)
        yield found


@pytest.fixture(scope="module")
def zoo(place):
    return f"postgresql://reader@{place}/zoo"


@pytest.fixture(scope="module")
def opened(zoo):
    one = Database(zoo)
    yield one
    one.close()


HARMFUL = [
    "CREATE TABLE t (x INT)",
    "CREATE TEMP TABLE keeper (x INT)",
    "SELECT * INTO t FROM animal",
    "DROP TABLE animal",
    "TRUNCATE animal",
    "UPDATE animal SET name = 'x'",
    "DELETE FROM animal",
    "INSERT INTO animal (id) VALUES (9)",
    "INSERT INTO animal (id) VALUES (9) RETURNING id",
    "WITH a AS (DELETE FROM animal RETURNING id) SELECT * FROM a",
    "SELECT * FROM animal FOR UPDATE",
    "SELECT nextval('counter')",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "COPY animal TO STDOUT",
    "COPY animal TO '/tmp/animal'",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "DO $$ BEGIN DELETE FROM animal; END $$",
    "CALL x()",
    "EXPLAIN ANALYZE SELECT 1",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SET transaction_read_only = off",
    "SET ROLE postgres",
    "SET statement_timeout = 0",
    "SHOW statement_timeout",
    "LOCK TABLE animal",
    "LISTEN x",
    "NOTIFY x",
    "PREPARE p AS SELECT 1",
    "DECLARE d CURSOR FOR SELECT 1",
    "VACUUM",
    "SELECT 1; DROP TABLE animal",
    "SELECT 1; COMMIT; DROP TABLE animal",
    "SELECT 1; SELECT 2",
]


@pytest.mark.parametrize("sql", HARMFUL)
def test_whatever_is_no_plain_reading_is_refused(opened, sql):
    result = opened.execute(sql)
    assert (result.rows, result.error_class) == (None, "forbidden"), result
    assert opened.execute("SELECT count(*) FROM animal").rows == [(3,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "SELECT set_config('statement_timeout', '0', false)",
        "SELECT set_config('search_path', 'none', false)",
    ],
)
def test_no_setting_outlives_its_query(opened, sql):
    opened.execute(sql)
    assert opened.execute("SELECT nextval('counter')").error_class == "forbidden"
    assert opened.execute("SELECT current_setting('search_path'), count(*) FROM animal").rows == [
        ('"$user", public', 3)
    ]
    assert opened.execute(ENDLESS, 0.2).error_class == "timeout"


@pytest.mark.parametrize(
    ("sql", "error_class"),
    [
        *FAILURES,
        ("SELECT FROM FROM", "syntax_error"),
        ("SELECT $1::int", "other_sql_error"),
        ("SELECT 'a'::int", "other_sql_error"),
        ("SELECT 1 / (id - 1) FROM animal", "other_sql_error"),
        ("SELECT " + "(" * 40_000 + "1" + ")" * 40_000, "too_large"),
        ("SELECT generate_series(1, 1000000)", "too_large"),
        (ENDLESS, "timeout"),
        ("SELECT pg_sleep(60)", "timeout"),
    ],
    ids=lambda value: value[:30],
)
def test_every_failure_has_its_class(opened, sql, error_class):
    result = opened.execute(sql, 0.3 if error_class == "timeout" else 60)
    assert (result.rows, result.error_class) == (None, error_class), result
    assert result.error
    assert opened.execute("SELECT 1").rows == [(1,)]


def test_the_check_prepares_and_runs_nothing(opened):
    good = ["SELECT name FROM animal", ENDLESS, "VALUES (1)", "TABLE animal", "SELECT 1;", "SELECT 1 -- one"]
    assert [opened.check(sql) for sql in good] == [""] * len(good)
    bad = ["SELECT age FROM animal", "DROP TABLE animal", "SELECT 1; SELECT 2", "So, here"]
    assert [opened.check(sql) for sql in bad] == ["no_such_column", "forbidden", "forbidden", "no_sql"]


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("1.50::numeric(9, 2)", 1.5),
        ("7.00::numeric(9, 2)", 7),
        ("avg(x) FROM (VALUES (1), (2)) AS v (x)", 1.5),
        ("170141183460469231731687303715884105727", 2**127 - 1),
        ("true", 1),
        ("DATE '2020-01-02'", "2020-01-02"),
        ("DATE 'infinity'", "infinity"),
        ("TIMESTAMP '2020-01-02 03:04:05'", "2020-01-02 03:04:05"),
        ("TIMESTAMPTZ '2020-01-02 03:04:05+01'", "2020-01-02 02:04:05+00"),
        ("INTERVAL '1 month 2 days'", "1 mon 2 days"),
        ("'00000000-0000-0000-0000-000000000001'::uuid", "00000000-0000-0000-0000-000000000001"),
        ('\'{"b": 1, "a": [1.0]}\'::jsonb', '{"a": [1.0], "b": 1}'),
        ("ARRAY[1.0, 2.5, NULL]", "[1, 2.5, null]"),
        ("ARRAY[DATE '2020-01-02']", '["2020-01-02"]'),
        ("ROW(1, 'a')", "(1,a)"),
        ("'[1,5)'::int4range", "[1,5)"),
        ("'127.0.0.1'::inet", "127.0.0.1"),
        ("'\\xaa'::bytea", b"\xaa"),
        ("'a%s'", "a%s"),
        ("NULL", None),
    ],
)
def test_values_are_those_that_are_compared(opened, sql, value):
    ((found,),) = opened.execute(f"SELECT {sql}").rows
    assert (found, type(found)) == (value, type(value))


def test_verdicts_of_a_judge(place, zoo):
    items = [
        (zoo, "SELECT id FROM animal ORDER BY id", "SELECT id FROM animal ORDER BY id DESC"),
        (f"postgresql://reader@{place}/other", "SELECT 0.1", "SELECT 0.1::float8"),
        (zoo, "SELECT 1", ENDLESS),
        (zoo, "SELECT absent FROM animal", "SELECT 1"),
        # It ends its own connection, and the next query has another.
        (zoo, "SELECT 1", "SELECT pg_terminate_backend(pg_backend_pid())"),
        (zoo, "SELECT id FROM animal", "I think\n```\nSELECT id FROM animal WHERE id < 3\n```"),
        (zoo, 'SELECT "name" FROM animal', "Sure:\n\nSELECT name FROM animal"),
        (
            zoo,
            "SELECT DISTINCT ON (name) name, id FROM animal ORDER BY name, id",
            "SELECT name, min(id) FROM animal GROUP BY 1 ORDER BY 1",
        ),
    ]
    with Judge(timeout_s=1, jobs=2) as several:
        found = several.judge_all(items)
        assert several.version("postgres").startswith("PostgreSQL ")
    assert isinstance(found.pop(3), GoldError)
    classes = ["wrong_order_only", "ok", "timeout", "other_sql_error", "wrong_rows", "ok", "ok"]
    assert [one.error_class for one in found] == classes
    assert found[3].message == "the query ended the engine, or the connection to it"
    assert found[5].flags == ("gold_duplicate_rows",)


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("postgres", "the role is a superuser, or may touch files of the server"),
        ("programs", "the role is a superuser, or may touch files of the server"),
        ("writer", "the role may write to keeper"),
        ("nobody", 'role "nobody" does not exist'),
    ],
)
def test_a_role_that_may_write_is_refused(place, role, message):
    with Judge() as one, pytest.raises(UnavailableError, match=message):
        one.judge(f"postgresql://{role}@{place}/zoo", "SELECT 1", "SELECT 1")


def test_the_role_that_the_refusal_advises_is_taken(place):
    with Judge() as one, pytest.raises(UnavailableError) as refused:
        one.judge(f"postgresql://postgres@{place}/zoo", "SELECT 1", "SELECT 1")
    create, grant, _ = str(refused.value).split(": ")[-1].split("; ")
    with psycopg.connect(f"postgresql://postgres@{place}/zoo", autocommit=True) as connection:
        connection.execute(create.replace("reader", "advised"))
        connection.execute(grant.replace("reader", "advised"))
    assert judge(f"postgresql://advised@{place}/zoo", "SELECT count(*) FROM animal", "SELECT 3").correct["bag"]


def test_no_password_is_shown(place, tmp_path, capfd, monkeypatch):
    good = f"postgresql://guarded:s3cret%3Aw%40rd@{place}/zoo"
    parts = ("s3cret", "w@rd", "w%40rd")
    messages = []
    with Judge(timeout_s=5) as one:
        assert one.judge(good, "SELECT 3", "SELECT count(*) FROM animal").correct["bag"]
        with pytest.raises(GoldError) as failed:
            one.judge(good, "SELECT absent", "SELECT 1")
        messages.append(str(failed.value))
        for wrong in (
            good.replace("/zoo", "/none"),
            good.replace("s3cret", "s3cret1"),
            good.replace(place, "127.0.0.1:1"),
            good.replace(place, "127.0.0.1:x"),
            good + "?nothing=1",
            good.replace("%40", "@"),
            good.replace("%3A", "#"),
            good.replace("%3A", "%3"),
        ):
            with pytest.raises(UnavailableError) as refused:
                one.judge(wrong, "SELECT 1", "SELECT 1")
            messages.append(str(refused.value))
        command = Path(f"/proc/{one._all[0]._process.pid}/cmdline").read_text() if one._all[0]._process else ""
    (tmp_path / "q.json").write_text(json.dumps([{"db_id": "zoo", "query": "SELECT absent"}]), encoding="utf-8")
    (tmp_path / "p.txt").write_text("SELECT 1\n", encoding="utf-8")
    out = tmp_path / "a.csv"
    address = good.replace("zoo", "{db_id}")
    arguments = ["--questions", str(tmp_path / "q.json"), "--databases", address, "--out", str(out), "--jobs", "1"]
    assert main(["score", str(tmp_path / "p.txt"), *arguments]) == 0
    arguments[3] = address.replace("guarded", "absent")
    assert main(["score", str(tmp_path / "p.txt"), *arguments]) == 2
    captured = capfd.readouterr()
    text = "\n".join([*messages, command, captured.out, captured.err, out.read_text(encoding="utf-8"), shown(good)])
    assert not any(part in text for part in parts), text
    assert f"postgresql://guarded@{place}/zoo: the gold query fails" in text


def test_a_password_of_the_environment(place, tmp_path, monkeypatch):
    address = f"postgresql://guarded@{place}/zoo"
    monkeypatch.delenv("PGPASSWORD", raising=False)
    with Judge() as one, pytest.raises(UnavailableError, match="no password supplied"):
        one.judge(address, "SELECT 1", "SELECT 1")
    with monkeypatch.context() as changed:
        changed.setenv("PGPASSWORD", SECRET)
        with Judge() as one:
            assert one.judge(address, "SELECT 3", "SELECT count(*) FROM animal").correct["bag"]
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".pgpass").write_text(f"{place}:zoo:guarded:{SECRET.replace(':', chr(92) + ':')}\n", encoding="utf-8")
    (tmp_path / ".pgpass").chmod(0o600)
    with Judge() as one:
        assert one.judge(address, "SELECT 3", "SELECT count(*) FROM animal").correct["bag"]


def test_first_rows(zoo):
    found = query(zoo, "SELECT id, born FROM animal ORDER BY id", first_rows=2)
    assert (found.columns, found.rows, found.more) == (["id", "born"], [[1, "2020-01-02"], [2, "2021-01-02"]], True)


def test_the_command_line(place, tmp_path, capsys):
    questions = [{"db_id": "zoo", "query": "SELECT name FROM animal"}, {"db_id": "other", "query": "SELECT 7"}]
    (tmp_path / "q.json").write_text(json.dumps(questions), encoding="utf-8")
    (tmp_path / "p.txt").write_text("SELECT name FROM animal\nSELECT 8\n", encoding="utf-8")
    command = [
        "score",
        str(tmp_path / "p.txt"),
        "--questions",
        str(tmp_path / "q.json"),
        "--out",
        str(tmp_path / "a.csv"),
    ]
    assert main([*command, "--databases", f"postgresql://reader@{place}/{{db_id}}"]) == 0
    assert "2 questions on 2 databases" in capsys.readouterr().out
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").count(",PostgreSQL ") == 2
    assert main([*command, "--databases", f"postgresql://reader@{place}/{{db_id}}", "--suite"]) == 2
    assert "--suite: expected a folder of files" in capsys.readouterr().err


CONFINED = """
import json, os, socket, sys
import psycopg
from custom_metrics import worker
from custom_metrics.confinement import confine

address, victim = sys.argv[1:]
given = worker.open_before("postgres", [address])
worker.preload()
worker.limit()
lacking = confine([])
doors = {
    "read a file": lambda: open(victim).read(),
    "write": lambda: open(victim, "a"),
    "fork": os.fork,
    "open a socket": socket.socket,
    "connect again": lambda: psycopg.connect(address, connect_timeout=2),
}
open_doors = []
for name, door in doors.items():
    try:
        door()
        open_doors.append(name)
    except (PermissionError, psycopg.OperationalError):
        pass
print(json.dumps([lacking, open_doors, given[address].execute("SELECT id FROM animal ORDER BY id").rows]))
"""


def test_after_the_connection_is_made_every_other_door_is_shut(zoo, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("secret", encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", CONFINED, zoo, victim], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lacking, open_doors, rows = json.loads(done.stdout)
    if lacking:
        pytest.skip(f"this kernel lacks {lacking}")
    assert (open_doors, rows) == ([], [[1], [2], [3]])
