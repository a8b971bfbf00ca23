"""Tables of studies with other tasks than Spider and MMLU: several yardsticks, several of SQL, none of SQL, none."""

import re

import numpy as np
import pandas as pd
import pytest

from _study import HAS, TASKS, as_inputs, draw, mmlu_records, spider_records, study, table_paths
from common.files import UserError, read_json
from cost import cost
from present import catalogue
from present.values import read_table
from recommend import recommend
from tables import tables
from tables_page import tables_page
from tasks.records import write_records
from tasks.registry import measured

LEVELS = ("simple", "moderate", "challenging")
OWN = {"kind": "jsonl", "name": "own", "score": "exact", "cluster": "topic", "strata": ["kind"]}
USES = TASKS | {"bird": {"kind": "bird", "role": "yardstick", "criterion": "set"}, "own": OWN | {"role": "yardstick"}}


def bird_records(path, right):
    """Records of BIRD: those of Spider with difficulty and evidence."""
    frame = pd.read_csv(spider_records(path, right, databases=("bank", "club")), dtype=str, keep_default_na=False)
    frame = frame.assign(difficulty=[LEVELS[i % 2] for i in range(len(frame))], evidence="")
    frame[[*measured(USES)["bird"].columns]].to_csv(path, index=False, lineterminator="\n")
    return path


def own_records(path, right, topics=7, kinds=("short", "long")):
    rows = [
        {"id": f"q{i:04d}", "topic": f"t{i % topics}", "kind": kinds[i % len(kinds)], "question": f"What is {i}?"}
        | {"answer": str(i), "prediction": str(i) if correct else "no", "correct": correct}
        for i, correct in enumerate(right)
    ]
    write_records(path, measured(USES)["own"].columns, rows)
    return path


def with_more(folder, adapters=2, uses=USES, n=200, **settings):
    """A study with these tasks: the arguments of `tables`, its outputs left out."""
    made = study(folder, adapters, n=n)
    for number in range(len(made["runs"])):
        name = folder / f"{number}"
        made.setdefault("bird", []).append(bird_records(f"{name}-bird.csv", draw(120, 0.3 + 0.1 * number, number)))
        made.setdefault("own", []).append(own_records(f"{name}-own.csv", draw(140, 0.8 - 0.1 * number, 7 + number)))
    made |= {"tasks": uses, **settings}
    for task in [task for task in ("spider", "mmlu", "bird", "own") if task not in uses]:
        del made[task]
    return as_inputs(made)


def written(folder, records, settings):
    """Write all tables; return them as frames and as pages."""
    measures = measured(settings["tasks"])
    forms = {task: measure.form for task, measure in measures.items()}
    names = catalogue.names(catalogue.TABLES, HAS | {"tasks": forms, "sql": "sql" in forms.values()}, "tables")
    paths = table_paths(folder, names)
    tables(records, paths, settings)
    pages = {name: paths[f"{name}_md"].read_text(encoding="utf-8") for name in names}
    return {name: read_table(paths[name]) for name in names}, pages


def recommended(folder, records, settings, **others):
    """Write the recommendation; return table, page and decision."""
    outputs = {kind: folder / f"recommendation.{kind}" for kind in ("csv", "md", "decision")}
    recommend(records, outputs, settings | others)
    frame = read_table(outputs["csv"])
    return frame, outputs["md"].read_text(encoding="utf-8"), read_json(outputs["decision"])


