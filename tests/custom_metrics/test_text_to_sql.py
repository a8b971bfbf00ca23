"""`custom_metrics/test_text_to_sql.py`, by `pytest` and by `deepeval test run`, as a user starts them."""

import json
import os
import re
import runpy
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "custom_metrics" / "test_text_to_sql.py"
# No call of the network gets out of this process or those it starts; a try is an error that its output shows.
OFFLINE = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError("NETWORK USED")
class Refusing(socket.socket):
    def connect(self, address):
        if self.family != socket.AF_UNIX:
            print("NETWORK USED", address, flush=True)
            raise OSError("no network in this test")
        return super().connect(address)
    connect_ex = connect
socket.socket = Refusing
def getaddrinfo(*args, **kwargs):
    print("NETWORK USED", args, flush=True)
    raise OSError("no network in this test")
socket.getaddrinfo = getaddrinfo
"""
RUNNERS = {
    "pytest": [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
    "deepeval": [sys.executable, "-c", "from deepeval.cli.main import app; app()", "test", "run"],
}


@pytest.fixture
def folder(tmp_path):
    """Ten questions, seven of them answered rightly, one by text that is no SQL, and a folder to run in."""
    (tmp_path / "database" / "zoo").mkdir(parents=True)
    connection = sqlite3.connect(tmp_path / "database" / "zoo" / "zoo.sqlite")
    connection.executescript("CREATE TABLE animal (id INT); INSERT INTO animal VALUES (1), (2), (2);")
    connection.close()
    questions = [{"db_id": "zoo", "question": "?", "query": "SELECT id FROM animal"} for _ in range(10)]
    answers = ["SELECT id FROM animal"] * 7 + ["SELECT DISTINCT id FROM animal", "DROP TABLE animal", "I cannot say"]
    (tmp_path / "dev.json").write_text(json.dumps(questions), encoding="utf-8")
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"sql": a}) + "\n" for a in answers), encoding="utf-8")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(OFFLINE, encoding="utf-8")
    for name in ("run", "home"):
        (tmp_path / name).mkdir()
    return tmp_path


def environment(folder, **variables):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DEEPEVAL", "CONFIDENT", "PYTEST", "TEXT_TO"))}
    return clean | {
        "HOME": str(folder / "home"),
        "PYTHONPATH": str(folder / "site"),
        "TEXT_TO_SQL_PREDICTIONS": str(folder / "p.jsonl"),
        "TEXT_TO_SQL_QUESTIONS": str(folder / "dev.json"),
        "TEXT_TO_SQL_DATABASES": str(folder / "database"),
        "DEEPEVAL_TELEMETRY_OPT_OUT": "YES",
        **variables,
    }


def start(folder, runner, *arguments, **variables):
    return subprocess.Popen(
        [*RUNNERS[runner], str(FILE), *arguments],
        cwd=folder / "run",
        env=environment(folder, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder, runner, *arguments, **variables):
    process = start(folder, runner, *arguments, **variables)
    output, _ = process.communicate(timeout=600)
    return process.returncode, re.sub(r"\x1b\[[\d;]*m", "", output)


@pytest.mark.parametrize("runner", RUNNERS)
def test_wrong_answers_are_zeros_and_do_not_fail_the_run(folder, runner):
    status, output = run(folder, runner)
    assert status == 0, output
    assert "8 passed, 3 xfailed" in output
    assert "Execution accuracy (bag): 7 of 10, 70.00%, 95% interval 39.68 to 89.22" in output
    assert "NETWORK USED" not in output
    if runner == "deepeval":
        assert "Pass Rate: 70.0% | Passed: 7 | Failed: 3" in output
        assert "duplicate_only" in re.sub(r"[\s│]+", "", output)
    # Nothing is written: neither the cache that grows with every case, nor the last run, nor an identity.
    assert sorted(path.name for path in (folder / "run").rglob("*")) == []
    assert sorted(path.name for path in (folder / "home").rglob("*")) == []


def test_a_minimum_is_a_gate(folder):
    status, output = run(folder, "deepeval", TEXT_TO_SQL_MIN_ACCURACY="70.1")
    assert status == 1
    assert "below the minimum of 70.1%" in output
    assert "1 failed, 7 passed, 3 xfailed" in output


def test_the_gate_counts_questions_that_were_not_selected(folder):
    # Eight of ten as sets: one of the two that ran, and seven more.
    variables = {"TEXT_TO_SQL_MIN_ACCURACY": "80", "TEXT_TO_SQL_SEMANTICS": "set"}
    status, output = run(folder, "pytest", "-k", "accuracy or 9-zoo", **variables)
    assert status == 0, output
    assert "Execution accuracy (set): 8 of 10" in output and "1 passed, 9 deselected, 1 xfailed" in output


def test_runs_side_by_side_in_one_folder_do_not_collide(folder):
    (folder / "all-right.txt").write_text("SELECT id FROM animal\n" * 10, encoding="utf-8")
    (folder / "all-wrong.txt").write_text("SELECT 1\n" * 10, encoding="utf-8")
    runs = [("deepeval", "p.jsonl", 7), ("deepeval", "all-right.txt", 10), ("pytest", "all-wrong.txt", 0)]
    started = [start(folder, runner, TEXT_TO_SQL_PREDICTIONS=str(folder / name)) for runner, name, _ in runs]
    for process, (runner, _, right) in zip(started, runs, strict=True):
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        assert f"{right} of 10" in output
        if runner == "deepeval":
            assert f"Passed: {right} | Failed: {10 - right}" in re.sub(r"\x1b\[[\d;]*m", "", output)
    assert sorted((folder / "run").rglob("*")) == []


def test_deepevals_record_can_be_kept_and_a_login_uploads_nothing(folder):
    (folder / "run" / ".env").write_text("CONFIDENT_API_KEY=confident_secret\n", encoding="utf-8")
    status, output = run(folder, "deepeval", CONFIDENT_API_KEY="confident_secret", DEEPEVAL_RESULTS_FOLDER="kept")
    assert status == 0, output
    assert "NETWORK USED" not in output and "Pass Rate: 70.0%" in output
    (path,) = (folder / "run" / "kept").glob("test_run_*.json")
    cases = json.loads(path.read_text(encoding="utf-8"))["testCases"]
    assert sum(case["success"] for case in cases) == 7 and len(cases) == 10


def test_it_is_not_among_the_tests_of_the_repository():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]


def load(monkeypatch, folder, **variables):
    """Run the file as pytest does when it collects it."""
    for name, value in environment(folder, **variables).items():
        if name.startswith("TEXT_TO"):
            monkeypatch.setenv(name, value)
    return runpy.run_path(str(FILE))


def test_without_variables_it_is_skipped_with_a_reason(folder, monkeypatch):
    with pytest.raises(
        pytest.skip.Exception, match=r"set TEXT_TO_SQL_PREDICTIONS, TEXT_TO_SQL_DATABASES \(see"
    ) as found:
        load(monkeypatch, folder, TEXT_TO_SQL_PREDICTIONS="", TEXT_TO_SQL_DATABASES="")
    assert found.value.allow_module_level


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TEXT_TO_SQL_QUESTIONS": "none.json"}, "none.json: No such file or directory"),
        ({"TEXT_TO_SQL_SEMANTICS": "bags"}, "semantics: found 'bags', expected one of set, bag"),
        ({"TEXT_TO_SQL_COLUMN": "other"}, "has no column other; its columns are sql"),
        ({"TEXT_TO_SQL_MIN_ACCURACY": "high"}, "TEXT_TO_SQL_MIN_ACCURACY: expected a percentage, found 'high'"),
    ],
)
def test_wrong_settings_are_told_without_a_traceback(folder, monkeypatch, variables, message):
    with pytest.raises(pytest.fail.Exception, match=message) as found:
        load(monkeypatch, folder, **variables)
    assert not found.value.pytrace


def test_an_error_in_the_data_fails_the_run(folder):
    questions = json.loads((folder / "dev.json").read_text())
    questions[3]["query"] = "SELECT absent FROM animal"
    (folder / "dev.json").write_text(json.dumps(questions))
    status, output = run(folder, "pytest")
    assert status == 1
    assert "test_question[3-zoo]" in output and "the gold query fails" in output
