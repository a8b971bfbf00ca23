"""The pytest evaluation through the DeepEval metric as a step: what it writes, and which differences it finds."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from common.files import UserError, read_json, sha256_file, write_json, write_jsonl
from deepeval_tests import TESTS, deepeval_tests
from score import score
from tasks.records import SPIDER_COLUMNS, read_records, write_records

SETTINGS = {
    "runs": [{"name": "base", "task": "spider"}, {"name": "lr0.1", "task": "spider"}],
    "tasks": {"spider": {"criterion": "bag", "timeout_s": 5}},
}
# The second run has no answer to the third question, and its first answer has half of a character.
ANSWERS = {
    "base": ["SELECT id FROM animal", "SELECT DISTINCT id FROM animal", "```sql\nSELECT 3;\n```"],
    "lr0.1": ["SELECT id, '\ud800' FROM animal", "DROP TABLE animal"],
}


@pytest.fixture
def files(tmp_path) -> dict:
    """Three questions on one database, and the scored answers of two runs."""
    source = tmp_path / "data/spider/source"
    database = source / "database/zoo/zoo.sqlite"
    database.parent.mkdir(parents=True)
    connection = sqlite3.connect(database)
    connection.executescript("CREATE TABLE animal (id INT); INSERT INTO animal VALUES (1), (2), (2);")
    connection.close()
    name = "database/zoo/zoo.sqlite"
    write_json(source / "manifest.json", {"files": {name: {"sha256": sha256_file(database)}}})
    golds = ["SELECT id FROM animal", "SELECT id FROM animal", "SELECT count(*) FROM animal"]
    questions = [
        {"id": f"dev-{number:05d}", "db_id": "zoo", "question": "?", "query": gold, "hardness": "easy"}
        for number, gold in enumerate(golds)
    ]
    write_jsonl(tmp_path / "data/spider/test.jsonl", questions)
    shared = {"questions": tmp_path / "data/spider/test.jsonl", "manifest": source / "manifest.json"}
    inputs = {f"{key}_spider": path for key, path in shared.items()} | {"answers": [], "records": []}
    for run, answers in ANSWERS.items():
        folder = tmp_path / "runs/demo" / run
        folder.mkdir(parents=True)
        rows = [json.dumps({"id": f"dev-{number:05d}", "answer": text}) for number, text in enumerate(answers)]
        (folder / "spider_answers.jsonl").write_text("\n".join(rows), encoding="utf-8")
        given = shared | {"answers": folder / "spider_answers.jsonl"}
        score(given, {"records": folder / "spider.csv"}, {"kind": "spider", "name": "tasks.spider", "timeout_s": 5})
        inputs["answers"].append(folder / "spider_answers.jsonl")
        inputs["records"].append(folder / "spider.csv")
    outputs = {"runs": tmp_path / "tables/deepeval_tests.json", "junit": tmp_path / "tables/deepeval_tests.xml"}
    outputs["runs"].parent.mkdir()
    return {"inputs": inputs, "outputs": outputs, "settings": SETTINGS}


def edit(records: Path, **cells) -> None:
    """Change the first row of a records file."""
    rows = read_records(records, SPIDER_COLUMNS).to_dict("records")
    write_records(records, SPIDER_COLUMNS, [rows[0] | cells, *rows[1:]])


def test_each_question_of_each_run_is_a_test_with_the_verdict_of_its_record(files, tmp_path, monkeypatch):
    deepeval_tests(**files)
    first = files["outputs"]["junit"].read_bytes()
    tree = ElementTree.fromstring(first)
    cases = {case.get("name"): case.find("skipped") for case in tree.iter("testcase")}
    right = {name for name, skipped in cases.items() if skipped is None}
    assert right == {
        "test_question[base/dev-00000]", "test_question[base/dev-00002]", "test_accuracy[base]", "test_accuracy[lr0.1]"
    }  # fmt: skip
    assert len(cases) == 8
    assert "duplicate_only" in cases["test_question[base/dev-00001]"].get("message")
    # Nothing of a time or a machine, so that a second run gives the same bytes.
    assert not any({"time", "timestamp", "hostname"} & set(element.attrib) for element in tree.iter())
    deepeval_tests(**files)
    assert files["outputs"]["junit"].read_bytes() == first
    # By hand, from any folder, with the one variable.
    assert [run["run"] for run in read_json(files["outputs"]["runs"])] == ["base", "lr0.1"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(TESTS)],
        env=os.environ | {"TEXT_TO_SQL_RUNS": str(files["outputs"]["runs"])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Execution accuracy (bag) of base: 2 of 3, 66.67%" in done.stdout
    assert "4 passed, 4 xfailed" in done.stdout


@pytest.mark.parametrize("column", ["bag", "test_suite_raw"])
def test_a_verdict_that_is_not_the_records_fails_the_step_and_names_the_question(column, files):
    edit(files["inputs"]["records"][1], **{column: 1})
    with pytest.raises(UserError, match=rf"1 tests failed; the first: .*lr0.1/dev-00000.*{column} 0, recorded 1"):
        deepeval_tests(**files)
    assert not files["outputs"]["junit"].exists()


def test_records_of_other_questions_are_refused(files, capfd):
    edit(files["inputs"]["records"][0], id="dev-00009")
    with pytest.raises(UserError, match="pytest ended with status 2; the log has its words"):
        deepeval_tests(**files)
    assert "its ids are not those of" in capfd.readouterr().out
