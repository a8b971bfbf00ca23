"""Execution accuracy as a scorer of inspect_ai, which has to be installed (the extra `inspect`).

    Task(dataset=[Sample(input=question, target=gold, metadata={"database": path})], scorer=execution_accuracy())

The target is the gold query, or a list of several, of which one is enough.
"""

import asyncio

from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState

from custom_metrics.judge import SEMANTICS, GoldError, judge_best


@scorer(metrics=[accuracy(), stderr()])
def execution_accuracy(database: str | None = None, semantics: str = "bag", timeout_s: float = 30.0) -> Scorer:
    """Score an answer by running it: CORRECT if its rows are those of the gold query.

    A score has the query that was taken out as its answer, and every semantics, the error class and the counts of rows
    as metadata. A gold query that does not run makes its sample incorrect, and the explanation says so.

    Args:
        database: path or address of the database; without it, each sample names its own as metadata={"database": path}.
        semantics: when rows count as the same, one of `judge.SEMANTICS`.
        timeout_s: seconds of processor time that a query may take.

    Raises:
        ValueError: there is no such semantics; when it scores, a sample without a database.
    """
    if semantics not in SEMANTICS:
        raise ValueError(f"semantics: found {semantics!r}, expected one of {', '.join(SEMANTICS)}.")

    async def score(state: TaskState, target: Target) -> Score:
        path = database or (state.metadata or {}).get("database")
        if path is None:
            raise ValueError(
                f"Sample {state.sample_id} names no database: give execution_accuracy(database=…) or "
                'Sample(metadata={"database": …}).'
            )
        found = await asyncio.to_thread(judge_best, path, list(target), state.output.completion, timeout_s)
        if isinstance(found, GoldError):
            return Score(value=INCORRECT, explanation=str(found), metadata={"error_class": "gold_error"})
        shown = {"error_class": found.error_class, "gold_rows": found.gold_rows, "predicted_rows": found.predicted_rows}
        return Score(
            value=CORRECT if found.correct[semantics] else INCORRECT,
            answer=found.sql,
            explanation=found.message or f"The rows are those of the gold query ({semantics}).",
            metadata=dict(found.correct) | shown,
        )

    return score
