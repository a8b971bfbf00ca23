"""Strengths, steps, soups, prompts: what a whole run makes of them, and that one more is one more evaluation.

The whole run takes over a minute, and all tests need it: they are marked `long` and run in `make faults`.
"""

import copy
from pathlib import Path

import pytest
import yaml

from _folders import folders
from common.files import read_json, read_jsonl
from present.values import read_table
from tests.workflow.test_staleness import ANSWERED, EVERY_RULE, TABLES, chain, jobs

pytestmark = pytest.mark.long

ANSWERS = EVERY_RULE[1:]
MADE = ["lr0.001@0.5", "lr0.001@step4", "soup-both"]
PROMPTED = ("predict_spider", "score_spider", "score_mmlu")


@pytest.fixture(scope="module")
def study(tiny_study) -> dict:
    """The tiny study with two adapters, a strength and a step of the first, a soup, and a base without examples."""
    study = copy.deepcopy(tiny_study)
    study["study"] = "points"
    study["sweep"] = {"training.learning_rate": [0.001, 0.004]}
    study["evaluation"] = {
        "adapters": ["lr0.001"],
        "interpolate": [0, 0.5, 1],
        "checkpoints": [4],
        "soups": {"both": ["lr0.001", "lr0.004"]},
        "shots": [0, 3],
    }
    return study


@pytest.fixture(scope="module")
def points_run(copy_repo, snakemake_forked, study) -> Path:
    """A copy of the repository in which that study has run once."""
    folder = copy_repo("points")
    (folder / "points.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    run = snakemake_forked(folder, "--configfile", "points.yaml", models=True)
    assert run.returncode == 0, run.stdout[-8000:]
    return folder


def test_points_are_rows_of_the_tables_and_have_their_figures(points_run):
    results = points_run / "results/points"
    asked = ["base", "lr0.001", "lr0.004", *MADE]
    runs = [*asked[:3], "base@shots0", *MADE]
    for name in ("spider", "mmlu", "errors", "cost"):
        assert list(dict.fromkeys(read_table(results / f"tables/{name}.csv")["variant"])) == runs
    frame = read_table(results / "tables/regression.csv").drop_duplicates("variant").set_index("variant")
    assert frame.loc["base@shots0", ["of", "shots"]].tolist() == ["base", 0]
    assert frame.loc[MADE, "of"].tolist() == ["lr0.001", "lr0.001", "lr0.001 lr0.004"]
    assert (frame.loc[MADE[0], "strength"], frame.loc[MADE[1], "step"]) == (0.5, 4)
    for name in ("strength", "trajectory", "shots"):
        assert (results / f"figures/{name}.svg").stat().st_size > 0
        assert f"figures/{name}.svg" in (results / "report.md").read_text(encoding="utf-8")
    assert read_json(folders(results)[MADE[0]] / "mmlu_predict.json")["settings"]["strength"] == 0.5
    answers = [[row["logprobs"] for row in read_jsonl(folders(results)[name] / "mmlu_answers.jsonl")] for name in asked]
    assert all(one != other for i, one in enumerate(answers) for other in answers[:i])


def _nothing(study: dict) -> set[str]:
    return set()


def _strength(study: dict) -> set[str]:
    study["evaluation"]["interpolate"].append(0.75)
    return chain(["lr0.001@0.75"], *ANSWERS) | ANSWERED | {"index"}


def _strength_dropped(study: dict) -> set[str]:
    study["evaluation"]["interpolate"] = []
    return ANSWERED | {"index"}


def _step(study: dict) -> set[str]:
    # The adapter is trained again, and evaluated again for it; the other one is not.
    study["evaluation"]["checkpoints"].append(6)
    again = ["lr0.001", *MADE, "lr0.001@step6"]
    return {"train demo/lr0.001", "soup demo/soup-both", "index"} | chain(again, *ANSWERS) | ANSWERED


def _step_dropped(study: dict) -> set[str]:
    study["evaluation"]["checkpoints"] = []
    return ANSWERED | {"index"}


def _another_adapter(study: dict) -> set[str]:
    study["evaluation"]["adapters"].append("lr0.004")
    return chain(["lr0.004@0.5", "lr0.004@step4"], *ANSWERS) | ANSWERED | {"index"}


def _shots(study: dict) -> set[str]:
    # One that is set aside, and more than are.
    study["evaluation"]["shots"] += [1, 5]
    new = {f"render_spider demo/test_shots{shots}" for shots in (1, 5)}
    return new | chain(["base@shots1", "base@shots5"], *PROMPTED) | ANSWERED | {"index"}


def _shots_dropped(study: dict) -> set[str]:
    del study["evaluation"]["shots"]
    return ANSWERED | {"index"}


def _soup(study: dict) -> set[str]:
    study["evaluation"]["soups"]["again"] = ["lr0.004", "lr0.001"]
    return {"soup demo/soup-again"} | chain(["soup-again"], *ANSWERS) | ANSWERED | {"index"}


def _without_points(study: dict) -> set[str]:
    del study["evaluation"]
    return ANSWERED | {"index"}


def _table(study: dict) -> set[str]:
    study["tables"]["confidence_level"] = 0.9
    return TABLES


@pytest.mark.parametrize(
    "edit",
    [
        _nothing,
        _strength,
        _strength_dropped,
        _step,
        _step_dropped,
        _another_adapter,
        _soup,
        _shots,
        _shots_dropped,
        _without_points,
        _table,
    ],
)
def test_an_edit_makes_stale_what_depends_on_it(edit, points_run, study, snakemake, tmp_path):
    edited = copy.deepcopy(study)
    expected = edit(edited)
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(edited), encoding="utf-8")
    run = snakemake(points_run, "--dry-run", "--configfile", str(tmp_path / "edited.yaml"))
    assert run.returncode == 0, run.stdout
    assert jobs(run.stdout, edited) == expected
