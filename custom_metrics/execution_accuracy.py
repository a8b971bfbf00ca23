"""Execution accuracy as a DeepEval metric: 1.0 if the answer's rows are the gold query's rows, else 0.0."""

import os
from pathlib import Path
from typing import Any, ClassVar

# Read by DeepEval when it is imported: a metric must not phone home, nor read a .env file it happens to find.
# A value the user has set is kept.
os.environ.setdefault("DEEPEVAL_TELEMETRY_OPT_OUT", "YES")
os.environ.setdefault("DEEPEVAL_DISABLE_DOTENV", "1")

from deepeval.metrics import BaseMetric
from deepeval.test_case import LLMTestCase, SingleTurnParams

from custom_metrics.judge import judge


class ExecutionAccuracy(BaseMetric):
    """Score a model's answer to a text-to-SQL question by running it.

        metric = ExecutionAccuracy(database="concert_singer.sqlite")
        metric.measure(LLMTestCase(input=question, actual_output=answer, expected_output=gold))

    The query is taken out of the answer (`extract.extract_sql`), run in a sandbox (`sandbox.execute`) and its rows
    are compared with the gold query's (`compare.bag_equal`: row order ignored, column order kept). After `measure`,
    `score` is 1.0 or 0.0, `reason` says why, `verdict` is the whole `judge.Verdict`.

    Args:
        database: path of the SQLite file; without it, each test case names its own as metadata={"database": path}.
        threshold: the least score that passes in `assert_test` and `evaluate`.
        timeout_s: seconds a query may take.
    """

    _required_params: ClassVar = [
        SingleTurnParams.INPUT,
        SingleTurnParams.ACTUAL_OUTPUT,
        SingleTurnParams.EXPECTED_OUTPUT,
    ]

    def __init__(self, database: str | Path | None = None, threshold: float = 1.0, timeout_s: float = 30.0):
        self.database = database
        self.threshold = threshold
        self.timeout_s = timeout_s
        self.async_mode = False
        self.include_reason = True
        self.verdict = None

    def measure(self, test_case: LLMTestCase, *_: Any, **__: Any) -> float:
        """Return 1.0 or 0.0. An answer that cannot be run scores 0.0 and is no exception.

        Raises:
            ValueError: the test case lacks the answer, the gold query or the database.
            FileNotFoundError: there is no such database.
            judge.GoldError: the gold query itself does not run.
        """
        self.score = self.reason = self.success = self.verdict = self.error = None
        database = self.database or (test_case.metadata or {}).get("database")
        if database is None:
            raise ValueError(
                'No database: give ExecutionAccuracy(database=…) or LLMTestCase(metadata={"database": …}).'
            )
        if test_case.actual_output is None or test_case.expected_output is None:
            raise ValueError("The test case needs actual_output (the answer) and expected_output (the gold query).")
        self.verdict = judge(database, test_case.expected_output, test_case.actual_output, self.timeout_s)
        self.score = 1.0 if self.verdict.correct else 0.0
        if self.verdict.correct:
            self.reason = "The rows are those of the gold query."
        elif self.verdict.error_class == "wrong_result":
            self.reason = f"The rows differ from those of the gold query ({self.verdict.error})."
        else:
            self.reason = f"The query does not run ({self.verdict.error_class}: {self.verdict.error})."
        self.is_successful()
        return self.score

    async def a_measure(self, test_case: LLMTestCase, *args: Any, **kwargs: Any) -> float:
        """Same as `measure`; a query takes milliseconds, so nothing is gained by waiting for it elsewhere."""
        return self.measure(test_case, *args, **kwargs)

    def is_successful(self) -> bool:
        """Tell whether the last measured score reaches the threshold; False before the first."""
        self.success = self.error is None and self.score is not None and self.score >= self.threshold
        return self.success

    @property
    def __name__(self) -> str:
        return "Execution Accuracy"
