"""Adapters and what else is evaluated: names, order, folders."""

import re

import pytest

from _config import EVALUATION, GENERAL, MINIMAL, REPLAY, SWEEP, study
from study import read, unfold
from tasks.questions import how_many


def labels(config):
    return list(unfold.adapters(config))


def test_settings_are_named_by_their_swept_axes_in_a_fixed_order():
    config = study(
        training={"seed": [42]},
        sweep={
            "training.optim": ["adafactor"],
            "training.num_train_epochs": [1, 0.5],
            "training.learning_rate": [1.0e-4, 5.0e-5],
            "lora.r": [8],
            "lora.target_modules": [["v_proj", "q_proj"]],
            "lora.lora_dropout": [0],
            "lora.lora_alpha": [16],
            "lora.use_dora": [True],
        },
    )
    assert labels(config) == [
        f"lr{rate}-r8-alpha16-dropout0-modulesq_proj+v_proj-epochs{epochs}-use_doratrue-optimadafactor-seed42"
        for rate in ("0.0001", "0.00005")
        for epochs in ("1", "0.5")
    ]


def test_steps_batches_and_rows_are_axes():
    assert labels(study(sweep={"training.max_steps": [50, 200]})) == ["steps50", "steps200"]
    rows = study(sweep={"tasks.spider.train_questions": [500, None], "training.per_device_train_batch_size": [4]})
    assert labels(rows) == ["batch4-rows500", "batch4-rowsall"]
    # Data, prompts and their proof are those of all rows; each training takes its own.
    assert rows["tasks"]["spider"]["train_questions"] is None
    values = [one["values"] for one in unfold.adapters(rows).values()]
    found = [unfold.training(rows, "m", one) for one in values]
    assert [one["rows"] for one in found] == [500, None]
    shown = [run["settings"] for run in unfold.runs(rows)[1:]]
    assert [one["tasks.spider.train_questions"] for one in shown] == [500, "all"]
    assert "rows" not in unfold.training(study(), "m", {"training.seed": 42})


FULL = {"full": {"training": {"method": "full", "learning_rate": 1.0e-5, "seed": [1, 2]}}}


def test_full_fine_tuning_is_a_setting_as_any_other():
    config = study(sweep=SWEEP, adapters=FULL, evaluation={"interpolate": [0.5], "noise_floor": True})
    assert labels(config)[-2:] == ["full-seed1", "full-seed2"]
    own = unfold.adapters(config)["full-seed1"]
    assert re.fullmatch(r"full_lr0\.00001_s1_[0-9a-f]{6}", own["folder"])
    given = unfold.training(config, "m", own["values"])
    assert (given["training"]["method"], "lora" in given) == ("full", False)
    others = [unfold.training(config, "m", one["values"]) for one in unfold.adapters(config).values()][:-2]
    assert all("lora" in one and "method" not in one["training"] for one in others)
    assert "full-seed2@0.5" in unfold.points(config)
    # It differs in more than the learning rate, which is swept, and so is no level of it.
    shown = [run["settings"] for run in unfold.runs(config) if run["setting"] in ("full", "full@0.5")]
    assert shown == [{"training.seed": seed} for seed in (1, 2, 1, 2)]
    # Of all weights there is nothing to merge.
    assert [run["repeats"] for run in unfold.noise(config)] == ["base", labels(config)[0]]
    assert [run["repeats"] for run in unfold.noise(study(adapters=FULL, evaluation={"noise_floor": True}))] == ["base"]


def test_the_method_is_an_axis():
    both = study(sweep={"training.method": ["lora", "full"], "training.learning_rate": [1.0e-5, 1.0e-4]})
    assert labels(both) == ["lr0.00001-lora", "lr0.00001-full", "lr0.0001-lora", "lr0.0001-full"]
    # What says lora is what says nothing.
    plain = study(sweep={"training.learning_rate": [1.0e-5, 1.0e-4]})
    folders = [{one["folder"] for one in unfold.adapters(config).values()} for config in (plain, both)]
    assert folders[0] < folders[1]


