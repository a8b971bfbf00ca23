"""Gold results in place of a gold query: the rule of Spider 2 lite's evaluator, and what the usual semantics say there.

The rule is that of xlang-ai/Spider2, spider2-lite/evaluation_suite/evaluate.py (`compare_pandas_table`). An answer is
right if for each column of a gold result that counts, one of the predicted columns has the same values: numbers up to a
hundredth, missing values as equal, in the gold's order, or each column sorted by itself if the order is free. Rows are
not looked at as rows. Other predicted columns are allowed, and any of several gold results is enough.

That evaluator writes the predicted rows to a CSV file and reads both sides by `pandas.read_csv`. Its types are made
here without pandas (`typed`, `in_one_table`), since they decide: '7' in a CSV file is a number, 'NA' is missing.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from custom_metrics.compare import Rows, difference, soft_f1, verdicts

# The name of the rule beside `compare.SEMANTICS`, and those of them that have a meaning without a gold query.
RULE = "spider2"
MEANING = "Spider 2 lite's evaluator says so: column by column, numbers up to 0.01, further columns allowed"
WITH_ROWS = ("set", "bag", "ordered", "columns_any_order")

TOLERANCE = 0.01
# Texts that pandas takes for a missing value (the default `na_values` of `read_csv`).
MISSING = {
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
}  # fmt: skip
_BLANKS = r"[ \t\r\n\v\f]*"
_WHOLE = re.compile(rf"{_BLANKS}[+-]?[0-9]+{_BLANKS}")
_NUMBER = re.compile(rf"{_BLANKS}[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf(inity)?){_BLANKS}", re.IGNORECASE)
_TRUTH = re.compile("true|false", re.IGNORECASE)
# No number of 64 bits has so many characters, and Python reads none of some thousands.
LONG = 100
# The evaluator takes so many rows from SQLite at a time, and each such piece has its own types when it is written.
PIECE = 500

Column = Sequence[object]


class Found(NamedTuple):
    """What an answer's rows are worth; the attributes are those of `judge.Verdict`."""

    correct: dict[str, bool]
    error_class: str
    message: str
    gold_rows: int
    soft_f1: float


@dataclass(frozen=True)
class Results:
    """The gold results of one question, any of which is enough."""

    tables: Sequence[Sequence[Column]]  # of each result its columns, as `typed` makes them
    counted: Sequence[Sequence[int]]  # of each result the places of the columns that count; none means all of them
    ignore_order: bool  # whether the order of rows is free

    def judge(self, predicted: Rows) -> Found:
        """Judge the rows of a query.

        Of `WITH_ROWS` each one compares the rows as both sides are re-read, exactly and with all columns of the gold;
        `ordered` wants the gold's order unless it is free. All are true where one gold result makes them so; class and
        message are those by the result that comes closest.
        """
        columns = [typed(column) for column in written(predicted)]
        rows, found = _rows(columns), []
        for table, counted in zip(self.tables, self.counted, strict=True):
            gold = _rows(table)
            right = columns_found([table[place] for place in counted] or table, columns, self.ignore_order)
            correct = verdicts(gold, rows, not self.ignore_order) | {RULE: right}
            error_class, said = ("ok", "") if right else difference(gold, rows, correct)
            if not right and error_class == "ok":  # the same values, sorted in two ways by the rule
                error_class, said = "wrong_order_only", "the rows of the gold result in another order"
            found.append(Found(correct, error_class, said, len(gold), soft_f1(gold, rows)))
        closest = max(found, key=lambda one: (one.correct[RULE], sum(one.correct.values())))
        anywhere = {name: any(one.correct[name] for one in found) for name in closest.correct}
        return closest._replace(correct=anywhere, soft_f1=max(one.soft_f1 for one in found))

    def flags(self) -> list[str]:
        """Return which of `judge.GOLD_FLAGS` hold for the first gold result."""
        rows = _rows(self.tables[0])
        doubled = ["gold_duplicate_rows"] if len(set(rows)) < len(rows) else []
        return doubled if rows else ["gold_empty"]


