import re

import pandas as pd
import pytest
from _study import CATEGORIES, draw, mmlu_records, spider_records, study, table_paths

from _files import UserError
from custom_metrics.judge import ERROR_CLASSES
from tables import tables


def run(folder, **arguments):
    """Write the tables; return the three CSV files as frames and the three pages."""
    paths = table_paths(folder)
    tables(outputs=paths, **arguments)
    names = ("execution_accuracy", "mmlu", "regression")
    frames = [pd.read_csv(paths[name], na_values=[""], keep_default_na=False) for name in names]
    return frames, [paths[f"{name}_md"].read_text(encoding="utf-8") for name in names]


def whole(accuracy):
    """Return the rows over all questions."""
    return accuracy[accuracy["questions"] == "aggregate"].reset_index(drop=True)


def two(folder, base, tuned, base_mmlu, tuned_mmlu):
    """A study of one adapter with the given right answers."""
    return {
        "spider": [spider_records(folder / "b.csv", base), spider_records(folder / "t.csv", tuned)],
        "mmlu": [mmlu_records(folder / "bm.csv", base_mmlu), mmlu_records(folder / "tm.csv", tuned_mmlu)],
        "study": "test",
        "runs": [
            {"model": "m", "variant": "base", "settings": {}},
            {"model": "m", "variant": "lr0.0001", "settings": {"training.learning_rate": 1e-4}},
        ],
        "confidence_level": 0.95,
        "semantics": "bag",
    }


def test_the_numbers_are_those_of_the_records(tmp_path):
    base, tuned = [1] * 40 + [0] * 60, [1] * 30 + [0] * 10 + [1] * 40 + [0] * 20
    mmlu_base, mmlu_tuned = [1] * 120 + [0] * 30, [1] * 100 + [0] * 50
    (accuracy, mmlu, regression), (accuracy_md, mmlu_md, regression_md) = run(
        tmp_path, **two(tmp_path, base, tuned, mmlu_base, mmlu_tuned)
    )
    assert accuracy["questions"].tolist() == [
        "aggregate", "easy", "medium", "hard", "extra", "gold_not_empty", "gold_empty",
    ] * 2  # fmt: skip
    assert accuracy["n"].tolist() == [100, 25, 25, 25, 25, 80, 20] * 2
    assert whole(accuracy)["correct"].tolist() == [40, 70]
    assert whole(accuracy)["accuracy_pct"].tolist() == [40.0, 70.0]
    assert whole(accuracy)["ci_low"].tolist() == pytest.approx([30.94, 60.42], abs=0.01)
    assert whole(accuracy)["bag_raw_correct"].tolist() == [40, 70]
    assert accuracy.loc[accuracy["questions"] == "easy", "correct"].tolist() == [10, 18]
    assert accuracy.loc[accuracy["questions"] == "gold_empty", "correct"].tolist() == [8, 14]
    assert whole(accuracy)["training.learning_rate"].tolist()[1] == 0.0001

    assert mmlu["category"].tolist() == ["aggregate", *CATEGORIES] * 2
    assert mmlu["n"].tolist() == [150, 50, 50, 50] * 2
    assert mmlu["correct"].tolist() == [120, 50, 50, 20, 100, 50, 50, 0]
    assert mmlu["invalid"].tolist()[:4] == [30, 0, 0, 30]

    assert regression["measure"].tolist() == ["execution_accuracy"] + ["mmlu"] * 4
    first, second, *_, last = regression.to_dict("records")
    assert (first["n"], first["gained"], first["lost"], first["difference_pp"]) == (100, 40, 10, 30.0)
    assert first["percent_change"] == pytest.approx(75.0)
    assert first["p_mcnemar"] < 1e-4
    assert first["p_holm"] == pytest.approx(2 * min(first["p_mcnemar"], second["p_mcnemar"]), rel=1e-6) or (
        first["p_holm"] == first["p_mcnemar"]
    )
    assert (first["verdict"], second["verdict"]) == ("better", "worse")
    assert second["percent_change"] == pytest.approx(100 * -20 / 120)
    assert (last["category"], last["difference_pp"], last["gained"], last["lost"]) == ("social_sciences", -40.0, 0, 20)
    assert last["p_holm"] == pytest.approx(3 * last["p_mcnemar"], rel=1e-6)
    # 40% of the social sciences: the interval (27.6 to 53.8) lies above chance, so a change in percent is given.
    assert last["percent_change"] == -100.0

    assert "n = 100 Spider questions" in accuracy_md
    assert "# Execution accuracy on Spider (bag semantics): test" in accuracy_md
    assert "Bag semantics: an answer is right if" in accuracy_md
    assert "sha256 `" in accuracy_md
    assert "| m       | base" in accuracy_md
    assert "40.0 (30.9 to 49.8)" in accuracy_md
    assert "n = 150 MMLU questions" in mmlu_md
    assert "+30.0 (" in regression_md
    assert "better" in regression_md


