import json
import math
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from _study import (
    CATEGORIES,
    TABLES,
    TASKS,
    draw,
    mmlu_records,
    spider_records,
    study,
    table_paths,
    with_shots,
    write_tables,
)
from analysis.compare import SAME, judge
from common.files import UserError
from cost import cost
from custom_metrics.judge import ERROR_CLASSES
from present.format import VERDICTS
from present.values import is_point, is_prompted, read_table, trained

EIGHT = tuple("abcdefgh")


def run(folder, **arguments):
    """Write the tables; return the three CSV files as frames and the three pages."""
    paths = table_paths(folder)
    write_tables(outputs=paths, **arguments)
    names = ("spider", "mmlu", "regression")
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
    }


def test_macro_averages_weigh_all_subjects_alike(tmp_path):
    """Six subjects of 10, 20, …, 60 questions; the tuned model loses five of the smallest and of the largest."""
    sizes = [10, 20, 30, 40, 50, 60]
    subjects = [f"s{i}" for i, size in enumerate(sizes) for _ in range(size)]
    base = [1] * 210
    tuned = [0] * 5 + [1] * 145 + [0] * 5 + [1] * 55
    arguments = two(tmp_path, [0, 1] * 20, [1, 1] * 20, base, tuned)
    for path, right in zip(arguments["mmlu"], (base, tuned), strict=True):
        mmlu_records(path, right, ("all",), subjects)
    (_, mmlu, regression), (_, page, _) = run(tmp_path, **arguments)
    row = mmlu[(mmlu["variant"] != "base") & (mmlu["category"] == "aggregate")].iloc[0]
    changes = np.array([-0.5, 0, 0, 0, 0, -1 / 12])
    assert row["subjects"] == 6
    assert row["accuracy_pct"] == pytest.approx(100 * 200 / 210)
    assert row["macro_accuracy_pct"] == pytest.approx(100 * (1 + changes.mean()))
    assert row["macro_difference_pp"] == pytest.approx(100 * changes.mean())
    low, high = row["macro_difference_ci_low_pp"], row["macro_difference_ci_high_pp"]
    # Student's t over the six subjects, but for the two questions that are added, which draw it a little towards 0.
    half = student.ppf(0.975, 5) * changes.std(ddof=1) / math.sqrt(6)
    assert (high - low) / 2 == pytest.approx(100 * half, rel=0.02)
    assert (high + low) / 2 == pytest.approx(100 * changes.mean() * 210 / 212)
    assert mmlu.loc[mmlu["variant"] == "base", "macro_difference_pp"].isna().all()
    assert regression.loc[regression["task"] == "mmlu", "difference_pp"].iloc[0] == pytest.approx(-1000 / 210)
    assert "Macro % (interval)" in page
    assert f"{row['macro_accuracy_pct']:.1f} (" in page
    assert "mean over the 6 subjects" in page


def test_one_average_where_micro_and_macro_are_one(tmp_path):
    (_, mmlu, _), (_, page, _) = run(tmp_path, **two(tmp_path, [0, 1] * 20, [1, 1] * 20, [1, 0] * 30, [1, 1] * 30))
    assert mmlu["macro_accuracy_pct"].tolist() == mmlu["accuracy_pct"].tolist()
    assert mmlu["macro_ci_low"].tolist() == pytest.approx(mmlu["ci_low"].tolist())
    assert "Macro" not in page


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

    assert regression["task"].tolist() == ["spider"] + ["mmlu"] * 4
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
    assert "# Execution accuracy on Spider (bag criterion): test" in accuracy_md
    assert "Bag criterion: an answer is right if" in accuracy_md
    assert "sha256 `" in accuracy_md
    assert "| m       | base" in accuracy_md
    assert "40.0 (30.9 to 49.8)" in accuracy_md
    assert "n = 150 MMLU questions" in mmlu_md
    assert "+30.0 (" in regression_md
    assert "better" in regression_md


