"""Criteria beside `compare.SEMANTICS`, for those who ask for them: tolerance, further columns, and speed.

`close` and `gold_columns` follow Defog's evaluator (defog-ai/sql-eval, eval/eval.py: `compare_df`, `subset_df`).
`r_ves` is the reward-based valid efficiency score of BIRD (bird-bench/mini_dev, evaluation/evaluation_ves.py).
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from custom_metrics.compare import Rows

FURTHER = {
    "close": "bag, where a number with a fraction may differ by a hundred-thousandth",
    "gold_columns": "the gold's columns are among the predicted ones, compared as by close; repeated rows count once",
    "r_ves": "BIRD's reward for speed: 0 if wrong as `set`, else 0.25 to 1.25 by the time that the gold query takes",
}
# Those of pandas' assert_frame_equal, by which Defog's evaluator compares.
RELATIVE, ABSOLUTE = 1e-5, 1e-8
# Rows that are alike but for their numbers are paired one by one up to so many; so many orders of columns are tried.
MAX_ALIKE, MAX_ORDERS = 500, 200
# What BIRD's evaluator takes: pairs of runs, and rewards by the least ratio of the gold's time to the prediction's.
REPEATS = 100
REWARDS = ((2.0, 1.25), (1.0, 1.0), (0.5, 0.75), (0.25, 0.5), (0.0, 0.25))


def close(gold: Rows, predicted: Rows) -> bool:
    """Tell whether the rows can be paired so that their values are the same, or are numbers that are close.

    Numbers are close if they differ by no more than `ABSOLUTE` + `RELATIVE` times the gold's. Integers are only
    compared so where a column has other numbers too. Of more than `MAX_ALIKE` rows that are alike but for such numbers,
    those are paired that come at the same place when sorted.
    """
    if not gold or not predicted:
        return not gold and not predicted
    if len(gold) != len(predicted) or len(gold[0]) != len(predicted[0]):
        return False
    floats = {i for rows in (gold, predicted) for row in rows for i, cell in enumerate(row) if isinstance(cell, float)}
    groups: dict[tuple, tuple[list, list]] = defaultdict(lambda: ([], []))
    for side, rows in enumerate((gold, predicted)):
        for row in rows:
            numbers = tuple(cell for i, cell in enumerate(row) if i in floats and _is_number(cell))
            rest = tuple("number" if i in floats and _is_number(cell) else (cell,) for i, cell in enumerate(row))
            groups[rest][side].append(numbers)
    return all(len(left) == len(right) and _pairs(sorted(left), sorted(right)) for left, right in groups.values())


def gold_columns(gold: Rows, predicted: Rows) -> bool:
    """Tell whether the gold's columns are among the predicted ones, in some order, with rows that are `close`.

    There must be as many rows as in the gold; then rows that come twice count once. Two results without rows are the
    same. Defog's evaluator takes for each column the first one with the same values, where this tries `MAX_ORDERS`
    choices: where columns have the same values in other rows, it may miss what is right.
    """
    if not gold or not predicted:
        return not gold and not predicted
    if len(gold) != len(predicted) or len(gold[0]) > len(predicted[0]):
        return False
    left, right = ([[(cell,) for cell in column] for column in zip(*rows, strict=True)] for rows in (gold, predicted))
    candidates = [[i for i, other in enumerate(right) if close(column, other)] for column in left]
    once = list(dict.fromkeys(gold))
    for chosen in islice(_choices(candidates), MAX_ORDERS):
        if close(once, list(dict.fromkeys(tuple(row[i] for i in chosen) for row in predicted))):
            return True
    return False


def reward(seconds: Sequence[tuple[float, float]]) -> float:
    """Return BIRD's reward of a right query, from the times of the gold query and of the prediction, run in turns.

    It goes by the mean of the gold's time divided by the prediction's, without ratios that are three standard
    deviations or more from their mean; if all ratios are the same, they are all kept.
    """
    ratios = [gold / predicted for gold, predicted in seconds]
    mean, spread = statistics.fmean(ratios), statistics.pstdev(ratios)
    kept = [ratio for ratio in ratios if abs(ratio - mean) < 3 * spread] or ratios
    return next(worth for least, worth in REWARDS if statistics.fmean(kept) >= least)


def r_ves(rewards: Sequence[float]) -> float:
    """Return the R-VES of many answers: 100 times the mean of the square roots of their rewards."""
    return 100 * statistics.fmean(map(math.sqrt, rewards))


def together(found: Sequence[Mapping[str, float]], by: Callable[[Iterable[float]], float]) -> dict[str, float]:
    """Return for each criterion the least or the greatest of several verdicts."""
    return {name: by(one[name] for one in found) for name in found[0]}


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float)


def _are_close(gold: tuple, predicted: tuple) -> bool:
    return all(
        one is other or one == other or abs(one - other) <= ABSOLUTE + RELATIVE * abs(one)
        for one, other in zip(gold, predicted, strict=True)
    )


def _pairs(gold: list[tuple], predicted: list[tuple]) -> bool:
    """Tell whether each row can have one of the other side that is close to it, by augmenting paths."""
    if all(map(_are_close, gold, predicted)):
        return True
    if len(gold) > MAX_ALIKE:
        return False
    options = [[i for i, other in enumerate(predicted) if _are_close(row, other)] for row in gold]
    taken: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for other in options[row]:
            if other not in seen:
                seen.add(other)
                if other not in taken or place(taken[other], seen):
                    taken[other] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(gold)))


def _choices(candidates: Sequence[Sequence[int]], chosen: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Yield one candidate for each column, none of them twice."""
    if len(chosen) == len(candidates):
        yield chosen
        return
    for index in candidates[len(chosen)]:
        if index not in chosen:
            yield from _choices(candidates, (*chosen, index))
