"""A second answer where the SQL of the first one did not run: who is asked, what is said, and what it changes."""

import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from _study import EIGHT, as_inputs, spider_records, study
from common.files import UserError, read_json, read_jsonl, sha256_file, write_json, write_jsonl
from llm.answering import Job, predict
from llm.decoding import Decoding
from present.values import read_table
from render import render
from repair import repair
from run_sql import run_sql
from score import score
from tasks.records import SPIDER_COLUMNS, read_records
from tests.present.test_report import results, written
from tiny_model import OF_PART, SPIDER_SETTINGS, make_model, words, write_splits
from tiny_model import render as first_round

SCORE = {"kind": "spider", "name": "tasks.spider", "role": "target", "timeout_s": 5}
# What the questions of `write_splits` are answered: right, with wrong rows, and in each way in which SQL does not run.
ANSWERS = [
    "SELECT name, age FROM singer WHERE age > 500",
    "SELECT 'nobody', 1",
    "SELECT nme FROM singer",
    "Sure!\n```sql\nSELECT name FROM singers;\n```",
    "SELECT name FROM singer WHERE",
    "I cannot say.",
]
FAILED = {2: "no_such_column", 3: "no_such_table", 4: "syntax_error", 5: "no_sql"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A study up to the answers of its first round, with six questions on one database."""
    write_splits(tmp_path)
    source = tmp_path / "data/spider"
    path = source / "database/concert/concert.sqlite"
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE singer (singer_id, name, age); INSERT INTO singer VALUES (1, 'Zoë', 600);")
    connection.close()
    name = path.relative_to(source).as_posix()
    write_json(source / "manifest.json", {"files": {name: {"sha256": sha256_file(path)}}})
    ids = [row["id"] for row in read_jsonl(tmp_path / "splits/test.jsonl")]
    rows = [{"id": name, "answer": answer} for name, answer in zip(ids, ANSWERS, strict=True)]
    write_jsonl(tmp_path / "answers.jsonl", rows)
    return tmp_path


def failed(folder: Path) -> list[dict]:
    inputs = {"answers": folder / "answers.jsonl", "questions": folder / "splits/test.jsonl"}
    run_sql(inputs | {"manifest": folder / "data/spider/manifest.json"}, folder / "failed.jsonl", SCORE)
    return read_jsonl(folder / "failed.jsonl")


def asked(folder: Path, record: Path, template: str = "text_to_sql", told: Path | None = None) -> list[dict]:
    inputs = {
        "rows": folder / "splits/test.jsonl",
        "shots": folder / "splits/shots.jsonl",
        "manifest": folder / "data/spider/manifest.json",
        "record": record,
        "failed": folder / "failed.jsonl",
    }
    settings = {**SPIDER_SETTINGS, **OF_PART[True]}
    render(inputs, words(template), settings, folder / "prompts/again.jsonl", told or words("sql_repair"))
    return read_jsonl(folder / "prompts/again.jsonl")


def test_only_answers_whose_sql_does_not_run_are_asked_again(folder):
    found = failed(folder)
    assert {int(row["id"][-5:]) - 500: row["error_class"] for row in found} == FAILED
    assert [row["answer"] for row in found] == [ANSWERS[place] for place in FAILED]
    assert found[0]["message"] == "no such column: nme"
    # The SQL is that of the records, taken out of the answer.
    assert found[1]["sql"] == "SELECT name FROM singers"


def test_nothing_of_the_gold_decides_who_is_asked_or_reaches_the_prompt(folder):
    record, questions = make_model(folder / "model"), folder / "splits/test.jsonl"
    outcomes, rows = [], read_jsonl(questions)
    gold = ("query", "hardness")
    for change in (
        lambda row: row,
        # A gold query that every answer is right by, one that fails, and none at all: what reads it would stop.
        lambda row: row | {"query": "SELECT 'nobody', 1", "hardness": "extra"},
        lambda row: row | {"query": "SELECT nonsense FROM nowhere", "hardness": "hard"},
        lambda row: {key: value for key, value in row.items() if key not in gold},
    ):
        write_jsonl(questions, [change(row) for row in rows])
        failed(folder)
        asked(folder, record)
        outcomes.append([(folder / name).read_bytes() for name in ("failed.jsonl", "prompts/again.jsonl")])
    assert all(one == outcomes[0] for one in outcomes)


@pytest.mark.parametrize("kind", ["llama3", "gemma"])
def test_the_second_prompt_is_the_first_one_the_answer_and_the_message(folder, kind):
    record = make_model(folder / "model", kind)
    first = {row["id"]: row["prompt"] for row in read_jsonl(first_round(folder, record, "test"))}
    found = failed(folder)
    again = asked(folder, record)
    assert [row["id"] for row in again] == [row["id"] for row in found]
    for row, one in zip(again, found, strict=True):
        _, said, rest = row["prompt"].partition(first[row["id"]])
        assert said
        answer, message = rest.index(one["answer"]), rest.index(f"This query does not run: {one['message']}")
        assert answer < message
    about = read_json(folder / "prompts/again.json")
    assert about["count"] == len(FAILED)
    assert about["repair_prompt"].endswith("sql_repair.jinja")


def test_words_of_ones_own(folder):
    record = make_model(folder / "model")
    failed(folder)
    own = folder / "own.jinja"
    own.write_text("{% call user() %}{{ error_class }}! {{ question }} not: {{ sql }}{% endcall %}")
    assert "no_such_table! Which singers" in asked(folder, record, told=own)[1]["prompt"]
    for text, message in (
        (
            "{% call system() %}x{% endcall %}{% call user() %}y{% endcall %}",
            "found turns of system, user, expected",
        ),
        ("{% call user() %}{{ gold }}{% endcall %}", "'gold' is undefined"),
        ("{% call user() %}{{ query }}{% endcall %}", "'query' is undefined"),
    ):
        own.write_text(text)
        with pytest.raises(UserError, match=re.escape(message)):
            asked(folder, record, told=own)


def test_a_whole_prompt_and_one_that_does_not_fit_are_refused(folder):
    record = make_model(folder / "model")
    failed(folder)
    with pytest.raises(UserError, match=r"evaluation\.repair: no turn can follow a whole prompt"):
        asked(folder, record, template="freitas_as_run")
    longest = max(row["prompt_tokens"] for row in asked(folder, record))
    assert asked(folder, make_model(folder / "fits", context=longest + 12))
    with pytest.raises(UserError, match=r"tokens and 12 to follow, .* Or write evaluation\.repair: 0\."):
        asked(folder, make_model(folder / "short", context=longest + 11))


def test_second_answers_take_the_place_of_the_failed_ones_alone(folder):
    rows = read_jsonl(folder / "splits/test.jsonl")
    again = [{"id": rows[2]["id"], "answer": rows[2]["query"]}, {"id": rows[5]["id"], "answer": "SELECT"}]
    write_jsonl(folder / "again.jsonl", again)
    about = {"questions": folder / "splits/test.jsonl", "manifest": folder / "data/spider/manifest.json"}
    rounds = {"first": {"answers": folder / "answers.jsonl"}}
    rounds["second"] = {"answers": folder / "again.jsonl", "first": folder / "answers.jsonl"}
    found = {}
    for name, answers in rounds.items():
        score(about | answers, {"records": folder / f"{name}.csv"}, SCORE | {"criterion": "bag"})
        found[name] = read_records(folder / f"{name}.csv", SPIDER_COLUMNS)
    first, second = found["first"], found["second"]
    assert second["answer"].tolist() == [*ANSWERS[:2], again[0]["answer"], *ANSWERS[3:5], "SELECT"]
    assert (first["bag"][2], second["bag"][2]) == (0, 1)
    others = [0, 1, 3, 4]
    assert first.loc[others].equals(second.loc[others])


def test_where_every_query_ran_nobody_is_asked_and_no_model_is_loaded(folder):
    record = make_model(folder / "model")
    write_jsonl(folder / "failed.jsonl", [])
    assert asked(folder, record) == []
    job = Job(str(folder / "prompts/again.jsonl"), str(record), None, Decoding("fp32", 12, 4))
    # Weights that cannot be read: they need not be.
    (folder / "model/model.safetensors").write_bytes(b"")
    predict(replace(job, maybe_none=True), folder / "none.jsonl", folder / "none.json")
    assert (folder / "none.jsonl").read_text() == ""
    assert read_json(folder / "none.json")["questions"] == 0
    with pytest.raises(UserError, match="found no prompts, expected at least 1"):
        predict(job, folder / "none.jsonl", folder / "none.json")


# -- the table -----------------------------------------------------------------------------------------------------

# Of 200 questions those asked again, those of them whose second query runs, and those that are then right.
AGAIN = {"base": (range(0, 40), range(0, 30), range(0, 12)), "lr0.0001-r8-seed42": (range(5, 9), (5,), ())}


def table(folder: Path, language: str = "en") -> tuple[dict, dict[str, Path]]:
    """A study of which each run's failed answers were given again, and the places of the table."""
    made = study(folder / "made", 1)
    runs, records, answers = [], [], []
    for number, run in enumerate(made["runs"]):
        name, (again, ran, right) = run["variant"], AGAIN[run["variant"]]
        before = [0 if place in again else 1 - place % 2 for place in range(200)]
        after = [1 if place in right else value for place, value in enumerate(before)]
        for label, values in ((name, before), (f"{name}@repair1", after)):
            path = spider_records(folder / f"made/{number}-{label[-7:]}.csv", values, databases=EIGHT)
            frame = read_records(path, SPIDER_COLUMNS)
            failing = [place for place in again if label == name or place not in ran]
            frame.loc[failing, "error_class"] = "syntax_error"
            frame.to_csv(path, index=False)
            runs.append(run | {"variant": label, "setting": label} | ({} if label == name else {"repairs": name}))
            records.append(path)
        answers.append(folder / f"made/{number}-again.jsonl")
        write_jsonl(answers[-1], [{"id": f"dev-{place:05d}", "answer": ""} for place in again])
    _, settings = as_inputs(made)
    settings |= {"runs": runs, "tasks": {"spider": settings["tasks"]["spider"]}, "language": language}
    outputs = {"csv": folder / "tables/repair.csv", "md": folder / "tables/repair.md"}
    outputs["csv"].parent.mkdir(parents=True, exist_ok=True)
    repair({"records": records, "again": answers}, outputs, settings)
    return made, outputs


def test_the_table_counts_who_was_asked_who_runs_and_who_is_right(tmp_path):
    _, outputs = table(tmp_path)
    frame = read_table(outputs["csv"]).set_index("variant")
    for name, counts in AGAIN.items():
        assert frame.loc[name, ["asked_again", "now_run", "now_right"]].tolist() == [*map(len, counts)]
    base, adapter = frame.loc["base"], frame.loc["lr0.0001-r8-seed42"]
    assert (base["first_accuracy_pct"], base["accuracy_pct"], base["difference_pp"]) == (40, 46, 6)
    # Twelve of twelve changes in one direction: McNemar's exact test, and Holm's adjustment for two runs.
    assert base["p_mcnemar"] == pytest.approx(2 * 0.5**12)
    assert base["p_holm"] == pytest.approx(4 * 0.5**12)
    assert base["ci_low_pp"] < 6 < base["ci_high_pp"]
    assert (adapter["difference_pp"], adapter["p_holm"]) == (0, 1)
    page = outputs["md"].read_text(encoding="utf-8")
    assert "adjusted for the 2 comparisons" in page
    assert "40.0 → 46.0" in page


@pytest.mark.parametrize("language", ["en", "pt"])
def test_the_report_has_a_chapter_on_it_and_is_the_same_elsewhere(tmp_path, language):
    made, outputs = table(tmp_path, language)
    arguments = results(tmp_path / "report", 0, made=made)
    arguments["settings"]["language"] = language
    before, _ = written(arguments)
    page, _ = written(arguments, outputs["csv"])
    heading = {"en": "### Repair with the error message", "pt": "### Reparo com a mensagem de erro"}[language]
    assert heading not in before
    told = re.search(rf"{heading}\n(.*?)(?=^#)", page, re.DOTALL | re.MULTILINE)[1]
    line = next(line for line in told.splitlines() if line.startswith("`base` "))
    assert re.findall(r"[\d.,]+%|\d+", line) == ["40", "200", "30", "12"] + (
        ["40.0%", "46.0%"] if language == "en" else ["40,0%", "46,0%"]
    )
    # But for the numbers of the tables behind it.
    rest = page.replace(f"{heading}\n{told}", "")
    assert re.sub(r"\d+", "", rest).split() == re.sub(r"\d+", "", before).split()
