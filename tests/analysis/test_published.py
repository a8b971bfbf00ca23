"""The arithmetic on printed figures, the comparison with ours, and the list of studies."""

import copy
import csv
import json
import shutil
from decimal import ROUND_DOWN, Decimal
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import studies
from _study import MEASURES, TASKS, mmlu_records, spider_records
from analysis.published import (
    check_change,
    check_percentage,
    check_table,
    check_total,
    count,
    counts,
    findings,
    matching,
)
from common.files import UserError
from compare_published import compare_published
from present.format import MINUS, Say
from study import read

REPO = Path(__file__).parents[2]
NAMES = ("souza", "ribeiro", "cunha")


def published(name: str) -> dict:
    return read.resolve(read.read_yaml(REPO / f"studies/{name}.yaml"), source=name)["published"]


def checked(block: dict) -> dict[tuple, dict]:
    rows = [row for table in block["tables"] for row in check_table(table, block["subjects"])]
    rows = [row | {"why": Say("en").told(row["why"])} for row in rows]
    return {(row["table"], row["kind"], row["variant"], row["column"]): row for row in rows}


def test_what_it_finds_in_ribeiros_table_of_mmlu():
    rows = checked(published("ribeiro"))
    changes = {key: row for key, row in rows.items() if key[:2] == ("Table III", "change")}
    assert len(changes) == 8
    # Its code takes the mean of the subjects' changes: its columns give that of all of them.
    whole = [row for key, row in changes.items() if key[3] == "all"]
    assert [(row["possible"], row["why"]) for row in whole] == [(True, "it is the mean of 39 subjects' changes")] * 2
    others = [row for key, row in changes.items() if key[3] != "all"]
    assert {(row["possible"], row["why"]) for row in others} == {
        (None, "the mean of its subjects' changes, which the report does not print")
    }
    # The single tasks of the next table, by the same rules, are right.
    tasks = [row for key, row in rows.items() if key[0] == "Table IV"]
    assert len(tasks) == 18
    assert {row["possible"] for row in tasks} == {True}
    right = [rows["Table II", "accuracy", variant, "all"]["why"] for variant in ("base", "lr0.0002", "lr0.0005")]
    assert right == ["444 of 1034", "446 of 1034", "390 of 1034"]


def test_ribeiros_changes_are_the_means_of_the_subjects_changes(shared_data):
    """Of the accuracies in its code's files, each subject in the category that the report gives it."""
    block, found = published("ribeiro"), {}
    for run, name in (("base", "baseline"), ("lr0.0002", "mistral-sql-lora-v3"), ("lr0.0005", "mistral-sql-lora-v4")):
        with (shared_data / f"ribeiro/{name}-mmlu-predictions.csv").open(encoding="utf-8") as stream:
            found[run] = {row["task"]: float(row["accuracy"]) for row in csv.DictReader(stream)}
    (table,) = (one for one in block["tables"] if one["table"] == "Table III")
    assert table["change_of"] == "subjects"
    for run, printed in table["change"].items():
        changes = {one: 100 * (found[run][one] / found["base"][one] - 1) for one in found["base"]}
        for column, subjects in (block["subjects"] | {"all": list(changes)}).items():
            mean = sum(changes[one] for one in subjects) / len(subjects)
            assert abs(mean - printed[column]) < 0.006, (run, column)


def test_what_it_finds_in_souzas_tables():
    block = published("souza")
    rows = checked(block)
    right = [rows["Table I", "accuracy", variant, "all"]["why"] for variant in ("base", "lr0.0001", "lr0.00005")]
    assert right == ["371 of 899", "415 of 899", "496 of 899"]
    for variant in ("lr0.0001", "lr0.00005"):
        change = rows["Table I", "change", variant, "all"]
        assert change["possible"] is False
        assert change["why"].endswith("it is the difference in percentage points")
    assert found_in(block) == [
        "Table I: 899 questions, but the official split has 1034, and the report does not say which 135 are left out. "
        "0 of its 3 figures could be shares of 1034.",
        "econometrics stands under humanities; the benchmark has it under social_sciences.",
        "world_religions stands under social_sciences; the benchmark has it under humanities.",
    ]


def test_cunhas_counts_are_right():
    block = published("cunha")
    rows = checked(block)
    assert len(rows) == 15
    assert {row["possible"] for row in rows.values()} == {True}
    assert rows["Table III", "accuracy", "base", "all"]["why"].startswith("66 of 150; the sum of ")
    assert found_in(block) == []  # it says of which 200


def found_in(block: dict) -> list[str]:
    return [Say("en").told([one]) for one in findings(block, {"spider": 1034})]


