"""When two results are the same: five answers (`MEANINGS`) to one pair of results, and what differs otherwise.

Column names are never looked at. Results without rows are equal under all of them, however many columns they have.
Rows that tie in an ORDER BY have the order in which the engine gives them, under `ordered` and `test_suite`: a query
whose ORDER BY leaves ties may be called wrong for their sake.

Values compare as SQLite gives them to Python, or as `values` makes them of what other engines give:

- numbers by value: 1 equals 1.0, and 0.1 + 0.2 does not equal 0.3; an integer beyond 2**53 equals a float only when
  the float is exactly that integer;
- NULL equals NULL; SQLite has no NaN, it stores and computes NULL instead; infinity equals itself;
- a number never equals text (1 and '1'), text never equals a blob, and text compares by its characters, so upper and
  lower case, and trailing blanks, differ.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

# An answer is right if …
MEANINGS = {
    "set": "the same rows occur, however often each",
    "bag": "the same rows occur equally often",
    "ordered": "bag, and in the gold's order if the gold query has an ORDER BY of its own",
    "test_suite": "Spider's official evaluator says so (test-suite-sql-eval): any order of columns, DISTINCT ignored",
    "columns_any_order": "bag for one order of the predicted columns, the same for all rows",
}
SEMANTICS = tuple(MEANINGS)

# The most values that a search for matching columns looks at before it gives up: some seconds. It is counted in values
# and not in seconds, so that a verdict does not depend on the load of the machine.
MAX_SEARCH = 20_000_000

Rows = Sequence[tuple]


def bag_equal(gold: Rows, predicted: Rows) -> bool:
    """Tell whether the same rows occur equally often in both results, in whatever order."""
    return len(gold) == len(predicted) and Counter(gold) == Counter(predicted)


def columns_any_order_equal(gold: Rows, predicted: Rows) -> bool:
    """Tell whether some order of the predicted columns makes the results equal as bags.

    A search that reaches `MAX_SEARCH` has found no such order, and the answer is False. It takes results made for the
    purpose to get there.
    """
    if bag_equal(gold, predicted):
        return True
    return _same_shape(gold, predicted) and matching_columns(gold, predicted) is not None


def suite_equal(gold: Rows, predicted: Rows, ordered: bool) -> bool:
    """Tell what `result_eq` of the official evaluator tells (Zhong, Yu and Klein 2020, arXiv:2010.02840; exec_eval.py).

    Two results without rows are equal. Otherwise the columns of the prediction may be put into any one order, after
    which the rows must be the same as a list if `ordered`, else as a bag. Before that, each row is sorted by the text
    of its values and the rows compared, which refuses some results that differ in nothing but 1 against 1.0; this is
    so here too. Bytes that are no UTF-8 are left out of a text before it is compared.

    Args:
        ordered: whether `order by` occurs anywhere in the gold query; the caller looks (see `sql_text.suite_query`).
    """
    if not gold and not predicted:
        return True
    if not _same_shape(gold, predicted):
        return False
    if gold is predicted:
        return True
    if not _some_order_equal(gold, predicted, ordered):
        gold, predicted = _without_bad_bytes(gold), _without_bad_bytes(predicted)
        if not _some_order_equal(gold, predicted, ordered):
            return False
    # Equal values of one type sort alike; only a float can equal a value of another type.
    if not any(isinstance(value, float) for rows in (gold, predicted) for row in rows for value in row):
        return True
    gold, predicted = map(_sorted_by_text, gold), map(_sorted_by_text, predicted)
    return list(gold) == list(predicted) if ordered else set(gold) == set(predicted)


def verdicts(gold: Rows, predicted: Rows, ordered: bool) -> dict[str, bool]:
    """Return the verdict of every semantics but `test_suite`, which looks at executions of other queries."""
    bag = bag_equal(gold, predicted)
    return {
        "set": bag or set(gold) == set(predicted),
        "bag": bag,
        "ordered": bag and (not ordered or list(gold) == list(predicted)),
        "columns_any_order": bag or columns_any_order_equal(gold, predicted),
    }


def soft_f1(gold: Rows, predicted: Rows) -> float:
    """Return the soft F1 of BIRD's Mini-Dev evaluator (bird-bench/mini_dev, evaluation_f1.py), from 0 to 1.

    Rows that come twice count once. The first row is compared with the first, the second with the second, and so on, so
    the order of rows matters; in two rows that are compared, the place of a value does not. Shares are of the gold's
    number of columns; a row that one side lacks is one row missing, or one too many.
    """
    if gold == predicted:
        return 1.0
    gold, predicted = list(dict.fromkeys(gold)), list(dict.fromkeys(predicted))
    matched, only_predicted, only_gold = 0.0, max(0, len(predicted) - len(gold)), max(0, len(gold) - len(predicted))
    for expected, found in zip(gold, predicted, strict=False):
        inside = sum(value in expected for value in found)
        matched += inside / len(expected)
        only_predicted += (len(found) - inside) / len(expected)
        only_gold += sum(value not in found for value in expected) / len(expected)
    if not matched:
        return 0.0
    precision, recall = matched / (matched + only_predicted), matched / (matched + only_gold)
    return 2 * precision * recall / (precision + recall)


def difference(gold: Rows, predicted: Rows, correct: dict[str, bool]) -> tuple[str, str]:
    """Return the error class of a query that ran, and what differs in words ("" if nothing does).

    The classes are those of `judge.ERROR_CLASSES` that are about rows; `correct` is what `verdicts` returned.
    """
    rows = f"{len(predicted)} rows, gold has {len(gold)}"
    if correct["ordered"]:
        return "ok", ""
    if correct["bag"]:
        return "wrong_order_only", "the rows of the gold query in another order"
    if correct["set"]:
        return "duplicate_only", f"the rows of the gold query, not equally often: {rows}"
    if correct["columns_any_order"]:
        return "wrong_columns", "the columns of the gold query in another order"
    if len(gold) != len(predicted):
        return "wrong_rows", rows
    columns = f"{len(predicted[0])} columns, gold has {len(gold[0])}"
    if len(gold[0]) != len(predicted[0]):
        found = matching_columns(*sorted((gold, predicted), key=lambda rows: len(rows[0])))
        return ("extra_or_missing_columns" if found else "wrong_columns"), columns
    other = (Counter(predicted) - Counter(gold)).total()
    return "wrong_rows", f"{rows}, {other} of them other rows"


def matching_columns(few: Rows, many: Rows) -> list[int] | None:
    """Return, for each column of `few`, a column of `many`, so that these columns make both results equal as bags.

    Columns can only match if they hold the same values equally often, which mostly leaves one candidate each. Where
    it leaves several, columns are added one at a time, and the rows so far must stay equal as bags: a wrong choice
    shows early and is taken back. Of columns that are the same value by value only one is tried.

    Args:
        few, many: results with equally many rows, at least one; `few` has no more columns than `many`.

    Returns:
        None if there are no such columns, or none was found within `MAX_SEARCH`.
    """
    left, right = list(zip(*few, strict=True)), list(zip(*many, strict=True))
    by_content: dict[frozenset, list[int]] = {}
    for index, column in enumerate(right):
        by_content.setdefault(frozenset(Counter(column).items()), []).append(index)
    candidates = [by_content.get(frozenset(Counter(column).items()), []) for column in left]
    first_like: dict[tuple, int] = {}
    twin = [first_like.setdefault(column, index) for index, column in enumerate(right)]
    order = sorted(range(len(left)), key=lambda index: len(candidates[index]))

    # A dict for its order and for being looked up in.
    chosen: dict[int, None] = {}

    def options() -> Iterator[int]:
        tried = set()
        for index in candidates[order[len(chosen)]]:
            if index not in chosen and twin[index] not in tried:
                tried.add(twin[index])
                yield index

    # For each level: the rows so far, numbered so that equal rows have equal numbers, and the columns left to try.
    levels = [([0] * len(few), [0] * len(many), options())]
    work = 0
    while levels:
        left_rows, right_rows, left_to_try = levels[-1]
        for index in left_to_try:
            work += len(few)
            if work > MAX_SEARCH:
                return None
            numbers: dict[tuple, int] = {}
            extended = [
                [numbers.setdefault(pair, len(numbers)) for pair in zip(rows, column, strict=True)]
                for rows, column in ((left_rows, left[order[len(chosen)]]), (right_rows, right[index]))
            ]
            if Counter(extended[0]) == Counter(extended[1]):
                chosen[index] = None
                if len(chosen) == len(left):
                    return [found for _, found in sorted(zip(order, chosen, strict=True))]
                levels.append((*extended, options()))
                break
        else:
            levels.pop()
            if chosen:
                chosen.popitem()
    return None


def _some_order_equal(gold: Rows, predicted: Rows, ordered: bool) -> bool:
    if ordered:
        return Counter(zip(*gold, strict=True)) == Counter(zip(*predicted, strict=True))
    return columns_any_order_equal(gold, predicted)


def _same_shape(gold: Rows, predicted: Rows) -> bool:
    """Tell whether both results have rows, and equally many rows and columns."""
    return 0 < len(gold) == len(predicted) and len(gold[0]) == len(predicted[0])


def _sorted_by_text(row: tuple) -> tuple:
    return tuple(sorted(row, key=lambda value: f"{value}{type(value)}"))


def _without_bad_bytes(rows: Rows) -> list[tuple]:
    """Leave out the bytes that `sandbox` decoded to lone surrogates."""

    def without(value: object) -> object:
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "ignore") if isinstance(value, str) else value

    return [tuple(map(without, row)) for row in rows]
