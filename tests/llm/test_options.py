"""Which layers get an adapter, of models that are not built like Llama; and a merged head that was tied."""

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from common.files import UserError
from families import make_family
from llm.adapters import merged
from llm.options import LLAMA, lora_config

LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": list(LLAMA)}


def adapted(model, **lora):
    model = get_peft_model(model, lora_config(LORA | lora, model))
    return [name for name, module in model.named_modules() if hasattr(module, "lora_A")]


@pytest.mark.parametrize("modules", [list(LLAMA), "all-linear", ["q_proj", "v_proj"]])
def test_a_model_that_sees_is_adapted_in_its_language_model_alone(modules):
    names = adapted(make_family("gemma3", 300), target_modules=modules)
    assert len(names) == 4 * (2 if len(modules) == 2 else 7)
    assert all(".language_model." in name for name in names)


def test_who_names_the_tower_gets_it():
    names = adapted(make_family("gemma3", 300), target_modules=r".*vision_tower.*\.q_proj")
    assert len(names) == 2
    assert all(".vision_tower." in name for name in names)
    names = adapted(make_family("gemma3", 300), target_modules=["q_proj"], exclude_modules=[r"x"])
    assert any(".vision_tower." in name for name in names)


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("phi3", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        ("gpt2", {"c_attn", "c_proj", "c_fc"}),
        ("mixtral", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("glm4_moe", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("llama", set(LLAMA)),
    ],
)
def test_the_default_fits_each_family(family, layers, capsys):
    assert {name.rpartition(".")[2] for name in adapted(make_family(family, 300))} == layers
    assert ("is not built like Llama" in capsys.readouterr().out) == (family != "llama")


def test_what_a_study_names_must_be_there():
    with pytest.raises(UserError, match=r"found gate_proj, expected linear layers: down_proj, gate_up_proj"):
        adapted(make_family("phi3", 300), target_modules=["o_proj", "gate_proj"])
    with pytest.raises(UserError, match=r"found \(q\|v\)_proj, a regular expression that matches the whole name of no"):
        adapted(make_family("llama", 300), target_modules="(q|v)_proj")


def test_values_that_peft_refuses_are_named():
    with pytest.raises(UserError, match=r"lora: LoraConfig refuses these values \(.*layers_pattern"):
        adapted(make_family("llama", 300), target_modules="all-linear", layers_to_transform=None, layers_pattern="h")


def test_a_merged_head_leaves_tied_embeddings_alone(tmp_path):
    """And is written as a model whose head is its own."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, tie_word_embeddings=True)).eval()
    config = lora_config(LORA | {"target_modules": ["lm_head", "q_proj"], "init_lora_weights": False}, model)
    beside, ids = get_peft_model(model, config).eval(), torch.arange(20)[None]
    with torch.no_grad():
        expected = beside(ids).logits
    whole = merged(beside, tmp_path)
    whole.save_pretrained(tmp_path)
    for one in (whole, LlamaForCausalLM.from_pretrained(tmp_path).eval()):
        with torch.no_grad():
            torch.testing.assert_close(one(ids).logits, expected, rtol=1e-4, atol=1e-4)
