import pandas as pd

from custom_metrics.judge import ERROR_CLASSES
from present.failures import NEAR_MISSES, choose_failures

HARDNESS = ("hardness", ("easy", "medium", "hard", "extra"))


def frame_of(*rows):
    """Return Spider records of these (id, right, class, hardness)."""
    names = ("id", "bag", "error_class", "hardness")
    return pd.DataFrame([dict(zip(names, row, strict=True)) for row in rows])


def test_failures_are_chosen_by_rule():
    tuned = frame_of(
        ("a", 1, "ok", "easy"),
        ("b", 0, "no_sql", "easy"),
        ("c", 0, "wrong_rows", "hard"),
        ("d", 0, "wrong_rows", "easy"),
        ("e", 0, "duplicate_only", "medium"),
        ("f", 0, "wrong_columns", "hard"),
        ("g", 0, "wrong_columns", "hard"),
    )
    # The base's records in another order, with b wrong and c right.
    base = frame_of(*[(i, int(i in "ac"), "ok", "easy") for i in "gfedcba"])
    chosen = [(rule, row["id"]) for rule, row in choose_failures(tuned, base, "bag", HARDNESS)]
    assert chosen == [("forgotten", "c"), ("commonest", "d"), ("near_miss", "f")]
    assert [rule for rule, _ in choose_failures(tuned, tuned, "bag", HARDNESS)] == ["commonest", "near_miss"]
    assert choose_failures(tuned[tuned["bag"] == 1], base, "bag", HARDNESS) == []
    # One wrong answer is shown once, by the first rule that it meets.
    assert [rule for rule, _ in choose_failures(tuned.iloc[[2]], base, "bag", HARDNESS)] == ["forgotten"]
    assert set(NEAR_MISSES) < set(ERROR_CLASSES)