def test_the_headline_follows_the_criterion_and_all_are_shown(tmp_path):
    arguments = two(tmp_path, [1] * 20, [1] * 20, [1] * 6, [1] * 6)
    # The adapter gives right rows in other columns, half of them only after the SQL was taken out.
    columns = {"set": 0, "bag": 0, "ordered": 0, "set_raw": 0, "bag_raw": 0, "ordered_raw": 0, "test_suite_raw": 0}
    spider_records(tmp_path / "t.csv", [1] * 20, **columns, error_class="wrong_columns")
    pages = {}
    for criterion, right, verdict in (("bag", 0, "worse"), ("test_suite", 20, "not distinguishable at this n")):
        (accuracy, _, regression), _ = run(tmp_path, **arguments | {"criterion": criterion})
        pages[criterion] = (tmp_path / "spider.md").read_text(encoding="utf-8")
        assert set(accuracy["criterion"]) == {criterion}
        tuned = whole(accuracy).iloc[1]
        assert (tuned["correct"], tuned["set_correct"], tuned["test_suite_correct"]) == (right, 0, 20)
        assert (tuned["test_suite_raw_correct"], tuned["columns_any_order_raw_correct"]) == (0, 20)
        spider = regression[regression["task"] == "spider"]
        assert spider["tuned_correct"].tolist() == [right]
        assert spider["verdict"].tolist() == [verdict]
    assert "Bag criterion: an answer is right if" in pages["bag"]
    assert "Test suite criterion: an answer is right if" in pages["test_suite"]
    for heading in ("Set %", "Bag %", "Ordered %", "Test suite %", "Columns in any order %", "Gold empty (n = 4) %"):
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
        write_tables(outputs=table_paths(tmp_path / folder), **arguments)
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
    spider = regression[regression["task"] == "spider"]
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
    assert bool(re.search(r"\| +n/a \| +0 / 0 \|", page)) == (share == 0)
    exchange = (tmp_path / "exchange.md").read_text(encoding="utf-8")
    assert exchange.count("n/a: gain not distinguishable from 0") == 1


def test_a_base_at_chance_has_no_change_in_percent(tmp_path):
    (_, _, regression), _ = run(
        tmp_path, **two(tmp_path, [1, 0] * 50, [1, 0] * 50, ([1, 0, 0, 0] * 38)[:150], [1] * 150)
    )
    mmlu = regression[regression["task"] == "mmlu"]
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
    assert "Extra (" not in page
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


def settings_of(seed=None, **values):
    """Return the settings of one run, by their places in the configuration."""
    places = {"lr": "training.learning_rate", "r": "lora.r"}
    return {places[name]: value for name, value in values.items()} | ({"training.seed": seed} if seed else {})


def sweep(folder, answers, made=None, **kwargs):
    """Write a study; `answers` has (settings, Spider answers, MMLU answers) of each adapter, the base first.

    The adapter at the place `made` is a ready-made one.
    """
    folder.mkdir(exist_ok=True)
    runs, spider, mmlu = [], [], []
    for number, (settings, on_spider, on_mmlu) in enumerate(answers):
        name = "-".join(f"{place.rsplit('.', 1)[1]}{value}" for place, value in settings.items()) or "adapter"
        runs.append({"model": "m", "variant": name if number else "base", "settings": settings})
        if number == made:
            runs[-1] |= {"variant": "public", "ready_made": True}
        spider.append(spider_records(folder / f"{number}-spider.csv", on_spider, databases=EIGHT))
        mmlu.append(mmlu_records(folder / f"{number}-mmlu.csv", on_mmlu, subjects=EIGHT))
    paths = table_paths(folder)
    arguments = {"spider": spider, "mmlu": mmlu, "study": "test", "runs": runs, "confidence_level": 0.95}
    write_tables(outputs=paths, **arguments | kwargs)
    return {name: read_table(paths[name]) for name in TABLES}


def test_changes_on_one_database_are_no_verdict_on_others(tmp_path):
    base = [0] * 160
    everywhere = [int(i < 80) for i in range(160)]
    one = [int(i % 8 == 0) for i in range(160)]
    for tuned, verdict in ((everywhere, "better"), (one, SAME)):
        regression = sweep(tmp_path, [({}, base, [1, 0] * 40), ({}, tuned, [1, 0] * 40)])["regression"]
        row = regression.iloc[0]
        assert row["p_mcnemar"] < 0.001
        assert (row["unit"], row["clusters"], row["verdict"]) == ("database", 8, verdict)
        assert row["p_holm"] == pytest.approx(min(1, 2 * row["p_clustered"]))
        assert (row["ci_low_pp"] > 0) == (verdict == "better")
        assert row["bootstrap_low_pp"] <= row["difference_pp"] <= row["bootstrap_high_pp"]


