"""Which device and which half precision a job computes in, and what is refused before any weight is read."""

import builtins

import pytest
import torch
from transformers import MixtralConfig

from _config import refusal
from common.files import UserError, read_json, write_json
from llm import load as module
from llm.load import check_fp16, device, half, load_model, machine
from llm.options import training_arguments
from tests.llm.test_training import TRAINING
from tiny_model import make_model


@pytest.mark.parametrize(("cuda", "mps", "kind"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_the_device_is_a_gpu_where_torch_has_one(cuda, mps, kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert device().type == kind


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_without_bf16_computes_in_fp16_with_a_scaled_loss(native, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert half() == expected
    monkeypatch.undo()  # the arguments themselves ask for the GPU: only the choice is looked at
    monkeypatch.setattr("llm.load.half", lambda: expected)
    monkeypatch.setattr("llm.options.SFTConfig", dict)
    for precision in ("bf16", "nf4", "int8", "fp32", "fp16"):
        made = training_arguments(TRAINING, precision, tmp_path)
        in_half = precision not in ("fp32", "fp16")
        assert made["bf16"] == (native and in_half)
        assert made["fp16"] == (precision == "fp16" or (not native and in_half))


def test_numbers_too_large_for_fp16_are_refused(tmp_path):
    record = read_json(make_model(tmp_path / "model"))
    model = load_model(record, "fp32")
    check_fp16(model.half(), record)
    model.lm_head.weight.data.mul_(1e4)
    with pytest.raises(UserError, match=r"models\.tiny\.precision: this GPU has no bf16, and example/tiny has numbers"):
        check_fp16(model, record)
    with pytest.raises(UserError, match=r"found fp16, but example/tiny has numbers .* Set it to bf16 or fp32\."):
        check_fp16(model, record, asked=True)


@pytest.mark.parametrize(("made", "warned"), [("bfloat16", True), ("float16", False), ("float32", False)])
def test_fp16_warns_of_a_model_that_was_made_in_bf16(made, warned, tmp_path, monkeypatch, capsys):
    record = read_json(make_model(tmp_path / "model"))
    write_json(tmp_path / "model/config.json", read_json(tmp_path / "model/config.json") | {"dtype": made})
    with pytest.raises(UserError, match=r"precision fp16 needs a GPU and none is visible\. Set it to bf16 or fp32\."):
        load_model(record, "fp16")
    monkeypatch.setattr(module, "device", lambda: torch.device("cuda"))
    assert load_model(record, "fp16").dtype == torch.float16
    out = capsys.readouterr().out
    assert ("Warning: models.tiny.precision is fp16, but example/tiny was made in bfloat16" in out) == warned


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_int8_reaches_bitsandbytes(native, expected, tmp_path, monkeypatch):
    """Without a GPU no model is quantised; what would be asked for is."""
    record, asked = read_json(make_model(tmp_path / "model")), {}
    with pytest.raises(UserError, match="precision int8 needs a CUDA GPU and none is visible"):
        load_model(record, "int8")

    def from_pretrained(path, **options):
        asked.update(options)
        raise ValueError

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(module, "half", lambda: expected)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", from_pretrained)
    with pytest.raises(UserError, match="cannot load"):
        load_model(record, "int8", {"llm_int8_threshold": 4.0})
    found = asked["quantization_config"]
    assert (found.load_in_8bit, found.load_in_4bit, found.llm_int8_threshold) == (True, False, 4.0)
    assert asked["dtype"] == expected


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        (
            {"precision": "int8", "quantization": {"bnb_4bit_quant_type": "fp4"}},
            {},
            ".bnb_4bit_quant_type: not used",
        ),
        ({"precision": "nf4", "quantization": {"llm_int8_threshold": 4.0}}, {}, ".llm_int8_threshold: not used, since"),
        (
            {"precision": "fp16", "quantization": {"bnb_4bit_quant_type": "fp4"}},
            {},
            ": not used, since precision is f",
        ),
        ({"precision": "int8"}, {"inference": {"merge_adapters": True}}, "int8, and 8-bit weights cannot hold what an"),
    ],
)
def test_keys_of_another_precision_are_refused(model, more, said):
    assert said in refusal(models={"m": {"source": "x"} | model}, **more)


def test_nf4_of_a_model_with_experts_is_refused(tmp_path):
    record = read_json(make_model(tmp_path / "model"))
    MixtralConfig(num_hidden_layers=2).save_pretrained(tmp_path / "model")
    with pytest.raises(
        UserError, match=r"models\.tiny\.precision: nf4 quantises linear layers alone, and of the .* GB"
    ):
        load_model(record, "nf4")


def test_a_machine_that_does_not_tell_its_memory(monkeypatch):
    """Windows has no module `resource`."""
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "resource":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    assert machine()["peak_memory_mib"] > 0
    monkeypatch.setattr(builtins, "__import__", without)
    assert machine()["peak_memory_mib"] is None
    assert not hasattr(module, "resource")
