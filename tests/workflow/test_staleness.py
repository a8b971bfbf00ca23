"""What each edit of the study makes stale: no more, or hours of training are lost; no less, or tables lie."""

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from _study import TABLES as WRITTEN

# What is made of the tables, and of the answers and times that lie behind them.
TABLES = {"tables", "tables_page", "figures", "report", "recommend", "export_recommended"}
SCORED = TABLES | {"answers"}
ANSWERED = SCORED | {"cost"}


def jobs(output: str) -> set[str]:
    """Return the jobs of a dry run as `rule` or `rule model/variant`."""
    found = set()
    for rule, rest in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", output, re.MULTILINE):
        wildcards = re.search(r"^    wildcards: (.*)$", rest, re.MULTILINE)
        # A rule of a task says so in its name.
        own = rf"(?:, )?\btask={rule.partition('_')[2]}$|\btask={rule.partition('_')[2]}, "
        values = "/".join(re.findall(r"=([^,]+)", re.sub(own, "", wildcards[1]))) if wildcards else ""
        found.add(f"{rule} {values}".strip())
    return found - {"all"}


def names(config: dict) -> list[str]:
    """Return the adapters of the demo, which sweeps the learning rate alone."""
    return [f"lr{rate}" for rate in config["training"]["learning_rate"]]


def chain(variants: list[str], *rules: str) -> set[str]:
    return {f"{rule} demo/{variant}" for rule in rules for variant in variants}


GENERAL = {"kind": "replay", "source": "resources/demo/replay.csv", "questions": 7}
EVERY_RULE = ("train", "predict_spider", "predict_mmlu", "score_spider", "score_mmlu")


@pytest.fixture
def stale(demo_run: Path, snakemake, tmp_path: Path) -> Callable[[str], set[str]]:
    """A function that returns the jobs that would run in the finished demo if its study were this YAML text."""

    def find(text: str) -> set[str]:
        study = tmp_path / "edited.yaml"
        study.write_text(text, encoding="utf-8")
        run = snakemake(demo_run, "--dry-run", "--configfile", str(study))
        assert run.returncode == 0, run.stdout
        found = jobs(run.stdout)
        assert found or "Nothing to be done" in run.stdout, run.stdout
        return found

    return find


@pytest.fixture(scope="module")
def config(demo_run: Path) -> dict:
    return yaml.safe_load((demo_run / "config.yaml").read_text(encoding="utf-8"))


def test_demo_is_complete_and_then_there_is_nothing_to_do(demo_run, snakemake, config):
    results = demo_run / "results" / "demo"
    for name in (*WRITTEN, "cost"):
        for suffix in ("csv", "md"):
            assert (results / "tables" / f"{name}.{suffix}").stat().st_size > 0
    for name in ("tradeoff", "differences", "hardness", "databases", "error_flow", "loss"):
        for suffix in ("svg", "pdf"):
            assert (results / "figures" / f"{name}.{suffix}").stat().st_size > 0
    for name in ("report.md", "report.pdf", "tables.html", "answers.html", "recommended/recommendation.json"):
        assert (results / name).stat().st_size > 0
    for variant in ["base", *names(config)]:
        for name in ("spider.csv", "mmlu.csv", "spider_answers.jsonl", "mmlu_answers.jsonl"):
            assert (results / "runs" / "demo" / variant / name).stat().st_size > 0
        assert (results / "logs" / "predict_spider" / "demo" / f"{variant}.log").is_file()
        assert (results / "benchmarks" / "predict_spider" / "demo" / f"{variant}.tsv").is_file()
    run = snakemake(demo_run)
    assert run.returncode == 0
    assert "Nothing to be done" in run.stdout


def test_new_time_stamps_on_all_sources_make_nothing_stale(demo_run, snakemake):
    # What a git checkout does.
    for source in demo_run.rglob("*"):
        if not {"results", ".snakemake"} & set(source.relative_to(demo_run).parts):
            os.utime(source)
    assert "Nothing to be done" in snakemake(demo_run, "--dry-run").stdout


def _table(config: dict) -> set[str]:
    config["tables"]["confidence_level"] = 0.9
    return TABLES


