"""What the jobs of each rule see of a study: nothing that they do not need, or hours of training are lost."""

import gzip
import json
from pathlib import Path

import pytest
import yaml

from _config import EVALUATION, REPLAY, SWEPT, study
from _rules import settings
from study import read, unfold
from study.messages import leaves

REPO = Path(__file__).parents[2]
GOLDEN = json.loads(gzip.decompress((REPO / "tests/golden/settings.json.gz").read_bytes()))


@pytest.mark.parametrize("run", GOLDEN)
def test_studies_and_what_their_jobs_see_are_as_before(run):
    """Of every study, face and scale. What changes here makes results stale that took hours."""
    file, face, scale = run.split()
    raw = yaml.safe_load((REPO / file).read_text(encoding="utf-8"))
    config = read.resolve(raw, {"face": face, "scale": scale}, file)
    assert config == GOLDEN[run]["config"]
    assert repr(config) == repr(unfold.canonical(config))
    before = {rule: found for rule, found in GOLDEN[run]["settings"].items() if found is not None}
    after = settings(raw | {"face": face, "scale": scale})
    # The tables are written in the language of the report.
    for rule in WRITTEN & after.keys():
        assert after[rule].pop("language") == config["report"]["language"]
    # Snakemake compares representations.
    assert repr(after) == repr(before)


WRITTEN = {"tables", "cost", "tables_page", "harness_table", "recommend", "compare_published", "answers"}
NOT_PICKED = {
    "study": "is in the name of the results' folder, which rules see",
    "faces": "is merged over the study before anything is read",
    "models.gated": "for the check before the first job, and for `make studies`",
    "models.parameters": "for `make studies` and `make plan`",
    "models.vocabulary": "for `make studies` and `make plan`",
    "prompt.base_shots": "decides which prompts the base model answers",
    "evaluation.adapters": "decides which runs there are",
    "evaluation.strengths": "decides which runs there are",
    "evaluation.steps": "decides which runs there are",
    "evaluation.shots": "decides which runs there are",
    "evaluation.soups": "decides which runs there are",
}


def test_every_key_is_picked_by_a_rule_or_said_not_to_be(monkeypatch):
    picked = set()
    pick = unfold.pick

    def record(config: dict, /, *places: str, **others) -> dict:
        whole = "study" in config
        picked.update(f"{'' if whole else 'models.'}{place.partition(' as ')[0]}" for place in places)
        return pick(config, *places, **others)

    monkeypatch.setattr("study.unfold.pick", record)
    given = EVALUATION | {"shots": [0], "harness": {"tasks": ["arc_easy"]}}
    settings(
        study(training=SWEPT, evaluation=given, recommend={}, replay={"source": "auxiliary_train", "fraction": 0.5})
    )
    keys = {key for key, field in leaves()} | {f"models.{key}" for key in ("source", "revision", "precision")}
    keys |= NOT_PICKED.keys()

    def known(key: str, places) -> bool:
        return any(key == place or key.startswith(f"{place}.") for place in places)

    sections = {key for key in keys if any(other.startswith(f"{key}.") for other in keys)}
    missed = {key for key in keys - sections if not known(key, picked) and not known(key, NOT_PICKED)}
    assert missed == set()
    assert {key for key in NOT_PICKED if key in picked} == set()
    assert picked <= keys


@pytest.mark.parametrize(
    ("face", "scale", "name"),
    [
        ("corrected", "full", "s"),
        ("as_reported", "full", "s-as_reported"),
        ("corrected", "smoke", "s-smoke"),
        ("as_reported", "smoke", "s-as_reported-smoke"),
    ],
)
def test_each_face_and_scale_has_its_own_results(face, scale, name):
    config = study(face=face, scale=scale)
    assert unfold.label(config) == name
    found = settings(config)
    assert found["tables"]["study"] == found["report"]["study"] == found["compare_published"]["study"] == name


