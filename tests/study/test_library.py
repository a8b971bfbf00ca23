"""Keys that are passed on to TRL, PEFT, bitsandbytes and transformers by the names they have there."""

import json
from fnmatch import fnmatchcase

import pytest
from transformers import BitsAndBytesConfig
from trl import SFTConfig

from _config import refusal, study
from llm.decoding import OF_DRAWING, OF_TOKENS
from llm.library_keys import library_keys
from llm.load import load_model
from llm.options import lora_config, training_arguments
from study import schema
from study.library import FILE, KEYS, MARK, PROCESSORS, REFUSED, WARPERS, passes_on
from study.library import refusal as why
from study.messages import declared, passed_on, section_of
from study.unfold import generation, loading, training
from tasks.sections import Section
from tiny_model import make_model

SECTIONS = {"lora": "LoraConfig", "training": "SFTConfig", "inference": "GenerationConfig"}
NF4 = {"source": "folder", "precision": "nf4"}


def passed(section: str) -> list[str]:
    return passed_on(section_of(declared()["properties"][section]))[1]


def test_the_keys_are_those_of_the_installed_libraries():
    """If this fails: python scripts/studies.py document."""
    assert json.loads(FILE.read_text(encoding="utf-8")) == library_keys()


@pytest.mark.parametrize("cls", list(REFUSED))
def test_every_reason_is_about_a_key_that_is_there(cls):
    for pattern in " ".join(REFUSED[cls].values()).split():
        assert any(fnmatchcase(key, pattern) for key in KEYS[cls]), pattern


@pytest.mark.parametrize(("section", "cls"), SECTIONS.items())
def test_each_key_is_one_of_the_study_or_refused_with_a_reason(section, cls):
    known = set(section_of(declared()["properties"][section])["properties"])
    for key in KEYS[cls]:
        assert (key in known) or why(cls, key), key
    assert {key for key in passed(section) if why(cls, key)} == set()


def test_sftconfig_takes_each_key_that_is_passed_on(tmp_path):
    """None of them is one that the workflow sets too."""
    default = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    for key in passed("training"):
        value = getattr(default, key)
        assert getattr(training_arguments({key: value}, "fp32", tmp_path), key) == value


def test_loraconfig_takes_each_key_that_is_passed_on(tmp_path):
    model = load_model(json.loads(make_model(tmp_path / "model").read_text()), "fp32")
    default = lora_config({"target_modules": "all-linear"}, model)
    for key in passed("lora"):
        lora_config({"target_modules": ["q_proj"], key: getattr(default, key)}, model)


def test_a_key_reaches_the_library(tmp_path):
    config = study(
        training={"adam_beta2": 0.95, "neftune_noise_alpha": 5, "lr_scheduler_kwargs": {"num_cycles": 2}},
        lora={"use_dora": True, "target_modules": "all-linear", "rank_pattern": {"q_proj": 4}},
    )
    given = training(config, "m", {})
    arguments = training_arguments(given["training"], "fp32", tmp_path)
    assert (arguments.adam_beta2, arguments.neftune_noise_alpha) == (0.95, 5.0)
    assert arguments.lr_scheduler_kwargs == {"num_cycles": 2}
    model = load_model(json.loads(make_model(tmp_path / "model").read_text()), "fp32")
    found = lora_config(given["lora"], model)
    assert (found.use_dora, found.target_modules, found.rank_pattern) == (True, "all-linear", {"q_proj": 4})


def test_what_a_study_does_not_say_is_not_there():
    config = study()
    for section in SECTIONS:
        assert set(config[section]).isdisjoint(passed(section))
    assert loading(config["models"]["m"]) == {"precision": "bf16"}
    assert loading(study(models={"m": NF4})["models"]["m"]) == {"precision": "nf4"}


def test_null_is_a_value():
    assert study(training={"neftune_noise_alpha": None})["training"]["neftune_noise_alpha"] is None


def test_numbers_have_one_form():
    found = study(training={"adam_beta1": 1, "data_seed": 3.0})["training"]
    assert (repr(found["adam_beta1"]), repr(found["data_seed"])) == ("1.0", "3")


def test_quantization_reaches_bitsandbytes(monkeypatch, tmp_path):
    """Without a GPU no model is quantised; what would be asked for is."""
    section = {"bnb_4bit_use_double_quant": False, "bnb_4bit_quant_storage": "bfloat16"}
    given = loading(study(models={"m": NF4 | {"quantization": section}})["models"]["m"])
    assert given == {"precision": "nf4", "quantization": section}
    asked = {}
    (tmp_path / "config.json").write_text("{}")  # of a shape that nothing is known of

    def from_pretrained(path, quantization_config, **options):
        asked["config"] = quantization_config
        raise ValueError

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: True)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", from_pretrained)
    with pytest.raises(Exception, match="cannot load"):
        load_model({"path": tmp_path, "name": "m", "sha256": "0" * 64}, **given)
    found: BitsAndBytesConfig = asked["config"]
    assert (found.load_in_4bit, found.bnb_4bit_quant_type, found.bnb_4bit_use_double_quant) == (True, "nf4", False)
    assert str(found.bnb_4bit_quant_storage) == str(found.bnb_4bit_compute_dtype) == "torch.bfloat16"


