"""`python -m custom_metrics`, run as a user runs it, on a small database."""

import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from custom_metrics.cli import RECORD_COLUMNS, main, report
from custom_metrics.judge import SEMANTICS, judge
from custom_metrics.stats import clustered_difference, mcnemar

ROOT = Path(__file__).resolve().parents[2]
# (db_id, gold, prediction, right as a bag)
ROWS = [
    ("music", "SELECT name FROM singer", "SELECT name FROM singer ORDER BY age DESC", 1),
    ("music", "SELECT age FROM singer", "SELECT DISTINCT age FROM singer", 0),
    ("music", "SELECT name, age FROM singer", "SELECT age, name FROM singer", 0),
    ("zoo", "SELECT name FROM animal WHERE id > 9", "SELECT name FROM animal WHERE id > 5", 1),
    ("zoo", "SELECT count(*) FROM animal", "SELECT absent FROM animal", 0),
    ("zoo", "SELECT count(*) FROM animal", "SELECT count(*) FROM animal", 1),
]
PREDICTIONS = [row[2] for row in ROWS]


@pytest.fixture
def folder(tmp_path):
    """Questions and databases of two kinds, and where a test writes its predictions."""
    for name, script in {
        "music": "CREATE TABLE singer (name TEXT, age INT); INSERT INTO singer VALUES ('A', 1), ('B', 2), ('C', 2);",
        "zoo": "CREATE TABLE animal (id INT, name TEXT); INSERT INTO animal VALUES (1, 'cat'), (2, 'dog');",
    }.items():
        path = tmp_path / "database" / name / f"{name}.sqlite"
        path.parent.mkdir(parents=True)
        connection = sqlite3.connect(path)
        connection.executescript(script)
        connection.close()
    questions = [{"db_id": db_id, "question": "?", "query": gold} for db_id, gold, _, _ in ROWS]
    (tmp_path / "dev.json").write_text(json.dumps(questions), encoding="utf-8")
    return tmp_path