def test_the_headline_follows_the_semantics_and_all_are_shown(tmp_path):
    arguments = two(tmp_path, [1] * 20, [1] * 20, [1] * 6, [1] * 6)
    # The adapter gives right rows in other columns, half of them only after the SQL was taken out.
    columns = {"set": 0, "bag": 0, "ordered": 0, "set_raw": 0, "bag_raw": 0, "ordered_raw": 0, "test_suite_raw": 0}
    spider_records(tmp_path / "t.csv", [1] * 20, **columns, error_class="wrong_columns")
    pages = {}
    for semantics, right, verdict in (("bag", 0, "worse"), ("test_suite", 20, "not distinguishable at this n")):
        (accuracy, _, regression), _ = run(tmp_path, **arguments | {"semantics": semantics})
        pages[semantics] = (tmp_path / "execution_accuracy.md").read_text(encoding="utf-8")
        assert set(accuracy["semantics"]) == {semantics}
        tuned = whole(accuracy).iloc[1]
        assert (tuned["correct"], tuned["set_correct"], tuned["test_suite_correct"]) == (right, 0, 20)
        assert (tuned["test_suite_raw_correct"], tuned["columns_any_order_raw_correct"]) == (0, 20)
        spider = regression[regression["measure"] == "execution_accuracy"]
        assert spider["tuned_correct"].tolist() == [right]
        assert spider["verdict"].tolist() == [verdict]
    assert "Bag semantics: an answer is right if" in pages["bag"]
    assert "Test suite semantics: an answer is right if" in pages["test_suite"]
    for heading in ("Set %", "Bag %", "Ordered %", "Test suite %", "Columns in any order %", "Gold empty % (n = 4)"):
        assert heading in pages["bag"]


def test_error_classes_are_counted(tmp_path):
    arguments = two(tmp_path, [1, 0, 0, 0], [1, 1, 1, 0], [1] * 6, [1] * 6)
    run(tmp_path, **arguments)
    errors = pd.read_csv(tmp_path / "errors.csv")
    assert errors.groupby("variant")["n"].sum().tolist() == [4, 4]
    counts = errors.set_index(["variant", "error_class"])
    assert counts.loc[("base", "ok"), "n"] == 1
    assert counts.loc[("lr0.0001", "wrong_rows"), "share_pct"] == 25.0
    assert list(errors["error_class"][:16]) == list(ERROR_CLASSES)
    page = (tmp_path / "errors.md").read_text(encoding="utf-8")
    assert "`wrong_rows` |" in page
    assert "`timeout`" not in page


def test_bytes_are_the_same_again_and_know_no_path(tmp_path):
    arguments = study(tmp_path / "records", 2)
    for folder in ("one", "two"):
        tables(outputs=table_paths(tmp_path / folder), **arguments)
    for name, path in table_paths(tmp_path / "one").items():
        assert path.read_bytes() == table_paths(tmp_path / "two")[name].read_bytes()
        assert str(tmp_path) not in path.read_text(encoding="utf-8")
        assert b"\r" not in path.read_bytes()


@pytest.mark.parametrize("adapters", [0, 1, 30])
def test_any_number_of_adapters(tmp_path, adapters):
    (accuracy, mmlu, regression), (_, _, page) = run(tmp_path, **study(tmp_path, adapters))
    assert len(whole(accuracy)) == adapters + 1
    assert len(mmlu) == 4 * (adapters + 1)
    assert len(regression) == 5 * adapters
    assert list(regression.columns)[:2] == ["model", "variant"]
    assert ("no adapters" in page) == (adapters == 0)
    assert (regression["p_holm"] >= regression["p_mcnemar"] - 1e-12).all()


def test_several_models_are_each_compared_with_their_own_base(tmp_path):
    (accuracy, _, regression), _ = run(tmp_path, **study(tmp_path, 1, ("llama", "gemma")))
    by_run = whole(accuracy).set_index(["model", "variant"])["correct"]
    spider = regression[regression["measure"] == "execution_accuracy"]
    assert spider["model"].tolist() == ["llama", "gemma"]
    assert spider["base_correct"].tolist() == [by_run["llama", "base"], by_run["gemma", "base"]]


