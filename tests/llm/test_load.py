"""Which device and which half precision a job computes in, and what is refused before any weight is read."""

import builtins

import pytest
import torch
from transformers import MixtralConfig

from common.files import UserError, read_json
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
    monkeypatch.setattr("llm.options.half", lambda: expected)
    monkeypatch.setattr("llm.options.SFTConfig", dict)
    for precision in ("bf16", "nf4", "fp32"):
        made = training_arguments(TRAINING, precision, tmp_path)
        assert made["bf16"] == (native and precision != "fp32")
        assert made["fp16"] == (not native and precision != "fp32")


def test_numbers_too_large_for_fp16_are_refused(tmp_path):
    record = read_json(make_model(tmp_path / "model"))
    model = load_model(record, "fp32")
    check_fp16(model.half(), record)
    model.lm_head.weight.data.mul_(1e4)
    with pytest.raises(UserError, match=r"models\.tiny\.precision: this GPU has no bf16, and example/tiny has numbers"):
        check_fp16(model, record)


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
