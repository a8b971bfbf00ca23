import random
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custom_metrics import compare
from custom_metrics.compare import (
    bag_equal,
    columns_any_order_equal,
    matching_columns,
    soft_f1,
    suite_equal,
    verdicts,
)


@pytest.mark.parametrize(
    ("gold", "predicted", "equal"),
    [
        ([(1,), (2,)], [(2,), (1,)], True),  # row order
        ([(1,), (1,), (2,)], [(1,), (2,)], False),  # multiplicity, fewer rows
        ([(1,), (1,), (2,)], [(1,), (2,), (2,)], False),  # multiplicity, same number of rows
        ([(1, 2)], [(2, 1)], False),  # column order
        ([(1,)], [(1, 1)], False),
        ([(1,)], [(1.0,)], True),
        ([(0.1 + 0.2,)], [(0.3,)], False),
        ([(0.0,)], [(-0.0,)], True),
        ([(float("inf"),)], [(float("inf"),)], True),
        ([(2**53 + 1,)], [(float(2**53),)], False),
        ([(2**53,)], [(float(2**53),)], True),
        ([(None,)], [(None,)], True),
        ([(None,)], [(0,)], False),
        ([(None,)], [("",)], False),
        ([(1,)], [("1",)], False),
        ([("a",)], [(b"a",)], False),
        ([("a",)], [("A",)], False),
        ([("a",)], [("a ",)], False),
        ([], [], True),
        ([], [(None,)], False),
    ],
)
def test_bag_equal(gold, predicted, equal):
    assert bag_equal(gold, predicted) is equal
    assert bag_equal(predicted, gold) is equal
    # Values compare alike everywhere, and these differ in values or in what all semantics but `set` look at.
    if len(gold) < 2 and gold != [(1, 2)]:
        everywhere = verdicts(gold, predicted, True) | {"test_suite": suite_equal(gold, predicted, True)}
        assert set(everywhere.values()) == {equal}


A, B = [(1, "x"), (2, "y"), (2, "y")], [(2, "y"), (1, "x"), (2, "y")]


def test_where_the_semantics_part():
    assert verdicts(A, B, True) == {"set": True, "bag": True, "ordered": False, "columns_any_order": True}
    assert verdicts(A, B, False) == {"set": True, "bag": True, "ordered": True, "columns_any_order": True}
    assert verdicts(A, B[:2], True) == {"set": True, "bag": False, "ordered": False, "columns_any_order": False}
    turned = [row[::-1] for row in A]
    assert verdicts(A, turned, False) == {"set": False, "bag": False, "ordered": False, "columns_any_order": True}
    assert suite_equal(A, turned, True)
    assert suite_equal(A, [row[::-1] for row in B], False)
    assert not suite_equal(A, B, True)
    assert not suite_equal(A, B[:2], False)
    # One order of the columns for all rows, not one for each.
    assert not columns_any_order_equal([(1, 2), (3, 4)], [(1, 2), (4, 3)])
    assert not suite_equal([(1, 2), (3, 4)], [(1, 2), (4, 3)], False)


def test_oddities_of_the_official_evaluator():
    assert suite_equal([], [], True)
    assert not suite_equal([(1, 2)], [(1, 2, 3)], False)
    # Its quick rejection sorts by text: "1" after "1.5", "1.0" before it.
    assert not suite_equal([(1, 1.5)], [(1.0, 1.5)], False)
    assert suite_equal([(1, 2.5)], [(1.0, 2.5)], False)
    # It reads text without the bytes that are no UTF-8.
    assert suite_equal([("a\udcffb",)], [("ab",)], False)
    assert not bag_equal([("a\udcffb",)], [("ab",)])


def test_matching_columns():
    assert matching_columns([("x", 1), ("y", 2)], [(1, "a", "x"), (2, "b", "y")]) == [2, 0]
    assert matching_columns([(1,), (2,)], [(3, 1), (4, 1)]) is None
    # All columns hold the same values equally often; only the rows tell them apart.
    few = [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 0)]
    many = [(row[2], row[0], row[1]) for row in few]
    found = matching_columns(few, many)
    assert sorted(tuple(row[i] for i in found) for row in many) == sorted(few)


def test_many_columns_take_no_permutations():
    generator = random.Random(1)
    rows = [tuple(generator.randrange(2) for _ in range(60)) for _ in range(300)]
    order = generator.sample(range(60), 60)
    turned = [tuple(row[i] for i in order) for row in rows]
    generator.shuffle(turned)
    assert columns_any_order_equal(rows, turned)
    assert suite_equal(rows, turned, False)
    spoiled = [*turned[:-1], tuple(1 - value for value in turned[-1])]
    assert not columns_any_order_equal(rows, spoiled)
    # 2,000 columns that are all the same, as many as SQLite can give.
    assert columns_any_order_equal([(1,) * 1999 + (2,)], [(2,) + (1,) * 1999])