def test_few_subjects_are_marked(tmp_path):
    run(tmp_path, **two(tmp_path, [1, 0] * 30, [0, 1] * 30, [1] * 30, [0] * 30))
    regression = read_table(tmp_path / "regression.csv")
    assert set(regression["unit"]) == {"question"}
    assert regression["p_clustered"].isna().all()
    assert regression["bootstrap_low_pp"].isna().all()
    page = (tmp_path / "regression.md").read_text(encoding="utf-8")
    assert "worse †" in page
    assert "† These questions come from fewer than five databases or subjects" in page
    sweep(tmp_path, [({}, [1, 0] * 40, [1] * 80), ({}, [0, 1] * 40, [0] * 80)])
    assert "†" not in (tmp_path / "regression.md").read_text(encoding="utf-8")


def test_parts_add_up(tmp_path):
    base, tuned = draw(200, 0.4, 1), draw(200, 0.6, 2)
    found = sweep(tmp_path, [({}, base, draw(90, 0.5, 3)), ({}, tuned, draw(90, 0.4, 4))])
    flips, whole = found["flips"], found["regression"].iloc[0]
    for part in ("aggregate", "hardness", "database"):
        rows = flips[(flips["task"] == "spider") & (flips["part"] == part)]
        assert rows[["gained", "lost", "n"]].sum().tolist() == [whole["gained"], whole["lost"], 200]
        assert (rows[["both_right", "gained", "lost", "both_wrong"]].sum(axis=1) == rows["n"]).all()
        assert (rows["both_right"] + rows["gained"]).sum() == sum(tuned)
    mmlu = flips[flips["task"] == "mmlu"].groupby("part")["n"].sum()
    assert mmlu.to_dict() == {"aggregate": 90, "category": 90, "subject": 90}
    confusion = found["confusion"].set_index(["base_class", "tuned_class"])["n"]
    assert confusion["ok", "wrong_rows"] == whole["lost"]
    assert confusion["wrong_rows", "ok"] == whole["gained"]
    assert confusion.sum() == 200
    databases = found["databases"]
    adapter = databases[databases["variant"] != "base"]
    assert adapter["correct"].sum() == sum(tuned)
    assert (adapter["correct"] - adapter["base_correct"] == adapter["gained"] - adapter["lost"]).all()
    assert databases.loc[databases["variant"] == "base", "base_correct"].isna().all()


def test_the_exchange_rate_is_given_where_a_gain_is_shown(tmp_path):
    base, more, fewer = [0] * 80 + [1] * 80, [0] * 20 + [1] * 140, [0] * 140 + [1] * 20
    known, forgotten = [1] * 160, [1] * 120 + [0] * 40
    found = sweep(
        tmp_path,
        [({"lora.r": r}, spider, mmlu) for r, spider, mmlu in (
            (0, base, known), (1, more, forgotten), (2, base, forgotten), (3, fewer, forgotten), (4, more, known)
        )],
    )["exchange"]  # fmt: skip
    # 25 points lost for 37.5 gained.
    assert found["exchange_rate"].tolist()[0] == pytest.approx(2 / 3)
    assert 0 < found["ci_low"][0] < 2 / 3 < found["ci_high"][0]
    assert found["note"].tolist() == ["", "gain not distinguishable from 0", "accuracy fell", ""]
    assert found["exchange_rate"].isna().tolist() == [False, True, True, False]
    assert (found["exchange_rate"][3], found["loss_pp"].tolist()) == (0, [25, 25, 25, 0])
    page = (tmp_path / "exchange.md").read_text(encoding="utf-8")
    assert "n/a: accuracy on the target fell" in page
    assert not re.search(r"\| *[-\N{MINUS SIGN}+]0\.0 ", page)


def test_factors_are_averaged_over_what_else_is_swept(tmp_path):
    base, mmlu = [0] * 160, [1] * 80
    right = {(1e-4, 8): 40, (1e-4, 16): 48, (1e-3, 8): 104, (1e-3, 16): 112}
    answers = [({}, base, mmlu)]
    for (lr, r), k in right.items():
        answers += [(settings_of(seed, lr=lr, r=r), [1] * k + [0] * (160 - k), mmlu) for seed in (1, 2)]
    found = sweep(tmp_path, answers)["factors"]
    spider = found[found["task"] == "spider"].set_index("axis")
    assert list(spider.index) == ["training.learning_rate", "lora.r"]
    assert spider["pairs"].tolist() == [4, 4]
    assert spider["difference_pp"].tolist() == pytest.approx([40.0, 5.0])
    assert spider[["low", "high"]].values.tolist() == [["0.0001", "0.001"], ["8", "16"]]
    assert spider["verdict"]["training.learning_rate"] == "higher"
    assert (found.loc[found["task"] == "mmlu", "verdict"] == SAME).all()


