"""Every study in each of its protocols, from end to end at smoke scale.

On the real archives where they are. Elsewhere on the demo's databases, and on questions of no meaning under the names
of MMLU's subjects: each step runs there too, on the studies' own subjects and examples, but not on their text.

Where answers were given elsewhere there is no smoke scale: `test_reanalysis` runs those.
"""

import csv
import json
import os
import re
from pathlib import Path

import pytest
import yaml

from _folders import folders
from _runs import forked
from common.files import read_json, read_jsonl
from study import unfold
from study.read import resolve
from study.unfold import PROTOCOLS
from tasks.mmlu import CATEGORY

REPO = Path(__file__).parents[2]
# Not the embedded demo's own, which test_staleness, test_points and test_replay_runs run.
STUDIES = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((REPO / "studies").glob("*.yaml"))
    if path.stem not in ("demo-full", "demo-replay")
}
RUNS = [
    (name, protocol)
    for name, study in STUDIES.items()
    for protocol in PROTOCOLS
    if protocol == PROTOCOLS[0] or protocol in study.get("protocols", {})
    if not unfold.given(resolve(study, {"protocol": protocol}, name))
]
pytestmark = pytest.mark.long


def write_mmlu(folder: Path) -> None:
    """Write a release of MMLU with all its subjects, whose examples have the answers that the studies expect."""
    protocols = [protocol for study in STUDIES.values() for protocol in study.get("protocols", {}).values()]
    fixed = [
        shot for protocol in protocols for shot in protocol.get("tasks", {}).get("mmlu", {}).get("fixed_shots", [])
    ]
    answers = {(shot["subject"], shot["split"], shot["index"]): shot["answer"] for shot in fixed}
    for split, count in (("dev", 5), ("test", 2)):
        for subject in CATEGORY:
            path = folder / split / f"{subject}_{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream).writerows(
                    [f"What is {split} {i} of {subject}?", "w", "x", "y", "z", answers.get((subject, split, i), "A")]
                    for i in range(count)
                )


@pytest.fixture(scope="module")
def data(request, tmp_path_factory) -> str:
    """The override that names the data."""

    def of_mmlu(source: Path) -> str:
        return f"mmlu: {{source: '{source}', revision: null}}"

    try:
        shared = request.getfixturevalue("shared_data")
    except pytest.skip.Exception:
        write_mmlu(tmp_path_factory.mktemp("mmlu"))
        mmlu = tmp_path_factory.getbasetemp() / "mmlu0"
        spider = "resources/demo/spider_data"
        counts = {
            name: len(read_json(REPO / spider / f"{name}.json")) for name in ("train_spider", "train_others", "dev")
        }
        return f"tasks={{spider: {{source: {spider}, counts: {json.dumps(counts)}}}, {of_mmlu(mmlu)}}}"
    spider, mmlu = (shared / path for path in ("spider/spider_data.zip", "mmlu/mmlu_data.tar.gz"))
    return f"tasks={{spider: {{source: '{spider}'}}, {of_mmlu(mmlu)}}}"


def run_all(folder: Path, runs: dict[str, list[str]]) -> dict[str, int]:
    """Run Snakemake in `folder` with the arguments of each run, without a token; return the exit statuses."""
    kept = {key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}
    done = forked(folder, runs, models=True, env=kept | {"HF_HOME": str(folder / "hub")})
    return {name: one.returncode for name, one in done.items()}


def arguments(name: str, *config: str) -> list[str]:
    """Run a study with these overrides."""
    return ["--cores", "1", "--configfile", f"studies/{name}.yaml", "--config", *config]


def smoke(runs: list[tuple[str, str]], data: str) -> dict[str, list[str]]:
    """The arguments of each run at smoke scale, by its name."""
    return {
        f"{name}-{protocol}": arguments(name, "scale=smoke", f"protocol={protocol}", data) for name, protocol in runs
    }