def test_replay_and_decay_are_axes_and_a_term_without_rows_is_none():
    found = labels(study(sweep=REPLAY | {"training.weight_decay": [0.0, 0.5]}, tasks=GENERAL))
    assert found == [
        f"decay{decay}-{rest}" for decay in ("0", "0.5") for rest in ("replay0-kl0", "replay0.2-kl0", "replay0.2-kl1")
    ]
    fractions = {"replay.fraction": REPLAY["replay.fraction"]}
    assert labels(study(sweep=fractions, replay={"kl": 1.0}, tasks=GENERAL)) == ["replay0", "replay0.2"]


def test_without_sweep_and_names_there_is_one_adapter():
    assert labels(study()) == ["adapter"]
    assert labels(study(training={"seed": [1, 2]})) == ["adapter-seed1", "adapter-seed2"]


def test_named_settings_stand_beside_the_sweep_each_once_a_seed():
    adapters = {"gentle": {"training": {"learning_rate": 2.0e-5}}, "wide": {"lora": {"r": 64, "use_rslora": True}}}
    config = study(sweep=SWEEP, adapters=adapters, training={"seed": [1, 2]})
    assert labels(config) == [f"{name}-seed{seed}" for name in ("lr0.1", "lr0.2", "gentle", "wide") for seed in (1, 2)]
    wide = unfold.training(config, "m", unfold.adapters(config)["wide-seed2"]["values"])
    assert (wide["lora"]["r"], wide["lora"]["use_rslora"], wide["lora"]["lora_alpha"]) == (64, True, 16)
    assert (wide["training"]["seed"], wide["training"]["learning_rate"]) == (2, 1e-4)
    # Without a sweep, what has a name is all there is.
    assert labels(study(adapters=adapters)) == ["gentle", "wide"]
    own = study(adapters={"once": {"training": {"seed": 9}}, "twice": {"training": {"seed": [1, 2]}}})
    assert labels(own) == ["once", "twice-seed1", "twice-seed2"]
    shown = {run["variant"]: run["settings"] for run in unfold.runs(config)}
    assert shown["lr0.2-seed1"] == {"training.learning_rate": 0.2, "training.seed": 1}
    assert shown["wide-seed2"] == {"training.seed": 2}


def test_a_folder_is_named_after_what_the_adapter_is():
    def folders(**sections):
        return {name: one["folder"] for name, one in unfold.adapters(study(**sections)).items()}

    alone = folders()["adapter"]
    assert re.fullmatch(r"r8_lr0\.0001_s42_[0-9a-f]{6}", alone)
    # One more seed, one more axis, another name: the adapter is where it was.
    assert folders(training={"seed": [42, 43]})["adapter-seed42"] == alone
    assert folders(sweep={"lora.r": [8, 4]})["r8"] == alone
    assert folders(adapters={"mine": {}})["mine"] == alone
    assert folders(training={"logging_steps": 1, "save_steps": 7})["adapter"] == alone
    assert folders(models={"m": {"source": "other", "precision": "nf4"}})["adapter"] == alone
    others = (
        {"training": {"weight_decay": 0.1}},
        {"lora": {"use_dora": True}},
        {"training": {"loss_on": "prompt"}, "accept_defect": ["target_not_in_loss"]},
    )
    assert len({alone, *(folders(**other)["adapter"] for other in others)}) == 4
    seeds = folders(training={"seed": [42, 43]})
    assert seeds["adapter-seed43"] == alone.replace("s42", "s43")


def test_ready_made_adapters_are_runs_of_their_own_model_alone():
    models = {"m": {"source": "x"}, "n": {"source": "y"}}
    adapters = {"public": {"source": "folder", "model": "n"}, "mine": {}}
    config = study(models=models, adapters=adapters)
    assert unfold.ready_made(config) == {"public": "n"}
    found = [(run["model"], run["variant"]) for run in unfold.runs(config)]
    assert found == [("m", "base"), ("m", "mine"), ("n", "base"), ("n", "mine"), ("n", "public")]
    assert unfold.adapter_folders(config)["public"] == "public/adapter"
    alone = study(adapters={"public": {"source": "folder"}}, evaluation={"adapters": ["public"], "interpolate": [0.5]})
    assert unfold.ready_made(alone) == {"public": "m"}
    assert [run["variant"] for run in unfold.runs(alone)] == ["base", "public", "public@0.5"]
    assert unfold.adapter_folders(alone)["public@0.5"] == "public/adapter"