def test_the_base_model_has_prompts_of_its_own_only_where_a_study_says_so():
    assert unfold.own_prompts(study()) == {}
    config = study(prompt={"base_shots": 0})
    assert unfold.own_prompts(config) == {"base": "dev_shots0"}
    rendered = settings(config)["render_spider"]
    assert rendered["dev_shots0"] == rendered["dev"]
    assert "train_target" in rendered["train"]
    assert "train_target" not in rendered["dev"]


def test_a_training_without_replay_has_the_settings_of_a_study_without_it():
    plain = settings(study())["train"]["m"]["adapter"]
    found = settings(study(replay=REPLAY))["train"]["m"]
    assert found["replay0-kl0"] == plain
    assert found["replay0.2-kl1"] == plain | {"replay": {"fraction": 0.2, "kl": 1.0}}
    # Another source or number of rows is seen by its files.
    for replay in (REPLAY | {"source": "other.csv"}, REPLAY | {"questions": 7, "seed": 1}):
        assert settings(study(replay=replay))["train"]["m"] == found


def test_of_mmlu_only_its_source_leads_to_replayed_rows():
    before, after = (
        settings(study(mmlu={"source": "folder"} | mmlu, replay=REPLAY)) for mmlu in ({}, {"shots": 1, "seed": 2})
    )
    for name in ("fetch_replay", "prepare_replay", "render_replay", "audit_replay", "train"):
        assert before[name] == after[name]
    assert "mmlu" not in settings(study(replay=REPLAY | {"source": "file.csv"}))["fetch_replay"]


def test_each_adapter_is_trained_with_its_own_values():
    found = settings(study(training={"learning_rate": [0.1, 0.2]}, lora={"r": [4]}))
    assert list(found["train"]["m"]) == ["lr0.1-r4", "lr0.2-r4"]
    one = found["train"]["m"]["lr0.2-r4"]
    assert (one["training"]["learning_rate"], one["lora"]["r"], one["precision"]) == (0.2, 4, "bf16")
    assert found["tables"]["runs"] == [
        {"model": "m", "settings": {}, "variant": "base"},
        {"model": "m", "settings": {"lora.r": 4, "training.learning_rate": 0.1}, "variant": "lr0.1-r4"},
        {"model": "m", "settings": {"lora.r": 4, "training.learning_rate": 0.2}, "variant": "lr0.2-r4"},
    ]


def test_other_numbers_of_examples_are_points_of_the_base():
    evaluation = EVALUATION | {"shots": [5, 0, 2]}
    config = study(training=SWEPT, evaluation=evaluation, spider={"shots": 2})
    assert dict(list(unfold.points(config).items())[:2]) == {
        "base@shots0": {"of": ["base"], "shots": 0},
        "base@shots5": {"of": ["base"], "shots": 5},
    }
    assert unfold.own_prompts(config) == {"base@shots0": "dev_shots0", "base@shots5": "dev_shots5"}
    before = settings(study(training=SWEPT, evaluation=EVALUATION, spider={"shots": 2}))
    after = settings(config)
    # Nothing else is answered again, and nobody is asked the same multiple-choice questions twice.
    assert after["predict_mmlu"] == before["predict_mmlu"]
    asked = before["predict_spider"]["m"]
    assert after["predict_spider"]["m"] == asked | dict.fromkeys(("base@shots0", "base@shots5"), asked["base"])
    assert after["render_spider"].items() >= before["render_spider"].items()
    changed = {name for name in before if before[name] != after[name]}
    # `harness_table`: only where there is one, seconds.
    assert changed == {"render_spider", "predict_spider", "tables", "cost", "answers", "report", "harness_table"}
    # Only then the tables say what the base itself has.
    assert [run.get("shots") for run in after["tables"]["runs"][:4]] == [2, None, None, None]
    assert "shots" not in before["tables"]["runs"][0]
    own = study(evaluation={"shots": [0, 2]}, prompt={"base_shots": 0}, spider={"shots": ["a", "b"]})
    assert unfold.own_prompts(own) == {"base@shots2": "dev_shots2", "base": "dev_shots0"}


