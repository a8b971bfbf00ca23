"""Models and adapters in folders: damaged weights, and layers that a model does not have, end in a sentence."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from _config import refusal, study
from common.weights import tensors

LAYERS = ("q_proj", "v_proj", "down_proj")


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    names = [f"model.layers.{number}.part.{layer}.weight" for number in range(2) for layer in LAYERS]
    save_file({name: torch.zeros(2, 3) for name in [*names, "lm_head.weight"]}, folder / "model.safetensors")
    return folder


def models(folder: Path) -> dict:
    return {"m": {"source": str(folder)}}


def test_what_is_in_a_file(model):
    found = tensors(model / "model.safetensors")
    assert len(found) == 7
    assert found["lm_head.weight"]["shape"] == [2, 3]


def cut(raw: bytes) -> bytes:
    return raw[:-1]


def longer(raw: bytes) -> bytes:
    return raw + b"\0"


def garbage(raw: bytes) -> bytes:
    return bytes(range(256)) * 4


def no_json(raw: bytes) -> bytes:
    return struct.pack("<Q", 8) + b"{{{{{{{{"


def no_tensors(raw: bytes) -> bytes:
    return struct.pack("<Q", 8) + b'{"a": 1}'


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "expected .* by its head"),
        (longer, "expected .* by its head"),
        (garbage, "no safetensors: its first bytes are of no head"),
        (lambda raw: b"", "no safetensors"),
        (no_json, "no safetensors: its head cannot be read"),
        (no_tensors, "no safetensors: its head cannot be read"),
    ],
)
@pytest.mark.parametrize("section", ["models", "adapters"])
def test_damaged_weights_are_found_before_any_job(model, tmp_path, damage, message, section):
    folder = model
    if section == "adapters":
        folder = tmp_path / "adapter"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    given = {"models": models(model), "lora": {"target_modules": ["q_proj"]}}
    given |= {"adapters": {"own": {"source": str(folder)}}} if section == "adapters" else {}
    text = refusal(**given)
    assert text.startswith(f"config.yaml, {file}: ")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(text)
    assert "\n" not in text


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"lora": {"target_modules": ["q_proj", "vproj"]}},
            "found vproj, which models.m does not have. Did you mean v_proj?",
        ),
        (
            {"lora": {"target_modules": ["c_attn"]}},
            "found c_attn, which models.m does not have. Its layers are down_proj, lm_",
        ),
        ({"lora": {"target_modules": ".*[kx]_prj"}}, "found .*[kx]_prj, which no layer of models.m matches in full."),
        (
            {"lora": {"target_modules": ["q_proj"]}, "sweep": {"lora.target_modules": [["q_proj"], ["q_prj"]]}},
            "found q_prj, which models.m does not have. Did you mean q_proj?",
        ),
    ],
)
def test_a_layer_that_the_model_does_not_have(model, sections, message):
    assert refusal(models=models(model), **sections).startswith(f"config.yaml, lora.target_modules: {message}")


@pytest.mark.parametrize(
    "modules",
    [
        ["q_proj"],
        "all-linear",
        ".*[qv]_proj",
        r"model\.layers\.[01]\..*_proj",
        ["part.q_proj"],
        ["layers.0.part.q_proj"],
    ],
)
def test_a_layer_that_the_model_has(model, modules):
    study(models=models(model), lora={"target_modules": modules})


def test_names_in_an_index_count_and_experts_may_have_others(model):
    index = {"weight_map": {"model.layers.9.extra.weight": "other.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    study(models=models(model), lora={"target_modules": ["extra"]})
