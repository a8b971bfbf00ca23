"""From YAML to a checked study: protocols, scales, the command line, defaults and canonical form."""

import copy
from pathlib import Path

import pytest

from _config import EVALUATION, GENERAL, MINIMAL, SWEEP, minimal, refusal, study
from _rules import settings
from common.files import UserError
from study import read, unfold
from tasks.mmlu import grouped

REPO = Path(__file__).parents[2]


def overlay(smoke: dict | None = None, **values) -> dict:
    return read.overlay(copy.deepcopy(MINIMAL) | values, smoke or {}, "my.yaml")


@pytest.mark.parametrize(
    "path", [REPO / "config.yaml", *sorted((REPO / "studies").glob("*.yaml"))], ids=lambda p: p.stem
)
def test_the_studies_of_the_repository_are_valid(path):
    config = read.check(read.read_yaml(path), path.name)
    assert unfold.adapters(config) or unfold.imported(config)
    if path.name != "config.yaml":
        assert config["study"] == path.stem


LAUGHS = b"a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b", ".join([b"*%c" % (97 + n)] * 9)) for n in range(8)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a:\n  b: 1\nc: 2\na: 3\n", "line 4: a stands in line 1 already. Remove one, or put both together."),
        (b"a:\n  b: 1\n  c: {d: 1, e: 2, d: 3}\n", "line 3: a.c.d stands in line 3 already."),
        (b"a:\n- b: 1\n- b: 1\n  b: 2\n", r"line 4: a\[1\].b stands in line 3 already."),
        (b"a: 1\na: 2\nb: 1\nb: 2\n", "line 4: b stands in line 3 already."),
        ("study: caf\u00e9\n".encode("latin-1"), r"line 1: not UTF-8 \(byte 0xe9\). Save the file as UTF-8."),
        (b"a: [\n", ": not YAML"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, ": not YAML"),
        (b"a: 2020-13-45\n", r": not YAML \(month must be in 1..12\)"),
        (b"a: " + b"9" * 5000, ": not YAML"),
        (b"a: !!timestamp x\n", ": not YAML"),
        # Nine nines of values, in two hundred bytes; a value that holds itself.
        (LAUGHS, "make more than 100,000 values, expected fewer. Write"),
        (b"a: &a [*a]\n", "make more than 100,000 values, expected fewer. Write"),
        (b"- a\n", "found no keys"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_no_study(tmp_path, content, message):
    path = tmp_path / "study.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read.read_yaml(path)
    assert all(line.startswith(str(path)) for line in str(caught.value).splitlines() if "stands" in line)


def test_a_folder_in_place_of_a_study(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)\. Give the path of a study"):
        read.read_yaml(tmp_path)


def test_the_same_key_in_several_sections_and_a_merge_are_no_mistake(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("a: &a {b: 1}\nc: {<<: *a, d: 2}\ne: {<<: *a, <<: *a}\n")
    assert read.read_yaml(path)["c"] == {"b": 1, "d": 2}


def test_the_full_demo_differs_from_the_demo_in_its_points_alone():
    def parts(path):
        config = read.check(read.read_yaml(REPO / path))
        # What stands beside the values to sweep is used by nothing.
        del config["training"]["learning_rate"]
        kept = config.pop("evaluation"), config.pop("study")
        return config, kept

    demo, full = parts("config.yaml"), parts("studies/demo-full.yaml")
    assert demo[0] == full[0]
    assert len(full[1][0]["checkpoints"]) == 3
    assert demo[1][0]["checkpoints"] == []


def test_defaults_are_the_official_data():
    config = study()
    assert config["tasks"]["spider"]["counts"] == {"train_spider": 7000, "train_others": 1659, "dev": 1034}
    assert config["tasks"]["mmlu"]["subjects"] == 57
    assert config["models"]["m"] == {
        "gated": False,
        "parameters": None,
        "precision": "bf16",
        "quantization": {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        "revision": None,
        "source": "folder",
        "thinking": False,
        "thinking_tokens": 1024,
        "vocabulary": None,
    }


def test_equal_studies_are_equal_values():
    one = study(
        training={"num_train_epochs": 2},
        sweep={"training.learning_rate": [0.0002, 1], "lora.r": [4.0]},
        lora={"r": 8.0, "target_modules": ["v_proj", "q_proj"]},
        tasks={"spider": {"validation": {"fraction": 0.1, "by": "rows"}, "shots": 3.0}},
    )
    other = study(
        tasks={"mmlu": {"source": "folder"}, "spider": {"shots": 3, "validation": {"by": "rows", "fraction": 0.1}}},
        lora={"target_modules": ["q_proj", "v_proj"], "r": 8},
        training={"num_train_epochs": 2.0},
        sweep={"lora.r": [4], "training.learning_rate": [2.0e-4, 1.0]},
    )
    # Snakemake compares representations, which show the order of keys and the types of numbers.
    assert repr(one) == repr(other)
    assert repr(settings(one)) == repr(settings(other))
    assert isinstance(one["training"]["num_train_epochs"], float)
    assert isinstance(one["lora"]["r"], int)


def test_check_does_not_change_its_argument():
    given = copy.deepcopy(MINIMAL)
    read.check(given)
    assert given == MINIMAL


def test_a_face_is_merged_over_the_study_lists_in_place_of_lists():
    given = {"training": {"seed": 1}, "sweep": {"training.learning_rate": [0.1, 0.2], "lora.r": [4]}}
    above = {"sweep": {"training.learning_rate": [0.3]}, "training": {"max_steps": 5}, "known_defects": ["a"]}
    protocols = {"as_reported": above}
    assert overlay(**given, protocols=protocols)["sweep"] == given["sweep"]
    merged = overlay(**given, protocols=protocols, protocol="as_reported")
    assert merged["training"] == {"seed": 1, "max_steps": 5}
    assert merged["sweep"] == {"training.learning_rate": [0.3], "lora.r": [4]}
    assert merged["known_defects"] == ["a"]
    # What a protocol says is checked like what the study says.
    protocols["as_reported"]["training"]["sed"] = 1
    with pytest.raises(UserError, match=r"training.sed: no such key. Did you mean training.seed\?"):
        read.check(overlay(protocols=protocols, protocol="as_reported"))


def test_a_study_without_the_face_says_so():
    with pytest.raises(
        UserError, match=r"my.yaml, protocol: found as_reported, but protocols.as_reported is not there"
    ):
        overlay(protocol="as_reported")


def test_smoke_keeps_the_first_value_of_each_axis_and_the_names_of_adapters():
    smoke = {"models": {"*": {"source": "small"}}, "training": {"logging_steps": 1}}
    given = {
        "models": {"a": {"source": "x", "precision": "nf4"}, "b": {"source": "y"}},
        "training": {"seed": [3, 4]},
        "lora": {"target_modules": ["q_proj", "v_proj"]},
        "sweep": {"training.learning_rate": [0.1, 0.2], "lora.r": [4, 8], "tasks.spider.train_questions": [10, 20]},
        "adapters": {"mine": {"lora": {"r": 2}}, "public": {"source": "folder"}},
    }
    before = copy.deepcopy(given)
    config = read.check(overlay(smoke, scale="smoke", **given))
    assert given == before
    assert list(unfold.adapters(config)) == ["lr0.1-r4-seed3", "mine-seed3"]
    assert config["lora"]["target_modules"] == ["q_proj", "v_proj"]
    assert {name: model["source"] for name, model in config["models"].items()} == {"a": "small", "b": "small"}
    assert config["models"]["a"]["precision"] == "nf4"
    assert config["training"]["logging_steps"] == 1
    assert overlay(smoke, **given)["models"] == given["models"]


def test_overrides_get_their_yaml_types():
    given = {
        "tables": {"confidence_level": "0.9"},
        "tasks": {"spider": {"sha256": "null"}},
        "lora": {"r": ["4", "8"]},
    }
    assert read.retype(given) == {
        "tables": {"confidence_level": 0.9},
        "tasks": {"spider": {"sha256": None}},
        "lora": {"r": [4, 8]},
    }
    assert read.retype({"training": {"eval_strategy": "no"}}) == {"training": {"eval_strategy": "no"}}
    text = {
        "tasks": {"spider": {"system": "Answer: {x}"}, "mmlu": {"system": "[A-D]"}},
        "models": {"m": {"revision": "*"}},
    }
    assert read.retype(text) == text
    assert read.retype({"training": {"learning_rate": "1e-4"}}) == {"training": {"learning_rate": "1e-4"}}


@pytest.mark.parametrize("word", ["scale", "training.learning_rate=1", "1=2", "=1"])
def test_words_of_config_that_are_no_key_and_value(word):
    with pytest.raises(UserError, match=rf"^--config: found {word}, expected KEY=VALUE"):
        read.overrides_of([word])


def test_overrides_choose_protocol_and_scale_and_hold_over_them():
    raw = copy.deepcopy(MINIMAL) | {
        "training": {"max_steps": 9},
        "protocols": {"as_reported": {"training": {"max_steps": 5}, "lora": {"r": 2}}},
    }
    smoke = {"training": {"max_steps": 2, "save_steps": 1}}

    def resolve(overrides: dict) -> tuple:
        config = read.resolve(raw, overrides, smoke=smoke)
        return config["lora"]["r"], config["training"]["max_steps"], config["training"]["save_steps"]

    assert resolve({}) == (8, 9, 50)
    assert resolve({"protocol": "as_reported"}) == (2, 5, 50)
    assert resolve({"protocol": "as_reported", "scale": "smoke"}) == (2, 2, 1)
    assert resolve({"scale": "smoke", "training": {"max_steps": 7}}) == (8, 7, 1)


def test_a_smoke_run_replays():
    given = minimal(sweep={"replay.fraction": [0.0, 0.2]}, replay={"kl": 1.0}, tasks=GENERAL)
    assert list(unfold.adapters(read.check(overlay(scale="smoke", **given)))) == ["replay0.2"]


def test_a_smoke_run_trains_on_all_of_its_few_rows():
    few, some = {"rows": {"count": 500}}, {"rows": {"fraction": 0.5}}
    given = minimal(adapters={"few": {"training": few}, "some": {"training": some}}, training={"rows": {"count": 9}})
    config = read.resolve(given | {"scale": "smoke"})
    assert "rows" not in config["training"]
    # What differed in nothing else is one training.
    assert list(unfold.settings(config)) == ["adapter"]
    two = {"few": {"training": few}, "also": {"training": few | {"weight_decay": 0.1}}}
    again = {"more": {"training": some | {"weight_decay": 0.1}}, "rank": {"lora": {"r": 4}}}
    config = read.resolve(minimal(adapters=two | again) | {"scale": "smoke"})
    assert list(unfold.settings(config)) == ["also", "rank"]
    swept = minimal(sweep={"training.rows": [None, {"count": 500}], "lora.r": [4, 8]})
    assert list(unfold.settings(read.resolve(swept | {"scale": "smoke"}))) == ["r4"]


def test_a_smoke_run_has_one_precision():
    given = minimal(models={"m": {"source": "x", "precision": "nf4", "base_precision": "bf16"}})
    assert read.resolve(given)["models"]["m"]["base_precision"] == "bf16"
    smoke = read.resolve(given | {"scale": "smoke"})["models"]["m"]
    assert (smoke["precision"], "base_precision" in smoke) == ("fp32", False)


def test_a_smoke_run_is_smaller_by_what_each_kind_of_task_says():
    tasks = {"queries": {"kind": "spider", "questions": 99, "validation": {"by": "rows"}}, "mmlu": {"source": "x"}}
    given = MINIMAL | {"tasks": tasks}
    found = read.resolve(given | {"scale": "smoke"})["tasks"]
    target = found["queries"]
    assert (target["questions"], target["train_questions"], target["max_new_tokens"]) == (8, 2, 16)
    # Beside the keys of the study.
    assert target["validation"] == {"by": "rows", "fraction": 0.1, "questions": 4}
    assert found["mmlu"]["questions_per_category"] == 1
    assert found["mmlu"]["max_new_tokens"] == 8
    # What the command line says holds over it.
    own = read.resolve(given, {"scale": "smoke", "tasks": {"queries": {"questions": 5}}})["tasks"]["queries"]
    assert (own["questions"], own["train_questions"]) == (5, 2)


def test_a_smoke_run_has_the_interpolations_alone():
    config = overlay(sweep=SWEEP, evaluation=EVALUATION | {"adapters": ["lr0.2"]}, scale="smoke")
    assert config["evaluation"] == {"interpolate": EVALUATION["interpolate"]}


def test_the_official_categories_have_a_name():
    config = study(tasks={"mmlu": {"source": "folder", "categories": "official"}})
    categories = config["tasks"]["mmlu"]["categories"]
    assert categories == "official"
    categories = grouped(categories)
    assert {name: len(subjects) for name, subjects in categories.items()} == {
        "humanities": 13, "other": 14, "social_sciences": 12, "stem": 18
    }  # fmt: skip
    assert len({subject for subjects in categories.values() for subject in subjects}) == 57
    # Named or written out, the same questions are drawn: tests/tasks/test_mmlu.py.
    assert "found official, all 57 subjects" in refusal(
        tasks={"mmlu": {"source": "folder", "categories": "official", "subjects": 3}}
    )
    assert "tasks.mmlu.categories: found 'oficial', expected" in refusal(
        tasks={"mmlu": {"source": "folder", "categories": "oficial"}}
    )
