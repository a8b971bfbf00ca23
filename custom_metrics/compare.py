"""When two results are the same."""

from collections import Counter
from collections.abc import Sequence


def bag_equal(gold: Sequence[tuple], predicted: Sequence[tuple]) -> bool:
    """Tell whether two results hold the same rows equally often, in whatever order (bag semantics).

    The order of rows is ignored, also where the gold query has an ORDER BY. The order of columns is kept, their names
    are not looked at. Values compare as SQLite gives them to Python:

    - numbers by value: 1 equals 1.0, and 0.1 + 0.2 does not equal 0.3; an integer beyond 2**53 equals a float only
      when the float is exactly that integer;
    - NULL equals NULL (SQLite has no NaN: it stores NULL instead);
    - a number never equals text (1 and '1'), text never equals a blob, and text compares by its characters, so
      upper and lower case differ.

    Two results without rows are equal, however many columns each would have had.
    """
    return len(gold) == len(predicted) and Counter(gold) == Counter(predicted)
