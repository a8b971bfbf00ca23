"""Adapters and what else is evaluated: names, order, folders."""

from _config import EVALUATION, GENERAL, MINIMAL, REPLAY, SWEPT, study
from study import read, unfold


def test_adapters_are_named_by_their_swept_axes_in_a_fixed_order():
    config = study(
        training={"seed": [42], "learning_rate": [1.0e-4, 5.0e-5], "max_steps": 50, "num_train_epochs": [1, 0.5]},
        lora={"r": [8], "target_modules": [["v_proj", "q_proj"]], "lora_dropout": [0], "lora_alpha": [16]},
    )
    assert list(unfold.variants(config)) == [
        "base",
        *(
            f"lr{rate}-r8-alpha16-dropout0-modulesq_proj+v_proj-epochs{epochs}-seed42"
            for rate in ("0.0001", "0.00005")
            for epochs in ("1", "0.5")
        ),
    ]


def test_steps_are_an_axis():
    assert list(unfold.variants(study(training={"max_steps": [50, 200]}))) == ["base", "steps50", "steps200"]


def test_replay_and_decay_are_axes_and_a_term_without_rows_is_none():
    names = list(
        unfold.variants(study(training={"seed": [1], "weight_decay": [0.0, 0.5]}, replay=REPLAY, tasks=GENERAL))
    )
    assert names == ["base"] + [
        f"seed1-decay{decay}-{rest}"
        for decay in ("0", "0.5")
        for rest in ("replay0-kl0", "replay0.2-kl0", "replay0.2-kl1")
    ]
    assert list(unfold.variants(study(replay=REPLAY | {"kl": 1.0}, tasks=GENERAL))) == ["base", "replay0", "replay0.2"]


def test_without_a_swept_axis_there_is_one_adapter():
    assert unfold.variants(study()) == {"base": {}, "adapter": {}}


def test_ready_made_adapters_are_runs_of_their_own_model_alone():
    models = {"m": {"source": "x"}, "n": {"source": "y"}}
    adapters = {"public": {"source": "folder", "model": "n"}}
    config = study(models=models, adapters=adapters)
    assert unfold.ready_made(config) == {"public": "n"}
    assert unfold.variants(config) == {"base": {}, "adapter": {}}
    found = [(run["model"], run["variant"]) for run in unfold.runs(config)]
    assert found == [("m", "base"), ("m", "adapter"), ("n", "base"), ("n", "adapter"), ("n", "public")]
    assert unfold.adapter_folders(config)["public"] == "public/adapter"
    assert unfold.ready_made(study(adapters={"public": {"source": "folder"}})) == {"public": "m"}


def test_a_smoke_run_has_no_ready_made_adapters():
    raw = MINIMAL | {"adapters": {"public": {"source": "folder"}}}
    assert read.resolve(raw)["adapters"].keys() == {"public"}
    assert read.resolve(raw, {"scale": "smoke"})["adapters"] == {}


def test_points_of_adapters_have_variants_of_their_own():
    config = study(training=SWEPT, evaluation=EVALUATION | {"adapters": ["lr0.2"]})
    # The strengths 0 and 1 are the base model and the adapter.
    assert unfold.points(config) == {
        "lr0.2@0.25": {"of": ["lr0.2"], "strength": 0.25},
        "lr0.2@0.5": {"of": ["lr0.2"], "strength": 0.5},
        "lr0.2@step5": {"of": ["lr0.2"], "step": 5},
        "lr0.2@step9": {"of": ["lr0.2"], "step": 9},
        "soup-both": {"of": ["lr0.2", "lr0.1"], "soup": "both"},
    }
    assert unfold.adapter_folders(config) == {
        "lr0.1": "lr0.1/adapter",
        "lr0.2": "lr0.2/adapter",
        "lr0.2@0.25": "lr0.2/adapter",
        "lr0.2@0.5": "lr0.2/adapter",
        "lr0.2@step5": "lr0.2/steps/5",
        "lr0.2@step9": "lr0.2/steps/9",
        "soup-both": "soup-both/adapter",
    }
    assert len(unfold.points(study(training=SWEPT, evaluation=EVALUATION))) == 9
    assert unfold.points(study(training=SWEPT)) == {}


def test_a_base_with_prompts_of_its_own_does_not_stand_for_strength_0():
    config = study(evaluation={"strengths": [0, 1]}, tasks={"spider": {"base_shots": 0}})
    assert list(unfold.points(config)) == ["adapter@0"]


def test_tasks_stand_in_the_order_of_the_tables():
    config = study(tasks=GENERAL | {"another": {"kind": "mmlu", "source": "x"}})
    assert unfold.target_of(config) == "spider"
    assert unfold.tasks_of(config, "target", "yardstick", "replay") == ["spider", "another", "mmlu", "general"]
    assert [unfold.shots_of(config, name) for name in ("spider", "mmlu", "general")] == [3, 4, 0]
    assert unfold.shots_of(study(tasks={"spider": {"shots": ["a", "b"]}}), "spider") == 2


def test_a_target_may_have_any_name_and_a_study_no_yardstick():
    given = MINIMAL | {"tasks": {"queries": {"kind": "spider"}}}
    config = read.check(given)
    assert unfold.target_of(config) == "queries"
    assert unfold.tasks_of(config, "yardstick", "replay") == []
    assert config["tasks"]["queries"]["kind"] == "spider"
