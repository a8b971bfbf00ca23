"""What a real run writes where it was started."""

import re

import pytest

MODEL = "results/demo/models/demo.json"


@pytest.fixture(scope="module")
def folder(copy_repo):
    return copy_repo("terminal")


def test_a_run_has_one_line_for_each_job(folder, snakemake):
    run = snakemake(folder, "--", MODEL)
    assert run.returncode == 0, run.stdout
    assert re.search(r"^1 job: 1 fetch_model\n", run.stdout, re.MULTILINE)
    assert re.findall(r"^.*fetch_model.*\n", run.stdout, re.MULTILINE)[1:] == re.findall(
        r"^\d\d:\d\d:\d\d  1 of 1  fetch_model, \d+:\d\d\n", run.stdout, re.MULTILINE
    )
    for text in ("output:", "reason:", "\r", "\x1b", "pip install"):
        assert text not in run.stdout
    # The whole account is in the file that the run names.
    log = re.search(r"Complete log\(s\): (.*)", run.stdout)[1]
    assert "localrule fetch_model:" in open(log, encoding="utf-8").read()  # noqa: PTH123, SIM115


def test_a_failed_job_says_what_to_do(folder, snakemake):
    study = folder / "gone.yaml"
    study.write_text(
        "{study: gone, models: {demo: {source: resources/prompts}}, tasks: {spider: {}, mmlu: {source: y}}}"
    )
    run = snakemake(folder, "--configfile", str(study), "--", "results/gone/models/demo.json")
    assert run.returncode != 0
    found = re.search(r"Error in rule fetch_model: fetch_model failed\.\n(?:    .*\n)+", run.stdout)[0]
    assert "    log: results/gone/logs/fetch_model/demo.log\n" in found
    assert re.search(r"\n    ERROR: .*resources/prompts", found)


def test_what_needs_a_gpu_starts_nothing_without_one(folder, snakemake, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    nf4 = ("--config", "study=nf4", "models={demo: {precision: nf4}}", "inference={merge_adapters: false}", "--")
    run = snakemake(folder, *nf4, "results/nf4/report.md")
    assert run.returncode != 0
    assert "models.demo.precision: nf4 needs a CUDA GPU and none is visible. Set it to bf16 or fp32" in run.stdout
    assert not list((folder / "results").glob("nf4/**/*.*"))
    # Data and weights can be had where there is none, such as on a login node.
    run = snakemake(folder, *nf4, "results/nf4/models/demo.json")
    assert run.returncode == 0, run.stdout


def test_who_asks_for_all_gets_it(folder, snakemake):
    run = snakemake(folder, "--dry-run", "--forceall", "--", MODEL)
    assert "rule fetch_model:\n" in run.stdout and "reason: " in run.stdout