def test_a_point_more_changes_no_other_answer_and_no_training():
    before = settings(study(training=SWEPT))
    after = settings(study(training=SWEPT, evaluation=EVALUATION))
    for task in ("predict_spider", "predict_mmlu"):
        assert before[task]["m"].items() <= after[task]["m"].items()
        assert after[task]["m"]["lr0.1@0.5"] == before[task]["m"]["lr0.1"] | {"strength": 0.5}
        assert after[task]["m"]["lr0.1@step5"] == after[task]["m"]["soup-both"] == before[task]["m"]["lr0.1"]
    assert after["train"] == before["train"]
    assert after["compare_published"]["runs"] == before["compare_published"]["runs"]
    runs = after["tables"]["runs"]
    assert [run for run in runs if "point" not in run] == before["tables"]["runs"]
    assert {run["variant"]: run["settings"] for run in runs}["lr0.2@0.5"] == {"training.learning_rate": 0.2}


def test_steps_that_are_no_longer_kept_train_nothing_again():
    assert settings(study(training=SWEPT)) == settings(study(training=SWEPT | {"kept_steps": []}))


def test_settings_are_plain_sorted_values():
    found = settings(study())
    assert json.loads(json.dumps(found)) == found
    assert json.dumps(found) == json.dumps(found, sort_keys=True)


def test_what_only_the_list_of_studies_shows_reaches_no_job():
    model = {"source": "folder", "gated": True, "parameters": 8, "vocabulary": 9}
    assert settings(study(models={"m": model})) == settings(study())


def test_a_recommendation_changes_its_own_rules_alone():
    before, after = (settings(study(recommend=section)) for section in (None, {"max_loss_pp": 2}))
    assert {rule for rule in after if after[rule] != before.get(rule)} == {"recommend", "export_recommended"}
    merged = settings(study(recommend={"max_loss_pp": 2, "merge": True}))
    assert {rule for rule in after if after[rule] != merged[rule]} == {"export_recommended"}


TO_TRAINING = ("fetch_spider", "fetch_model", "prepare_spider", "audit_labels", "train")


@pytest.mark.parametrize(
    "sections",
    [
        {"tables": {"confidence_level": 0.9}},
        {"scoring": {"timeout_s": 1}},
        {"inference": {"batch_size": 1, "spider_max_new_tokens": 1, "mmlu_max_new_tokens": 1}},
        {"inference": {"merge_adapters": True}},
        {"spider": {"dev_questions": 1, "exclude_databases": ["a"]}},
        {"mmlu": {"source": "other", "shots": 0, "seed": 1}},
        {"prompt": {"mmlu_system": "other", "base_shots": 0}},
        {"inference": {"do_sample": True, "temperature": 0.5, "top_p": 0.9, "seed": 1}},
        {"mmlu": {"source": "folder", "shots_from": "first_subject", "questions_per_category": None}},
        {"mmlu": {"source": "folder", "categories": "official"}},
        {"known_defects": ["x"], "published": {"report": "x"}},
        {"evaluation": {"strengths": [0.5]}},
        {"evaluation": {"harness": {"tasks": ["arc_easy"]}}},
        {"evaluation": {"steps": [5]}, "training": {"kept_steps": [5]}},
        {"recommend": {"max_loss_pp": 2}},
        {"evaluation": {"shots": [0, 9]}},
    ],
)
def test_no_evaluation_setting_reaches_training(sections):
    before, after = settings(study()), settings(study(**sections))
    assert before != after
    assert {rule: before[rule] for rule in TO_TRAINING} == {rule: after[rule] for rule in TO_TRAINING}
    assert before["render_spider"]["train"] == after["render_spider"]["train"]