# The least change that arithmetic can see, of each kind of figure.
FLIPPED = [
    ("souza", "accuracy", "base", "all", 0, 0.05, "no whole number of 899 questions gives it"),
    ("souza", "accuracy", "base", "stem", 1, 1.0, "no whole number of 50 questions gives it"),
    ("souza", "accuracy", "base", "stem", 1, 2.0, "its columns give"),
    ("ribeiro", "accuracy", "lr0.0002", "all", 0, 0.03, "no whole number of 1034 questions gives it"),
    ("ribeiro", "accuracy", "base", "all", 1, 1.0, "its columns give"),
    ("ribeiro", "change", "lr0.0005", "marketing", 2, 0.1, "from its own columns +30.8%"),
    ("cunha", "accuracy", "steps50", "all", 0, 0.5, "103 of 200 are 51.50%"),
    ("cunha", "correct", "steps50", "all", 0, 1, "104 of 200 are 52.00%"),
    ("cunha", "correct", "base", "stem", 1, 1, "18 of 50 are 36.00%"),
    ("cunha", "accuracy", "base", "all", 1, 0.7, "the columns add up to 66 right answers"),
]


@pytest.mark.parametrize(("name", "section", "variant", "column", "table", "by", "why"), FLIPPED)
def test_a_flipped_figure_is_flagged(name, section, variant, column, table, by, why):
    block = published(name)
    before = checked(block)
    changed = copy.deepcopy(block)
    changed["tables"][table][section][variant][column] += by
    after = checked(changed)
    flagged = {key for key, row in after.items() if row["possible"] is False and before[key]["possible"] is not False}
    assert flagged
    assert any(why in after[key]["why"] for key in flagged)
    assert all(key[0] == block["tables"][table]["table"] for key in flagged)


def test_flipped_facts_are_found():
    souza = published("souza")
    souza["subjects"] = {"stem": ["astronomy"], "humanities": ["world_religions"], "social_sciences": ["econometrics"]}
    souza["tables"][0]["n"]["all"] = 1034
    assert found_in(souza) == []
    souza["tables"][0]["n"]["all"] = 1035
    assert found_in(souza) == ["Table I: 1035 questions, but the official split has 1034."]
    ribeiro = published("ribeiro")
    before = found_in(ribeiro)
    part = next(stated for stated in ribeiro["stated"] if "part_of" in stated)
    part["value"] = 0.0253
    assert set(found_in(ribeiro)) - set(before) == {
        f"{part['what']}: printed 0.0253%, but 1.7e+06 of 7.24e+09 are 0.02348%."
    }


# So many right answers of so many.
COUNTS = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS, st.integers(0, 3))
def test_a_true_percentage_is_never_called_impossible(pair, decimals):
    correct, n = pair
    percent = round(100 * correct / n, decimals)
    assert correct in counts(percent, decimals, n)
    assert check_percentage(percent, decimals, n).possible is not False
    assert check_percentage(percent, decimals, n, correct).possible is True


def cut(value: float, decimals: int) -> float:
    """Leave out the digits beyond these, as a report does that does not round."""
    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_DOWN))


@given(COUNTS, st.integers(0, 3))
def test_a_truncated_percentage_is_never_called_impossible(pair, decimals):
    correct, n = pair
    percent = cut(100 * correct / n, decimals)
    assert correct in counts(percent, decimals, n)
    assert check_percentage(percent, decimals, n).possible is not False
    found = check_percentage(percent, decimals, n, correct)
    assert found.possible is True
    rounded = abs(percent - 100 * correct / n) <= 0.5 * 10**-decimals + 1e-9
    assert (("truncated", {}) in found.why) == (not rounded)


@given(st.integers(10, 2000), st.data(), st.booleans())
def test_a_truncated_change_is_never_called_impossible(n, data, columns_too):
    base, tuned = (data.draw(st.integers(low, n)) for low in (1, 0))
    figures = [(cut if columns_too else round)(100 * k / n, 2) for k in (base, tuned)]
    assert check_change(cut(100 * (tuned - base) / base, 2), 2, *figures, {}).possible is not False


def table(values: dict, n: dict, correct: dict | None = None, decimals: int = 1) -> dict:
    """A block with one table of MMLU: the base's figures."""
    about = {"table": "I", "task": "mmlu", "decimals": decimals, "subset": "so many", "n": n, "change": {}}
    about |= {"accuracy": {"base": values}, "correct": {"base": correct} if correct else {}}
    return {"tables": [about], "subjects": {}, "stated": []}


