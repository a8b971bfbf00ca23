"""Whole runs with every kind of task: each as a yardstick, each that can be one as the target, and one more by a user.

The data are made by code and small; the model is the demo's.
"""

import copy
import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from _folders import folders
from _tasks import bird_release, jsonl_file, spider_folder
from common.files import read_json, read_jsonl

pytestmark = pytest.mark.long

REPO = Path(__file__).parents[2]
TEMPLATE = """{% call user() %}{{ question }} It is about {{ topic }}.{% endcall %}
{% call assistant() %}Well …{% endcall %}
{% call user() %}Just the sum.{% endcall %}
"""
# Each kind as a yardstick, with what its records have: strata, and how many questions of the made data.
YARDSTICKS = {
    "bird": ({"source": "bird/dev_20240627"}, "difficulty", 24),
    "shop": ({"kind": "spider_format", "source": "shop"}, "hardness", 24),
    "choices": ({"kind": "jsonl", "source": "choices.jsonl", "cluster": "topic", "strata": ["size"]}, "size", 40),
    "exact": ({"kind": "jsonl", "source": "exact.jsonl", "score": "exact", "strata": ["topic"]}, "topic", 40),
    "regex": ({"kind": "jsonl", "source": "regex.jsonl", "score": "regex", "prompt": "words.jinja"}, None, 40),
}
# By name of the study: the target's section, and the completion of a row to train on.
TARGETS = {
    "shop": ({"kind": "spider_format", "source": "shop", "shots": 2, "validation": {"fraction": 0.2}}, "query"),
    "bird": ({"source": "bird", "shots": 2, "validation": {"fraction": 0.2}}, "query"),
    "exact": (
        {"kind": "jsonl", "source": "exact.jsonl", "train": "exact-train.jsonl", "score": "exact", "shots": 2},
        "answer",
    ),
    "choices": (
        {"kind": "jsonl", "source": "choices.jsonl", "train": "choices-train.jsonl", "shots": 1, "cluster": "topic"},
        "answer",
    ),
}
VARIANTS = ("base", "lr0.001")


