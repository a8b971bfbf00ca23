"""The first rows of two results, small enough to keep and to show side by side, as values that JSON can hold."""

import math
from collections import Counter
from collections.abc import Sequence

# Of each result: the first rows, and after them the first rows that the other result lacks.
FIRST_ROWS = 10
OTHER_ROWS = 5
COLUMNS = 20
# Of one value or name, and of one result: a row that goes beyond is the last.
CHARACTERS = 100
RESULT_CHARACTERS = 4_000
# What a float can hold exactly, and so every reader of JSON.
LARGEST_INTEGER = 2**53

Rows = Sequence[tuple]


def preview(columns: Sequence[str], rows: Rows, others: Rows) -> dict:
    """Return a part of a result.

    Args:
        columns: names; also those of a result without rows.
        rows: of the result.
        others: rows of the result it is compared with, as bags (`compare`).

    Returns:
        `columns`, the number of `columns` in all as `width`, `rows` as pairs of an index from 0 and a list of values
        (`value`), and `unmatched`, the indices of those rows that have no equal among `others`: of three equal rows
        against two, the last. Empty where all rows would be: `others` has none, or another number of columns.
    """
    unmatched = _unmatched(rows, others)
    shown, size = [], 0
    for index in [*range(min(len(rows), FIRST_ROWS)), *(i for i in unmatched if i >= FIRST_ROWS)]:
        row = rows[index][:COLUMNS]
        shown.append([index, [value(cell) for cell in row]])
        size += sum(min(len(cell), CHARACTERS) if isinstance(cell, str | bytes) else 8 for cell in row)
        if size > RESULT_CHARACTERS:
            break
    return {
        "columns": [name[:CHARACTERS] for name in columns[:COLUMNS]],
        "width": len(columns),
        "rows": shown,
        "unmatched": [index for index, _ in shown if index in unmatched],
    }


def value(cell: object, characters: int = CHARACTERS) -> object:
    """Return a value of a result as one that survives JSON in any language.

    NULL, texts of up to so many `characters` and numbers that a double holds exactly stay what they are. A longer text
    becomes `{"text": its beginning, "length": characters}`, a blob `{"blob": its beginning in hexadecimal, "length":
    bytes}`, any other number `{"number": its digits}`.
    """
    match cell:
        case str():
            return cell if len(cell) <= characters else {"text": cell[:characters], "length": len(cell)}
        case bytes():
            return {"blob": cell[: characters // 2].hex(), "length": len(cell)}
        case int() if abs(cell) > LARGEST_INTEGER:
            return {"number": str(cell)}
        case float() if not math.isfinite(cell):
            return {"number": str(cell)}
    return cell


def _unmatched(rows: Rows, others: Rows) -> list[int]:
    """Return the indices of rows without an equal: all among the first rows, then `OTHER_ROWS` at most."""
    if not rows or not others or rows == others or len(rows[0]) != len(others[0]):
        return []
    left = Counter(others)
    found = []
    for index, row in enumerate(rows):
        if left[row] > 0:
            left[row] -= 1
        else:
            found.append(index)
            if len(found) >= OTHER_ROWS and found[-OTHER_ROWS] >= FIRST_ROWS:
                break
    return found
