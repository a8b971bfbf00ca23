"""Execution accuracy in a task of lm-evaluation-harness: `process_results` of its YAML file.

    process_results: !function utils.process_results

where utils.py beside that file has `from custom_metrics.lm_eval_task import process_results`. A document has
`database`, its path or address, and `query`, the gold query or a list of several, of which one is enough.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from custom_metrics.judge import SEMANTICS, GoldError, judge_best


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, int]:
    """Return 1 or 0 for each of `judge.SEMANTICS`, which are the names for the task's `metric_list`.

    An answer to a question whose gold query does not run is wrong, and a warning names the query.

    Raises:
        KeyError: the document lacks `database` or `query`.
        FileNotFoundError: there is no such database.
    """
    golds = [doc["query"]] if isinstance(doc["query"], str) else doc["query"]
    found = judge_best(doc["database"], golds, results[0])
    if isinstance(found, GoldError):
        warnings.warn(f"{found} (the answer counts as wrong)", RuntimeWarning, stacklevel=2)
        return dict.fromkeys(SEMANTICS, 0)
    return {name: int(correct) for name, correct in found.correct.items()}
