"""Asking: the study's own prompt and answer for any SQLite file, and a sentence for all that cannot be."""

import io
import json
import os
import re
import shutil
import sqlite3
from contextlib import chdir, closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import ask
from common.files import UserError, read_json, read_jsonl, write_json, write_jsonl
from custom_metrics.query import Result
from fetch_model import fetch_model
from llm.answering import Job, predict
from llm.decoding import Decoding
from llm.load import load_model
from prepare import prepare
from render import render
from study.unfold import words_sha256
from tasks import spider
from tasks.sql_schema import read_schema

pytestmark = pytest.mark.usefixtures("two_threads")

SETTINGS = {"precision": "fp32", "batch_size": 4, "max_new_tokens": 16}
HALF = "lr0.1@0.5"
# A run's folder is named after what it is, not after its label.
ADAPTER = "r2_lr0.1_s42_0a1b2c"
FOLDERS = {"base": "base", "base@shots3": "base@shots3", HALF: f"{ADAPTER}@0.5"}


@pytest.fixture(scope="module")
def study(tmp_path_factory, repo) -> Path:
    """Results of a study of the demo's model: the base, with other prompts too, and half of a random adapter."""
    results = tmp_path_factory.mktemp("ask") / "results"
    folder = results / "mine"
    data, run, prompts = folder / "data/spider", folder / "runs/demo", folder / "prompts/demo"
    about = {"kind": "spider", "name": "tasks.spider"}
    counts = {"train_spider": 864, "train_others": 72, "dev": 256}
    source = {"source": str(repo / "resources/demo/spider_data"), "sha256": None, "counts": counts}
    spider.fetch(about | source, data / "source")
    options = {"train_files": ["train_spider"], "shots": 2, "seed": 1, "train_questions": None}
    options |= {"validation": {"by": "none", "fraction": 0.1}, "questions": 2, "exclude_databases": []}
    for part in ("train", "shots", "test"):
        prepare(data / "source", part, about | options, data / f"{part}.jsonl")
    record = folder / "models/demo.json"
    fetch_model("demo", str(repo / "resources/demo/model"), None, record)
    words = results.parent / "mine.jinja"
    shutil.copy(repo / "resources/prompts/ribeiro.jinja", words)
    asked = about | {"system": "Write SQL.", "schema": "ddl_rows", "sample_rows": 2}
    asked |= {"max_new_tokens": SETTINGS["max_new_tokens"], "words": words_sha256("prompt", words)}
    inputs = {"rows": data / "test.jsonl", "shots": data / "shots.jsonl", "record": record}
    inputs |= {"manifest": data / "source/manifest.json"}
    for part, shots in (("test", 2), ("test_shots3", 3)):
        with chdir(results.parent):
            render(inputs, words, asked | {"shots": shots}, prompts / f"spider_{part}.jsonl")
    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(load_model(read_json(record), "fp32"), config).save_pretrained(run / ADAPTER / "adapter")
    for variant, part, adapter, more in (
        ("base", "test", None, {}),
        ("base@shots3", "test_shots3", None, {}),
        (HALF, "test", run / ADAPTER / "adapter", {"strength": 0.5}),
    ):
        place = run / FOLDERS[variant]
        outputs = (place / "spider_answers.jsonl", place / "spider_predict.json")
        predict(Job(prompts / f"spider_{part}.jsonl", record, adapter, Decoding(**SETTINGS, **more)), *outputs)
    with (folder / "index.csv").open("w", encoding="utf-8") as stream:
        stream.write("model,run,folder\n")
        stream.writelines(f"demo,{run},runs/demo/{name}\n" for run, name in FOLDERS.items())
    return folder


