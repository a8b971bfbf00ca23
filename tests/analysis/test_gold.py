"""Between which bounds the faults of gold queries leave an accuracy."""

import pytest

from _study import MEASURES, TASKS, as_inputs, certificates, study
from gold import gold
from present.format import LANGUAGES
from present.values import read_table
from tasks.records import read_records

SQL = {"spider": TASKS["spider"]}


@pytest.fixture
def made(tmp_path):
    """Ten questions: the rows of two are open, the order of one, one gives no rows, and one does not run."""
    arguments = study(tmp_path / "made", 1, n=10)
    opened = ["rows", "rows", "order", "", "unknown", *[""] * 5]
    rows = [1, 1, 3, 0, None, *[1] * 5]
    wrong = {name: [1, 1, 1, 1, 0, *[1] * 5] for name in ("set", "bag", "ordered", "test_suite", "columns_any_order")}
    path = certificates(tmp_path / "gold.csv", arguments["spider"][0], open=opened, gold_rows=rows, **wrong)
    return arguments, path


def table(folder, made, **settings):
    arguments, path = made
    records, about = as_inputs(arguments)
    outputs = {"csv": folder / "table.csv", "md": folder / "table.md"}
    inputs = {"spider": records["spider"], "certified_spider": path}
    gold(inputs, outputs, about | {"tasks": SQL} | settings)
    return read_table(outputs["csv"]), outputs["md"].read_text(encoding="utf-8")


def test_the_gold_queries_have_a_ceiling_and_a_least(tmp_path, made):
    frame, _ = table(tmp_path, made)
    own = frame[frame["variant"] == "gold"].set_index("criterion")
    assert own["correct"].tolist() == [9] * 5
    assert own["high_pct"].tolist() == own["accuracy_pct"].tolist() == [90.0] * 5
    # Three are in doubt by every criterion, and one more where order counts.
    assert own["doubtful"].to_dict() == {"set": 3, "bag": 3, "ordered": 4, "test_suite": 4, "columns_any_order": 3}
    assert own["low_pct"].tolist() == [70.0, 70.0, 60.0, 60.0, 70.0]
    counts = own.loc["bag", ["failed", "empty", "rows_open", "order_open", "unknown"]]
    assert counts.tolist() == [1, 1, 2, 1, 1]


def test_a_run_lies_between_all_in_doubt_wrong_and_all_in_doubt_right(tmp_path, made):
    arguments, _ = made
    frame, _ = table(tmp_path, made)
    for path, run in zip(arguments["spider"], arguments["runs"], strict=True):
        right = read_records(path, MEASURES["spider"].columns)["bag"].tolist()
        row = frame[frame["variant"] == run["variant"]].iloc[0]
        assert row["criterion"] == "bag"
        assert row["correct"] == sum(right)
        assert row["low_pct"] == pytest.approx(10 * sum(right[n] for n in (2, *range(5, 10))))
        assert row["high_pct"] == pytest.approx(10 * (3 + sum(right[n] for n in (2, 3, *range(5, 10)))))


def test_certificates_are_joined_by_id(tmp_path, made):
    arguments, path = made
    before, _ = table(tmp_path, made)
    head, *rows = path.read_text(encoding="utf-8").splitlines(True)
    path.write_text("".join([head, *reversed(rows)]), encoding="utf-8")
    after, _ = table(tmp_path, (arguments, path))
    assert before.equals(after)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_says_what_the_table_says(tmp_path, made, language):
    _, page = table(tmp_path, made, language=language)
    separator = "," if language == "pt" else "."
    shown = f"90{separator}0 (70{separator}0 {'a' if language == 'pt' else 'to'} 90{separator}0)"
    assert page.count(shown) == 3
    assert all(f"| {run['variant']} " in page for run in made[0]["runs"])
    assert "data/<task>/gold.csv" in page