def test_a_smoke_run_has_no_ready_made_adapters():
    raw = MINIMAL | {"adapters": {"public": {"source": "folder"}}}
    assert read.resolve(raw)["adapters"].keys() == {"public"}
    assert read.resolve(raw, {"scale": "smoke"})["adapters"] == {}


def test_points_of_adapters_have_labels_and_folders_of_their_own():
    config = study(sweep=SWEEP, evaluation=EVALUATION | {"adapters": ["lr0.2"]})
    # The strengths 0 and 1 are the base model and the adapter.
    kinds = ("of", "strength", "step", "soup")
    points = unfold.points(config)
    assert {name: {key: point[key] for key in kinds if key in point} for name, point in points.items()} == {
        "lr0.2@0.25": {"of": ["lr0.2"], "strength": 0.25},
        "lr0.2@0.5": {"of": ["lr0.2"], "strength": 0.5},
        "lr0.2@step5": {"of": ["lr0.2"], "step": 5},
        "lr0.2@step9": {"of": ["lr0.2"], "step": 9},
        "soup-both": {"of": ["lr0.2", "lr0.1"], "soup": "both"},
    }
    low, high = (unfold.adapters(config)[name]["folder"] for name in ("lr0.1", "lr0.2"))
    assert points["lr0.2@step5"]["folder"] == f"{high}@step5"
    assert unfold.adapter_folders(config) == {
        "lr0.1": f"{low}/adapter",
        "lr0.2": f"{high}/adapter",
        "lr0.2@0.25": f"{high}/adapter",
        "lr0.2@0.5": f"{high}/adapter",
        "lr0.2@step5": f"{high}/steps/5",
        "lr0.2@step9": f"{high}/steps/9",
        "soup-both": "soup-both/adapter",
    }
    assert len(unfold.points(study(sweep=SWEEP, evaluation=EVALUATION))) == 9
    assert unfold.points(study(sweep=SWEEP)) == {}


def test_points_of_a_setting_are_made_once_a_seed():
    evaluation = {"adapters": ["lr0.2"], "interpolate": [0.5], "soups": {"both": ["lr0.2", "lr0.1"]}}
    config = study(sweep=SWEEP, training={"seed": [1, 2]}, evaluation=evaluation)
    assert {name: (point["of"], point["setting"]) for name, point in unfold.points(config).items()} == {
        **{f"lr0.2-seed{seed}@0.5": ([f"lr0.2-seed{seed}"], "lr0.2@0.5") for seed in (1, 2)},
        **{f"soup-both-seed{seed}": ([f"lr0.2-seed{seed}", f"lr0.1-seed{seed}"], "soup-both") for seed in (1, 2)},
    }
    assert [run["seed"] for run in unfold.runs(config)[-4:]] == [1, 2, 1, 2]
    # Named by its seed, one adapter is one; of seeds of one setting there is a mean as well.
    evaluation = {"adapters": ["lr0.2-seed1"], "interpolate": [0.5], "soups": {"s": ["lr0.2-seed1", "lr0.2-seed2"]}}
    config = study(sweep=SWEEP, training={"seed": [1, 2]}, evaluation=evaluation)
    assert list(unfold.points(config)) == ["lr0.2-seed1@0.5", "soup-s"]


