import pandas as pd
import pytest

from custom_metrics.judge import ERROR_CLASSES
from present.failures import MOST_DIFFERENCES, NEAR_MISSES, choose_failures, why
from present.format import LANGUAGES, Say, read_words

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


def record(error_class="wrong_rows", gold_rows=3, predicted_rows=3):
    return {"error_class": error_class, "gold_rows": gold_rows, "predicted_rows": predicted_rows}


def test_why_an_answer_failed_in_words():
    found = [("sort_direction", "DESC", "ASC"), ("columns", "name", "count(*)"), ("condition", "", "a = 'x'")]
    assert why(found, record(), Say("en")) == [
        "The sort direction is reversed, `ASC` in place of `DESC`; it selects `count(*)` in place of `name`; the "
        "condition `a = 'x'` is added.",
        "Both queries give the same number of rows (3), but not the same rows.",
    ]
    assert why([], record(predicted_rows=1200), Say("en")) == ["Rows of its result: 1,200; of the gold query's: 3."]
    # What did not run gave no rows, and what cannot be read cannot be compared.
    assert why(None, record("syntax_error", predicted_rows=float("nan")), Say("en")) == []
    many = why([("limit", str(i), "1") for i in range(9)], record("no_such_column"), Say("pt"))
    assert many[0].count("em vez de") == MOST_DIFFERENCES
    assert f"mais {9 - MOST_DIFFERENCES}." in many[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_difference_has_its_words(language):
    """Each sentence names what it has of gold and answer; a model's text in it is code, whatever it holds."""
    for kind, forms in read_words(language)["explain"].items():
        for form in forms:
            gold, answer = "g`|*" * (form != "extra"), "a<b>" * (form != "missing")
            (said,) = why([(kind, gold, answer)], record("no_such_column"), Say(language))
            assert not gold or "g\\`\\|\\*" in said
            assert not answer or "`a<b>`" in said
