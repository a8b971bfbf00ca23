"""Soups: the mean of what several adapters add to the weights."""

import os
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model

from common.files import UserError, read_json, sha256_file
from llm.adapters import average, load_adapter
from llm.load import load_model
from tiny_model import make_model

KINDS = {
    "small": {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "large": {"r": 5, "lora_alpha": 5, "target_modules": ["q_proj", "up_proj"]},
    "third": {"r": 2, "lora_alpha": 3, "target_modules": ["v_proj"]},
    # The scale is alpha / sqrt(r); some layers have another rank and alpha.
    "other": {"r": 4, "lora_alpha": 3, "target_modules": ["v_proj"], "use_rslora": True},
    "ranks": {"r": 3, "target_modules": ["v_proj"], "rank_pattern": {"v_proj": 7}, "alpha_pattern": {"v_proj": 2}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and adapters that differ in rank, scale and modules."""
    folder = tmp_path_factory.mktemp("soup")
    record = make_model(folder / "model")
    for seed, (name, kind) in enumerate(KINDS.items()):
        torch.manual_seed(seed)
        config = LoraConfig(**kind, init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(load_model(read_json(record), "fp32"), config).save_pretrained(folder / name)
    return folder


def added(folder, name):
    """Return what an adapter adds to each weight."""
    record = read_json(folder / "model.json")
    base = dict(load_model(record, "fp32").named_parameters())
    merged = load_adapter(load_model(record, "fp32"), folder / name, merge=True)
    return {name: (weight - base[name]).detach() for name, weight in merged.named_parameters()}


@pytest.mark.parametrize(
    "names",
    [("small", "large"), ("small", "large", "third"), ("third", "third"), ("other", "small"), ("small", "ranks")],
)
def test_a_soup_adds_the_mean_of_what_its_adapters_add(folder, names):
    made = f"soup-{'-'.join(names)}"
    average([folder / name for name in names], folder / "model.json", folder / made)
    found, parts = added(folder, made), [added(folder, name) for name in names]
    for name, weight in found.items():
        torch.testing.assert_close(weight, sum(part[name] for part in parts) / len(parts), rtol=0, atol=1e-6)
    changed = {name.split(".")[-2] for name, weight in found.items() if weight.abs().max() > 0.01}
    assert changed == {module for name in names for module in KINDS[name]["target_modules"]}
    config = read_json(folder / made / "adapter_config.json")
    ranks = [max([KINDS[name]["r"], *KINDS[name].get("rank_pattern", {}).values()]) for name in names]
    assert config["r"] == sum(ranks)
    assert config["base_model_name_or_path"] == "example/tiny"
    assert config["target_modules"] == sorted(config["target_modules"])


def test_bytes_are_the_same_again(folder):
    for made in ("once", "again"):
        average([folder / "small", folder / "large"], folder / "model.json", folder / made)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert sha256_file(folder / "once" / file) == sha256_file(folder / "again" / file)


def test_an_adapter_that_cannot_be_read_is_named(folder, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be read as an adapter of example/tiny"):
        average([folder / "small", tmp_path], folder / "model.json", tmp_path / "soup")
    shutil.copytree(folder / "large", tmp_path / "cut")
    os.truncate(tmp_path / "cut/adapter_model.safetensors", 1000)
    for adapters in ([folder / "small", tmp_path / "cut"], [tmp_path / "cut", folder / "small"]):
        with pytest.raises(UserError, match=r"cut/adapter_model.safetensors: cut or damaged: .* Delete it and run"):
            average(adapters, folder / "model.json", tmp_path / "soup")


@pytest.mark.parametrize("key", ["use_dora", "lora_bias"])
def test_an_adapter_that_is_no_sum_is_refused(folder, tmp_path, key):
    config = LoraConfig(r=2, target_modules=["v_proj"], task_type="CAUSAL_LM", **{key: True})
    get_peft_model(load_model(read_json(folder / "model.json"), "fp32"), config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"has lora.{key}, but a mean of adapters needs"):
        average([folder / "small", tmp_path], folder / "model.json", tmp_path / "soup")
    model = load_model(read_json(folder / "model.json"), "fp32")
    with pytest.raises(UserError, match=f"has lora.{key}, but an interpolation needs"):
        load_adapter(model, tmp_path, strength=0.5)