def _criterion(config: dict) -> set[str]:
    # The records have all criteria, and the rules of scoring do not know which one counts.
    config["tasks"]["spider"]["criterion"] = "test_suite"
    return SCORED | {"cost"}


def _timeout(config: dict) -> set[str]:
    config["tasks"]["spider"]["timeout_s"] += 1
    return chain(["base", *names(config)], "score_spider") | SCORED


def _decoding(config: dict) -> set[str]:
    config["tasks"]["spider"]["max_new_tokens"] -= 1
    return {"render_spider demo/test"} | chain(["base", *names(config)], "predict_spider", "score_spider") | ANSWERED


def _questions(config: dict) -> set[str]:
    config["tasks"]["spider"]["questions"] = 5
    asked = {"prepare_spider test", "render_spider demo/test"}
    return asked | chain(["base", *names(config)], "predict_spider", "score_spider") | ANSWERED


def _batch_size(config: dict) -> set[str]:
    # The same answers, whatever stands beside them in a batch.
    config["inference"]["batch_size"] += 1
    return set()


def _inert(config: dict) -> set[str]:
    config["inference"] |= {"top_p": 0.5, "temperature": 2.0, "seed": 7}
    config["tasks"]["spider"]["sample_rows"] = 9
    config["replay"]["kl"] = 0.0
    return set()


def _other_paths(config: dict) -> set[str]:
    for section in (config["models"]["demo"], config["tasks"]["spider"], config["tasks"]["mmlu"]):
        section["source"] = f"./{section['source']}"
    return set()


def _merged(config: dict) -> set[str]:
    config["inference"]["merge_adapters"] = True
    return chain(names(config), *EVERY_RULE[1:]) | ANSWERED


def _mmlu_shots(config: dict) -> set[str]:
    config["tasks"]["mmlu"]["shots"] -= 1
    asked = {"prepare_mmlu test", "render_mmlu demo/test"}
    return asked | chain(["base", *names(config)], "predict_mmlu", "score_mmlu") | ANSWERED


def _shots_evaluated(config: dict) -> set[str]:
    config["evaluation"]["shots"] = [0]
    return (
        {"render_spider demo/test_shots0"}
        | chain(["base@shots0"], "predict_spider", "score_spider", "score_mmlu")
        | ANSWERED
    )


def _harness(config: dict) -> set[str]:
    config["evaluation"]["harness"] = {"tasks": ["arc_easy"]}
    return chain(["base", *names(config)], "harness") | {"fetch_harness", "harness_table", "tables_page", "report"}


def _one_more_rate(config: dict) -> set[str]:
    config["training"]["learning_rate"].append(0.00005)
    return chain(["lr0.00005"], *EVERY_RULE) | ANSWERED


def _cap(config: dict) -> set[str]:
    config["recommend"]["max_loss_pp"] = 2
    return {"recommend", "export_recommended", "tables_page", "figures", "report"}


def _merge(config: dict) -> set[str]:
    config["recommend"]["merge"] = True
    return {"export_recommended"}


def _not_recommended(config: dict) -> set[str]:
    del config["recommend"]
    return {"tables_page", "figures", "report"}


def _one_rate_dropped(config: dict) -> set[str]:
    config["training"]["learning_rate"].pop()
    return ANSWERED


def _gradient(config: dict) -> set[str]:
    config["training"]["max_grad_norm"] = 0.5
    return chain(names(config), *EVERY_RULE) | ANSWERED


def _run_keys(config: dict) -> set[str]:
    logged = {
        "logging_steps": 7,
        "save_steps": 9,
        "save_total_limit": 5,
        "log_level": "info",
        "report_to": "tensorboard",
    }
    # A longer limit cuts nothing, and there is no evaluation.
    config["training"] |= logged | {"gradient_checkpointing": True, "max_length": 2000, "eval_steps": 3}
    return set()


