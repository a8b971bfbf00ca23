"""Replay in a whole run: what it makes, and that an adapter without it never depends on it.

The whole run takes over a minute, and all tests need it: they are marked `long` and run in `make faults`.
"""

import copy
from pathlib import Path

import pytest
import yaml

from _folders import folders
from common.files import read_json, read_jsonl
from present.values import read_table
from tests.workflow.test_staleness import ANSWERED, EVERY_RULE, chain, jobs

pytestmark = pytest.mark.long

PLAIN, WITH, HELD = "replay0-kl0", "replay0.25-kl0", "replay0.25-kl1"
MORE = ANSWERED | {"index"}
PREPARED = {"prepare_general train", "render_general demo/train", "audit_labels demo/general"}


@pytest.fixture(scope="module")
def study(tiny_study) -> dict:
    """The tiny study with an adapter without replay, one with it, and one with the KL term too."""
    study = copy.deepcopy(tiny_study)
    study["study"] = "replayed"
    study["training"]["learning_rate"] = 0.001
    study["sweep"] = {"replay.fraction": [0.0, 0.25], "replay.kl": [0.0, 1.0]}
    study["tasks"]["general"] = {"kind": "replay", "source": "rows.csv", "questions": 500}
    return study


@pytest.fixture(scope="module")
def replay_run(copy_repo, snakemake_forked, study) -> Path:
    """A copy of the repository in which that study has run once; the first of its rows to replay is a test question."""
    folder = copy_repo("replay")
    rows = (folder / "resources/demo/replay.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    asked = folder / "resources/demo/mmlu/test/chemical_elements_test.csv"
    with asked.open(encoding="utf-8") as stream:
        rows.insert(1, f"chemical_elements,{stream.readline()}")
    (folder / "rows.csv").write_text("".join(rows), encoding="utf-8")
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    run = snakemake_forked(folder, "--configfile", "study.yaml", models=True)
    assert run.returncode == 0, run.stdout[-8000:]
    return folder


def test_replayed_rows_are_in_the_training_and_a_test_question_is_not(replay_run):
    results = replay_run / "results/replayed"
    about = read_json(results / "data/general/train.json")
    assert list(about["dropped"].values()) == ["test chemical_elements-00000"]
    assert about["rows"] == len(read_jsonl(results / "data/general/train.jsonl")) == 400
    reports = {name: read_json(folders(results)[name] / "train.json") for name in (PLAIN, WITH, HELD)}
    plain = reports[PLAIN]["rows"]
    assert len(read_jsonl(results / "prompts/demo/spider_train.jsonl")) == plain
    assert "replay" not in reports[PLAIN]
    for name, kl in ((WITH, 0.0), (HELD, 1.0)):
        assert reports[name]["replay"]["rows"] == -(-plain // 4) == reports[name]["rows"] - plain
        assert reports[name]["replay"]["of"] == {"fraction": 0.25, "kl": kl}
    assert any("replay_kl" in entry for entry in reports[HELD]["history"])
    contrasts = read_table(results / "tables/contrasts.csv")
    assert set(contrasts["axis"]) == {"replay.fraction", "replay.kl"}
    report = (results / "report.md").read_text(encoding="utf-8")
    assert "rows.csv" in report
    assert "forgetting: at 0.25 against 0, MMLU changed by" in report
    assert "forgetting: at 1 against 0, MMLU changed by" in report


@pytest.mark.parametrize(
    ("section", "change", "expected"),
    [
        # Other rows: never a training without any.
        ("general", {"questions": 250}, PREPARED | chain([WITH, HELD], *EVERY_RULE) | ANSWERED),
        ("sweep", {"replay.fraction": [0.0, 0.25, 0.3]}, chain(["replay0.3-kl0", "replay0.3-kl1"], *EVERY_RULE) | MORE),
        ("sweep", {"replay.kl": [0.0, 1.0, 2.0]}, chain(["replay0.25-kl2"], *EVERY_RULE) | MORE),
        ("sweep", {"replay.kl": [0.0]}, MORE),
    ],
)
def test_an_edit_makes_stale_what_depends_on_it(replay_run, snakemake, study, section, change, expected):
    edited = copy.deepcopy(study)
    (edited["tasks"]["general"] if section == "general" else edited["sweep"]).update(change)
    (replay_run / "edited.yaml").write_text(yaml.safe_dump(edited), encoding="utf-8")
    run = snakemake(replay_run, "--dry-run", "--configfile", "edited.yaml")
    assert run.returncode == 0, run.stdout
    assert jobs(run.stdout, edited) == expected


def test_other_questions_of_mmlu_train_nothing(replay_run, snakemake, study):
    edited = copy.deepcopy(study)
    edited["tasks"]["mmlu"] |= {"shots": 1, "seed": 7}
    (replay_run / "edited.yaml").write_text(yaml.safe_dump(edited), encoding="utf-8")
    run = snakemake(replay_run, "--dry-run", "--configfile", "edited.yaml")
    assert run.returncode == 0, run.stdout
    found = jobs(run.stdout)
    assert "prepare_mmlu test" in found
    assert not any(job.startswith(("train", "audit_labels")) or "general" in job for job in found)