UNEQUAL = {"stem": 100, "humanities": 300, "social_sciences": 50, "all": 450}
RIGHT = {"stem": 31, "humanities": 190, "social_sciences": 44}


@pytest.mark.parametrize("known", [{}, RIGHT, RIGHT | {"all": 265}])
def test_a_mean_of_unequal_categories_is_possible_and_said_to_be_one(known):
    """Their shares are 31.0, 63.3 and 88.0: 60.8 in the mean, and 58.9 of all 450 questions."""
    shares = {name: round(100 * right / UNEQUAL[name], 1) for name, right in RIGHT.items()}
    # As columns are printed, their mean may be truncated to 60.7, too.
    for value, possible in ((60.8, True), (60.7, True), (60.9, False), (60.6, False)):
        found = checked(table(shares | {"all": value}, UNEQUAL, known))["I", "accuracy", "base", "all"]
        assert found["possible"] is possible, (value, found)
        assert (found["why"] == "is the mean of 3 categories' percentages") is possible
    whole = checked(table(shares | {"all": 58.9}, UNEQUAL, known))["I", "accuracy", "base", "all"]
    assert (whole["possible"], "mean of 3" in whole["why"]) == (True, False)


def test_a_mean_of_equal_categories_is_the_share_and_must_be_a_number_of_answers():
    values = {"stem": 34.0, "humanities": 34.0, "social_sciences": 64.0}
    for value, possible in ((44.0, True), (44.1, False)):
        found = checked(table(values | {"all": value}, dict.fromkeys(values, 50) | {"all": 150}))
        assert found["I", "accuracy", "base", "all"]["possible"] is possible


def test_a_truncated_figure_says_so():
    values, n = {"stem": 66.6, "humanities": 33.3, "all": 49.9}, {"stem": 3, "humanities": 3, "all": 6}
    rows = checked(table(values, n))
    assert rows["I", "accuracy", "base", "stem"]["why"] == "2 of 3; truncated, not rounded"
    assert rows["I", "accuracy", "base", "humanities"]["why"] == "1 of 3"
    assert rows["I", "accuracy", "base", "all"]["possible"] is False  # 3 of 6 are 50.0, rounded or truncated
    assert Say("pt").told(check_percentage(66.6, 1, 3, 2).why) == "2 de 3; truncado, não arredondado"
    # From 66.66… and 33.33… percent: a fall by half. From 33.3 and 66.6 as they are printed: a gain of 100%.
    assert (
        Say("en").told(check_change(-66.6, 1, 50.0, 16.6, {}).why) == "follows from its columns; truncated, not rounded"
    )
    assert check_change(-66.4, 1, 50.0, 16.6, {}).possible is False


@given(st.integers(10, 2000), st.data())
def test_a_true_change_is_never_called_impossible(n, data):
    base, tuned = (data.draw(st.integers(low, n)) for low in (1, 0))
    figures = [round(100 * k / n, 2) for k in (base, tuned)]
    change = round(100 * (tuned - base) / base, 2)
    assert check_change(change, 2, *figures, {}).possible is not False


def test_the_edges():
    assert check_percentage(50.0, 1, None).possible is None
    assert check_percentage(33.3, 1, 2000).possible is None  # any figure could be
    assert Say("en").told(check_percentage(50.0, 1, 10, 11).why) == "11 right answers to 10 questions"
    assert check_change(5.0, 1, 0.0, 5.0, {}).possible is None
    assert check_total(50.0, 1, {"categories 3": 51.0}).possible is False


# The comparison


def test_runs_that_have_the_published_settings():
    ours = ["base", "lr0.0001-seed1", "lr0.0001-seed2", "lr0.00005-seed1"]
    assert matching("lr0.0001", ours) == ours[1:3]
    assert matching("base", ours) == ["base"]
    assert matching("lr0.001", ours) == []


def test_our_questions_are_those_of_the_reports_subjects():
    rows = [("astronomy", "stem", True), ("econometrics", "social_sciences", False), ("law", "x", True)]
    records = pd.DataFrame(rows, columns=["subject", "category", "correct"])
    subjects = {"stem": ["astronomy"], "humanities": ["econometrics"]}

    def counted(column: str, subjects: dict) -> tuple[int, int]:
        return count(records, MEASURES["mmlu"], {"column": column}, subjects)

    assert counted("humanities", subjects) == (0, 1)
    assert counted("all", subjects) == (1, 2)
    assert counted("all", {}) == (2, 3)
    assert counted("astronomy", {}) == (1, 1)
    assert counted("x", {}) == (1, 1)
    assert counted("humanities", {"humanities": ["econometrics", "philosophy"]}) == (0, 0)
    assert counted("medicine", {}) == (0, 0)