@pytest.fixture(scope="module")
def folder(copy_repo) -> Path:
    """A copy of the repository with data of every kind."""
    folder = copy_repo("tasks")
    bird_release(folder / "bird")
    spider_folder(folder / "shop")
    for form in ("choice", "exact", "regex"):
        name = "choices" if form == "choice" else form
        jsonl_file(folder / f"{name}.jsonl", form)
        jsonl_file(folder / f"{name}-train.jsonl", form, first=40)
    (folder / "words.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def study_of(folder, tiny_study) -> Callable[[str, dict], str]:
    """A function that writes a study of these tasks, and gives its file."""

    def write(name: str, tasks: dict) -> str:
        study = copy.deepcopy(tiny_study) | {"study": name, "tasks": tasks}
        study["training"] |= {"max_steps": 2, "save_steps": 1, "per_device_train_batch_size": 4}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        return f"{name}.yaml"

    return write


def run(snakemake, folder: Path, *arguments: str) -> str:
    """Run Snakemake, which must succeed, and give what it printed."""
    ended = snakemake(folder, *arguments)
    assert ended.returncode == 0, ended.stdout[-8000:]
    return ended.stdout


def jobs(printed: str) -> set[str]:
    return set(re.findall(r"^ *(?:local)?rule (\w+):", printed, re.MULTILINE))


def rows_of(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def yardsticks(folder, study_of, snakemake_forked, tiny_study) -> Path:
    """The results of a study of Spider with every other kind as a yardstick."""
    others = {name: {**section, "max_new_tokens": 8} for name, (section, _, _) in YARDSTICKS.items()}
    study = study_of("yardsticks", {"spider": tiny_study["tasks"]["spider"], **others})
    run(partial(snakemake_forked, models=True), folder, "--configfile", study)
    return folder / "results/yardsticks"


@pytest.mark.parametrize("name", YARDSTICKS)
def test_a_yardstick_is_asked_scored_and_shown(yardsticks, name):
    _, stratum, number = YARDSTICKS[name]
    for variant in VARIANTS:
        records = rows_of(folders(yardsticks)[variant] / f"{name}.csv")
        assert len(records) == number
        if stratum:
            assert len({record[stratum] for record in records}) > 1
    table = rows_of(yardsticks / f"tables/{name}.csv")
    assert {row["variant"] for row in table} == set(VARIANTS)
    for file in ("settings", "transitions", "regression"):
        assert name in {row["task"] for row in rows_of(yardsticks / f"tables/{file}.csv")}
    assert {"bird": "BIRD"}.get(name, name) in (yardsticks / "report.md").read_text(encoding="utf-8")


def test_only_tasks_of_sql_have_classes_of_errors(yardsticks):
    assert {row["task"] for row in rows_of(yardsticks / "tables/errors.csv")} == {"spider", "bird", "shop"}


def test_each_yardstick_has_a_verdict_against_the_margin(yardsticks):
    rows = [row for row in rows_of(yardsticks / "tables/settings.csv") if row["category"] == "aggregate"]
    assert {row["task"] for row in rows if row["measure"] == "correct"} == {*YARDSTICKS, "spider"}
    assert all(row["margin_verdict"] for row in rows)
    # Where there are letters, there are their probabilities.
    assert {row["task"] for row in rows if row["measure"] == "score"} == {"choices"}


def test_bird_shows_its_evidence_and_a_template_of_ones_own_its_words(yardsticks):
    prompts = read_jsonl(yardsticks / "prompts/demo/bird_test.jsonl")
    assert sum("Evidence: ships are made by makers" in row["prompt"] for row in prompts) == 4
    first = read_jsonl(yardsticks / "prompts/demo/regex_test.jsonl")[0]["prompt"]
    places = [first.index(text) for text in ("What is 0 + 0? It is about plus 0.", "Well …", "Just the sum.")]
    assert places == sorted(places)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_trained_on(name, folder, study_of, snakemake, snakemake_forked, tiny_study):
    section, learnt = TARGETS[name]
    tasks = {name: section | {"role": "target", "max_new_tokens": 16}, "mmlu": tiny_study["tasks"]["mmlu"]}
    run(partial(snakemake_forked, models=True), folder, "--configfile", study_of(f"on-{name}", tasks))
    results = folder / f"results/on-{name}"
    rows = read_jsonl(results / f"data/{name}/train.jsonl")
    prompts = read_jsonl(results / f"prompts/demo/{name}_train.jsonl")
    assert len(rows) == len(prompts) > 20
    assert all(row[learnt] in prompt["completion"] for row, prompt in zip(rows, prompts, strict=True))
    asked = {row["question"] for row in read_jsonl(results / f"data/{name}/test.jsonl")}
    assert not asked & {row["question"] for row in rows}
    assert read_json(results / f"prompts/demo/{name}_audit.json")["failed"] == []
    assert read_json(folders(results)["lr0.001"] / "train.json")["steps"] == 2
    assert {row["task"] for row in rows_of(results / "tables/regression.csv")} == {name, "mmlu"}
    assert {row["task"] for row in rows_of(results / "tables/settings.csv")} == {name, "mmlu"}
    # What counts as right, or divides the questions, concerns no training and no answer.
    tasks[name] |= {"criterion": "ordered"} if learnt == "query" else {"strata": ["size"]}
    found = jobs(run(snakemake, folder, "--dry-run", "--configfile", study_of(f"on-{name}", tasks)))
    # Records of SQL have every criterion; of JSON lines, the strata are columns of theirs.
    assert ("tables" in found, f"score_{name}" in found) == (True, learnt != "query")
    assert not any(job.startswith(("fetch", "prepare", "render", "audit", "train", "predict")) for job in found)


def test_an_edit_makes_stale_what_depends_on_it(yardsticks, folder, snakemake):
    def stale() -> set[str]:
        return jobs(run(snakemake, folder, "--dry-run", "--configfile", "yardsticks.yaml"))

    def in_study(change: Callable[[dict], None]) -> set[str]:
        path = folder / "yardsticks.yaml"
        before = path.read_text(encoding="utf-8")
        study = yaml.safe_load(before)
        change(study["tasks"])
        path.write_text(yaml.safe_dump(study), encoding="utf-8")
        found = stale()
        path.write_text(before, encoding="utf-8")
        return found

    assert stale() == set()
    # What judges, or only divides, asks no model again.
    found = in_study(lambda tasks: tasks["exact"].update(strata=["size"]))
    assert "score_exact" in found
    assert not any(job.startswith(("predict", "train", "fetch")) for job in found)
    found = in_study(lambda tasks: tasks["bird"].update(evidence=False))
    assert {"render_bird", "predict_bird", "score_bird"} <= found
    assert not found & {"fetch_bird", "predict_spider", "predict_shop", "train"}
    for path in (folder / "exact.jsonl", folder / "words.jinja"):
        before = path.read_text(encoding="utf-8")
        path.write_text(before.replace("What is 3 + 1?", "What is 3 plus 1?") + ("" if "json" in path.name else "\n"))
        found = stale()
        path.write_text(before, encoding="utf-8")
        name = "exact" if "json" in path.name else "regex"
        assert {f"render_{name}", f"predict_{name}", f"score_{name}"} <= found
        assert not any(job.startswith(("predict_", "train")) and job != f"predict_{name}" for job in found)


def test_one_more_kind_touches_three_files(copy_repo, snakemake, tiny_study, monkeypatch):
    """What docs/tasks.md tells a contributor, done word for word."""
    monkeypatch.delenv("PYTHONPATH")  # which names this repository, not its copy
    folder = copy_repo("contributor")
    text = (REPO / "docs/tasks.md").read_text(encoding="utf-8").partition("## Add a kind of task")[2]
    module, line = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (template,) = re.findall(r"```jinja\n(.*?)```", text, re.DOTALL)
    (folder / "scripts/tasks/gsm8k.py").write_text(module, encoding="utf-8")
    (folder / "resources/prompts/gsm8k.jinja").write_text(template, encoding="utf-8")
    registry = folder / "scripts/tasks/registry.py"
    code = registry.read_text(encoding="utf-8")
    code, added = re.subn(r"\n(from tasks import )", r"\n\1gsm8k, ", code, count=1)
    code, named = re.subn(r"(KINDS[^{]*\{)", rf"\1{line.strip()} ", code, count=1)
    assert (added, named) == (1, 1)
    registry.write_text(code, encoding="utf-8")

    asked = [
        {"question": f"Ann has {n} pens and buys {n}. How many?", "answer": f"{n}+{n}={2 * n}\n#### {2 * n}"}
        for n in range(1, 13)
    ]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    tasks = {"spider": tiny_study["tasks"]["spider"], "gsm8k": {"source": "problems.jsonl", "questions": 9}}
    study = copy.deepcopy(tiny_study) | {"study": "contributor", "tasks": tasks}
    study["training"] |= {"max_steps": 2, "save_steps": 1}
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    run(snakemake, folder, "--configfile", "study.yaml")
    results = folder / "results/contributor"
    records = rows_of(results / "runs/demo/base/gsm8k.csv")
    assert [record["answer"] for record in records] == [str(2 * n) for n in range(1, 10)]
    assert "GSM8K" in (results / "report.md").read_text(encoding="utf-8")
    documented = subprocess.run(
        [sys.executable, "scripts/studies.py", "document"], cwd=folder, capture_output=True, text=True
    )
    assert documented.returncode == 0, documented.stderr
    assert "gsm8k" in (folder / "docs/config.md").read_text(encoding="utf-8")
