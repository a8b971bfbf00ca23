"""Studies whose answers were given elsewhere: their runs, and what contradicts them."""

import copy
from pathlib import Path

import pytest

from _config import refusal, study
from study import read, unfold

REPO = Path(__file__).parents[2]
FILE = {"source": "given.csv", "question": "question"}
BOTH = {"spider": FILE, "mmlu": FILE}


def elsewhere(**changes) -> dict:
    """The sections of a study that only has answers."""
    return {
        "models": {"m": {"answers": copy.deepcopy(BOTH)}},
        "adapters": {"mine": {"answers": copy.deepcopy(BOTH)}},
        "sweep": {},
    } | changes


def test_nothing_is_trained_and_each_run_has_its_files():
    config = study(**elsewhere())
    assert (unfold.settings(config), unfold.adapters(config), unfold.loaded(config)) == ({}, {}, [])
    runs = [(run["variant"], run["setting"], run["folder"], run["imported"]) for run in unfold.runs(config)]
    assert runs == [("base", "base", "base_given", True), ("mine", "mine", "mine", True)]
    given = unfold.given(config)
    assert set(given) == {("m", "base_given"), ("m", "mine")}
    assert given["m", "mine"]["spider"]["name"] == "adapters.mine.answers.spider"


def test_seeds_of_a_setting_have_a_file_each():
    answers = {task: {"source": f"{task}_{{seed}}.csv", "id": "id"} for task in BOTH}
    config = study(**elsewhere(adapters={"mine": {"training": {"seed": [1, 2]}, "answers": answers}}))
    runs = [run for run in unfold.runs(config) if run["variant"] != "base"]
    assert [(run["variant"], run["setting"], run["seed"]) for run in runs] == [
        ("mine-seed1", "mine", 1),
        ("mine-seed2", "mine", 2),
    ]
    assert unfold.given(config)["m", "mine-seed2"]["mmlu"]["source"] == "mmlu_2.csv"


def test_the_base_may_be_asked_here_and_a_setting_elsewhere():
    config = study(adapters={"mine": {"answers": copy.deepcopy(BOTH)}}, sweep={})
    runs = {run["variant"]: run for run in unfold.runs(config)}
    assert "imported" not in runs["base"]
    assert runs["mine"]["imported"]
    assert runs["base"]["folder"] == "base"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"models": {"m": {}}},
            "models.m.source: missing. Write a folder or a repository on the hub, or give the model answers",
        ),
        (
            {"adapters": {"mine": {"answers": {"spider": FILE}}}},
            "adapters.mine.answers: found no answers to mmlu. Add them, or take mmlu out of tasks.",
        ),
        (
            {"adapters": {"mine": {"answers": BOTH | {"quiz": FILE}}}},
            "adapters.mine.answers.quiz: this study does not ask quiz, only spider, mmlu. Remove it.",
        ),
        (
            {"adapters": {"mine": {"answers": BOTH, "lora": {"r": 4}}}},
            "adapters.mine.lora: not used, since its answers were given elsewhere",
        ),
        (
            {"adapters": {"mine": {"answers": BOTH, "training": {"max_steps": 4}}}},
            "adapters.mine.training.max_steps: not used",
        ),
        (
            {"adapters": {"mine": {"answers": BOTH, "model": "n"}}},
            "adapters.mine.model: found n, expected the one of this study's models",
        ),
        ({"sweep": {"lora.r": [4, 8]}}, "sweep: there is no model to train, as no model has a source"),
        ({"adapters": {"mine": {"lora": {"r": 4}}}}, "adapters.mine: there is no model to train"),
        ({"recommend": {}}, "recommend: needs models, and this study has answers that were given elsewhere"),
        ({"evaluation": {"shots": [0]}}, "evaluation.shots: needs models"),
        ({"evaluation": {"noise_floor": True}}, "evaluation.noise_floor: needs models, and this study has answers"),
        ({"evaluation": {"repair": 1}}, "evaluation.repair: needs models, and this study has answers"),
        ({"scale": "smoke"}, "scale: found smoke, but answers that were given elsewhere cannot be made fewer"),
        (
            {"models": {"m": {"answers": {"spider": {"source": "a"}, "mmlu": FILE}}}},
            "models.m.answers.spider.question: found null, expected a column",
        ),
    ],
)
def test_what_contradicts_answers_is_said(changes, message):
    assert message in refusal(**elsewhere(**copy.deepcopy(changes)))


@pytest.mark.parametrize(
    ("section", "answers", "message"),
    [
        ({"questions": 3}, FILE, "tasks.spider.questions: found 3, but answered chooses the questions. Write null."),
        ({}, {"source": "a", "in_order": True}, "tasks.spider.answered: found true, but in_order says"),
    ],
)
def test_the_answers_choose_the_questions_or_the_study_does(section, answers, message):
    sections = elsewhere(models={"m": {"answers": BOTH | {"spider": answers}}})
    tasks = copy.deepcopy(study()["tasks"])
    tasks["spider"] |= {"questions": None, "answered": True} | section
    assert message in refusal(**sections, tasks=tasks)


@pytest.mark.parametrize("name", ["cunha", "ribeiro"])
def test_a_published_study_has_the_answers_behind_its_report(name):
    raw = read.read_yaml(REPO / f"studies/{name}.yaml")
    config = read.resolve(raw, {"protocol": "reanalysed"}, f"{name}.yaml")
    assert unfold.label(config) == f"{name}-reanalysed"
    assert not unfold.adapters(config)
    assert {run["variant"] for run in unfold.runs(config)} == set(config["published"]["tables"][0]["accuracy"])
    sources = [one["source"] for tasks in unfold.given(config).values() for one in tasks.values()]
    assert all(source.startswith("https://raw.githubusercontent.com/") for source in sources)
    assert len({source.split("/")[5] for source in sources}) == 1  # of one commit


def test_null_removes_a_section():
    assert (
        read.overlay(
            {"sweep": {"lora.r": [1]}, "protocol": "reanalysed", "protocols": {"reanalysed": {"sweep": None}}}, {}
        ).get("sweep")
        is None
    )