def test_our_questions_of_sql_are_all_or_those_of_a_stratum():
    records = pd.DataFrame({"db_id": ["zoo", "zoo", "gym"], "hardness": ["easy", "hard", "easy"], "bag": [1, 0, 0]})
    subjects = {"stem": ["astronomy"]}
    found = [
        count(records, MEASURES["spider"], {"column": column}, subjects) for column in ("all", "easy", "gym", "stem")
    ]
    assert found == [(1, 3), (1, 2), (0, 1), (0, 0)]


@pytest.fixture
def compared(tmp_path):
    """A function that compares made-up results with a made-up report; returns the rows and the page."""

    def compare(given: dict | None = None, **changes) -> tuple[list[dict], str]:
        rights = [[1] * k + [0] * (100 - k) for k in (40, 60, 99)]
        sql = [spider_records(tmp_path / f"sql{i}.csv", right) for i, right in enumerate(rights)]
        records = []
        for i, right in enumerate(([1] * 30 + [0] * 30, [1] * 15 + [0] * 45, [1] * 60)):
            records.append(mmlu_records(tmp_path / f"{i}.csv", right))
            frame = pd.read_csv(records[-1])
            frame.assign(subject="about " + frame["category"]).to_csv(records[-1], index=False)
        block = {
            "report": "A. Author, A Report",
            "model": "m",
            "subjects": {},
            "stated": [{"what": "rows", "value": 1750, "decimals": 0}],
            "tables": [
                {
                    "table": "I",
                    "task": "spider",
                    "decimals": 1,
                    "subset": None,
                    "n": {"all": 100},
                    "accuracy": {"base": {"all": 41.0}, "lr0.1": {"all": 99.0}, "lr0.2": {"all": 50.0}},
                    "correct": {},
                    "change": {"lr0.1": {"all": 50.0}},
                },
                {
                    "table": "II",
                    "task": "mmlu",
                    "decimals": 1,
                    "subset": None,
                    "n": {"stem": None},
                    "accuracy": {"base": {"stem": 50.0}},
                    "correct": {},
                    "change": {},
                },
            ],
        }
        settings = {
            "language": "en",
            "study": "test",
            "published": block,
            "tasks": TASKS,
            "official": {"spider": 100},
            "confidence_level": 0.95,
            "runs": [
                {"model": "m", "variant": "base"},
                {"model": "m", "variant": "lr0.1-seed1"},
                {"model": "other", "variant": "base"},
            ],
            "known_defects": [],
            "accept_defect": [],
        }
        outputs = {name: tmp_path / f"published.{name}" for name in ("csv", "md")}
        outputs["findings"] = tmp_path / "published.json"
        compare_published({"spider": sql, "mmlu": records} | (given or {}), outputs, settings | changes)
        rows = pd.read_csv(tmp_path / "published.csv", keep_default_na=False).to_dict("records")
        return rows, (tmp_path / "published.md").read_text(encoding="utf-8")

    return compare


def test_ours_stands_beside_the_printed_figure(compared):
    rows, page = compared()
    by = {(row["table"], row["kind"], row["variant"]): row for row in rows}
    base = by["I", "accuracy", "base"]
    assert (base["run"], base["ours"], base["n"], base["correct"]) == ("base", "40", "100", "40")
    assert float(base["difference_pp"]) == pytest.approx(-1)
    # Wilson 1927 for 40 of 100.
    assert [float(base[key]) for key in ("ci_low", "ci_high")] == pytest.approx([30.94, 49.80], abs=0.01)
    assert base["published_in_ci"] == "True"
    tuned = by["I", "accuracy", "lr0.1"]
    assert (tuned["run"], tuned["published_in_ci"]) == ("lr0.1-seed1", "False")
    assert by["I", "accuracy", "lr0.2"]["ours"] == ""  # no run of ours
    assert by["I", "change", "lr0.1"]["ours"] == "50"  # 40 to 60 of 100
    assert by["I", "change", "lr0.1"]["possible"] == "False"  # 41 to 99 is not
    assert by["II", "accuracy", "base"]["correct"] == "20"  # the first third of 60 questions
    assert by["II", "accuracy", "base"]["possible"] == ""
    assert "Known defects" not in page
    assert "rows: 1,750" in page


def test_the_page_carries_the_studys_defects(compared):
    _, page = compared(known_defects=["It never saw the SQL."], accept_defect=["target_not_in_loss"])
    assert "* It never saw the SQL." in page
    assert "target_not_in_loss" in page


