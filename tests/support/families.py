"""Tiny models with random weights of each family that transformers has a causal head for, of its configuration."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from common.files import read_json
from tiny_model import make_model, make_tokenizer

# What configurations call their sizes; each takes those that it has. Windows are shorter than prompts.
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024, "initializer_range": 0.2,
    "n_embd": 32, "n_layer": 4, "n_head": 4, "n_inner": 64, "n_positions": 1024, "num_experts": 4,
    "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_routed_experts": 4,
    "sliding_window": 24, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12}
LATENT |= {"num_key_value_heads": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
# What some need besides.
FURTHER: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe_lite", "youtu", "minicpm3"), LATENT),
    "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True, "ffn_hidden_size": 64},
    "qwen2_moe": {"shared_expert_intermediate_size": 32},
    "llama4_text": {"attention_chunk_size": 24, "intermediate_size_mlp": 64},
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 8},
}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
# Towers beside the language model.
TOWERS = {
    "gemma3": {
        "vision_config": {**VISION, "image_size": 28, "patch_size": 14}, "mm_tokens_per_image": 4,
        "image_token_index": 9, "boi_token_index": 8, "eoi_token_index": 7,
    },
}  # fmt: skip
# Not language models to chat with: encoders, halves of translators, speech, images, characters.
OTHERS = {
    "aimv2", "bart", "bert", "bert-generation", "big_bird", "bigbird_pegasus", "blenderbot", "blenderbot-small", "blt",
    "camembert", "cpmant", "ctrl", "data2vec-text", "electra", "emu3", "ernie", "fuyu", "git", "got_ocr2", "marian",
    "mbart", "megatron-bert", "moshi", "musicgen", "musicgen_melody", "mvp", "openai-gpt", "pegasus", "plbart",
    "prophetnet", "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "trocr", "whisper",
    "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod", "gemma4_assistant", "gemma4_unified_assistant",
    "mllama",  # whose language model alone transformers does not load
    "falcon_h1",  # whose state space takes minutes on a CPU
    "doge",  # of which transformers itself gives other logits with its cache than without
}  # fmt: skip
FAMILIES = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - OTHERS)
LARGEST = 3e6  # parameters of a model that is still tiny


def make_family(name: str, vocabulary: int) -> PreTrainedModel | None:
    """A tiny model of a family; None if its configuration does not become tiny by these keys."""
    config = CONFIG_MAPPING[name](**TOWERS.get(name, {}))
    text = config.get_text_config()
    try:
        for key, value in {**SIZES, "vocab_size": vocabulary, **FURTHER.get(name, {})}.items():
            known = hasattr(text, key) or key in type(text).attribute_map
            if known and not (key == "sliding_window" and text.sliding_window is None):
                with suppress(AttributeError):  # one that is computed from others
                    setattr(text, key, value)
        kinds = sorted(set(getattr(text, "layer_types", None) or ()))
        if kinds:
            with suppress(AttributeError):
                text.layer_types = (kinds * 4)[:4]
        if kinds := getattr(text, "mlp_layer_types", None):
            text.mlp_layer_types = ["dense" if "dense" in kinds else "sparse", *["sparse"] * 3]
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        if size > LARGEST:
            return None
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            model(input_ids=torch.arange(3, 20)[None])
    except Exception:  # sizes that do not go together, or kernels that are not here
        return None
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    return model


def save_family(folder: Path, name: str) -> dict | None:
    """Write a tiny model of a family with a tokenizer below `folder`, and return its record; None if there is none."""
    model = make_family(name, len(make_tokenizer("llama3")))
    if model is None:
        return None
    record = read_json(make_model(folder / "model"))
    for file in (folder / "model").glob("*"):
        if file.name in ("model.safetensors", "config.json", "generation_config.json"):
            file.unlink()
    try:
        model.save_pretrained(folder / "model")
    except Exception:  # sizes that do not go together
        return None
    return record
