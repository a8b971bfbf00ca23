"""Tiny models with random weights of each family that transformers has a causal head for, of its configuration."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from common.files import read_json
from tiny_model import EVERY, make_model, make_tokenizer

# What configurations call their sizes; each takes those that it has. Windows are shorter than prompts.
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024, "initializer_range": 0.2,
    "n_embd": 32, "n_layer": 4, "n_head": 4, "n_inner": 64, "n_positions": 1024, "num_experts": 4,
    "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_routed_experts": 4,
    "sliding_window": 24, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SMALL = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
SMALL = {name: SIZES[name] for name in (*SMALL, "max_position_embeddings", "initializer_range")}
SMALL |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
RANKS = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12}
LATENT = {**RANKS, "num_key_value_heads": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
# What some need besides.
FURTHER: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe_lite", "youtu", "minicpm3"), LATENT),
    "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True, "ffn_hidden_size": 64},
    "qwen2_moe": {"shared_expert_intermediate_size": 32},
    "llama4_text": {"attention_chunk_size": 24, "intermediate_size_mlp": 64},
    "gptj": {"rotary_dim": 8},
    "nemotron_h": {"mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 1, "chunk_size": 16},
    "codegen": {"rotary_dim": 8},
}
# A text longer than index_topk is not computed as it is by transformers itself, token by token: see docs/families.md.
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FIRST_DENSE = {"mlp_layer_types": ["dense", *["sparse"] * 3]}
INDEXED = {**LATENT, **ROUTED, **FIRST_DENSE, "index_topk": 512, "index_head_dim": 16, "index_n_heads": 2}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 16}
OLD_MAMBA = {"mamba_d_state": 16, "mamba_dt_rank": 4, "use_mamba_kernels": False}
ZAMBA = {"attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4}
ZAMBA |= {"layers_block_type": ["linear_attention", "hybrid"] * 2}
SLIDING = {"head_dim": 8, "sliding_window": 24, "layer_types": ["sliding_attention", "full_attention"] * 2}
PER_LAYER = {"vocab_size_per_layer_input": "vocabulary", "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2}
QWEN4 = {
    **EXPERTS, "head_dim": 8, "layer_types": ["linear_attention", "qwen_sparse_attention"] * 2,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "shared_expert_intermediate_size": 32, "hc_count": 2, "hc_lowrank": 8, "ple_embed_dim": 32, "heads_per_ngram": 2,
    "ngram_vocab_size_base": 400, "split_ngram_parts": 2, "indexer_n_heads": 2, "indexer_kv_heads": 1,
    "indexer_head_dim": 8, "indexer_budget": 24, "indexer_compress_ratio": 2,
}  # fmt: skip
# Configurations that compute some keys from others: these are given to them at once, with those of SMALL.
GIVEN: dict[str, dict[str, Any]] = {
    "axk1": {**LATENT, **ROUTED},
    "axk2": {**INDEXED, "gated_norm_rank": 4},
    "bamba": {**MAMBA, "attn_layer_indices": [1, 3], "head_dim": 8},
    "dbrx": {
        "d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 1024,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    },
    "deepseek_v32": INDEXED,
    "deepseek_v4": {
        **ROUTED, "num_key_value_heads": 1, "head_dim": 16, "q_lora_rank": 16, "sliding_window": 24, "o_groups": 2,
        "o_lora_rank": 8, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 512, "hc_mult": 2,
        "hc_sinkhorn_iters": 4, "layer_types": ["heavily_compressed_attention", "compressed_sparse_attention"] * 2,
        "mlp_layer_types": ["hash_moe", *["moe"] * 3], "qk_rope_head_dim": 8, "partial_rotary_factor": 0.5,
    },
    "dots1": {**ROUTED, "n_shared_experts": 1, "first_k_dense_replace": 1, "head_dim": 8, "num_key_value_heads": 4},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64, "head_dim": 8},
    "gemma3n_text": {
        **SLIDING, **PER_LAYER, "intermediate_size": [64] * 4, "altup_num_inputs": 2, "laurel_rank": 4,
        "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0],
    },
    "gemma4": {
        "text_config": {**SLIDING, **PER_LAYER}, "audio_config": None,
        "vision_config": {
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 8, "patch_size": 4,
        },
    },
    "gemma4_text": {**SLIDING, **PER_LAYER},
    "gemma4_unified": {"text_config": SLIDING},
    "gemma4_unified_text": SLIDING,
    "glm_moe_dsa": {**INDEXED, "indexer_types": ["full"] * 4},
    "gpt_neo": {"num_layers": 4, "num_heads": 4, "attention_types": [[["global", "local"], 2]], "window_size": 24},
    "granitemoehybrid": {
        **MAMBA, "num_local_experts": 4, "shared_intermediate_size": 32,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "hrm_text": {"num_layers_per_stack": 2, "num_hidden_layers": 16, "head_dim": 8},
    "hy_v4": {**INDEXED, "indexer_types": ["full", "shared"] * 2, "hc_mult": 2, "head_dim": 8},
    "jamba": {**OLD_MAMBA, "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {
        **RANKS, **FIRST_DENSE, "q_lora_rank": None, "num_key_value_heads": 4, "num_experts": 4,
        "num_experts_per_token": 2, "moe_intermediate_size": 32, "linear_head_dim": 8, "linear_num_heads": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "laguna": {
        **SLIDING, **EXPERTS, **FIRST_DENSE, "num_attention_heads_per_layer": [4] * 4,
        "shared_expert_intermediate_size": 32,
    },
    "lfm2_moe": {**EXPERTS, "num_dense_layers": 1, "layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {
        **LATENT, "n_routed_experts": 4, "num_layers": 2, "ffn_hidden_size": 64, "moe_topk": 2, "zero_expert_num": 2,
        "expert_ffn_hidden_size": 32, "head_dim": 8,
    },
    "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 16, "n_groups": 2, "chunk_size": 16, "time_step_rank": 4},
    "qwen4_exp": {"text_config": QWEN4},
    "qwen4_exp_text": QWEN4,
    "recurrent_gemma": {"lru_width": 32, "head_dim": 8, "attention_window_size": 24},
    "rwkv": {"attention_hidden_size": 32, "context_length": 1024},
    "zamba": {**OLD_MAMBA, **ZAMBA, "attn_layer_period": 2, "attn_layer_offset": 1},
    "zamba2": {**ZAMBA, "mamba_d_state": 16, "n_mamba_heads": 4, "chunk_size": 16, "adapter_rank": 4},
    "zaya": {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 32},
}  # fmt: skip
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
# Towers beside the language model.
TOWERS = {
    "gemma3": {
        "vision_config": {**VISION, "image_size": 28, "patch_size": 14}, "mm_tokens_per_image": 4,
        "image_token_index": 9, "boi_token_index": 8, "eoi_token_index": 7,
    },
}  # fmt: skip
# Those that are not tried, and why.
ENCODER = "an encoder, or half of a translator, by which no chat model is known"
OTHERS = dict.fromkeys((
    "bart", "bert", "bert-generation", "big_bird", "bigbird_pegasus", "blenderbot", "blenderbot-small", "camembert",
    "cohere_compass_text", "data2vec-text", "electra", "ernie", "marian", "mbart", "megatron-bert", "mvp", "pegasus",
    "plbart", "prophetnet", "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm",
    "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod",
), ENCODER) | dict.fromkeys(("cpmant", "ctrl", "openai-gpt"), "older than chat templates") | dict.fromkeys(
    ("emu3", "fuyu", "git", "got_ocr2", "moshi", "musicgen", "musicgen_melody", "trocr", "whisper"),
    "reads or makes images or sound, and is no chat model without them",
) | {
    "blt": "reads bytes in patches, and has no tokens of a tokenizer",
    "doge": "with its cache, transformers itself computes other logits than without",
    "gemma3n": "its image tower needs the package timm; its language model is gemma3n_text",
    "gemma4_assistant": "drafts tokens for gemma4",
    "gemma4_unified_assistant": "drafts tokens for gemma4_unified",
    "mllama": "transformers does not load its language model alone",
    "phi4_multimodal": "no keys make its towers for images and sound tiny; its language model is phi3's",
    "xlstm": "transformers' own chunks do not fit heads as small",
}  # fmt: skip
FAMILIES = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(OTHERS))
LARGEST = 3e6  # parameters of a model that is still tiny


# Whose chat template is built like which of `tiny_model`; by the first words of a family's name, the others Llama's.
TEMPLATES = {
    "cohere": "cohere", "deepseek": "deepseek", "gemma4": "gemma4", "gemma": "gemma", "glm": "glm",
    "gpt_oss": "gpt_oss", "granite": "granite", "minist": "mistral", "mistral": "mistral", "mixtral": "mistral",
    "phi3": "phi3", "phimoe": "phi3", "qwen2": "smollm2", "qwen": "qwen3", "recurrent_gemma": "gemma",
    "smollm3": "smollm3", "vaultgemma": "gemma",
}  # fmt: skip


def template_of(name: str) -> str:
    """The kind of `tiny_model` whose chat template is built like that of a family."""
    return next((kind for start, kind in TEMPLATES.items() if name.startswith(start)), "llama3")


def make_config(name: str, vocabulary: int) -> PreTrainedConfig:
    """The configuration of a tiny model of a family."""
    if name in GIVEN:
        given = GIVEN[name].get("text_config", GIVEN[name])
        text = {**SMALL, "vocab_size": vocabulary, **given}
        text = {key: vocabulary if value == "vocabulary" else value for key, value in text.items()}
        return CONFIG_MAPPING[name](**({**GIVEN[name], "text_config": text} if "text_config" in GIVEN[name] else text))
    config = CONFIG_MAPPING[name](**TOWERS.get(name, {}))
    text = config.get_text_config()
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
    return config


def make_family(name: str, vocabulary: int) -> PreTrainedModel:
    """A tiny model of a family; a ValueError if these keys do not make it tiny."""
    config = make_config(name, vocabulary)
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{name}: a tiny model has {size} parameters. Add its keys to SIZES, FURTHER or GIVEN.")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    return model


def save_family(folder: Path, name: str, kind: str = "llama3") -> dict:
    """Write a tiny model of a family with a tokenizer of the `kind` below `folder`, and return its record."""
    tokenizer = make_tokenizer(kind)
    model = make_family(name, len(tokenizer))
    if kind != "llama3":
        model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(EVERY[kind]["generation_eos"])
    record = read_json(make_model(folder / "model", kind))
    for file in (folder / "model").glob("*"):
        if file.name in ("model.safetensors", "config.json", "generation_config.json"):
            file.unlink()
    model.save_pretrained(folder / "model")
    return record