def with_points(arguments, folder):
    """Add two strengths of the first adapter, a step of it and a soup to what `study` returned."""
    first = arguments["runs"][1]["variant"]
    points = {
        f"{first}@0.5": {"of": [first], "strength": 0.5},
        f"{first}@2": {"of": [first], "strength": 2.0},
        f"{first}@step50": {"of": [first], "step": 50},
        "soup-both": {"of": [run["variant"] for run in arguments["runs"][1:3]], "soup": "both"},
    }
    for number, (name, point) in enumerate(points.items()):
        settings = arguments["runs"][1]["settings"] if len(point["of"]) == 1 else {}
        arguments["runs"].append({"model": "demo", "variant": name, "settings": settings, "point": point})
        arguments["spider"].append(spider_records(folder / f"p{number}.csv", draw(200, 0.6, 50 + number)))
        arguments["mmlu"].append(mmlu_records(folder / f"pm{number}.csv", draw(150, 0.3, 60 + number)))
    return arguments


def test_points_change_no_row_of_an_adapter(tmp_path):
    def written(folder, arguments):
        paths = table_paths(folder)
        write_tables(outputs=paths, **arguments)
        return paths, {name: read_table(paths[name]) for name in TABLES}

    _, before = written(tmp_path / "before", study(tmp_path / "a", 2))
    paths, after = written(tmp_path / "after", with_points(study(tmp_path / "b", 2), tmp_path))
    for name, frame in after.items():
        pd.testing.assert_frame_equal(trained(frame), before[name], check_dtype=False)
    # Seeds and swept settings compare what was trained.
    assert after["factors"].equals(before["factors"])
    points = after["regression"][is_point(after["regression"])]
    assert points["variant"].nunique() == 4
    assert points[["of", "strength", "step"]].drop_duplicates().fillna(-1).values.tolist() == [
        ["lr0.0001-r8-seed42", 0.5, -1],
        ["lr0.0001-r8-seed42", 2.0, -1],
        ["lr0.0001-r8-seed42", -1, 50],
        ["lr0.0001-r8-seed42 lr0.00015-r8-seed42", -1, -1],
    ]
    # A family of their own: four points and two measures.
    headline = points[points["category"] == "aggregate"]
    p = headline["p_mcnemar"]
    assert headline["p_mcnemar_holm"].min() == pytest.approx(min(1, 8 * p.min()))
    page = paths["regression_md"].read_text(encoding="utf-8")
    assert "adjusted for the 4 comparisons of all questions of a task" in page
    assert "exploratory: their p are adjusted apart from those above, for 8 and 12 comparisons" in page


def test_a_base_with_other_prompts_is_compared_where_it_was_asked(tmp_path):
    def written(arguments):
        paths = table_paths(tmp_path)
        write_tables(outputs=paths, **arguments)
        return paths, {name: read_table(paths[name]) for name in TABLES}

    _, before = written(with_points(study(tmp_path / "a", 2), tmp_path))
    arguments = with_points(study(tmp_path / "b", 2), tmp_path)
    rights = {0: [0] * 200, 5: draw(200, 0.6, 5)}
    paths, after = written(with_shots(arguments, tmp_path, rights))
    for name, frame in after.items():
        if "of" not in frame:  # factors and seeds
            assert frame.equals(before[name])
            continue
        others = frame[~is_prompted(frame)].reset_index(drop=True)
        pd.testing.assert_frame_equal(others.drop(columns="shots"), before[name].drop(columns="shots"))
        assert set(others.loc[others["variant"] == "base", "shots"]) <= {3}
        assert set(frame.loc[is_prompted(frame), "shots"]) == ({0, 5} if name != "exchange" else set())
    for name in ("regression", "flips"):
        assert set(after[name].loc[is_prompted(after[name]), "task"]) == {"spider"}
    own = after["regression"][is_prompted(after["regression"])]
    assert own["tuned_correct"].tolist() == [0, sum(rights[5])]
    # A family of their own: two numbers of examples.
    assert own["p_mcnemar_holm"].min() == pytest.approx(2 * own["p_mcnemar"].min())
    page = paths["regression_md"].read_text(encoding="utf-8")
    assert "for 8 and 12 comparisons, and for the 2 of base@shots, so that" in page
    assert "Rows of base@shots repeat those of the base" in paths["mmlu_md"].read_text(encoding="utf-8")
    knowledge = after["mmlu"].set_index("variant")
    assert knowledge.loc["base@shots0", "correct"].tolist() == knowledge.loc["base", "correct"].tolist()