def run(folder, *arguments, **options):
    """The command in a process of its own, in another folder than the repository."""
    return subprocess.run(
        [sys.executable, "-m", "custom_metrics", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        **options,
    )


def score(folder, name, text, *arguments, questions="dev.json"):
    """`score` in this process, for its exit code; the tests of its output read capsys."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    options = ["--questions", str(folder / questions), "--databases", str(folder / "database"), "--jobs", "1"]
    return main(["score", str(path), *options, *map(str, arguments)])


def records(path):
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_score_prints_all_semantics_and_writes_a_record_a_question(folder):
    (folder / "p.txt").write_text("\n".join(PREDICTIONS) + "\n", encoding="utf-8")
    done = run(folder, "score", "p.txt", "--questions", "dev.json", "--databases", "database", "--out", "a.csv")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    # A semantics of its own each: DISTINCT is lost in bag, the order of columns in columns_any_order.
    found = {name: int(lines[name][3 if name == "bag" else 2]) for name in SEMANTICS}
    assert found == {"set": 4, "bag": 3, "ordered": 3, "test_suite": 5, "columns_any_order": 4}
    assert lines["bag"][1:5] == ["*", "6", "3", "50.0"]
    assert lines["easy"][1] == "5" and lines["medium"][1] == "1"
    assert lines["no_such_column"][1:] == ["1", "16.7"]
    assert lines["gold_empty"][1:4] == ["1", "1", "100.0"]
    assert "all without gold_empty    5        2          40.0" in done.stdout

    rows = records(folder / "a.csv")
    assert tuple(rows[0])[:18] == (
        "index", "db_id", "set", "bag", "ordered", "test_suite", "columns_any_order", "set_raw", "bag_raw",
        "ordered_raw", "test_suite_raw", "columns_any_order_raw", "error_class", "hardness", "gold_rows",
        "predicted_rows", "soft_f1", "message",
    )  # fmt: skip
    assert [(row["index"], row["db_id"], int(row["bag"])) for row in rows] == [
        (str(index), db_id, right) for index, (db_id, _, _, right) in enumerate(ROWS)
    ]
    assert [row["error_class"] for row in rows] == [
        "ok", "duplicate_only", "wrong_columns", "ok", "no_such_column", "ok",
    ]  # fmt: skip
    assert (rows[4]["gold_rows"], rows[4]["predicted_rows"], rows[3]["flags"]) == ("1", "", "gold_empty")
    assert "no such column: absent" in rows[4]["message"]
    assert sorted(path.name for path in folder.iterdir()) == ["a.csv", "database", "dev.json", "p.txt"]


def write_jsonl(key, extra=lambda index: {}):
    return "".join(json.dumps({key: sql, **extra(index)}) + "\n" for index, sql in enumerate(PREDICTIONS))


def write_csv(*columns, rows=None):
    rows = rows or [[sql] * len(columns) for sql in PREDICTIONS]
    return "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in [columns, *rows])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("spider.txt", "\n".join(f"{sql}\t{row[0]}" for sql, row in zip(PREDICTIONS, ROWS, strict=True))),
        ("windows.sql", "\ufeff" + "\r\n".join(PREDICTIONS) + "\r\n\r\n"),
        ("p.jsonl", write_jsonl("pred", lambda index: {"index": index, "db_id": ROWS[index][0]})),
        ("named-otherwise.txt", "\n" + write_jsonl("actual_output")),
        ("shuffled.jsonl", "".join(reversed(write_jsonl("sql", lambda i: {"index": i}).splitlines(keepends=True)))),
        ("p.csv", write_csv("predicted_sql")),
        ("with-others.csv", write_csv("Answer", "gold", rows=[[sql, "x"] for sql in PREDICTIONS])),
    ],
)
def test_formats_of_predictions(folder, name, text):
    assert score(folder, name, text, "--out", folder / "a.csv") == 0
    assert [int(row["bag"]) for row in records(folder / "a.csv")] == [row[3] for row in ROWS]


def test_a_tab_inside_sql_is_not_taken_for_a_db_id(folder):
    lines = [*PREDICTIONS[:5], "SELECT count(*)\tFROM animal"]
    assert score(folder, "p.txt", "\n".join(lines), "--out", folder / "a.csv") == 0
    assert records(folder / "a.csv")[5]["bag"] == "1"


def test_questions_may_be_json_lines_with_ids_and_answers_are_matched_by_them(folder):
    questions = [{"id": f"q{i}", "db_id": db_id, "query": gold} for i, (db_id, gold, _, _) in enumerate(ROWS)]
    (folder / "dev.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions), encoding="utf-8")
    answers = write_jsonl("answer", lambda index: {"id": f"q{index}"}).splitlines(keepends=True)
    text = "".join(reversed(answers))
    assert score(folder, "a.jsonl", text, "--out", folder / "a.csv", questions="dev.jsonl") == 0
    assert [int(row["bag"]) for row in records(folder / "a.csv")] == [row[3] for row in ROWS]


def test_prose_is_scored_raw_and_extracted(folder, capsys):
    answers = [f"Here is the SQL:\n```sql\n{sql}\n```" for sql in PREDICTIONS]
    text = "".join(json.dumps({"answer": answer}) + "\n" for answer in answers)
    assert score(folder, "a.jsonl", text, "--out", folder / "a.csv") == 0
    rows = records(folder / "a.csv")
    assert [int(row["bag"]) for row in rows] == [row[3] for row in ROWS]
    assert [row["bag_raw"] for row in rows] == ["0"] * 6
    assert [row["sql"] for row in rows] == PREDICTIONS


def test_no_answer_is_missing_and_hostile_text_is_kept_in_the_file(folder):
    values = [None, "", "\ud800 \x00 \n,\"'", "SELECT '\udfff\n' AS x", *PREDICTIONS[4:]]
    text = "".join(json.dumps({"sql": value}) + "\n" for value in values)
    assert score(folder, "a.jsonl", text, "--out", folder / "a.csv") == 0
    rows = records(folder / "a.csv")
    assert [row["error_class"] for row in rows[:2]] == ["missing", "no_sql"]
    assert len(rows) == 6 and rows[5]["bag"] == "1"
    # What was written can be read back as predictions.
    assert score(folder, "b.csv", (folder / "a.csv").read_bytes(), "--out", folder / "b2.csv") == 0


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "text", "arguments", "message"),
    [
        ("p.txt", "SELECT 1\n" * 5, (), "p.txt: found 5 lines, expected 6"),
        ("p.txt", "SELECT 1\n" * 7, (), "p.txt: found 7 lines, expected 6"),
        ("p.jsonl", jsonl({"sql": ""}), (), "p.jsonl: found 1 predictions, expected 6"),
        ("p.csv", "sql,x,sql\na,b,c\n", (), "p.csv, line 1: has the column sql twice. Remove one, or rename it."),
        ("p.csv", write_csv("sql", rows=[["SELECT 1"]]), (), "p.csv: found 1 predictions, expected 6"),
        ("p.jsonl", jsonl({"sql": ""}) + '{"sql": \n', (), "p.jsonl, line 2: not valid JSON"),
        ("p.jsonl", jsonl({"sql": ""}) + '\n"text"\n', (), "p.jsonl, line 3: expected a JSON object"),
        ("p.jsonl", jsonl(*[{"sql": 1}] * 6), (), "p.jsonl, line 1, sql: expected text, found 1"),
        ("p.jsonl", jsonl(*[{"sql": ""}] * 5, {"x": ""}), (), "p.jsonl, line 6: has no sql"),
        ("p.jsonl", jsonl(*[{"x": ""}] * 6), (), "usual name for predictions, only x; name one by --column"),
        ("p.csv", write_csv("sql", "answer"), (), "several columns may hold the predictions, sql, answer"),
        ("p.csv", write_csv("sql"), ("--column", "other"), "has no column other; its columns are sql"),
        ("p.txt", "SELECT 1\n" * 6, ("--column", "sql"), "no columns, so there is no column sql"),
        ("p.csv", 'sql\n"SELECT 1\n', (), "not valid CSV"),
        ("p.csv", "sql,x\n1\n", (), "p.csv, line 2: expected 2 cells"),
        ("p.csv", "sql,x\n1,2,3\n", (), "p.csv, line 2: expected 2 cells"),
        ("p.csv", "", (), "usual name for predictions, only none at all"),
        ("p.txt", b"SELECT '\xff'\n" * 6, (), "p.txt: not UTF-8"),
        ("p.jsonl", jsonl(*[{"sql": "", "db_id": "zoo"}] * 6), (), "line 1: found db_id zoo, expected music"),
        ("p.txt", "\n" * 6, ("--out", "absent/a.csv"), "there is no folder absent"),
        ("p.txt", "\n" * 6, ("--databases", "absent"), "absent: no such folder"),
    ],
)
def test_refused_in_one_sentence(folder, capsys, name, text, arguments, message):
    assert score(folder, name, text, *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "has no questions"),
        ("[1]", "question 0: expected an object"),
        ('[{"db_id": "music"}]', "question 0: has no query"),
        ('{"db_id": "music", "query": "x"}\n{"query": "x"}', "line 2: has no db_id"),
        ("[", "not valid JSON"),
        ("[" + "9" * 5000 + "]", "not valid JSON"),
        ("nonsense", "line 1: not valid JSON"),
        ('[{"db_id": "no", "query": ""}, {"db_id": "nope", "query": ""}]', "for 2 of 2 databases that the questions"),
        ('[{"db_id": "no", "query": ""}, {"db_id": "music", "query": ""}]', "for 1 of 2 databases"),
        ('[{"db_id": "zoo", "SQL": "SELECT 1"}, {"db_id": "zoo", "query": []}]', "question 1: has no query"),
    ],
)
def test_wrong_questions_are_refused(folder, capsys, text, message):
    (folder / "bad.json").write_text(text, encoding="utf-8")
    assert score(folder, "p.txt", "SELECT 1\nSELECT 1\n", questions="bad.json") == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert message in err
    if "no," in text:
        assert "no" in err


def test_a_gold_query_that_fails_is_one_questions_error(folder, capsys):
    questions = [{"db_id": "zoo", "query": "SELECT 1"}, {"db_id": "zoo", "query": "SELECT 1 WHERE 2 > = 1"}]
    (folder / "bad.json").write_text(json.dumps(questions), encoding="utf-8")
    out = folder / "a.csv"
    assert score(folder, "p.txt", "SELECT 1\nSELECT 1\n", "--out", out, questions="bad.json") == 0
    captured = capsys.readouterr()
    assert "WARNING: 1 gold queries do not run" in captured.err and "question 1: " in captured.err
    assert [(row["bag"], row["error_class"]) for row in records(out)] == [("1", "ok"), ("0", "gold_error")]
    assert re.search(r"^gold_error +1 +50\.0$", captured.out, re.MULTILINE)
    assert records(out)[0]["engine"] == f"SQLite {sqlite3.sqlite_version}"


def test_files_of_bird(folder, capsys):
    questions = [
        {
            "question_id": 70 + i,
            "db_id": db_id,
            "SQL": gold,
            "evidence": "",
            "difficulty": ("simple", "moderate")[i % 2],
        }
        for i, (db_id, gold, _, _) in enumerate(ROWS)
    ]
    (folder / "bird.json").write_text(json.dumps(questions), encoding="utf-8")
    shuffled = [2, 0, 1, 5, 3, 4]
    by_place = {str(i): f"{ROWS[i][2]}\t----- bird -----\t{ROWS[i][0]}" for i in shuffled}
    by_id = {str(70 + i): ROWS[i][2] for i in shuffled}
    for number, predictions in enumerate(
        (by_place, by_id, PREDICTIONS, [{"question_id": int(k), "sql": v} for k, v in by_id.items()])
    ):
        out = folder / f"{number}.csv"
        assert score(folder, "p.json", json.dumps(predictions), "--out", out, questions="bird.json") == 0
        assert [int(row["bag"]) for row in records(out)] == [row[3] for row in ROWS], predictions
        assert re.search(r"^moderate +3 +\d", capsys.readouterr().out, re.MULTILINE)
    by_place["0"] = by_place["0"].replace("music", "zoo")
    assert score(folder, "p.json", json.dumps(by_place), questions="bird.json") == 2
    assert "prediction 0: found zoo, expected music" in capsys.readouterr().err


def test_several_gold_queries(folder):
    questions = [{"db_id": "zoo", "query": ["SELECT 1", "SELECT 2", "SELECT nothing"]}] * 3
    (folder / "many.json").write_text(json.dumps(questions), encoding="utf-8")
    out = folder / "a.csv"
    assert score(folder, "p.txt", "SELECT 2\nSELECT 1\nSELECT 3\n", "--out", out, questions="many.json") == 0
    assert [row["bag"] for row in records(out)] == ["1", "1", "0"]


def test_a_suite_of_databases(folder, capsys):
    text = "\n".join(PREDICTIONS)
    assert score(folder, "p.txt", text, "--suite") == 2
    assert "expected several of the same schema" in capsys.readouterr().err
    # The second database tells apart what the first does not: here some animal has an id above 5.
    connection = sqlite3.connect(folder / "database/zoo/zoo_v1.sqlite")
    connection.executescript("CREATE TABLE animal (id INT, name TEXT); INSERT INTO animal VALUES (7, 'emu');")
    connection.close()
    assert score(folder, "p.txt", text, "--suite", "--out", folder / "suite.csv") == 0
    assert "each in all its variants (3 files)" in capsys.readouterr().out
    assert score(folder, "p.txt", text, "--out", folder / "one.csv") == 0
    one, suite = records(folder / "one.csv"), records(folder / "suite.csv")
    assert [row["bag"] for row in one] == ["1", "0", "0", "1", "0", "1"]
    assert [row["bag"] for row in suite] == ["1", "0", "0", "0", "0", "1"]
    assert suite[3]["error_class"] == "wrong_rows"


@pytest.mark.parametrize("kind", ["wal", "journal"])
def test_a_database_with_rows_beside_its_file_is_refused_and_the_remedy_works(folder, capsys, kind):
    path = folder / "database/zoo/zoo.sqlite"
    copy = folder / "copy.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {kind if kind == 'wal' else 'delete'}")
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 900) "
        "INSERT INTO animal SELECT 5, hex(zeroblob(900)) FROM n"
    )
    if kind == "wal":
        connection.execute("COMMIT")
    # Copied in the middle, as after a crash.
    for file in path.parent.glob("zoo*"):
        (folder / file.name.replace("zoo", "copy")).write_bytes(file.read_bytes())
    connection.close()
    for file in folder.glob("copy*"):
        file.rename(path.parent / file.name.replace("copy", "zoo"))
    assert not copy.exists()
    text = "\n".join(PREDICTIONS)
    assert score(folder, "p.txt", text) == 2
    error = capsys.readouterr().err
    assert f"zoo.sqlite-{kind}: found" in error
    statement = re.search(r"sqlite3 \S+ '([^']+)'", error)[1]
    connection = sqlite3.connect(path)
    connection.execute(statement).fetchall()
    connection.close()
    assert score(folder, "p.txt", text) == 0


def test_the_output_may_be_cut(folder):
    (folder / "p.txt").write_text("\n".join(PREDICTIONS), encoding="utf-8")
    command = f"{sys.executable} -m custom_metrics score p.txt --questions dev.json --databases database | head -1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout.startswith("p.txt: 6 questions")
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_records_are_read_by_any_reader_of_csv(folder):
    answers = ["SELECT '" + character * 140_000 + "'" for character in "a\ud800"] + PREDICTIONS[2:]
    lines = "\n".join(json.dumps({"sql": answer}) for answer in answers)
    out = folder / "a.csv"
    assert score(folder, "p.jsonl", lines, "--out", out) == 0
    code = "import csv, sys; print([len(row['sql']) for row in csv.DictReader(open(sys.argv[1]))])"
    done = subprocess.run([sys.executable, "-c", code, out], capture_output=True, text=True, check=True)
    assert max(json.loads(done.stdout)) > 100_000
    assert records(out)[1]["sql"].endswith("… (100001 characters)")


def test_unknown_databases_are_all_named(folder, capsys):
    (folder / "bad.json").write_text(json.dumps([{"db_id": x, "query": ""} for x in ("b", "a", "zoo", "b")]))
    assert score(folder, "p.txt", "\n" * 4, questions="bad.json") == 2
    assert "for 2 of 3 databases that the questions name: a, b." in capsys.readouterr().err


def test_ids_that_do_not_match_are_refused(folder, capsys):
    (folder / "dev.jsonl").write_text(jsonl(*[{"id": f"q{i}", "db_id": "zoo", "query": "SELECT 1"} for i in (0, 1)]))
    for ids in (["q0", "q2"], ["q0", "q0"]):
        text = jsonl(*[{"id": i, "sql": "SELECT 1"} for i in ids])
        assert score(folder, "p.jsonl", text, questions="dev.jsonl") == 2
        assert "q1 is missing" in capsys.readouterr().err


def test_a_missing_file_exits_with_2_and_no_traceback(folder):
    done = run(folder, "score", "none.txt", "--questions", "dev.json", "--databases", "database")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: none.txt: No such file or directory.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["score"],
        ["score", "p.txt", "--questions", "dev.json"],
        ["score", "p.txt", "--questions", "dev.json", "--databases", "database", "--semantics", "bags"],
        ["score", "p.txt", "--questions", "dev.json", "--databases", "database", "--jobs", "0"],
        ["score", "p.txt", "--questions", "dev.json", "--databases", "database", "--timeout", "nan"],
        ["score", "p.txt", "--questions", "dev.json", "--databases", "database", "--timeout", "1e6"],
        ["score", "p.txt", "--questions", "dev.json", "--databases", "database", "--min-accuracy", "nan"],
        ["score", "p.txt", "--questions", "dev.json", "--databases", "database", "--min-accuracy", "101"],
        ["score", "p.txt", "--questions", "dev.json", "--databases", "database", "--timeout", "soon"],
        ["compare", "a.csv"],
        ["compare", "a.csv", "b.csv", "--semantics", "bags"],
    ],
)
def test_wrong_arguments_exit_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as found:
        main(arguments)
    assert found.value.code == 2
    assert "usage: python -m custom_metrics" in capsys.readouterr().err


def test_a_threshold_is_a_gate(folder, capsys):
    text = "\n".join(PREDICTIONS)
    assert score(folder, "p.txt", text, "--min-accuracy", 50) == 0
    assert score(folder, "p.txt", text, "--min-accuracy", 50.1, "--out", folder / "a.csv") == 1
    assert "bag accuracy 50.00% is below 50.1%" in capsys.readouterr().err
    # A closed gate does not hold back the records.
    assert len(records(folder / "a.csv")) == 6
    assert score(folder, "p.txt", text, "--min-accuracy", 50.1, "--semantics", "set") == 0


def test_results_do_not_depend_on_the_number_of_jobs(folder):
    for jobs in (1, 3):
        assert score(folder, "p.txt", "\n".join(PREDICTIONS), "--jobs", jobs, "--out", folder / f"{jobs}.csv") == 0
    assert (folder / "1.csv").read_bytes() == (folder / "3.csv").read_bytes()


def test_a_file_that_cannot_be_written_keeps_the_old_one(folder, capsys):
    (folder / "a.csv").mkdir()
    assert score(folder, "p.txt", "\n".join(PREDICTIONS), "--out", folder / "a.csv") == 2
    assert "a.csv: cannot be written" in capsys.readouterr().err
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n"


def test_timeout_is_an_error_class(folder):
    lines = [ENDLESS, *PREDICTIONS[1:]]
    assert score(folder, "p.txt", "\n".join(lines), "--timeout", 0.3, "--out", folder / "a.csv") == 0
    rows = records(folder / "a.csv")
    assert (rows[0]["error_class"], rows[0]["bag"], rows[5]["bag"]) == ("timeout", "0", "1")


def test_ctrl_c_ends_cleanly_and_leaves_no_file_and_no_process(folder):
    (folder / "p.txt").write_text("\n".join([ENDLESS] * 6), encoding="utf-8")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "custom_metrics",
            "score",
            "p.txt",
            "--questions",
            "dev.json",
            "--databases",
            "database",
            "--timeout",
            "60",
            "--out",
            "a.csv",
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell has its background jobs ignore it, and what they start too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # As a terminal does it: to the whole group, once a worker is there.
    deadline = time.monotonic() + 600
    while len(session(process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    # Past its start, on a busy machine too: the query itself runs for a minute.
    time.sleep(3)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert "Interrupted" in err and "Traceback" not in err
    assert (out, (folder / "a.csv").exists()) == ("", False)
    assert session(process.pid) == []


def session(leader):
    """The processes of a session that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(number) == leader and state != "Z":
            found.append(path.parent.name)
    return found


def write_records(path, values, first="index", names=("bag",), databases=("zoo",)):
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([first, "db_id", *names])
        each = -(-len(values) // len(databases))
        writer.writerows([i, databases[i // each], *[value] * len(names)] for i, value in enumerate(values))


def test_compare_counts_pairs(folder, capsys):
    write_records(folder / "a.csv", [1] * 10 + [0] * 30 + [1] * 10)
    write_records(folder / "b.csv", [0] * 2 + [1] * 8 + [1] * 20 + [0] * 10 + [1] * 10)
    assert main(["compare", str(folder / "a.csv"), str(folder / "b.csv")]) == 0
    out = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert lines["right in A only (b)"].split()[-1] == "2"
    assert lines["right in B only (c)"].split()[-1] == "20"
    assert "+36.00 pp" in lines["difference B - A"]
    assert f"{mcnemar(20, 2):.3g}" in lines["exact McNemar p"]
    assert "B is better than A" in out
    assert main(["compare", str(folder / "b.csv"), str(folder / "a.csv")]) == 0
    assert "A is better than B" in capsys.readouterr().out
    assert main(["compare", str(folder / "a.csv"), str(folder / "a.csv")]) == 0
    out = capsys.readouterr().out
    assert "No difference is shown" in out and "+0.00 pp" in out


def compared(folder, capsys, first, second, databases):
    """The printed facts, by name, and the verdict: of two files on as many questions of each of some databases."""
    for name, values in (("a.csv", first), ("b.csv", second)):
        write_records(folder / name, values, databases=databases)
    assert main(["compare", str(folder / "a.csv"), str(folder / "b.csv")]) == 0
    *_, facts, verdict = capsys.readouterr().out.strip().split("\n\n")
    return dict(re.split("  +", line) for line in facts.splitlines()), verdict


def test_the_verdict_of_compare_takes_whole_databases_as_drawn(folder, capsys):
    # 20 questions gained: on one database of eight, or on all of them. Of the second, one may say that B is better.
    databases = [f"db{i}" for i in range(8)]
    for gained, verdict in (([20] + [0] * 7, "No difference is shown"), ([3, 2] * 4, "B is better than A")):
        tuned = [int(question < k) for k in gained for question in range(25)]
        facts, words = compared(folder, capsys, [0] * 200, tuned, databases)
        estimate = clustered_difference(gained, [25] * 8, 0.95)
        assert facts["clustered p"].startswith(f"{estimate.p:.3g} (8 databases as drawn at random; ")
        assert facts["clustered p"].endswith(" df 7.0)")
        assert facts["exact McNemar p"].startswith(f"{mcnemar(20, 0):.3g} (questions as independent)")
        assert f"interval {100 * estimate.low:+.2f} to {100 * estimate.high:+.2f}" in facts["difference B - A"]
        assert words.startswith(f"{verdict}: ") and f"probability {estimate.p:.3g} " in words
        assert (estimate.low > 0) == (verdict != "No difference is shown")


def test_compare_of_few_databases_is_about_these(folder, capsys):
    facts, words = compared(folder, capsys, [0] * 40, [1] * 10 + [0] * 30, ("shop", "zoo"))
    assert facts["clustered p"].startswith(f"{clustered_difference([1] * 10 + [0] * 30, [1] * 40, 0.95).p:.3g} (40 q")
    assert words.startswith("B is better than A: ")
    assert words.endswith("This is about questions on shop, zoo, and says nothing of other databases.")


def test_compare_of_published_answers_is_not_sure_of_what_mcnemar_is_sure_of(shared_data, tmp_path, capsys):
    """A base model's answers and those of another's LoRA adapter, on Spider dev without the database that is empty."""
    with (shared_data / "ribeiro/baseline_results.csv").open(encoding="utf-8", newline="") as stream:
        base = [row for row in csv.DictReader(stream) if row["db_id"] != "wta_1"]
    lines = (shared_data / "predictions/dbgpt_hub_lora.jsonl").read_text(encoding="utf-8").splitlines()
    tuned = [row for row in map(json.loads, lines) if row["db_id"] != "wta_1"]
    assert [row["db_id"] for row in base] == [row["db_id"] for row in tuned]
    questions = [{"db_id": row["db_id"], "query": row["gold"]} for row in tuned]
    (tmp_path / "dev.json").write_text(json.dumps(questions), encoding="utf-8")
    with zipfile.ZipFile(shared_data / "spider/spider_data.zip") as archive:
        for db_id in {row["db_id"] for row in tuned}:
            archive.extract(f"spider_data/database/{db_id}/{db_id}.sqlite", tmp_path)
    (tmp_path / "spider_data/database").rename(tmp_path / "database")
    for name, answers in (
        ("base", [row["predicted_sql"] for row in base]),
        ("tuned", [row["pred"] for row in tuned]),
    ):
        text = "".join(json.dumps({"sql": answer}) + "\n" for answer in answers)
        assert score(tmp_path, f"{name}.jsonl", text, "--out", tmp_path / f"{name}.csv") == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "base.csv"), str(tmp_path / "tuned.csv")]) == 0
    out = capsys.readouterr().out
    assert "972 questions, bag" in out
    assert re.search(r"^exact McNemar p +5.9e-12 ", out, re.MULTILINE)
    assert re.search(r"^clustered p +0.0853 \(19 databases as drawn at random; ", out, re.MULTILINE)
    assert "No difference is shown: " in out


def test_compare_takes_any_semantics_and_the_workflows_records(folder, capsys):
    write_records(folder / "a.csv", [0] * 20, first="id", names=("bag", "test_suite_raw"))
    write_records(folder / "b.csv", [1] * 20, first="id", names=("bag", "test_suite_raw"))
    arguments = [str(folder / "a.csv"), str(folder / "b.csv"), "--semantics", "test_suite_raw"]
    assert main(["compare", *arguments]) == 0
    assert "20 questions, test_suite_raw" in capsys.readouterr().out


def test_compare_refuses(folder, capsys):
    write_records(folder / "a.csv", [1, 0, 1])
    write_records(folder / "short.csv", [1, 0])
    write_records(folder / "other.csv", [1, 0, 1], names=("set",))
    write_records(folder / "two.csv", [1, 0, 2])
    (folder / "empty.csv").write_text("index,db_id,bag\n")
    (folder / "twice.csv").write_text("index,db_id,bag\n1,zoo,1\n1,zoo,1\n")
    (folder / "bytes.csv").write_bytes(b"index,db_id,bag\n\xff,zoo,1\n")
    for name, message in {
        "short.csv": "not the same questions; 1 are only in the first and 0 only in the second, such as 2 (zoo)",
        "other.csv": "other.csv: has no column bag",
        "two.csv": "line 4, bag: found '2', expected 0 or 1",
        "empty.csv": "has no records",
        "twice.csv": "line 3: index 1 comes twice",
        "bytes.csv": "bytes.csv: not UTF-8",
        "none.csv": "No such file",
    }.items():
        assert main(["compare", str(folder / "a.csv"), str(folder / name)]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1


def test_what_score_writes_compare_reads(folder, capsys):
    assert score(folder, "p.txt", "\n".join(PREDICTIONS), "--out", folder / "a.csv") == 0
    assert score(folder, "g.txt", "\n".join(row[1] for row in ROWS), "--out", folder / "b.csv") == 0
    capsys.readouterr()
    assert main(["compare", str(folder / "a.csv"), str(folder / "b.csv"), "--semantics", "ordered"]) == 0
    out = capsys.readouterr().out
    assert "6 questions, ordered" in out and "+50.00 pp" in out and "No difference is shown" in out


@pytest.mark.parametrize("command", ["score", "compare"])
def test_help_has_examples(capsys, command):
    with pytest.raises(SystemExit) as found:
        main([command, "--help"])
    assert found.value.code == 0
    assert f"python -m custom_metrics {command}" in capsys.readouterr().out.split("examples:")[1]


def test_nothing_of_deepeval_is_needed(folder):
    (folder / "deepeval.py").write_text("raise ImportError('not installed')")
    (folder / "p.txt").write_text("\n".join(PREDICTIONS), encoding="utf-8")
    done = run(folder, "score", "p.txt", "--questions", "dev.json", "--databases", "database")
    assert done.returncode == 0, done.stderr


def test_the_report_of_a_set_without_flags_and_hard_questions():
    record = dict.fromkeys(RECORD_COLUMNS, 1) | {"flags": "", "hardness": "easy", "error_class": "ok"}
    text = report([record], "set")
    assert "set *" in text and "peculiar" not in text
    assert next(line for line in text.splitlines() if line.startswith("extra")).split() == ["extra", "0", "0"]


def test_the_table_of_the_readme_is_true():
    text = (ROOT / "custom_metrics" / "README.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    names = next(row for row in rows if row[0] == "gold")[2:]
    examples = [row for row in rows if row[0].startswith("`SELECT")]
    assert set(names) == set(SEMANTICS) and len(examples) == 6
    database = ROOT / "resources/demo/spider_data/database/theater/theater.sqlite"
    for gold, prediction, *expected in examples:
        verdict = judge(database, gold.strip("`"), prediction.strip("`"))
        assert ["yes" if verdict.correct[name] else "\N{EN DASH}" for name in names] == expected, (gold, prediction)
