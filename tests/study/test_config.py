"""The study's configuration: defaults, canonical form, the sentences of refusal, adapters and their names."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from common.files import UserError
from study import config as _config

REPO = Path(__file__).parents[2]
SCHEMA = _config.read_schema(REPO / "rules" / "config.schema.yaml")
MINIMAL = {"study": "s", "models": {"m": {"source": "folder"}}, "mmlu": {"source": "folder"}}


def study(**sections: dict) -> dict:
    """Return the minimal study with these sections, checked."""
    return _config.check(copy.deepcopy(MINIMAL) | sections, SCHEMA)


def unfold(smoke: dict | None = None, **values) -> dict:
    return _config.unfold(copy.deepcopy(MINIMAL) | values, smoke or {}, "my.yaml")


def refusal(**sections: dict) -> str:
    with pytest.raises(UserError) as caught:
        study(**sections)
    return str(caught.value)


def described(schema: dict, place: str = "") -> list[tuple[str, dict]]:
    found = []
    for key, child in schema.get("properties", {}).items():
        found += [(f"{place}{key}", child), *described(child, f"{place}{key}.")]
    other = schema.get("additionalProperties")
    if isinstance(other, dict):
        found += [(f"{place}*", other), *described(other, f"{place}*.")]
    return found


@pytest.mark.parametrize(("place", "key"), described(SCHEMA))
def test_every_key_has_type_description_and_default(place, key):
    assert key["type"]
    assert key["description"]
    if not place.endswith("*") and place not in ("study", "models", "models.*.source", "mmlu", "mmlu.source"):
        assert "default" in key
    if key["type"] == "object":
        assert "additionalProperties" in key


@pytest.mark.parametrize(
    "path", [REPO / "config.yaml", *sorted((REPO / "studies").glob("*.yaml"))], ids=lambda p: p.stem
)
def test_the_studies_of_the_repository_are_valid(path):
    config = _config.check(yaml.safe_load(path.read_text(encoding="utf-8")), SCHEMA, path.name)
    assert len(_config.variants(config)) > 1
    if path.name != "config.yaml":
        assert config["study"] == path.stem


def test_config_yaml_shows_every_key():
    def keys(value):
        return {key: keys(child) for key, child in value.items()} if isinstance(value, dict) else None

    shown = yaml.safe_load((REPO / "config.yaml").read_text(encoding="utf-8"))
    assert keys(_config.check(shown, SCHEMA)) == keys(dict(sorted((k, v) for k, v in shown.items())))


def test_the_full_demo_differs_from_the_demo_in_its_points_alone():
    def read(path):
        config = _config.check(yaml.safe_load((REPO / path).read_text(encoding="utf-8")), SCHEMA)
        kept = config["training"].pop("kept_steps"), config.pop("evaluation"), config.pop("study")
        return config, kept

    demo, full = read("config.yaml"), read("studies/demo-full.yaml")
    assert demo[0] == full[0]
    assert len(full[1][0]) == 3
    assert demo[1][0] == []


def test_defaults_are_the_official_data():
    config = study()
    assert config["spider"]["counts"] == {"train_spider": 7000, "train_others": 1659, "dev": 1034}
    assert config["mmlu"]["subjects"] == 57
    assert config["models"]["m"] == {
        "gated": False,
        "parameters": None,
        "precision": "bf16",
        "revision": None,
        "source": "folder",
        "vocabulary": None,
    }


def test_equal_studies_are_equal_values():
    one = study(
        training={"learning_rate": [0.0002, 1], "num_train_epochs": 2},
        lora={"r": 8.0, "target_modules": ["v_proj", "q_proj"]},
        spider={"validation": {"fraction": 0.1, "by": "rows"}, "shots": 3.0},
    )
    other = study(
        spider={"shots": 3, "validation": {"by": "rows", "fraction": 0.1}},
        lora={"target_modules": ["q_proj", "v_proj"], "r": 8},
        training={"num_train_epochs": 2.0, "learning_rate": [2.0e-4, 1.0]},
    )
    # Snakemake compares representations, which show the order of keys and the types of numbers.
    assert repr(one) == repr(other)
    assert repr(_config.settings(one)) == repr(_config.settings(other))
    assert isinstance(one["training"]["num_train_epochs"], float)
    assert isinstance(one["lora"]["r"], int)


def test_check_does_not_change_its_argument():
    given = copy.deepcopy(MINIMAL)
    _config.check(given, SCHEMA)
    assert given == MINIMAL


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"training": {"learning_rte": 0.1}},
            "training.learning_rte: no such key. Did you mean training.learning_rate?",
        ),
        ({"trainig": {}}, "trainig: no such key. Did you mean training?"),
        ({"learning_rate": 0.1}, "learning_rate: no such key. Did you mean training.learning_rate?"),
        ({"scoring": {"xyz": 1}}, "scoring.xyz: no such key. Keys here: timeout_s."),
        ({"tables": {3: 1}}, "tables.3: no such key. Keys here: confidence_level, semantics."),
        (
            {"training": {"learning_rate": "1e-4"}},
            "training.learning_rate: '1e-4' is text in YAML 1.1; write 1.0e-4 or 0.0001.",
        ),
        (
            {"training": {"learning_rate": [0.1, "5E-5"]}},
            "training.learning_rate[1]: '5E-5' is text in YAML 1.1; write 5.0e-5 or 0.00005.",
        ),
        (
            {"training": {"warmup_steps": "2.5e3"}},
            "training.warmup_steps: '2.5e3' is text in YAML 1.1; write 2.5e+3 or 2500.",
        ),
        ({"training": {"max_steps": "100"}}, "training.max_steps: '100' is text; write 100 without quotes."),
        (
            {"training": {"max_steps": "many"}},
            "training.max_steps: found 'many' (text), expected a whole number or a list.",
        ),
        (
            {"training": {"max_steps": 1.5}},
            "training.max_steps: found 1.5 (a number), expected a whole number or a list.",
        ),
        (
            {"training": {"gradient_checkpointing": 1}},
            "training.gradient_checkpointing: found 1 (a whole number), expected true or false.",
        ),
        (
            {"training": {"seed": True}},
            "training.seed: found True (true or false), expected a whole number or a list.",
        ),
        (
            {"training": {"optim": None}},
            "training.optim: found null, expected text. Write a value, or leave the key out for its default.",
        ),
        ({"training": None}, "training: found null, expected a mapping."),
        ({"training": {"learning_rate": []}}, "training.learning_rate: found nothing in it, expected at least 1."),
        ({"models": {}}, "models: found nothing in it, expected at least 1."),
        (
            {"training": {"learning_rate": [0.0002, 2.0e-4]}},
            "training.learning_rate: a value stands twice in [0.0002, 0.0002]. Remove one.",
        ),
        ({"lora": {"r": [8, 8.0]}}, "lora.r: a value stands twice in [8, 8]. Remove one."),
        (
            {"lora": {"target_modules": [["a", "b"], ["b", "a"]]}},
            "lora.target_modules: a value stands twice in [['a', 'b'], ['a', 'b']]. Remove one.",
        ),
        ({"lora": {"target_modules": ["a", ["b"]]}}, "lora.target_modules: found ['a', ['b']], expected one list of"),
        ({"lora": {"r": 0}}, "lora.r: found 0, expected at least 1."),
        ({"lora": {"lora_dropout": [0.1, 1.0]}}, "lora.lora_dropout[1]: found 1.0, expected less than 1."),
        (
            {"prompt": {"schema": "dll"}},
            "prompt.schema: found 'dll', expected one of compact, pipe, ddl, ddl_rows, none. Did you mean ddl?",
        ),
        (
            {"training": {"eval_strategy": False}},
            "training.eval_strategy: found False (YAML 1.1 reads yes, no, on and off as true or false), expected text. "
            "Put it in quotes.",
        ),
        ({"training": {"save_total_limit": 1}}, "training.save_total_limit: found 1, expected at least 2."),
        (
            {"accept_defect": ["truncate"]},
            "accept_defect[0]: found 'truncate', expected one of dev_used_to_choose, target_not_in_loss, truncated. "
            "Did you mean truncated?",
        ),
        (
            {"spider": {"validation": {"questions": 0}}},
            "spider.validation.questions: found 0, expected at least 1.",
        ),
        ({"study": "../x"}, "study: found '../x', expected the name of the study"),
        ({"study": "Demo"}, "study: found 'Demo', expected the name of the study"),
        ({"study": ".."}, "study: found '..', expected the name of the study"),
        ({"study": "x\n"}, "study: found 'x\\n', expected the name of the study"),
        ({"study": 3}, "study: found 3 (a whole number), expected text."),
        (
            {"models": {"m": {"source": "x", "precision": "nf4"}}, "inference": {"merge_adapters": True}},
            "inference.merge_adapters: found true, but models.m.precision is nf4",
        ),
        ({"models": {"a/b": {"source": "x"}}}, "models.a/b: found 'a/b', expected a model's name"),
        ({"models": {"m": {}}}, "models.m.source: missing."),
        ({"evaluation": {"strengths": [-0.5]}}, "evaluation.strengths[0]: found -0.5, expected at least 0."),
        ({"evaluation": {"steps": [0]}}, "evaluation.steps[0]: found 0, expected at least 1."),
        ({"evaluation": {"soups": {"a/b": []}}}, "evaluation.soups.a/b: found 'a/b', expected lower-case letters"),
        ({"spider": {"sha256": "abc"}}, "spider.sha256: found 'abc', expected the archive's SHA-256 in 64"),
    ],
)
def test_a_mistake_gets_one_sentence_with_its_key(sections, message):
    text = refusal(**sections)
    assert text.startswith(f"config.yaml, {message}")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"training": {"eval_strategy": "steps"}, "spider": {"validation": {"by": "none"}}},
            "training.eval_strategy: found steps, but spider.validation.by is none",
        ),
        ({"spider": {"validation": {"by": "dev"}}}, "spider.validation.by: found dev, the questions of the evaluation"),
        (
            {"training": {"load_best_model_at_end": True}},
            'training.load_best_model_at_end: found true, but eval_strategy is "no".',
        ),
        (
            {"training": {"early_stopping_patience": 2, "eval_strategy": "steps"}},
            "training.early_stopping_patience: found 2, but load_best_model_at_end is false.",
        ),
        (
            {
                "training": {
                    "load_best_model_at_end": True,
                    "eval_strategy": "steps",
                    "eval_steps": 20,
                    "save_steps": 50,
                }
            },
            "training.save_steps: found 50, expected a multiple of eval_steps = 20",
        ),
        ({"replay": {"fraction": 0.1}}, "replay.source: missing, but replay.fraction is 0.1"),
        ({"replay": {"source": "f.csv", "kl": 1.0}}, "replay.kl: found 1.0, but replay.fraction is 0.0: there are no"),
        (
            {"replay": {"source": "f.csv", "fraction": [0.0, 0.1], "kl": [1.0, 2.0]}},
            "replay.kl: found [1.0, 2.0], but a replay.fraction is 0: that adapter has no such term. Add 0.0",
        ),
        (
            {"evaluation": {"steps": [5]}, "training": {"kept_steps": [4]}},
            "evaluation.steps: found 5, but training.kept_steps is [4]: no adapter of that step is kept.",
        ),
        (
            {"evaluation": {"adapters": ["lr0.01"]}, "training": {"learning_rate": [0.1, 0.2]}},
            "evaluation.adapters: found lr0.01, expected adapters of this study, such as lr0.1.",
        ),
        (
            {"evaluation": {"soups": {"both": ["lr0.1", "base"]}}, "training": {"learning_rate": [0.1, 0.2]}},
            "evaluation.soups.both: found base, expected adapters of this study, such as lr0.1.",
        ),
        (
            {"evaluation": {"soups": {"one": ["lr0.1"]}}, "training": {"learning_rate": [0.1, 0.2]}},
            "evaluation.soups.one: found 1 adapters, expected at least 2 to average.",
        ),
        (
            {"models": {"m": {"source": "x", "precision": "nf4"}}, "recommend": {"merge": True}},
            "recommend.merge: found true, but models.m.precision is nf4, and 4-bit weights cannot hold",
        ),
        (
            {"mmlu": {"source": "x", "shots_from": "fixed"}},
            "mmlu.fixed_shots: found 0 rows, expected mmlu.shots = 4.",
        ),
        (
            {"mmlu": {"source": "x", "shots": 1, "fixed_shots": [{"subject": "s", "split": "dev", "index": 0}]}},
            "mmlu.fixed_shots: not used, since shots_from is own_dev.",
        ),
        (
            {
                "published": {
                    "model": "n",
                    "tables": [
                        {
                            "table": "I",
                            "measure": "mmlu",
                            "decimals": 1,
                            "n": {"all": 1},
                            "accuracy": {"base": {"all": 1}},
                        }
                    ],
                }
            },
            "published.model: found n, expected one of this study's models: m.",
        ),
        (
            {
                "published": {
                    "model": "m",
                    "tables": [
                        {
                            "table": "I",
                            "measure": "mmlu",
                            "decimals": 1,
                            "n": {"all": 1},
                            "accuracy": {"base": {"law": 1}},
                        }
                    ],
                }
            },
            "published.tables[0].accuracy.base.law: there is no such column in n, which has all.",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(sections, message):
    text = refusal(**sections)
    assert text.startswith(f"config.yaml, {message}")
    assert "\n" not in text


def test_a_face_is_merged_over_the_study_lists_in_place_of_lists():
    training = {"seed": 1, "learning_rate": [0.1, 0.2]}
    faces = {"as_reported": {"training": {"learning_rate": [0.3]}, "known_defects": ["a"]}}
    assert unfold(training=training, faces=faces)["training"] == training
    merged = unfold(training=training, faces=faces, face="as_reported")
    assert merged["training"] == {"seed": 1, "learning_rate": [0.3]}
    assert merged["known_defects"] == ["a"]
    # What a face says is checked like what the study says.
    faces["as_reported"]["training"]["sed"] = 1
    with pytest.raises(UserError, match=r"training.sed: no such key. Did you mean training.seed\?"):
        _config.check(unfold(faces=faces, face="as_reported"), SCHEMA)


def test_a_study_without_the_face_says_so():
    with pytest.raises(UserError, match=r"my.yaml, face: found as_reported, but faces.as_reported is not there"):
        unfold(face="as_reported")


def test_smoke_keeps_the_first_value_of_each_axis_and_the_names_of_adapters():
    smoke = {"models": {"*": {"source": "small"}}, "training": {"logging_steps": 1}}
    given = {
        "models": {"a": {"source": "x", "precision": "nf4"}, "b": {"source": "y"}},
        "training": {"learning_rate": [0.1, 0.2], "seed": 3},
        "lora": {"r": [4, 8], "target_modules": ["q_proj", "v_proj"]},
    }
    before = copy.deepcopy(given)
    config = _config.check(unfold(smoke, scale="smoke", **given), SCHEMA)
    assert given == before
    assert list(_config.variants(config)) == ["base", "lr0.1-r4"]
    assert config["lora"]["target_modules"] == ["q_proj", "v_proj"]
    assert {name: model["source"] for name, model in config["models"].items()} == {"a": "small", "b": "small"}
    assert config["models"]["a"]["precision"] == "nf4"
    assert config["training"]["logging_steps"] == 1
    assert unfold(smoke, **given)["models"] == given["models"]


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
    assert _config.label(config) == name
    settings = _config.settings(config)
    assert settings["tables"]["study"] == settings["report"]["study"] == settings["compare_published"]["study"] == name


def test_the_base_model_has_prompts_of_its_own_only_where_a_study_says_so():
    assert _config.own_prompts(study()) == {}
    config = study(prompt={"base_shots": 0})
    assert _config.own_prompts(config) == {"base": "dev_shots0"}
    rendered = _config.settings(config)["render_spider"]
    assert rendered["dev_shots0"] == rendered["dev"]
    assert "train_target" in rendered["train"]
    assert "train_target" not in rendered["dev"]


def test_all_mistakes_are_named_at_once():
    text = refusal(training={"learning_rate": "1e-4", "sed": 1}, lora={"r": None})
    assert [line.split(": ")[0] for line in text.splitlines()] == [
        "config.yaml, lora.r",
        "config.yaml, training.sed",
        "config.yaml, training.learning_rate",
    ]


def test_overrides_get_their_yaml_types():
    read = {
        "tables": {"confidence_level": "0.9"},
        "spider": {"sha256": "null"},
        "lora": {"r": ["4", "8"]},
    }
    assert _config.retype(read) == {
        "tables": {"confidence_level": 0.9},
        "spider": {"sha256": None},
        "lora": {"r": [4, 8]},
    }
    assert _config.retype({"training": {"eval_strategy": "no"}}) == {"training": {"eval_strategy": "no"}}
    text = {"prompt": {"spider_system": "Answer: {x}", "mmlu_system": "[A-D]"}, "models": {"m": {"revision": "*"}}}
    assert _config.retype(text) == text
    assert _config.retype({"training": {"learning_rate": "1e-4"}}) == {"training": {"learning_rate": "1e-4"}}


def test_overrides_choose_face_and_scale_and_hold_over_them():
    raw = copy.deepcopy(MINIMAL) | {
        "training": {"max_steps": 9},
        "faces": {"as_reported": {"training": {"max_steps": 5}, "lora": {"r": 2}}},
    }
    smoke = {"training": {"max_steps": 2, "save_steps": 1}}

    def resolve(overrides: dict) -> tuple:
        config = _config.resolve(raw, overrides, smoke, SCHEMA)
        return config["lora"]["r"], config["training"]["max_steps"], config["training"]["save_steps"]

    assert resolve({}) == (8, 9, 50)
    assert resolve({"face": "as_reported"}) == (2, 5, 50)
    assert resolve({"face": "as_reported", "scale": "smoke"}) == (2, 2, 1)
    assert resolve({"scale": "smoke", "training": {"max_steps": 7}}) == (8, 7, 1)


def test_adapters_are_named_by_their_swept_axes_in_a_fixed_order():
    config = study(
        training={"seed": [42], "learning_rate": [1.0e-4, 5.0e-5], "max_steps": 50, "num_train_epochs": [1, 0.5]},
        lora={"r": [8], "target_modules": [["v_proj", "q_proj"]], "lora_dropout": [0], "lora_alpha": [16]},
    )
    assert list(_config.variants(config)) == [
        "base",
        *(
            f"lr{rate}-r8-alpha16-dropout0-modulesq_proj+v_proj-epochs{epochs}-seed42"
            for rate in ("0.0001", "0.00005")
            for epochs in ("1", "0.5")
        ),
    ]


def test_steps_are_an_axis():
    assert list(_config.variants(study(training={"max_steps": [50, 200]}))) == ["base", "steps50", "steps200"]


REPLAY = {"source": "auxiliary_train", "fraction": [0.0, 0.2], "kl": [0.0, 1.0]}


def test_replay_and_decay_are_axes_and_a_term_without_rows_is_none():
    names = list(_config.variants(study(training={"seed": [1], "weight_decay": [0.0, 0.5]}, replay=REPLAY)))
    assert names == ["base"] + [
        f"seed1-decay{decay}-{rest}"
        for decay in ("0", "0.5")
        for rest in ("replay0-kl0", "replay0.2-kl0", "replay0.2-kl1")
    ]
    assert list(_config.variants(study(replay=REPLAY | {"kl": 1.0}))) == ["base", "replay0", "replay0.2"]


def test_a_training_without_replay_has_the_settings_of_a_study_without_it():
    plain = _config.settings(study())["train"]["m"]["adapter"]
    found = _config.settings(study(replay=REPLAY))["train"]["m"]
    assert found["replay0-kl0"] == plain
    assert found["replay0.2-kl1"] == plain | {"replay": {"fraction": 0.2, "kl": 1.0}}
    # Another source or number of rows is seen by its files.
    for replay in (REPLAY | {"source": "other.csv"}, REPLAY | {"questions": 7, "seed": 1}):
        assert _config.settings(study(replay=replay))["train"]["m"] == found


def test_of_mmlu_only_its_source_leads_to_replayed_rows():
    before, after = (
        _config.settings(study(mmlu={"source": "folder"} | mmlu, replay=REPLAY))
        for mmlu in ({}, {"shots": 1, "seed": 2})
    )
    for name in ("fetch_replay", "prepare_replay", "render_replay", "audit_replay", "train"):
        assert before[name] == after[name]
    assert "mmlu" not in _config.settings(study(replay=REPLAY | {"source": "file.csv"}))["fetch_replay"]


def test_a_smoke_run_replays():
    given = MINIMAL | {"replay": REPLAY | {"kl": 1.0}}
    assert list(_config.variants(_config.check(unfold(scale="smoke", **given), SCHEMA))) == ["base", "replay0.2"]


def test_without_a_swept_axis_there_is_one_adapter():
    assert _config.variants(study()) == {"base": {}, "adapter": {}}


def test_each_adapter_is_trained_with_its_own_values():
    settings = _config.settings(study(training={"learning_rate": [0.1, 0.2]}, lora={"r": [4]}))
    assert list(settings["train"]["m"]) == ["lr0.1-r4", "lr0.2-r4"]
    one = settings["train"]["m"]["lr0.2-r4"]
    assert (one["training"]["learning_rate"], one["lora"]["r"], one["precision"]) == (0.2, 4, "bf16")
    assert settings["tables"]["runs"] == [
        {"model": "m", "settings": {}, "variant": "base"},
        {"model": "m", "settings": {"lora.r": 4, "training.learning_rate": 0.1}, "variant": "lr0.1-r4"},
        {"model": "m", "settings": {"lora.r": 4, "training.learning_rate": 0.2}, "variant": "lr0.2-r4"},
    ]


EVALUATION = {"strengths": [1, 0.5, 0, 0.25], "steps": [9, 5], "soups": {"both": ["lr0.2", "lr0.1"]}}
SWEPT = {"learning_rate": [0.1, 0.2], "kept_steps": [5, 9, 20]}


def test_points_of_adapters_have_variants_of_their_own():
    config = study(training=SWEPT, evaluation=EVALUATION | {"adapters": ["lr0.2"]})
    # The strengths 0 and 1 are the base model and the adapter.
    assert _config.points(config) == {
        "lr0.2@0.25": {"of": ["lr0.2"], "strength": 0.25},
        "lr0.2@0.5": {"of": ["lr0.2"], "strength": 0.5},
        "lr0.2@step5": {"of": ["lr0.2"], "step": 5},
        "lr0.2@step9": {"of": ["lr0.2"], "step": 9},
        "soup-both": {"of": ["lr0.2", "lr0.1"], "soup": "both"},
    }
    assert _config.adapter_folders(config) == {
        "lr0.1": "lr0.1/adapter",
        "lr0.2": "lr0.2/adapter",
        "lr0.2@0.25": "lr0.2/adapter",
        "lr0.2@0.5": "lr0.2/adapter",
        "lr0.2@step5": "lr0.2/steps/5",
        "lr0.2@step9": "lr0.2/steps/9",
        "soup-both": "soup-both/adapter",
    }
    assert len(_config.points(study(training=SWEPT, evaluation=EVALUATION))) == 9
    assert _config.points(study(training=SWEPT)) == {}


def test_a_base_with_prompts_of_its_own_does_not_stand_for_strength_0():
    config = study(evaluation={"strengths": [0, 1]}, prompt={"base_shots": 0})
    assert list(_config.points(config)) == ["adapter@0"]


def test_other_numbers_of_examples_are_points_of_the_base():
    evaluation = EVALUATION | {"shots": [5, 0, 2]}
    config = study(training=SWEPT, evaluation=evaluation, spider={"shots": 2})
    assert dict(list(_config.points(config).items())[:2]) == {
        "base@shots0": {"of": ["base"], "shots": 0},
        "base@shots5": {"of": ["base"], "shots": 5},
    }
    assert _config.own_prompts(config) == {"base@shots0": "dev_shots0", "base@shots5": "dev_shots5"}
    before = _config.settings(study(training=SWEPT, evaluation=EVALUATION, spider={"shots": 2}))
    after = _config.settings(config)
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
    assert _config.own_prompts(own) == {"base@shots2": "dev_shots2", "base": "dev_shots0"}


def test_a_point_more_changes_no_other_answer_and_no_training():
    before = _config.settings(study(training=SWEPT))
    after = _config.settings(study(training=SWEPT, evaluation=EVALUATION))
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
    assert _config.settings(study(training=SWEPT)) == _config.settings(study(training=SWEPT | {"kept_steps": []}))


def test_a_smoke_run_has_the_strengths_alone():
    config = unfold(training=SWEPT, evaluation=EVALUATION | {"adapters": ["lr0.2"]}, scale="smoke")
    assert config["evaluation"] == {"strengths": EVALUATION["strengths"]}
    assert "kept_steps" not in config["training"]


def test_the_official_categories_have_a_name():
    config = study(mmlu={"source": "folder", "categories": "official"})
    categories = config["mmlu"]["categories"]
    assert {name: len(subjects) for name, subjects in categories.items()} == {
        "humanities": 13, "other": 14, "social_sciences": 12, "stem": 18
    }  # fmt: skip
    assert len({subject for subjects in categories.values() for subject in subjects}) == 57
    # Named or written out, it is the same study.
    assert config == study(mmlu={"source": "folder", "categories": categories})
    assert "found official, all 57 subjects" in refusal(
        mmlu={"source": "folder", "categories": "official", "subjects": 3}
    )
    assert "mmlu.categories: found 'oficial', expected" in refusal(mmlu={"source": "folder", "categories": "oficial"})


def test_settings_are_plain_sorted_values():
    settings = _config.settings(study())
    assert json.loads(json.dumps(settings)) == settings
    assert json.dumps(settings) == json.dumps(settings, sort_keys=True)


def test_what_only_the_list_of_studies_shows_reaches_no_job():
    model = {"source": "folder", "gated": True, "parameters": 8, "vocabulary": 9}
    assert _config.settings(study(models={"m": model})) == _config.settings(study())


def test_a_recommendation_changes_its_own_rules_alone():
    before, after = (_config.settings(study(recommend=section)) for section in (None, {"max_loss_pp": 2}))
    assert {rule for rule in after if after[rule] != before[rule]} == {"recommend", "export_recommended"}
    merged = _config.settings(study(recommend={"max_loss_pp": 2, "merge": True}))
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
    before, after = _config.settings(study()), _config.settings(study(**sections))
    assert before != after
    assert {rule: before[rule] for rule in TO_TRAINING} == {rule: after[rule] for rule in TO_TRAINING}
    assert before["render_spider"]["train"] == after["render_spider"]["train"]