def test_a_ready_made_adapter_is_compared_with_its_base_and_with_no_swept_value(tmp_path):
    base, known = [0] * 160, [1] * 80
    answers = [({}, base, known)]
    for seed in (1, 2):
        answers += [(settings_of(seed, r=r), [1] * k + [0] * (160 - k), known) for r, k in ((4, 40), (8, 60))]
    before = sweep(tmp_path / "before", answers)
    after = sweep(tmp_path / "after", [*answers, ({}, [1] * 80 + base[80:], known)], made=len(answers))
    for name in ("factors", "seeds"):
        pd.testing.assert_frame_equal(after[name], before[name])
    row = after["regression"].query("variant == 'public' and task == 'spider'").iloc[0]
    assert (row["base_accuracy_pct"], row["tuned_accuracy_pct"], row["verdict"]) == (0.0, 50.0, "better")
    assert row[["lora.r", "training.seed"]].tolist() == ["", ""]
    assert "public" in set(after["spider"]["variant"]) & set(after["mmlu"]["variant"])


def test_of_many_levels_each_is_compared_with_the_first(tmp_path):
    answers = [({}, [0] * 16, [1] * 16), *((settings_of(r=r), [0, 1] * 8, [1] * 16) for r in (1, 2, 4, 8, 16))]
    found = sweep(tmp_path, answers)["factors"]
    assert set(found["low"]) == {"1"}
    assert found.loc[found["task"] == "mmlu", "high"].tolist() == ["2", "4", "8", "16"]
    four = sweep(tmp_path, answers[:5])["factors"]
    assert len(four) == 2 * 6


def test_seeds_are_put_together(tmp_path):
    base = [0] * 160
    counts = {8: (60, 64, 68), 16: (20, 60, 100)}
    answers = [({}, base, [1] * 80)]
    for r, ks in counts.items():
        answers += [
            (settings_of(seed, r=r), [1] * k + [0] * (160 - k), [1] * 80) for seed, k in zip((1, 2, 3), ks, strict=True)
        ]
    found = sweep(tmp_path, answers)["seeds"]
    spider = found[found["task"] == "spider"]
    assert spider["setting"].tolist() == ["r8", "r16"]
    assert spider["seeds"].tolist() == [3, 3]
    assert spider["mean_accuracy_pct"].tolist() == pytest.approx([40.0, 37.5])
    assert spider["sd_pp"].tolist() == pytest.approx([2.5, 25.0])
    assert spider["seed_share_pct"].is_monotonic_increasing
    assert spider["verdict"].tolist() == ["better", SAME]
    assert spider[["min_accuracy_pct", "max_accuracy_pct"]].values.tolist() == [[37.5, 42.5], [12.5, 62.5]]
    one = sweep(tmp_path, answers[:2])
    assert one["seeds"].empty
    assert "no adapter with more than one seed" in (tmp_path / "seeds.md").read_text(encoding="utf-8")


def test_a_part_without_questions_is_left_out(tmp_path):
    # No hard question, and one category of three.
    arguments = two(tmp_path, [1, 0] * 10, [0, 1] * 10, [1, 0] * 10, [1, 1] * 10)
    for path, right in zip(arguments["spider"], ([1, 0] * 10, [0, 1] * 10), strict=True):
        spider_records(path, right, hardness="easy")
    for path, right in zip(arguments["mmlu"], ([1, 0] * 10, [1, 1] * 10), strict=True):
        mmlu_records(path, right, categories=("stem",))
    (accuracy, mmlu, _), (page, _, _) = run(tmp_path, **arguments)
    assert accuracy.loc[accuracy["questions"] == "hard", "n"].tolist() == [0, 0]
    assert "Hard (" not in page
    assert set(mmlu["category"]) == {"aggregate", "stem"}
    flips = read_table(tmp_path / "flips.csv")
    assert set(flips.loc[flips["part"] == "hardness", "value"]) == {"easy"}


