"""Repair as a whole run: turned on in a finished study, it makes its own jobs and nothing else anew.

This takes over a minute and is marked `long`: it runs in `make faults`.
"""

import copy
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from _folders import folders
from common.files import read_json, read_jsonl
from present.values import read_table
from tasks.records import SPIDER_COLUMNS, read_records
from tests.workflow.test_faults import script_of, wait_until
from tests.workflow.test_staleness import SPIDER, chain, jobs

pytestmark = pytest.mark.long

FIRST = ("base", "lr0.001")
SECOND = tuple(f"{name}@repair1" for name in FIRST)


@pytest.fixture(scope="module")
def study(tiny_study) -> dict:
    return copy.deepcopy(tiny_study) | {"evaluation": {"repair": 1}}


@pytest.fixture(scope="module")
def repaired(tiny_run, tmp_path_factory, snakemake, study) -> Path:
    """A copy of the tiny study's folder, in which repair was turned on after the study had run, and then run again."""
    folder = shutil.copytree(tiny_run, tmp_path_factory.mktemp("repair") / "repo")
    (folder / "repair.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    dry = snakemake(folder, "--configfile", "repair.yaml", "--dry-run")
    # No training, and no other answer.
    assert jobs(dry.stdout, study) == (
        chain(FIRST, "run_sql")
        | chain(SECOND, "render_repair", *SPIDER)
        | {"repair", "cost", "tables_page", "report", "index"}
    )
    run = snakemake(folder, "--configfile", "repair.yaml")
    assert run.returncode == 0, run.stdout[-8000:]
    again = snakemake(folder, "--configfile", "repair.yaml", "--dry-run")
    assert jobs(again.stdout, study) == set()
    return folder


def test_failed_answers_are_given_again_and_all_others_stand(repaired):
    results = repaired / "results/tiny"
    places, table = folders(results), read_table(results / "tables/repair.csv").set_index("variant")
    for name in FIRST:
        one, two = places[name], places[f"{name}@repair1"]
        first, second = (read_records(place / "spider.csv", SPIDER_COLUMNS) for place in (one, two))
        asked = [row["id"] for row in read_jsonl(one / "spider_failed.jsonl")]
        answers = {row["id"]: row["answer"] for row in read_jsonl(two / "spider_answers.jsonl")}
        assert asked
        assert [*answers] == asked
        again = first["id"].isin(asked)
        # Who was asked is whose SQL the records say did not run.
        ran = ("ok", "wrong_rows", "wrong_columns", "wrong_order_only", "extra_or_missing_columns", "duplicate_only")
        assert (again == ~first["error_class"].isin(ran)).all()
        assert first[~again].equals(second[~again])
        assert second[again]["answer"].tolist() == [answers[name] for name in second[again]["id"]]
        row = table.loc[name]
        assert row["asked_again"] == len(asked)
        assert row["now_run"] == second[again]["error_class"].isin(ran).sum()
        assert row["now_right"] == second[again]["bag"].sum() == second["bag"].sum() - first["bag"].sum()
        assert read_json(two / "spider_predict.json")["questions"] == len(asked)
        assert not (two / "mmlu.csv").exists()


def test_its_runs_are_in_its_table_the_costs_and_the_report_alone(repaired):
    results = repaired / "results/tiny"
    for path in (results / "tables").glob("*.csv"):
        seen = "@repair1" in path.read_text(encoding="utf-8")
        assert seen == (path.name == "cost.csv"), path.name
    assert "### Repair with the error message" in (results / "report.md").read_text(encoding="utf-8")
    assert "Answers given again after an error" in (results / "tables.html").read_text(encoding="utf-8")


def test_a_bundle_of_it_is_verified(repaired, tmp_path):
    for command in (
        ["bundle.py", "--configfile", "repair.yaml"],
        ["verify.py", "results/tiny.zip", "--data", "results/tiny/data"],
    ):
        run = subprocess.run(
            [sys.executable, f"scripts/{command[0]}", *command[1:]], cwd=repaired, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stdout + run.stderr


def test_a_kill_within_the_second_round_changes_no_byte(repaired, tmp_path, start_snakemake, snakemake):
    folder = shutil.copytree(repaired, tmp_path / "repo", symlinks=True)
    (place,) = (place for name, place in folders(folder / "results/tiny").items() if name == SECOND[0])
    answers = place / "spider_answers.jsonl"
    before, partial = answers.read_bytes(), Path(f"{answers}.partial.jsonl")
    answers.unlink()
    command = ["--configfile", "repair.yaml", "--config", "inference={batch_size: 1}"]
    command += ["--", str(answers.relative_to(folder))]
    with (folder / "first.log").open("w") as log:
        first = start_snakemake(folder, *command, stdout=log)
    wait_until(lambda: partial.exists() and partial.read_bytes().count(b"\n") > 1, first)
    os.kill(script_of(folder, "predict"), signal.SIGKILL)
    assert first.wait() == 1
    kept = partial.read_bytes().count(b"\n") - 1
    assert 0 < kept < before.count(b"\n")
    run = snakemake(folder, *command)
    assert run.returncode == 0, run.stdout[-4000:]
    assert answers.read_bytes() == before
    assert read_json(place / "spider_predict.json")["answered_before_resuming"] == kept
    again = snakemake(folder, "--configfile", "repair.yaml")
    assert again.returncode == 0, again.stdout[-4000:]
    for name in ("spider.csv", "spider_answers.jsonl"):
        relative = place.relative_to(folder) / name
        assert (folder / relative).read_bytes() == (repaired / relative).read_bytes()