@pytest.fixture
def here(study, tmp_path, monkeypatch) -> Path:
    """The folder in which the study was run, which a test may add to."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results/mine").symlink_to(study)
    shutil.copy(study.parents[1] / "mine.jinja", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shop(tmp_path) -> Path:
    """A database that no study knows."""
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE toy (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO toy VALUES (7, 'kite')"
        )
    return path


def recommend(folder, **recommendation):
    place = folder / "recommended"
    place.mkdir()
    write_json(place / "recommendation.json", {"model": "demo", "merged": False} | recommendation)
    return place


@pytest.mark.parametrize("variant", ["base@shots3", HALF])
def test_prompts_and_answers_are_those_of_the_study(variant, study, here):
    source = ask.find(Path("results/mine"), variant)
    assert len(source.prompts["shots"]) == (3 if variant == "base@shots3" else 2)
    part = "test_shots3" if variant == "base@shots3" else "test"
    prompts = read_jsonl(study / f"prompts/demo/spider_{part}.jsonl")
    questions = {row["id"]: row for row in read_jsonl(study / "data/spider/test.jsonl")}
    recorded = {row["id"]: row for row in read_jsonl(study / f"runs/demo/{FOLDERS[variant]}/spider_answers.jsonl")}
    answer = ask.answers_of(source)
    for db_id in {row["db_id"] for row in questions.values()}:
        # Under another name, the schema can only come from the file itself.
        shutil.copy(study / f"data/spider/source/database/{db_id}/{db_id}.sqlite", here / "copy.sqlite")
        render = ask.prompts_of(source, here / "copy.sqlite")
        for row in [row for row in prompts if questions[row["id"]]["db_id"] == db_id]:
            prompt = render(questions[row["id"]]["question"])
            assert prompt == row["prompt"]
            assert answer(prompt) == (recorded[row["id"]]["answer"], recorded[row["id"]]["finished"])
    assert len({row["answer"] for row in recorded.values()}) > 1


def test_base_and_adapter_of_the_study_differ(study):
    base, half = (read_jsonl(study / f"runs/demo/{FOLDERS[name]}/spider_answers.jsonl") for name in ("base", HALF))
    assert [row["answer"] for row in base] != [row["answer"] for row in half]


def test_a_database_of_the_study_has_the_schema_that_the_study_showed(study, here):
    source = ask.find(Path("results/mine"), "base")
    # Its entry names the foreign keys in another order than its file.
    prompts = [ask.prompts_of(source, study / "data/spider/source/database/airline/airline.sqlite")("Which planes?")]
    shutil.copy(study / "data/spider/source/database/airline/airline.sqlite", here / "copy.sqlite")
    prompts.append(ask.prompts_of(source, here / "copy.sqlite")("Which planes?"))
    first, second = ("FOREIGN KEY (airport_id) REFERENCES", "FOREIGN KEY (plane_id) REFERENCES")
    asked = [prompt.rpartition("CREATE TABLE flight")[2] for prompt in prompts]
    assert [text.index(first) < text.index(second) for text in asked] == [True, False]


def answering(monkeypatch, *answers):
    """Let the model give these answers, one after the other, and return the prompts that it is given."""
    given, left = [], iter(answers)
    monkeypatch.setattr(ask, "answers_of", lambda source: lambda prompt: (given.append(prompt) or next(left), True))
    return given


ASK = ["--study", "mine", "--model", "base", "--database", "shop.sqlite"]


def test_sql_and_rows_alone_go_to_standard_output(here, shop, monkeypatch, capsys):
    prompts = answering(monkeypatch, "Sure:\n```sql\nSELECT id, name FROM toy;\n```", "SELECT colour FROM toy")
    assert ask.main([*ASK, "Which toys?"]) == 0
    assert capsys.readouterr().out == "SELECT id, name FROM toy\n\n  id  name\n----  ------\n   7  kite\n(1 row)\n"
    assert "CREATE TABLE toy (\n  id NUMERIC,\n  name TEXT,\n  PRIMARY KEY (id)\n);\n/*\n2 rows of toy:" in prompts[0]
    assert "Question: Which toys?\nSQL:" in prompts[0]
    assert ask.main([*ASK, "Which colours?"]) == 1
    out, err = capsys.readouterr()
    assert out == "SELECT colour FROM toy\n"
    assert err == "ERROR: the query does not run (no_such_column: no such column: colour).\n"


def test_questions_from_standard_input(here, shop, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("\nWhich toys?\n  How many?\n"))
    answering(monkeypatch, "SELECT name FROM toy", "SELECT count(*) AS n, x'00' AS b FROM toy")
    assert ask.main([*ASK, "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"question": "Which toys?", "sql": "SELECT name FROM toy"} | vars(
        Result(["name"], [["kite"]], False)
    )
    assert (second["question"], second["rows"]) == ("How many?", [[1, {"blob": "00", "length": 1}]])


@pytest.mark.parametrize("given", [b"Which\xff?\n", None])
def test_a_question_that_is_not_utf_8(given, here, shop, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given or b""), encoding="utf-8"))
    assert ask.main([*ASK, *(() if given else ("Which\udcff?",))]) == 1
    assert re.fullmatch(r"ERROR: a question is not UTF-8 \(.*\)\. Write it in UTF-8\.\n", capsys.readouterr().err)


def test_the_output_may_be_cut(here, shop, monkeypatch):
    answering(monkeypatch, "SELECT name FROM toy")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert ask.main([*ASK, "Which toys?"]) == 141


def test_targets_that_the_study_had_before(study, here, shop, capsys):
    old = shutil.copytree(study / "data/spider", study / "data/old")
    try:
        assert ask.main([*ASK, "Which toys?"]) == 1
    finally:
        shutil.rmtree(old)
    assert "results/mine/data: holds several targets (old, spider), of which the study" in capsys.readouterr().err


def test_sql_alone_is_not_run(here, shop, monkeypatch, capsys):
    answering(monkeypatch, "SELECT colour FROM toy")
    assert ask.main([*ASK, "--no-rows", "Which toys?"]) == 0
    assert capsys.readouterr().out == "SELECT colour FROM toy\n"


def test_table_of_rows():
    rows = [[1, None, "a\n\x1b[31mb", {"blob": "00ff", "length": 2}], [{"number": "inf"}, 2.5, "12", None]]
    text = ask.table(Result(["n", "n", "text", ""], rows, True))
    assert text.splitlines() == [
        "  n     n  text",
        "---  ----  ------------  -------",
        "  1  NULL  a\\n\\x1b[31mb  x'00ff'",
        "inf   2.5  12            NULL",
        "(the first 2 rows; there are more)",
    ]
    assert ask.table(Result(["a"], [], False)).splitlines() == ["a", "---", "(0 rows)"]
    assert "x… (101 characters)" in ask.table(Result(["a"], [["x" * 101]], False))


def test_the_recommended_adapter_answers_at_full_strength(study, here):
    place = recommend(study, variant=HALF)
    try:
        with pytest.raises(UserError, match=r"recommended: does not hold the adapter of lr0.1@0.5"):
            ask.find(Path("results/mine"), "recommended")
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            shutil.copy(study / f"runs/demo/{ADAPTER}/adapter/{name}", place / name)
        source = ask.find(Path("results/mine"), "recommended")
        assert source.adapter == Path("results/mine/recommended")
        # Its strength is in its weights already.
        assert source.settings == read_json(study / f"runs/demo/{FOLDERS[HALF]}/spider_predict.json")["settings"] | {
            "strength": 1
        }
        assert source.prompts["settings"]["shots"] == 2
    finally:
        shutil.rmtree(place)


def test_the_recommended_base(study, here):
    place = recommend(study, variant="base")
    try:
        assert ask.find(Path("results/mine"), "recommended") == ask.find(Path("results/mine"), "base")
        assert ask.find(Path("results/mine"), "demo/recommended").adapter is None
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--study": "yours"}, "results/yours: no results of a study called yours. .*: mine."),
        ({"--model": "lr0.2"}, "--model lr0.2: no such model, .* Name one of: base, base@shots3, lr0.1@0.5."),
        ({"--model": "demo/lr0.2"}, "--model demo/lr0.2: no such model"),
        (
            {"--model": "recommended"},
            "Add a section `recommend:` to the study and run it, or name one of: base, base@sh",
        ),
        ({"--database": "none.sqlite"}, "none.sqlite: no such file"),
        ({"--database": "text.sqlite"}, "text.sqlite: not a SQLite database"),
        ({"--database": "empty.sqlite"}, "empty.sqlite: has no tables"),
        ({"--database": "cut.sqlite"}, "cut.sqlite: cannot be read as a SQLite database"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_sentence(changed, message, here, shop, capsys):
    (here / "text.sqlite").write_text("CREATE TABLE toy (id);", encoding="utf-8")
    (here / "empty.sqlite").touch()
    (here / "cut.sqlite").write_bytes(shop.read_bytes()[:200])
    given = dict(zip(ASK[::2], ASK[1::2], strict=True)) | changed
    assert ask.main([*(word for pair in given.items() for word in pair), "Which toys?"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    with pytest.raises(UserError, match=message):
        raise UserError(err)


def test_prompts_or_adapter_changed_since(study, here, tmp_path):
    shutil.copytree(study, tmp_path / "results/other")
    adapter = tmp_path / f"results/other/runs/demo/{ADAPTER}/adapter/adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-1] + b"\xff")
    with pytest.raises(
        UserError,
        match=rf"adapter_model.safetensors: has changed since {ADAPTER}@0.5 answered .* --forcerun .*adapter_model",
    ):
        ask.find(Path("results/other"), HALF)
    report = tmp_path / "results/other/prompts/demo/spider_test.json"
    write_json(report, read_json(report) | {"sha256": "0"})
    with pytest.raises(UserError, match="prompts/demo: rendered anew"):
        ask.find(Path("results/other"), "base")


def test_a_study_that_lacks_what_a_question_needs(study, here, shop, tmp_path):
    other = shutil.copytree(study, tmp_path / "results/other")
    place = recommend(other, variant="lr0.2")
    with pytest.raises(UserError, match=r"recommended: recommends lr0\.2, which has not answered .* Run it again"):
        ask.find(Path("results/other"), "recommended")
    shutil.rmtree(place)
    source = ask.find(Path("results/other"), "base")
    shots = source.data / "shots.jsonl"
    write_jsonl(shots, read_jsonl(shots)[1:])
    with pytest.raises(UserError, match=rf"shots\.jsonl: lacks {source.prompts['shots'][0]}\. Run the study again"):
        ask.prompts_of(source, shop)
    (other / "index.csv").unlink()
    with pytest.raises(UserError, match=r"index\.csv: no such file\. Run the study again"):
        ask.find(Path("results/other"), "base")


def test_no_question_a_cut_answer_and_ctrl_c_are_said(here, shop, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    answering(monkeypatch)
    assert ask.main(ASK) == 1
    assert capsys.readouterr().err.startswith("ERROR: found no question. Write one in quotes, or one a line")
    monkeypatch.setattr(ask, "answers_of", lambda source: lambda prompt: ("SELECT name FROM toy WHERE", False))
    assert ask.main([*ASK, "Which toys?"]) == 1
    assert "WARNING: the answer was cut after 16 tokens, as in the study." in capsys.readouterr().err

    def interrupted(source):
        raise KeyboardInterrupt

    monkeypatch.setattr(ask, "answers_of", interrupted)
    assert ask.main([*ASK, "Which toys?"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_the_prompt_template_changed_since(study, here, shop, tmp_path):
    """It is looked for where it was, and among those that come with the workflow: there, under its name."""
    source = ask.find(Path("results/mine"), "base")
    words = Path(source.prompts["prompt"])
    assert words == Path("mine.jinja")
    assert "Which toys?" in ask.prompts_of(source, shop)("Which toys?")
    words.write_text(words.read_text(encoding="utf-8").replace("Question:", "Asked:"), encoding="utf-8")
    with pytest.raises(UserError, match=r"mine.jinja: this prompt template has changed since"):
        ask.prompts_of(source, shop)
    gone = replace(source, prompts=source.prompts | {"prompt": "elsewhere/ribeiro.jinja"})
    assert "Which toys?" in ask.prompts_of(gone, shop)("Which toys?")


def test_a_study_whose_target_is_no_sql(study, here, tmp_path):
    shutil.copytree(study, tmp_path / "results/letters")
    about = tmp_path / "results/letters/data/spider/test.json"
    write_json(about, read_json(about) | {"settings": {"kind": "mmlu"}})
    with pytest.raises(UserError, match=r"results/letters: its target, spider, is no text-to-SQL task"):
        ask.find(Path("results/letters"), "base")


def test_questions_with_evidence_are_asked_without(study, here, shop, tmp_path):
    """As of a task whose own questions bring some: the template may use it."""
    source = ask.find(Path("results/mine"), "base")
    rows = [row | {"evidence": "toys are small"} for row in read_jsonl(source.data / "shots.jsonl")]
    data = tmp_path / "results/told"
    data.mkdir()
    write_jsonl(data / "shots.jsonl", rows)
    (data / "source").symlink_to((source.data / "source").resolve())
    words = tmp_path / "told.jinja"
    told = "{% call user() %}{% for shot in shots %}[{{ shot.evidence }}]{% endfor %}[{{ evidence }}]{% endcall %}"
    words.write_text(told, encoding="utf-8")
    settings = source.prompts["settings"] | {"words": words_sha256("prompt", words)}
    other = replace(source, data=data, prompts=source.prompts | {"prompt": str(words), "settings": settings})
    assert "[toys are small][toys are small][]" in ask.prompts_of(other, shop)("Which toys?")


def test_the_same_variant_of_two_models_is_asked_by_both_names(study, here, tmp_path):
    shutil.copytree(study, tmp_path / "results/two")
    for place in ("models/{}.json", "runs/{}", "prompts/{}"):
        source, target = (tmp_path / "results/two" / place.format(name) for name in ("demo", "other"))
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    with (tmp_path / "results/two/index.csv").open("a", encoding="utf-8") as stream:
        stream.writelines(f"other,{run},runs/other/{name}\n" for run, name in FOLDERS.items())
    with pytest.raises(UserError, match=r"several models have it. Name one of: demo/base, .*other/base"):
        ask.find(Path("results/two"), "base")
    assert ask.find(Path("results/two"), "other/base").record["name"] == "demo"
    place = tmp_path / "results/two/recommended/other"
    place.mkdir(parents=True)
    write_json(place / "recommendation.json", {"model": "other", "variant": "base", "merged": False})
    assert ask.find(Path("results/two"), "other/recommended") == ask.find(Path("results/two"), "other/base")
    with pytest.raises(UserError, match=r"--model recommended: .* Name one of: demo/base, .*, other/recommended, "):
        ask.find(Path("results/two"), "recommended")


def test_schema_of_a_file(tmp_path):
    path = tmp_path / "odd.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            CREATE TABLE "a table" (k1 INT, k2 VARCHAR(9), "when" DATE, flag BOOLEAN, v, twice INT AS (k1 * 2),
                                    PRIMARY KEY (k2, k1));
            CREATE TABLE child (id INTEGER PRIMARY KEY AUTOINCREMENT, x TEXT, y INT, z BLOB,
                                FOREIGN KEY (x, y) REFERENCES "a table", FOREIGN KEY (y) REFERENCES gone (id));
            CREATE VIEW looked AS SELECT * FROM child;
            CREATE VIRTUAL TABLE words USING fts5(body);
            INSERT INTO child (x) VALUES ('a');
            """
        )
    found = read_schema(path)
    assert found["table_names_original"] == ["a table", "child", "words"]
    columns = [name for _, name in found["column_names_original"]]
    assert columns == ["*", "k1", "k2", "when", "flag", "v", "twice", "id", "x", "y", "z", "body"]
    types = [
        "text",
        "number",
        "text",
        "time",
        "boolean",
        "text",
        "number",
        "number",
        "text",
        "number",
        "others",
        "text",
    ]
    assert found["column_types"] == types
    assert found["primary_keys"] == [2, 7]
    assert found["foreign_keys"] == [[8, 2], [9, 1]]


def test_schemas_of_the_demo_are_those_of_its_entries(repo):
    data = repo / "resources/demo/spider_data"
    keys = ("table_names_original", "column_names_original", "column_types", "primary_keys")
    for entry in read_json(data / "tables.json"):
        found = read_schema(data / f"database/{entry['db_id']}/{entry['db_id']}.sqlite")
        assert [found[key] for key in keys] == [entry[key] for key in keys]
        assert sorted(found["foreign_keys"]) == sorted(entry["foreign_keys"])
