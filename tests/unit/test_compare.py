import pytest

from custom_metrics.compare import bag_equal


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
        ([(2**53 + 1,)], [(float(2**53),)], False),
        ([(2**53,)], [(float(2**53),)], True),
        ([(None,)], [(None,)], True),
        ([(None,)], [(0,)], False),
        ([(None,)], [("",)], False),
        ([(1,)], [("1",)], False),
        ([("a",)], [(b"a",)], False),
        ([("a",)], [("A",)], False),
        ([], [], True),
        ([], [(None,)], False),
    ],
)
def test_bag_equal(gold, predicted, equal):
    assert bag_equal(gold, predicted) is equal
    assert bag_equal(predicted, gold) is equal
