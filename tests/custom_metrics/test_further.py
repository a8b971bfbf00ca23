"""Tolerance, further columns and speed, against what Defog's and BIRD's evaluators compute."""

import math
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal, assert_series_equal

from custom_metrics import worker
from custom_metrics.cli import main
from custom_metrics.further import FURTHER, close, gold_columns, r_ves, reward
from custom_metrics.judge import Judge


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        ([(0.1 + 0.2,)], [(0.3,)], True),
        ([(100.0,)], [(100.0009,)], True),
        ([(100.0,)], [(100.0011,)], False),
        ([(0.0,)], [(9e-9,)], True),
        ([(0.0,)], [(2e-8,)], False),
        ([(1,)], [(1.000001,)], True),
        # Whole numbers are exact where a column has nothing else.
        ([(1_000_000,)], [(1_000_001,)], False),
        ([("a", 1.0), ("b", 1.0)], [("b", 1.000001), ("a", 1.0)], True),
        ([("a", 1.0), ("b", 2.0)], [("b", 1.0), ("a", 2.0)], False),
        ([(1.0,), (1.0,)], [(1.0,)], False),
        ([(None,), (1.0,)], [(1.0,), (None,)], True),
        ([(None,)], [(0.0,)], False),
        ([("1.0",)], [(1.0,)], False),
        ([(math.inf,)], [(math.inf,)], True),
        # Sorted, the first row of one side is not close to the first of the other.
        ([(1.0, 5.0), (1.000001, 3.0)], [(1.000001, 5.0), (1.0, 3.0)], True),
        ([], [], True),
        ([], [(1.0,)], False),
        ([(1.0,)], [(1.0, 2.0)], False),
    ],
)
def test_close(gold, predicted, expected):
    assert close(gold, predicted) is expected


def test_close_ends_on_many_rows_that_are_alike():
    rows = [(float(i % 7), float(i)) for i in range(3000)]
    assert close(rows, rows[::-1])
    assert not close(rows, [*rows[1:], (0.5, 0.5)])


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        ([(1,), (2,)], [("x", 2), ("y", 1)], True),
        ([(1, "x")], [("x", 7, 1)], True),
        ([(1,), (2,)], [("x", 2), ("y", 3)], False),
        ([(1, 2)], [(1,)], False),
        ([(1,)], [(1,), (1,)], False),
        ([(0.3,)], [("a", 0.1 + 0.2)], True),
        # Both columns have the same values; only the second has them in the right rows.
        ([("x", 1), ("y", 2)], [("x", 2, 1), ("y", 1, 2)], True),
        ([("x", 1), ("y", 2)], [("x", 2, 3), ("y", 1, 2)], False),
        ([], [], True),
        ([(1,)], [], False),
    ],
)
def test_gold_columns(gold, predicted, expected):
    assert gold_columns(gold, predicted) is expected


def frame(rows):
    return pd.DataFrame(rows, columns=[f"c{i}" for i in range(len(rows[0]))])


def defogs(gold, predicted):
    """What Defog's evaluator says, by its rules: for each column the first free one with close values, rows once."""
    sub, rest = frame(gold), frame(predicted)
    matched = []
    for name in sub:
        for other in rest.columns.difference(matched, sort=False):
            try:
                sides = [side.sort_values().reset_index(drop=True) for side in (sub[name], rest[other])]
                assert_series_equal(*sides, check_dtype=False, check_names=False)
            except AssertionError:
                continue
            matched.append(other)
            break
        else:
            return False
    chosen = rest[matched].set_axis(sub.columns, axis=1)
    sides = [side.drop_duplicates().sort_values(by=list(sub.columns)).reset_index(drop=True) for side in (sub, chosen)]
    try:
        assert_frame_equal(*sides, check_dtype=False)
    except AssertionError:
        return False
    return True


@st.composite
def results(draw):
    """Draw two results with columns of one kind each, the second often the first with columns moved and added."""
    kinds = (st.integers(0, 3), st.sampled_from([0.5, 1.5, 1.500001, 2.25]), st.sampled_from(["a", "b"]))
    width = draw(st.integers(1, 3))
    gold = draw(st.lists(st.tuples(*[draw(st.sampled_from(kinds)) for _ in range(width)]), min_size=1, max_size=5))
    if draw(st.booleans()):
        return gold, draw(st.lists(st.tuples(*[draw(st.sampled_from(kinds))] * width), min_size=1, max_size=5))
    order = draw(st.permutations(range(width)))
    extra = draw(st.lists(draw(st.sampled_from(kinds)), min_size=len(gold), max_size=len(gold)))
    predicted = [(new, *(row[i] for i in order)) for new, row in zip(extra, gold, strict=True)]
    return gold, draw(st.permutations(predicted))


@given(results())
def test_what_is_right_to_defogs_evaluator_is_right(pair):
    assert gold_columns(*pair) >= defogs(*pair)


def test_what_only_defogs_evaluator_misses():
    # It takes the first column with the same values, which has them in other rows.
    pair = [("x", 1), ("y", 2)], [("x", 2, 1), ("y", 1, 2)]
    assert gold_columns(*pair) and not defogs(*pair)


