"""Spider 2 lite's questions on SQLite: its rule against pandas, its layout, and what is wrong with files."""

import csv
import json
import math
import shutil
import sqlite3
from contextlib import closing

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from custom_metrics import results
from custom_metrics.cli import main
from custom_metrics.judge import Judge
from custom_metrics.results import Results, in_one_table, typed
from custom_metrics.spider2 import RESULTS as EXEC_RESULT
from custom_metrics.spider2 import STANDARDS, read_table, read_tasks

# What cells of CSV files look like: numbers at the tolerance, numbers as texts, and what pandas takes for missing.
TEXTS = [
    "", "NA", "None", "nan", "null", "NaN ", "1", "1.0", "1.01", "1.009", "1.0101", "0.99", "2", "10", "-3", "+5",
    "007", " 7", "7 ", "\t8", "1e3", "1E-2", ".5", "5.", "1e", "1_0", "1,000", "0x10", "inf", "-Infinity", "True",
    "false", "TRUE", "yes", "a", "A", "a b", "2024-01-05", "9223372036854775807",
    "10000000000000000", "10000000000.5", "10000000009", "x\ny", 'say "hi"', " ", "\u0661", "1e400",
]  # fmt: skip
VALUES = [
    None, 0, 0.01, 1, 2, 10, -3, 10**16, 2**62, 1.0, 1.01, 1.009, 1.0101, 0.99, 2.5, 1e16, 10000000000.5, math.inf,
    "", "NA", "1", "1.0", "01", " 7", "True", "a", "A", "x,y", 'say "hi"', "x\ny", " ", b"ab", "None",
]  # fmt: skip


def plain(column):
    """Missing values as None; types stay."""
    return [None if not isinstance(cell, str) and pd.isna(cell) else cell for cell in column]


def alike(column, other):
    return [(type(cell), cell) for cell in column] == [(type(cell), cell) for cell in other]


def columns_of(frame):
    return frame.T.to_numpy().tolist()


def official(predicted, golds, condition_cols, ignore_order):
    """The rule once more, on pandas' own tables: any gold, every column of it, somewhere in the prediction."""

    def arranged(column):
        return sorted(column, key=lambda cell: (str(cell), isinstance(cell, int | float))) if ignore_order else column

    def same(pair):
        one, other = pair
        if pd.isna(one) or pd.isna(other):
            return pd.isna(one) and pd.isna(other)
        if isinstance(one, int | float) and isinstance(other, int | float):
            return math.isclose(one, other, abs_tol=0.01)
        return one == other

    nested = len(golds) > 1 and condition_cols and all(isinstance(one, list) for one in condition_cols)
    for index, gold in enumerate(golds):
        places = condition_cols[index] if nested else condition_cols
        chosen = gold.iloc[:, places] if places else gold
        there = [arranged(column) for column in columns_of(predicted)]
        if all(
            any(len(one) == len(other) and all(map(same, zip(one, other, strict=True))) for other in there)
            for one in map(arranged, columns_of(chosen))
        ):
            return True
    return False


