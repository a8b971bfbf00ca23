"""The keys of a study as TRL and PEFT take them: what they refuse, and what the workflow sets itself."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from trl import SFTConfig

from common.files import UserError
from llm.load import device

# Keys of `training` that SFTConfig does not get.
OUR_KEYS = ("mode", "truncate", "early_stopping_patience", "report_to")


def training_arguments(training: Mapping[str, Any], precision: str, checkpoints: str | Path) -> SFTConfig:
    """Make TRL's arguments: the study's `training` keys as they are, and what this workflow fixes.

    A key that SFTConfig does not have or that is set here, a value that it refuses, and an optimizer that needs a GPU
    where there is none are UserErrors.
    """
    cuda, strategy = device().type == "cuda", training.get("eval_strategy", "no")
    fixed = {
        "output_dir": str(checkpoints),
        # Weights in fp32 compute in fp32; else autocast to bf16 around fp32 adapter weights. fp16 overflows in models
        # that were made in bf16.
        "bf16": precision != "fp32",
        "fp16": False,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        # Rows of a packed batch would attend to each other without a varlen attention kernel.
        "packing": False,
        "padding_free": False,
        "completion_only_loss": True,
        "assistant_only_loss": False,
        # An evaluation must not lie between a checkpoint and the next step: a resumed run would leave it out.
        "save_strategy": "epoch" if strategy == "epoch" else "steps",
        "save_only_model": False,
        # The evaluations without a better one so far.
        "restore_callback_states_from_checkpoint": training.get("early_stopping_patience") is not None,
        # A loss of nan must be seen, not averaged away.
        "logging_nan_inf_filter": False,
        "push_to_hub": False,
    }
    optim = str(training.get("optim", ""))
    if not cuda and any(part in optim for part in ("8bit", "32bit", "bnb", "paged", "lion", "ademamix")):
        raise UserError(
            f"training.optim: {optim} is an optimizer of bitsandbytes, which needs a CUDA GPU, and none is visible. "
            "Set it to adamw_torch."
        )
    unused = (*OUR_KEYS, *(["eval_steps"] if strategy != "steps" else []))
    options = {"save_total_limit": 2, "disable_tqdm": False}
    options |= {key: value for key, value in training.items() if key not in unused}
    try:
        # The study's report_to is served by a callback of ours, whose folder does not move with the checkpoints.
        return SFTConfig(**options, **fixed, report_to="none")
    except (ValueError, TypeError) as error:
        raise UserError(f"training: SFTConfig refuses these values ({error}).") from None


def lora_config(lora: Mapping[str, Any], model: torch.nn.Module) -> LoraConfig:
    """Make PEFT's configuration of the adapter; a UserError if the model has no such layers, or PEFT refuses it."""
    modules = lora["target_modules"]
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    if not isinstance(modules, str):
        unknown = [m for m in modules if not any(name == m or name.endswith(f".{m}") for name in linear)]
        if unknown:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise UserError(f"lora.target_modules: found {', '.join(unknown)}, expected linear layers: {known}.")
        modules = sorted(modules)
    elif modules != "all-linear" and not any(re.fullmatch(modules, name) for name in linear):
        known = ", ".join(linear[:3])
        raise UserError(
            f"lora.target_modules: found {modules}, a regular expression that matches the whole name of no linear "
            f"layer, such as {known}. Write one that does, a list of names, or all-linear."
        )
    try:
        return LoraConfig(**{**lora, "target_modules": modules}, bias="none", task_type="CAUSAL_LM")
    except (ValueError, TypeError) as error:
        raise UserError(f"lora: LoraConfig refuses these values ({error}).") from None
