import asyncio
import csv
import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from custom_metrics.execution_accuracy import ExecutionAccuracy
from custom_metrics.judge import GoldError, judge

# isort: split
from deepeval import assert_test
from deepeval.metrics.utils import copy_metrics
from deepeval.test_case import LLMTestCase

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "music.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE singer (id INTEGER, name TEXT, age INTEGER);"
        "INSERT INTO singer VALUES (1, 'Ana', 30), (2, 'Bo', 40), (3, 'Cy', 40);"
    )
    connection.close()
    return path


def case(answer, gold="SELECT name FROM singer", **kwargs):
    return LLMTestCase(input="Names of singers?", actual_output=answer, expected_output=gold, **kwargs)


# The text-to-SQL test of a project that uses the metric: one case a question, through DeepEval's own assertion.
@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("SELECT name FROM singer ORDER BY age DESC", "SELECT name FROM singer"),
        ("```sql\nSELECT count(*) FROM singer;\n```", "SELECT 3"),
        ("SELECT avg(age) FROM singer WHERE name = 'Ana'", "SELECT age FROM singer WHERE id = 1"),
    ],
)
@pytest.mark.parametrize("run_async", [False, True])
def test_text_to_sql(database, monkeypatch, answer, gold, run_async):
    monkeypatch.setenv("DEEPEVAL_FILE_SYSTEM", "READ_ONLY")
    assert_test(case(answer, gold), [ExecutionAccuracy(database=database)], run_async=run_async)


def test_a_wrong_answer_fails_the_assertion(database, monkeypatch):
    monkeypatch.setenv("DEEPEVAL_FILE_SYSTEM", "READ_ONLY")
    with pytest.raises(AssertionError, match="Execution Accuracy"):
        assert_test(case("SELECT id FROM singer"), [ExecutionAccuracy(database=database)], run_async=False)


def test_right(database):
    metric = ExecutionAccuracy(database=database)
    assert not metric.is_successful()
    score = metric.measure(case("SELECT name FROM singer ORDER BY 1 DESC"))
    assert isinstance(score, float)
    assert (score, metric.score, metric.success, metric.is_successful(), metric.error) == (1.0, 1.0, True, True, None)
    assert metric.reason
    assert metric.__name__ == "Execution Accuracy"


@pytest.mark.parametrize(
    ("answer", "error_class", "word"),
    [
        ("SELECT name FROM singer WHERE id < 3", "wrong_result", "2 rows, gold has 3"),
        ("SELECT absent FROM singer", "no_such_column", "no such column: absent"),
        ("DROP TABLE singer", "denied", "not authorized"),
        ("I do not know", "not_sql", "syntax error"),
        ("", "empty", "no SQL"),
    ],
)
def test_wrong_is_a_score_and_no_exception(database, answer, error_class, word):
    metric = ExecutionAccuracy(database=database)
    assert metric.measure(case(answer)) == 0.0
    assert (metric.score, metric.success, metric.is_successful(), metric.error) == (0.0, False, False, None)
    assert metric.verdict.error_class == error_class
    assert word in metric.reason


def test_async_gives_the_same(database):
    metric = ExecutionAccuracy(database=database)
    assert asyncio.run(metric.a_measure(case("SELECT name FROM singer"))) == 1.0
    assert asyncio.run(metric.a_measure(case("SELECT id FROM singer"))) == 0.0
    assert metric.success is False


def test_a_timeout_is_a_zero(database):
    metric = ExecutionAccuracy(database=database, timeout_s=0.2)
    answer = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n"
    assert metric.measure(case(answer)) == 0.0
    assert metric.verdict.error_class == "timeout"


def test_the_database_may_come_with_the_case(database):
    metric = ExecutionAccuracy()
    assert metric.measure(case("SELECT name FROM singer", metadata={"database": str(database)})) == 1.0
    with pytest.raises(ValueError, match="No database"):
        metric.measure(case("SELECT 1"))
    assert metric.score is None
    assert not metric.is_successful()


