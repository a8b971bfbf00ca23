"""Execution accuracy as a DeepEval metric: 1.0 if the answer's rows are the gold query's rows, else 0.0."""

import asyncio
import os
from pathlib import Path
from typing import Any, ClassVar

# Read by DeepEval when it is imported: a metric must not phone home, nor read a .env file it happens to find.
# A value the user has set is kept.
os.environ.setdefault("DEEPEVAL_TELEMETRY_OPT_OUT", "YES")
os.environ.setdefault("DEEPEVAL_DISABLE_DOTENV", "1")

from deepeval.errors import MissingTestCaseParamsError
from deepeval.metrics import BaseMetric
from deepeval.test_case import LLMTestCase, SingleTurnParams

from custom_metrics.judge import SEMANTICS, judge


class ExecutionAccuracy(BaseMetric):
    """Score a model's answer to a text-to-SQL question by running it.

        metric = ExecutionAccuracy(database="concert_singer.sqlite")
        metric.measure(LLMTestCase(input=question, actual_output=answer, expected_output=gold))

    The SQL is taken out of the answer, run in a sandbox, and its rows are compared with the gold query's (`judge`).
    After `measure`, `score` is 1.0 or 0.0, `reason` says why, `success` whether the score reaches the threshold,
    `score_breakdown` has the score under every semantics, and `verdict` is the whole `judge.Verdict`.

    Metrics share one set of worker processes, which end with the program.

    Args:
        database: path of the SQLite file; without it, each test case names its own as metadata={"database": path}.
        threshold: the least score that passes in `assert_test` and `evaluate`.
        timeout_s: seconds a query may take.
        semantics: when rows count as the same, one of `judge.SEMANTICS`.

    Raises:
        ValueError: there is no such semantics.
    """

    _required_params: ClassVar = [
        SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT, SingleTurnParams.EXPECTED_OUTPUT
    ]  # fmt: skip

    def __init__(
        self,
        database: str | Path | None = None,
        threshold: float = 1.0,
        timeout_s: float = 30.0,
        semantics: str = "bag",
    ):
        if semantics not in SEMANTICS:
            raise ValueError(f"semantics: found {semantics!r}, expected one of {', '.join(SEMANTICS)}.")
        # DeepEval copies a metric by calling the class with the attributes named like its arguments.
        self.database, self.threshold, self.timeout_s, self.semantics = database, threshold, timeout_s, semantics
        self.include_reason = True
        self.verdict = None

    def measure(self, test_case: LLMTestCase, *_: Any, **__: Any) -> float:
        """Return 1.0 or 0.0. An answer that cannot be run scores 0.0 and is no exception.

        Raises:
            MissingTestCaseParamsError: the test case lacks the answer or the gold query.
            ValueError: neither the metric nor the test case names a database.
            FileNotFoundError: there is no such database.
            judge.GoldError: the gold query itself does not run.
        """
        self.score = self.reason = self.success = self.score_breakdown = self.verdict = self.error = None
        try:
            self.verdict = self._judge(test_case)
        except Exception as error:
            # Not the model's fault, so it has no score; DeepEval shows the error where it does not stop for it.
            self.error, self.success = str(error), False
            raise
        self.score_breakdown = {name: float(correct) for name, correct in self.verdict.correct.items()}
        self.score = self.score_breakdown[self.semantics]
        self.reason = self._reason()
        self.is_successful()
        return self.score

    async def a_measure(self, test_case: LLMTestCase, *args: Any, **kwargs: Any) -> float:
        """Same as `measure`, in a thread, so that other work goes on while a query runs."""
        return await asyncio.to_thread(self.measure, test_case, *args, **kwargs)

    def is_successful(self) -> bool:
        """Tell whether the last measured score reaches the threshold; False before the first."""
        self.success = self.error is None and self.score is not None and self.score >= self.threshold
        return self.success

    @property
    def __name__(self) -> str:
        return "Execution Accuracy" if self.semantics == "bag" else f"Execution Accuracy ({self.semantics})"

    def _judge(self, test_case: LLMTestCase):
        database = self.database or (test_case.metadata or {}).get("database")
        if database is None:
            raise ValueError(
                'No database: give ExecutionAccuracy(database=…) or LLMTestCase(metadata={"database": …}).'
            )
        if test_case.actual_output is None or test_case.expected_output is None:
            needed = "actual_output (the answer) and expected_output (the gold query)"
            raise MissingTestCaseParamsError(f"The test case needs {needed}.")
        return judge(database, test_case.expected_output, test_case.actual_output, self.timeout_s)

    def _reason(self) -> str:
        verdict, why = self.verdict, f"({self.verdict.error_class}: {self.verdict.message})"
        if self.score:
            return f"The rows are those of the gold query ({self.semantics})."
        if verdict.predicted_rows is None:
            return f"The query does not run {why}."
        if verdict.correct["bag"]:
            return f"The rows are those of the gold query as a bag, but not under {self.semantics}."
        return f"The rows differ from those of the gold query {why}."
