import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from custom_metrics import judge as module
from custom_metrics import process, worker
from custom_metrics.compare import SEMANTICS
from custom_metrics.judge import ERROR_CLASSES, GOLD_FLAGS, GoldError, Judge, Verdict, judge, orders_rows

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n"
LITTLE_MEMORY = """
import sys
from custom_metrics import worker
size = int(open("/proc/self/statm").read().split()[0]) * 4096
worker.MEMORY_BYTES = size + 30_000_000
worker.main(*map(int, sys.argv[1:]))
"""
# One call of a built-in function, which SQLite cannot be asked to leave: the process has to be killed.
STUCK = "SELECT instr(hex(zeroblob(4900000)), hex(zeroblob(2000000)) || '1')"


def make(path, script):
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    return path


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A small database, alone in a folder that is also the working and the temporary folder."""
    folder = tmp_path / "folder with % and ?#"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("TMPDIR", "SQLITE_TMPDIR"):
        monkeypatch.setenv(name, str(folder))
    return make(
        folder / "zoo.sqlite",
        """
        CREATE TABLE animal (id INTEGER PRIMARY KEY, name TEXT, weight REAL);
        CREATE TABLE keeper (id INTEGER, name TEXT);
        INSERT INTO animal VALUES (1, 'Ada', 1.5), (2, 'Bo', 2), (3, 'Ada', 3), (4, NULL, 4);
        INSERT INTO keeper VALUES (1, 'Bob');
        """,
    )


@pytest.fixture
def one(database):
    with Judge(timeout_s=5) as opened:
        yield opened


def right(verdict):
    """Return the semantics under which the extracted query is right."""
    return {name for name, correct in verdict.correct.items() if correct}


ALL = set(SEMANTICS)


@pytest.mark.parametrize(
    ("gold", "answer", "expected", "error_class"),
    [
        ("SELECT name FROM animal", "SELECT name FROM animal ORDER BY id DESC", ALL, "ok"),
        (
            "SELECT name FROM animal ORDER BY id",
            "SELECT name FROM animal ORDER BY id DESC",
            {"set", "bag", "columns_any_order"},
            "wrong_order_only",
        ),
        # SQLite's order of the words counts for the one, their place in the query for the other.
        (
            "SELECT name FROM animal WHERE id IN (SELECT id FROM animal ORDER BY id)",
            "SELECT name FROM animal ORDER BY id DESC",
            ALL - {"test_suite"},
            "ok",
        ),
        (
            "SELECT name FROM animal ORDER  BY id",
            "SELECT name FROM animal ORDER BY id DESC",
            {"set", "bag", "columns_any_order", "test_suite"},
            "wrong_order_only",
        ),
        ("SELECT name FROM animal", "SELECT DISTINCT name FROM animal", {"set", "test_suite"}, "duplicate_only"),
        (
            "SELECT id, name FROM animal",
            "SELECT name, id FROM animal",
            {"columns_any_order", "test_suite"},
            "wrong_columns",
        ),
        ("SELECT id FROM animal", "SELECT id, name FROM animal", set(), "extra_or_missing_columns"),
        ("SELECT id, name FROM animal", "SELECT name FROM animal", set(), "extra_or_missing_columns"),
        ("SELECT id, name FROM animal", "SELECT weight FROM animal", set(), "wrong_columns"),
        ("SELECT id FROM animal", "SELECT id FROM animal WHERE id < 3", set(), "wrong_rows"),
        ("SELECT id FROM animal", "SELECT id + 1 FROM animal", set(), "wrong_rows"),
        ("SELECT id FROM animal WHERE id > 9", "SELECT id, name FROM keeper WHERE id > 9", ALL, "ok"),
        ("SELECT id FROM animal WHERE id > 9", "SELECT id FROM animal", set(), "wrong_rows"),
        ("SELECT id FROM animal", "SELECT id FROM animal WHERE id > 9", set(), "wrong_rows"),
        ("SELECT id FROM animal WHERE id > 2", "SELECT id FROM animal WHERE id > = 3", {"test_suite"}, "syntax_error"),
        ("SELECT 2020", "SELECT year(curdate())", {"test_suite"}, "other_sql_error"),
        ("SELECT 1", "SELECT 1.0", ALL, "ok"),
        ("SELECT NULL", "SELECT 0", set(), "wrong_rows"),
        ("SELECT 1", "SELECT '1'", set(), "wrong_rows"),
        ("SELECT NULL", "SELECT 9e999 - 9e999", ALL, "ok"),
        # Sorted by their text, 1 comes after 1.5 and 1.0 before: the official evaluator falls for it.
        ("SELECT 1, 1.5", "SELECT 1.0, 1.5", ALL - {"test_suite"}, "ok"),
        # Without DISTINCT it is no SQL, so both keep it.
        ("SELECT 1 IS NOT DISTINCT FROM 1", "SELECT 1", ALL, "ok"),
    ],
)
def test_semantics_and_classes(one, database, gold, answer, expected, error_class):
    verdict = one.judge(database, gold, answer)
    assert (right(verdict), verdict.error_class) == (expected, error_class)
    assert list(verdict.correct) == list(verdict.correct_raw) == list(SEMANTICS)
    assert verdict.correct_raw == verdict.correct
    assert (verdict.message == "") == (error_class == "ok")


@pytest.mark.parametrize(
    ("answer", "error_class", "message"),
    [
        ("SELECT FROM animal", "syntax_error", "near"),
        ("SELECT * FROM absent", "no_such_table", "absent"),
        ("SELECT absent FROM animal", "no_such_column", "absent"),
        ("SELECT name FROM animal, keeper", "ambiguous_column", "name"),
        ("SELECT absent(1)", "other_sql_error", "absent"),
        ("DROP TABLE animal", "forbidden", "not authorized"),
        ("I do not know.", "no_sql", "near"),
        ("", "no_sql", "no SQL"),
        ("-- a comment", "no_sql", "no SQL"),
        ("SELECT zeroblob(2000000000)", "too_large", "too big"),
    ],
)
def test_failures_have_a_class_and_a_message(one, database, answer, error_class, message):
    verdict = one.judge(database, "SELECT name FROM animal WHERE id > 9", answer)
    assert right(verdict) == set()
    assert not any(verdict.correct_raw.values())
    assert verdict.error_class == error_class
    assert message in verdict.message
    assert (verdict.gold_rows, verdict.predicted_rows) == (0, None)


def test_row_counts_and_raw(one, database):
    verdict = one.judge(database, "SELECT id FROM animal", "Here it is:\n```sql\nSELECT id FROM keeper;\n```")
    assert (verdict.gold_rows, verdict.predicted_rows) == (4, 1)
    verdict = one.judge(database, "SELECT 3", "Sure: SELECT 3")
    assert right(verdict) == ALL
    assert not any(verdict.correct_raw.values())
    # Two statements are refused, and the first of them is what the official evaluator runs.
    verdict = one.judge(database, "SELECT 3", "SELECT 3; That is all.")
    assert right(verdict) == ALL
    assert {name for name, correct in verdict.correct_raw.items() if correct} == {"test_suite"}
    for plain in ("SELECT 3;", " SELECT 3 ;\n", "SELECT 3 -- three", "SELECT 3; -- three"):
        assert all(one.judge(database, "SELECT 3", plain).correct_raw.values()), plain


@pytest.mark.parametrize(
    ("gold", "flags"),
    [
        ("SELECT id FROM animal", ()),
        ("SELECT name FROM animal", ("gold_duplicate_rows",)),
        ("SELECT id FROM animal WHERE id > 9", ("gold_empty",)),
        ('SELECT "id" AS "the id", id FROM "animal" ORDER BY "the id"', ()),
        ('SELECT id FROM animal WHERE name = "Ada"', ("gold_double_quoted",)),
        ('SELECT id FROM animal WHERE name = "weight"', ("gold_empty",)),
        ("SELECT id FROM animal WHERE name = '\"x\"'", ("gold_empty",)),
        ('SELECT id FROM animal WHERE name = "none"', ("gold_empty", "gold_double_quoted")),
    ],
)
def test_flags_of_the_gold_query(one, database, gold, flags):
    assert one.judge(database, gold, "SELECT 1").flags == flags
    assert set(flags) <= set(GOLD_FLAGS)


ATTACKS = {
    "attach": ("ATTACH DATABASE 'new.sqlite' AS other", "forbidden"),
    "vacuum into": ("VACUUM INTO 'copy.sqlite'", "forbidden"),
    "pragma": ("PRAGMA journal_mode = WAL", "forbidden"),
    "writable schema": ("PRAGMA writable_schema = ON", "forbidden"),
    "drop": ("DROP TABLE animal", "forbidden"),
    "update": ("UPDATE animal SET name = 'x'", "forbidden"),
    "alter": ("ALTER TABLE animal ADD COLUMN x", "forbidden"),
    "insert": ("INSERT INTO animal (name) VALUES ('x') RETURNING name", "forbidden"),
    "temporary table": ("CREATE TEMP TABLE t AS SELECT 1", "forbidden"),
    "extension": ("SELECT load_extension('./evil.so')", "forbidden"),
    "write a file": ("SELECT writefile('new.txt', 'x')", "other_sql_error"),
    "several statements": ("SELECT 1; DROP TABLE animal", "wrong_rows"),
    "endless": (ENDLESS, "timeout"),
    "cross join": ("SELECT count(*) FROM " + ", ".join(f"animal a{i}" for i in range(40)), "timeout"),
    "randomblob": ("SELECT randomblob(2000000000)", "too_large"),
    "zeroblob": ("SELECT zeroblob(2000000000)", "too_large"),
    "blobs without end": (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT randomblob(9000000) FROM n ORDER BY 1",
        "too_large",
    ),
    "rows without end": (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, i, i, i, i, i, i, i, i FROM n",
        "too_large",
    ),
    "printf": ("SELECT length(printf('%1000000000d', 1)) FROM keeper", "wrong_rows"),
    "printf of printf": ("SELECT printf('%.*c', 9000000, 'x') || printf('%.*c', 9000000, 'x')", "too_large"),
    "replace": ("SELECT replace(hex(zeroblob(4000000)), '0', '0123456789')", "too_large"),
    # From 3.46 on SQLite's parser takes as many as come.
    "parentheses": (
        "SELECT " + "(" * 10_000 + "1" + ")" * 10_000,
        "too_large" if sqlite3.sqlite_version_info < (3, 46) else "wrong_rows",
    ),
    "nul": ("SELECT 1\0; DROP TABLE animal", "syntax_error"),
    "in list": ("SELECT 1 WHERE 1 IN (" + ",".join(map(str, range(200_000))) + ")", "too_large"),
    "like": ("SELECT 1 WHERE 'a' LIKE '" + "%a" * 2_000 + "'", "too_large"),
    "like blow-up": ("SELECT 1 WHERE hex(zeroblob(4900000)) LIKE '%" + "0" * 990 + "1'", "timeout"),
    "glob blow-up": ("SELECT 1 WHERE hex(zeroblob(4900000)) GLOB '*" + "0" * 990 + "1'", "timeout"),
    "stuck": (STUCK, "timeout"),
    "surrogate": ("SELECT '\ud800'", "syntax_error"),
}


@pytest.mark.parametrize(("attack", "error_class"), ATTACKS.values(), ids=ATTACKS.keys())
def test_an_attack_is_a_zero_and_leaves_nothing(database, monkeypatch, attack, error_class):
    monkeypatch.setattr(process, "GRACE_S", 0.2)
    before = database.read_bytes()
    with Judge(timeout_s=0.3 if error_class == "timeout" else 20) as attacked:
        verdict = attacked.judge(database, "SELECT id, name FROM animal", attack)
        assert right(verdict) == set()
        assert not any(verdict.correct_raw.values())
        assert verdict.error_class == error_class, verdict
        assert verdict.message
        assert right(attacked.judge(database, "SELECT count(*) FROM animal", "SELECT 4")) == ALL
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == [database.name]


def test_a_stuck_process_ends_by_itself_and_is_replaced(database):
    with Judge(timeout_s=0.3) as opened:
        opened.judge(database, "SELECT 1", "SELECT 1")
        first = opened._all[0]._process
        assert opened.judge(database, "SELECT 1", STUCK).error_class == "timeout"
        opened.judge(database, "SELECT 1", "SELECT 1")
        assert first.poll() == -signal.SIGPROF
        assert opened._all[0]._process.poll() is None
        last = opened._all[0]._process
    assert last.poll() is not None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_query_whose_process_is_killed_is_tried_again(database, jobs, number):
    found = "too_large" if number == signal.SIGKILL else "other_sql_error"
    with Judge(timeout_s=20, jobs=jobs) as opened:
        opened.judge(database, "SELECT 1", "SELECT 1")
        tries = []
        for one in opened._all:

            def dying(tasks, one=one, original=one.run):
                tries.append(tasks[0]["known"])
                if len(tries) in deaths:
                    if one._process is None:
                        one._start(tasks[0]["engine"], tasks[0]["database"])
                    threading.Timer(0.2, one._process.send_signal, [number]).start()
                    return original([tasks[0] | {"answer": ENDLESS}])
                return original(tasks)

            one.run = dying
        deaths = {1}
        # The process dies once, for a reason outside the query: judged again, the answer is right.
        assert opened.judge(database, "SELECT 1", "SELECT 1").error_class == "ok"
        assert tries == [{}, {}]
        tries.clear()
        deaths = {1, 2, 4, 5}
        assert opened.judge(database, "SELECT 1", "SELECT 1").error_class == found
        assert tries[:2] == [{}, {}] and tries[2]["raw"][0] == found
        # What several processes at once may be to blame for is judged once more, alone.
        assert len(tries) == (6 if jobs == 2 and number == signal.SIGKILL else 3)


def test_a_query_that_crashes_its_process_is_not_tried_again(database):
    with Judge(timeout_s=20, jobs=2) as opened:
        opened.judge(database, "SELECT 1", "SELECT 1")
        running = next(one for one in opened._all if one._process)
        threading.Timer(0.2, running._process.send_signal, [signal.SIGSEGV]).start()
        verdict = opened.judge(database, "SELECT 1", ENDLESS)
        assert verdict.error_class == "other_sql_error"
        assert "ended its process (status -11)" in verdict.message


def test_after_an_interruption_no_answer_is_taken_for_another(database, monkeypatch):
    with Judge(timeout_s=20) as opened:
        opened.judge(database, "SELECT 1", "SELECT 1")
        connection = opened._all[0]._connection

        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(type(connection), "poll", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened.judge(database, "SELECT 1", "SELECT 1")
        monkeypatch.undo()
        assert opened.judge(database, "SELECT 1", "SELECT 2").error_class == "wrong_rows"


def test_a_process_without_memory_is_no_end(database, monkeypatch):
    # All that is left of the limit is what starting takes: two large results do not fit.
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 400000) SELECT i || 'x', i, i FROM n"
    monkeypatch.setattr(process, "WORKER", ("-c", LITTLE_MEMORY))
    with Judge(timeout_s=30) as opened:
        with pytest.raises(GoldError, match="too_large"):
            opened.judge(database, many, many)
        assert opened.judge(database, "SELECT 1", many).error_class == "too_large"
        assert opened.judge(database, "SELECT 1", "SELECT 1").error_class == "ok"


def test_a_large_result_fits_into_the_memory_of_the_process(database):
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 400000) SELECT hex(i)||'x' FROM n"
    with Judge(timeout_s=30) as opened:
        verdict = opened.judge(database, many, many)
        assert verdict.error_class == "ok"
        assert verdict.gold_rows == 400_000


def test_a_timeout_costs_its_time_once(database, monkeypatch):
    monkeypatch.setattr(worker.signal, "setitimer", lambda *_: None)
    slow = ENDLESS.replace("SELECT 1", "SELECT DISTINCT 1", 1)
    task = {"database": str(database), "gold": "SELECT 1", "ordered": False, "fence": "last", "timeout_s": 0.2}
    ran = []
    for answer in (slow, f"```sql\n{slow}\n```"):
        result = worker.assess(
            worker.Databases(), task | {"answer": answer, "previews": False, "further": [], "known": {}}, ran.append
        )
        assert result["verdict"]["error_class"] == "timeout"
    assert ran == [
        "gold",
        "raw",
        "raw comparison",
        "gold",
        "raw",
        "raw comparison",
        "extraction",
        "sql",
        "sql comparison",
    ]


def test_what_is_given_up_by_the_clock_is_tried_again_while_nothing_else_runs(database, monkeypatch):
    monkeypatch.setattr(process, "CLOCK_TIMES", 0.02)
    monkeypatch.setattr(process, "GRACE_S", 0.6)
    with Judge(timeout_s=20, jobs=3) as opened:
        running, seen, guard = 0, [], threading.Lock()
        for one in opened._all:

            def counted(tasks, original=one.assess):
                nonlocal running
                with guard:
                    running += 1
                    seen.append((tasks[0]["answer"], running))
                try:
                    return original(tasks)
                finally:
                    with guard:
                        running -= 1

            one.assess = counted
        answers = [ENDLESS] + ["SELECT 1"] * 60
        with ThreadPoolExecutor(6) as pool:
            verdicts = list(pool.map(lambda answer: opened.judge(database, "SELECT 1", answer), answers))
    assert [v.error_class for v in verdicts] == ["timeout"] + ["ok"] * 60
    assert [count for sql, count in seen if sql == ENDLESS][-1] == 1
    assert len([sql for sql, _ in seen if sql == ENDLESS]) == 2


def test_many_in_order_whatever_the_number_of_jobs(database, tmp_path):
    other = make(tmp_path / "other.sqlite", "CREATE TABLE animal (id); INSERT INTO animal VALUES (7);")
    items = [
        ((database, other)[i % 2], "SELECT count(*) FROM animal", f"SELECT {i % 5}{';' * (i % 3)}") for i in range(100)
    ]
    results = []
    for jobs in (1, 4):
        with Judge(timeout_s=5, jobs=jobs) as opened:
            results.append(opened.judge_all(items))
            assert opened.judge_all([]) == []
    assert results[0] == results[1]
    assert [v.correct["bag"] for v in results[0]] == [(i % 5) == (1 if i % 2 else 4) for i in range(100)]


def test_errors_in_the_data_are_told_by_place(database, one):
    gold = "SELECT absent FROM animal"
    with pytest.raises(GoldError, match=r"zoo\.sqlite: the gold query fails \(no_such_column: .*absent.*\): SELECT"):
        one.judge(database, gold, "SELECT 1")
    found = one.judge_all(
        [(database, "SELECT 1", "SELECT 1"), (database, gold, "SELECT 1"), (database, "SELECT 1", "x")]
    )
    assert [type(verdict) for verdict in found] == [Verdict, GoldError, Verdict]
    assert found[0].correct["bag"] and "absent" in str(found[1])
    with pytest.raises(GoldError, match="timeout"):
        Judge(timeout_s=0.2).judge(database, ENDLESS, "SELECT 1")
    with pytest.raises(FileNotFoundError, match=r"none\.sqlite"):
        one.judge_all([(database, "SELECT 1", "SELECT 1"), ("none.sqlite", "SELECT 1", "SELECT 1")])
    for wrong in ({"timeout_s": 0}, {"jobs": 0}):
        with pytest.raises(ValueError, match="expected more than 0"):
            Judge(**wrong)


def test_after_close_nothing_runs(database):
    opened = Judge()
    opened.judge(database, "SELECT 1", "SELECT 1")
    opened.close()
    opened.close()
    with pytest.raises(ValueError, match="closed"):
        opened.judge(database, "SELECT 1", "SELECT 1")


def test_a_changed_database_is_read_again(database, one):
    assert one.judge(database, "SELECT count(*) FROM animal", "SELECT 4").correct["bag"]
    connection = sqlite3.connect(database)
    connection.execute("DELETE FROM animal WHERE id = 4")
    connection.commit()
    connection.close()
    assert not one.judge(database, "SELECT count(*) FROM animal", "SELECT 4").correct["bag"]


def test_gold_results_are_kept_by_content_and_within_bounds(database, tmp_path, monkeypatch):
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(database.read_bytes())
    databases, ran = worker.Databases(), []

    def run(path, sql):
        def execute():
            ran.append(sql)
            return databases.get(str(path))[1].execute(sql)

        return databases.gold(str(path), sql, 5, execute)

    assert run(database, "SELECT id FROM animal") == run(copy, "SELECT id FROM animal")
    assert ran == ["SELECT id FROM animal"]
    # A failure is kept as well: one that takes too long costs its time once.
    run(database, "SELECT absent")
    run(database, "SELECT absent")
    assert ran[1:] == ["SELECT absent"]
    monkeypatch.setattr(worker, "KEPT_VALUES", 6)
    run(database, "SELECT name FROM animal")
    run(database, "SELECT id FROM animal")
    assert ran[2:] == ["SELECT name FROM animal", "SELECT id FROM animal"]
    monkeypatch.setattr(worker, "OPEN_DATABASES", 1)
    assert run(copy, "SELECT 5").rows == run(database, "SELECT 5").rows == [(5,)]


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("SELECT a FROM t order\nby a LIMIT 1", True),
        ("SELECT a FROM t UNION SELECT b FROM u ORDER BY 1", True),
        ("WITH c AS (SELECT 1) SELECT * FROM c ORDER BY 1", True),
        ("(SELECT a FROM t ORDER BY a)", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", False),
        ("SELECT a FROM t WHERE b = 'order by'", False),
        ("SELECT row_number() OVER (ORDER BY a) FROM t", False),
        ("SELECT group_concat(a, ' order by ') FROM t -- order by", False),
        ("SELECT a FROM t WHERE a IN (SELECT b FROM u ORDER BY b LIMIT 3)", False),
        # These two no parser of ours understands.
        ("SELECT a a a FROM (SELECT 1 ORDER BY 1)", False),
        ("SELECT a a a FROM t ORDER /* so */ BY a", True),
    ],
)
def test_a_top_level_order_by(sql, ordered):
    assert orders_rows(sql) is ordered


def test_every_class_is_described():
    assert len(set(module.CLASSES.values()) - {""}) == len(ERROR_CLASSES)


PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from custom_metrics.judge import judge
print(judge({database!r}, "SELECT 1", "SELECT 1").error_class)
"""


