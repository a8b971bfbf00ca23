"""The study's configuration: defaults, canonical form, the sentences of refusal, adapters and their names."""

import copy
import json
from pathlib import Path

import pytest
import yaml

import _config
from _files import UserError

REPO = Path(__file__).parents[2]
SCHEMA = _config.read_schema(REPO / "rules" / "config.schema.yaml")
MINIMAL = {"study": "s", "models": {"m": {"source": "folder"}}, "mmlu": {"source": "folder"}}


def study(**sections: dict) -> dict:
    """Return the minimal study with these sections, checked."""
    return _config.check(copy.deepcopy(MINIMAL) | sections, SCHEMA)


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
        ({"study": "../x"}, "study: found '../x', expected the name of the study"),
        ({"study": "Demo"}, "study: found 'Demo', expected the name of the study"),
        ({"study": ".."}, "study: found '..', expected the name of the study"),
        ({"study": "x\n"}, "study: found 'x\\n', expected the name of the study"),
        ({"study": 3}, "study: found 3 (a whole number), expected text."),
        ({"models": {"a/b": {"source": "x"}}}, "models.a/b: found 'a/b', expected a model's name"),
        ({"models": {"m": {}}}, "models.m.source: missing."),
        ({"spider": {"sha256": "abc"}}, "spider.sha256: found 'abc', expected the archive's SHA-256 in 64"),
    ],
)
def test_a_mistake_gets_one_sentence_with_its_key(sections, message):
    text = refusal(**sections)
    assert text.startswith(f"config.yaml, {message}")
    assert "\n" not in text


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
    text = {"prompt": {"spider_system": "Answer: {x}", "mmlu_system": "[A-D]"}, "models": {"m": {"revision": "*"}}}
    assert _config.retype(text) == text
    assert _config.retype({"training": {"learning_rate": "1e-4"}}) == {"training": {"learning_rate": "1e-4"}}


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


def test_settings_are_plain_sorted_values():
    settings = _config.settings(study())
    assert json.loads(json.dumps(settings)) == settings
    assert json.dumps(settings) == json.dumps(settings, sort_keys=True)


TO_TRAINING = ("fetch_spider", "fetch_model", "prepare_spider", "audit_labels", "train")


@pytest.mark.parametrize(
    "sections",
    [
        {"tables": {"confidence_level": 0.9}},
        {"scoring": {"timeout_s": 1}},
        {"inference": {"batch_size": 1, "spider_max_new_tokens": 1, "mmlu_max_new_tokens": 1}},
        {"spider": {"dev_questions": 1, "exclude_databases": ["a"]}},
        {"mmlu": {"source": "other", "shots": 0, "seed": 1}},
        {"prompt": {"mmlu_system": "other"}},
    ],
)
def test_no_evaluation_setting_reaches_training(sections):
    before, after = _config.settings(study()), _config.settings(study(**sections))
    assert before != after
    assert {rule: before[rule] for rule in TO_TRAINING} == {rule: after[rule] for rule in TO_TRAINING}
    assert before["render_spider"]["train"] == after["render_spider"]["train"]
