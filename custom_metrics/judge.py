"""One answer of a model against one gold query: the core under the metric and under `score_spider`. No DeepEval."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from custom_metrics.compare import bag_equal
from custom_metrics.extract import extract_sql
from custom_metrics.sandbox import Execution, execute


class GoldError(ValueError):
    """The gold query itself cannot be run: an error in the data, not in the answer."""


@dataclass(frozen=True)
class Verdict:
    """What became of one answer.

    `sql` is what was extracted from the answer; `correct` is about `sql`, `correct_raw` about the answer as it is.
    `error_class` and `error` are about `sql`: both "" where it is right, `wrong_result` where it ran and gave other
    rows, else a class of `sandbox.Execution` with SQLite's message.
    """

    sql: str
    correct: bool
    correct_raw: bool
    error_class: str
    error: str


def judge(database: str | Path, gold: str, answer: str, timeout_s: float = 30.0) -> Verdict:
    """Run a gold query and an answer on one database and compare their rows (`compare.bag_equal`).

    The gold query runs once for consecutive answers to it.

    Raises:
        FileNotFoundError: there is no such database.
        GoldError: the gold query does not run.
    """
    stat = Path(database).stat()
    expected = _gold(str(database), gold, timeout_s, stat.st_size, stat.st_mtime_ns)
    if expected.rows is None:
        raise GoldError(f"{database}: the gold query fails ({expected.error_class}: {expected.error}): {gold}")

    sql = extract_sql(answer)
    result = execute(database, sql, timeout_s)
    correct = result.rows is not None and bag_equal(expected.rows, result.rows)
    if answer.strip() in (sql, sql + ";"):
        correct_raw = correct
    else:
        raw = execute(database, answer, timeout_s)
        correct_raw = raw.rows is not None and bag_equal(expected.rows, raw.rows)
    if correct:
        error_class, error = "", ""
    elif result.rows is None:
        error_class, error = result.error_class, result.error
    else:
        other = ", of other values" if len(result.rows) == len(expected.rows) else ""
        error_class, error = "wrong_result", f"{len(result.rows)} rows, gold has {len(expected.rows)}{other}"
    return Verdict(sql, correct, correct_raw, error_class, error)


@lru_cache(maxsize=16)
def _gold(database: str, gold: str, timeout_s: float, size: int, changed: int) -> Execution:
    # Size and time of the file are part of the key, so that a replaced database is read again.
    return execute(database, gold, timeout_s)
