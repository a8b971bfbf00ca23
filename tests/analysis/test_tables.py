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
    EIGHT,
    TASKS,
    draw,
    mmlu_records,
    spider_records,
    study,
    sweep,
    table_paths,
    write_tables,
)
from common.files import UserError
from cost import cost
from custom_metrics.judge import ERROR_CLASSES
from present.values import read_table
from tasks.records import SPIDER_COLUMNS, read_records, write_records


def run(folder, **arguments):
    """Write the tables; return three of the CSV files as frames and their pages."""
    paths = table_paths(folder)
    write_tables(outputs=paths, **arguments)
    names = ("spider", "mmlu", "settings")
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
            {"model": "m", "variant": "base", "setting": "base", "settings": {}},
            {
                "model": "m",
                "variant": "lr0.0001",
                "setting": "lr0.0001",
                "settings": {"training.learning_rate": 1e-4},
            },
        ],
        "confidence_level": 0.95,
        "margin_pp": 3.0,
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
    (_, mmlu, settings), (_, page, _) = run(tmp_path, **arguments)
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
    assert settings.loc[settings["task"] == "mmlu", "difference_pp"].iloc[0] == pytest.approx(-1000 / 210)
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
    (accuracy, mmlu, settings), (accuracy_md, mmlu_md, settings_md) = run(
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

    regression = read_table(tmp_path / "regression.csv")
    assert regression["task"].tolist() == ["spider"] + ["mmlu"] * 4
    first, second, *_, last = regression.to_dict("records")
    assert (first["n"], first["gained"], first["lost"], first["difference_pp"]) == (100, 40, 10, 30.0)
    assert first["percent_change"] == pytest.approx(75.0)
    # Of 50 changed answers 10 or fewer go one way, by chance.
    assert first["p_mcnemar"] == pytest.approx(2 * sum(math.comb(50, k) for k in range(11)) / 2**50)
    assert second["percent_change"] == pytest.approx(100 * -20 / 120)
    assert (last["category"], last["difference_pp"], last["gained"], last["lost"]) == ("social_sciences", -40.0, 0, 20)
    # 40% of the social sciences: the interval (27.6 to 53.8) lies above chance, so a change in percent is given.
    assert last["percent_change"] == -100.0
    assert not {"verdict", "p_holm"} & {*regression}

    right = settings[settings["measure"] == "correct"]
    assert right["task"].tolist() == ["spider"] + ["mmlu"] * 4
    assert right["category"].tolist() == ["aggregate", "aggregate", *CATEGORIES]
    assert settings.loc[settings["measure"] == "score", ["task", "category"]].values.tolist() == [["mmlu", "aggregate"]]
    for name in ("n", "difference_pp", "base_accuracy_pct", "tuned_accuracy_pct", "percent_change"):
        assert right[name].tolist() == pytest.approx(regression[name].tolist()), name
    assert right["verdict"].tolist() == ["gained", "lost", "undecided", "undecided", "lost"]
    assert right["margin_verdict"].tolist()[1] == "lost more than the margin"
    assert right["family"].tolist() == [2, 2, 3, 3, 3]
    p = right["p"].tolist()
    adjusted = {min(p[:2]): 2 * min(p[:2]), max(p[:2]): max(2 * min(p[:2]), max(p[:2]))}
    assert right["p_holm"].tolist()[:2] == pytest.approx([adjusted[one] for one in p[:2]])
    assert right["p_holm"].iloc[-1] == pytest.approx(3 * p[-1], rel=1e-6)
    # The parts of one run have the interval of that run: one seed, one comparison.
    assert right["single_ci_low_pp"].tolist() == pytest.approx(regression["ci_low_pp"].tolist())

    assert "n = 100 Spider questions" in accuracy_md
    assert "# Execution accuracy on Spider (bag criterion): test" in accuracy_md
    assert "Bag criterion: an answer is right if" in accuracy_md
    assert "sha256 `" in accuracy_md
    assert "| m       | base" in accuracy_md
    assert "40.0 (30.9 to 49.8)" in accuracy_md
    assert "n = 150 MMLU questions" in mmlu_md
    assert "+30.0 (" in settings_md
    assert re.search(r"\| lr0\.0001, this training run +\| Spider execution accuracy .*\| gained † +\|", settings_md)
    assert "Margin: 3 pp, of the gain on Spider execution accuracy and of the loss elsewhere." in settings_md
    assert "| verdict" not in (tmp_path / "regression.md").read_text(encoding="utf-8").lower()


def test_the_headline_follows_the_criterion_and_all_are_shown(tmp_path):
    arguments = two(tmp_path, [1] * 20, [1] * 20, [1] * 6, [1] * 6)
    # The adapter gives right rows in other columns, half of them only after the SQL was taken out.
    columns = {"set": 0, "bag": 0, "ordered": 0, "set_raw": 0, "bag_raw": 0, "ordered_raw": 0, "test_suite_raw": 0}
    spider_records(tmp_path / "t.csv", [1] * 20, **columns, error_class="wrong_columns")
    pages = {}
    for criterion, right, verdict in (("bag", 0, "lost"), ("test_suite", 20, "undecided")):
        (accuracy, _, settings), _ = run(tmp_path, **arguments | {"criterion": criterion})
        pages[criterion] = (tmp_path / "spider.md").read_text(encoding="utf-8")
        assert set(accuracy["criterion"]) == {criterion}
        tuned = whole(accuracy).iloc[1]
        assert (tuned["correct"], tuned["set_correct"], tuned["test_suite_correct"]) == (right, 0, 20)
        assert (tuned["test_suite_raw_correct"], tuned["columns_any_order_raw_correct"]) == (0, 20)
        regression = read_table(tmp_path / "regression.csv")
        assert regression.loc[regression["task"] == "spider", "tuned_correct"].tolist() == [right]
        assert settings.loc[settings["task"] == "spider", "verdict"].tolist() == [verdict]
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
    assert "wrong rows |" in page
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
    (accuracy, mmlu, settings), (_, _, page) = run(tmp_path, **study(tmp_path, adapters))
    assert len(whole(accuracy)) == adapters + 1
    assert len(mmlu) == 4 * (adapters + 1)
    regression = read_table(tmp_path / "regression.csv")
    assert len(regression) == 5 * adapters
    assert list(regression.columns)[:2] == ["model", "variant"]
    # All of each task, three categories, and the probability of the right letter.
    assert len(settings) == 6 * adapters
    assert list(settings.columns)[:2] == ["model", "setting"]
    assert ("no adapters" in page) == (adapters == 0)
    assert (settings["p_holm"] >= settings["p"] - 1e-12).all()
    assert set(settings["family"]) == ({2 * adapters, 3 * adapters, adapters} if adapters else set())
    left_out = (settings["ci_low_pp"] > 0) | (settings["ci_high_pp"] < 0)
    assert (left_out == (settings["verdict"] != "undecided")).all()


def test_several_models_are_each_compared_with_their_own_base(tmp_path):
    (accuracy, _, settings), _ = run(tmp_path, **study(tmp_path, 1, ("llama", "gemma")))
    by_run = whole(accuracy).set_index(["model", "variant"])["accuracy_pct"]
    spider = settings[settings["task"] == "spider"]
    assert spider["model"].tolist() == ["llama", "gemma"]
    assert spider["base_accuracy_pct"].tolist() == [by_run["llama", "base"], by_run["gemma", "base"]]
    # A family of each model: its two tasks.
    assert set(spider["family"]) == {2}


@pytest.mark.parametrize("share", [0, 1])
def test_all_wrong_and_all_right(tmp_path, share):
    same = [share] * 60
    (accuracy, mmlu, settings), _ = run(tmp_path, **two(tmp_path, same, same, same, same))
    assert whole(accuracy)["accuracy_pct"].tolist() == [100.0 * share] * 2
    assert 0 <= accuracy["ci_low"][0] <= accuracy["ci_high"][0] <= 100
    assert mmlu["accuracy_pct"].tolist() == [100.0 * share] * 8
    assert set(settings["verdict"]) == {"undecided"}
    assert set(settings["p_holm"]) == {1.0}
    right = settings["measure"] == "correct"
    assert settings.loc[right, "percent_change"].isna().all() == (share == 0)
    assert settings["exchange_rate"].isna().all()
    regression = read_table(tmp_path / "regression.csv")
    assert regression["percent_change"].isna().all() == (share == 0)
    regression_md = (tmp_path / "regression.md").read_text(encoding="utf-8")
    assert bool(re.search(r"\| +n/a \| +0 / 0 \|", regression_md)) == (share == 0)


def test_a_base_at_chance_has_no_change_in_percent(tmp_path):
    (_, _, settings), _ = run(tmp_path, **two(tmp_path, [1, 0] * 50, [1, 0] * 50, ([1, 0, 0, 0] * 38)[:150], [1] * 150))
    mmlu = settings[(settings["task"] == "mmlu") & (settings["measure"] == "correct")]
    assert mmlu["percent_change"].isna().all()
    assert (mmlu["verdict"] == "gained").all()


def test_a_missing_category_and_missing_hardness(tmp_path):
    arguments = two(tmp_path, [1, 0], [0, 1], [1] * 20, [0] * 20)
    arguments["mmlu"] = [mmlu_records(tmp_path / f"{i}.csv", [i] * 20, ("stem",)) for i in (0, 1)]
    (accuracy, mmlu, settings), (page, _, _) = run(tmp_path, **arguments)
    assert mmlu["category"].tolist() == ["aggregate", "stem"] * 2
    assert settings["category"].tolist() == ["aggregate", "aggregate", "stem", "aggregate"]
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
    assert not table_paths(tmp_path)["settings"].exists()


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
    (_, _, settings), (_, _, page) = run(tmp_path, **two(tmp_path, spider, spider[::-1], mmlu, mmlu[::-1]))
    right = settings[settings["measure"] == "correct"]
    assert set(right["verdict"]) == set(right["margin_verdict"]) == {"undecided"}
    assert (right["ci_high_pp"] - right["ci_low_pp"] > 100).all()
    assert not re.search(r"\b(nan|inf)\b", page)


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


def test_a_change_of_a_class_of_errors_is_tested(tmp_path):
    """Ten of forty wrong rows become a timeout: that class is new, the other rarer, and `ok` is in no family."""
    right = [1] * 20 + [0] * 40
    runs = [{"model": "m", "variant": name, "setting": name, "settings": {}} for name in ("base", "lr1")]
    spider = [spider_records(tmp_path / f"{i}.csv", right, databases=EIGHT) for i in range(2)]
    frame = read_records(spider[1], SPIDER_COLUMNS)
    frame.loc[20:29, "error_class"] = "timeout"
    write_records(spider[1], SPIDER_COLUMNS, frame.to_dict("records"))
    mmlu = [mmlu_records(tmp_path / f"m{i}.csv", [1, 0, 1], subjects=EIGHT) for i in range(2)]
    paths = table_paths(tmp_path)
    made = {"spider": spider, "mmlu": mmlu, "study": "test", "runs": runs, "confidence_level": 0.95, "margin_pp": 3.0}
    write_tables(outputs=paths, **made)
    table = read_table(paths["errors"]).set_index(["variant", "error_class"])
    assert table.loc["base", "difference_pp"].isna().all()
    timeout, rows, ok = (table.loc["lr1", name] for name in ("timeout", "wrong_rows", "ok"))
    assert (timeout["base_n"], timeout["n"], rows["base_n"], rows["n"]) == (0, 10, 40, 30)
    assert timeout["difference_pp"] == -rows["difference_pp"] == pytest.approx(100 * 10 / 60)
    assert timeout["p_holm"] == pytest.approx(2 * timeout["p"])
    assert timeout["p_holm"] < 0.05
    assert timeout["ci_low_pp"] > 0 > rows["ci_high_pp"]
    assert pd.isna(ok["p_holm"])
    assert table["p_holm"].count() == 2