def test_errors_in_the_data_are_not_the_models_fault(database, tmp_path):
    with pytest.raises(GoldError, match=r"music\.sqlite.*no_such_column.*SELECT absent FROM singer"):
        ExecutionAccuracy(database=database).measure(case("SELECT 1", gold="SELECT absent FROM singer"))
    with pytest.raises(FileNotFoundError):
        ExecutionAccuracy(database=tmp_path / "none.sqlite").measure(case("SELECT 1"))
    with pytest.raises(ValueError, match="expected_output"):
        ExecutionAccuracy(database=database).measure(LLMTestCase(input="?", actual_output="SELECT 1"))


def test_threshold_and_copies(database):
    metric = ExecutionAccuracy(database=database, threshold=0.0, timeout_s=3)
    metric.measure(case("SELECT 1"))
    assert metric.is_successful()
    (copy,) = copy_metrics([metric])
    assert (copy.database, copy.threshold, copy.timeout_s) == (database, 0.0, 3)


def test_raw_and_extracted_are_told_apart(database):
    verdict = judge(database, "SELECT count(*) FROM singer", "Here is the SQL:\nSELECT 3")
    assert (verdict.sql, verdict.correct, verdict.correct_raw) == ("SELECT 3", True, False)
    verdict = judge(database, "SELECT count(*) FROM singer", "SELECT 3;")
    assert (verdict.sql, verdict.correct, verdict.correct_raw) == ("SELECT 3", True, True)


def test_a_changed_database_is_read_again(database):
    assert judge(database, "SELECT count(*) FROM singer", "SELECT 3").correct
    connection = sqlite3.connect(database)
    connection.execute("DELETE FROM singer")
    connection.commit()
    connection.close()
    os.utime(database, ns=(1, 1))
    assert not judge(database, "SELECT count(*) FROM singer", "SELECT 3").correct


def test_importing_and_measuring_is_offline_and_leaves_no_files(database, tmp_path):
    folder = tmp_path / "empty"
    home = tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    (folder / ".env").write_text("CONFIDENT_API_KEY=secret\n")
    program = f"""
import socket, sys
def refuse(*args): raise AssertionError(("network", args))
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
sys.path.insert(0, {str(ROOT)!r})
from custom_metrics.execution_accuracy import ExecutionAccuracy
from deepeval.test_case import LLMTestCase
import os
assert "CONFIDENT_API_KEY" not in os.environ
metric = ExecutionAccuracy({str(database)!r})
assert metric.measure(LLMTestCase(input="?", actual_output="SELECT 1", expected_output="SELECT 1")) == 1.0
assert "torch" not in sys.modules
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DEEPEVAL", "CONFIDENT"))} | {
        "HOME": str(home)
    }
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == [".env"]
    assert list(home.iterdir()) == []


@pytest.fixture(scope="module")
def spider(shared_data, tmp_path_factory):
    """Spider's dev questions and their databases, from the real archive."""
    folder = tmp_path_factory.mktemp("spider")
    with zipfile.ZipFile(shared_data / "spider/spider_data.zip") as archive:
        dev = json.loads(archive.read("spider_data/dev.json"))
        for name in {f"spider_data/database/{row['db_id']}/{row['db_id']}.sqlite" for row in dev}:
            archive.extract(name, folder)
    return dev, folder / "spider_data/database"


def test_every_gold_query_of_spider_dev_is_right(spider):
    dev, databases = spider
    verdicts = [judge(databases / f"{d['db_id']}/{d['db_id']}.sqlite", d["query"], d["query"]) for d in dev]
    assert sum(v.correct for v in verdicts) == sum(v.correct_raw for v in verdicts) == 1034


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("baseline_results", 421),
        ("mistral-sql-lora-v3-predictions", 419),
        ("mistral-sql-lora-v4-predictions", 362),
    ],
)
def test_published_predictions_score_as_published(spider, shared_data, name, right):
    _, databases = spider
    with (shared_data / f"ribeiro/{name}.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["db_id"] != "wta_1"]
    assert len(rows) == 972
    verdicts = [judge(databases / f"{r['db_id']}/{r['db_id']}.sqlite", r["gold_sql"], r["predicted_sql"]) for r in rows]
    assert sum(v.correct_raw for v in verdicts) == right
    if "execution_accuracy" in rows[0]:
        assert [v.correct_raw for v in verdicts] == [row["execution_accuracy"] == "MATCH" for row in rows]
