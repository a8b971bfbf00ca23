"""Evaluate a file of text-to-SQL predictions through the DeepEval metric, one test a question.

    export TEXT_TO_SQL_PREDICTIONS=predictions.jsonl    # what `python -m custom_metrics score --help` accepts
    export TEXT_TO_SQL_QUESTIONS=dev.json               # Spider's dev.json, or JSON lines with db_id and query
    export TEXT_TO_SQL_DATABASES=database               # holds <db_id>/<db_id>.sqlite
    deepeval test run custom_metrics/test_text_to_sql.py --display failing
    pytest custom_metrics/test_text_to_sql.py           # the same without DeepEval's table

More, all optional:

    TEXT_TO_SQL_COLUMN        where the predictions are, if the file has columns with unusual names
    TEXT_TO_SQL_SEMANTICS     set, bag (the default), ordered, test_suite or columns_any_order
    TEXT_TO_SQL_MIN_ACCURACY  percent; the run fails if the accuracy is below it

A wrong answer is a score of 0 and shown as `xfailed` with its reason, in DeepEval's table as FAILED; it does not fail
the run. What does: accuracy below the minimum, and errors in the data, such as a gold query that does not run.

Nothing is sent anywhere and nothing is written, so that several runs can share a folder (conftest.py). DeepEval's own
command line starts before this file is read: set DEEPEVAL_TELEMETRY_OPT_OUT=YES to keep it, too, from reporting that
it was called. DEEPEVAL_RESULTS_FOLDER=folder keeps DeepEval's record of the run, one JSON file.
"""

import contextlib
import os

import pytest

from custom_metrics.execution_accuracy import ExecutionAccuracy
from custom_metrics.inputs import InputError, find_databases, read_predictions, read_questions
from custom_metrics.intervals import wilson_interval

# isort: split
from deepeval import assert_test
from deepeval.test_case import LLMTestCase

NEEDED = ("TEXT_TO_SQL_PREDICTIONS", "TEXT_TO_SQL_QUESTIONS", "TEXT_TO_SQL_DATABASES")
if missing := [name for name in NEEDED if not os.environ.get(name)]:
    pytest.skip(f"no predictions to evaluate: set {', '.join(missing)} (see this file's head)", allow_module_level=True)


def read_cases() -> list[LLMTestCase]:
    """Return one test case a question, in their order; a missing prediction is an empty answer."""
    predictions, questions, databases = (os.environ[name] for name in NEEDED)
    asked = read_questions(questions)
    answers = read_predictions(predictions, asked, os.environ.get("TEXT_TO_SQL_COLUMN") or None)
    paths = find_databases(databases, [question.db_id for question in asked])
    return [
        LLMTestCase(
            name=f"{index}-{question.db_id}",
            input=question.text or f"question {index}",
            actual_output=answer or "",
            expected_output=question.gold,
            metadata={"database": str(paths[question.db_id])},
        )
        for index, (question, answer) in enumerate(zip(asked, answers, strict=True))
    ]


def read_minimum() -> float:
    """Return the accuracy in percent below which the run fails."""
    text = os.environ.get("TEXT_TO_SQL_MIN_ACCURACY") or "0"
    try:
        return float(text)
    except ValueError:
        raise InputError(f"TEXT_TO_SQL_MIN_ACCURACY: expected a percentage, found {text!r}.") from None


PROBLEM = None
try:
    CASES = read_cases()
    METRIC = ExecutionAccuracy(semantics=os.environ.get("TEXT_TO_SQL_SEMANTICS") or "bag")
    MINIMUM = read_minimum()
except (InputError, ValueError) as error:
    PROBLEM = str(error)
if PROBLEM:
    pytest.fail(PROBLEM, pytrace=False)
SCORES = {}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_question(case):
    with contextlib.suppress(AssertionError):
        assert_test(case, [METRIC], run_async=False)
    SCORES[case.name] = METRIC.score
    if not METRIC.success:
        pytest.xfail(METRIC.reason or METRIC.error)


def test_accuracy(capsys):
    """The gate. Questions that ran elsewhere or not at all (`-n`, `-k`) are measured here."""
    for case in CASES:
        if SCORES.get(case.name) is None:
            SCORES[case.name] = METRIC.measure(case)
    right, n = int(sum(SCORES.values())), len(CASES)
    low, high = wilson_interval(right, n, 0.95)
    line = (
        f"Execution accuracy ({METRIC.semantics}): {right} of {n}, {100 * right / n:.2f}%, "
        f"95% interval {100 * low:.2f} to {100 * high:.2f}"
    )
    with capsys.disabled():
        print(f"\n{line}")
    assert 100 * right / n >= MINIMUM, f"{line}: below the minimum of {MINIMUM:g}%."
