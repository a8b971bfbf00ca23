"""The profiles agree in what makes a result stale, and every rule that computes on a GPU says what it needs."""

from collections import Counter
from types import SimpleNamespace

import pytest
import yaml
from snakemake.api import SnakemakeApi
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    GroupSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)

from _rules import parse


@pytest.fixture(scope="module")
def profiles(repo) -> dict[str, dict]:
    return {
        name: yaml.safe_load((repo / "profiles" / name / "profile.yaml").read_text(encoding="utf-8"))
        for name in ("default", "slurm")
    }


@pytest.fixture(scope="module")
def rules(repo) -> dict:
    """The rules of the demo with one task more, by their names."""
    study = yaml.safe_load((repo / "config.yaml").read_text(encoding="utf-8"))
    study["tasks"]["quiz"] = study["tasks"]["mmlu"]
    study["evaluation"]["harness"]["tasks"] = ["arc_easy"]
    return {rule.name: rule for rule in parse(study).rules}


@pytest.mark.parametrize(
    "key", ["rerun-triggers", "max-checksum-file-size", "rerun-incomplete", "keep-going", "show-failed-logs"]
)
def test_a_study_moves_between_workstation_and_cluster(profiles, key):
    assert profiles["slurm"][key] == profiles["default"][key]


def test_every_rule_on_a_gpu_has_its_time_and_memory(profiles, rules):
    """Without a line in the profile: a task of a study gets them, and retries, by itself."""
    on_a_gpu = {name: rule.resources for name, rule in rules.items() if "gpu" in rule.resources}
    assert set(on_a_gpu) == {"train", "predict_spider", "predict_mmlu", "predict_quiz", "harness"}
    for resources in on_a_gpu.values():
        assert (resources["gpu"].value, resources["runtime"].value >= 240) == (1, True)
        run = SimpleNamespace(model="demo", run="base")
        assert [resources["mem_mb"].evaluate(run, attempt=attempt).value for attempt in (1, 2)] == [32000, 32000]
    # Only exceptions, of rules that there are.
    assert set(profiles["slurm"]["set-resources"]) <= set(on_a_gpu)
    assert all("mem_mb" not in given for given in profiles["slurm"]["set-resources"].values())
    assert profiles["slurm"]["retries"] > 0
    assert profiles["slurm"]["default-resources"]["mem_mb"].endswith("* attempt")


def test_memory_grows_after_kills_for_it_alone_and_not_for_ever(rules, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "results/demo/logs/train/demo/lr.log"
    log.parent.mkdir(parents=True)
    memory, run = rules["train"].resources["mem_mb"], SimpleNamespace(model="demo", run="lr")
    ends = [
        "ERROR: training: stopped by SIGTERM (preemption or time limit).",
        "half a li",
        "ERROR: a mistake",
        "ERROR: out of main memory. Give the job more",
        "Traceback (most recent call last):\nZeroDivisionError",
        "",
    ]
    found = []
    for attempt, end in enumerate(ends, 2):
        log.write_text(end)
        found.append(memory.evaluate(run, attempt=attempt).value)
    assert found == [32000, 64000, 64000, 128000, 128000, 128000]


def test_a_sweep_of_40_adapters_is_few_submissions(repo, profiles, tmp_path):
    study = yaml.safe_load((repo / "config.yaml").read_text(encoding="utf-8"))
    study["sweep"] = {"training.learning_rate": [round(0.0001 * n, 4) for n in range(1, 41)]}
    study["evaluation"]["noise_floor"] = False
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    (tmp_path / "resources").symlink_to(repo / "resources")
    sizes = dict(given.split("=") for given in profiles["slurm"]["group-components"])
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        given = ConfigSettings(configfiles=[tmp_path / "study.yaml"])
        cores = ResourceSettings(cores=profiles["slurm"]["cores"])
        workflow = api.workflow(cores, given, snakefile=repo / "Snakefile", workdir=tmp_path)
        groups = GroupSettings(group_components={group: int(size) for group, size in sizes.items()})
        workflow.dag(DAGSettings()).execute_workflow(executor="dryrun", group_settings=groups)
        dag = workflow._workflow.dag
    local = {*workflow._workflow._localrules, "all"}
    jobs = [job for job in dag.needrun_jobs(exclude_finished=False) if job.rule.name not in local]
    submitted = Counter((dag.get_job_group(job) or job) for job in jobs)
    assert (len(jobs), len(submitted)) == (225, 131)
    on_a_gpu = {"train": 40, "predict_spider": 41, "predict_mmlu": 41}
    of = Counter(one.groupid if one.is_group() else one.rule.name for one in submitted)
    assert of == on_a_gpu | {"data": 1, "scores": 5, "results": 1, "export_recommended": 1, "deepeval_tests": 1}
    for group in filter(lambda one: one.is_group(), submitted):
        assert "gpu" not in group.resources.keys()  # noqa: SIM118 (no mapping)


def test_downloads_are_local_rules(rules):
    fetching = {name for name in rules if name.startswith("fetch_")}
    assert {name for name, rule in rules.items() if rule.workflow.is_local(rule)} >= fetching
    of_tasks = {"fetch_spider", "fetch_mmlu", "fetch_quiz"}
    assert {"fetch_model", "fetch_adapter", "fetch_answers", "fetch_harness"} | of_tasks == fetching


def test_an_executor_without_a_shared_file_system_is_refused_before_the_first_job(repo):
    workflow = parse(yaml.safe_load((repo / "config.yaml").read_text(encoding="utf-8")))
    workflow.storage_settings.shared_fs_usage = frozenset()
    with pytest.raises(WorkflowError, match=r"share no file system.* Start snakemake --cores all within one pod"):
        workflow.globals["before_first_job"]()
