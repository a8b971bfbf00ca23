"""What each edit of the study makes stale: no more, or hours of training are lost; no less, or tables lie."""

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

import ask
from _folders import folders, labels
from _runs import forked
from _study import TABLES as WRITTEN
from common.files import UserError

# What is made of the tables, and of the answers and times that lie behind them.
TABLES = {"tables", "gold", "tables_page", "conclude", "answers", "figures", "report", "recommend"}
TABLES |= {"export_recommended"}
# These see the verdicts, and nothing that is only said of them.
TESTED = {"deepeval_tests"}
# Made of the answers to Spider alone.
GOLD = {"gold"} | TESTED
SCORED = TABLES | {"answers"} | TESTED
ANSWERED = SCORED | {"cost"}
MEASURED = ANSWERED - GOLD
# What lists the runs besides.
RUNS = ANSWERED | {"index"}
A = ("lr0.003", "lr0.012")
ALL = ("base", *A)
EVERY_RULE = ("train", "predict_spider", "predict_mmlu", "score_spider", "score_mmlu")
SPIDER, MMLU = ("predict_spider", "score_spider"), ("predict_mmlu", "score_mmlu")
GENERAL = {"kind": "replay", "source": "resources/demo/replay.csv", "questions": 7}
REPO = Path(__file__).parents[2]


def jobs(output: str, study: dict | None = None) -> set[str]:
    """The jobs of a dry run as `rule` or `rule model/run`, with the labels that the runs have in a study."""
    found = set()
    # Those of a group are indented.
    for _, rule, rest in re.findall(r"^( *)(?:local)?rule (\w+):\n((?:\1    .*\n)*)", output, re.MULTILINE):
        wildcards = re.search(r"^ +wildcards: (.*)$", rest, re.MULTILINE)
        # A rule of a task says so in its name.
        own = rf"(?:, )?\btask={rule.partition('_')[2]}$|\btask={rule.partition('_')[2]}, "
        values = "/".join(re.findall(r"=([^,]+)", re.sub(own, "", wildcards[1]))) if wildcards else ""
        found.add(f"{rule} {values}".strip())
    return labelled(found, study)


def labelled(found: Iterable[str], study: dict | None) -> set[str]:
    """Jobs with the labels of runs in place of their folders, without the rule `all`."""
    names = labels(study) if study else {}
    parts = (job.rpartition("/") for job in found)
    return {f"{before}{slash}{names.get(last, last)}" for before, slash, last in parts} - {"all"}


def chain(runs: Iterable[str], *rules: str, model: str = "demo") -> set[str]:
    return {f"{rule} {model}/{run}" for rule in rules for run in runs}


def trained(*runs: str) -> set[str]:
    """All that a new adapter needs, and what is made of all runs."""
    return chain(runs, *EVERY_RULE) | RUNS


def edited(study: dict, changes: dict) -> dict:
    """A study with these values at their places; None takes a key away."""
    study = copy.deepcopy(study)
    for place, value in changes.items():
        *outer, last = place.split("/")
        section = study
        for key in outer:
            section = section[key]
        if value is GONE:
            del section[last]
        else:
            section[last] = value
    return study


