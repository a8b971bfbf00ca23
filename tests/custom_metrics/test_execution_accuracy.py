"""The DeepEval metric, through DeepEval's own entry points; and published predictions on the real Spider."""

import asyncio
import csv
import inspect
import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from custom_metrics.execution_accuracy import ExecutionAccuracy
from custom_metrics.judge import SEMANTICS, GoldError, Judge

# isort: split
from deepeval import assert_test, evaluate
from deepeval.errors import MissingTestCaseParamsError
from deepeval.evaluate.configs import AsyncConfig, CacheConfig, DisplayConfig, ErrorConfig
from deepeval.metrics import JsonCorrectnessMetric
from deepeval.metrics.utils import copy_metrics
from deepeval.test_case import LLMTestCase

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n"


@pytest.fixture
def database(tmp_path, monkeypatch):
    # DeepEval writes its cache into the working folder; in read-only mode it should not.
    monkeypatch.setenv("DEEPEVAL_FILE_SYSTEM", "READ_ONLY")
    monkeypatch.chdir(tmp_path)
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
def test_text_to_sql(database, answer, gold, run_async):
    assert_test(case(answer, gold), [ExecutionAccuracy(database=database)], run_async=run_async)


@pytest.mark.parametrize("run_async", [False, True])
def test_a_wrong_answer_fails_the_assertion(database, run_async):
    with pytest.raises(AssertionError, match=r"Execution Accuracy \(score: 0.0, .* no such column: absent"):
        assert_test(case("SELECT absent FROM singer"), [ExecutionAccuracy(database=database)], run_async=run_async)


@pytest.mark.parametrize("run_async", [False, True])
def test_evaluate_scores_all_cases(database, run_async):
    answers = ["SELECT name FROM singer", "DROP TABLE singer", "SELECT id FROM singer", ""] * 5
    cases = [case(answer, name=f"{index:02}") for index, answer in enumerate(answers)]
    metrics = [ExecutionAccuracy(database=database), ExecutionAccuracy(database=database, semantics="set")]
    result = evaluate(
        cases,
        metrics,
        async_config=AsyncConfig(run_async=run_async),
        display_config=DisplayConfig(show_indicator=False, print_results=False),
        cache_config=CacheConfig(write_cache=False),
    )
    # DeepEval gives results in the order in which they came.
    results = sorted(result.test_results, key=lambda r: r.name)
    found = [[(data.name, data.score, data.success, data.error) for data in r.metrics_data] for r in results]
    names = ("Execution Accuracy", "Execution Accuracy (set)")
    assert found == [[(name, s, s == 1, None) for name in names] for s in [1.0, 0.0, 0.0, 0.0] * 5]


def test_an_error_in_the_data_has_no_score_where_deepeval_goes_on(database):
    result = evaluate(
        [case("SELECT 1", gold="SELECT absent FROM singer")],
        [ExecutionAccuracy(database=database)],
        async_config=AsyncConfig(run_async=False),
        display_config=DisplayConfig(show_indicator=False, print_results=False),
        cache_config=CacheConfig(write_cache=False),
        error_config=ErrorConfig(ignore_errors=True),
    )
    (data,) = result.test_results[0].metrics_data
    assert (data.score, data.success) == (None, False)
    assert "the gold query fails" in data.error


def test_right(database):
    metric = ExecutionAccuracy(database=database)
    assert not metric.is_successful()
    score = metric.measure(case("SELECT name FROM singer ORDER BY 1 DESC"))
    assert isinstance(score, float)
    assert (score, metric.score, metric.success, metric.is_successful(), metric.error) == (1.0, 1.0, True, True, None)
    assert metric.reason == "The rows are those of the gold query (bag)."
    assert metric.__name__ == "Execution Accuracy"