def test_what_the_engines_take_is_what_a_study_may_say():
    assert tuple(OF_TOKENS) == PROCESSORS
    assert tuple(key for key in OF_DRAWING if key not in ("temperature", "top_p")) == WARPERS
    assert set(passed("inference")) == {*PROCESSORS, *WARPERS}
    section = {"top_k": 5, "repetition_penalty": 1.1}
    assert generation(study(inference=section)["inference"]) == {"repetition_penalty": 1.1}
    assert generation(study(inference=section | {"do_sample": True})["inference"]) == section


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"training": {"adam_betta1": 0.5}},
            "training.adam_betta1: no such key. Did you mean training.adam_beta1?",
        ),
        ({"use_dora": True}, "use_dora: no such key. Did you mean lora.use_dora?"),
        (
            {"lora": {"xyz": 1}},
            "lora.xyz: no such key. Keys here: lora_alpha, lora_dropout, r, target_modules, and those of LoraConfig.",
        ),
        ({"training": {"adam_beta1": "1e-4"}}, "training.adam_beta1: '1e-4' is text in YAML 1.1; write 1.0e-4"),
        ({"training": {"adam_beta1": [0.5]}}, "training.adam_beta1: found [0.5] (a list), expected a number."),
        ({"training": {"adam_beta1": None}}, "training.adam_beta1: found null, expected a number."),
        (
            {"training": {"adam_beta1": float("inf")}},
            "training.adam_beta1: found inf, expected a number that is not infinite.",
        ),
        (
            {"training": {"dataloader_num_workers": True}},
            "training.dataloader_num_workers: found True (true or false), expected a whole number.",
        ),
        (
            {"training": {"output_dir": "x"}},
            "training.output_dir: SFTConfig has this key, but no study may set it: checkpoints lie beside the adapter "
            "until it is written. Remove it.",
        ),
        ({"training": {"bf16": True}}, "training.bf16: SFTConfig has this key, but no study may set it: it follows"),
        ({"training": {"packing": True}}, "training.packing: SFTConfig has this key, but no study may set it: the"),
        ({"training": {"completion_only_loss": True}}, "training.completion_only_loss: SFTConfig has this key, but no"),
        ({"training": {"parallelism_config": {}}}, "training.parallelism_config: SFTConfig has this key, but no study"),
        ({"lora": {"bias": "all"}}, "lora.bias: LoraConfig has this key, but no study may set it: the adapter would"),
        ({"lora": {"runtime_config": {}}}, "lora.runtime_config: LoraConfig has this key, but no study may set it: it"),
        (
            {"lora": {"init_lora_weights": "pissa"}},
            "lora.init_lora_weights: found 'pissa', expected gaussian or orthogonal or true or false.",
        ),
        (
            {"lora": {"target_modules": "all-liner"}},
            "lora.target_modules: found 'all-liner', expected a list of names, all-linear, or a regular expression",
        ),
        (
            {"lora": {"target_modules": "*_proj"}},
            "lora.target_modules: found '*_proj', expected a regular expression of Python as .*[qv]_proj (nothing to "
            "repeat at position 0).",
        ),
        (
            {"lora": {"use_dora": True}, "evaluation": {"interpolate": [0.5]}},
            "lora.use_dora: found True, but evaluation.interpolate needs adapters that only add a product of two",
        ),
        (
            {"models": {"m": {"source": "x", "quantization": {"bnb_4bit_quant_type": "fp4"}}}},
            "models.m.quantization: not used, since precision is bf16. Write nf4.",
        ),
        (
            {"models": {"m": NF4 | {"quantization": {"load_in_8bit": True}}}},
            "models.m.quantization.load_in_8bit: BitsAndBytesConfig has this key, but no study may set it: precision:",
        ),
        (
            {"inference": {"num_beams": 4}},
            "inference.num_beams: GenerationConfig has this key, but no study may set it: neither engine answers with",
        ),
        ({"inference": {"min_pp": 0.1}}, "inference.min_pp: no such key. Did you mean inference.min_p?"),
        ({"inference": {"top_k": 4.5}}, "inference.top_k: found 4.5 (a number), expected a whole number."),
    ],
)
def test_a_mistake_gets_one_sentence_with_its_key(sections, message):
    text = refusal(**sections)
    assert text.startswith(f"config.yaml, {message}")
    assert "\n" not in text


def test_own_keys_stay_as_the_section_declares_them():
    @passes_on("LoraConfig")
    class Own(Section):
        """A section."""

        r: int = 3
        """The rank."""

    properties = Own.model_json_schema()["properties"]
    assert properties["r"] == {"default": 3, "description": "The rank.", "title": "R", "type": "integer"}
    assert properties["use_dora"][MARK] == "LoraConfig"
    assert Own.__doc__ == "A section."
    assert Own().model_dump() == {"r": 3}
    assert schema.Lora().model_dump()["r"] == 8