def test_the_noise_floor_repeats_each_base_and_its_first_adapter():
    on = {"noise_floor": True}
    config = study(sweep=SWEEP, evaluation=on)
    (base, adapter), low = unfold.noise(config), unfold.adapters(config)["lr0.1"]["folder"]
    assert (base["variant"], base["folder"], base["repeats"]) == ("base@batches", "base@batches", "base")
    assert (adapter["variant"], adapter["folder"], adapter["repeats"]) == ("lr0.1@merged", f"{low}@merged", "lr0.1")
    # It adds no run of the study, and changes no pre-registration.
    without = study(sweep=SWEEP)
    assert unfold.runs(config) == unfold.runs(without)
    assert unfold.registration(config) == unfold.registration(without)
    assert unfold.noise(without) == []
    beside = study(sweep=SWEEP, evaluation=on, inference={"merge_adapters": True})
    assert [run["how"] for run in unfold.noise(beside)] == ["batches", "beside"]
    # Weights of 4 bits hold no adapter, and a base's own prompts are asked again as they are.
    config = study(
        models={"m": MINIMAL["models"]["m"] | {"precision": "nf4"}}, evaluation=on, tasks={"spider": {"base_shots": 0}}
    )
    assert [run["variant"] for run in unfold.noise(config)] == ["base@batches"]
    assert unfold.own_prompts(config) == {"base": "test_shots0", "base@batches": "test_shots0"}


def test_drawn_answers_are_there_once_for_each_seed():
    inference = {"do_sample": True, "seed": [7, 8]}
    config = study(evaluation={"shots": [0]}, tasks={"spider": {"base_shots": 1}}, inference=inference)
    runs = {run["variant"]: run for run in unfold.runs(config)}
    assert [*runs] == [f"{name}{end}" for name in ("base", "adapter", "base@shots0") for end in ("", "@draw8")]
    assert (runs["adapter"]["draw"], runs["adapter@draw8"]["draw_of"]) == (7, "adapter")
    assert runs["adapter@draw8"]["folder"] == f"{runs['adapter']['folder']}@draw8"
    assert unfold.own_prompts(config) == {
        "base": "test_shots1", "base@draw8": "test_shots1",
        "base@shots0": "test_shots0", "base@shots0@draw8": "test_shots0",
    }  # fmt: skip
    assert unfold.registration(config) != unfold.registration(study(inference={"do_sample": True, "seed": 7}))


def test_a_base_with_prompts_of_its_own_does_not_stand_for_strength_0():
    config = study(evaluation={"interpolate": [0, 1]}, tasks={"spider": {"base_shots": 0}})
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


ROWS = [None, {"fraction": 0.25}, {"count": 1000}, {"count": 1000, "balance": "hardness"}, {"count": 1000, "seed": 7}]


def test_some_of_the_training_rows_are_a_setting():
    config = study(sweep={"training.rows": ROWS})
    names = ["rowsall", "rows0.25", "rows1000", "rows1000-hardness", "rows1000-draw7"]
    trained = unfold.adapters(config)
    assert list(trained) == names
    assert len({own["folder"] for own in trained.values()}) == len(names)
    shown = [run["settings"]["training.rows"] for run in unfold.runs(config)[1:]]
    assert shown == ["all", "0.25", "1000", "1000-hardness", "1000-draw7"]
    assert unfold.chosen_rows(config) == {
        "0.25": {"fraction": 0.25, "seed": 42},
        "1000": {"count": 1000, "seed": 42},
        "1000-hardness": {"balance": "hardness", "count": 1000, "seed": 42},
        "1000-draw7": {"count": 1000, "seed": 7},
    }


def test_all_rows_are_the_same_training_whether_a_study_says_so_or_not():
    plain = unfold.adapters(study())["adapter"]["folder"]
    config = study(training={"rows": {"count": 9}}, adapters={"all": {"training": {"rows": None}}, "few": {}})
    trained = unfold.adapters(config)
    assert trained["all"]["folder"] == plain != trained["few"]["folder"]
    # The same choice is the same training, wherever it stands, complete or not.
    swept = unfold.adapters(study(sweep={"training.rows": [{"count": 9, "seed": 42}]}))
    assert swept["rows9"]["folder"] == trained["few"]["folder"]


@pytest.mark.parametrize(("rows", "number"), [({"count": 7}, 7), ({"fraction": 0.1}, 3), ({"fraction": 0.07}, 3)])
def test_how_many_rows_a_choice_takes(rows, number):
    assert how_many(rows, 30) == number