@pytest.mark.parametrize(
    ("answer", "error_class", "words"),
    [
        ("SELECT name FROM singer WHERE id < 3", "wrong_rows", "2 rows, gold has 3"),
        ("SELECT absent FROM singer", "no_such_column", "no such column: absent"),
        ("DROP TABLE singer", "forbidden", "not authorized"),
        ("I do not know", "no_sql", "does not run"),
        ("", "no_sql", "does not run"),
        ("SELECT '\x00\ud800' FROM", "syntax_error", "does not run"),
    ],
)
def test_wrong_is_a_score_and_no_exception(database, answer, error_class, words):
    metric = ExecutionAccuracy(database=database)
    assert metric.measure(case(answer)) == 0.0
    assert (metric.score, metric.success, metric.is_successful(), metric.error) == (0.0, False, False, None)
    assert metric.verdict.error_class == error_class
    assert error_class in metric.reason
    assert words in metric.reason


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("SELECT age FROM singer", "SELECT DISTINCT age FROM singer", {"set", "test_suite"}),
        ("SELECT name FROM singer ORDER BY 1", "SELECT name FROM singer ORDER BY 1 DESC", {"set", "bag"}),
        ("SELECT name, age FROM singer", "SELECT age, name FROM singer", {"test_suite", "columns_any_order"}),
    ],
)
def test_semantics_decide_and_are_all_kept(database, gold, answer, right):
    for name in SEMANTICS:
        metric = ExecutionAccuracy(database=database, semantics=name)
        metric.measure(case(answer, gold))
        assert {key for key, score in metric.score_breakdown.items() if score} == right | (
            {"columns_any_order"} if "bag" in right else set()
        )
        assert metric.score == metric.score_breakdown[name]
        assert metric.success == (metric.score == 1.0)
        assert name in metric.reason or not metric.score
    with pytest.raises(ValueError, match="semantics: found 'bags', expected one of set, bag, ordered"):
        ExecutionAccuracy(semantics="bags")


def test_a_wrong_order_is_told(database):
    metric = ExecutionAccuracy(database=database, semantics="ordered")
    assert metric.measure(case("SELECT id FROM singer ORDER BY 1 DESC", "SELECT id FROM singer ORDER BY 1")) == 0.0
    assert "as a bag, but not under ordered" in metric.reason


def test_async_gives_the_same_and_lets_others_work(database):
    metric = ExecutionAccuracy(database=database, timeout_s=0.5)
    assert asyncio.run(metric.a_measure(case("SELECT name FROM singer"))) == 1.0

    async def measure_and_tick():
        task = asyncio.create_task(metric.a_measure(case(ENDLESS)))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return await task, ticks

    score, ticks = asyncio.run(measure_and_tick())
    assert score == 0.0
    assert metric.success is False
    # The query takes half a second, twice; a blocked loop would have ticked once.
    assert ticks > 5


def test_many_at_once_share_one_judge(database, monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(1) or popen(*a, **k))

    async def measure_all():
        metrics = [ExecutionAccuracy(database=database, timeout_s=7) for _ in range(30)]
        answers = ["SELECT name FROM singer" if i % 3 else "SELECT id FROM singer" for i in range(30)]
        return await asyncio.gather(*(m.a_measure(case(a)) for m, a in zip(metrics, answers, strict=True)))

    assert asyncio.run(measure_all()) == [float(i % 3 > 0) for i in range(30)]
    # Metrics with equal time share their processes, and do not wait for a single one.
    assert 1 <= len(started) <= len(os.sched_getaffinity(0))


def test_a_timeout_is_a_zero(database):
    metric = ExecutionAccuracy(database=database, timeout_s=0.2)
    assert metric.measure(case(ENDLESS)) == 0.0
    assert metric.verdict.error_class == "timeout"


def test_the_database_may_come_with_the_case(database):
    metric = ExecutionAccuracy()
    assert metric.measure(case("SELECT name FROM singer", metadata={"database": str(database)})) == 1.0
    with pytest.raises(ValueError, match="No database"):
        metric.measure(case("SELECT 1"))
    # Nothing is left of the measurement before.
    assert (metric.score, metric.reason, metric.verdict, metric.score_breakdown) == (None, None, None, None)
    assert "No database" in metric.error
    assert not metric.is_successful()
    assert metric.measure(case("SELECT name FROM singer", metadata={"database": str(database)})) == 1.0
    assert metric.error is None


def test_errors_in_the_data_are_not_the_models_fault(database, tmp_path):
    with pytest.raises(GoldError, match=r"music\.sqlite.*no_such_column.*SELECT absent FROM singer"):
        ExecutionAccuracy(database=database).measure(case("SELECT 1", gold="SELECT absent FROM singer"))
    with pytest.raises(FileNotFoundError):
        ExecutionAccuracy(database=tmp_path / "none.sqlite").measure(case("SELECT 1"))
    for lacking in ({"actual_output": "SELECT 1"}, {"expected_output": "SELECT 1"}):
        with pytest.raises(MissingTestCaseParamsError, match="expected_output"):
            ExecutionAccuracy(database=database).measure(LLMTestCase(input="?", **lacking))


