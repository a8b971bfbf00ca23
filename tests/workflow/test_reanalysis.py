"""Published answers of real models, from their files to tables and report, by the studies of the repository."""

import csv
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from _folders import REPO, tiny
from common.files import read_json, read_jsonl, write_jsonl

FILES = {
    "evaluation_results_base_model": "spider_base",
    "evaluation_results_finetuned_model_Qlora1": "spider_qlora1",
    "evaluation_results_finetuned_model_Qlora2": "spider_qlora2",
    "mmlu_evaluation_results_base": "mmlu_base",
    "mmlu_evaluation_results_finetuned_qlora1": "mmlu_qlora1",
    "mmlu_evaluation_results_finetuned_qlora2": "mmlu_qlora2",
}


def local(study: dict, folder: Path) -> dict:
    """A study with the same files in a folder."""
    over = study["protocols"]["reanalysed"]
    for one in (*over["models"].values(), *over["adapters"].values()):
        for section in one["answers"].values():
            name = Path(section["source"])
            section["source"] = str(folder / f"{FILES.get(name.stem, name.stem)}{name.suffix}")
    return study


def reanalysed(name: str, data: Path, folder: Path, snakemake_forked, **spider) -> Path:
    """The results of a published study's own answers."""
    study = local(yaml.safe_load((REPO / f"studies/{name}.yaml").read_text(encoding="utf-8")), data / name)
    study["tasks"]["spider"] |= {"source": str(data / "spider/spider_data.zip"), **spider}
    study["tasks"]["mmlu"] |= {"source": str(data / "mmlu/mmlu_data.tar.gz"), "revision": None}
    (folder / "mine.yaml").write_text(yaml.safe_dump(study | {"protocol": "reanalysed"}), encoding="utf-8")
    run = snakemake_forked(folder, "--configfile", "mine.yaml")
    assert run.returncode == 0, run.stdout[-8000:]
    return folder / f"results/{name}-reanalysed"


def right(results: Path, model: str, run: str, *criteria: str, task: str = "spider") -> list[int]:
    """How many answers of a run are right, by each criterion."""
    with (results / f"runs/{model}/{run}/{task}.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [sum(int(row[name]) for row in rows) for name in criteria]


@pytest.mark.long
@pytest.mark.ci
def test_the_answers_of_cunha_give_the_numbers_of_the_report_and_what_it_does_not_say(
    shared_data, copy_repo, snakemake_forked
):
    results = reanalysed("cunha", shared_data, copy_repo("cunha"), snakemake_forked)
    runs = ("base_given", "steps50", "steps200")
    sql = [right(results, "llama3", run, "set_raw", "bag_raw", "test_suite_raw") for run in runs]
    assert sql == [[104, 98, 105], [103, 98, 105], [102, 96, 107]]
    assert [right(results, "llama3", run, "correct", task="mmlu") for run in runs] == [[66], [67], [71]]
    found = read_json(results / "tables/published.json")
    assert found["findings"] == [["swapped", {"table": "Table III", "one": "humanities", "other": "social_sciences"}]]
    assert (found["figures"], found["equal"], found["impossible"]) == (15, 9, 0)
    # Each answer was a test of pytest as well, whose verdict is the record's.
    cases = list(ElementTree.parse(results / "tables/deepeval_tests.xml").iter("testcase"))
    assert len(cases) == 3 * 201
    wrong = {case.get("name") for case in cases if case.find("skipped") is not None}
    for run in runs:
        label = run.removesuffix("_given")
        assert 200 - sum(f"question[{label}/" in name for name in wrong) == right(results, "llama3", run, "bag")[0]
    report = (results / "report.md").read_text(encoding="utf-8")
    assert "The choice of criterion changes the sign of the difference on Spider of `steps200` and `steps50`" in report
    assert "the base model has between 49.0% and 52.5% of Spider right. No change of a setting is as large" in report
    assert "Prompts, training and hardware of these runs were not part of this study" in report
    assert "the columns humanities and social\\_sciences have each other's numbers" in report
    with (results / "tables/settings.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["category"] == "aggregate"]
    assert {row["verdict"] for row in rows} == {"undecided"}
    assert {row["measure"] for row in rows} == {"correct"}  # there are no probabilities
    # Packed, it stands alone: what was asked follows from the bundle, and all numbers can be had again.
    folder = results.parents[1]
    for command in (
        ["bundle.py", "--configfile", "mine.yaml"],
        ["verify.py", f"{results}.zip", "--data", results / "data"],
    ):
        done = subprocess.run(
            [sys.executable, folder / "scripts" / command[0], *command[1:]], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "All numbers agree." in done.stdout


@pytest.mark.long
def test_the_answers_of_ribeiro_give_the_known_numbers(shared_data, copy_repo, snakemake_forked):
    results = reanalysed("ribeiro", shared_data, copy_repo("ribeiro"), snakemake_forked, exclude_databases=["wta_1"])
    runs = ("base_given", "lr0.0002", "lr0.0005")
    sql = [right(results, "mistral", run, "set_raw", "bag_raw", "ordered_raw") for run in runs]
    # Sets and bags as in the README of the data. Lists are compared in order only where the gold query sorts.
    assert [row[:2] for row in sql] == [[430, 421], [425, 419], [370, 362]]


@pytest.mark.long
def test_a_base_that_is_asked_here_beside_answers_from_elsewhere(copy_repo, snakemake_forked):
    folder = copy_repo("mixed")
    study = tiny()
    for key in ("sweep", "evaluation", "recommend"):
        study.pop(key, None)
    study["adapters"] = {}
    given = {}
    for task in ("spider", "mmlu"):
        source = Path(folder, study["tasks"][task]["source"])
        rows = gold_of(source, task)
        write_jsonl(folder / f"{task}.jsonl", [{"q": q, "c": cluster, "a": gold} for q, cluster, gold in rows])
        given[task] = {"source": f"{task}.jsonl", "answer": "a", "question": "q", "cluster": "c"}
    study["adapters"]["perfect"] = {"answers": given}
    (folder / "mixed.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    run = snakemake_forked(folder, "--configfile", "mixed.yaml", models=True)
    assert run.returncode == 0, run.stdout[-8000:]
    results = folder / "results" / study["study"]
    model = next(iter(study["models"]))
    asked = len(read_jsonl(results / "data/spider/test.jsonl"))
    assert right(results, model, "perfect", "bag") == [asked]
    assert (results / f"runs/{model}/base/spider_predict.json").exists()
    assert not (results / f"runs/{model}/base_given").exists()


def gold_of(source: Path, task: str) -> list[tuple[str, str, str]]:
    """Question, cluster and gold answer of each test row of the demo's data."""
    if task == "spider":
        return [(row["question"], row["db_id"], row["query"]) for row in read_json(next(source.rglob("dev.json")))]
    rows = []
    for path in sorted(source.rglob("*_test.csv")):
        with path.open(encoding="utf-8", newline="") as stream:
            rows += [(cells[0], path.stem.removesuffix("_test"), cells[5]) for cells in csv.reader(stream)]
    return rows