def test_records_that_lack_a_column_are_named(compared, tmp_path):
    path = spider_records(tmp_path / "old.csv", [1, 0])
    pd.read_csv(path).drop(columns="bag").to_csv(path, index=False)
    with pytest.raises(UserError, match=r"old\.csv: found columns id, db_id, .*, expected id, db_id, .*bag, "):
        compared(given={"spider": [path] * 3})


def test_the_page_says_why_in_portuguese_and_the_file_does_not_change(compared):
    (rows, english), (same, page) = compared(), compared(language="pt")
    assert rows == same
    why = next(row["why"] for row in rows if row["kind"] == "change")
    assert why == "from its own columns +141.5%"
    assert "de suas próprias colunas +141,5%" in page
    assert "from its own" not in page
    assert "Acurácia de execução no Spider, todas, mudança" in page
    assert "Spider execution accuracy, all, change" in english
    fall = [("own", {"percent": "-33.0"}), ("it_is", {"what": [("subjects_changes", {"n": "39"})]})]
    say = Say("pt")
    told_so = f"de suas próprias colunas {MINUS}33,0%; é a média das mudanças de 39 disciplinas"
    assert say.told(fall, say.marked) == told_so


# The list


def test_the_list_names_every_study(capsys, monkeypatch):
    monkeypatch.chdir(REPO)
    assert studies.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {cells[0]: cells for cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])}
    assert set(rows) == {"config.yaml"} | {f"studies/{path.name}" for path in (REPO / "studies").glob("*.yaml")}
    assert rows["studies/assignment.yaml"][1:7] == [
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "nf4",
        "gated: accept it, set HF_TOKEN",
        "6",
        "spider 1034",
        "mmlu 150",
    ]
    assert rows["studies/ribeiro.yaml"][6] == "mmlu all of 39 subjects"
    assert rows["studies/cunha.yaml"][5] == "spider 200"
    assert {name for name, cells in rows.items() if cells[3].startswith("gated")} == {
        f"studies/{name}.yaml" for name in ("assignment", "souza", "ribeiro", "freitas", "cunha")
    }
    assert {name for name, cells in rows.items() if cells[8].startswith("corrected, as_reported")} == {
        f"studies/{name}.yaml" for name in ("souza", "ribeiro", "freitas", "cunha")
    }
    assert {name for name, cells in rows.items() if cells[8].endswith("reanalysed")} == {
        "studies/cunha.yaml", "studies/ribeiro.yaml"
    }  # fmt: skip
    needed = {name: cells[7] for name, cells in rows.items()}
    assert needed.pop("studies/published-systems.yaml") == "none"  # it has answers alone
    assert all(memory.isdigit() and int(memory) > 0 for memory in needed.values())


def test_memory_grows_with_what_takes_it():
    model = {"parameters": 8.0, "vocabulary": 128_000, "precision": "nf4"}
    lora = {"r": 8, "lora_dropout": 0.0, "target_modules": ["q_proj"]}
    training = {
        "per_device_train_batch_size": 1,
        "gradient_checkpointing": True,
        "eval_strategy": "no",
        "optim": "adamw_torch",
    }
    inference = {"batch_size": 1}
    least = studies.memory_gb(model, lora, training, inference)
    for more in (
        (model | {"precision": "bf16"}, lora, training, inference),
        (model | {"vocabulary": 256_000}, lora, training, inference),
        (model, lora | {"r": 64, "target_modules": ["q_proj", "down_proj"]}, training, inference),
        (model, lora, training | {"eval_strategy": "steps", "per_device_eval_batch_size": 4}, inference),
        (model, lora, training, {"batch_size": 64}),
    ):
        assert studies.memory_gb(*more) > least
    # What takes as much as there is needs no more than one prompt at a time does.
    assert studies.memory_gb(model, lora, training, {"batch_size": "auto"}) == least
    assert studies.memory_gb(model | {"parameters": None}, lora, training, inference) is None


def test_a_file_that_is_no_study_is_named_and_the_others_are_listed(capsys, tmp_path):
    shutil.copy(REPO / "studies/souza.yaml", tmp_path / "good.yaml")
    (tmp_path / "text.yaml").write_text("just text")
    (tmp_path / "typo.yaml").write_text(json.dumps({"study": "x", "modles": {}}))
    files = [str(tmp_path / name) for name in ("good.yaml", "text.yaml", "typo.yaml", "gone.yaml")]
    assert studies.main(files) == 1
    out, err = capsys.readouterr()
    assert "good.yaml" in out
    for words in ("text.yaml: found no keys, expected a study", "modles: no such key", "gone.yaml"):
        assert words in err
