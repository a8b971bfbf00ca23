"""What both attentions of ours share: where they are put, what they take, and what they do not compute."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

# What a model may ask of its attention by these names, ours do not compute: capped scores, attention sinks, and a bias
# by position. Anything else that they miss shows in their numbers (`llm.proof`).
NOT_COMPUTED = ("softcap", "s_aux", "position_bias")


def refuse(asked: Mapping[str, Any]) -> None:
    """Raise NotImplementedError if the keyword arguments of an attention hold what ours do not compute."""
    for name in NOT_COMPUTED:
        if asked.get(name) is not None:
            raise NotImplementedError(f"its attention has {name}")


def failed(error: Exception) -> str:
    """What a model did with an attention that is not its own, for a report."""
    return f"it fails with {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:120]}"


def takes_flash(query: torch.Tensor) -> bool:
    """Whether PyTorch's flash attention takes this: half precision, heads of up to 256, Ampere or later."""
    fits = query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] <= 256
    return fits and torch.cuda.get_device_capability(query.device) >= (8, 0)


def core(model: PreTrainedModel) -> PreTrainedModel:
    """The causal language model inside an adapter's wrapper; the adapter's layers stay in it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: PreTrainedModel) -> PreTrainedModel:
    """The language model without its head, and without the towers for images or sound that some models have."""
    return core(model).get_decoder()


def replaceable(model: PreTrainedModel) -> bool:
    """Whether the model calls its attention by a name that can be set."""
    inner = decoder(model)
    return isinstance(inner, PreTrainedModel) and inner._can_set_attn_implementation()