def test_threshold_and_copies(database):
    metric = ExecutionAccuracy(database=database, threshold=0.0, timeout_s=3, semantics="set")
    metric.measure(case("SELECT 1"))
    assert metric.is_successful()
    (copy,) = copy_metrics([metric])
    assert (copy.database, copy.threshold, copy.timeout_s, copy.semantics) == (database, 0.0, 3, "set")


FLAGS = ("include_reason", "async_mode", "strict_mode", "verbose_mode")


def test_it_has_the_flags_of_deepevals_own_metrics(database, capsys):
    own = inspect.signature(JsonCorrectnessMetric.__init__).parameters
    assert set(FLAGS) | {"threshold"} <= set(own)
    metric = ExecutionAccuracy(database=database, threshold=0.0, include_reason=False, strict_mode=True)
    assert metric.threshold == 1.0
    assert metric.measure(case("SELECT 1")) == 0.0
    assert metric.reason is None and not metric.success
    assert capsys.readouterr().out == ""
    verbose = ExecutionAccuracy(database=database, verbose_mode=True, async_mode=False)
    verbose.measure(case("```sql\nSELECT 1\n```"))
    printed = capsys.readouterr().out
    assert "SELECT 1" in printed and "Reason: " in printed and "test_suite: 0.0" in verbose.verbose_logs
    for original in (metric, verbose):
        (copy,) = copy_metrics([original])
        assert [getattr(copy, name) for name in FLAGS] == [getattr(original, name) for name in FLAGS]


def test_importing_sets_nothing_in_the_environment():
    program = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
import deepeval.metrics
before = dict(os.environ)
import custom_metrics.execution_accuracy
assert dict(os.environ) == before
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DEEPEVAL")}
    subprocess.run([sys.executable, "-c", program], env=environment | {"DEEPEVAL_TELEMETRY_OPT_OUT": "1"}, check=True)


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
metric = ExecutionAccuracy({str(database)!r})
assert metric.measure(LLMTestCase(input="?", actual_output="SELECT 1", expected_output="SELECT 1")) == 1.0
assert "torch" not in sys.modules
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DEEPEVAL", "CONFIDENT"))} | {
        "HOME": str(home),
        # What DeepEval does by itself is for its user to choose.
        "DEEPEVAL_TELEMETRY_OPT_OUT": "YES",
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


def judge_all(databases, rows):
    """Judge (db_id, gold, answer) rows."""
    with Judge(jobs=2) as judge:
        return judge.judge_all([(databases / f"{db_id}/{db_id}.sqlite", gold, answer) for db_id, gold, answer in rows])


def test_every_gold_query_of_spider_dev_is_right(spider):
    dev, databases = spider
    verdicts = judge_all(databases, [(d["db_id"], d["query"], d["query"]) for d in dev])
    assert len(verdicts) == 1034
    assert all(all(v.correct.values()) and all(v.correct_raw.values()) and v.error_class == "ok" for v in verdicts)


@pytest.mark.parametrize(
    ("name", "bag", "as_set"),
    [
        ("baseline_results", 421, 430),
        ("mistral-sql-lora-v3-predictions", 419, 425),
        ("mistral-sql-lora-v4-predictions", 362, 370),
    ],
)
def test_published_predictions_score_as_published(spider, shared_data, name, bag, as_set):
    _, databases = spider
    with (shared_data / f"ribeiro/{name}.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["db_id"] != "wta_1"]
    assert len(rows) == 972
    verdicts = judge_all(databases, [(r["db_id"], r["gold_sql"], r["predicted_sql"]) for r in rows])
    assert sum(v.correct_raw["bag"] for v in verdicts) == bag
    assert sum(v.correct_raw["set"] for v in verdicts) == as_set
    if "execution_accuracy" in rows[0]:
        assert [v.correct_raw["bag"] for v in verdicts] == [row["execution_accuracy"] == "MATCH" for row in rows]


def test_test_suite_agrees_with_every_recorded_official_verdict(spider, shared_data):
    _, databases = spider
    rows = {
        f"{path.stem} {row['index']}": row
        for path in sorted((shared_data / "predictions").glob("*.jsonl"))
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())
        if not row.get("empty_db")
    }
    assert len(rows) == 5 * 972
    verdicts = judge_all(databases, [(r["db_id"], r["gold"], r["pred"]) for r in rows.values()])
    differing = [
        name
        for (name, row), verdict in zip(rows.items(), verdicts, strict=True)
        if verdict.correct_raw["test_suite"] != bool(row["official_exec"])
    ]
    assert differing == []