def nothing_right(results: Results) -> Found:
    """Return what a query is worth that did not run."""
    gold_rows = len(results.tables[0][0])
    return Found(dict.fromkeys((*WITH_ROWS, RULE), False), "", "", gold_rows, 0.0)


def written(rows: Rows) -> list[list[str]]:
    """Return the columns of rows from SQLite as the evaluator writes them to a CSV file.

    In a piece of `PIECE` rows, whole numbers are written with a fraction if the column has other numbers or NULL, and
    nothing but numbers. A row of one column with nothing but blanks is left out: it is lost where the file is read.
    """
    columns = []
    for column in zip(*rows, strict=True):
        texts: list[str] = []
        for start in range(0, len(column), PIECE):
            piece = column[start : start + PIECE]
            kinds = set(map(type, piece))
            floats = kinds <= {int, float, type(None)} and kinds != {int}
            texts += ["" if cell is None else str(float(cell) if floats else cell) for cell in piece]
        columns.append(texts)
    return [without_blank_lines(columns[0])] if len(columns) == 1 else columns


def without_blank_lines(texts: Sequence[str]) -> list[str]:
    """Leave out what pandas takes for an empty line in a file of one column; an empty cell is written as two quotes."""
    return [text for text in texts if not text or text.strip(" \t")]


def typed(texts: Sequence[str]) -> list[object]:
    """Return a column of a CSV file with the type that `pandas.read_csv` gives it; a missing value is None.

    The column is whole numbers (if some are missing, floats), else floats, else truth values, else texts, whichever all
    of its cells can be. Floats are the nearest double. Two things differ from pandas: it reads a file of many megabytes
    in parts, which may have different types; and whole numbers beyond 64 bits with a sign, which SQLite does not have,
    are floats here, and texts or whole numbers by its version and the other cells.
    """
    present = [text for text in texts if text not in MISSING]
    some = len(present) < len(texts)

    def all_as(read: Callable[[str], object]) -> list[object]:
        return [None if text in MISSING else read(text) for text in texts]

    if all(map(_WHOLE.fullmatch, present)):
        fits = all(len(text) < LONG and -(2**63) <= int(text) < 2**63 for text in present)
        return all_as(int if fits and not some else float)
    if all(map(_NUMBER.fullmatch, present)):
        return all_as(float)
    if all(map(_TRUTH.fullmatch, present)):
        return all_as(lambda text: text.lower() == "true")
    return all_as(str)


def in_one_table(columns: Sequence[Column]) -> list[Column]:
    """Return columns as pandas turns a table on its side: they are all floats if all are numbers, and of two kinds.

    It matters where columns are sorted, which the rule does by the text of a value: 10000000000000000 is 1e+16 then.
    """
    kinds = {_kind(column) for column in columns}
    if len(kinds) == 1 or "other" in kinds:
        return list(columns)
    return [[None if cell is None else float(cell) for cell in column] for column in columns]


def columns_found(gold: Sequence[Column], predicted: Sequence[Column], ignore_order: bool) -> bool:
    """Tell whether each gold column is the same as one of the predicted ones, by Spider 2 lite's rule."""
    left, right = (
        [sorted(column, key=_as_text) if ignore_order else column for column in in_one_table(columns)]
        for columns in (gold, predicted)
    )
    if not gold[0] and not predicted:  # no row on either side
        return True
    return all(any(_same(column, other) for other in right) for column in left)


def _kind(column: Column) -> str:
    kinds = set(map(type, column))
    if kinds == {int}:
        return "whole"
    return "float" if kinds <= {float, type(None)} and kinds else "other"


def _as_text(cell: object) -> tuple[str, bool]:
    return ("nan", True) if cell is None else (str(cell), isinstance(cell, int | float))


def _same(gold: Column, predicted: Column) -> bool:
    return len(gold) == len(predicted) and all(map(_alike, gold, predicted))


def _alike(one: object, other: object) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        # Beside the tolerance this allows a billionth of the greater one, as the evaluator does.
        return math.isclose(one, other, abs_tol=TOLERANCE)
    return one == other


def _rows(columns: Sequence[Column]) -> list[tuple]:
    return list(zip(*columns, strict=True))
