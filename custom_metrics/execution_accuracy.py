"""Execution accuracy as a DeepEval metric: 1.0 if the answer's rows are the gold query's rows, else 0.0."""

import asyncio
from pathlib import Path
from typing import Any, ClassVar

from deepeval.errors import MissingTestCaseParamsError
from deepeval.metrics import BaseMetric
from deepeval.metrics.utils import construct_verbose_logs
from deepeval.test_case import LLMTestCase, SingleTurnParams

from custom_metrics.judge import SEMANTICS, judge


class ExecutionAccuracy(BaseMetric):
    """Score a model's answer to a text-to-SQL question by running it.

        metric = ExecutionAccuracy(database="concert_singer.sqlite")
        metric.measure(LLMTestCase(input=question, actual_output=answer, expected_output=gold))

    The SQL is taken out of the answer, run in a sandbox, and its rows are compared with the gold query's (`judge`).
    After `measure`, `score` is 1.0 or 0.0, `reason` says why, `success` whether the score reaches the threshold,
    `score_breakdown` has the score under every semantics, and `verdict` is the whole `judge.Verdict`.

    Metrics with the same time share their worker processes, one for each core, which end with the program. Importing
    this module sets nothing: what DeepEval reads and sends is left to DeepEval's own settings.

    Args:
        database: path of a SQLite or DuckDB file, or address of a PostgreSQL database; without it, each test case names
            its own as metadata={"database": path}. DeepEval keeps that: leave a password to PGPASSWORD.
        threshold: the least score that passes in `assert_test` and `evaluate`.
        timeout_s: seconds of processor time that a query may take.
        semantics: when rows count as the same, one of `judge.SEMANTICS`.
        include_reason, async_mode, strict_mode, verbose_mode: as of DeepEval's own metrics. A strict metric has the
            threshold 1. A verbose one prints the query, the score under every semantics and the reason. Measuring one
            case is the same work with and without async_mode.

    Raises:
        ValueError: there is no such semantics.
    """

    _required_params: ClassVar = [
        SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT, SingleTurnParams.EXPECTED_OUTPUT
    ]  # fmt: skip

    def __init__(  # noqa: PLR0913 - DeepEval's metrics have these, and are copied by calling the class with them
        self,
        database: str | Path | None = None,
        threshold: float = 1.0,
        timeout_s: float = 30.0,
        semantics: str = "bag",
        include_reason: bool = True,
        async_mode: bool = True,
        strict_mode: bool = False,
        verbose_mode: bool = False,
    ):
        if semantics not in SEMANTICS:
            raise ValueError(f"semantics: found {semantics!r}, expected one of {', '.join(SEMANTICS)}.")
        # DeepEval copies a metric by calling the class with the attributes named like its arguments.
        self.database, self.timeout_s, self.semantics = database, timeout_s, semantics
        self.threshold = 1.0 if strict_mode else threshold
        self.include_reason, self.async_mode = include_reason, async_mode
        self.strict_mode, self.verbose_mode = strict_mode, verbose_mode
        self.verdict = None

    def measure(self, test_case: LLMTestCase, *_: Any, **__: Any) -> float:
        """Return 1.0 or 0.0. An answer that cannot be run scores 0.0 and is no exception.

        Raises:
            MissingTestCaseParamsError: the test case lacks the answer or the gold query.
            ValueError: neither the metric nor the test case names a database.
            FileNotFoundError: there is no such database.
            engines.UnavailableError: it cannot be opened, or its engine is not installed.
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
        reason = self._reason()
        self.reason = reason if self.include_reason else None
        self.is_successful()
        scores = "\n".join(f"{name}: {score}" for name, score in self.score_breakdown.items())
        steps = [f"SQL:\n{self.verdict.sql}", f"Scores:\n{scores}", f"Score: {self.score}\nReason: {reason}"]
        self.verbose_logs = construct_verbose_logs(self, steps)
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