@pytest.mark.parametrize("how", ["script", "stdin", "-c"])
def test_it_runs_from_any_kind_of_program(database, tmp_path, how):
    # Without a guard for the main module, in a folder with a module named like one of Python's own.
    (tmp_path / "json.py").write_text("raise AssertionError('a stranger')")
    program = PROGRAM.format(root=str(ROOT), database=str(database)).replace(
        "import sys\n", "import sys\nsys.path[:1] = []\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    arguments = {"script": [str(script)], "stdin": ["-"], "-c": ["-c", program]}[how]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *arguments],
        input=program if how == "stdin" else "",
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_a_worker_ends_with_the_program_that_started_it(database):
    program = PROGRAM.format(root=str(ROOT), database=str(database)) + (
        "import os, signal\n"
        "from custom_metrics import judge as m\n"
        "print(m._shared(30.0)._all[0]._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    pid = int(done.stdout.split()[1])
    ended = threading.Event()
    for _ in range(100):
        stat = Path(f"/proc/{pid}/stat")
        # A zombie nobody waits for has ended too.
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            ended.set()
            break
        threading.Event().wait(0.1)
    assert ended.is_set()


def test_the_shared_judge(database):
    assert judge(database, "SELECT 1", "SELECT 1").error_class == "ok"
    assert judge(database, "SELECT 1", ENDLESS, timeout_s=0.2).error_class == "timeout"


def test_the_first_rows_come_if_asked_for(database, one):
    gold, answer = "SELECT id, name FROM animal", "SELECT id AS number, 'Bo' FROM animal"
    assert one.judge(database, gold, answer).previews is None
    with Judge(timeout_s=5, previews=True) as opened:
        previews = opened.judge(database, gold, answer).previews
        assert previews["gold"]["columns"] == ["id", "name"]
        assert previews["gold"]["rows"] == [[0, [1, "Ada"]], [1, [2, "Bo"]], [2, [3, "Ada"]], [3, [4, None]]]
        assert previews["gold"]["unmatched"] == [0, 2, 3]
        assert previews["predicted"]["columns"] == ["number", "'Bo'"]
        assert previews["predicted"]["unmatched"] == [0, 2, 3]
        assert opened.judge(database, gold, "SELECT absent").previews["predicted"] is None


def test_what_follows_a_slow_query_is_left_to_whoever_is_free(database):
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n WHERE i = 0"
    with Judge(timeout_s=0.5, jobs=1) as opened:
        task = opened._task((str(database), "sqlite"), "SELECT 1", "SELECT 1")
        # One that takes the process down may take the result before it along, which is then asked for again.
        for answer in (slow, STUCK):
            found = opened._all[0].assess([task, task | {"answer": answer}, task, task])
            assert found[1][0]["verdict"]["error_class"] == "timeout"
            assert found.keys() <= {0, 1}
        verdicts = opened.judge_all([(database, "SELECT 1", answer) for answer in ("SELECT 1", slow, STUCK)] * 3)
    assert [verdict.error_class for verdict in verdicts] == ["ok", "timeout", "timeout"] * 3


def test_the_same_query_is_run_once_for_one_gold_query(database, monkeypatch):
    monkeypatch.setattr(worker.signal, "setitimer", lambda *_: None)
    task = {"database": str(database), "gold": "SELECT id FROM animal", "ordered": False, "fence": "last"}
    task |= {"timeout_s": 5, "previews": True, "further": [], "known": {}}
    databases, ran = worker.Databases(), []

    def verdict(answer, gold="SELECT id FROM animal"):
        ran.clear()
        return worker.assess(databases, task | {"answer": answer, "gold": gold}, ran.append)["verdict"]

    first = verdict("SELECT id FROM keeper")
    assert verdict("SELECT id FROM keeper") == first and ran == []
    # A failure is tried again, and another gold query is another comparison.
    assert verdict("SELECT absent") == verdict("SELECT absent") and "raw" in ran
    assert verdict("SELECT id FROM keeper", "SELECT id FROM keeper")["correct"]["bag"]


def test_a_process_that_always_dies_is_not_started_for_ever(database, monkeypatch):
    program = "import sys; from custom_metrics import worker; worker.assess = lambda *_: worker.os._exit(3); "
    monkeypatch.setattr(process, "WORKER", ("-c", program + "worker.main(*map(int, sys.argv[1:]))"))
    with Judge() as opened, pytest.raises(RuntimeError, match=r"zoo\.sqlite: no process can work with it"):
        opened.judge(database, "SELECT 1", "SELECT 1")