@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=120))
def test_the_reward_is_that_of_birds_evaluator(ratios):
    # As `clean_abnormal` and `iterated_execute_sql` compute it, but for ratios that are all the same.
    values = np.array(ratios)
    kept = values[(values < values.mean() + 3 * values.std()) & (values > values.mean() - 3 * values.std())]
    mean = kept.mean() if len(kept) else values.mean()
    if any(abs(mean - edge) < 1e-9 for edge in (2, 1, 0.5, 0.25)) or abs(values.std()) < 1e-9:
        return
    expected = 1.25 if mean >= 2 else 1.0 if mean >= 1 else 0.75 if mean >= 0.5 else 0.5 if mean >= 0.25 else 0.25
    assert reward([(ratio, 1.0) for ratio in ratios]) == expected


def test_rewards_by_hand():
    assert [reward([(ratio, 1.0)] * 100) for ratio in (3, 2, 1.5, 1, 0.7, 0.3, 0.1)] == [
        1.25, 1.25, 1.0, 1.0, 0.75, 0.5, 0.25,
    ]  # fmt: skip
    # One run in a hundred that was held up does not count.
    assert reward([(1.0, 1.0)] * 99 + [(1000.0, 1.0)]) == 1.0
    assert r_ves([1.0, 0.25, 0.0, 1.0]) == pytest.approx(100 * (1 + 0.5 + 0 + 1) / 4)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "database" / "shop"
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "shop.sqlite")) as connection:
        connection.executescript(
            "CREATE TABLE sale (item TEXT, price REAL); INSERT INTO sale VALUES ('a', 0.1), ('b', 0.2), ('c', 2.5);"
        )
    return folder / "shop.sqlite"


def test_a_judge_that_is_asked_for_them(files):
    gold = "SELECT item, price FROM sale"
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) SELECT item, price FROM sale "
    answers = ["SELECT item, price FROM sale", "SELECT item, price + 1e-9 FROM sale", "SELECT price, 1, item FROM sale"]
    answers += ["SELECT item FROM sale", "SELECT absent", slow + "WHERE (SELECT count(*) FROM n) > 1"]
    with Judge(timeout_s=20, further=("close", "gold_columns", "r_ves")) as judge:
        found = [verdict.further for verdict in judge.judge_all([(files, gold, answer) for answer in answers])]
        assert list(found[0]) == list(FURTHER)
    assert [one["close"] for one in found] == [1, 1, 0, 0, 0, 1]
    assert [one["gold_columns"] for one in found] == [1, 1, 1, 0, 0, 1]
    # Right and as fast, wrong, and right but many times slower.
    assert found[0]["r_ves"] >= 0.5 and [one["r_ves"] for one in found[1:5]] == [0] * 4
    assert found[5]["r_ves"] == 0.25
    with Judge() as judge:
        assert judge.judge(files, gold, gold).further == {}
    with pytest.raises(ValueError, match="found speed, expected some of close, gold_columns, r_ves"):
        Judge(further=["speed"])


def test_what_takes_too_long_to_compare_or_to_time_is_zero(files):
    gold, names = "SELECT item, price FROM sale", ["close", "gold_columns", "r_ves"]
    task = {"database": str(files), "gold": gold, "ordered": False, "fence": "last", "timeout_s": 5, "previews": False}
    task |= {"answer": "SELECT item, price + 1e-9 FROM sale", "further": names}
    error = ["too_large", "comparing the rows takes too long"]

    def further(**changes):
        return worker.assess(worker.Databases(), task | changes, lambda _: None)["verdict"]["further"]

    assert further(known={}) == {"close": 1, "gold_columns": 1, "r_ves": 0}
    assert further(known={"further": error}) == {"close": 0, "gold_columns": 0, "r_ves": 0}
    assert further(known={"timing": error}, answer=gold) == {"close": 1, "gold_columns": 1, "r_ves": 0}


def test_on_the_command_line(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    questions = '[{"db_id": "shop", "query": "SELECT price FROM sale"}, {"db_id": "shop", "query": "SELECT absent"}]'
    (tmp_path / "dev.json").write_text(questions, encoding="utf-8")
    (tmp_path / "answers.txt").write_text("SELECT price + 1e-9, item FROM sale\nSELECT 1\n", encoding="utf-8")
    command = ["score", "answers.txt", "--questions", "dev.json", "--databases", "database", "--out", "a.csv"]
    assert main([*command, "--further", "r_ves", "gold_columns"]) == 0
    printed = capsys.readouterr().out
    assert "Further criteria" in printed and "BIRD's R-VES: 0.0" in printed
    records = pd.read_csv("a.csv")
    assert list(records.columns[-2:]) == ["gold_columns", "r_ves"]
    assert list(records["gold_columns"]) == [1, 0] and list(records["r_ves"]) == [0, 0]
    assert main(["compare", "a.csv", "a.csv", "--semantics", "gold_columns"]) == 0
    assert main(command) == 0
    assert "Further criteria" not in capsys.readouterr().out