def as_predicted(rows, path, width):
    """What the evaluator reads: rows of SQLite by pandas, in pieces, to a CSV file and back."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE t ({', '.join(f'c{i}' for i in range(width))})")
        connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * width)})", rows)
        pieces = pd.read_sql_query("SELECT * FROM t", connection, chunksize=results.PIECE)
        for number, piece in enumerate(pieces):
            piece.to_csv(path, mode="a" if number else "w", header=not number, index=False)
    return pd.read_csv(path)


def write_table(path, rows, width):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([[f"c{i}" for i in range(width)], *rows])


def tables(cells, most_rows=5):
    """Rows of one to three columns, each column from few values so that columns meet."""

    def of_width(width):
        return st.lists(st.tuples(*[cells] * width), max_size=most_rows).map(lambda rows: (width, rows))

    return st.integers(1, 3).flatmap(of_width)


@settings(max_examples=250, deadline=None)
@given(tables(st.sampled_from(TEXTS)), st.data())
def test_a_csv_file_has_the_types_that_pandas_gives_it(tmp_path_factory, table, data):
    width, rows = table
    # All alike more often than chance has it.
    if data.draw(st.booleans()) and rows:
        few = data.draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=2))
        rows = [tuple(few[(i + j) % len(few)] for j in range(width)) for i in range(len(rows))]
    path = tmp_path_factory.mktemp("table") / "t.csv"
    write_table(path, rows, width)
    frame, found = pd.read_csv(path), read_table(path)
    assert len(found) == width
    for column, name in zip(found, frame.columns, strict=True):
        assert alike(column, plain(frame[name].tolist())), (rows, column, frame[name].tolist())
    if rows:
        for column, other in zip(in_one_table(found), columns_of(frame), strict=True):
            assert alike(column, plain(other))


def test_whole_numbers_of_more_than_64_bits_are_floats():
    assert alike(typed([str(2**63 - 1), str(-(2**63))]), [2**63 - 1, -(2**63)])
    assert alike(typed([str(2**63), "1"]), [2.0**63, 1.0])
    assert alike(typed(["9" * 5000, ""]), [math.inf, None])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_rule_agrees_with_pandas(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("rule")
    pool = data.draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=4))
    width, rows = data.draw(tables(st.sampled_from(pool), most_rows=8))
    predicted = as_predicted(rows, folder / "p.csv", width)
    golds, paths = [], []
    for name in range(data.draw(st.integers(1, 2))):
        path = folder / f"g{name}.csv"
        if data.draw(st.integers(0, 3)):
            # Made of the prediction: some of its columns, its rows in any order, some numbers a little off.
            chosen = data.draw(st.lists(st.integers(0, width - 1), min_size=1, max_size=3))
            texts = list(zip(*[results.written(rows)[place] for place in chosen], strict=True)) if rows else []
            texts = data.draw(st.permutations(texts)) if data.draw(st.booleans()) else texts
            off = data.draw(st.sampled_from(["1.0", "1", "1.01", "0.99", "1.0101", "NA", "a", "0.01"]))
            if data.draw(st.booleans()):
                texts = [tuple(off if text in ("0", "1", "1.0", "") else text for text in row) for row in texts]
            write_table(path, texts, len(chosen))
        else:
            wide, texts = data.draw(tables(st.sampled_from(TEXTS), most_rows=3))
            write_table(path, texts, wide)
        golds.append(pd.read_csv(path))
        paths.append(path)
    read = [read_table(path) for path in paths]
    one = st.lists(st.integers(0, min(len(table) for table in read) - 1), unique=True, max_size=2)
    condition_cols = data.draw(one)
    if len(read) > 1 and data.draw(st.booleans()):
        condition_cols = [data.draw(one) for _ in read]
    nested = bool(condition_cols) and isinstance(condition_cols[0], list)
    ignore_order = data.draw(st.booleans())
    ours = Results(read, condition_cols if nested else [condition_cols] * len(read), ignore_order).judge(rows)
    assert ours.correct["spider2"] == official(predicted, golds, condition_cols, ignore_order)
    assert (ours.error_class == "ok") == ours.correct["spider2"]


@settings(max_examples=100, deadline=None)
@given(tables(st.sampled_from(VALUES), most_rows=9))
def test_rows_are_written_in_pieces_as_pandas_does(tmp_path_factory, table):
    width, rows = table
    assume(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "PIECE", 3)
        frame = as_predicted(rows, tmp_path_factory.mktemp("pieces") / "p.csv", width)
        found = [typed(column) for column in results.written(rows)]
    for column, name in zip(found, frame.columns, strict=True):
        assert alike(column, plain(frame[name].tolist())), (rows, column, frame[name].tolist())


@pytest.mark.parametrize(
    ("gold", "counted", "ignore_order", "predicted", "expected"),
    [
        ([[1, 2]], [], False, [(1.009,), (1.991,)], True),
        ([[0]], [], False, [(0.01,)], True),
        ([[1, 2]], [], False, [(1.01,), (2,)], False),  # as doubles, a little more than a hundredth apart
        ([[1, 2]], [], False, [(1.02,), (2,)], False),
        ([[100.0]], [], False, [("100",)], True),  # a text of digits is a number once it is re-read
        ([["a", "b"]], [], False, [("b",), ("a",)], False),
        ([["a", "b"]], [], True, [("b",), ("a",)], True),
        ([["a", "b"], [1, 2]], [], True, [("b", 1), ("a", 2)], True),  # columns are sorted by themselves
        ([["a"], [7]], [0], False, [("a", 8)], True),  # only the first column counts
        ([["a"], [7]], [], False, [("a", 8)], False),
        ([["a"]], [], False, [(5, "x", "a")], True),
        ([[1], [1]], [], False, [(1,)], True),  # one predicted column may be two of the gold's
        ([[None, 1.0]], [], False, [(None,), (1,)], True),
        ([[None]], [], False, [("None",)], True),
        ([[]], [], False, [], True),
        ([["a"]], [], False, [], False),
        ([[]], [], False, [("a",)], False),
    ],
)
def test_the_rule(gold, counted, ignore_order, predicted, expected):
    assert Results([gold], [counted], ignore_order).judge(predicted).correct["spider2"] is expected


def test_the_usual_semantics_compare_rows_as_they_are_read_again():
    gold = Results([[["b", "a"], [2.0, 1.0]], [["x"], [9]]], [[], []], True)
    found = gold.judge([("a", 1), ("b", "2.0")])
    assert found.correct == dict.fromkeys(("set", "bag", "ordered", "columns_any_order", "spider2"), True)
    ordered = Results(gold.tables, gold.counted, False)
    found = ordered.judge([("a", 1), ("b", 2)])
    assert [found.correct[name] for name in ("bag", "ordered", "spider2")] == [True, False, False]
    assert (found.error_class, found.gold_rows) == ("wrong_order_only", 2)
    # The second result is enough.
    assert ordered.judge([("x", 9)]).correct["ordered"]
    assert ordered.judge([("x", 9)]).gold_rows == 1


@pytest.fixture
def lite(tmp_path):
    """Spider 2's layout with four questions on SQLite, one of them not judged, and one on BigQuery."""
    root = tmp_path / "spider2-lite"
    (root / EXEC_RESULT).mkdir(parents=True)
    names = {"local001": "music", "local002": "music", "local003": "Zoo-1", "local004": "music", "bq001": "ga4"}
    lines = [{"instance_id": name, "db": db, "question": "?", "external_knowledge": None} for name, db in names.items()]
    (root / "spider2-lite.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    standard(root, "local001", [], True)
    standard(root, "bq001", [[0], [1]], False)
    standard(root, "local002", [[1], []], False)
    standard(root, "local003", [0], False)
    for name, text in {
        "local001": "name,age\nB,2\nA,1\n",
        "local002_a": "n,mean\n7,1.5\n",
        "local002_b": "mean\n9.0\n",
        "local003": "name,no\ncat,5\n\ndog,\n",
        "local0010": "x\n1\n",
        "bq001": "x\n1\n",
    }.items():
        (root / EXEC_RESULT / f"{name}.csv").write_text(text, encoding="utf-8")
    (tmp_path / "db").mkdir()
    for name, script in {
        "music": "CREATE TABLE singer (name TEXT, age INT); INSERT INTO singer VALUES ('A', 1), ('B', 2);",
        "Zoo-1": "CREATE TABLE animal (id INT, name TEXT); INSERT INTO animal VALUES (1, 'cat'), (2, 'dog');",
    }.items():
        with closing(sqlite3.connect(tmp_path / "db" / f"{name}.sqlite")) as connection:
            connection.executescript(script)
    (tmp_path / "answers").mkdir()
    for name, text in {
        "local001": "SELECT age, name FROM singer\n",
        "local002": "The query is:\n```sql\nSELECT avg(age) FROM singer\n```\n",
        "local004": "SELECT 1",
        "bq001": "SELECT 1",
    }.items():
        (tmp_path / "answers" / f"{name}.sql").write_text(text, encoding="utf-8")
    return tmp_path


def standard(root, name, condition_cols, ignore_order):
    row = {"instance_id": name, "condition_cols": condition_cols, "ignore_order": ignore_order, "toks": "1"}
    with (root / STANDARDS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def score(folder, *arguments, answers="answers", databases="db"):
    places = [folder / answers, "--questions", folder / "spider2-lite", "--databases", folder / databases]
    return main(["score", *map(str, places), "--jobs", "1", *map(str, arguments)])


def records(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return {row["instance_id"]: row for row in csv.DictReader(stream)}


def test_a_submission_is_scored(lite, capsys):
    assert score(lite, "--out", lite / "a.csv", "--min-accuracy", "70") == 1
    shown = capsys.readouterr()
    assert "1 of 3 questions have no answer and count as wrong" in shown.err
    assert "spider2 accuracy 66.67% is below 70%" in shown.err
    assert "spider2 *" in shown.out and "test_suite" not in shown.out and "hardness" not in shown.out
    found = records(lite / "a.csv")
    assert list(found) == ["local001", "local002", "local003"]
    assert [row["error_class"] for row in found.values()] == ["ok", "ok", "missing"]
    first = found["local001"]
    assert (first["spider2"], first["bag"], first["columns_any_order"]) == ("1", "0", "1")
    assert (first["test_suite"], first["hardness"], first["gold_rows"]) == ("", "", "2")

    (lite / "answers" / "local003.sql").write_text("SELECT id, name FROM animal", encoding="utf-8")
    assert score(lite, "--out", lite / "b.csv") == 0
    # The second is right by the first of its results, in which only the second column counts.
    found = records(lite / "b.csv")
    assert {name: (row["spider2"], row["spider2_raw"]) for name, row in found.items()} == {
        "local001": ("1", "1"),
        "local002": ("1", "0"),
        "local003": ("1", "1"),
    }
    capsys.readouterr()
    names = [str(lite / name) for name in ("a.csv", "b.csv")]
    assert main(["compare", *names, "--semantics", "spider2"]) == 0
    assert "3 questions, spider2" in capsys.readouterr().out


def test_answers_in_a_file_are_matched_by_their_instance_id(lite):
    rows = [("local003", "SELECT name FROM animal"), ("local001", "SELECT * FROM singer"), ("local002", "SELECT 9.0")]
    lines = [json.dumps({"instance_id": name, "answer": sql}) for name, sql in rows]
    (lite / "answers.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert score(lite, "--out", lite / "a.csv", answers="answers.jsonl") == 0
    assert [row["spider2"] for row in records(lite / "a.csv").values()] == ["1", "1", "1"]


def test_gold_results_from_python(lite):
    questions, golds = read_tasks(lite / "spider2-lite")
    assert [question.id for question in questions] == ["local001", "local002", "local003"]
    database = lite / "db" / "music.sqlite"
    with Judge(timeout_s=5) as judge:
        verdict = judge.judge(database, golds[0], "SELECT name, age FROM absent")
        again = judge.judge_all(
            [(database, golds[0], "SELECT name, age FROM singer"), (database, "SELECT 1", "SELECT 1")]
        )
    assert (verdict.error_class, verdict.predicted_rows, verdict.gold_rows) == ("no_such_table", None, 2)
    assert not any(verdict.correct.values()) and "test_suite" not in verdict.correct
    assert again[0].correct["spider2"] and again[1].correct["test_suite"]
    with Judge(further=["close"]) as judge, pytest.raises(ValueError, match="neither previews nor further"):
        judge.judge(database, golds[0], "SELECT 1")


def spoil(name, text):
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def add(*row):
    return lambda folder: standard(folder / "spider2-lite", *row)


EXEC = f"spider2-lite/{EXEC_RESULT}"


@pytest.mark.parametrize(
    ("spoiled", "options", "said"),
    [
        (lambda folder: (folder / EXEC / "local003.csv").unlink(), (), "has neither local003.csv nor local003_a.csv"),
        (spoil("answers/local999.sql", "SELECT 1"), (), "found instance_id local999, which is not in"),
        (add("local999", [], True), (), "found instance_id local999, which is not in"),
        (add("local001", [], True), (), "line 5: instance_id local001 comes twice"),
        (lambda folder: (folder / "db/Zoo-1.sqlite").unlink(), (), "no <db>.sqlite for 1 of 2 databases that the q"),
        (add("local004", [], "yes"), (), "has neither local004.csv"),
        (spoil(f"{EXEC}/local003.csv", "a,b\n1,2,3\n"), (), "local003.csv, line 2: has more cells than the 2"),
        (spoil(f"{EXEC}/local003.csv", ""), (), "local003.csv: is empty, expected a header"),
        (spoil(f"{EXEC}/local003.csv", 'a,b\n"1,2\n'), (), "local003.csv, line 2: not valid CSV"),
        (
            spoil(f"{EXEC}/local002_c.csv", "a\n1\n"),
            (),
            "local002, condition_cols: found 2 lists, expected one for each",
        ),
        (
            spoil(f"{EXEC}/local002_a.csv", "a\n1\n"),
            (),
            "found [1], expected a list of columns of local002_a.csv, 0 to 0",
        ),
        (spoil("spider2-lite/spider2-lite.jsonl", '{"instance_id": "local001"}'), (), "line 1: local001 has no db"),
        (spoil(f"spider2-lite/{STANDARDS}", "[1]"), (), "line 1: expected an object with instance_id"),
        (spoil(f"spider2-lite/{STANDARDS}", ""), (), "has no question on SQLite"),
        (
            lambda folder: shutil.rmtree(folder / EXEC),
            (),
            "exec_result: no such folder; expected one with <instance_id>",
        ),
        (lambda folder: (folder / "spider2-lite/spider2-lite.jsonl").unlink(), (), "spider2-lite.jsonl: No such file"),
        (lambda folder: [file.unlink() for file in (folder / "answers").iterdir()], (), "has no <instance_id>.sql of"),
        (lambda folder: None, ("--semantics", "test_suite"), "--semantics test_suite: has no meaning here, expected"),
        (lambda folder: None, ("--further", "close"), "--suite and --further mean nothing"),
        (lambda folder: None, ("--out", "absent/a.csv"), "there is no folder absent"),
    ],
)
def test_bad_input_is_named(lite, capsys, spoiled, options, said):
    spoiled(lite)
    assert score(lite, *options) == 2
    assert said in capsys.readouterr().err


def test_ignore_order_is_true_or_false(lite, capsys):
    (lite / EXEC / "local004.csv").write_text("a\n1\n", encoding="utf-8")
    standard(lite / "spider2-lite", "local004", None, "yes")
    assert score(lite) == 2
    assert "local004, ignore_order: found 'yes', expected true or false" in capsys.readouterr().err


def test_the_rule_of_spider2_needs_its_folder(lite, capsys):
    (lite / "dev.json").write_text('[{"db_id": "music", "query": "SELECT 1"}]', encoding="utf-8")
    options = ["--questions", str(lite / "dev.json"), "--databases", str(lite / "db"), "--semantics", "spider2"]
    assert main(["score", str(lite / "dev.json"), *options]) == 2
    assert "--semantics spider2: has no meaning here" in capsys.readouterr().err
