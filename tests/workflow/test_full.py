"""Full fine-tuning beside adapters: one whole run, from the dry run to what is recommended and asked.

The whole run takes over a minute, and all tests need it: they are marked `long` and run in `make faults`.
"""

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from _folders import folders
from common.files import read_json, read_jsonl
from present.values import read_table

pytestmark = pytest.mark.long

RUNS = ["lr0.001", "full", "gentle", "full@0.5", "full@step4", "soup-both"]


@pytest.fixture(scope="module")
def study(tiny_study) -> dict:
    """The tiny study with one adapter and two settings of full fine-tuning."""
    study = copy.deepcopy(tiny_study)
    study["study"] = "full"
    study["sweep"] = {"training.learning_rate": [0.001]}
    study["adapters"] = {
        name: {"training": {"method": "full", "learning_rate": rate}}
        for name, rate in (("full", 0.0005), ("gentle", 0.0001))
    }
    study["evaluation"] = {
        "adapters": ["full"],
        "interpolate": [0.5],
        "checkpoints": [4],
        "soups": {"both": ["full", "gentle"]},
        "noise_floor": True,
    }
    return study


@pytest.fixture(scope="module")
def full_run(copy_repo, snakemake_forked, study) -> Path:
    """A copy of the repository in which that study has run once."""
    folder = copy_repo("full")
    (folder / "full.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    run = snakemake_forked(folder, "--configfile", "full.yaml", models=True)
    assert run.returncode == 0, run.stdout[-8000:]
    return folder


def test_full_fine_tuning_is_a_setting_as_any_other(full_run):
    results = full_run / "results/full"
    settings = read_table(results / "tables/settings.csv")
    assert {*settings["setting"]} == {*RUNS}
    where = folders(results)
    reports = {run: read_json(where[run] / "train.json") for run in RUNS[:3]}
    whole = {run: one["trainable_parameters"] == one["all_parameters"] for run, one in reports.items()}
    assert whole == {"lr0.001": False, "full": True, "gentle": True}
    cost = read_table(results / "tables/cost.csv")
    assert {*cost.loc[cost["task"] == "train", "variant"]} == {*RUNS[:3]}
    answers = [[row["logprobs"] for row in read_jsonl(where[run] / "mmlu_answers.jsonl")] for run in RUNS]
    assert all(one != other for i, one in enumerate(answers) for other in answers[:i])
    assert [run for run in where if run.endswith("@merged")] == ["lr0.001@merged"]


def test_the_report_says_which_settings_are_full_fine_tuning(full_run):
    text = (full_run / "results/full/report.md").read_text(encoding="utf-8")
    assert "are full fine-tuning: all weights of the language model were trained" in text
    assert "The others are LoRA's adapters" in text
    assert re.search(r"\| `method` +\| `lora; full` +\|", text)


def test_a_question_is_answered_by_the_trained_weights(full_run):
    first = read_jsonl(full_run / "results/full/data/spider/test.jsonl")[0]
    database = full_run / f"results/full/data/spider/source/database/{first['db_id']}/{first['db_id']}.sqlite"
    asked = ["--study", "full", "--model", "full", "--database", str(database), first["question"]]
    done = subprocess.run(
        [sys.executable, "scripts/ask.py", *asked], cwd=full_run, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_to_be_done_again(full_run, snakemake_forked):
    run = snakemake_forked(full_run, "--configfile", "full.yaml", "--dry-run")
    assert "Nothing to be done" in run.stdout
