"""A model that outgrows one GPU, trained on several: each holds a part of its layers and gathers one layer at a time.

PyTorch's `fully_shard` (FSDP2; Zhao et al. 2023, arXiv:2304.11277) divides the frozen weights of each layer of the
decoder among the processes, and gathers them while that layer computes, forward and backward. What each process has
whole is little: embeddings, head and the adapter, which is trained as on GPUs that have the whole model. Before a
layer is divided, it is read from disk and quantised by itself, so that no GPU ever holds more than its part and a
layer. The files are mapped, not read into memory: processes of one machine share their pages.

All processes go through the model together. Whatever computes with it must do so in each of them equally often.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.quantizers import AutoHfQuantizer, HfQuantizer

from common.files import UserError
from llm import memory
from llm.attention import decoder
from llm.memory import Shape

# What is estimated of training is right within a tenth.
FITS = 0.9


def outgrows(config: Mapping[str, Any], settings: Mapping[str, Any], tokens: int) -> bool:
    """Whether training on rows of so many `tokens` needs more memory than each process's GPU surely has.

    `config` is the model's config.json, and `settings` are those of a `llm.training.Plan`. All processes say the same.
    """
    if dist.get_world_size() == 1 or not torch.cuda.is_available():
        return False
    try:
        needed = sum(memory.training(Shape.of(config), settings, tokens).values())
    except KeyError:  # of a shape that nothing is known of
        return False
    memories: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(memories, torch.cuda.mem_get_info()[1])
    return needed > FITS * min(memories)


def divide_layers(model: PreTrainedModel, device: torch.device, quantised: BitsAndBytesConfig | None) -> None:
    """Divide a model that lies on the CPU among the GPUs of all processes, in 4 bits if `quantised` says so.

    Raises:
        UserError: transformers does not say what the model's layers are.
    """
    inner = decoder(model)
    layers = [module for module in inner.modules() if type(module).__name__ in (model._no_split_modules or ())]
    if not layers:
        raise UserError(
            f"training: {type(model).__name__} needs more memory than one GPU has, and transformers does not say what "
            "its layers are, by which it could be divided. Use a GPU with more memory, or a smaller model."
        )
    model.requires_grad_(False)
    # Held here, a layer's weights would stay whole on the GPU.
    lying = dict(model.named_parameters()) if quantised else {}
    quantizer = prepare_4bit(model, quantised) if quantised else None
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for name, layer in [(name, module) for name, module in model.named_modules() if module in layers]:
        if quantizer:
            fill_4bit(model, f"{name}.", quantizer, lying, device)
        fully_shard(layer.to(device), mesh=mesh)
    if quantizer:
        fill_4bit(model, "", quantizer, lying, device)  # what is in no layer
        quantizer.postprocess_model(model)
    model.to(device)
    whole = {weight for weight in inner.parameters() if not isinstance(weight, DTensor)}
    fully_shard(inner, mesh=mesh, ignored_params=whole)
    for module in inner.modules() if quantised else ():
        if state := getattr(module, "quant_state", None):
            # PEFT asks the weight for them.
            module.weight.compress_statistics, module.weight.quant_type = state.nested, state.quant_type


def prepare_4bit(model: PreTrainedModel, config: BitsAndBytesConfig) -> HfQuantizer:
    """Put empty layers of 4 bits in the place of linear ones, as transformers does before it loads weights."""
    # The type as which bytes are held. FSDP2 takes no whole numbers, and copies those of 16 bits by way of others, in
    # which some bytes change: those that are no number.
    config.bnb_4bit_quant_storage = torch.float32
    model.hf_quantizer = quantizer = AutoHfQuantizer.from_config(config, pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map=None)
    return quantizer


def fill_4bit(
    model: PreTrainedModel, within: str, quantizer: HfQuantizer, lying: dict[str, torch.Tensor], device: torch.device
) -> None:
    """Fill the empty layers whose names begin with `within`; their weights are `lying` on the CPU, by name."""
    convert = quantizer.get_quantize_ops()
    for name, weight in [item for item in model.named_parameters() if item[0].startswith(within)]:
        if not weight.is_meta:
            continue
        module, _, leaf = name.rpartition(".")
        filled = lying.pop(name).data.to(device)
        if quantizer.param_needs_quantization(model, name):
            filled = convert.convert({name: filled}, model=model)[name]
        else:  # a bias
            filled = nn.Parameter(filled, requires_grad=False)
        setattr(model.get_submodule(module), leaf, filled)
