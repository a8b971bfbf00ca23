import json
import math

import pytest

from custom_metrics.preview import CHARACTERS, COLUMNS, FIRST_ROWS, OTHER_ROWS, RESULT_CHARACTERS, preview, value


def indices(shown):
    return [index for index, _ in shown["rows"]]


def test_equal_results_show_their_first_rows():
    rows = [(n, "x") for n in range(100)]
    shown = preview(("n", "x"), rows, list(reversed(rows)))
    assert shown["columns"] == ["n", "x"]
    assert shown["rows"] == [[n, [n, "x"]] for n in range(FIRST_ROWS)]
    assert shown["unmatched"] == []


def test_rows_that_the_other_lacks_are_shown_wherever_they_are():
    rows = [(n,) for n in range(100)]
    others = [(n,) for n in range(100) if n not in (3, 50, 99)]
    shown = preview(("n",), rows, others)
    assert indices(shown) == [*range(FIRST_ROWS), 50, 99]
    assert shown["unmatched"] == [3, 50, 99]


def test_of_equal_rows_the_surplus_is_unmatched():
    assert preview(("n",), [(1,), (2,), (1,), (1.0,)], [(1,), (1,), (2,)])["unmatched"] == [3]


def test_few_of_many_different_rows_are_shown():
    shown = preview(("n",), [(n,) for n in range(1000)], [(-1,)])
    assert indices(shown) == list(range(FIRST_ROWS + OTHER_ROWS))
    assert shown["unmatched"] == indices(shown)


@pytest.mark.parametrize("others", [[], [(1, 2)]])
def test_where_no_row_can_have_an_equal_none_is_marked(others):
    assert preview(("n",), [(1,), (2,)], others)["unmatched"] == []


def test_an_empty_result_has_its_columns():
    assert preview(("a", "b"), [], [(1, 2)]) == {"columns": ["a", "b"], "width": 2, "rows": [], "unmatched": []}


def test_a_large_result_is_cut():
    wide = preview([f"c{n}" for n in range(1000)], [tuple(range(1000))] * 3, [])
    assert wide["width"] == 1000
    assert len(wide["columns"]) == len(wide["rows"][0][1]) == COLUMNS
    long = preview(["c" * 5000], [("x" * 10_000_000,)] * 500, [])
    assert long["columns"] == ["c" * CHARACTERS]
    assert len(json.dumps(long)) < 3 * RESULT_CHARACTERS
    full = preview([f"c{n}" for n in range(COLUMNS)], [("x" * CHARACTERS,) * COLUMNS] * 500, [(1,) * COLUMNS])
    assert len(full["rows"]) == RESULT_CHARACTERS // (CHARACTERS * COLUMNS) + 1
    assert full["unmatched"] == indices(full)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (None, None),
        ("", ""),
        ("\0\udc80é", "\0\udc80é"),
        ("x" * (CHARACTERS + 1), {"text": "x" * CHARACTERS, "length": CHARACTERS + 1}),
        (b"\x00\xff", {"blob": "00ff", "length": 2}),
        (2**53, 2**53),
        (2**53 + 1, {"number": "9007199254740993"}),
        (-(2**63), {"number": "-9223372036854775808"}),
        (0.1, 0.1),
        (-math.inf, {"number": "-inf"}),
    ],
)
def test_values_survive_json(cell, expected):
    assert value(cell) == expected
    assert json.loads(json.dumps(value(cell), allow_nan=False)) == expected