GONE = object()
OTHER = {"study": "tiny", "models": {"other": {"source": "x"}}, "tasks": {"spider": {}, "mmlu": {"source": "y"}}}
RATES = "sweep/training.learning_rate"
ASKED, CERTIFIED = {"prepare_spider test", "render_spider demo/test"}, {"certify_spider"}
ASKED_MMLU = {"prepare_mmlu test", "render_mmlu demo/test"}
REPLAYED = {"fetch_general", "prepare_general train", "render_general demo/train", "audit_labels demo/general"}
PROMPTED = {"render_spider demo/train", "render_spider demo/test", "audit_labels demo/spider"}
DRAWN = {"prepare_spider train", "prepare_spider shots", "render_spider demo/test", *PROMPTED}
NEW = {"fetch_model small", "audit_labels small/spider"}
NEW |= {f"render_{task} small/{part}" for task, part in (("spider", "train"), ("spider", "test"), ("mmlu", "test"))}
# An edit: what is changed, by place, and exactly the jobs that this makes stale.
EDITS: dict[str, tuple[dict, set[str]]] = {
    # What only tables and pages depend on.
    "confidence": ({"tables/confidence_level": 0.9}, TABLES),
    "language": ({"report/language": "pt"}, RUNS - {"index"} - TESTED),
    "defects": ({"known_defects": ["x"]}, RUNS - {"index"} - TESTED),
    "criterion": ({"tasks/spider/criterion": "test_suite"}, ANSWERED),
    "timeout": ({"tasks/spider/timeout_s": 31}, chain(ALL, "score_spider") | SCORED | CERTIFIED),
    "margin": ({"tables/margin_pp": 2}, TABLES),
    "merged model": ({"recommend/merge": True}, {"export_recommended"}),
    "no recommendation": ({"recommend": GONE}, {"tables_page", "conclude", "answers", "figures", "report"}),
    # What is asked.
    "questions": ({"tasks/spider/questions": 5}, ASKED | CERTIFIED | chain(ALL, *SPIDER) | ANSWERED),
    "databases": ({"tasks/spider/exclude_databases": ["x"]}, ASKED | CERTIFIED | chain(ALL, *SPIDER) | ANSWERED),
    "questions of a subject": (
        {"tasks/mmlu/questions_per_category": 5},
        ASKED_MMLU | chain(ALL, *MMLU) | MEASURED,
    ),
    "examples of mmlu": ({"tasks/mmlu/shots": 3}, ASKED_MMLU | chain(ALL, *MMLU) | MEASURED),
    "seed of mmlu": ({"tasks/mmlu/seed": 7}, ASKED_MMLU | chain(ALL, *MMLU) | MEASURED),
    "system of mmlu": ({"tasks/mmlu/system": "x"}, {"render_mmlu demo/test"} | chain(ALL, *MMLU) | MEASURED),
    "a category renamed": (
        {
            "tasks/mmlu/categories": {
                "humanities": ["philosophers_and_works"],
                "society": ["capitals_and_currencies"],
                "stem": ["chemical_elements"],
            }
        },
        chain(ALL, "score_mmlu") | (SCORED - GOLD),
    ),
    "a subject left out": (
        {"tasks/mmlu/categories": {"stem": ["chemical_elements"]}},
        ASKED_MMLU | chain(ALL, *MMLU) | MEASURED,
    ),
    "another task": (
        {"tasks/more": {"kind": "mmlu", "source": "resources/demo/mmlu", "subjects": 3, "categories": {"a": ["x"]}}},
        {"fetch_more", "prepare_more test", "render_more demo/test"}
        | chain(ALL, "predict_more", "score_more")
        | MEASURED,
    ),
    "no yardstick": ({"tasks/mmlu": GONE}, MEASURED),
    # How it is answered.
    "longer answers": (
        {"tasks/spider/max_new_tokens": 31},
        {"render_spider demo/test"} | chain(ALL, *SPIDER) | ANSWERED,
    ),
    "drawn answers": ({"inference/do_sample": True}, chain(ALL, *SPIDER, *MMLU) | ANSWERED),
    "penalty": ({"inference/repetition_penalty": 1.1}, chain(ALL, *SPIDER, *MMLU) | ANSWERED),
    "merged adapters": ({"inference/merge_adapters": True}, chain(A, *SPIDER, *MMLU) | ANSWERED),
    "batch": ({"inference/batch_size": 33}, set()),
    "greedy answers draw nothing": ({"inference/top_p": 0.5, "inference/temperature": 2.0, "inference/seed": 7}, set()),
    "a warper without draws": ({"inference/do_sample": False, "inference/temperature": 1.0}, set()),
    # What else is evaluated.
    "examples of the base": (
        {"evaluation/shots": [0]},
        {"render_spider demo/test_shots0"}
        | chain(["base@shots0"], "predict_spider", "score_spider", "score_mmlu")
        | RUNS,
    ),
    "a base with other prompts": (
        {"tasks/spider/base_shots": 0},
        {"render_spider demo/test_shots0"} | chain(["base"], *SPIDER) | ANSWERED,
    ),
    "interpolation": (
        {"evaluation/interpolate": [0.5], "evaluation/adapters": ["lr0.003"]},
        chain(["lr0.003@0.5"], *SPIDER, *MMLU) | RUNS,
    ),
    "adapters without points": ({"evaluation/adapters": ["lr0.003"]}, set()),
    "checkpoint": (
        {"evaluation/checkpoints": [1], "evaluation/adapters": ["lr0.003"]},
        chain(["lr0.003", "lr0.003@step1"], *SPIDER, *MMLU) | {"train demo/lr0.003"} | RUNS,
    ),
    "soup": (
        {"evaluation/soups": {"both": [*A]}},
        {"soup demo/soup-both"} | chain(["soup-both"], *SPIDER, *MMLU) | RUNS,
    ),
    "noise floor": (
        {"evaluation/noise_floor": True},
        chain(["base@batches", "lr0.003@merged"], *SPIDER, *MMLU) | {"noise", "tables_page", "report", "index"},
    ),
    "repair": (
        {"evaluation/repair": 1},
        chain(ALL, "run_sql")
        | chain([f"{name}@repair1" for name in ALL], "render_repair", *SPIDER)
        | {"repair", "cost", "tables_page", "report", "index"},
    ),
    "harness": (
        {"evaluation/harness/tasks": ["arc_easy"]},
        chain(ALL, "harness") | {"fetch_harness", "harness_table", "tables_page", "report"},
    ),
    "a ready-made adapter": (
        {"adapters": {"public": {"source": "resources/demo/model"}}},
        {"fetch_adapter demo/public"} | chain(["public"], *SPIDER, *MMLU) | RUNS,
    ),
    "one more model": (
        {"models/small": {"source": "resources/demo/model", "precision": "fp32"}},
        NEW | chain(A, "train", model="small") | chain(ALL, *SPIDER, *MMLU, model="small") | RUNS,
    ),
    # What is trained.
    "one more rate": ({RATES: [0.003, 0.012, 0.00005]}, trained("lr0.00005")),
    "one rate dropped": ({RATES: [0.003]}, RUNS),
    "rates swapped": ({RATES: [0.012, 0.003]}, RUNS),
    "one seed as a list": ({"training/seed": [42]}, RUNS),
    "one more seed": ({"training/seed": [42, 43]}, trained("lr0.003-seed43", "lr0.012-seed43")),
    "an axis more": ({"sweep/lora.r": [8]}, RUNS),
    "an axis of two": ({"sweep/lora.r": [8, 4]}, trained("lr0.003-r4", "lr0.012-r4")),
    "a named setting": ({"adapters": {"gentle": {"training": {"weight_decay": 0.1}}}}, trained("gentle")),
    "what was swept has a name": (
        {"sweep": {}, "adapters": {"a": {"training": {"learning_rate": 0.003}}, "b": {"training": {"seed": 3}}}},
        trained("b"),
    ),
    "rows of a step swept": (
        {"sweep/training.per_device_train_batch_size": [2, 4]},
        trained("lr0.003-batch4", "lr0.012-batch4"),
    ),
    # Then the data are all rows, of which each training takes its own.
    "rows swept": (
        {"sweep/tasks.spider.train_questions": [64, 32]},
        {"prepare_spider train", "prepare_spider shots", "prepare_spider validation", *PROMPTED}
        | chain(["base"], *SPIDER)
        | chain([f"{rate}-rows{rows}" for rate in A for rows in (64, 32)], *EVERY_RULE)
        | RUNS,
    ),
    "some of the rows": (
        {"sweep/training.rows": [None, {"fraction": 0.25}, {"count": 20, "balance": "hardness"}]},
        {"choose_rows spider/0.25", "choose_rows spider/20-hardness"}
        | trained(*(f"{rate}-rows{rows}" for rate in A for rows in ("0.25", "20-hardness"))),
    ),
    "clipping": ({"training/max_grad_norm": 0.5}, trained(*A)),
    "a key passed on": ({"training/adam_beta2": 0.99}, trained(*A)),
    "rank": ({"lora/r": 16}, trained(*A)),
    "dora": ({"lora/use_dora": True}, trained(*A)),
    "layers": ({"lora/target_modules": "all-linear"}, trained(*A)),
    "a rate that is not used": ({"training/learning_rate": 0.5}, set()),
    "logging": (
        {
            "training/logging_steps": 7,
            "training/save_steps": 9,
            "training/save_total_limit": 5,
            "training/log_level": "info",
            "training/report_to": "tensorboard",
        },
        set(),
    ),
    "micro-batches": ({"training/per_device_train_batch_size": 1, "training/gradient_accumulation_steps": 2}, set()),
    "memory": ({"training/gradient_checkpointing": True, "training/per_device_eval_batch_size": 1}, set()),
    "a limit that cuts nothing": ({"training/max_length": 2000}, set()),
    "evaluation that is off": ({"training/eval_steps": 3}, set()),
    "epochs beside a limit of steps": ({"training/num_train_epochs": 3}, set()),
    "a defect that is not there": ({"accept_defect": ["truncated"]}, RUNS - {"index"} - TESTED),
    # Data, prompts and models.
    "system": (
        {"tasks/spider/system": "x"},
        PROMPTED | chain(A, "train") | chain(ALL, *SPIDER) | chain(A, *MMLU) | ANSWERED,
    ),
    "prompt": (
        {"tasks/spider/prompt": "resources/prompts/ribeiro.jinja"},
        PROMPTED | chain(A, "train") | chain(ALL, *SPIDER) | chain(A, *MMLU) | ANSWERED,
    ),
    "the same prompt by its path": ({"tasks/spider/prompt": "resources/prompts/text_to_sql.jinja"}, set()),
    "rows of a schema without rows": ({"tasks/spider/sample_rows": 9}, set()),
    "other paths": (
        {
            "models/demo/source": "./resources/demo/model",
            "tasks/spider/source": "./resources/demo/spider_data",
            "tasks/mmlu/source": "resources/../resources/demo/mmlu",
        },
        set(),
    ),
    "order of files": ({"tasks/spider/train_files": ["train_others", "train_spider"]}, set()),
    "what is known of a model": ({"models/demo/parameters": 7, "models/demo/gated": False}, set()),
    "quantization of no weights": ({"models/demo/quantization/bnb_4bit_use_double_quant": True}, set()),
    "a task to replay": ({"tasks/general": GENERAL}, set()),
    "replay": (
        {"tasks/general": GENERAL, "sweep/replay.fraction": [0.0, 0.25]},
        REPLAYED | trained(*(f"{rate}-replay0.25" for rate in A)),
    ),
    "a weight without rows": ({"replay/kl": 0.0}, set()),
}
# The same with a file edited: its path, what is replaced there by what, and the jobs.
FILES = {
    "how verdicts are found": (
        "custom_metrics/compare.py", chain(ALL, "score_spider", "score_mmlu") | RUNS | CERTIFIED,
    ),
    "the step that scores": ("scripts/steps/score.py", chain(ALL, "score_spider", "score_mmlu") | SCORED),
    "the step that makes tables": ("scripts/steps/tables.py", TABLES - GOLD - {"recommend", "export_recommended"}),
    "how one trains": ("scripts/llm/training.py", set()),
    "a file of the data": (
        "resources/demo/spider_data/dev.json",
        {"fetch_spider", "prepare_spider test", "prepare_spider validation"} | DRAWN | CERTIFIED
        | chain(A, "train") | chain(ALL, *SPIDER) | chain(A, *MMLU) | ANSWERED,
    ),
    "a file of the model": (
        "resources/demo/model/config.json",
        {"fetch_model demo", "render_mmlu demo/test", "render_spider demo/test"} | PROMPTED
        | chain(A, "train") | chain(ALL, *SPIDER, *MMLU) | ANSWERED,
    ),
    "a prompt": (
        "resources/prompts/choice.jinja", {"render_mmlu demo/test"} | chain(ALL, *MMLU) | MEASURED,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def config(demo_run: Path) -> dict:
    return yaml.safe_load((demo_run / "config.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def planned(demo_run: Path, repo: Path, tmp_path_factory) -> dict[str, subprocess.CompletedProcess]:
    """How dry runs of the finished demo end that need nothing but their arguments."""
    text = (repo / "config.yaml").read_text(encoding="utf-8")
    assert "\n  learning_rate:" in text
    wrong, tiny = (tmp_path_factory.mktemp("studies") / f"{name}.yaml" for name in ("wrong", "tiny"))
    wrong.write_text(text.replace("\n  learning_rate:", "\n  learning_rat:"), encoding="utf-8")
    tiny.write_text(yaml.safe_dump(OTHER), encoding="utf-8")
    runs = {
        "wrong": ["--configfile", str(wrong)],
        "other": ["--configfile", str(tiny), "--config", "sweep={lora.r: [4, 8]}"],
        "other level": ["--config", "tables={confidence_level: 0.9}"],
        "same level": ["--config", "tables={confidence_level: 95.0e-2}"],
        "more GPUs": ["--resources", "gpu=4", "--set-resources", "train:gpu=2", "predict_spider:gpu=4"],
    }
    return forked(demo_run, {name: ["--dry-run", "--cores", "2", *words] for name, words in runs.items()})


@pytest.fixture(scope="module")
def stale(demo_run: Path, config: dict, tmp_path_factory) -> dict[str, set[str]]:
    """The jobs that each edit makes stale in the finished demo."""
    studies = {name: edited(config, changes) for name, (changes, _) in EDITS.items()}
    given = {name: {"study": yaml.safe_dump(study), "files": {}} for name, study in studies.items()}
    for name, rewrite in REWRITES.items():
        given[name] = {"study": rewrite(copy.deepcopy(config)), "files": {}}
    for name, (path, _) in FILES.items():
        text = (demo_run / path).read_text(encoding="utf-8")
        given[name] = {
            "study": yaml.safe_dump(config),
            "files": {path: f"{text}\n{{# #}}" if "jinja" in path else f"{text}\n# x\n"},
        }
    file = tmp_path_factory.mktemp("edits") / "edits.json"
    file.write_text(json.dumps(given), encoding="utf-8")
    command = [sys.executable, REPO / "tests/support/_dry_runs.py", file]
    done = subprocess.run(command, cwd=demo_run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(file.read_text(encoding="utf-8"))
    return {name: labelled(jobs, studies.get(name, config)) for name, jobs in found.items()}


@pytest.mark.parametrize("edit", [*EDITS, *FILES])
def test_an_edit_makes_stale_what_depends_on_it(edit, stale):
    expected = EDITS[edit][1] if edit in EDITS else FILES[edit][1]
    assert stale[edit] == expected


def test_demo_is_complete_and_then_there_is_nothing_to_do(demo_run, snakemake):
    results = demo_run / "results" / "demo"
    for name in (*WRITTEN, "cost"):
        for suffix in ("csv", "md"):
            assert (results / "tables" / f"{name}.{suffix}").stat().st_size > 0
    for name in ("tradeoff", "differences", "hardness", "databases", "error_flow", "loss"):
        for suffix in ("svg", "pdf"):
            assert (results / "figures" / f"{name}.{suffix}").stat().st_size > 0
    for name in ("report.md", "report.pdf", "tables.html", "answers.html", "recommended/recommendation.json"):
        assert (results / name).stat().st_size > 0
    places = folders(results)
    assert list(places) == [*ALL]
    for place in places.values():
        for name in ("spider.csv", "mmlu.csv", "spider_answers.jsonl", "mmlu_answers.jsonl"):
            assert (place / name).stat().st_size > 0
        assert (results / "logs" / "predict_spider" / "demo" / f"{place.name}.log").is_file()
        assert (results / "benchmarks" / "predict_spider" / "demo" / f"{place.name}.tsv").is_file()
    run = snakemake(demo_run)
    assert run.returncode == 0
    assert "Nothing to be done" in run.stdout


def test_an_adapter_that_is_gone_is_made_again_as_ask_says(demo_run, snakemake, config, monkeypatch):
    # Snakemake misses no file between two that are there.
    monkeypatch.chdir(demo_run)
    weights = folders(Path("results/demo"))["lr0.003"] / "adapter/adapter_model.safetensors"
    aside = weights.rename(weights.with_suffix(".aside"))  # which keeps its time
    try:
        with pytest.raises(UserError) as caught:
            ask.find(Path("results/demo"), "lr0.003")
        remedy = str(caught.value).partition(" with ")[2].split()
        assert "train demo/lr0.003" in jobs(snakemake(demo_run, "--dry-run", *remedy).stdout, config)
    finally:
        aside.rename(weights)


def test_new_time_stamps_on_all_sources_make_nothing_stale(demo_run, snakemake):
    # What a git checkout does.
    for source in demo_run.rglob("*"):
        if not {"results", ".snakemake"} & set(source.relative_to(demo_run).parts):
            os.utime(source)
    assert "Nothing to be done" in snakemake(demo_run, "--dry-run").stdout


def test_a_renamed_study_computes_nothing_again(demo_run, snakemake, config, tmp_path):
    study, results = tmp_path / "renamed.yaml", demo_run / "results"
    study.write_text(yaml.safe_dump(config | {"study": "renamed"}), encoding="utf-8")
    (results / "demo").rename(results / "renamed")
    try:
        run = snakemake(demo_run, "--dry-run", "--configfile", str(study))
    finally:
        (results / "renamed").rename(results / "demo")
    assert "Nothing to be done" in run.stdout, run.stdout


def _reordered(config: dict) -> str:
    def turned(value):
        return {key: turned(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    config["lora"]["target_modules"].reverse()
    return yaml.safe_dump(turned(config), sort_keys=False)


def _other_spelling(config: dict) -> str:
    rates = [f"{rate:.6e}" for rate in config["sweep"]["training.learning_rate"]]
    assert all(re.fullmatch(r"\d\.\d{6}e-\d\d", rate) for rate in rates)
    config["sweep"]["training.learning_rate"] = [f"rate {number}" for number in range(len(rates))]
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


REWRITES = {rewrite.__name__: rewrite for rewrite in (_reordered, _other_spelling, _defaults_left_out)}


@pytest.mark.parametrize("rewrite", REWRITES)
def test_the_same_study_in_other_words_makes_nothing_stale(rewrite, stale):
    assert stale[rewrite] == set()


def test_a_mistake_is_refused_with_a_sentence_that_names_the_key(planned):
    assert planned["wrong"].returncode != 0
    told = planned["wrong"].stdout
    assert "wrong.yaml, training.learning_rat: no such key. Did you mean training.learning_rate?" in told


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
    # Both adapters are new: they are held against the most similar ones.
    new = r"train demo r8_lr0\.0\d+_s42_[0-9a-f]{6}"
    assert re.search(rf"training\.weight_decay: 0\.0 -> 0\.5\n    {new}, {new}\n", found)
    assert "tasks.mmlu.shots: 4 -> 1\n    prepare_mmlu test\n" in found
    assert re.search(r"\d+ jobs; \d+ of training and answers took 0\.\d\d hours last time\.", found)
    edited["tasks"]["mmlu"]["shots"] = "many"
    with pytest.raises(AssertionError, match=r"tasks\.mmlu\.shots: found 'many'"):
        why(edited)


def test_config_on_the_command_line_overrides_one_value_inside_a_section(planned):
    assert jobs(planned["other level"].stdout) == TABLES
    assert "Nothing to be done" in planned["same level"].stdout


def test_more_gpus_make_nothing_stale(planned):
    assert "Nothing to be done" in planned["more GPUs"].stdout


def test_more_gpus_for_a_rule_than_for_the_run_are_refused(demo_run, snakemake):
    # Snakemake would lower them to the profile's one and say nothing.
    run = snakemake(demo_run, "--forcerun", "predict_spider", "--set-resources", "predict_spider:gpu=4")
    assert run.returncode != 0
    assert "set-resources, predict_spider:gpu=4: this run has gpu=1. Add --resources gpu=4" in run.stdout


def test_a_study_replaces_config_yaml(planned):
    found = jobs(planned["other"].stdout, OTHER | {"sweep": {"lora.r": [4, 8]}})
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
    run = snakemake(
        folder, "--configfile", "study.yaml", "--config", "sweep={lora.r: [4, 8]}", "--verbose", "--", target
    )
    assert run.returncode == 0, run.stdout
    assert "spawned job: " in run.stdout
    assert (folder / target).is_file()


def test_snakemakes_own_report_opens_on_what_was_found(demo_run, snakemake, tmp_path):
    run = snakemake(demo_run, "--report", str(tmp_path / "report.html"))
    assert run.returncode == 0, run.stdout
    page, answer = ((tmp_path / "report.html"), demo_run / "results/demo/answer.md")
    text = " ".join(re.sub("[`†]", "", answer.read_text(encoding="utf-8")).split())
    shown = " ".join(re.sub(r"<[^>]+>|†", "", page.read_text(encoding="utf-8").replace("\\n", " ")).split())
    assert text[:60] in shown and "What was found" in shown