@pytest.fixture(scope="module")
def ended(request, copy_repo, data) -> tuple[Path, dict[str, int]]:
    """The folder in which all of them have run, and how each run ended.

    Where these alone are asked for, no more studies run than the tests that were chosen look at.
    """
    folder = copy_repo("studies")
    chosen = [item for item in request.session.items if item.path == request.path]
    asked = [(item.callspec.params["name"], item.callspec.params["protocol"]) for item in chosen if is_of_a_run(item)]
    alone = len(asked) == len(chosen)
    runs = smoke(asked if alone else RUNS, data)
    if alone:
        return folder, run_all(folder, runs)
    # One that must fail: an audit that finds what the study does not accept.
    must_fail = ("scale=smoke", "study=must-fail", "training={max_length: 64}")
    runs["must-fail"] = arguments("cunha", *must_fail, data)
    # Another: gated weights, and no token.
    runs["no-token"] = arguments("souza", "study=no-token", data)
    return folder, run_all(folder, runs)


def is_of_a_run(item: pytest.Item) -> bool:
    """Whether a test looks at the results of one run alone."""
    return item.originalname == test_a_study_runs_at_smoke_scale.__name__


def read_csv(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("name", "protocol"),
    [pytest.param(*run, marks=[pytest.mark.ci] * (run == ("cunha", "as_reported"))) for run in RUNS],
)
def test_a_study_runs_at_smoke_scale(name, protocol, ended):
    folder, statuses = ended
    assert statuses[f"{name}-{protocol}"] == 0, (folder / f"{name}-{protocol}.out").read_text()[-8000:]
    results = folder / "results" / (f"{name}-smoke" if protocol == "corrected" else f"{name}-{protocol}-smoke")
    study = STUDIES[name] | STUDIES[name].get("protocols", {}).get(protocol, {})
    report = (results / "report.md").read_text(encoding="utf-8")
    assert (results / "figures/tradeoff.svg").stat().st_size > 0

    (run,) = read_csv(results / "tables/regression.csv")[:1]
    variants = {row["variant"] for row in read_csv(results / "tables/spider.csv")}
    assert variants == {"base", run["variant"]}
    (model,) = study["models"]
    places = folders(results, model)
    trained = read_json(places[run["variant"]] / "train.json")
    assert trained["steps"] == 2
    for variant in variants:
        answered = places[variant]
        assert len(read_csv(answered / "spider.csv")) == 8
        subjects = {row["subject"] for row in read_csv(answered / "mmlu.csv")}
        assert len(subjects) == len(read_jsonl(results / "data/mmlu/test.jsonl"))

    # The audit found what the study accepts and nothing else; the stamp is on all that is read.
    audit = read_json(results / f"prompts/{model}/spider_audit.json")
    assert set(audit["failed"]) <= set(study.get("accept_defect", []))
    assert ("target_not_in_loss" in audit["failed"]) == (study["training"].get("loss_on") == "prompt")
    pages = [report, *(path.read_text(encoding="utf-8") for path in results.glob("tables/*.md"))]
    for page in pages:
        assert ("Known defects" in page) == (protocol == "as_reported")
        for defect in study.get("known_defects", []):
            assert defect in page.replace("\\", "")  # Markdown's escapes
    printed = study.get("published", {}).get("tables")
    assert (results / "tables/published.csv").is_file() == bool(printed)
    if printed:
        # Of a smoke run nothing stands beside a printed figure.
        assert not any(row["ours"] for row in read_csv(results / "tables/published.csv"))
        assert "stand beside ours" not in report
        figures = sum(len(row) for t in printed for part in ("accuracy", "change") for row in t.get(part, {}).values())
        found = {
            (row["table"], row["kind"], row["variant"], row["column"])
            for row in read_csv(results / "tables/published.csv")
        }
        assert len(found) == figures


def test_a_failed_job_fails_its_run(ended):
    folder, statuses = ended
    assert statuses["must-fail"] == 1
    assert "Error in rule audit_labels" in (folder / "must-fail.out").read_text()
    results = folder / "results" / "must-fail-smoke"
    log = (results / "logs/audit_labels/llama3/spider.log").read_text()
    assert "tokens, expected at most training.max_length = 64" in log
    assert not (results / "report.md").exists()
    assert not list(results.glob("runs/*/*/adapter/*"))