@pytest.mark.parametrize("share", [0, 1])
def test_all_wrong_and_all_right(tmp_path, share):
    same = [share] * 60
    (accuracy, mmlu, regression), (_, _, page) = run(tmp_path, **two(tmp_path, same, same, same, same))
    assert whole(accuracy)["accuracy_pct"].tolist() == [100.0 * share] * 2
    assert 0 <= accuracy["ci_low"][0] <= accuracy["ci_high"][0] <= 100
    assert mmlu["accuracy_pct"].tolist() == [100.0 * share] * 8
    assert set(regression["verdict"]) == {"not distinguishable at this n"}
    assert set(regression["p_holm"]) == {1.0}
    assert regression["percent_change"].isna().all() == (share == 0)
    assert bool(re.search(r"\| +n/a \|", page)) == (share == 0)


def test_a_base_at_chance_has_no_change_in_percent(tmp_path):
    (_, _, regression), _ = run(
        tmp_path, **two(tmp_path, [1, 0] * 50, [1, 0] * 50, ([1, 0, 0, 0] * 38)[:150], [1] * 150)
    )
    mmlu = regression[regression["measure"] == "mmlu"]
    assert mmlu["percent_change"].isna().all()
    assert (mmlu["verdict"] == "better").all()


def test_a_missing_category_and_missing_hardness(tmp_path):
    arguments = two(tmp_path, [1, 0], [0, 1], [1] * 20, [0] * 20)
    arguments["mmlu"] = [mmlu_records(tmp_path / f"{i}.csv", [i] * 20, ("stem",)) for i in (0, 1)]
    (accuracy, mmlu, regression), (page, _, _) = run(tmp_path, **arguments)
    assert mmlu["category"].tolist() == ["aggregate", "stem"] * 2
    assert regression["category"].tolist() == ["aggregate", "aggregate", "stem"]
    extra = accuracy[accuracy["questions"] == "extra"]
    assert extra["n"].tolist() == [0, 0]
    assert extra[["accuracy_pct", "set_pct", "set_raw_pct"]].isna().all(axis=None)
    assert "Extra" not in page
    assert "nan" not in page


def test_other_questions_are_refused(tmp_path):
    arguments = two(tmp_path, [1, 0, 1], [1, 0], [1] * 6, [1] * 6)
    with pytest.raises(
        UserError, match=r"t\.csv: lacks 1 questions \(dev-00002\) and has no question against .*b\.csv"
    ):
        run(tmp_path, **arguments)
    spider_records(tmp_path / "t.csv", [1, 0, 1], gold="SELECT 5")
    with pytest.raises(UserError, match=r"t\.csv, gold of dev-00000: differs from .*b\.csv"):
        run(tmp_path, **arguments)
    spider_records(tmp_path / "t.csv", [1, 0, 1])
    mmlu_records(tmp_path / "tm.csv", [1] * 5)
    with pytest.raises(UserError, match=r"tm\.csv: lacks .* and has "):
        run(tmp_path, **arguments)
    assert not table_paths(tmp_path)["regression"].exists()


def test_the_order_of_records_does_not_matter(tmp_path):
    arguments = two(tmp_path, draw(40, 0.4, 1), draw(40, 0.6, 2), draw(30, 0.7, 3), draw(30, 0.5, 4))
    frames, pages = run(tmp_path, **arguments)
    for path in (tmp_path / "t.csv", tmp_path / "tm.csv"):
        header, *lines = path.read_text().splitlines()
        path.write_text("\n".join([header, *reversed(lines)]) + "\n")
    again, pages_again = run(tmp_path, **arguments)
    assert pages == pages_again
    assert all(a.equals(b) for a, b in zip(frames, again, strict=True))


def test_bad_studies_are_refused(tmp_path):
    arguments = study(tmp_path, 1)
    with pytest.raises(UserError, match="no run called base"):
        run(tmp_path, **arguments | {"runs": [r | {"variant": f"v{i}"} for i, r in enumerate(arguments["runs"])]})
    with pytest.raises(UserError, match="expected one of each of 2 runs"):
        run(tmp_path, **arguments | {"mmlu": arguments["mmlu"][:1]})
    spider_records(arguments["spider"][0], [])
    with pytest.raises(UserError, match="has no records"):
        run(tmp_path, **arguments)


def test_names_cannot_break_a_table(tmp_path):
    arguments = two(tmp_path, [1, 0], [0, 1], [1] * 6, [0] * 6)
    for r in arguments["runs"]:
        r["model"] = "a|b"
    _, pages = run(tmp_path, **arguments)
    assert all("a\\|b" in page and "a|b" not in page for page in pages)