def _other_micro_batches(config: dict) -> set[str]:
    sizes = ("per_device_train_batch_size", "gradient_accumulation_steps")
    product = config["training"][sizes[0]] * config["training"][sizes[1]]
    config["training"] |= {sizes[0]: product // 2, sizes[1]: 2}
    return set()


def _rank(config: dict) -> set[str]:
    config["lora"]["r"] *= 2
    return chain(names(config), *EVERY_RULE) | ANSWERED


def _rank_swept(config: dict) -> set[str]:
    config["lora"]["r"] = [config["lora"]["r"]]
    return chain([f"{name}-r{config['lora']['r'][0]}" for name in names(config)], *EVERY_RULE) | ANSWERED


def _replay_task(config: dict) -> set[str]:
    # Without a fraction, nothing is replayed.
    config["tasks"]["general"] = GENERAL
    return set()


def _replay_swept(config: dict) -> set[str]:
    config["tasks"]["general"] = GENERAL
    config["replay"]["fraction"] = [0.0, 0.25]
    variants = [f"{name}-replay{fraction}" for name in names(config) for fraction in ("0", "0.25")]
    prepared = {"fetch_general", "prepare_general train", "render_general demo/train", "audit_labels demo/general"}
    return prepared | chain(variants, *EVERY_RULE) | ANSWERED


def _another_task(config: dict) -> set[str]:
    config["tasks"]["more"] = config["tasks"]["mmlu"] | {"questions_per_category": 4}
    asked = {"fetch_more", "prepare_more test", "render_more demo/test"}
    return asked | chain(["base", *names(config)], "predict_more", "score_more") | ANSWERED


@pytest.mark.parametrize(
    "edit",
    [
        _table,
        _criterion,
        _timeout,
        _decoding,
        _questions,
        _batch_size,
        _inert,
        _other_paths,
        _merged,
        _mmlu_shots,
        _shots_evaluated,
        _harness,
        _one_more_rate,
        _cap,
        _merge,
        _not_recommended,
        _one_rate_dropped,
        _gradient,
        _run_keys,
        _other_micro_batches,
        _rank,
        _rank_swept,
        _replay_task,
        _replay_swept,
        _another_task,
    ],
)
def test_an_edit_makes_stale_what_depends_on_it(edit, stale, config):
    edited = copy.deepcopy(config)
    expected = edit(edited)
    assert stale(yaml.safe_dump(edited)) == expected


def _reordered(config: dict) -> str:
    def turned(value):
        return {key: turned(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    config["lora"]["target_modules"].reverse()
    return yaml.safe_dump(turned(config), sort_keys=False)


def _other_spelling(config: dict) -> str:
    rates = [f"{rate:.6e}" for rate in config["training"]["learning_rate"]]
    assert all(re.fullmatch(r"\d\.\d{6}e-\d\d", rate) for rate in rates)
    config["training"]["learning_rate"] = [f"rate {number}" for number in range(len(rates))]
    config["training"]["num_train_epochs"] = float(config["training"]["num_train_epochs"])
    config["inference"]["batch_size"] = float(config["inference"]["batch_size"])
    text = yaml.safe_dump(config)
    for number, rate in enumerate(rates):
        text = text.replace(f"rate {number}", rate)
    return text


def _defaults_left_out(config: dict) -> str:
    del (
        config["tasks"]["spider"]["sha256"],
        config["tasks"]["spider"]["sample_rows"],
        config["tasks"]["spider"]["timeout_s"],
    )
    return yaml.safe_dump(config)


@pytest.mark.parametrize("rewrite", [_reordered, _other_spelling, _defaults_left_out])
def test_the_same_study_in_other_words_makes_nothing_stale(rewrite, stale, config):
    assert stale(rewrite(copy.deepcopy(config))) == set()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("learning_rate:", "learning_rat:", "training.learning_rat: no such key. Did you mean training.learning_rate?"),
        (
            "max_grad_norm: 1.0",
            "max_grad_norm: 1e-1",
            "training.max_grad_norm: '1e-1' is text in YAML 1.1; write 1.0e-1 or 0.1.",
        ),
    ],
)
def test_a_mistake_is_refused_with_a_sentence_that_names_the_key(
    old, new, message, demo_run, snakemake, repo, tmp_path
):
    text = (repo / "config.yaml").read_text(encoding="utf-8")
    assert f"\n  {old}" in text
    study = tmp_path / "wrong.yaml"
    study.write_text(text.replace(f"\n  {old}", f"\n  {new}"), encoding="utf-8")
    run = snakemake(demo_run, "--dry-run", "--configfile", str(study))
    assert run.returncode != 0
    assert f"wrong.yaml, {message}" in run.stdout


def test_why_says_which_key_or_file_makes_what_stale(demo_run, config, tmp_path):
    def why(edited: dict) -> str:
        study = tmp_path / "edited.yaml"
        study.write_text(yaml.safe_dump(edited), encoding="utf-8")
        command = [sys.executable, "scripts/why.py", "--configfile", str(study)]
        found = subprocess.run(command, cwd=demo_run, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        return found.stdout

    assert why(config) == "Nothing would run: all results are those of this study.\n"
    edited = copy.deepcopy(config)
    edited["training"]["weight_decay"] = 0.5
    edited["tasks"]["mmlu"]["shots"] = 1
    found = why(edited)
    assert re.search(r"training\.weight_decay: 0\.0 -> 0\.5\n    train demo lr0\.0\d+, train demo lr0\.0\d+\n", found)
    assert "tasks.mmlu.shots: 4 -> 1\n    prepare_mmlu test\n" in found
    assert re.search(r"\d+ jobs; on a GPU 0\.\d\d hours by what they took last time\.", found)
    edited["tasks"]["mmlu"]["shots"] = "many"
    with pytest.raises(AssertionError, match=r"tasks\.mmlu\.shots: found 'many'"):
        why(edited)


def test_config_on_the_command_line_overrides_one_value_inside_a_section(demo_run, snakemake):
    run = snakemake(demo_run, "--dry-run", "--config", "tables={confidence_level: 0.9}")
    assert jobs(run.stdout) == TABLES
    run = snakemake(demo_run, "--dry-run", "--config", "tables={confidence_level: 95.0e-2}")
    assert "Nothing to be done" in run.stdout


def test_more_cards_make_nothing_stale(demo_run, snakemake):
    cards = ["--resources", "gpu=4", "--set-resources", "train:gpu=2", "predict_spider:gpu=4"]
    assert "Nothing to be done" in snakemake(demo_run, "--dry-run", *cards).stdout


def test_more_cards_for_a_rule_than_for_the_run_are_refused(demo_run, snakemake):
    # Snakemake would lower them to the profile's one and say nothing.
    cards = ["--set-resources", "predict_spider:gpu=4"]
    run = snakemake(demo_run, "--forcerun", "predict_spider", *cards)
    assert run.returncode != 0
    assert "set-resources, predict_spider:gpu=4: this run has gpu=1. Add --resources gpu=4" in run.stdout


def test_a_study_replaces_config_yaml(demo_run, snakemake, tmp_path):
    study = tmp_path / "tiny.yaml"
    study.write_text(
        "{study: tiny, models: {other: {source: x}}, tasks: {spider: {}, mmlu: {source: y}}}", encoding="utf-8"
    )
    run = snakemake(demo_run, "--dry-run", "--configfile", str(study), "--config", "lora={r: [4, 8]}")
    found = jobs(run.stdout)
    assert {job for job in found if job.startswith("train ")} == {"train other/r4", "train other/r8"}
    assert not any("demo" in job for job in found)


def test_every_job_process_sees_the_study_that_replaced_config_yaml(copy_repo, snakemake):
    # A cluster job parses the workflow again; a shadow rule makes the local executor do the same.
    folder = copy_repo("subprocess")
    rules = folder / "rules" / "data.smk"
    text = rules.read_text(encoding="utf-8")
    start = text.index("rule fetch_model:")
    rules.write_text(text[:start] + text[start:].replace("    log:", '    shadow:\n        "shallow"\n    log:', 1))
    (folder / "study.yaml").write_text(
        "{study: tiny, models: {other: {source: resources/demo/model}}, tasks: {spider: {}, mmlu: {source: y}}}",
        encoding="utf-8",
    )
    target = "results/tiny/models/other.json"
    run = snakemake(folder, "--configfile", "study.yaml", "--config", "lora={r: [4, 8]}", "--verbose", "--", target)
    assert run.returncode == 0, run.stdout
    assert "spawned job: " in run.stdout
    assert (folder / target).is_file()