@pytest.mark.parametrize(("spider", "mmlu"), [([1], [0]), ([1, 0], [1, 0])])
def test_a_question_or_two(tmp_path, spider, mmlu):
    (_, _, regression), _ = run(tmp_path, **two(tmp_path, spider, spider[::-1], mmlu, mmlu[::-1]))
    assert set(regression["verdict"]) == {SAME}
    assert (regression["ci_high_pp"] - regression["ci_low_pp"] > 100).all()


def costs(folder, runs, resumed=False, benchmarks=True):
    """Write reports of training and answers of each run, and `cost` of them."""
    where = {"train": [], "predict_spider": [], "predict_mmlu": [], "spider_answers": []}
    for run in runs:
        place = folder / "study" / "runs" / "m" / run["variant"]
        place.mkdir(parents=True, exist_ok=True)
        common = {"device": "NVIDIA H100", "peak_memory_mib": 2048.0}
        train = {
            "rows": 100,
            "epochs": 2.0,
            "train_seconds": 50.0,
            "tokens_per_second": 900.0,
            "resumed_from_step": None,
        }
        answer = {"questions": 80, "seconds": 10.0, "questions_per_second": 8.0, "answered_before_resuming": 0}
        if resumed:
            train["resumed_from_step"], answer["answered_before_resuming"] = 5, 40
        for task in ("train", "predict_spider", "predict_mmlu"):
            if task == "train" and run["variant"] == "base":
                continue
            (place / f"{task}.json").write_text(json.dumps((train if task == "train" else answer) | common))
            where[task].append(place / f"{task}.json")
            table = folder / "study" / "benchmarks" / task / run["model"] / f"{run['variant']}.tsv"
            table.parent.mkdir(parents=True, exist_ok=True)
            table.unlink(missing_ok=True)
            if benchmarks:
                table.write_text("s\tcpu_time\n360.0\t720.0\n")
        (place / "spider_answers.jsonl").write_text('{"tokens": 30}\n{"tokens": 70}\n')
        where["spider_answers"].append(place / "spider_answers.jsonl")
    settings = {"study": "test", "runs": runs, "tasks": TASKS, "known_defects": [], "accept_defect": []}
    settings["language"] = "en"
    cost(where, {"csv": folder / "cost.csv", "md": folder / "cost.md"}, settings)
    return read_table(folder / "cost.csv"), (folder / "cost.md").read_text(encoding="utf-8")


def test_cost_is_that_of_the_reports_and_benchmarks(tmp_path):
    runs = two(tmp_path, [1], [1], [1], [1])["runs"]
    found, page = costs(tmp_path, runs)
    assert found["task"].tolist() == ["predict_spider", "predict_mmlu", "train", "predict_spider", "predict_mmlu"]
    train = found[found["task"] == "train"].iloc[0]
    assert train[["seconds", "job_seconds", "gpu_hours", "cpu_hours"]].tolist() == [50, 360, 0.1, 0.2]
    assert train[["rows", "rows_per_second", "tokens_per_second"]].tolist() == [200, 4, 900]
    assert found.loc[found["task"] == "predict_spider", "tokens_per_second"].tolist() == [10, 10]
    assert "In all 0.50 GPU-hours and 1.00 CPU-hours" in page
    assert "cut off" not in page


def test_cost_says_what_it_does_not_know(tmp_path):
    runs = two(tmp_path, [1], [1], [1], [1])["runs"]
    found, page = costs(tmp_path, runs, resumed=True, benchmarks=False)
    assert found[["job_seconds", "gpu_hours", "cpu_hours"]].isna().all(axis=None)
    assert found.loc[found["task"] == "predict_spider", "tokens_per_second"].isna().all()
    assert "In all n/a GPU-hours" in page
    assert "5 jobs were cut off" in page


def test_tables_need_no_model_library(repo):
    code = "import tables, cost, tables_page, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=repo / "scripts", check=True)


def test_every_verdict_has_its_words():
    frame = pd.DataFrame({"p": [0.9, 0.01, 0.01, None], "difference": [1.0, 1.0, -1.0, 1.0]})
    found = [
        judge(frame, 0.95, "difference", words)["verdict"].tolist()
        for words in (("better", "worse"), ("higher", "lower"))
    ]
    assert found == [[SAME, "better", "worse", None], [SAME, "higher", "lower", None]]
    assert {verdict for verdicts in found for verdict in verdicts} - {None} <= set(VERDICTS)
