"""Which of the training rows a setting is trained on: so many, of each class equally many, whatever their order."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choose_rows import choose, choose_rows
from common.files import UserError, read_json, sha256_json, write_jsonl
from custom_metrics.hardness import LEVELS

ABOUT = {"name": "tasks.spider", "seed": 42}
SIZES = {"easy": 60, "medium": 40, "hard": 30, "extra": 5}
BALANCED = ABOUT | {"balance": "hardness", "column": "hardness"}
ROWS = [{"id": f"{level}-{n:05d}", "hardness": level} for level, size in SIZES.items() for n in range(size)]


def counts(ids):
    """How many of each level were chosen, whose name is in the id."""
    return Counter(name.partition("-")[0] for name in ids)


@given(st.permutations(ROWS), st.integers(len(SIZES), len(ROWS)), st.integers(0, 5))
def test_what_is_chosen_depends_on_ids_and_seed_alone(rows, number, seed):
    chosen, _ = choose(rows, BALANCED | {"count": number, "seed": seed})
    assert len(set(chosen)) == number
    assert chosen == [row["id"] for row in rows if row["id"] in set(chosen)]  # in the order of the file
    assert set(chosen) == set(choose(ROWS, BALANCED | {"count": number, "seed": seed})[0])


@pytest.mark.parametrize("settings", [ABOUT, BALANCED])
def test_fewer_rows_are_a_part_of_more_rows(settings):
    every = [set(choose(ROWS, settings | {"count": number})[0]) for number in range(4, len(ROWS) + 1)]
    assert all(few < more for few, more in itertools.pairwise(every))
    assert every[-1] == {row["id"] for row in ROWS}


@pytest.mark.parametrize("number", range(4, len(ROWS) + 1, 7))
def test_classes_are_equal_as_far_as_rows_suffice(number):
    chosen, facts = choose(ROWS, BALANCED | {"count": number})
    found = counts(chosen)
    assert facts["by"] == {level: {"chosen": found[level], "of": SIZES[level]} for level in sorted(LEVELS)}
    most = max(found.values())
    # Each has as many as the largest, or one less, or all that it has.
    assert all(found[level] in (most, most - 1, SIZES[level]) for level in SIZES)


def test_without_balance_classes_are_as_common_as_in_all_rows():
    chosen, facts = choose(ROWS, ABOUT | {"count": 90})
    assert facts == {}
    assert counts(chosen)["easy"] > counts(chosen)["hard"] > counts(chosen)["extra"]


def test_other_seeds_choose_other_rows():
    one, other = (set(choose(ROWS, ABOUT | {"count": 40, "seed": seed})[0]) for seed in (1, 2))
    assert one != other
    assert one & other


@pytest.mark.parametrize(("fraction", "number"), [(0.25, 34), (0.1, 14), (0.2, 27), (0.001, 1), (0.999, 135)])
def test_a_fraction_is_rounded_up(fraction, number):
    assert len(choose(ROWS, ABOUT | {"fraction": fraction})[0]) == number


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ABOUT | {"count": 136},
            "training.rows.count: found 136, expected at most 135, as many training rows as tasks",
        ),
        (BALANCED | {"count": 3}, r"rows.count: found 3, which is 3 rows, expected at least 4, one of each hardness"),
        (
            BALANCED | {"fraction": 0.01},
            r"rows.fraction: found 0.01, which is 2 rows, expected at least 4, one of each",
        ),
        (
            ABOUT | {"count": 9, "balance": "topic", "column": "topic"},
            r"training.rows.balance: row easy-00000 has no topic \(found None\), expected a text or a whole number",
        ),
    ],
)
def test_what_cannot_be_chosen_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        choose(ROWS, settings)


def test_one_class_alone_is_nothing_to_balance():
    with pytest.raises(UserError, match="found hardness, but it is easy in all 60 training rows"):
        choose([row for row in ROWS if row["hardness"] == "easy"], BALANCED | {"count": 9})


def test_what_was_chosen_is_written(tmp_path, capsys):
    rows = random.Random(0).sample(ROWS, len(ROWS))
    write_jsonl(tmp_path / "train.jsonl", rows)
    choose_rows(tmp_path / "train.jsonl", BALANCED | {"count": 60, "label": "60-hardness"}, tmp_path / "rows.json")
    found = read_json(tmp_path / "rows.json")
    assert found["ids"] == choose(rows, BALANCED | {"count": 60})[0]
    assert found["ids_sha256"] == sha256_json(found["ids"])
    assert {key: found[key] for key in ("name", "rows", "of", "settings")} == {
        "name": "60-hardness", "rows": 60, "of": 135, "settings": {"balance": "hardness", "count": 60, "seed": 42}
    }  # fmt: skip
    assert "Classes with too few rows, which give all (1): extra." in capsys.readouterr().out
