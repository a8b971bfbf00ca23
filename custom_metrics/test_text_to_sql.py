"""Evaluate a file of text-to-SQL predictions through the DeepEval metric, one test a question.

    export TEXT_TO_SQL_PREDICTIONS=predictions.jsonl    # what `python -m custom_metrics score --help` accepts
    export TEXT_TO_SQL_QUESTIONS=dev.json               # Spider's dev.json, or JSON lines with db_id and query
    export TEXT_TO_SQL_DATABASES=database               # holds <db_id>/<db_id>.sqlite; what --databases may be
    deepeval test run custom_metrics/test_text_to_sql.py --display failing
    pytest custom_metrics/test_text_to_sql.py           # the same without DeepEval's table

More, all optional:

    TEXT_TO_SQL_COLUMN        where the predictions are, if the file has columns with unusual names
    TEXT_TO_SQL_SEMANTICS     set, bag (the default), ordered, test_suite or columns_any_order
    TEXT_TO_SQL_MIN_ACCURACY  percent; the run fails if the accuracy is below it

Several files at once, in place of all these but the last: TEXT_TO_SQL_RUNS names a JSON file with a list of objects
that have `run` (a name), `predictions` (JSON lines with id and answer; one that is missing is wrong), `questions` (with
ids), `databases`, `semantics`, `timeout_s` and `records`: the verdicts that were counted, as CSV. Paths are relative to
that file. A question fails if the metric gives another verdict than its record. The workflow writes such a file for
each study, and runs this one on it:

    TEXT_TO_SQL_RUNS=results/demo/tables/deepeval_tests.json pytest custom_metrics/test_text_to_sql.py

A wrong answer is a score of 0 and shown as `xfailed` with its reason, in DeepEval's table as FAILED; it does not fail
the run. What does: accuracy below the minimum, and errors in the data, such as a gold query that does not run.

Nothing is sent anywhere and nothing is written, so that several runs can share a folder (conftest.py). DeepEval's own
command line starts before this file is read: set DEEPEVAL_TELEMETRY_OPT_OUT=YES to keep it, too, from reporting that
it was called. DEEPEVAL_RESULTS_FOLDER=folder keeps DeepEval's record of the run, one JSON file.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from custom_metrics.execution_accuracy import ExecutionAccuracy
from custom_metrics.inputs import InputError, find_databases, read_predictions, read_questions, read_rows
from custom_metrics.intervals import wilson_interval
from custom_metrics.judge import SEMANTICS

# isort: split
from deepeval import assert_test
from deepeval.test_case import LLMTestCase

NEEDED = ("TEXT_TO_SQL_PREDICTIONS", "TEXT_TO_SQL_QUESTIONS", "TEXT_TO_SQL_DATABASES")
SEVERAL = os.environ.get("TEXT_TO_SQL_RUNS")
if not SEVERAL and (missing := [name for name in NEEDED if not os.environ.get(name)]):
    pytest.skip(f"no predictions to evaluate: set {', '.join(missing)} (see this file's head)", allow_module_level=True)


@dataclass
class Run:
    """One file of predictions: its cases, by whose names stand the records, if there are any, and the scores."""

    name: str
    cases: list[LLMTestCase]
    metric: ExecutionAccuracy
    records: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


def read_single() -> Run:
    """Return the run that the variables describe, one test case a question; a missing prediction is an empty answer."""
    predictions, questions, databases = (os.environ[name] for name in NEEDED)
    asked = read_questions(questions)
    answers = read_predictions(predictions, asked, os.environ.get("TEXT_TO_SQL_COLUMN") or None)
    names = [f"{index}-{question.db_id}" for index, question in enumerate(asked)]
    metric = ExecutionAccuracy(semantics=os.environ.get("TEXT_TO_SQL_SEMANTICS") or "bag")
    return Run("", make_cases(names, asked, answers, databases), metric)


def read_several(file: Path) -> list[Run]:
    """Return the runs that a JSON file lists (see this file's head), one test case a question."""
    try:
        listed, runs = json.loads(file.read_text(encoding="utf-8")), []
        for entry in listed:
            predictions, questions, databases, records = (
                file.parent / entry[key] for key in ("predictions", "questions", "databases", "records")
            )
            asked = read_questions(questions)
            answers = {row["id"]: row["answer"] for _, row in read_rows(predictions)}
            names = [f"{entry['run']}/{question.id}" for question in asked]
            cases = make_cases(names, asked, [answers.get(question.id) for question in asked], databases)
            recorded = {f"{entry['run']}/{row['id']}": row for _, row in read_rows(records)}
            if recorded.keys() != set(names):
                raise InputError(f"{records}: its ids are not those of {questions}.")
            metric = ExecutionAccuracy(semantics=entry["semantics"], timeout_s=entry["timeout_s"])
            runs.append(Run(entry["run"], cases, metric, recorded))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: {error}.") from None
    except (KeyError, TypeError) as error:
        raise InputError(f"{file}: expected a list of objects with the keys that {__file__} names ({error}).") from None
    return runs


def make_cases(names, asked, answers, databases) -> list[LLMTestCase]:
    paths = find_databases(databases, [question.db_id for question in asked])
    return [
        LLMTestCase(
            name=name,
            input=question.text or f"question {name}",
            # No surrogates, which no text that leaves this process can hold.
            actual_output=(answer or "").encode("utf-8", "replace").decode(),
            expected_output=question.gold,
            metadata={"database": str(paths[question.db_id])},
        )
        for name, question, answer in zip(names, asked, answers, strict=True)
    ]


def read_minimum() -> float:
    """Return the accuracy in percent below which a run fails."""
    text = os.environ.get("TEXT_TO_SQL_MIN_ACCURACY") or "0"
    try:
        return float(text)
    except ValueError:
        raise InputError(f"TEXT_TO_SQL_MIN_ACCURACY: expected a percentage, found {text!r}.") from None


PROBLEM = None
try:
    RUNS = read_several(Path(SEVERAL)) if SEVERAL else [read_single()]
    MINIMUM = read_minimum()
except (InputError, ValueError) as error:
    PROBLEM = str(error)
if PROBLEM:
    pytest.fail(PROBLEM, pytrace=False)


@pytest.mark.parametrize(("run", "case"), [pytest.param(run, case, id=case.name) for run in RUNS for case in run.cases])
def test_question(run, case):
    metric = run.metric
    with contextlib.suppress(AssertionError):
        assert_test(case, [metric], run_async=False)
    run.scores[case.name] = metric.score
    if case.name in run.records:
        cells, record = metric.verdict.cells(), run.records[case.name]
        names = [name for criterion in SEMANTICS for name in (criterion, f"{criterion}_raw")]
        other = [f"{name} {cells[name]}, recorded {record[name]}" for name in names if record[name] != str(cells[name])]
        if other:
            pytest.fail(f"{case.name}: the metric's verdict is not the record's: {'; '.join(other)}.", pytrace=False)
    if not metric.success:
        pytest.xfail(metric.reason or metric.error)


@pytest.mark.parametrize("run", [pytest.param(run, id=run.name or "all") for run in RUNS])
def test_accuracy(run, capsys):
    """The gate. Questions that ran elsewhere or not at all (`-n`, `-k`) are measured here."""
    for case in run.cases:
        if run.scores.get(case.name) is None:
            run.scores[case.name] = run.metric.measure(case)
    right, n = int(sum(run.scores.values())), len(run.cases)
    low, high = wilson_interval(right, n, 0.95)
    line = (
        f"Execution accuracy ({run.metric.semantics}){' of ' * bool(run.name)}{run.name}: {right} of {n}, "
        f"{100 * right / n:.2f}%, 95% interval {100 * low:.2f} to {100 * high:.2f}"
    )
    with capsys.disabled():
        print(f"\n{line}")
    assert 100 * right / n >= MINIMUM, f"{line}: below the minimum of {MINIMUM:g}%."