def test_a_gated_study_without_a_token_starts_nothing(ended):
    folder, statuses = ended
    assert statuses["no-token"] == 1
    out = (folder / "no-token.out").read_text()
    assert "huggingface.co/meta-llama/Meta-Llama-3-8B-Instruct, then set the environment variable HF_TOKEN" in out
    assert not re.search(r"^\d\d:\d\d:\d\d  ", out, re.MULTILINE)  # a job that ended or failed
    assert not list((folder / "results").glob("no-token/**/*.*"))


def results_of(ended, name: str) -> Path:
    return ended[0] / "results" / name


def test_souza_as_reported_shows_the_same_four_examples_to_all(ended):
    rows = read_jsonl(results_of(ended, "souza-as_reported-smoke") / "data/mmlu/test.jsonl")
    assert {row["subject"] for row in rows} == {"astronomy", "econometrics", "world_religions"}
    assert [shot["answer"] for shot in rows[0]["shots"]] == list("ABCD")
    assert all(row["shots"] == rows[0]["shots"] for row in rows)


def test_souza_corrected_shows_each_subject_its_own_examples(ended):
    own = read_jsonl(results_of(ended, "souza-smoke") / "data/mmlu/test.jsonl")
    assert len({json.dumps(row["shots"]) for row in own}) == len(own)


def test_ribeiro_as_reported_shows_the_first_subjects_examples_and_none_to_the_base(ended):
    results = results_of(ended, "ribeiro-as_reported-smoke")
    tables = read_csv(results / "data/mmlu/source/dev.csv")
    first = [row["question"] for row in tables if row["subject"] == "abstract_algebra"][:4]
    rows = read_jsonl(results / "data/mmlu/test.jsonl")
    assert len({row["subject"] for row in rows}) == 3
    assert all([shot["question"] for shot in row["shots"]] == first for row in rows)
    prompts = {
        part: read_jsonl(results / f"prompts/mistral/spider_{part}.jsonl") for part in ("test", "test_shots0", "train")
    }
    counts = {part: {row["prompt"].count("Question:") for row in rows} for part, rows in prompts.items()}
    assert counts == {"test": {4}, "test_shots0": {1}, "train": {4}}
    assert {row["completion"] for row in prompts["train"]} == {""}


def test_freitas_chooses_by_validation_rows_in_the_one_face_and_by_dev_in_the_other(ended):
    for label, ids in (("freitas-smoke", "train_"), ("freitas-as_reported-smoke", "dev-")):
        results = results_of(ended, label)
        rows = read_jsonl(results / "data/spider/validation.jsonl")
        assert len(rows) == 4
        assert all(row["id"].startswith(ids) for row in rows)
        place = folders(results, "gemma")["lr0.0001"]
        train = read_json(place / "train.json")
        assert [entry["step"] for entry in train["eval_history"]] == [1, 2]
        assert train["best_step"] == min(train["eval_history"], key=lambda entry: entry["eval_loss"])["step"]
        assert list((results / "trackers/tensorboard/gemma" / place.name).glob("events.*"))
    failed = read_json(results_of(ended, "freitas-as_reported-smoke") / "prompts/gemma/spider_audit.json")["failed"]
    assert {"target_not_in_loss", "dev_used_to_choose"} <= set(failed)


def test_cunha_as_reported_cuts_rows_and_draws_its_answers(ended):
    results = results_of(ended, "cunha-as_reported-smoke")
    answered = read_json(results / "runs/llama3/base/spider_predict.json")
    assert answered["settings"]["do_sample"] is True
    assert answered["decoder"] == "generate (answers are drawn at random)"


def test_cunha_corrected_draws_nothing(ended):
    answered = read_json(results_of(ended, "cunha-smoke") / "runs/llama3/base/spider_predict.json")
    assert "do_sample" not in answered["settings"]
