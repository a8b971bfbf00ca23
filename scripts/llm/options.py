"""The keys of a study as TRL and PEFT take them: what they refuse, and what the workflow sets itself."""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from trl import SFTConfig

from common.files import UserError
from llm.attention import decoder
from llm.load import computed, device

# The default of lora.target_modules.
LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Names that mean experts, or what chooses among them, where a model has any.
EXPERTS = ("gate", "router", "gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3")
# Modules that choose among experts, in which all layers do so.
ROUTERS = {"gate", "router"}
# A layer whose weights Jamba reads by itself: an adapter beside them would not act.
READ = "dt_proj"
# Keys of `training` that SFTConfig does not get.
OUR_KEYS = ("rows", "loss_on", "mode", "share_prefix", "truncate", "early_stopping_patience", "report_to", "method")


def training_arguments(training: Mapping[str, Any], precision: str, checkpoints: str | Path) -> SFTConfig:
    """Make TRL's arguments: the study's `training` keys as they are, and what this workflow fixes.

    A key that SFTConfig does not have or that is set here, a value that it refuses, and an optimizer that needs a GPU
    where there is none are UserErrors.
    """
    cuda, strategy = device().type == "cuda", training.get("eval_strategy", "no")
    dtype = computed(precision)
    fixed = {
        "output_dir": str(checkpoints),
        # Weights in fp32 compute in fp32; else autocast around fp32 adapter weights, in fp16 with a scaled loss.
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "use_cpu": device().type == "cpu",
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


def lora_config(lora: Mapping[str, Any], model: PreTrainedModel) -> LoraConfig:
    """Make PEFT's configuration of the adapter; a UserError if the model has no such layers, or PEFT refuses it.

    The adapter is on the language model alone, not on towers for images or sound, unless `exclude_modules` or a regular
    expression says otherwise. The default names are those of Llama's layers; a model that lacks one, or has experts,
    gets an adapter on each of its linear layers, but for the head and experts.
    """
    modules, more = lora["target_modules"], {}
    linear = linear_layers(model)
    named = isinstance(modules, str) and modules != "all-linear"
    towers = [] if named or lora.get("exclude_modules") else towers_of(model, linear)
    linear = [name for name in linear if not name.startswith(tuple(f"{tower}." for tower in towers))]
    head = next((name for name, module in model.named_modules() if module is model.get_output_embeddings()), "")
    # PEFT means a name wherever it stands, such as "0" in a list of other modules (Zamba 2).
    inside = [one for one in model.named_modules() if not one[0].startswith(tuple(f"{tower}." for tower in towers))]
    others = {name.rpartition(".")[2] for name, module in inside if not is_linear(module)}
    names = sorted({name.rpartition(".")[2] for name in linear if name != head} - others)
    if not isinstance(modules, str):
        unknown = [m for m in modules if not any(name == m or name.endswith(f".{m}") for name in linear)]
        # Where experts are one tensor, PEFT means that by these names too; it would train all of it.
        tensors = [(name.rpartition(".")[0], weight) for name, weight in model.named_parameters() if "expert" in name]
        experts = any(weight.dim() > 1 and not is_linear(model.get_submodule(owner)) for owner, weight in tensors)
        if sorted(modules) == sorted(LLAMA) and (unknown or experts):
            routing = {name.rpartition(".")[2] for name in linear if ROUTERS & {*name.split(".")[:-1]}}
            left_out = {READ, *EXPERTS, *routing} if experts else {READ}
            modules = [name for name in names if name not in left_out]
            print(f"The model is not built like Llama: adapters are on {', '.join(modules)}.", flush=True)
        elif unknown:
            raise UserError(
                f"lora.target_modules: found {', '.join(unknown)}, expected linear layers: {', '.join(names)}."
            )
        modules = sorted(modules)
    elif named and not any(re.fullmatch(modules, name) for name in linear):
        known = ", ".join(linear[:3])
        raise UserError(
            f"lora.target_modules: found {modules}, a regular expression that matches the whole name of no linear "
            f"layer, such as {known}. Write one that does, a list of names, or all-linear."
        )
    if towers:
        more["exclude_modules"] = rf"({'|'.join(map(re.escape, towers))})\..*"
    try:
        return LoraConfig(**{**lora, "target_modules": modules, **more}, bias="none", task_type="CAUSAL_LM")
    except (ValueError, TypeError) as error:
        raise UserError(f"lora: LoraConfig refuses these values ({error}).") from None


def linear_layers(model: PreTrainedModel) -> list[str]:
    """The names of all linear layers."""
    return [name for name, module in model.named_modules() if is_linear(module)]


def is_linear(module: torch.nn.Module) -> bool:
    """Whether a module is a linear layer; a model's own is tried: routers, and DeepSeek V4's by groups, are none."""
    if not isinstance(module, torch.nn.Linear) or not type(module).__module__.startswith("transformers.models."):
        return isinstance(module, torch.nn.Linear | Conv1D)
    given = module.weight.new_ones(1, 1, module.in_features)
    try:
        with torch.no_grad():
            found, meant = module(given), torch.nn.functional.linear(given, module.weight, module.bias)
        return torch.allclose(found, meant)
    except (RuntimeError, TypeError):  # other shapes, or more than one tensor
        return False


def towers_of(model: PreTrainedModel, linear: Sequence[str]) -> list[str]:
    """The modules beside the language model and its head that have linear layers, such as model.vision_tower."""
    parts = [decoder(model), model.get_output_embeddings()]
    inside = {module for part in parts if part is not None for module in part.modules()}
    path = next(name for name, module in model.named_modules() if module is parts[0]).split(".")
    found = {}
    for name in linear:
        if model.get_submodule(name) not in inside:
            steps = name.split(".")
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(steps, path, strict=False)))
            found[".".join(steps[: same + 1])] = None
    return list(found)