def test_a_search_that_takes_too_long_ends_as_not_equal(monkeypatch):
    # A row for each edge of a hexagon and of two triangles: every column has two ones, every two rows look alike, and
    # no order of columns turns one into the other.
    edges = [(i, (i + 1) % 6) for i in range(6)]
    cycle = [tuple(int(i in edge) for i in range(6)) for edge in edges]
    edges = [(i, i // 3 * 3 + (i + 1) % 3) for i in range(6)]
    triangles = [tuple(int(i in edge) for i in range(6)) for edge in edges]
    assert not columns_any_order_equal(cycle, triangles)
    turned = [(row[1], row[0], *row[2:]) for row in cycle]
    assert columns_any_order_equal(cycle, turned)
    monkeypatch.setattr(compare, "MAX_SEARCH", 10)
    assert matching_columns(cycle, turned) is None
    # What is equal as it stands needs no search.
    assert columns_any_order_equal(cycle, cycle[::-1])


VALUES = st.one_of(
    st.none(),
    st.integers(-2, 2),
    st.sampled_from([0.5, 1.0, -0.0, 2.0, 1.5]),
    st.sampled_from(["", "1", "a"]),
    st.just(b"a"),
)


@st.composite
def results(draw):
    width = draw(st.integers(1, 4))
    return draw(st.lists(st.tuples(*[VALUES] * width), max_size=6))


@st.composite
def pairs(draw):
    """Draw two results that are often alike: with rows left out, doubled, moved, or columns moved."""
    gold = draw(results())
    if not gold or draw(st.booleans()):
        return gold, draw(results())
    order = draw(st.permutations(range(len(gold[0])))) if draw(st.booleans()) else range(len(gold[0]))
    rows = draw(st.lists(st.sampled_from(gold), max_size=7)) if draw(st.booleans()) else draw(st.permutations(gold))
    return gold, [tuple(row[i] for i in order) for row in rows]


def ordered_equal(gold, predicted, ordered):
    return gold == predicted if ordered else bag_equal(gold, predicted)


@given(results(), st.booleans())
def test_a_result_equals_itself(rows, ordered):
    assert all(verdicts(rows, list(rows), ordered).values())
    assert suite_equal(rows, list(rows), ordered)


@given(pairs(), st.booleans(), st.randoms())
def test_the_order_of_rows_counts_only_where_it_should(pair, ordered, generator):
    gold, predicted = pair
    shuffled = generator.sample(predicted, len(predicted))
    before, after = verdicts(gold, predicted, ordered), verdicts(gold, shuffled, ordered)
    for name in ("set", "bag", "columns_any_order"):
        assert before[name] == after[name]
    assert verdicts(gold, predicted, False) == verdicts(gold, shuffled, False)
    assert suite_equal(gold, predicted, False) == suite_equal(gold, shuffled, False)


@given(pairs(), st.booleans())
def test_what_is_stricter_implies_what_is_looser(pair, ordered):
    gold, predicted = pair
    correct = verdicts(gold, predicted, ordered)
    assert correct["ordered"] <= correct["bag"] <= correct["set"]
    assert correct["bag"] <= correct["columns_any_order"]
    assert correct == {
        "set": set(gold) == set(predicted),
        "bag": bag_equal(gold, predicted),
        "ordered": ordered_equal(gold, predicted, ordered),
        "columns_any_order": columns_any_order_equal(gold, predicted),
    }


@given(results(), st.data())
def test_columns_in_any_order(rows, data):
    order = data.draw(st.permutations(range(len(rows[0]) if rows else 0)))
    turned = data.draw(st.permutations([tuple(row[i] for i in order) for row in rows]))
    assert verdicts(rows, turned, False)["columns_any_order"]


@given(pairs(), st.booleans())
def test_the_search_finds_what_trying_all_finds(pair, ordered):
    gold, predicted = pair
    tried = [
        [tuple(row[i] for i in order) for row in predicted]
        for order in permutations(range(len(predicted[0]) if predicted else 0))
    ]
    assert columns_any_order_equal(gold, predicted) == any(bag_equal(gold, rows) for rows in tried)
    if gold and predicted and not any(isinstance(v, float) for row in gold + predicted for v in row):
        expected = any(ordered_equal(gold, rows, ordered) for rows in tried)
        assert suite_equal(gold, predicted, ordered) == expected


# Random results, and what `calculate_f1_score` of bird-bench/mini_dev returned for them.
SOFT_F1 = [
    ([(1, 1, 1), (1.0, 1, "a")], [("a",)], 0),
    ([(2, "a", "a"), (1.0, 2, None), (2, 2, "a"), (None, 1, "a")], [(1,), (2,), (None,), (1,)], 0.133333333),
    ([("a", 1.0, 2), (None, None, 1.0), ("a", 1.0, "a"), (1.0, 1, "a")], [("a", "a")], 0.266666667),
    ([(1.0, None, 1), ("a", 1.0, 1)], [(1.0,)], 0.333333333),
    ([(1, "a"), (1, None), (1.0, 1.0)], [("a", 2), (2, 1.0), (2, 1), (2, 1.0)], 0.4),
    ([(1.0, None, 1.0), (None, "a", None), (1.0, 1.0, 1)], [(1.0,), (2,), (1.0,)], 0.2),
    ([(1, "a", None), (1.0, 1.0, 2), (1.0, "a", "a")], [("a",), (None,)], 0.181818182),
    ([(1.0,), (1.0,), (None,), ("a",)], [(1, 2, 2), (1.0, 1.0, 2), (1, 1.0, None), (1, 1, 1)], 0.153846154),
    ([], [(2, None), (1, 1.0)], 0),
    ([(1,), (2,)], [(None, 1.0)], 0.5),
    ([(None,), ("a",)], [("a", "a", 1), (1, None, "a")], 0.25),
    ([(None, 1)], [(1.0, 2), (1.0, "a")], 0.333333333),
    ([], [], 1),
    ([(1,)], [], 0),
]


@pytest.mark.parametrize(("gold", "predicted", "expected"), SOFT_F1)
def test_soft_f1_is_that_of_birds_evaluator(gold, predicted, expected):
    assert soft_f1(gold, predicted) == pytest.approx(expected, abs=1e-9)