def test_further_tasks_change_no_accuracy_of_the_others(tmp_path):
    two, _ = written(tmp_path / "two", *with_more(tmp_path / "a", uses=TASKS))
    four, _ = written(tmp_path / "four", *with_more(tmp_path / "a"))
    for name in ("spider", "mmlu"):
        pd.testing.assert_frame_equal(two[name], four[name])
    for name in ("databases", "errors", "confusion", "flips", "transitions", "regression"):
        own = four[name][four[name]["task"].isin(two[name]["task"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(two[name], own, check_dtype=False)
    # More tasks are more comparisons: the differences stay, what is adjusted for their number does not.
    for name in ("settings", "contrasts"):
        own = four[name][four[name]["task"].isin(two[name]["task"])].reset_index(drop=True)
        told = ["task", "difference_pp", "p"]
        pd.testing.assert_frame_equal(two[name][told], own[told])
    every = {"spider", "mmlu", "bird", "own"}
    tasks = {name: set(four[name]["task"]) for name in ("settings", "contrasts", "transitions", "regression", "errors")}
    assert tasks == dict.fromkeys(tasks, every) | {"errors": {"spider", "bird"}}


def test_headlines_of_all_tasks_are_one_family_and_their_parts_another(tmp_path):
    frames, pages = written(tmp_path, *with_more(tmp_path))
    settings = frames["settings"]
    right, whole = settings["measure"] == "correct", settings["category"] == "aggregate"
    assert (right & whole).sum() == 8
    assert (right & ~whole).sum() == 2 * (3 + 2)
    assert set(settings.loc[right & ~whole, "task"]) == {"mmlu", "own"}
    # Of the tasks only that of form choice has probabilities of letters, a family of their own.
    assert settings.loc[~right, ["task", "category"]].drop_duplicates().values.tolist() == [["mmlu", "aggregate"]]
    for family in (right & whole, right & ~whole, ~right):
        rows = settings[family]
        assert set(rows["family"]) == {len(rows)}
        assert rows["p_holm"].min() == pytest.approx(min(1, len(rows) * rows["p"].min()))
    page = pages["settings"]
    assert "adjusted for the 8 comparisons of settings and tasks" in page
    assert "0% Spider execution accuracy, 25% MMLU, 0% BIRD execution accuracy and 0% own" in page
    assert "own, short" in page


def test_each_form_has_its_tables(tmp_path):
    frames, pages = written(tmp_path, *with_more(tmp_path))
    assert list(frames) == [
        *("settings", "contrasts", "transitions", "spider", "bird", "databases", "mmlu", "own", "errors"),
        *("regression", "flips", "confusion"),
    ]
    parts = ["aggregate", *LEVELS, "gold_not_empty", "gold_empty"]
    assert frames["bird"]["questions"].tolist() == parts * 3
    assert set(frames["bird"]["criterion"]) == {"set"}
    assert frames["bird"]["correct"].tolist() == frames["bird"]["set_correct"].tolist()
    assert "# Execution accuracy on BIRD (set criterion)" in pages["bird"]
    assert "Simple (n = 60) %" in pages["bird"]
    assert "hallenging" not in pages["bird"]
    assert "Easy (n = 50) %" in pages["spider"]
    own = frames["own"]
    assert own["category"].tolist() == ["aggregate", "short", "long"] * 3
    assert not [column for column in own if "generated" in column or "invalid" in column]
    assert not own["macro_difference_pp"].isna().all()
    assert "# own: test" in pages["own"]
    assert "Generated" not in pages["own"]
    assert "Generated" in pages["mmlu"]
    # Of two tasks of form sql each has its rows under its name.
    for name in ("databases", "errors"):
        assert re.search(r"\nSpider execution accuracy:\n[\s\S]*\nBIRD execution accuracy:\n", pages[name])
    assert "lr0.0001-r8-seed42, BIRD: rows are" in pages["confusion"]
    assert {"topic", "kind"} <= set(frames["flips"]["part"])
    assert "own, short" in pages["flips"]
    assert "own, t3" not in pages["flips"]
    for name, frame in frames.items():
        if not frame.empty:
            hashes = set(" ".join(frame["data_sha256"]).split())
            assert all(f"sha256 `{one}`" in pages[name] for one in hashes), name


def test_a_rate_of_exchange_for_each_yardstick(tmp_path):
    records, settings = with_more(tmp_path)
    # The first adapter gains, and loses on each yardstick; the second does not gain.
    spider_records(records["spider"][0], [0] * 100 + [1] * 100)
    spider_records(records["spider"][1], [1] * 200)
    spider_records(records["spider"][2], [0] * 100 + [1] * 100)
    frames, _ = written(tmp_path, records, settings)
    whole = frames["settings"]
    whole = whole[(whole["category"] == "aggregate") & (whole["measure"] == "correct")]
    first, second = (rows.set_index("task") for _, rows in whole.groupby("setting", sort=False))
    assert first.loc["spider", ["verdict", "difference_pp"]].tolist() == ["gained", 50]
    rates = first.loc[["mmlu", "bird", "own"], "exchange_rate"]
    assert rates.tolist() == pytest.approx((-first.loc[rates.index, "difference_pp"] / 50).tolist())
    assert np.isnan(first.loc["spider", "exchange_rate"])
    assert second["exchange_rate"].isna().all()


def test_the_margin_holds_for_every_yardstick(tmp_path):
    made = study(tmp_path, 2, n=400)
    known, lost = [1] * 400, [1] * 340 + [0] * 60
    gains = ([0] * 400, [1] * 200 + [0] * 200, [1] * 100 + [0] * 300)
    made["spider"] = [spider_records(tmp_path / f"s{i}.csv", right) for i, right in enumerate(gains)]
    made["mmlu"] = [mmlu_records(tmp_path / f"m{i}.csv", known) for i in range(3)]
    # The adapter that gains most loses 15 points on the second yardstick alone.
    made["own"] = [own_records(tmp_path / f"o{i}.csv", right) for i, right in enumerate((known, lost, known))]
    one = as_inputs(made | {"tasks": TASKS, "own": made["own"]})
    one[1].pop("own")
    both = as_inputs(made | {"tasks": TASKS | {"own": USES["own"]}})
    variants = [run["variant"] for run in made["runs"]]
    for margin, reason in ((3.0, "loses more than the margin"), (15.0, "loss not certified")):
        assert recommended(tmp_path, *one, margin_pp=margin)[2][0]["variant"] == variants[1]
        frame, page, (decision,) = recommended(tmp_path, *both, margin_pp=margin)
        assert decision["variant"] == variants[2]
        assert [one["task"] for one in decision["tasks"]] == ["spider", "mmlu", "own"]
        assert set(decision["figures"]) == {"spider", "mmlu", "own"}
        assert set(frame.loc[frame["setting"] == variants[1], "choice"]) == {reason}
        assert f"no more than {margin:g} pp of MMLU and own" in page
    # Of a loss of 15 points it is certain that it is below 30.
    assert recommended(tmp_path, *both, margin_pp=30.0)[2][0]["variant"] == variants[1]


@pytest.mark.parametrize("language", ["en", "pt"])
def test_no_task_of_form_sql(tmp_path, language):
    uses = {"own": USES["own"] | {"role": "target"}, "mmlu": TASKS["mmlu"]}
    records, settings = with_more(tmp_path, uses=uses, language=language)
    frames, pages = written(tmp_path, records, settings)
    assert list(frames) == ["settings", "contrasts", "transitions", "mmlu", "own", "regression", "flips"]
    assert set(frames["settings"]["criterion"]) == {""}
    assert set(frames["settings"]["task"]) == {"own", "mmlu"}
    _, page, (decision,) = recommended(tmp_path, records, settings)
    assert [(one["task"], one["form"], one["role"]) for one in decision["tasks"]] == [
        ("own", "match", "target"),
        ("mmlu", "choice", "yardstick"),
    ]
    assert decision["criterion"]["criterion"] == ""
    csv = {name: tmp_path / f"{name}.csv" for name in frames} | {"recommendation": tmp_path / "recommendation.csv"}
    tables_page(csv, tmp_path / "tables.html", settings)
    whole = (tmp_path / "tables.html").read_text(encoding="utf-8")
    for text in (*pages.values(), page, whole):
        assert "Spider" not in text
        assert not re.search(r"\bnan\b", text)
    # No name of a criterion where there is none, also in the note on the questions.
    assert "criterion: an answer is right if" not in pages["settings"]


def test_a_study_without_yardsticks(tmp_path):
    records, settings = with_more(tmp_path, uses={"spider": TASKS["spider"]})
    frames, _ = written(tmp_path, records, settings)
    assert frames["settings"]["exchange_rate"].isna().all()
    assert set(frames["settings"]["task"]) == set(frames["contrasts"]["task"]) == {"spider"}
    _, page, (decision,) = recommended(tmp_path, records, settings)
    assert decision["admissible"] > 0
    assert set(decision["figures"]) == {"spider"}
    assert "among those whose gain is shown. If there is none" in page


def test_the_page_of_all_tables_names_every_task(tmp_path):
    records, settings = with_more(tmp_path)
    frames, _ = written(tmp_path, records, settings)
    tables_page({name: tmp_path / f"{name}.csv" for name in frames}, tmp_path / "tables.html", settings)
    page = (tmp_path / "tables.html").read_text(encoding="utf-8")
    for name, value in {"Spider": "200 · bag", "MMLU": "150", "BIRD": "120 · set", "own": "140"}.items():
        assert f"<dt>{name} questions</dt><dd>{value}" in page
    # As many lines on the questions as tasks that a table is about.
    counts = {name: page.split(f"<section id={name}>")[1].split("</section>")[0].count(" questions") for name in frames}
    assert counts["settings"] > counts["errors"] > counts["own"] > 0


def test_cost_of_every_task(tmp_path):
    runs = [{"model": "m", "variant": name, "settings": {}} for name in ("base", "a")]
    runs.append({"model": "m", "variant": "base@shots5", "settings": {}, "point": {"of": ["base"], "shots": 5}})
    facts = '{"device": "cpu", "seconds": 10, "peak_memory_mib": 1, "questions": 5, "questions_per_second": 0.5, '
    inputs = {"train": [tmp_path / "study/runs/m/a/train.json"]}
    for run in runs:
        folder = tmp_path / "study/runs/m" / run["variant"]
        folder.mkdir(parents=True)
        for task in USES:
            if task == "spider" or "point" not in run:
                path = folder / f"{task}_predict.json"
                path.write_text(facts + '"answered_before_resuming": 0}')
                inputs.setdefault(f"predict_{task}", []).append(path)
                if task != "mmlu":
                    path = folder / f"{task}_answers.jsonl"
                    path.write_text('{"tokens": 30}\n')
                    inputs.setdefault(f"{task}_answers", []).append(path)
    train = facts + '"rows": 8, "epochs": 1, "train_seconds": 4, "tokens_per_second": 9, "resumed_from_step": null}'
    inputs["train"][0].write_text(train)
    settings = {"study": "test", "tasks": USES, "runs": runs, "known_defects": [], "accept_defect": []}
    cost(inputs, {"csv": tmp_path / "cost.csv", "md": tmp_path / "cost.md"}, settings | {"language": "en"})
    found = read_table(tmp_path / "cost.csv")
    jobs = [f"predict_{task}" for task in USES]
    assert found["task"].tolist() == [*jobs, "train", *jobs, "predict_spider"]
    assert found.set_index("task")["tokens_per_second"].dropna().unique().tolist() == [3, 9]
    page = (tmp_path / "cost.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2:6] for line in page.splitlines() if line.startswith("| m ")]
    shown = [[cell.strip() for cell in row] for row in rows]
    assert ["a", "MMLU answers", "10", "n/a"] in shown
    assert ["a", "own answers", "10", "3"] in shown
    assert ["a", "Training", "4", "9"] in shown


def test_a_name_that_the_tables_need_is_refused(tmp_path):
    records, settings = with_more(tmp_path)
    for path in records["own"]:
        own_records(path, [1, 0] * 70, kinds=("short", "aggregate"))
    with pytest.raises(
        UserError, match=r"tasks\.own: found kind aggregate\. aggregate is the name of the row over all"
    ):
        written(tmp_path, records, settings)
